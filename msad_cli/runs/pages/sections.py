"""The sections that pages share: numbers, curves, classes, what one model finds, samples, how it was made."""

import json
import math
import shlex
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from msad_cli.evaluation.metrics import KINDS, PREFIXES
from msad_cli.runs.comparison import ACCURACY, OTHER_KINDS, Comparison, columns_of, table_cells
from msad_cli.runs.members import Member, read_record, read_settings
from msad_cli.runs.pages.skeleton import (
    bars,
    chart,
    commands,
    folded,
    image,
    paragraph,
    section,
    table,
    text,
)
from msad_cli.runs.plots.epochs import epoch_drawings
from msad_cli.runs.plots.results import drawings
from msad_cli.runs.run_curves import RunCurves, shares
from msad_cli.text import percent

MOST_BARS = 30
"""Classes that are shown at once; the others are a click away."""
STAMP = len("2026-11-30 13:34:05")
NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def scores(members: Sequence[Member]) -> str:
    """AP by view, kind and size, a row a view."""
    rows = []
    for member in members:
        for view, numbers in member.scores.items():
            for kind, (*_, own) in KINDS.items():
                if f"{PREFIXES[own]}AP" in numbers:
                    cells = (percent(numbers.get(PREFIXES[own] + name)) for name in NUMBERS)
                    rows.append([member.name, view, kind, *cells])
    return section("Accuracy", table([["model", "view", "of", *NUMBERS], *rows], texts=3) if rows else "")


def costs(comparison: Comparison, accuracy: bool = False) -> str:
    """What models cost and how long they take.

    Args:
        accuracy: whether their AP stands there too.
    """
    if not comparison.rows:
        return ""
    left_out = ("what", *(() if accuracy else (*ACCURACY, *OTHER_KINDS)))
    columns = ["what", *(each for each in columns_of(comparison.rows) if each not in left_out)]
    timed = comparison.where or "not measured; msad compare MODEL… --report FILE.html measures them"
    return section(
        "Side by side" if accuracy else "Cost and latency",
        table(table_cells(comparison.rows, columns), texts=2),
        paragraph(
            "GMACs: thousands of millions of multiply-accumulates of an image, then by part. "
            f"ms: median latency of an image, from file to boxes: {timed}."
        ),
    )


def over_epochs(member: Member | None, beside: Sequence[Member]) -> str:
    """AP and losses, of all models in the same plots; of none in particular where all are beside."""
    name, rows = (member.name, member.rows) if member is not None else ("", [])
    if not rows and not any(each.rows for each in beside):
        return ""
    draw = epoch_drawings(name, rows, beside)
    caption = "Dashed: the models beside it. A level is what a file says whose run folder is not here."
    said = caption if member is not None and beside else ""
    return section("Over epochs", *(chart(draw[each], each, said) for each in ("ap", "loss") if each in draw))


def by_class(members: Sequence[Member]) -> str:
    """AP of each class, the classes in which the first model is the weakest before the others."""
    known = [each for each in members if each.per_class]
    if not known:
        return ""
    before = known[0].ap_name
    names = dict.fromkeys(name for each in known for name in each.per_class)
    values = {name: [each.per_class.get(name, {}).get(before) for each in known] for name in names}
    ranked = sorted(values, key=lambda name: _rank(values[name][0]))
    groups = {name: [_bar_of(value) for value in values[name]] for name in ranked}
    keys = [each.label for each in known]
    shown, rest = dict(list(groups.items())[:MOST_BARS]), dict(list(groups.items())[MOST_BARS:])
    return section(
        "By class",
        paragraph(f"{before.replace('_', ' ')} of each class, the weakest first."),
        bars(shown, keys),
        folded(f"{len(rest)} more classes", bars(rest, keys)) if rest else "",
    )


def _rank(value: float | None) -> float:
    return math.inf if value is None or math.isnan(value) else value


def _bar_of(value: float | None) -> tuple[float | None, str]:
    if value is None:
        return None, "-"
    return (None, "no objects") if math.isnan(value) else (value, "nothing found" if value == 0 else percent(value))


def findings(member: Member, several: bool = False) -> str:
    """Precision over recall, F1, confusion matrix, sizes, and the fusion's weights.

    Args:
        several: whether the page has such a section of each of several models.
    """
    curves = member.curves
    if curves is None:
        return ""
    draw = {name: each for name, each in drawings(curves).items() if name != "confusion"}  # a table can be read
    plots = {name: chart(partial(each, curves, member.name), f"{member.name} {name}") for name, each in draw.items()}
    return "\n".join(
        [
            section(_of(member, "Precision and recall", several), plots.pop("pr"), plots.pop("f1")),
            section(_of(member, "True and predicted", several), confusion_table(curves)),
            section(_of(member, "Sizes", several), plots.pop("sizes")),
            section(_of(member, "Fusion", several), *plots.values()),
        ]
    )


def _of(member: Member, what: str, several: bool) -> str:
    return f"{member.name}: {what.lower()}" if several else what


def confusion_table(curves: RunCurves) -> str:
    """The confusion matrix in percent of the true objects, with counts."""
    names = [*curves.classes, "background"]
    share = shares(curves.confusion)
    head = "".join(f"<th>{text(name)}</th>" for name in names)
    rows = []
    for name, counts, parts in zip(names, curves.confusion, share, strict=True):
        cells = (
            f'<td style="background:color-mix(in srgb,var(--blue) {60 * part:.0f}%,transparent)">'
            f"{part:.0%}<small>{count:,}</small></td>"
            if count
            else "<td></td>"
            for count, part in zip(counts.tolist(), parts.tolist(), strict=True)
        )
        rows.append(f"<tr><th>{text(name)}</th>{''.join(cells)}</tr>")
    caption = (
        f"Down: what an object is. Across: as what it is found, with a score of at least {curves.threshold:.2f} and an "
        "IoU of 0.5. Percent are of the objects of a row; in the last row, what is found where nothing is, of all that "
        "is found of a class."
    )
    return (
        f'<div class="wide"><table class="confusion"><thead><tr><th>true ↓ predicted →</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{paragraph(caption)}"
    )


def samples(member: Member, several: bool = False) -> str:
    """Images with objects and with what was found, and the first training batch."""
    folder = member.folder.samples
    return section(
        _of(member, "Samples", several),
        image(folder / "validation.jpg", "objects of validation images, and beside them what the model found"),
        image(folder / "training.jpg", "the first training batch, as the model sees it"),
    )


def how_made(member: Member, several: bool = False) -> str:
    """The command, the settings with their reasons, and what it ran on."""
    folder = member.folder
    env, settings = read_record(folder.path / "env.json"), read_settings(folder)
    if not env and not settings:
        return ""
    words = env.get("command")
    typed = [shlex.join(["msad", *map(str, words[1:])])] if isinstance(words, list) and words else []
    facts = [f"{name} {value}" for name, value in env.items() if name != "command"]
    rows = [
        [name, _plain(each.get("value")), str(each.get("source", "")), str(each.get("reason", ""))]
        for name, each in settings.items()
    ]
    chosen = [row for row in rows if row[2] != "default"]
    head = ["setting", "value", "source", "why"]
    plain = [row for row in rows if row[2] == "default"]
    return section(
        _of(member, "How it was made", several),
        commands(typed) if typed else "",
        paragraph("; ".join(filter(None, (_when(folder.path / "log.txt"), _held(member), ", ".join(facts))))),
        table([head, *chosen], texts=len(head)) if chosen else "",
        folded(f"{len(plain)} settings by default", table([head, *plain], texts=len(head))) if plain else "",
    )


def _held(member: Member) -> str:
    card = member.card
    if card is None:
        return ""
    return f"the file holds epoch {card.epochs} of {card.run_epochs} ({card.keep}){', unfinished' * card.unfinished}"


def _when(log: Path) -> str:
    """When the run's log begins and ends."""
    with suppress(OSError, ValueError):
        lines = log.read_text(encoding="utf-8").splitlines()
        return f"{lines[0][:STAMP]} to {lines[-1][:STAMP]}" if lines else ""
    return ""


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
