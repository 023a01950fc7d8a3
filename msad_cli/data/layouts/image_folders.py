"""The folder of the images of an annotation file: the one that holds the files which it names."""

import json
import mmap
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from msad_cli.data.images.decode import IMAGE_SUFFIXES
from msad_cli.data.images.names import outward_links, refused_name
from msad_cli.data.images.places import files_below
from msad_cli.data.layouts.split_names import split_in, split_named
from msad_cli.errors import AbsentSplitError

FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')
SAMPLE = 200
"""Names that are looked at: they decide about folders, not about images."""
USUAL = ("images", "imgs", "image", "img", "jpegimages", "photos", "pictures", "data")
"""What folders of images are called, whatever the case; those of a split are called like it."""

SIDE = re.compile(r"mask|label|seg|annot|depth|thumb|preview|(?<![a-z])gt(?![a-z])", re.IGNORECASE)
"""What folders are called whose files bear the names of images and are none."""


def image_folder(folder: Path, file: Path, split: str, flag: str) -> tuple[Path, tuple[str, ...]]:
    """The folder of the images of an annotation file, and notes where another one could be it.

    Args:
        folder: of the set.
        file: of annotations.
        split: `train`, `val` or `test`; empty where the file is that of all images.
        flag: that names a folder, for the message.

    Raises:
        AbsentSplitError: there is none.
    """
    usual, others = _places(folder, file, split)
    places = _by_side([*usual, *(each for each in others if each not in usual)])
    names = _some_names(file)
    counts = {place: _held(place, names) for place in (*places, folder)}
    if best := max(counts.values(), default=0):
        first = next(place for place, count in counts.items() if count == best)
        same = [each for each, count in counts.items() if count == best and each != folder and not _same(each, first)]
        shown = ", ".join(f"{each.relative_to(folder)}/" for each in same)
        notes = []
        if shown:
            notes.append(f"{file}: its images are those in {first}; {shown} has files of these names too")
        elif first not in usual and first != folder:
            notes.append(f"{file}: its images are those in {first}")
        return first, tuple(notes)
    if beside := [place for place in (*places, folder) if _has_images(place)]:
        return beside[0], ()
    if usual or not split:
        return (*usual, folder)[0], ()
    if any(_is_image(name) for place in others for name in files_below(folder, place.name)):
        return folder, ()
    subset = file.stem.split("_")[-1]
    raise AbsentSplitError(
        f"{folder}: no folder {subset}/ with the images of {file.name}", f"or give {flag}", code="image-folder-missing"
    )


def _places(folder: Path, file: Path, split: str) -> tuple[list[Path], list[Path]]:
    """Folders that hold images by their names, the likeliest first; and others that may."""
    subset = file.stem.split("_")[-1].casefold()
    own = folders_in(folder)
    usual = sorted((each for each in own if each.name.casefold() in USUAL), key=lambda each: _rank(each.name))
    inner = [each for place in usual for each in folders_in(place)]
    named = [*own, *inner]
    groups = [
        [each for each in named if each.name.casefold() == subset],
        [each for each in named if split_named(each.name) == split],
        usual,
        [each for each in own if each.name == file.stem],
        [each for each in named if split and (split_in(each.name) == split or each.name.casefold().startswith(split))],
    ]
    others = [each for each in own if each.name.casefold() != "annotations" and split_in(each.name) is None]
    likely = list(dict.fromkeys(each for group in groups for each in group))
    return _by_side(likely), others


def _by_side(places: list[Path]) -> list[Path]:
    """In their order, but what is called like masks or labels last."""
    return sorted(places, key=lambda each: SIDE.search(each.name) is not None)


def folders_in(place: Path) -> list[Path]:
    """The folders in a folder, which may hold very many files; hidden ones aside."""
    with os.scandir(place) as entries:
        return sorted(place / each.name for each in entries if each.is_dir() and not each.name.startswith("."))


def folders_two_deep(place: Path) -> list[Path]:
    """The folders in a folder, then those in them."""
    inner = folders_in(place)
    return [*inner, *(each for outer in inner for each in folders_in(outer))]


def jsons_in(place: Path) -> list[Path]:
    """The .json files in a folder; hidden ones aside, as macOS leaves ._a.json beside a.json."""
    return sorted(each for each in place.glob("*.json") if not each.name.startswith("."))


def _rank(name: str) -> int:
    return USUAL.index(name.casefold())


def _some_names(file: Path) -> list[str]:
    """The first names of images in an annotation file, which may be too large to be read for them."""
    with suppress(OSError, ValueError), file.open("rb") as opened:
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as text:
            found = [match[1] for match in islice(FILE_NAME.finditer(text), SAMPLE)]
        return [name for each in found if not refused_name(name := json.loads(each))]
    return []


def _held(place: Path, names: Sequence[str]) -> int:
    there = [name for name in names if os.path.exists(place / name)]
    return len(there) - len(outward_links(place, there)) if there else 0


def _has_images(place: Path) -> bool:
    return any(_is_image(each.name) for each in place.iterdir())


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()
