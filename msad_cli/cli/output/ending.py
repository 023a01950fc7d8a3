"""The end of a training, for people: what was made, what it finds, where to look, what to type next."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msad_cli.cli.console import print_line, print_result
from msad_cli.cli.output.tables import print_table
from msad_cli.evaluation.metrics import KINDS, PREFIXES, never_found
from msad_cli.text import listed, percent

if TYPE_CHECKING:
    from msad_cli.training.run import Outcome

FEW_CLASSES = 20
"""Whose AP is told one by one."""


def print_model(outcome: "Outcome") -> None:
    """The model file with its size and what it holds, and its AP by class where these are few."""
    assert outcome.run is not None
    own, *_ = outcome.scores.values()
    print_result(f"{outcome.model}, {outcome.model.stat().st_size / 2**20:.1f} MiB: {outcome.held}")
    kinds = KINDS[outcome.run.detector.spec.task]
    if 1 < len(own.per_class) <= FEW_CLASSES:
        names = [f"{PREFIXES[kind]}{number}" for kind in kinds for number in ("AP", "AP50")]
        rows = [[name, *(percent(of.get(each)) for each in names)] for name, of in own.per_class.items()]
        print_table("", [["class", *(each.replace("_", " ") for each in names)], *rows])
    if never := never_found(own.per_class):
        print_result(f"never found, at no IoU of 0.5 or more: {listed(never)}")


def print_end(outcome: "Outcome", remarks: Sequence[str], following: str) -> None:
    """Remarks, where the report lies, and the next command; empty ones are left out."""
    assert outcome.run is not None
    folder = outcome.run.folder
    where = f"report: {folder.report if folder.report.exists() else folder.path}"
    for line in filter(None, (*remarks, where, following and f"next: {following}")):
        print_line(line)
