"""stdout of a command that was typed with `--json`: one document, the result or, where there is none, the error."""

import sys
from typing import Any

from msad_cli.errors import MsadError


class _Document:
    printed = False


def expect_json() -> None:
    """To be called before a command starts: nothing is printed yet."""
    _Document.printed = False


def print_json(value: Any) -> None:
    """A result on stdout; NaN becomes null."""
    from msad_cli.runs.folder import json_text

    sys.stdout.write(json_text(value))
    _Document.printed = True


def print_error(error: MsadError) -> None:
    """An error on stdout, unless a result stands there already, such as the report on data that cannot be used."""
    if not _Document.printed:
        told = {"code": error.code, "message": error.message, "hint": error.hint, "exit_code": error.exit_code}
        print_json({"error": told})
