"""msad plot: the plots and the page of a run, made again from what its folder holds."""

from pathlib import Path
from typing import Annotated

import typer

from msad_cli.cli import options
from msad_cli.errors import UsageError

HINT = "give FILE.run, which msad teacher and distill write, or the model file"


def plot(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, FILE.run, or its model file.")],
    quiet: options.Quiet = False,
) -> None:
    """Draw the plots of a run again, and its report.html: AP and losses, and what a finished run finds."""
    from msad_cli.cli.console import print_line
    from msad_cli.runs.folder import RunFolder
    from msad_cli.runs.members import relatives
    from msad_cli.runs.pages.run_page import write_run_page
    from msad_cli.runs.plots.epochs import plot_epochs
    from msad_cli.runs.plots.figures import write_figure
    from msad_cli.runs.plots.results import drawings
    from msad_cli.runs.run_curves import read_curves

    run = run if run.name else run.absolute()  # `.`, in the folder itself
    if run.is_dir() and run.suffix != ".run":
        raise UsageError(f"{run}: not a run's folder", HINT, code="not-a-run")
    folder = RunFolder(run)
    rows = folder.rows()
    if not rows:
        what = "no results.csv with an epoch in it" if folder.path.is_dir() else "no such folder"
        raise UsageError(f"{folder.path}: {what}", HINT, code="not-a-run")
    curves = read_curves(folder.curves)
    model = folder.path.with_suffix(".safetensors")
    drawn = plot_epochs(model.stem, rows, folder.plots, relatives(model))
    if curves is not None:
        for name, draw in drawings(curves).items():
            drawn.append(folder.plots / f"{name}.png")
            write_figure(draw(curves, model.stem), drawn[-1])
    drawn.append(write_run_page(model))
    for path in () if quiet else drawn:
        print_line(f"drawn: {path}")
    if curves is None and not quiet:
        print_line(f"no {folder.curves}: a run writes it at its end; precision, F1, confusion and sizes need it")
