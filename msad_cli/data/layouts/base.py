"""What a layout of data sets has to answer: whether a path is such a set, and where the files of a split lie.

All other code reads COCO annotation files. A layout that has none makes one of what it has, by means of cache.py. A new
layout is a file beside this one that ends in a `Layout`, and a line in table.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Files:
    """What a split is read from.

    Attributes:
        annotations: a COCO file; of other layouts, what was made of theirs and lies in the user's cache.
        images: the folder of its images.
        recognised: in words, as what.
        notes: what the user has to know of how the set was read.
        stated: whether sizes of images are the set's own words, and not the files' that its labels are shares of.
        root: the folder of the whole set, where images are looked for too; None for nowhere else.
    """

    annotations: Path
    images: Path
    recognised: str
    notes: tuple[str, ...] = ()
    root: Path | None = None
    stated: bool = True


class Find(Protocol):
    """Where a split lies."""

    def __call__(self, place: Path, split: str, images: Path | None, task: str, /) -> Files:
        """The files of a split.

        Args:
            place: of a set that the layout recognises.
            split: `train`, `val` or `test`; split_names.py has the rule of what they are read from.
            images: the folder of the images, where the user names it; it is not looked for then.
            task: `boxes`, `masks` or `keypoints`.

        Raises:
            AbsentSplitError: the set has no such split.
            DataError: a file of the set cannot be used; names it, and its line where it has lines.
        """


@dataclass(frozen=True)
class Layout:
    """One way to store a data set.

    Attributes:
        sign: by what it is recognised, in words; `{split}` stands for the split's name. Empty where it is by no file.
        recognises: whether a path that exists, a folder or a file, is such a set. Of several layouts that do, the
            first one of the table is taken.
        find: where a split of it lies.
        word: what is typed in place of a path; empty for none.
    """

    sign: str
    recognises: Callable[[Path], bool]
    find: Find
    word: str = ""
