"""The check of a data set, for people."""

from collections.abc import Iterator, Mapping, Sequence

from msad_cli.cli.console import print_line, print_result
from msad_cli.cli.output.tables import print_table
from msad_cli.data.annotations.check import Report, SplitReport
from msad_cli.data.annotations.problems import BEYOND_REPAIR

MOST_CLASSES = 20
"""Rows of a table of classes."""
SIZES = ("5%", "50%", "95%", "under 8")
"""Quantiles, and the share of the smallest."""
SHOWN = 3
"""Examples of a problem."""


def print_problems(report: Report) -> None:
    """A plain line for each kind of problem."""
    for line in report.lines():
        print_line(line)


def print_counts(report: Report) -> None:
    """What the splits hold, in tables with a column for each."""
    splits = report.splits
    for split in splits:
        print_result(f"{split.name}: {split.file}, images in {split.folder}")
    counts = dict.fromkeys(what for split in splits for what in split.counts)
    rows = [(what, *(str(split.counts.get(what, 0)) for split in splits)) for what in counts]
    names = [split.name for split in splits]
    print_table("", [["", *names], *rows])
    print_table("", [["boxes to learn from, by class", *names], *_class_rows(splits)])
    for split in splits:
        print_table("", [[f"sides of objects, {split.name}, pixels", *SIZES], *_size_rows(split)])


def print_report(report: Report) -> None:
    """All of it."""
    print_counts(report)
    if report.problems:
        print_table("problems", [("in", "count", "what, and what msad does"), *_problems(report)])
    if any(each.code not in BEYOND_REPAIR for _, each in report.problems):
        print_line("msad data check PATH --split NAME --fix -o FILE writes annotations without what can be repaired")
    if not any(each.fatal for _, each in report.problems):
        print_result("usable, with the problems above" if report.problems else "usable: no problems found")


def print_repairs(done: Mapping[str, int], out: str) -> None:
    """What was done to an annotation file."""
    for what, count in done.items():
        print_result(f"{count} {what}")
    print_line(f"{out} written" + ("" if done else ": there was nothing to repair"))


def _class_rows(splits: Sequence[SplitReport]) -> Iterator[tuple[str, ...]]:
    boxes = [{category: count for category, _, count in split.classes} for split in splits]
    ranked = sorted(splits[0].classes, key=lambda each: -each[2])
    for category, name, _ in ranked[:MOST_CLASSES]:
        yield f"{category} {name}", *(str(each.get(category, 0)) for each in boxes)
    if rest := [category for category, _, _ in ranked[MOST_CLASSES:]]:
        yield f"and {len(rest)} more", *(str(sum(each.get(category, 0) for category in rest)) for each in boxes)


def _size_rows(split: SplitReport) -> Iterator[tuple[str, ...]]:
    for each in split.sizes:
        view = "at HR" if each.k == 1 else f"at 1/{each.k}"
        yield view, *(f"{value:.1f}" for value in each.quantiles), f"{each.small_share:.1%}"


def _problems(report: Report) -> Iterator[tuple[str, ...]]:
    for name, each in report.problems:
        lines = [f"{each.what}: {'fatal, ' if each.fatal else ''}{each.outcome}"]
        lines += [f"  {example}" for example in each.examples[:SHOWN]]
        lines += [f"  → {each.advice}"] if each.advice else []
        yield name, str(each.count), "\n".join(lines)
