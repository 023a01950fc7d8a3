"""stdout of a command that was typed with `--json`: one document, the result or, where there is none, the error.

docs/json.md says what stands in it, and schema.json beside this file what may.
"""

import math
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msad_cli.errors import MsadError

if TYPE_CHECKING:
    from msad_cli.models.cost import Cost

VERSION = 1
"""Of the schema: another one where a name goes or means something else."""
SCHEMA = Path(__file__).with_name("schema.json")
BEST_BY = ("keypoint_AP", "mask_AP", "AP")
"""The number by which the best model is found: the first that one of them has."""


class _Document:
    printed = False


def expect_json() -> None:
    """To be called before a command starts: nothing is printed yet."""
    _Document.printed = False


def print_json(command: str, **parts: Any) -> None:
    """A result on stdout; NaN becomes null."""
    _print({"command": command, **parts})


def print_models(command: str, models: Iterable[Mapping[str, Any]], **parts: Any) -> None:
    """A result on stdout that is of models: each as `model_json` makes it, and the best again, null without an AP."""
    models = list(models)
    print_json(command, models=models, best=_best(models), **parts)


def print_error(error: MsadError) -> None:
    """An error on stdout, unless a result stands there already, such as the report on data that cannot be used."""
    if not _Document.printed:
        told = {"code": error.code, "message": error.message, "hint": error.hint, "exit_code": error.exit_code}
        _print({"error": told})


def model_json(name: str, file: Path | None, view: str, **known: Any) -> dict[str, Any]:
    """A model's view in a document.

    Args:
        name: as the table of the command has it.
        file: None of a network that was only described.
        known: what the command says of it; None is left out.
    """
    own = {"name": name, "file": None if file is None else str(file), "view": view}
    return own | {key: value for key, value in known.items() if value is not None}


def view_name(model: Path, view: str, views: Collection[str]) -> str:
    """What a model's view is called: the model's name where it has no other."""
    return f"{model.stem}, {view}" if len(views) > 1 else model.stem


def cost_json(cost: "Cost") -> dict[str, dict[str, float]]:
    """`macs` and `parameters` of a model, by part and in total."""
    return {
        "macs": {**cost.macs, "total": cost.total},
        "parameters": {**cost.parameters, "total": sum(cost.parameters.values())},
    }


def _best(models: list[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    for number in BEST_BY:
        scores = [each.get("scores", {}).get(number) for each in models]
        known = {place: ap for place, ap in enumerate(scores) if ap is not None and not math.isnan(ap)}
        if known:
            return models[max(known, key=lambda place: known[place])]
    return None


def _print(parts: Mapping[str, Any]) -> None:
    from msad_cli.runs.folder import json_text

    sys.stdout.write(json_text({"schema": VERSION, **parts}))
    _Document.printed = True
