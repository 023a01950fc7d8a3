"""The JSON beside an exported model: what a program needs to know that runs it, with msad or without.

Reading it imports no torch: `msad info` needs none.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msad_cli import __version__
from msad_cli.data.images.tones import Tones
from msad_cli.errors import ModelFileError
from msad_cli.frame import SIDE_MULTIPLE, Letterbox, Resolution, view_shift
from msad_cli.models.decode.limits import OWN, Limits
from msad_cli.models.model_file import Card, card_json, parse_card, strict_json
from msad_cli.models.spec import DetectorSpec, Role, View

FORMAT = "msad-export/1"
IDENTITY = "msad"
"""The name, in the metadata of a file, of what the JSON beside it repeats."""
LARGEST = 16 * 2**20
"""Bytes, as of a model file's header."""


@dataclass(frozen=True)
class InputShape:
    """What is fixed of a graph's input (batch, 3, height, width); None is any.

    Attributes:
        sides: (height, width).
    """

    batch: int | None = None
    sides: tuple[int, int] | None = None

    @property
    def dimensions(self) -> list[int | str]:
        """All four, by name where they may be any."""
        return [self.batch or "batch", 3, *(self.sides or ("height", "width"))]


@dataclass(frozen=True)
class Notes:
    """What the JSON holds.

    Attributes:
        spec: of the one view; where sides are fixed, its resolution is theirs.
        card: of the model that was exported; its scores are the exported model's own.
        precision: of the convolutions, `fp32` or `int8`.
        identity: that the exported file repeats, if its format can hold it; empty where there is none.
        limits: of the graph's post-processing; with `one_class` an object has its best class alone.
    """

    spec: DetectorSpec
    card: Card
    precision: str = "fp32"
    shape: InputShape = InputShape()
    identity: str = ""
    limits: Limits = OWN


def sidecar_path(path: Path) -> Path:
    """Where the JSON of an exported model lies."""
    return path.with_name(path.name + ".json")


def exported_spec(spec: DetectorSpec, view: View, sides: tuple[int, int] | None = None) -> DetectorSpec:
    """The spec of one view alone: that of a student, unless the model is a baseline.

    Args:
        sides: of its input, where they are fixed.

    Raises:
        ValueError: no HR image has such sides.
    """
    role: Role = "student" if spec.role == "teacher" else spec.role
    (k,) = spec.ks_of(view)
    resolution = spec.resolution if sides is None else Resolution(*sorted(side * k for side in sides))
    if sides is not None and any(side * k % SIDE_MULTIPLE for side in sides):
        raise ValueError(f"not multiples of {SIDE_MULTIPLE // k}")
    return replace(spec, role=role, ks=(k,), resolution=resolution, low_backbone="", low_width=1.0)


def fitting(spec: DetectorSpec, shape: InputShape) -> Resolution:
    """By which HR images are sized for an exported model."""
    if shape.sides is None:
        return spec.resolution
    height, width = shape.sides
    return Letterbox(spec.resolution.short_side, spec.resolution.long_side, upright=height > width)


def pad_colour(spec: DetectorSpec) -> list[int]:
    """RGB of what is padded to fixed sides: the mean, which normalisation brings to 0, as padding is in training."""
    return [min(255, max(0, round(255 * each))) for each in spec.mean]


def sidecar(notes: Notes) -> str:
    """What a program needs to know that runs an exported model without msad, as JSON."""
    from msad_cli.models.decode.deployed import INPUT, OUTPUTS
    from msad_cli.models.decode.paste_masks import INSIDE, LEARNT_SHIFT

    spec, card = notes.spec, notes.card
    (k,) = spec.ks
    shown = f"over its box moved right and down by {LEARNT_SHIFT / k:g} pixels; inside where at least {INSIDE:g}"
    outputs = {
        "boxes": "(batch, D, 4) float32: x0, y0, x1, y1 in pixels of the input",
        "scores": "(batch, D) float32, descending; 0 where an image has fewer detections",
        "labels": "(batch, D) int64, see classes; 0 where an image has fewer detections",
        "masks": f"(batch, D, 28, 28) float32: probabilities on a grid {shown}",
        "keypoints": "(batch, D, K, 3) float32: x and y in pixels of the input, and 1",
        "keypoints_scores": "(batch, D, K) float32: logits",
    }
    values = {
        "format": FORMAT,
        "precision": notes.precision,
        "identity": notes.identity,
        "input": {"name": INPUT, "type": "uint8", "shape": notes.shape.dimensions, "channels": "RGB"},
        "preprocessing": _preprocessing(spec, notes.shape),
        "postprocessing": {
            "score_threshold": card.score_threshold,
            "lowest_score": notes.limits.score,
            "candidates": notes.limits.candidates,
            "detections": spec.detections_per_image,
            "classes_of_a_box": "the best" if notes.limits.one_class else "all",
            "inside": "decoding and non-maximum suppression are in the model: drop scores under score_threshold, and "
            "scale boxes by the image's sides over those of its pixels in the input",
        },
        "outputs": {name: outputs[name] for name in OUTPUTS[spec.task]},
        "classes": [
            {"label": label, "id": category_id, "name": name}
            for label, (category_id, name) in enumerate(spec.categories, start=1)
        ],
        "keypoints": {"names": spec.keypoints, "skeleton": spec.skeleton},
        "spec": spec.to_json(),
        "card": card_json(card),
    }
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def metadata(notes: Notes) -> dict[str, str]:
    """What an exported file holds itself, as far as its format can: enough to use it where the JSON was left behind."""
    spec = notes.spec
    texts = {
        IDENTITY: notes.identity,
        "version": __version__,
        "task": spec.task,
        "classes": json.dumps({label: name for label, (_, name) in enumerate(spec.categories, start=1)}),
        "category_ids": json.dumps({label: number for label, (number, _) in enumerate(spec.categories, start=1)}),
        "score_threshold": f"{notes.card.score_threshold:g}",
        "hr_short_side": str(spec.resolution.short_side),
        "hr_long_side": str(spec.resolution.long_side),
        "k": str(spec.ks[0]),
    }
    return texts | ({"keypoints": json.dumps(spec.keypoints)} if spec.keypoints else {})


def _preprocessing(spec: DetectorSpec, shape: InputShape) -> dict[str, Any]:
    ratio = "min(hr_short_side / short, hr_long_side / long) of an image's sides"
    padding: dict[str, Any] = {}
    if shape.sides is not None:
        ratio = "min(k × height / image's height, k × width / image's width), of the input's fixed sides"
        padding = {
            "pad": "the resized image lies at the top left; what is right of it and below has pad_colour",
            "pad_colour": pad_colour(spec),
        }
    return {
        "hr_short_side": spec.resolution.short_side,
        "hr_long_side": spec.resolution.long_side,
        "hr_multiple": SIDE_MULTIPLE,
        "k": spec.ks[0],
        "frame": "pixels of the input, which is 1/k of the HR image",
        "resize": f"ratio = {ratio}; "
        "each side of the resized image = max(hr_multiple, hr_multiple × round(side × ratio / hr_multiple)) / k; "
        "bilinear, antialiased, straight from the upright image",
        "shift": view_shift(spec.ks[0], spec.phase),
        "shifted": "what the resized image shows lies this many of its pixels further right and down than a resize "
        "alone has it; the image's edge is repeated at the left and at the top. Boxes are not shifted",
        **padding,
        "batch": "images of one size" if shape.batch is None else "of this many; fill it up, and drop those rows",
        "tones": _tones(spec.tones),
        "mean": spec.mean,
        "std": spec.std,
        "inside": "division by 255, mean and std, and the grids' padding are in the model: give it these pixels",
    }


def _tones(tones: Tones) -> str:
    if not tones.are_set:
        return "8 bits; the model has learnt from no deeper images by a range of theirs"
    return (
        f"of images of more than 8 bits, value = min(255, max(0, round(255 × (value - {tones.black:.9g}) / "
        f"({tones.white:.9g} - {tones.black:.9g})))), before resizing"
    )


def read_sidecar(path: Path) -> Notes:
    """What is known of an exported model.

    Raises:
        ModelFileError: the file is missing, or is not what `msad export` writes.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError("too large")
        values = strict_json(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f"format {str(values['format'])[:40]!r}, this msad reads {FORMAT!r}")
        spec, card = DetectorSpec.from_json(values["spec"]), parse_card(values["card"])
        if len(spec.ks) != 1:
            raise ValueError("an exported model has one view")
        shape = _parse_shape(values["input"]["shape"])
        if shape.sides is not None and exported_spec(spec, spec.views[0], shape.sides) != spec:
            raise ValueError("the input's sides are not those of the resolution")
        # Older versions wrote no identity.
        done = values["postprocessing"]
        limits = Limits(float(done["lowest_score"]), done.get("candidates"), done.get("classes_of_a_box") == "the best")
        return Notes(spec, card, str(values["precision"]), shape, str(values.get("identity", "")), limits)
    except FileNotFoundError:
        hint = f"{path.stem} needs it beside it: msad runs what msad export wrote, which is both files"
        raise ModelFileError(f"no such file: {path}", hint, code="file-missing") from None
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise ModelFileError(
            f"{path}: not what msad export writes ({str(error)[:200]})", "export it again", code="sidecar-malformed"
        ) from None


def _parse_shape(dimensions: Any) -> InputShape:
    batch, _, *sides = dimensions
    free = [each for each in ("batch", "height", "width") if each in dimensions]
    if not all(type(each) is int and each > 0 for each in dimensions if each not in free) or len(sides) != 2:
        raise ValueError("its input has no such shape")
    if ("height" in free) != ("width" in free):
        raise ValueError("one side is fixed, and the other is not")
    return InputShape(None if "batch" in free else batch, None if "height" in free else (sides[0], sides[1]))


def refuse_another(name: str, alike: bool) -> None:
    """Does nothing where a graph's identity, inputs and outputs are those of the JSON beside it.

    Raises:
        ModelFileError: they are not.
    """
    if not alike:
        raise ModelFileError(
            f"{name}: the JSON beside it is that of another model",
            "copy both files of one export",
            code="sidecar-of-another-model",
        )


def refuse_other_sides(name: str, found: Sequence[int | str], shape: InputShape) -> None:
    """Does nothing where what is fixed of a graph's input is what the JSON beside it says.

    Args:
        found: batch, channels, height and width, numbers where they are fixed.

    Raises:
        ModelFileError: it is not.
    """
    fixed, stated = ([each for each in sides if isinstance(each, int)] for sides in (found, shape.dimensions))
    if fixed != stated:
        raise ModelFileError(
            f"{name}: its input is {found}, the JSON beside it says {shape.dimensions}",
            "msad export MODEL --fixed HEIGHT,WIDTH --batch N fixes it in both",
            code="sidecar-input-differs",
        )


def read_exported(path: Path) -> Notes:
    """What is known of an exported model that is there.

    Raises:
        ModelFileError: it is not, or the JSON beside it is missing or broken.
    """
    if not path.is_file():
        raise ModelFileError(f"no such model file: {path}", "msad export MODEL writes one", code="model-file-missing")
    return read_sidecar(sidecar_path(path))
