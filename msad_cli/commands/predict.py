"""msad predict: pictures in, annotated pictures and detections out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msad_cli.commands import options
from msad_cli.structures.errors import DataError, PartialFailureError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from msad_cli.engine.predict import Prediction
    from msad_cli.models.spec import DetectorSpec

LONGEST_SIDE = {"JPEG": 65_500, "PNG": 2**31 - 1, "WEBP": 16_383, "BMP": 2**31 - 1, "TIFF": 2**31 - 1}
"""In pixels, by what annotated pictures are saved as; a picture beyond it becomes a PNG."""
DEFAULT_MODELS = ("student.safetensors", "teacher.safetensors")
SAVES = ("image", "json")


def predict(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Pictures, folders, quoted patterns.")],
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="Default: student.safetensors here, then teacher.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the results.")] = Path(
        "predictions"
    ),
    score: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Least score. Default: the model's best-F1.")
    ] = None,
    view: Annotated[
        str | None, typer.Option(metavar="high|middle|low|fused", help="Default: the model's best.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Pictures of one size at once. Default: 8 on a GPU, else 1.")
    ] = None,
    save: Annotated[str, typer.Option(metavar="image,json", help="What to write.")] = "image,json",
    max_pixels: options.MaxPixels = options.MOST_PIXELS,
    device: options.Device = "auto",
    precision: options.PrecisionName = "auto",
    compile_: options.Compile = False,
    quiet: options.Quiet = False,
) -> None:
    """Detect objects in pictures; the small image is decoded straight from each file."""
    from msad_cli.commands.console import print_line
    from msad_cli.commands.settings import choose_views
    from msad_cli.data.images import limit_pixels
    from msad_cli.engine import predict as engine
    from msad_cli.engine.compiled import compile_parts
    from msad_cli.engine.device import choose_compute
    from msad_cli.engine.evaluate import coco_results
    from msad_cli.engine.exported import open_model
    from msad_cli.engine.inputs import find_inputs

    saves = set(save.split(","))
    if not saves <= set(SAVES):
        raise UsageError(
            f"--save {save}: unknown {', '.join(sorted(saves - set(SAVES)))}", f"known: {', '.join(SAVES)}"
        )
    limit_pixels(options.parse_pixels(max_pixels))
    pictures = find_inputs(inputs, out)
    for each in pictures:
        if "image" in saves and (out / each.relative).resolve() == each.path.resolve():
            raise UsageError(f"{each.path} would be overwritten by its own result", "choose another folder with --out")
    path = model or _default_model()
    detector, card = open_model(path)
    best = choose_views(view, detector.spec, path)[0]
    compute = choose_compute(device, precision)
    compile_parts([detector] if compile_ else [], compute.device)
    least = card.score_threshold if score is None else score
    category_ids, names = zip(*detector.spec.categories, strict=True)
    results, failed = [], 0
    at_once = batch or engine.usual_batch(compute)
    predictions = engine.predict(detector.to(compute.device), best, pictures, least, compute, at_once, "image" in saves)
    for number, result in enumerate(predictions, start=1):
        if isinstance(result, DataError):
            print_line(f"error: {result.message}")
            failed += 1
            continue
        found = coco_results(result.found, number, category_ids, result.picture.size)
        results += [{**each, "file_name": result.source.relative.as_posix()} for each in found]
        if "image" in saves:
            _save_picture(_drawn(result, names, detector.spec), out / result.source.relative)
        if not quiet:
            print_line(f"{result.source.path}: {len(found)} objects")
    if "json" in saves:
        _write_json(out / "predictions.json", results)
    if not quiet:
        done = len(pictures) - failed
        line = f"{done} of {len(pictures)} pictures, {len(results)} objects of score ≥ {least:.2f} by {path} -> {out}/"
        print_line(line)
    if failed:
        raise PartialFailureError(f"{failed} of {len(pictures)} pictures could not be read", "they are named above")


def _default_model() -> Path:
    for name in DEFAULT_MODELS:
        if Path(name).exists():
            return Path(name)
    raise UsageError(f"no model: neither {' nor '.join(DEFAULT_MODELS)} lies in this folder", "give one with -m FILE")


def _drawn(prediction: "Prediction", names: "Sequence[str]", spec: "DetectorSpec") -> "Image.Image":
    """The picture with what was found in it."""
    from msad_cli.engine.draw import draw_objects
    from msad_cli.models.pasting import paste_masks

    image, found = prediction.image, prediction.found
    labels, masks, keypoints = found["labels"].tolist(), None, None
    if "masks" in found:
        masks = paste_masks(found["masks"], found["mask_boxes"], (image.height, image.width))
    if "keypoints" in found:
        keypoints = found["keypoints"].tolist()
    texts = [f"{names[i - 1]} {score:.2f}" for i, score in zip(labels, found["scores"].tolist(), strict=True)]
    return draw_objects(image, found["boxes"].tolist(), labels, texts, masks, keypoints, spec.skeleton)


def _save_picture(picture: "Image.Image", path: Path) -> None:
    import io

    from PIL import Image

    from msad_cli.engine.files import write_bytes

    Image.init()
    kind = Image.EXTENSION.get(path.suffix.lower(), "")
    if max(picture.size) > LONGEST_SIDE.get(kind, 0):
        path, kind = path.with_name(path.name + ".png"), "PNG"
    written = io.BytesIO()
    picture.save(written, format=kind, quality=92)
    write_bytes(path, written.getbuffer())


def _write_json(path: Path, results: list[dict[str, object]]) -> None:
    import json

    from msad_cli.engine.files import write_text

    write_text(path, "[\n" + ",\n".join(json.dumps(each) for each in results) + "\n]\n")
