"""`--resume`: a run goes on with the settings that it has recorded, and what was typed anew may differ only in part."""

import functools
import json
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import typer

from msad_cli.cli.processes import together
from msad_cli.errors import UsageError
from msad_cli.runs.folder import RunFolder, Setting, json_text

MAY_CHANGE = frozenset(
    {"epochs", "batch", "workers", "device", "eval_every", "data", "teacher", "max_pixels", "cache", "compile_", "log"}
    | {"train_json", "val_json", "train_images", "val_images"}
)
"""What may be typed differently on resuming. Data and teacher: their place; what they hold is compared by content."""
COMPUTED_ONCE = frozenset({"batch", "epochs"})
"""Settings that are kept although they were computed; others follow from the rest, and are computed again."""
UNRECORDED = frozenset({"out", "resume", "overwrite", "dry_run", "quiet", "time", "checkpoint"})
RECALLED = "msad.recalled"

Command = TypeVar("Command", bound=Callable[..., Any])


def resumable(default_out: Callable[[Mapping[str, Any]], str]) -> Callable[[Command], Command]:
    """Decorates a training command: fills in `out`, and with `--resume` all that was not typed, from args.json.

    Processes that torchrun started know of each other while it runs.

    Args:
        default_out: the name of the model file, from the command's values.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(**values: Any) -> Any:
            context = values["context"]
            values["out"] = context.params["out"] = values["out"] or Path(default_out(values))
            with together():
                if values["resume"]:
                    values |= _recalled(context, RunFolder(values["out"]), command)
                return command(**values)

        return cast("Command", run)

    return decorate


def all_settings(context: typer.Context, computed: Mapping[str, Setting]) -> dict[str, Setting]:
    """Every flag of a command with its value and source, what was computed standing in for what was not typed."""
    recalled = context.meta.get(RECALLED, {})
    settings = {}
    for name, value in context.params.items():
        if name not in UNRECORDED and value is not None:
            settings[name] = Setting(value, "flag" if is_typed(context, name) else "default")
    settings |= computed
    for name in recalled.keys() & settings.keys():
        settings[name] = Setting(settings[name].value, "resumed", settings[name].reason)
    return {name.rstrip("_"): each for name, each in settings.items()}


def changes(before: Mapping[str, Setting], now: Mapping[str, Setting]) -> list[str]:
    """What a resumed run does otherwise than before, in words."""
    return [
        f"{name} {before[name].value} → {each.value}"
        for name, each in now.items()
        if name in before and _plain(before[name].value) != _plain(each.value)
    ]


def _recalled(context: typer.Context, folder: RunFolder, command: Callable[..., Any]) -> dict[str, Any]:
    if not folder.resumable:
        raise UsageError(f"nothing to resume: no {folder.state}", "leave --resume away to start")
    types = typing.get_type_hints(command)
    recorded = folder.recorded()
    values: dict[str, Any] = {}
    for name in context.params.keys() - UNRECORDED:
        setting = recorded.get(name.rstrip("_"))
        if setting is None:
            continue
        if is_typed(context, name):
            if name not in MAY_CHANGE and _plain(context.params[name]) != setting.value:
                flag = f"--{name.rstrip('_').replace('_', '-')}"
                raise UsageError(
                    f"cannot resume: {flag} was {setting.value} and is now {context.params[name]}",
                    f"leave {flag} away, or start anew with --overwrite",
                )
        elif setting.source != "auto" or name in COMPUTED_ONCE:
            is_path = Path in (types[name], *typing.get_args(types[name]))
            values[name] = Path(setting.value) if is_path else setting.value
    context.params.update(values)
    context.meta[RECALLED] = values
    return values


def is_typed(context: typer.Context, name: str) -> bool:
    """Whether a flag stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _plain(value: Any) -> Any:
    """A value as args.json gives it back."""
    return json.loads(json_text(value))
