"""report.html of a fit: verdict, candidates, what came of the trainings, and commands."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msad_cli.errors import MsadError
from msad_cli.runs.members import Member, read_member
from msad_cli.runs.pages.sections import by_class, findings, over_epochs, samples, scores
from msad_cli.runs.pages.skeleton import commands, document, heading, paragraph, section, table, text


def page(
    verdict: str,
    rows: Sequence[Sequence[str]],
    chosen: Sequence[int],
    remarks: Sequence[str],
    typed: Sequence[str],
    models: Mapping[str, Path],
) -> str:
    """The page.

    Args:
        rows: the table of candidates, its first row being the head.
        chosen: places of rows that were taken, from 1.
        remarks: lines below it: how it was measured, and why it was decided so.
        typed: the commands.
        models: the files of what was trained, by what it is; one that cannot be read is left out.
    """
    members: list[Member] = []
    for name, model in models.items():
        with suppress(MsadError):  # the verdict stands whatever became of a run folder
            members.append(read_member(model, name=name))
    return document(
        "msad fit",
        heading("msad fit", [f"<strong>{text(verdict)}</strong>"]),
        section("Candidates", table(rows, len(rows[0]), chosen), *map(paragraph, remarks)),
        scores(members),
        over_epochs(None, members),
        by_class(members),
        *(part(each, several=True) for each in members for part in (findings, samples)),
        section("Commands", commands(typed)),
    )
