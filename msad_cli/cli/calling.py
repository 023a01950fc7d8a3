"""A command called from Python: its parameters as keywords, read by the parser that reads what is typed."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer

from msad_cli.errors import UsageError
from msad_cli.text import nearest


def typed(command: Any, values: Mapping[str, Any]) -> list[str]:
    """What one types to give the parameters of a Click command these values; None stands for nothing typed.

    {"aligned": False, "epochs": 12, "overwrite": True} -> ["--unaligned", "--epochs=12", "--overwrite", "--"]
    """
    flags: list[str] = []
    arguments: list[str] = []
    for parameter in command.params:
        value = values.get(parameter.name)
        if value is None:
            continue
        if parameter.param_type_name == "argument":
            arguments.append(str(value))
        elif parameter.is_flag and isinstance(value, bool):
            flags += parameter.opts[:1] if value else parameter.secondary_opts[:1]
        else:
            flags.append(f"{parameter.opts[0]}={value}")
    return [*flags, "--", *arguments]


def call(command: Any, values: Mapping[str, Any]) -> tuple[Any, Any]:
    """Runs a Click command; its context, and what it returned: None where it stopped before its end.

    A training that a signal stopped has written its state; the signal then does what it does without msad.

    Raises:
        MsadError: as the command.
    """
    with _silence(values["quiet"]), _usage_errors():
        context = command.make_context(f"msad {command.name}", typed(command, values))
        try:
            with context:
                return context, command.invoke(context)
        except typer.Exit as stop:
            if stop.exit_code:
                signal.raise_signal(stop.exit_code - 128)
            return context, None


def usage_error(error: Exception) -> UsageError | None:
    """One of Typer's errors of usage as msad's own; None for any other error."""
    # Which class they have depends on whether Typer brings click along or imports it.
    if not hasattr(error, "format_message"):
        return None
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "msad"
    message = error.format_message()
    if likely := nearest(getattr(error, "option_name", ""), getattr(error, "possibilities", None) or (), 0.0):
        message = f"No such option: {getattr(error, 'option_name', '')}. Did you mean {likely}?"
    return UsageError(message, f"{command} --help lists what there is")


@contextmanager
def _usage_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if (wrong := usage_error(error)) is None:
            raise
        raise wrong from None


@contextmanager
def _silence(quiet: bool) -> Iterator[None]:
    from msad_cli.cli.console import console

    before, console.quiet = console.quiet, quiet
    try:
        yield
    finally:
        console.quiet = before
