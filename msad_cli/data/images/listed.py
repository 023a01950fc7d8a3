"""The images that an annotation file lists: their ids, sizes, and the files that their names mean."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.problem_tally import Tally
from msad_cli.data.annotations.values import read_id, read_side, shown
from msad_cli.data.images.names import outward_links, refused_name, within
from msad_cli.data.images.places import Finder

ADDRESSES = ("coco_url", "flickr_url")
"""What tells an image's name where there is no `file_name`, as in LVIS."""


@dataclass(frozen=True)
class Listed:
    """Usable images.

    Attributes:
        folder: that their names are relative to.
        ids, names, sizes: of each; height and width as the file says, 0 where it does not.
        place: of each id that is listed; -1 for an image that cannot be used.
    """

    folder: Path
    ids: list[int]
    names: list[str]
    sizes: list[tuple[int, int]]
    place: dict[int, int]


def read_images(records: list[Any], folder: Path, root: Path | None, tally: Tally) -> Listed:
    """Goes through a list of images.

    Args:
        records: of the annotation file.
        folder: of the images.
        root: of the set, where images are looked for that are not in `folder`; None for nowhere else.
        tally: takes the problems.
    """
    if not records:
        tally.add(kinds.NO_IMAGES, "its list is empty")
    ids: list[int] = []
    found: dict[int, tuple[object, tuple[int, int]]] = {}
    for row, each in enumerate(records, start=1):
        if not isinstance(each, dict):
            tally.add(kinds.MALFORMED, "images, record {}: not an object: {}", row, shown(each))
            continue
        number = read_id(each, "id", "images", row, tally)
        if number is None:
            continue
        ids.append(number)
        found.setdefault(number, (_name(each), (read_side(each.get("height")), read_side(each.get("width")))))
    report_repeated(ids, "images", tally)
    if root is None or not within(os.path.abspath(folder), os.path.abspath(root)):
        root = folder
    wanted, names = _files({number: name for number, (name, _) in found.items()}, folder, root, tally)
    for number, name in names.items():
        if 0 in found[number][1]:
            tally.add(kinds.NO_SIZE, "image {} ({})", number, shown(name))
    outward = outward_links(wanted, names.values(), (root, folder))
    _report_files(names, outward, tally)
    usable = {number: name for number, name in names.items() if name not in outward}
    place = dict.fromkeys(found, -1) | {number: i for i, number in enumerate(usable)}
    return Listed(wanted, list(usable), list(usable.values()), [found[number][1] for number in usable], place)


def _name(record: dict[str, Any]) -> object:
    """`file_name`, else an address; whatever it is."""
    name = record.get("file_name")
    return name or next((told for field in ADDRESSES if (told := record.get(field))), name)


def _files(names: Mapping[int, object], folder: Path, root: Path, tally: Tally) -> tuple[Path, dict[int, str]]:
    """The folder that holds all images, and the file of each below it; those without a usable name are left out."""
    refused = {number: reason for number, name in names.items() if (reason := refused_name(name))}
    plain = {number: str(name) for number, name in names.items() if number not in refused}
    base = os.fspath(folder)
    there = {name for name in plain.values() if os.path.lexists(os.path.join(base, name))}
    lost = {name for name in names.values() if isinstance(name, str) and name not in there}
    place = os.path.relpath(folder, root)
    located: dict[str, str] = {}
    if lost:
        named = {os.path.normpath(os.path.join(place, name)) for name in there}
        finder = Finder(root, folder)
        located = finder.located(lost, named)
        for left in () if named else sorted(lost - located.keys()):
            if places := {os.path.dirname(each) or "." for each in finder.candidates(left)}:
                tally.add(kinds.SEVERAL_PLACES, "{} may be in {}", shown(left), ", ".join(sorted(places)))
    # Images that lie elsewhere in the set have names that are relative to the set.
    wide = any(not within(os.path.normpath(file), place) for file in located.values()) and place != "."
    files: dict[int, str] = {}
    for number, name in names.items():
        if isinstance(name, str) and name in located:
            files[number] = located[name] if wide else os.path.relpath(located[name], place)
            tally.add(kinds.ELSEWHERE, "image {}: {} is {}", number, shown(name), shown(located[name]))
        elif number in plain:
            files[number] = os.path.normpath(os.path.join(place, plain[number])) if wide else plain[number]
        else:
            tally.add(kinds.BAD_NAME, "image {}: file_name {} {}", number, shown(name), refused[number])
    return root if wide else folder, files


def _report_files(names: Mapping[int, str], outward: Mapping[str, Path], tally: Tally) -> None:
    first: dict[str, int] = {}
    for number, name in names.items():
        if name in outward:
            tally.add(kinds.OUTWARD_LINK, "image {}: {} leads to {}", number, shown(name), outward[name])
        elif name in first:
            tally.add(kinds.SHARED_FILE, "{} is image {} and {}", shown(name), first[name], number)
        first.setdefault(name, number)


def report_repeated(ids: list[int], name: str, tally: Tally) -> None:
    """Counts ids that stand several times in a list of this name."""
    if len(set(ids)) < len(ids):
        for each, times in Counter(ids).items():
            if times > 1:
                tally.add(kinds.REPEATED_ID, "{}: id {} stands {} times", name, each, times)
