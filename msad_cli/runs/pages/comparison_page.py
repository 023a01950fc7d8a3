"""The page of `msad compare --report`: models side by side, then each of them."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from msad_cli.runs.comparison import Comparison, points_of, short_names
from msad_cli.runs.folder import RunFolder
from msad_cli.runs.members import Member, read_member
from msad_cli.runs.pages import sentences
from msad_cli.runs.pages.sections import by_class, costs, findings, how_made, over_epochs, samples, scores
from msad_cli.runs.pages.skeleton import chart, document, heading, paragraph, section
from msad_cli.runs.plots.pareto import pareto_figure


def comparison_page(
    models: Sequence[Path],
    comparison: Comparison,
    budget: float | None,
    advice: str,
    remarks: Sequence[str],
) -> str:
    """The page of model files, the first being the reference.

    Args:
        budget: in milliseconds.
        advice: what was said on it.
        remarks: lines below the verdict.

    Raises:
        UsageError: a run folder is damaged.
        ModelFileError: a model file is.
    """
    by_folder: dict[Path, Member] = {}
    for path, name in short_names(models).items():
        folder = RunFolder(path).path
        if folder not in by_folder:  # a model and its exported files have one
            by_folder[folder] = read_member(path, name=name)
    members = list(by_folder.values())
    points = points_of(comparison.rows)
    pareto = partial(pareto_figure, points, comparison.where, budget)
    return document(
        "msad compare",
        heading("msad compare", sentences.of_models(members, comparison, advice)),
        *map(paragraph, remarks),
        costs(comparison, accuracy=True),
        section("Accuracy and latency", chart(pareto, "pareto")) if points else "",
        scores(members),
        over_epochs(None, members),
        by_class(members),
        *(part(each, several=True) for each in members for part in (findings, samples, how_made)),
    )
