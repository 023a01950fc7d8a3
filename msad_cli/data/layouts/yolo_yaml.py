"""A YOLO set's data.yaml: where images lie, what the classes are called, and how many keypoints objects have."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from msad_cli.data.annotations.values import MOST_KEYPOINTS, shown, whole_number
from msad_cli.data.images.names import outward_links
from msad_cli.data.layouts.cache import read_text
from msad_cli.data.layouts.yolo_images import inside
from msad_cli.errors import DataError

YAML_SUFFIXES = (".yaml", ".yml")
NAMES = re.compile(rb"""^["']?names["']?\s*:""", re.MULTILINE)


@dataclass(frozen=True)
class YoloSet:
    """What a data.yaml says.

    Attributes:
        file: the data.yaml.
        root: the folder that all names are relative to.
        names: of the classes, by the number that labels have.
        keypoints: how many each object has, and of how many numbers (2 or 3) each of them is; zeros for none.
        fields: everything it says.
        notes: on what it says.
    """

    file: Path
    root: Path
    names: dict[int, str]
    keypoints: tuple[int, int]
    fields: Mapping[str, Any]
    notes: tuple[str, ...]


def yolo_file(place: Path) -> Path | None:
    """A data.yaml itself, or that of a folder; of another name, if it alone names classes."""
    if place.is_file():
        return place if place.suffix.lower() in YAML_SUFFIXES else None
    found = sorted(
        each
        for each in place.iterdir()
        if each.suffix.lower() in YAML_SUFFIXES and each.is_file() and not each.name.startswith(".")
    )
    named = [each for each in found if each.stem.casefold() == "data"]
    naming = [each for each in found if NAMES.search(each.read_bytes())]
    best = [each for each in named if each in naming] or (naming if len(naming) == 1 else named)
    return best[0] if best else None


def read_yolo(file: Path) -> YoloSet:
    """Reads a data.yaml.

    Raises:
        DataError: it is no YAML, or its fields are not what they should be.
    """
    fields = _read_yaml(file)
    names = _read_names(file, fields)
    count, numbers = _read_shape(file, fields.get("kpt_shape"))
    folder = Path(os.path.abspath(file.parent))
    notes: tuple[str, ...] = ()
    path = fields.get("path") or "."
    if not isinstance(path, str):
        raise DataError(
            f"{file}: path {shown(path)} is no text",
            "leave path away where data.yaml lies in the folder",
            code="data-yaml-path-malformed",
        )
    root = inside(folder, path)
    if root is None or not (folder / root).is_dir() or outward_links(folder, [root]):
        # A set that was moved still has the path that it was made at.
        notes = (f"{file}: path {shown(path)} is no folder below {folder}, which is taken in its place",)
        root = "."
    return YoloSet(file, Path(os.path.normpath(folder / root)), names, (count, numbers), fields, notes)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        fields = yaml.safe_load(read_text(file))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise DataError(f"{file}: broken YAML{line}: {error.problem or error.context}", code="yaml-broken") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # characters no YAML has, a date that is none
        raise DataError(
            f"{file}: broken YAML: {str(error).splitlines()[0] if str(error) else 'too deep'}", code="yaml-broken"
        ) from None
    if not isinstance(fields, dict):
        raise DataError(f"{file}: not a YOLO data.yaml", "it has lines train:, val: and names:", code="not-a-data-yaml")
    return fields


def _read_names(file: Path, fields: dict[str, Any]) -> dict[int, str]:
    """Names of the classes by number."""
    value = fields.get("names")
    names = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(names, dict) or not names:
        raise DataError(
            f"{file}: names {shown(value)}",
            "names: is a list of classes, or 0: first, 1: second, …",
            code="class-names-malformed",
        )
    # Writers who think in JSON have texts for keys.
    names = {number if (number := whole_number(key)) is not None else key: name for key, name in names.items()}
    for number, name in names.items():
        if type(number) is not int or number < 0 or type(name) not in (str, int):
            raise DataError(
                f"{file}: names, class {shown(number)}: {shown(name)}",
                "numbers count from 0, and names are texts: quote what YAML takes for something else, such as 'no'",
                code="class-names-malformed",
            )
    counted = fields.get("nc", len(names))
    if counted != len(names):
        raise DataError(
            f"{file}: nc {shown(counted)}, but {len(names)} names", "correct one of them", code="class-count-differs"
        )
    return {number: str(name) for number, name in names.items()}


def _read_shape(file: Path, value: object) -> tuple[int, int]:
    if value is None:
        return 0, 0
    if isinstance(value, list) and len(value) == 2 and all(type(each) is int for each in value):
        count, numbers = value
        if 0 < count <= MOST_KEYPOINTS and numbers in (2, 3):
            return count, numbers
    raise DataError(
        f"{file}: kpt_shape {shown(value)}",
        "such as kpt_shape: [17, 3]; or 2 without visibility",
        code="keypoint-shape-malformed",
    )
