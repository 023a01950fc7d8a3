"""What `msad eval --size A,B,C` says: AP over the size of the input (the paper's figure 4c)."""

from collections.abc import Mapping
from pathlib import Path

from msad_cli.cli.console import print_line
from msad_cli.cli.output.scores import print_scores
from msad_cli.evaluation.metrics import Scores
from msad_cli.runs.plots.epochs import plot_sizes


def report_sizes(model: Path, measured: Mapping[int, Mapping[str, Scores]], plot: Path | None, quiet: bool) -> None:
    """Draws the image, and prints a table.

    Args:
        measured: by the short side of the input in pixels, the scores of each view.
        plot: where to; beside the model if nowhere else.
    """
    views = list(next(iter(measured.values())))
    path = plot or model.with_suffix(".sizes.png")
    plot_sizes(
        model.stem, {view: {side: of[view].numbers["AP"] for side, of in measured.items()} for view in views}, path
    )
    if not quiet:
        rows = {f"{side} {view}": each.numbers for side, of in measured.items() for view, each in of.items()}
        print_scores(f"{model} over the short side of its input", rows, "pixels, view")
        print_line(f"drawn: {path}")
