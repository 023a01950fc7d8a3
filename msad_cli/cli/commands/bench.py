"""msad bench: latency of models, part by part, taking turns."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msad_cli.cli import options
from msad_cli.errors import UsageError
from msad_cli.text import MOST_PIXELS, parse_pixels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from msad_cli.models.spec import View
    from msad_cli.system.device import Compute

MOST_IMAGES = 50
WARMUP = 3
"""Runs of each model that do not count."""


@dataclass(frozen=True)
class Timed:
    """A model's view and how long it takes.

    Attributes:
        file: None of torchvision's detector.
        milliseconds: the median of each part, `p50` and `p95` of their sums.
        images_per_second: by the median.
    """

    file: Path | None
    view: "View"
    milliseconds: dict[str, float]
    images_per_second: float

    def to_json(self) -> dict[str, Any]:
        """What a document says of the time."""
        return {"latency_ms": self.milliseconds, "images_per_second": self.images_per_second}


def bench(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Model files, measured in turn.")],
    inputs: options.TimedImages = None,
    runs: Annotated[int, typer.Option(min=1, help="Counted runs of each model.")] = 50,
    batch: Annotated[int, typer.Option(min=1, rich_help_panel="Machine", help="Images a run.")] = 1,
    stock: Annotated[
        bool, typer.Option("--stock", help="Beside them torchvision's detector at HR, with random weights.")
    ] = False,
    view: Annotated[
        str | None, typer.Option(metavar="high|middle|low|fused|all", help="Default: each model's best.")
    ] = None,
    max_pixels: options.MaxPixels = MOST_PIXELS,
    runtime: options.Runtime = None,
    device: options.Device = "auto",
    precision: options.PrecisionName = "auto",
    compile_: Annotated[
        bool, typer.Option("--compile", help="Beside them each model with backbone, pyramid and head by torch.compile.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Measure latency from the file to its boxes: decode, preprocess, model, postprocess."""
    from msad_cli.cli.console import console
    from msad_cli.cli.output.json_output import model_json, print_models
    from msad_cli.data.images.decode import limit_pixels
    from msad_cli.export.formats import RUNTIMES
    from msad_cli.system.device import choose_compute, peak_memory

    limit_pixels(parse_pixels(max_pixels))
    compute = choose_compute(device, precision)
    others = [] if runtime else [name for name in list(RUNTIMES)[1:] if find_spec(name)]
    report = measure(
        models,
        inputs,
        runs,
        compute,
        batch=batch,
        stock=stock,
        view=view,
        compiled=compile_,
        runtime=runtime,
        others=others,
    )
    memory = peak_memory(compute.device)
    if as_json:
        models_json = (model_json(name, of.file, of.view, **of.to_json()) for name, of in report.items())
        print_models(
            "bench", models_json, runs=runs, batch=batch, peak_memory_mib=memory, machine=machine_json(compute)
        )
        return
    _print(report, f"{runs} runs of {batch}", first=next(iter(report)))
    about = f"{machine_in_words(compute)}; peak memory {memory:.0f} MiB of all; in milliseconds"
    console.print(f"{about}. Compare rows of one table only.")


def measure(
    models: "Sequence[Path]",
    inputs: list[str] | None,
    runs: int,
    compute: "Compute",
    *,
    batch: int = 1,
    stock: bool = False,
    view: str | None = None,
    compiled: bool = False,
    runtime: str | None = None,
    others: "Sequence[str]" = (),
) -> dict[str, Timed]:
    """The latency of each model's view, by its file and `wanted_views`; the models take turns, run by run.

    Args:
        inputs: images and folders; None for the validation split of the first model.
        stock: torchvision's detector at HR stands behind the first model that it is like.
        view: None for each model's best, `all` for each of its views.
        compiled: each model stands there a second time, compiled.
        runtime: of the .onnx files; the usual one unless given.
        others: runtimes by which each .onnx file stands there once more.

    Raises:
        UsageError: no images, or a model without the view.
        ModelFileError: a model cannot be read.
    """
    from msad_cli.cli.console import print_line
    from msad_cli.evaluation.latency import timed_parts
    from msad_cli.export.formats import is_exported
    from msad_cli.export.runtime import ExportedModel, Model, open_model
    from msad_cli.models.compiled import compile_parts
    from msad_cli.models.cost import relatives
    from msad_cli.models.detector import Detector
    from msad_cli.models.model_file import load_model
    from msad_cli.models.views import wanted_views

    rows: dict[str, tuple[Model, View, Path | None]] = {}
    sets = []
    for path in models:
        detector, card = open_model(path, runtime if is_exported(path) else None)
        sets.append(card.data)
        views = wanted_views(view, detector.spec, path)
        rows |= {f"{path}{suffix}": (detector, each, path) for each, suffix in views.items()}
        if compiled and isinstance(detector, Detector):
            again, _ = load_model(path)
            compile_parts([again], compute.device)
            rows |= {f"{path}{suffix}, compiled": (again, each, path) for each, suffix in views.items()}
        for other in others if path.suffix == ".onnx" else ():
            elsewhere, _ = open_model(path, other)
            rows |= {f"{path}{suffix}, {other}": (elsewhere, each, path) for each, suffix in views.items()}
        if stock:
            name, (spec, best) = next(iter(relatives(detector.spec, card.teacher_spec).items()))
            rows.setdefault(f"{name}, {spec.backbone}", (Detector(spec).eval(), best, None))
    if compute.device.type != "cpu" and any(isinstance(model, ExportedModel) for model, *_ in rows.values()):
        print_line("exported models compute on the CPU, the others on the device: compare rows of one kind")
    images = _images(inputs, sets[0])
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
    for number in range(runs + WARMUP):
        paths = [images[(number * batch + i) % len(images)] for i in range(batch)]
        for name, (detector, best, _) in rows.items():
            parts = timed_parts(detector.to(compute.device), best, paths, compute)
            if number >= WARMUP:
                taken[name].append(parts)
    return {name: Timed(file, seen, *summary(taken[name], batch)) for name, (_, seen, file) in rows.items()}


def summary(taken: "Sequence[dict[str, float]]", batch: int) -> tuple[dict[str, float], float]:
    """Milliseconds, `p50` and `p95` of the sums and the median of each part; and images a second."""
    import numpy as np

    sums = np.array([sum(each.values()) for each in taken])
    parts = {part: 1000 * float(np.median([each[part] for each in taken])) for part in taken[0]}
    middle, late = np.quantile(sums, (0.5, 0.95)).tolist()
    return {"p50": 1000 * middle, "p95": 1000 * late, **parts}, batch / middle


def _images(inputs: list[str] | None, data: str) -> list[Path]:
    """What is looked at, the first of them if there are many.

    Raises:
        UsageError: nothing was named, and the model's own set is not here.
    """
    from msad_cli.data.annotations.records import read_records
    from msad_cli.data.layouts.splits import find_split
    from msad_cli.errors import DataError
    from msad_cli.inference.inputs import find_inputs

    if inputs:
        return [each.path for each in find_inputs(inputs)][:MOST_IMAGES]
    try:
        files = find_split(data or None, "val")
        records = read_records(files.annotations, files.images, root=files.root)
    except (UsageError, DataError) as error:
        raise UsageError(f"no images: {error.message}", "name some with --input", code="no-images-given") from None
    return [records.folder / str(name) for name in records.file_names[:MOST_IMAGES]]


def medians(measured: "Mapping[str, Timed]") -> dict[str, float]:
    """Milliseconds by name."""
    return {name: each.milliseconds["p50"] for name, each in measured.items()}


def machine_in_words(compute: "Compute") -> str:
    """Where latencies are measured: they mean nothing elsewhere."""
    return ", ".join(f"{name} {value}" for name, value in machine_json(compute).items())


def machine_json(compute: "Compute") -> dict[str, Any]:
    """The same for programs."""
    import torch

    return {
        "device": str(compute.device),
        "precision": compute.precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _print(report: dict[str, Timed], title: str, first: str) -> None:
    from msad_cli.cli.output.tables import print_table

    whole = report[first].milliseconds
    middle, late, *parts = whole
    rows = [["model", "ratio", middle, late, "images/s", *parts]]
    for name, of in report.items():
        ratio = of.milliseconds[middle] / whole[middle]
        of_all, of_late, *of_parts = (f"{each:.1f}" for each in of.milliseconds.values())
        rows.append([name, f"{ratio:.2f}", of_all, of_late, f"{of.images_per_second:.1f}", *of_parts])
    print_table(title, rows)
