"""Where the label files of a YOLO set's images are, and what is odd about that."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.problem_tally import Tally
from msad_cli.data.annotations.values import shown
from msad_cli.data.images.decode import IMAGE_SUFFIXES
from msad_cli.data.images.places import alike, files_below

IMAGES = re.compile(r"(.*/|^)images/", re.IGNORECASE | re.DOTALL)
LABELS = ".txt"
OTHERS = (".xml", ".json")
"""Suffixes of the label files of other tools, such as of labelImg, which writes XML or YOLO's as a button says."""
ROW = re.compile(rb"\s*[0-9.]+(\s+[-+0-9.eE]+){4,}\s*$")


def label_name(image: str) -> str:
    """The file of an image's labels: `labels` in place of the last folder `images`, if there is one."""
    return f"{os.path.splitext(_place(image))[0]}{LABELS}"


def _place(image: str) -> str:
    return IMAGES.sub(r"\1labels/", image, count=1)


def find_labels(root: Path, images: Sequence[str]) -> dict[str, str]:
    """The label file of each image that has one, relative to the root, in whatever case it is written there."""
    listings: dict[str, dict[str, list[str]]] = {}
    base = os.fspath(root)
    found = {}
    for image in images:
        name = label_name(image)
        if os.path.lexists(os.path.join(base, name)):
            found[image] = name
        elif other := _spelt(root, name, listings):
            found[image] = other
    return found


def _spelt(root: Path, name: str, listings: dict[str, dict[str, list[str]]]) -> str | None:
    """The one file that differs from a name at most in case and in how accents are written."""
    place = ""
    for part in name.split("/"):
        if place not in listings:
            listings[place] = {}
            with suppress(OSError):
                for each in os.listdir(root / place):
                    listings[place].setdefault(alike(each), []).append(each)
        candidates = listings[place].get(alike(part), [])
        own = part if part in candidates else candidates[0] if len(candidates) == 1 else None
        if own is None:
            return None
        place = f"{place}/{own}" if place else own
    return place


def report_labels(root: Path, folders: Sequence[str], labels: Mapping[str, str], tally: Tally) -> None:
    """Counts images that share a label file, label files without an image, and images that are not read.

    Args:
        root: of the set.
        folders: of the images.
        labels: of each image.
        tally: takes them.
    """
    owners: dict[str, str] = {}
    for image, label in labels.items():
        if label in owners:
            tally.add(kinds.SHARED_LABELS, "{} and {} have {}", shown(owners[label]), shown(image), shown(label))
        owners.setdefault(label, image)
    read = set(labels.values())
    for folder in dict.fromkeys(folders):
        place = _place(f"{folder}/").removesuffix("/")
        files = {alike(each): each for each in files_below(root, folder) if not is_label(each)}
        stems = {os.path.splitext(os.path.relpath(each, alike(folder)))[0]: own for each, own in files.items()}
        for label in files_below(root, place):
            if label in read or not is_label(label):
                continue
            own = stems.get(os.path.splitext(os.path.relpath(alike(label), alike(place)))[0])
            if own is None and _has_rows(root / label):
                tally.add(kinds.UNUSED_LABELS, "{}", shown(label))
            elif own is not None and os.path.splitext(own)[1].lower() not in IMAGE_SUFFIXES:
                tally.add(kinds.UNREAD_IMAGES, "{}", shown(own))
            read.add(label)


def report_other_labels(root: Path, images: Sequence[str], labels: Mapping[str, str], tally: Tally) -> None:
    """Counts images without a label file that have one of another tool's beside them, or where labels lie.

    Args:
        root: of the set.
        images: of a split.
        labels: of those that have some.
        tally: takes them.
    """
    listings: dict[str, dict[str, str]] = {}
    for image in images:
        if image in labels:
            continue
        for name in (image, _place(image)):
            folder, stem = os.path.split(os.path.splitext(name)[0])
            if folder not in listings:
                listings[folder] = _others_in(root / folder)
            if found := listings[folder].get(alike(stem)):
                tally.add(kinds.OTHER_LABELS, "{} has {}", shown(image), shown(os.path.join(folder, found)))
                break


def _others_in(folder: Path) -> dict[str, str]:
    """Files of a folder that other tools store labels in, by their names without suffix."""
    with suppress(OSError):
        every = (os.path.splitext(each) for each in sorted(os.listdir(folder)))
        return {alike(stem): f"{stem}{suffix}" for stem, suffix in every if suffix.lower() in OTHERS}
    return {}


def report_lost(root: Path, images: Sequence[str], must: bool, tally: Tally) -> None:
    """Says where the labels of images that have none were looked for, and where files of their names are.

    Args:
        root: of the set.
        images: of a split none of which has labels.
        must: whether a split without labels is of no use.
        tally: takes it.
    """
    stems = {alike(os.path.splitext(os.path.basename(each))[0]) for each in images}
    found = Counter(
        os.path.dirname(each)
        for each in files_below(root)
        if is_label(each) and alike(os.path.splitext(os.path.basename(each))[0]) in stems
    )
    if not must and not found:
        return
    folder, count = found.most_common(1)[0] if found else ("", 0)
    elsewhere = f"; {folder or '.'}/ holds {count} files of their names" if found else ""

    def words(i: int) -> str:
        return f"{shown(images[i])} has no {label_name(images[i])}{elsewhere}"

    tally.add_all(kinds.LOST_LABELS, range(len(images)), words)


def is_label(name: str) -> bool:
    """Whether a file may be one of labels, by its name."""
    return os.path.splitext(name)[1].lower() == LABELS


def _has_rows(file: Path) -> bool:
    """Whether a text begins with an object."""
    with suppress(OSError), file.open("rb") as opened:
        return any(ROW.match(line) for line in opened.readlines(1000)[:1])
    return False
