"""Which split a name means, and from which of its own splits a set's train, val and test are read.

The rule is one for all layouts: val is the set's own; else its test; else a tenth of train.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from msad_cli.errors import AbsentSplitError

WORDS = {
    "train": ("train", "training", "trainval", "trainset"),
    "val": ("val", "valid", "validation", "valset", "dev"),
    "test": ("test", "testing", "testdev", "testset"),
}
"""What tools call the splits, whatever its case; the first that is there is taken."""


@dataclass(frozen=True)
class Own:
    """What a split is read from.

    Attributes:
        split: of the set's own: `train`, `val` or `test`.
        drawn: a part of it is val and the rest is train, because the set has nothing else that could be val.
        notes: what the user has to know of that.
    """

    split: str
    drawn: bool = False
    notes: tuple[str, ...] = ()


def split_named(word: str) -> str | None:
    """`train` of `Train`, `training`, `train2017`, …; None of what names no split."""
    plain = re.sub(r"[^a-z]", "", word.casefold())
    return next((split for split, words in WORDS.items() if plain in words), None)


def split_in(text: str) -> str | None:
    """The split that one of the words in a name means, as in `instances_Validation`; None for none, or for several."""
    words = re.findall("[a-z]+", re.sub(r"test[-_ ]?dev", "testdev", text.casefold()))
    found = {split for each in words if (split := split_named(each))}
    return found.pop() if len(found) == 1 else None


def own_split(split: str, there: Collection[str], where: str | Path, wanted: str) -> Own:
    """What a split is read from.

    Args:
        split: `train`, `val` or `test`.
        there: the set's own ones.
        where: the set, for messages.
        wanted: in words, what would be the split.

    Raises:
        AbsentSplitError: nothing that could be it.
    """
    drawn = "train" in there and not {"val", "test"} & set(there)
    if split in there:
        return Own(split, drawn and split == "train")
    if split == "val" and "test" in there:
        return Own("test", notes=(f"{where}: no val, its test is taken as val",))
    if split == "val" and drawn:
        return Own("train", drawn=True)
    raise AbsentSplitError(f"{where}: no {wanted}", f"add a split for {split}", code="split-missing")
