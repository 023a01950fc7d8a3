"""msad info: what a model file says of itself, read without torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msad_cli.cli import options

if TYPE_CHECKING:
    from msad_cli.models.model_file import Card
    from msad_cli.models.spec import DetectorSpec

SHOWN = ("AP", "AP50", "APs", "APm", "APl", "mask_AP", "keypoint_AP")


def info(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file, exported or not.")],
    as_json: options.Json = False,
) -> None:
    """Show what a model file remembers: architecture, classes, data, AP."""
    from msad_cli.cli.output.json_output import model_json, print_models, view_name
    from msad_cli.cli.output.tables import print_beside
    from msad_cli.export.formats import is_exported
    from msad_cli.models.model_file import card_json
    from msad_cli.system.files import fingerprint

    spec, card, of_kind = _exported(model) if is_exported(model) else _trained(model)
    values = {
        **of_kind,
        "task": spec.task,
        "views": spec.views,
        **spec.to_json(),
        **card_json(card),
        "bytes": model.stat().st_size,
        "sha256": fingerprint(model),
    }
    if as_json:
        scores, counted = values.pop("scores") or {}, values.pop("parameters", None)
        parameters = None if counted is None else {"total": counted}
        models = (
            model_json(view_name(model, view, spec.views), model, view, scores=scores.get(view), parameters=parameters)
            for view in spec.views
        )
        print_models("info", models, card=values)
        return
    for name, value in (values | _in_words(spec, card)).items():
        if value not in ("", (), None):
            print_beside(f"{name:20} ", str(value))


def _trained(model: Path) -> "tuple[DetectorSpec, Card, dict[str, Any]]":
    """Spec, card, and what only a model file has."""
    import math

    from msad_cli.models.model_file import FORMAT, read_header

    spec, card, tensors = read_header(model)
    return spec, card, {"format": FORMAT, "parameters": sum(math.prod(each["shape"]) for each in tensors.values())}


def _exported(model: Path) -> "tuple[DetectorSpec, Card, dict[str, Any]]":
    """Spec, card, and what only an exported model has."""
    from msad_cli.export.sidecar import FORMAT, read_exported

    notes = read_exported(model)
    of_kind = {"format": FORMAT, "precision": notes.precision, "input": notes.shape.dimensions}
    return notes.spec, notes.card, of_kind


def _in_words(spec: "DetectorSpec", card: "Card") -> dict[str, Any]:
    """Fields that are easier to read than their JSON; empty ones are left out."""
    short, long = spec.resolution.short_side, spec.resolution.long_side
    teacher = card.teacher_spec
    which = f"the {card.keep} of {card.run_epochs}" if card.run_epochs else ""
    state = "its run was not finished then" if card.unfinished else ""
    scores = {
        view: ", ".join(f"{name} {100 * ap:.1f}" for name in SHOWN if (ap := numbers.get(name)) is not None)
        for view, numbers in (card.scores or {}).items()
    }
    return {
        "views": ", ".join(spec.views),
        "ks": ", ".join(f"{k}: sees {short // k},{long // k}" for k in spec.ks),
        "resolution": f"HR {short},{long}: short side, longest side in pixels",
        "classes": ", ".join(f"{each.category_id} {each.name}" for each in spec.classes),
        "keypoints": ", ".join(spec.keypoints),
        "fusion": spec.fusion if spec.fuses else "",
        "rois": spec.learning.rois if spec.two_stage else "",
        "low_width": spec.low_width if spec.low_backbone else "",
        "epochs": "; ".join(filter(None, (str(card.epochs), which, state))),
        "steps": card.steps or "",
        **dict.fromkeys(("run_epochs", "keep", "unfinished"), ""),
        "scores": "; ".join(f"{view}: {numbers}" for view, numbers in scores.items()),
        "unlabelled": f"{card.unlabelled_images} images: {card.unlabelled}" if card.unlabelled else "",
        "unlabelled_images": "",
        "training": ", ".join(f"{name} {value}" for name, value in (card.training or {}).items()),
        "score_threshold": f"{card.score_threshold:.3f}",
        "teacher_spec": ""
        if teacher is None
        else f"{teacher.backbone} × {teacher.width:g}, {teacher.channels} channels, k = {teacher.ks}",
    }
