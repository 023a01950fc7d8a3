"""YOLO sets without a data.yaml: darknet's obj.data, or just images and label files, with or without a classes.txt."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from msad_cli.data.annotations.values import whole_number
from msad_cli.data.images.decode import IMAGE_SUFFIXES
from msad_cli.data.images.places import files_below
from msad_cli.data.layouts.base import Files, Layout
from msad_cli.data.layouts.cache import read_text
from msad_cli.data.layouts.split_names import WORDS, split_named
from msad_cli.data.layouts.yolo import read_split_of
from msad_cli.data.layouts.yolo_class_files import class_file, has_class_file, read_names
from msad_cli.data.layouts.yolo_label_files import find_labels, is_label
from msad_cli.data.layouts.yolo_yaml import YoloSet
from msad_cli.errors import DataError

DARKNET = ".data"
NOT_COCO = ("notes.json",)
"""What Label Studio lays beside the images."""
NONE = (0, 0)
"""Keypoints."""


def _children(place: Path) -> dict[str, Path]:
    """What is in a folder, by its name in small letters."""
    return {each.name.casefold(): each for each in sorted(place.iterdir(), reverse=True)} if place.is_dir() else {}


def _darknet_file(place: Path) -> Path | None:
    """A file that says, a line each, `train = …` and `names = …`; or that of a folder, if there is one."""
    files = [place] if place.is_file() else sorted(place.glob(f"*{DARKNET}"))
    found = [each for each in files if each.suffix == DARKNET and each.is_file() and "names" in _fields(each)]
    return found[0] if len(found) == 1 else None


def _fields(file: Path) -> dict[str, str]:
    try:
        lines = read_text(file).splitlines()
    except DataError:
        return {}
    pairs = (line.partition("=") for line in lines)
    return {name.strip(): value.strip() for name, sign, value in pairs if sign and value.strip()}


def _recognises(place: Path) -> bool:
    if _darknet_file(place) is not None:
        return True
    children = _children(place)
    others = [*children.values(), *(_children(children["annotations"]).values() if "annotations" in children else ())]
    if not place.is_dir() or any(each.suffix == ".json" and each.name not in NOT_COCO for each in others):
        return False
    folders = [children, *(_children(each) for name, each in children.items() if split_named(name))]
    if any("labels" in each and "images" in each for each in folders):
        return any(is_label(each) for each in files_below(place))
    return has_class_file(place) and any(_with_labels(place))


def _with_labels(place: Path) -> Iterator[str]:
    """Images beside which a label file lies."""
    names = set(files_below(place))
    for each in names:
        stem, suffix = os.path.splitext(each)
        if suffix.lower() in IMAGE_SUFFIXES and f"{stem}.txt" in names:
            yield each


def _images_below(place: Path) -> Iterator[str]:
    return (each for each in files_below(place) if os.path.splitext(each)[1].lower() in IMAGE_SUFFIXES)


def _find(place: Path, split: str, images: Path | None, task: str) -> Files:
    if (file := _darknet_file(place)) is not None:
        fields = _fields(file)
        root = Path(os.path.abspath(file.parent))
        last = os.path.basename(fields["names"].replace("\\", "/"))
        names = read_names(root / last)
        of = YoloSet(file, root, names, NONE, fields, ())
        return read_split_of(of, split, images, f"darknet set ({file.name})")
    root = Path(os.path.abspath(place))
    classes = class_file(place)
    numbers = {} if classes else _numbers(root)
    note = f"{place}: neither data.yaml nor classes.txt: classes are called by their numbers"
    names = read_names(classes) if classes else {number: f"class {number}" for number in sorted(numbers)}
    folders = _folders(place)
    notes = (*(() if classes else (note,)), *_left_out(root, folders))
    of = YoloSet(classes or root, root, names, NONE, folders, notes)
    called = f" ({classes.name})" if classes else ""
    return read_split_of(of, split, images, f"YOLO images and labels{called}")


def _folders(place: Path) -> Mapping[str, str]:
    """The images of each split: lists, folders in `images`, folders, or all as train."""
    children = _children(place)
    images = children.get("images")
    for folder in (images, place) if images else (place,):
        inner = {name: each for name, each in _children(folder).items() if each.is_dir()}
        found = {split: inner[word] for split, words in WORDS.items() for word in words[::-1] if word in inner}
        if found:
            return {split: os.path.relpath(each, place) for split, each in found.items()}
    return {"train": images.name if images else "."}


def _left_out(root: Path, folders: Mapping[str, str]) -> tuple[str, ...]:
    """That images with labels lie in no split's folder, if some do."""
    if "." in folders.values():
        return ()
    own = tuple(f"{each}/" for each in folders.values())
    left = [each for each in _images_below(root) if not each.startswith(own)]
    count = len(find_labels(root, left))
    return (f"{root}: {count} images with labels lie in no split's folder, and are left out",) if count else ()


def _numbers(root: Path) -> set[int]:
    """Those of the classes that labels have."""
    found: set[int] = set()
    for each in files_below(root):
        if is_label(each):
            words = re.findall(r"^\s*(\d+)[ \t]+\S", read_text(root / each), re.MULTILINE)
            found |= {number for word in set(words) if (number := whole_number(word)) is not None}
    return found


LAYOUT = Layout("labels/*.txt", _recognises, _find)
