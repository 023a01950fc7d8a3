"""Which images a split of a VOC set has: by lists of names, by the folders that the XML files lie in, or drawn."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msad_cli.data.annotations.values import shown
from msad_cli.data.images.names import refused_name
from msad_cli.data.images.places import alike, parts
from msad_cli.data.layouts.cache import read_text
from msad_cli.data.layouts.drawing import validation_part
from msad_cli.data.layouts.image_folders import folders_in, folders_two_deep
from msad_cli.data.layouts.split_names import WORDS, own_split, split_named
from msad_cli.errors import DataError

LISTS = (("imagesets", "main"), ("imagesets",), ())
"""Folders of lists, the first that has some is taken; whatever the case."""
FLAGS = ("-1", "0", "1")
"""What stands behind a name in lists of a class: whether it is there."""


@dataclass(frozen=True)
class Choice:
    """The images of a split.

    Attributes:
        names: without suffix, relative to the folder of the XML files.
        lists: that were read.
        notes: what the user has to know of it.
    """

    names: tuple[str, ...]
    lists: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class List:
    """A list of images.

    Attributes:
        file: it.
        year: the folder of the set that it is of, relative to that of all; empty where there is only one.
    """

    file: Path
    year: str = ""

    def of(self, stems: Sequence[str]) -> dict[str, str]:
        """The XML files that it may name, by what it may call them."""
        if not self.year:
            return {alike(stem): stem for stem in stems}
        inside = [stem for stem in stems if stem.startswith(f"{self.year}/")]
        return {alike(os.path.basename(stem)): stem for stem in inside}


def choose(place: Path, split: str, stems: Sequence[str]) -> Choice:
    """The images of a split.

    Args:
        place: the folder of the set.
        split: `train`, `val` or `test`.
        stems: of all XML files.

    Raises:
        AbsentSplitError: there is no such split.
        DataError: a list names what is outside of the set.
    """
    lists = _lists(place)
    folders = {stem: named for stem in stems if (named := _split_of(stem))}
    there = set(lists) or set(folders.values()) or {"train"}
    own = own_split(split, there, place, f"{split}.txt" if lists else f"XML files in a folder for {split}")
    notes = list(own.notes)
    if lists:
        names = [name for each in lists[own.split] for name in _in_list(each.file, each.of(stems))]
        if any(each.file.stem != split for each in lists[own.split]):
            notes = [f"{split} is {each.file}" for each in lists[own.split]]
    elif folders:
        names = [stem for stem in stems if folders.get(stem) == own.split]
        if len(folders) < len(stems):
            notes.append(f"{place}: {len(stems) - len(folders)} XML files lie in no split's folder, and are left out")
    else:
        names = list(stems)
    if own.drawn:
        validation, note = validation_part(names, place)
        names = [each for each in names if (each in validation) == (split == "val")]
        notes.append(note)
    return Choice(tuple(names), tuple(each.file for each in lists[own.split]) if lists else (), tuple(notes))


def _lists(place: Path) -> dict[str, list[List]]:
    """The lists of each split: of the set or, where VOC's years lie in one folder, of each year's."""
    if own := _lists_in(place):
        return {split: [List(file)] for split, file in own.items()}
    found: dict[str, list[List]] = {}
    for folder in folders_two_deep(place):
        if any(each.name.casefold() == LISTS[1][0] for each in folders_in(folder)):
            for split, file in _lists_in(folder).items():
                found.setdefault(split, []).append(List(file, folder.relative_to(place).as_posix()))
    return found


def _lists_in(place: Path) -> dict[str, Path]:
    """The list of each split of a folder."""
    for names in LISTS:
        folder: Path | None = place
        for name in names:
            inner = sorted(folder.iterdir()) if folder else []
            folder = next((each for each in inner if each.name.casefold() == name and each.is_dir()), None)
        files = sorted(folder.glob("*.[tT][xX][tT]")) if folder else []
        by_word = {each.stem.casefold(): each for each in files[::-1]}
        found = {split: by_word[word] for split, words in WORDS.items() for word in words[::-1] if word in by_word}
        if found:
            return found
    return {}


def _split_of(stem: str) -> str | None:
    """The split whose folder a file is in."""
    return next((split for part in stem.split("/")[-2::-1] if (split := split_named(part))), None)


def _in_list(file: Path, by_name: Mapping[str, str]) -> list[str]:
    """Images that a text file lists, as XML files are called."""
    names: dict[str, None] = {}
    for row, line in enumerate(read_text(file).splitlines(), start=1):
        if not (text := line.strip().strip('"')):
            continue
        stem = _stem_of(text, by_name)
        if stem is None and (reason := refused_name(text)):
            raise DataError(
                f"{file}, line {row}: {shown(text)} {reason}", "list names without suffix", code="file-name-refused"
            )
        names[stem or text] = None
    return list(names)


def _stem_of(text: str, by_name: Mapping[str, str]) -> str | None:
    """The XML file that a line means: with a suffix, behind folders, or with a flag behind it."""
    before, _, last = text.rpartition(" ")
    for each in (text, before.rstrip()) if last in FLAGS else (text,):
        for name in (each, os.path.splitext(each)[0]):
            found = parts(name)
            for start in range(len(found)):
                if (stem := by_name.get(alike("/".join(found[start:])))) is not None:
                    return stem
    return None
