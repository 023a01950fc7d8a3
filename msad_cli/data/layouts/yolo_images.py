"""Which images a split of a YOLO set has: those in folders, or those that lists name."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msad_cli.data.annotations.problem_tally import Tally
from msad_cli.data.annotations.values import shown
from msad_cli.data.images.decode import IMAGE_SUFFIXES
from msad_cli.data.images.names import outward_links, refused_name
from msad_cli.data.images.places import Finder, files_below, longest_end, parts
from msad_cli.data.layouts.cache import read_text
from msad_cli.data.layouts.split_names import WORDS, split_named
from msad_cli.errors import DataError


@dataclass
class Chosen:
    """The images of a split.

    Attributes:
        names: relative to the root of the set.
        lists: that they were read from.
        folders: that they were looked for in, or that the listed ones lie in.
        elsewhere: where those that lie elsewhere than it says are listed, and what was found, in words.
        tally: of what was met on the way.
    """

    names: list[str]
    lists: list[Path] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    elsewhere: dict[str, str] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)


def inside(root: Path, place: str) -> str | None:
    """A place as seen from `root`, links aside; None if it is not below it."""
    if "\0" in place:
        return None
    relative = os.path.relpath(os.path.join(root, place), root)
    return None if refused_name(relative) else relative


def field_of(fields: Mapping[str, Any], split: str) -> tuple[str, Any]:
    """The field that tells of a split, whatever its tool calls it, and what it tells."""
    named = {each: value for each, value in fields.items() if isinstance(each, str) and value}
    word = next((word for word in WORDS[split] for each in named if each.casefold() == word), None)
    return next(((each, value) for each, value in named.items() if each.casefold() == word), (split, None))


def splits_there(root: Path, fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What a data.yaml tells of each split, by its name; val and test only if they are there, else noted."""
    found: dict[str, Any] = {}
    notes = []
    for split in WORDS:
        name, value = field_of(fields, split)
        entries = [value] if isinstance(value, str) else value
        texts = isinstance(entries, list) and all(isinstance(each, str) for each in entries)
        # Exporters name splits that a set does not have. What is there outside of it is not theirs to name.
        gone = texts and not any(_place_of(root, each) or os.path.exists(root / each) for each in entries)
        if value and split != "train" and gone:
            notes.append(f"{name}: {', '.join(map(shown, entries))} is not there")
        elif value:
            found[split] = value
    return found, notes


def images_of(file: Path, root: Path, split: str, value: Any) -> Chosen:
    """The images that a data.yaml names for a split.

    Args:
        file: for messages.
        root: that all names are relative to.
        split: the name of the field.
        value: a folder, a list of them, or a text file that lists images.

    Raises:
        DataError: it is none of these, or leads out of the root.
    """
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, list) or not entries or not all(isinstance(each, str) for each in entries):
        raise DataError(
            f"{file}: {split} {shown(value)}",
            f"{split}: is a folder of images, a list of folders, or a .txt file that lists images",
            code="split-malformed",
        )
    names: dict[str, None] = {}
    chosen = Chosen([])
    for entry in entries:
        place = _place_of(root, entry)
        for target in outward_links(root, [] if place is None else [place]).values():
            raise DataError(
                f"{file}: {split}: {shown(entry)}: a link to {target}, outside {root}",
                "put the folder itself there, or give the folder that the links lead to",
                code="link-outward",
            )
        if place is None:
            leaves = "" if any(inside(root, each) for each in _habits(entry)) else f", which leaves {root}"
            raise DataError(
                f"{file}: {split}: {shown(entry)}: no such folder or file below {root}{leaves}",
                f"data.yaml lies in the folder of the set, and {split}: is relative to it",
                code="split-folder-missing",
            )
        if (root / place).is_dir():
            names |= dict.fromkeys(_in_folder(root, place))
            chosen.folders.append(place)
        else:
            chosen.lists.append(root / place)
            listed = _in_list(root, root / place, chosen.elsewhere)
            names |= dict.fromkeys(listed)
            chosen.folders += dict.fromkeys(os.path.dirname(each) or "." for each in listed)
    if not names:
        raise DataError(
            f"{file}: {split}: no images in {', '.join(entries)}", "are they elsewhere?", code="split-without-images"
        )
    chosen.names = list(names)
    return chosen


def _habits(entry: str) -> tuple[str, str]:
    """Written beside data.yaml, but as if it lay one folder deeper: a habit of some exporters."""
    return entry, entry.removeprefix("../")


def _place_of(root: Path, entry: str) -> str | None:
    """A folder or file of the set that an entry means, relative to the root; None for none."""
    places = [inside(root, each) for each in _habits(entry)]
    found = next((each for each in places if each is not None and os.path.exists(root / each)), None)
    if found is not None:
        return found
    end = longest_end(root, entry)
    # `images` is what `valid/images` ends with, but holds the images of all splits.
    named = parts(entry)
    left = named[: len(named) - len(end.split("/"))] if end else []
    return None if left and split_named(left[-1]) else end


def _in_folder(root: Path, place: str) -> list[str]:
    """Images in a folder and those below."""
    return sorted(each for each in files_below(root, place) if os.path.splitext(each)[1].lower() in IMAGE_SUFFIXES)


def _in_list(root: Path, file: Path, elsewhere: dict[str, str]) -> list[str]:
    """Images that a text file lists, relative to its own folder or to the root."""
    lines = [(number, text) for number, line in enumerate(read_text(file).splitlines(), 1) if (text := line.strip())]
    places: dict[str, list[str]] = {}
    for _, text in lines:
        both = inside(root, os.path.join(file.parent, text)), inside(root, text)
        places[text] = [each for each in both if each is not None]
    there = {text: next((each for each in of if os.path.exists(root / each)), "") for text, of in places.items()}
    lost = [text for text, name in there.items() if not name]
    ends = {text: end for text in lost if (end := longest_end(root, text))}
    left = [text for text in lost if text not in ends]
    ends |= Finder(root, root).located(left, set(filter(None, there.values()))) if left else {}
    names = []
    for number, text in lines:
        if text in ends:
            elsewhere[ends[text]] = f"{file}, line {number}: {shown(text)} is {shown(ends[text])}"
        elif not places[text]:
            raise DataError(
                f"{file}, line {number}: {shown(text)} leaves {root}",
                "list images below that folder",
                code="file-name-refused",
            )
        names.append(ends.get(text) or there[text] or places[text][-1])
    return names
