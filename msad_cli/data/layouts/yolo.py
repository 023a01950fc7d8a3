"""YOLO sets: a data.yaml says where images lie and what the classes are; yolo_labels.py reads what is in them."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from msad_cli.data.annotations.records import examine
from msad_cli.data.annotations.values import MOST_KEYPOINTS, shown
from msad_cli.data.images.decode import IMAGE_SUFFIXES
from msad_cli.data.images.names import outward_links, refused_name
from msad_cli.data.images.split_images import look_at_images
from msad_cli.data.layouts.base import Files, Layout
from msad_cli.data.layouts.cache import Converted, cached, read_text
from msad_cli.data.layouts.yolo_labels import read_labels
from msad_cli.errors import AbsentSplitError, DataError

YAML_SUFFIXES = (".yaml", ".yml")


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
    fields: dict[str, Any]
    notes: tuple[str, ...]


def yolo_file(place: Path) -> Path | None:
    """A data.yaml itself, or that of a folder; of another name, if it is the only such file there and names classes."""
    if place.is_file():
        return place if place.suffix.lower() in YAML_SUFFIXES else None
    found = sorted(each for each in place.iterdir() if each.suffix.lower() in YAML_SUFFIXES and each.is_file())
    if named := [each for each in found if each.stem == "data"]:
        return named[0]
    return found[0] if len(found) == 1 and re.search(rb"^names\s*:", found[0].read_bytes(), re.MULTILINE) else None


def _find(place: Path, split: str, images: Path | None, task: str) -> Files:
    file = yolo_file(place)
    assert file is not None, "the layout recognised the place by it"
    of = read_yolo(file)
    names, lists = _images(of, split)
    labels = [label_name(name) for name in names]
    for label, target in outward_links(of.root, labels).items():
        raise DataError(
            f"{of.root / label}: a link to {target}, outside {of.root}",
            "put the file itself there",
            code="link-outward",
        )
    sources = [of.file, *lists, *(of.root / each for each in (*names, *labels))]
    annotations, notes = cached(f"yolo-{split}", sources, lambda: _convert(of, names))
    return Files(annotations, images or of.root, f"YOLO set ({file.name})", (*of.notes, *notes))


def label_name(image: str) -> str:
    """The file of an image's labels: `labels` in place of the last folder `images`, if there is one."""
    before, images, after = f"/{image}".rpartition("/images/")
    place = f"{before}/labels/{after}" if images else f"/{image}"
    return f"{os.path.splitext(place)[0]}.txt".removeprefix("/")


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
    root = _inside(folder, path)
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


def _inside(root: Path, place: str) -> str | None:
    """A place as seen from `root`, links aside; None if it is not below it."""
    if "\0" in place:
        return None
    relative = os.path.relpath(os.path.join(root, place), root)
    return None if refused_name(relative) else relative


def _images(of: YoloSet, split: str) -> tuple[list[str], list[Path]]:
    """Names of the images of a split, relative to the root, and the lists that they were read from."""
    value = of.fields.get(split)
    if not value:
        raise AbsentSplitError(
            f"{of.file}: no {split}", f"{split}: is a folder of images, relative to the set's", code="split-missing"
        )
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, list) or not entries or not all(isinstance(each, str) for each in entries):
        raise DataError(
            f"{of.file}: {split} {shown(value)}",
            f"{split}: is a folder of images, a list of folders, or a .txt file that lists images",
            code="split-malformed",
        )
    names: dict[str, None] = {}
    lists = []
    for entry in entries:
        # Written beside data.yaml, but as if it lay one folder deeper: a habit of some exporters.
        places = [_inside(of.root, each) for each in (entry, entry.removeprefix("../"))]
        place = next((each for each in places if each is not None and (of.root / each).exists()), None)
        if place is None or outward_links(of.root, [place]):
            leaves = "" if any(places) else f", which leaves {of.root}"
            raise DataError(
                f"{of.file}: {split}: {shown(entry)}: no such folder or file below {of.root}{leaves}",
                f"data.yaml lies in the folder of the set, and {split}: is relative to it",
                code="split-folder-missing",
            )
        if (of.root / place).is_dir():
            names |= dict.fromkeys(_in_folder(of.root, place))
        else:
            lists.append(of.root / place)
            names |= dict.fromkeys(_in_list(of.root, of.root / place))
    if not names:
        raise DataError(
            f"{of.file}: {split}: no images in {', '.join(entries)}", "are they elsewhere?", code="split-without-images"
        )
    return list(names), lists


def _in_folder(root: Path, place: str) -> list[str]:
    """Images in a folder and those below."""
    found = [
        os.path.relpath(os.path.join(folder, name), root)
        for folder, _, names in os.walk(root / place)
        for name in names
        if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")  # macOS leaves ._a.jpg
    ]
    return sorted(found)


def _in_list(root: Path, file: Path) -> list[str]:
    """Images that a text file lists, relative to its own folder or to the root."""
    names = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not (text := line.strip()):
            continue
        beside, below = _inside(root, os.path.join(file.parent, text)), _inside(root, text)
        if beside is None and below is None:
            raise DataError(
                f"{file}, line {number}: {shown(text)} leaves {root}",
                "list images below that folder",
                code="file-name-refused",
            )
        found = [each for each in (beside, below) if each is not None]
        names.append(next((each for each in found if (root / each).exists()), found[-1]))
    return names


def _convert(of: YoloSet, names: Sequence[str]) -> Converted:
    images: list[dict[str, Any]] = [{"id": i, "file_name": name} for i, name in enumerate(names, start=1)]
    seen = look_at_images(examine({"images": images, "categories": [], "annotations": []}, of.file, of.root))
    sizes = dict(zip(map(str, seen.paths), seen.sizes.tolist(), strict=True))
    annotations: list[dict[str, Any]] = []
    unlabelled = 0
    for image in images:
        height, width = sizes.get(str(of.root / image["file_name"]), (0, 0))
        if not height:
            continue  # the check names it, and nobody knows where in it the objects are
        image |= {"width": width, "height": height}
        found = read_labels(of.root / label_name(image["file_name"]), (width, height), of.names, of.keypoints)
        unlabelled += not found
        annotations += [{"image_id": image["id"], **each} for each in found]
    for number, each in enumerate(annotations, start=1):
        each |= {"id": number, "iscrowd": 0}
    note = f"{of.file}: {unlabelled} of {len(names)} images have no label file or an empty one, and are background"
    document = {"images": images, "annotations": annotations, "categories": _categories(of)}
    return Converted(document, (note,) if unlabelled else ())


def _categories(of: YoloSet) -> list[dict[str, Any]]:
    """With the numbers of the labels as ids."""
    categories: list[dict[str, Any]] = [{"id": number, "name": name} for number, name in of.names.items()]
    count = of.keypoints[0]
    for each in categories if count else ():
        stated = of.fields.get("kpt_names")
        names = stated.get(each["id"]) if isinstance(stated, dict) else stated
        each["keypoints"] = names or [str(number) for number in range(1, count + 1)]
        if not _is_list_of(each["keypoints"], str, count):
            raise DataError(
                f"{of.file}: kpt_names {shown(stated)}",
                f"{count} names for each class, or leave it away",
                code="keypoint-names-malformed",
            )
        if (flipped := of.fields.get("flip_idx")) is not None:
            if not _is_list_of(flipped, int, count):
                raise DataError(
                    f"{of.file}: flip_idx {shown(flipped)}",
                    f"{count} places from 0, or leave it away",
                    code="keypoint-flips-malformed",
                )
            each["flip_idx"] = flipped
    return categories


def _is_list_of(value: object, kind: type, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(type(each) is kind for each in value)


LAYOUT = Layout("data.yaml", lambda place: yolo_file(place) is not None, _find)
