"""The plots and samples that a run leaves in its folder while it goes and at its end; none of them can end it."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from msad_cli.data.annotations.split import CocoSplit
from msad_cli.data.loading.dataset import TrainingSet, first_batch
from msad_cli.errors import OutputError
from msad_cli.evaluation.confusion import confusion
from msad_cli.evaluation.fusion_weights import fusion_weights, weighs
from msad_cli.evaluation.metrics import Result, Scores
from msad_cli.models.detector import Detector
from msad_cli.runs.comparison import Comparison, table_rows, write_comparison
from msad_cli.runs.folder import RunFolder
from msad_cli.runs.members import find_control, find_teacher, relatives
from msad_cli.runs.pages.run_page import write_run_page
from msad_cli.runs.plots.epochs import plot_epochs
from msad_cli.runs.plots.figures import write_figure
from msad_cli.runs.plots.results import Draw, drawings
from msad_cli.runs.run_curves import Fusion, RunCurves, collect_curves, write_curves
from msad_cli.runs.samples import MOST_FOUND, MOST_TRAINED, draw_found, draw_training, spread
from msad_cli.system.device import Compute
from msad_cli.system.distributed import rank

TIMED = 10
"""Images on which the latency of what is compared at the end is measured."""
WEIGHED = 16
"""Images on which a fusion's weights are looked at."""

P = ParamSpec("P")
Latencies = Callable[[Sequence[Path], Sequence[Path], Compute], tuple[Mapping[str, float], str]]
"""Model files and images -> milliseconds, as `table_rows` takes them, and on what machine; nothing where none are
wanted."""
Drawing = Callable[Concatenate[RunFolder, P], None]


def _in_passing(draw: Drawing[P]) -> Drawing[P]:
    """Has the first process alone draw, and makes of whatever goes wrong a line in the log."""

    @wraps(draw)
    def attempt(folder: RunFolder, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if rank() > 0:
            return
        try:
            draw(folder, *args, **kwargs)
        except Exception as error:
            with contextlib.suppress(OutputError):
                folder.log(f"not drawn ({draw.__name__}): {type(error).__name__}: {error}")

    return attempt


@_in_passing
def show_training(folder: RunFolder, training: TrainingSet, batch: int) -> None:
    """The first images of the first batch."""
    draw_training(first_batch(training, batch, MOST_TRAINED), training.split, folder.samples / "training.jpg")


@_in_passing
def show_epochs(folder: RunFolder, rows: Sequence[Mapping[str, float]]) -> None:
    """Losses and AP up to now, and those of the teacher and the control."""
    plot_epochs(folder.model.stem, rows, folder.plots, relatives(folder.model))


@_in_passing
def show_end(
    folder: RunFolder,
    detector: Detector,
    split: CocoSplit,
    truth: Mapping[str, Any],
    results: Sequence[Result],
    scores: Mapping[str, Scores],
    compute: Compute,
    latencies: Latencies,
) -> None:
    """What there is to see at the end: curves.json, its plots, some images of the split, costs, and the page of all.

    Args:
        results: of the model's best view, the first of `scores`.
        latencies: of the models that are compared, where there is a teacher.
    """
    threshold = next(iter(scores.values())).threshold
    _show_found(folder, split, results, threshold)
    try:
        fusion = _fusion(detector, split, compute) if weighs(detector) else None
        curves = collect_curves(truth, scores, confusion(truth, results, threshold), fusion)
        write_curves(folder.curves, curves)
        for name, draw in drawings(curves).items():
            _show_plot(folder, curves, name, draw)
    finally:  # the page shows what there is
        _show_costs(folder, split, compute, latencies)
        show_page(folder)


@_in_passing
def _show_found(folder: RunFolder, split: CocoSplit, results: Sequence[Result], threshold: float) -> None:
    draw_found(split, spread(split, MOST_FOUND), results, threshold, folder.samples / "validation.jpg")


@_in_passing
def _show_plot(folder: RunFolder, curves: RunCurves, name: str, draw: Draw) -> None:
    write_figure(draw(curves, folder.model.stem), folder.plots / f"{name}.png")


def compared(model: Path) -> list[Path]:
    """The files that are compared at the end of a run: the control, which is the reference, the model, its teacher."""
    there = (find_control(model), model, find_teacher(model))
    return [each for each in there if each is not None and each.is_file()]


@_in_passing
def _show_costs(folder: RunFolder, split: CocoSplit, compute: Compute, latencies: Latencies) -> None:
    """compared.json: what the model costs, its teacher and its control, and of a student how long they take."""
    models, beside = compared(folder.model), find_teacher(folder.model)
    measured, where = latencies(models, split.paths[:TIMED], compute) if beside else ({}, "")
    write_comparison(folder, Comparison(table_rows(models, "all", measured), where))


@_in_passing
def show_page(folder: RunFolder) -> None:
    """report.html, of what the folder holds."""
    write_run_page(folder.model)


def _fusion(detector: Detector, split: CocoSplit, compute: Compute) -> Fusion:
    weights = fusion_weights(detector, split, compute, spread(split, WEIGHED))
    spec = detector.spec
    return Fusion(tuple(spec.levels), spec.ks, weights.mean(axis=0), weights.std(axis=0))
