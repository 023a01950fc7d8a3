"""What commands print with `--json`: held to the schema, and by the names of the models in it."""

import json
from typing import Any

from jsonschema import Draft202012Validator

from msad_cli.cli.output.json_output import SCHEMA

_VALID = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def document(text: str) -> dict[str, Any]:
    """The one document in a text.

    Raises:
        ValueError: it is none, or there is more.
        ValidationError: it is not as the schema has it.
    """
    found: dict[str, Any] = json.loads(text)
    _VALID.validate(found)
    return found


def by_name(text: str) -> dict[str, dict[str, Any]]:
    """Its models by their names."""
    return {each["name"]: each for each in document(text)["models"]}


def by_view(text: str) -> dict[str, dict[str, Any]]:
    """Its models, which are the views of one, by these."""
    return {each["view"]: each for each in document(text)["models"]}
