"""From a configuration's fields to the flags of a command, and from what was typed to a configuration.

A field has its type and its default in training/config.py, and what the command line adds (its spelling, help, limits)
in a table of `typer.Option`s; a command's signature is made of both, so that nothing stands twice.
"""

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Annotated, Any

import typer

from msad_cli.training.config import LIMITS, PYTHON_ONLY, Asked, Config

Flags = Mapping[str, Any]
"""By the field's name: the type with its `typer.Option`."""


def configured(config: type[Config], flags: Flags, run: Callable[[Asked[Config]], None]) -> Callable[..., None]:
    """A command for Typer that reads `flags` into a configuration and runs it; its help is the docstring of `run`.

    Raises:
        KeyError, ValueError: the flags are not those of the configuration.
    """
    defaults = {each.name: each.default for each in fields(config) if each.name not in PYTHON_ONLY}
    if defaults.keys() != flags.keys():
        raise ValueError(f"fields without flags, or flags without fields: {sorted(defaults.keys() ^ flags.keys())}")

    def command(context: typer.Context, **values: Any) -> None:
        typed = frozenset(name for name in values if is_typed(context, name))
        run(Asked(config(**values), typed))

    keyword: Any = inspect.Parameter.KEYWORD_ONLY
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    own: list[inspect.Parameter] = [
        inspect.Parameter(name, keyword, default=defaults[name], annotation=_limited(name, flags[name]))
        for name in flags
    ]
    command.__signature__ = inspect.Signature([context, *own])  # type: ignore[attr-defined]
    command.__doc__ = run.__doc__
    command.__name__ = run.__name__.strip("_")
    return command


def _limited(name: str, flag: Any) -> Any:
    """The flag with the limits of its field, which the help shows and the parser holds."""
    option = copy.copy(flag.__metadata__[0])
    option.min, option.max = LIMITS.get(name, (option.min, option.max))
    return Annotated[flag.__origin__, option]


def is_typed(context: typer.Context, name: str) -> bool:
    """Whether a flag stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
