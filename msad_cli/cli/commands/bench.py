"""msad bench: latency of models, part by part, taking turns."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msad_cli.cli import options
from msad_cli.errors import UsageError
from msad_cli.text import MOST_PIXELS, parse_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msad_cli.models.spec import View
    from msad_cli.system.device import Compute

MOST_IMAGES = 50
WARMUP = 3
"""Runs of each model that do not count."""


def bench(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Model files, measured in turn.")],
    inputs: options.TimedImages = None,
    runs: Annotated[int, typer.Option(min=1, help="Counted runs of each model.")] = 50,
    batch: Annotated[int, typer.Option(min=1, help="Images a run.")] = 1,
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
    from msad_cli.cli.json_output import print_json
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
        print_json({"models": report, "batch": batch, "peak_memory_mib": memory, **_machine(compute)})
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
) -> dict[str, dict[str, float]]:
    """The `summary` of each model's runs, by its file and `wanted_views`; the models take turns, run by run.

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

    rows: dict[str, tuple[Model, View]] = {}
    sets = []
    for path in models:
        detector, card = open_model(path, runtime if is_exported(path) else None)
        sets.append(card.data)
        views = wanted_views(view, detector.spec, path)
        rows |= {f"{path}{suffix}": (detector, each) for each, suffix in views.items()}
        if compiled and isinstance(detector, Detector):
            again, _ = load_model(path)
            compile_parts([again], compute.device)
            rows |= {f"{path}{suffix}, compiled": (again, each) for each, suffix in views.items()}
        for other in others if path.suffix == ".onnx" else ():
            elsewhere, _ = open_model(path, other)
            rows |= {f"{path}{suffix}, {other}": (elsewhere, each) for each, suffix in views.items()}
        if stock:
            name, (spec, best) = next(iter(relatives(detector.spec, card.teacher_spec).items()))
            rows.setdefault(f"{name}, {spec.backbone}", (Detector(spec).eval(), best))
    if compute.device.type != "cpu" and any(isinstance(model, ExportedModel) for model, _ in rows.values()):
        print_line("exported models compute on the CPU, the others on the device: compare rows of one kind")
    images = _images(inputs, sets[0])
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
    for number in range(runs + WARMUP):
        paths = [images[(number * batch + i) % len(images)] for i in range(batch)]
        for name, (detector, best) in rows.items():
            parts = timed_parts(detector.to(compute.device), best, paths, compute)
            if number >= WARMUP:
                taken[name].append(parts)
    return {name: summary(each, batch) for name, each in taken.items()}


def summary(taken: "Sequence[dict[str, float]]", batch: int) -> dict[str, float]:
    """Milliseconds: the median of each part, median and 95th percentile of their sums; and images a second."""
    import numpy as np

    sums = np.array([sum(each.values()) for each in taken])
    parts = {f"{part}_ms": 1000 * float(np.median([each[part] for each in taken])) for part in taken[0]}
    middle, late = np.quantile(sums, (0.5, 0.95)).tolist()
    return {**parts, "p50_ms": 1000 * middle, "p95_ms": 1000 * late, "images_per_second": batch / middle}


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


def machine_in_words(compute: "Compute") -> str:
    """Where latencies are measured: they mean nothing elsewhere."""
    return ", ".join(f"{name} {value}" for name, value in _machine(compute).items())


def _machine(compute: "Compute") -> dict[str, Any]:
    import torch

    return {
        "device": str(compute.device),
        "precision": compute.precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _print(report: dict[str, dict[str, float]], title: str, first: str) -> None:
    from msad_cli.cli.console import print_table

    columns = list(report[first])
    shown = (each.removesuffix("_ms").replace("images_per_second", "images/s") for each in columns)
    rows = [["model", *shown, "ratio"]]
    for name, numbers in report.items():
        ratio = numbers["p50_ms"] / report[first]["p50_ms"]
        rows.append([name, *(f"{numbers[each]:.1f}" for each in columns), f"{ratio:.2f}"])
    print_table(title, rows)
