"""Files that name the classes of a YOLO set, a class a line: labelImg writes one into each folder of labels."""

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from msad_cli.data.agreement.category_names import plain_name
from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.problem_tally import Tally
from msad_cli.data.annotations.values import shown
from msad_cli.data.layouts.cache import read_text
from msad_cli.data.layouts.image_folders import folders_two_deep
from msad_cli.errors import DataError

CLASSES = "classes.txt"
OFFERED = "predefined_classes.txt"
"""What labelImg offers, which need not be what it numbered: taken if there is nothing else."""
CALLED = (CLASSES, "obj.names", "_darknet.labels", "names.txt")
NAMES = ".names"


def has_class_file(place: Path) -> bool:
    """Whether there is a file of the names of classes."""
    return next(_class_files(place), None) is not None


def class_file(place: Path) -> Path | None:
    """The file of the names of classes: in the folder, in one in it, or one further down.

    Raises:
        DataError: several of its name number the classes otherwise.
    """
    found = list(_class_files(place))
    chosen = next((each for each in found if each.name.casefold() != OFFERED), next(iter(found), None))
    if chosen is None:
        return None
    same = [each for each in found if each.name.casefold() == chosen.name.casefold()]
    named = {each: read_names(each) for each in same} if len(same) > 1 else {}
    # A folder whose labels lack the last classes has a shorter list of the same numbers.
    longest = max(named, key=lambda each: len(named[each]), default=chosen)
    for file, names in named.items():
        for number in names:
            if names[number] != named[longest].get(number):
                raise DataError(
                    f"{file}: class {number} is {shown(names[number])}, but in {longest} it is "
                    f"{shown(named[longest].get(number, ''))}",
                    "labels are numbered by the file beside them: renumber those of one, then make the files alike",
                    code="class-files-differ",
                )
    return longest


def _class_files(place: Path) -> Iterator[Path]:
    for folder in (place, *folders_two_deep(place)):
        with os.scandir(folder) as entries:
            files = {each.name.casefold(): each.name for each in entries if each.is_file()}
        for name in (*CALLED, *sorted(each for each in files if each.endswith(NAMES)), OFFERED):
            if name in files:
                yield folder / files[name]


def read_names(file: Path) -> dict[int, str]:
    """A class a line.

    Raises:
        DataError: it is not there, or holds none.
    """
    names = {number: line.strip() for number, line in enumerate(read_text(file).splitlines())}
    if not any(names.values()):
        raise DataError(f"{file}: no names of classes", "write one a line", code="class-names-malformed")
    return {number: name for number, name in names.items() if name}


def report_other_names(root: Path, folders: Collection[str], told: Mapping[int, str], tally: Tally) -> None:
    """Counts classes that a file beside the labels calls otherwise than the set does.

    Args:
        root: of the set.
        folders: of images and labels, relative to it.
        told: names of the classes by number.
        tally: takes them.
    """
    for folder in sorted({".", *folders}):
        names: dict[int, str] = {}
        with suppress(DataError):
            names = read_names(root / folder / CLASSES)
        for number, name in told.items():
            if number in names and plain_name(names[number]) != plain_name(name):
                words = "class {} is {}, in {} it is {}"
                file = os.path.normpath(os.path.join(folder, CLASSES))
                tally.add(kinds.OTHER_NAMES, words, number, shown(name), shown(file), shown(names[number]))
