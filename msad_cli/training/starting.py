"""`--init`: what a model file brings beside its weights, and what is said of a start before a run begins."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from msad_cli.models.detector import Detector
from msad_cli.models.model_file import own_header
from msad_cli.models.spec import DetectorSpec
from msad_cli.models.weights.initialise import fitting, known_to_coco
from msad_cli.runs.folder import Setting
from msad_cli.training.config import ALONE, Asked, Config, DistillConfig, TeacherConfig, TrainingConfig

ARCHITECTURE = {
    "detector": "detector",
    "backbone": "backbone",
    "width": "width",
    "head_channels": "channels",
    "head_convs": "head_convs",
    "head_depthwise": "head_depthwise",
    "norm": "norm",
    "head_norm": "head_norm",
}
"""Fields of a configuration that are fields of a spec, and how these are called there."""
PUBLISHED = ("imagenet", "coco", "none", "teacher")
"""What `--init` names that is no file."""


def adopted(asked: Asked[Config]) -> tuple[Asked[Config], dict[str, Setting]]:
    """What is asked for with what a model file brings that it starts from, wherever nobody typed anything else; and
    for the record each such value, and of each typed one what the file has instead.

    Raises:
        ModelFileError: a file of msad's that is broken.
    """
    config = asked.config
    first = (config.init or PUBLISHED[0]).split(",")[0]
    header = None if config.resume or first in PUBLISHED else own_header(Path(first))
    if header is None:
        return asked, {}
    brought = _brought(config, header[0])
    settings, values = {}, {}
    if config.init_partial:
        brought.pop("norm")  # the file's suits a backbone that is the file's
    for name, value in brought.items():
        if name in asked.typed:
            own = getattr(config, name)
            if str(own) != str(value) and own != "auto":
                settings[name] = Setting(own, "flag", f"{first} has {value}")
        else:
            values[name] = value
            settings[name] = Setting(value, "file", f"as in {first}")
    return replace(asked, config=replace(config, **values)), settings


def _brought(config: TrainingConfig, spec: DetectorSpec) -> dict[str, Any]:
    """By the names of a configuration's fields, what a spec has of them."""
    names = {each.name for each in fields(config)}
    found = {name: getattr(spec, own) for name, own in ARCHITECTURE.items() if name in names}
    if "scales" not in names:  # a student's image is its teacher's, and so are its views and its detector
        return {name: value for name, value in found.items() if name != "detector"}
    scales = getattr(config, "scales")  # noqa: B009
    single = scales in ("single", ALONE)
    smaller = [k for k in spec.ks if k > 1 or single]
    found["size"] = f"{spec.resolution.short_side},{spec.resolution.long_side}"
    if smaller and (not single or len(smaller) == 1):
        found["k"] = ",".join(str(k) for k in smaller)
    if spec.fuses and scales == "aligned":
        found["fusion"] = spec.fusion
    if spec.scales == "aligned" and scales in ("aligned", ALONE):
        found["phase"] = spec.phase
    if spec.two_stage:
        found["rois"] = spec.learning.rois
    return found


def foretold(spec: DetectorSpec, source: str, partial: bool) -> str:
    """What will be loaded from a source of weights, in words; of what would have to be downloaded only the classes.

    Raises:
        ModelFileError, UsageError: as `fitting`.
    """
    if source in ("none", "imagenet", "teacher"):
        return ""
    with torch.device("meta"):
        sketch = Detector(spec)
    if source == "coco":
        return known_to_coco(sketch)
    return str(fitting(sketch, Path(source), partial)[1])


def said_of_start(init: Setting, config: TeacherConfig | DistillConfig, spec: DetectorSpec) -> Setting:
    """`init` for the record, with what will be loaded; a run that goes on has it loaded already.

    Raises:
        ModelFileError, UsageError: as `fitting`.
    """
    words = () if config.resume else (foretold(spec, each, config.init_partial) for each in init.value.split(","))
    return replace(init, reason="; ".join(each for each in (init.reason, *words) if each))
