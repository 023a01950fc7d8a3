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
        names = _in_list(lists[own.split], stems)
        if lists[own.split].stem != split:
            notes = [f"{split} is {lists[own.split]}"]
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
    return Choice(tuple(names), (lists[own.split],) if lists else (), tuple(notes))


def _lists(place: Path) -> dict[str, Path]:
    """The list of each split."""
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


def _in_list(file: Path, stems: Sequence[str]) -> list[str]:
    """Images that a text file lists, as XML files are called."""
    by_name = {alike(stem): stem for stem in stems}
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
