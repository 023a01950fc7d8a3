"""`--resume`: a run goes on with the settings that it has recorded, and what was typed anew may differ only in part."""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from msad_cli.errors import UsageError
from msad_cli.runs.folder import RunFolder, Setting, json_text
from msad_cli.training.config import PATHS, UNRECORDED, Asked, Config
from msad_cli.training.steps.schedule import Schedule

MAY_CHANGE = frozenset(
    {"epochs", "batch", "workers", "device", "eval_every", "data", "teacher", "max_pixels", "cache", "compile_", "log"}
    | {"train_json", "val_json", "train_images", "val_images", "keep", "patience", "unlabelled"}
)
"""What may be typed differently on resuming. Data and teacher: their place; what they hold is compared by content."""
COMPUTED_ONCE = frozenset(
    {"batch", "epochs", "detector", "backbone", "width", "head_channels", "head_convs", "rois", "size", "init"}
    | {"optimizer", "decay"}
)
"""Settings that are kept although they were computed, some by the machine; others follow from these again."""


def completed(asked: Asked[Config]) -> Asked[Config]:
    """What was asked for, with `out`, and of a run that goes on with all that it had recorded and nobody typed.

    Raises:
        UsageError: there is nothing to resume, or what was typed would make another run of it.
    """
    config = asked.config
    if config.finish and not config.resume:
        raise UsageError(
            "--finish: of a run that was stopped, and --resume is not given", "add --resume", code="finish-without-run"
        )
    asked = replace(asked, config=replace(config, out=config.out or config.usual_out))
    return _recalled(asked) if config.resume else asked


def all_settings(asked: Asked[Config], computed: Mapping[str, Setting]) -> dict[str, Setting]:
    """Every field of a configuration with its value and source, computed values standing in for those not typed."""
    settings = {}
    for each in fields(asked.config):
        value = getattr(asked.config, each.name)
        if each.name not in UNRECORDED and value is not None:
            settings[each.name] = Setting(value, asked.source(each.name))
    settings |= computed
    for name in asked.recalled & settings.keys():
        settings[name] = Setting(settings[name].value, "resumed", settings[name].reason)
    return {name.rstrip("_"): each for name, each in settings.items()}


def changes(before: Mapping[str, Setting], now: Mapping[str, Setting]) -> list[str]:
    """What a resumed run does otherwise than before, in words."""
    return [
        f"{name} {before[name].value} → {each.value}"
        for name, each in now.items()
        if name in before and _plain(before[name].value) != _plain(each.value)
    ]


def jump_of_rate(
    before: Mapping[str, Setting], now: Mapping[str, Setting], schedule: Schedule, step: int, last: float
) -> str:
    """What to know of the learning rate where a run goes on with other epochs than before; empty where it stays.

    Args:
        step: steps done.
        last: the rate of the last of them.
    """
    if before["epochs"].value == now["epochs"].value or schedule.at(step) <= last > 0:
        return ""
    rate, share = schedule.at(step), schedule.at(step) / schedule.learning_rate
    goes_on = f"; to go on with the last one, --resume --epochs {now['epochs'].value} --lr {last / share:.2g}"
    return (
        f"the learning rate starts again: {last:.2g} in the last step, {rate:.2g} from here on, as in a run of "
        f"{now['epochs'].value} epochs{goes_on if last > 0 else ''}"
    )


def _recalled(asked: Asked[Config]) -> Asked[Config]:
    config = asked.config
    assert config.out is not None
    folder = RunFolder(config.out)
    if not folder.resumable:
        raise UsageError(
            f"nothing to resume: no {folder.state}", "leave --resume away to start", code="nothing-to-resume"
        )
    recorded = folder.recorded()
    values: dict[str, Any] = {}
    for each in fields(config):
        name = each.name
        setting = None if name in UNRECORDED else recorded.get(name.rstrip("_"))
        if setting is None:
            continue
        typed = getattr(config, name)
        if name in asked.typed:
            may_change = name in MAY_CHANGE or (name == "lr" and _is_longer(config, recorded))
            if not may_change and _plain(typed) != setting.value:
                flag = f"--{name.rstrip('_').replace('_', '-')}"
                raise UsageError(
                    f"cannot resume: {flag} was {setting.value} and is now {typed}",
                    f"leave {flag} away, or start anew with --overwrite",
                    code="setting-changed",
                )
        elif setting.source != "auto" or name in COMPUTED_ONCE:
            values[name] = Path(setting.value) if name in PATHS and setting.value else setting.value
    return replace(asked, config=replace(config, **values), recalled=frozenset(values))


def _is_longer(config: Config, recorded: Mapping[str, Setting]) -> bool:
    """Whether a run is to have more epochs than it had: what it learns from there on is new anyway."""
    before = recorded.get("epochs")
    return before is not None and config.epochs is not None and config.epochs > before.value


def _plain(value: Any) -> Any:
    """A value as args.json gives it back."""
    return json.loads(json_text(value))
