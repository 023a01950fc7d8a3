"""msad export: a model as one ordinary graph, checked against itself before it is written."""

import hashlib
import itertools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msad_cli.cli import options
from msad_cli.errors import ModelFileError, UsageError
from msad_cli.export.base import ExportFormat
from msad_cli.export.formats import FORMATS
from msad_cli.text import MOST_PIXELS, parse_pixels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from msad_cli.export.runtime import Model
    from msad_cli.export.sidecar import InputShape, Notes
    from msad_cli.models.decode.deployed import Deployed
    from msad_cli.models.decode.limits import Limits
    from msad_cli.models.spec import DetectorSpec, View

CALIBRATED = 100
"""Training images from which 8-bit ranges are learnt."""


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.onnx", help="Default: MODEL.onnx, or .int8.onnx, .pt2.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="|".join(FORMATS), help="Default: from the name of --out, else onnx."),
    ] = None,
    view: Annotated[
        str | None, typer.Option(metavar="high|middle|low", help="Which one image the model sees, if it has several.")
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Compute convolutions with 8 bits, calibrated on training images.")
    ] = False,
    fixed: Annotated[
        str | None,
        typer.Option("--fixed", metavar="HEIGHT,WIDTH", help="Fix the input's sides; images are fitted in and padded."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option("--batch", min=1, max=1024, rich_help_panel="Network", help="Fix how many images it takes."),
    ] = None,
    nms_iou: options.NmsIou = None,
    agnostic: Annotated[
        bool, typer.Option("--agnostic/--per-class-nms", help="The graph gives an object's best class alone, or all.")
    ] = False,
    max_detections: options.MaxDetections = None,
    lowest_score: Annotated[
        float | None,
        typer.Option(
            "--lowest-score", min=0.0, max=1.0, help="What is surer is found. Default: by detector, measured."
        ),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            "--candidates", min=1, max=1000, help="Best boxes of an image that suppression looks at, likewise."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="DIR|demo", help="Check on its images, and measure AP on them.")
    ] = None,
    overwrite: options.Overwrite = False,
    max_pixels: options.MaxPixels = MOST_PIXELS,
    quiet: options.Quiet = False,
) -> None:
    """Write a model as ONNX (or torch.export's .pt2): pixels in, boxes out, in pixels of the image that it sees."""
    from msad_cli.cli.console import print_line
    from msad_cli.data.images.decode import limit_pixels
    from msad_cli.evaluation.exported import (
        check_graph,
        compared_images,
        graph_images,
        score_graphs,
        split_for,
    )
    from msad_cli.export.runtime import ExportedModel
    from msad_cli.export.sidecar import Notes, sidecar_path
    from msad_cli.export.trace import trace
    from msad_cli.models.decode.deployed import Deployed
    from msad_cli.models.decode.nms import overlap_of
    from msad_cli.models.model_file import load_model, remembered_data
    from msad_cli.runs.folder import without_nan

    _refuse_exported(model)
    to = _format(form, out, int8)
    path = out or model.with_suffix(f".int8{to.suffix}" if int8 else to.suffix)
    _claim(path, overwrite)
    to.need()
    limit_pixels(parse_pixels(max_pixels))
    detector, card = load_model(model)
    limits = _limits(detector.kind.deployed, lowest_score, candidates, agnostic)
    overlap = overlap_of(nms_iou) if agnostic else None
    detector.limit(nms_iou, max_detections, limits)
    seen = _single_view(view, detector.spec, model)
    spec, shape = _fixed_spec(detector.spec, seen, fixed, batch)
    measured = data or (remembered_data(card.data, model) if int8 else None)
    val = split_for(measured, "val", spec) if measured or int8 else None
    say = (lambda _: None) if quiet else print_line
    state = (
        f"; epoch {card.epochs} of a run that was not at its end: export again once it is" if card.unfinished else ""
    )
    say(
        f"{model}: {spec.detector}, view {seen}, of 1/{spec.ks[0]} of the HR size{state}; tracing takes a minute or two"
    )
    network = Deployed(detector, seen, overlap).eval()
    written = to.write(trace(network, shape), spec.task)
    graph = ExportedModel(spec, to.load(written, spec.task, str(path), shape, ""), shape)
    say(check_graph(detector, seen, graph, to.name, compared_images(val, card, graph), overlap, limits.score))
    models = {**_steps(network, spec, limits, shape), to.name: graph}
    if int8 and to.quantise is not None:
        images = (graph.stacked([each]) for each in graph_images(split_for(measured, "train", spec), graph))
        written = to.quantise(written, itertools.islice(images, CALIBRATED))
        models["int8"] = ExportedModel(spec, to.load(written, spec.task, str(path), shape, ""), shape)
    whole = load_model(model)[0]  # without the graph's limits, to say what they cost
    whole.limit(nms_iou, max_detections)
    scores = score_graphs(whole, seen, models, val, overlap) if val is not None else {}
    if not quiet:
        _print_cost(scores, to.name)
    if data is not None and Path(data).resolve() != Path(card.data).resolve():
        scores = {}  # the card's scores are those on the set that the model remembers
    known = list(scores.values())[-1] if scores else None if fixed or int8 else (card.scores or {}).get(seen)
    card = replace(card, scores=None if known is None else without_nan({spec.views[0]: known}))
    _write(to, path, written, Notes(spec, card, "int8" if int8 else "fp32", shape, limits=limits, copied=not scores))
    say(f"{path}: {len(written) / 2**20:.1f} MiB; {sidecar_path(path)} says what goes in and comes out")
    if not to.unopened:
        say(f"next: msad eval {path}")


def _print_cost(scores: "Mapping[str, Mapping[str, float]]", to: str) -> None:
    """AP of the model and of what became of it, where it was measured."""
    from msad_cli.cli.console import print_line
    from msad_cli.cli.output.scores import print_scores
    from msad_cli.evaluation.exported import cost_lines

    if scores:
        print_scores("msad and its graph", scores, "model")
    for line in cost_lines(scores, to):
        print_line(line)


def _limits(usual: "Limits", score: float | None, candidates: int | None, one_class: bool) -> "Limits":
    """A graph's limits by its flags, else those that its detector usually has."""
    return replace(
        usual,
        score=usual.score if score is None else score,
        candidates=candidates or usual.candidates,
        one_class=one_class,
    )


def _steps(network: "Deployed", spec: "DetectorSpec", limits: "Limits", shape: "InputShape") -> "dict[str, Model]":
    """What costs AP without being the graph's fault, by name: the network with limits, and in fixed sides."""
    from msad_cli.export.runtime import ExportedModel

    limited: dict[str, Model] = {limits.words(): ExportedModel(spec, network)} if limits.words() else {}
    if shape.sides is None:
        return limited
    return {**limited, f"sides {shape.sides[0]},{shape.sides[1]}": ExportedModel(spec, network, shape)}


def _refuse_exported(model: Path) -> None:
    from msad_cli.export.formats import is_exported

    if is_exported(model):
        raise ModelFileError(
            f"{model}: exported already",
            "give the .safetensors file that it was exported from",
            code="model-exported-already",
        )


def _format(form: str | None, out: Path | None, int8: bool) -> ExportFormat:
    """The format that is typed, or that the name of the result tells.

    Raises:
        UsageError: there is no such format, or the name tells another, or it has no 8-bit form.
    """
    named = out.suffix.removeprefix(".") if out else None
    chosen = FORMATS.get(form or named or next(iter(FORMATS)))
    if chosen is None:
        flag = f"--format {form}" if form else f"--out {out}"
        raise UsageError(
            f"{flag}: not a format that msad writes", f"it writes {' and '.join(FORMATS)}", code="unknown-value"
        )
    if out and named != chosen.name:
        raise UsageError(
            f"--out {out}: not the name of an {chosen.suffix} file",
            f"--out {out.with_suffix(chosen.suffix)}",
            code="out-name-refused",
        )
    if int8 and chosen.quantise is None:
        able = " and ".join(each.name for each in FORMATS.values() if each.quantise is not None)
        raise UsageError(
            f"--int8 --format {chosen.name}: not a format with 8 bits",
            f"leave one of them out; {able} has",
            code="format-without-8-bits",
        )
    return chosen


def _claim(path: Path, overwrite: bool) -> None:
    """Does nothing where a graph and the JSON beside it can be written.

    Raises:
        UsageError: one of them exists.
        OutputError: they cannot.
    """
    from msad_cli.export.sidecar import sidecar_path
    from msad_cli.system.files import refuse_unwritable

    for each in (path, sidecar_path(path)):
        if each.exists() and not overwrite:
            raise UsageError(f"{each} exists", "add --overwrite, or choose another --out", code="result-exists")
    refuse_unwritable(path)


def _single_view(view: str | None, spec: "DetectorSpec", model: Path) -> "View":
    """The view to export, one that sees a single image.

    Raises:
        UsageError: it sees several, or the model does not have it.
    """
    from msad_cli.models.views import choose_views

    single = tuple(each for each in spec.views if len(spec.ks_of(each)) == 1)
    if view is None and len(spec.views) == 1:
        return single[0]
    if view is None or view == "fused":
        raise UsageError(
            f"{model} has the views {', '.join(spec.views)}, and a graph of several images is not exported",
            f"name one with --view {'|'.join(single)}, or distil a student: it sees one image",
            code="export-of-several-views",
        )
    return choose_views(view, spec, model)[0]


def _fixed_spec(
    spec: "DetectorSpec", view: "View", fixed: str | None, batch: int | None
) -> "tuple[DetectorSpec, InputShape]":
    """The spec of the view, and the shape of its graph's input, by --fixed and --batch.

    Raises:
        UsageError: the input cannot have such sides.
    """
    from msad_cli.export.sidecar import InputShape, exported_spec

    if fixed is None:
        return exported_spec(spec, view), InputShape(batch)
    try:
        sides = [int(part) for part in fixed.split(",") if part.isdecimal()]
        if len(sides) != 2:
            raise ValueError("not two numbers")
        height, width = sides
        return exported_spec(spec, view, (height, width)), InputShape(batch, (height, width))
    except ValueError as error:
        (k,), own = spec.ks_of(view), spec.resolution
        down, across = (side // k for side in own.frame_size(own.short_side, own.long_side))
        raise UsageError(
            f"--fixed {fixed}: {error}",
            f"give the height and width of what the model sees; a whole image that lies is --fixed {down},{across}",
            code="fixed-sides-refused",
        ) from None


def _write(form: ExportFormat, path: Path, written: bytes, notes: "Notes") -> None:
    """Both files, with something in each by which they know each other."""
    from msad_cli.export.sidecar import metadata, sidecar, sidecar_path
    from msad_cli.system.files import write_bytes, write_text

    identity = hashlib.sha256(written).hexdigest()
    notes = replace(notes, identity=identity)
    write_text(sidecar_path(path), sidecar(notes))
    write_bytes(path, written if form.mark is None else form.mark(written, metadata(notes)))
