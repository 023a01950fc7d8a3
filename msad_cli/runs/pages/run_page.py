"""report.html of a run folder: the model of the run, with its teacher and its control beside it."""

from pathlib import Path

from msad_cli.runs.comparison import Comparison, read_comparison
from msad_cli.runs.members import Member, read_member, relatives
from msad_cli.runs.pages import sentences
from msad_cli.runs.pages.sections import by_class, costs, findings, how_made, over_epochs, samples, scores
from msad_cli.runs.pages.skeleton import document, heading, paragraph
from msad_cli.system.files import write_text


def write_run_page(model: Path) -> Path:
    """Writes the page of a model's run folder, of what is there.

    Raises:
        UsageError: the run folder is damaged.
        ModelFileError: the model file is.
        OutputError: the page cannot be written.
    """
    member = read_member(model)
    page = run_page(member, relatives(model), read_comparison(member.folder))
    write_text(member.folder.report, page)
    return member.folder.report


def run_page(member: Member, beside: list[Member], comparison: Comparison) -> str:
    """The page of a model and of those that stand beside it."""
    everyone = [member, *beside]
    finished = "" if member.curves is not None else "The run has not come to its end: what is found is shown there."
    return document(
        f"{member.name}: report",
        heading(member.name, sentences.of_run(member, beside, comparison)),
        paragraph(finished),
        scores(everyone),
        over_epochs(member, beside),
        by_class(everyone),
        findings(member),
        samples(member),
        costs(comparison),
        how_made(member),
    )
