"""The JSON beside an exported model: what a program needs to know that runs it, with msad or without."""

import json
from dataclasses import asdict, replace
from pathlib import Path

from msad_cli.engine.model_file import Card, parse_card, strict_json
from msad_cli.models.deployed import INPUT, OUTPUTS
from msad_cli.models.pasting import INSIDE, LEARNT_SHIFT
from msad_cli.models.spec import DetectorSpec, Role, View
from msad_cli.models.stock import SCORE_THRESHOLD
from msad_cli.structures.errors import ModelFileError
from msad_cli.structures.frame import SIDE_MULTIPLE

FORMAT = "msad-export/1"
LARGEST = 16 * 2**20
"""Bytes, as of a model file's header."""


def sidecar_path(path: Path) -> Path:
    """Where the JSON of an exported model lies."""
    return path.with_name(path.name + ".json")


def exported_spec(spec: DetectorSpec, view: View) -> DetectorSpec:
    """The spec of one view alone: that of a student, unless the model is a baseline."""
    role: Role = "student" if spec.role == "teacher" else spec.role
    return replace(spec, role=role, ks=spec.ks_of(view), low_backbone="", low_width=1.0)


def sidecar(spec: DetectorSpec, card: Card, precision: str) -> str:
    """What a program needs to know that runs an exported model without msad, as JSON.

    Args:
        spec: of the one view, see `exported_spec`.
        precision: of the model's convolutions, `fp32` or `int8`.
    """
    (k,) = spec.ks
    shown = f"over its box moved right and down by {LEARNT_SHIFT / k:g} pixels; inside where at least {INSIDE:g}"
    outputs = {
        "boxes": "(batch, D, 4) float32: x0, y0, x1, y1 in pixels of the input",
        "scores": "(batch, D) float32, descending; 0 where a picture has fewer detections",
        "labels": "(batch, D) int64, see classes; 0 where a picture has fewer detections",
        "masks": f"(batch, D, 28, 28) float32: probabilities on a grid {shown}",
        "keypoints": "(batch, D, K, 3) float32: x and y in pixels of the input, and 1",
        "keypoints_scores": "(batch, D, K) float32: logits",
    }
    values = {
        "format": FORMAT,
        "precision": precision,
        "input": {"name": INPUT, "type": "uint8", "shape": ["batch", 3, "height", "width"], "channels": "RGB"},
        "preprocessing": {
            "hr_short_side": spec.resolution.short_side,
            "hr_long_side": spec.resolution.long_side,
            "hr_multiple": SIDE_MULTIPLE,
            "k": k,
            "frame": "pixels of the input, which is 1/k of the HR image",
            "resize": "ratio = min(hr_short_side / short, hr_long_side / long) of a picture's sides; "
            "each side of the input = max(hr_multiple, hr_multiple × round(side × ratio / hr_multiple)) / k; "
            "bilinear, antialiased, straight from the upright picture",
            "batch": "pictures of one size",
            "mean": spec.mean,
            "std": spec.std,
            "inside": "division by 255, mean and std, and padding are in the model: give it the resized pixels",
        },
        "postprocessing": {
            "score_threshold": card.score_threshold,
            "lowest_score": SCORE_THRESHOLD,
            "detections": spec.detections_per_image,
            "inside": "decoding and non-maximum suppression are in the model: drop scores under score_threshold, and "
            "scale boxes by the picture's sides over the input's",
        },
        "outputs": {name: outputs[name] for name in OUTPUTS[spec.task]},
        "classes": [
            {"label": label, "id": category_id, "name": name}
            for label, (category_id, name) in enumerate(spec.categories, start=1)
        ],
        "keypoints": {"names": spec.keypoints, "skeleton": spec.skeleton},
        "spec": spec.to_json(),
        "card": asdict(card),
    }
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def read_sidecar(path: Path) -> tuple[DetectorSpec, Card]:
    """Spec and card of an exported model.

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
    except FileNotFoundError:
        raise ModelFileError(f"no such file: {path}", "it was written beside the .onnx file; copy both") from None
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{path}: not what msad export writes ({str(error)[:200]})", "export it again") from None
    return spec, card
