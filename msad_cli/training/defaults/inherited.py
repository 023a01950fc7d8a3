"""What a student does as its teacher did, unless somebody says."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from msad_cli.models.model_file import REMEMBERED
from msad_cli.runs.folder import Setting
from msad_cli.training.config import Asked, DistillConfig

OF_THE_RECIPE = ("epochs", "batch", "lr", "decay", "optimizer", "ema")
"""Settings that a model file remembers however they were chosen; the others, which go by machine and set, only if
somebody typed them."""

PARTS = ("flipud", "turn", "zoom", "photo", "mosaic", "mixup")
"""Of augmentation, all but the mirror."""


def remembered(settings: Mapping[str, Setting]) -> dict[str, Any]:
    """What a model file remembers of how it was trained."""
    found = {name: settings[name] for name in REMEMBERED if name in settings}
    return {name: each.value for name, each in found.items() if name in OF_THE_RECIPE or each.source != "auto"}


def inherited(
    asked: Asked[DistillConfig], training: Mapping[str, Any], teacher: Path
) -> tuple[Asked[DistillConfig], dict[str, Setting]]:
    """What is asked for with what the teacher's file remembers, wherever nobody typed anything else; and for the record
    each such value. A run that goes on keeps what it had.

    The learning rate goes with the batch and with the optimiser.

    Args:
        training: as the teacher's card has it; empty for files of older versions.
    """
    config = asked.config
    if config.resume:
        return asked, {}
    names = {each.name for each in fields(config)} & training.keys() - asked.typed
    values = {name: training[name] for name in names}
    reasons = dict.fromkeys(values, f"as {teacher} was trained")
    if config.budget_time is not None:
        values.pop("epochs", None)
    # Parts belong to the teacher's level, and a teacher cache holds none of them.
    if "augment" in asked.typed:
        values.pop("fliplr", None)
    if "augment" in asked.typed or config.cache_teacher is not None:
        values = {name: value for name, value in values.items() if name not in PARTS}
    if "lr" in values and "optimizer" in asked.typed and config.optimizer != training.get("optimizer"):
        values.pop("lr")
    elif "lr" in values and "batch" in asked.typed and config.batch is not None:
        values["lr"] *= config.batch / training["batch"]
        reasons["lr"] = f"that of {teacher}, for this batch"
    settings = {name: Setting(value, "teacher", reasons[name]) for name, value in values.items()}
    return replace(asked, config=replace(config, **values)), settings
