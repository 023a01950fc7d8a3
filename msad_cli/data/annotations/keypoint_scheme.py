"""Which keypoints the objects of a set have, and which of them change places in a mirror."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.problem_tally import Tally
from msad_cli.data.annotations.values import MOST_KEYPOINTS, shown, whole_number

Pairs = tuple[tuple[int, int], ...]

FARTHEST = 1e9
"""Pixels. A keypoint beyond this is an error, not a place in an image."""
FLIP_KEYS = ("flip_pairs", "keypoint_flip_map", "flip_idx")
"""Where tools write which keypoints a mirror swaps: pairs of places from 0, pairs of names, and the place that each
keypoint takes."""
OTHER_SIDE = {"left": "right", "l": "r", "tl": "tr", "bl": "br", "lt": "rt", "lb": "rb"}
OTHER_SIDE |= {right: left for left, right in OTHER_SIDE.items()}
PREFIXES = (("left", "right"), ("right", "left"), ("l", "r"), ("r", "l"))
WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


@dataclass(frozen=True)
class KeypointScheme:
    """The keypoints of every object of a set.

    Attributes:
        names: of K keypoints; none where objects have no keypoints.
        flip_pairs: pairs of places in `names`, from 0, that a mirrored image swaps.
        skeleton: pairs of places, from 0, between which lines are drawn.
        flips: whether it is known what a mirror swaps. It is, if a file says so, or if names tell: each `left_eye` has
            its `right_eye`, and `head` and `tail` stay what they are. It is not, if a `left_eye` has no partner, or if
            several keypoints have no names but numbers: images are not mirrored then.
    """

    names: tuple[str, ...] = ()
    flip_pairs: Pairs = ()
    skeleton: Pairs = ()
    flips: bool = True

    @property
    def mirrored(self) -> list[int]:
        """The place that each keypoint's partner has, its own where there is none."""
        partner = dict(self.flip_pairs) | {right: left for left, right in self.flip_pairs}
        return [partner.get(place, place) for place in range(len(self.names))]


def with_keypoints(categories: Iterable[Any]) -> list[dict[str, Any]]:
    """The categories whose objects have keypoints."""
    return [each for each in categories if isinstance(each, dict) and each.get("keypoints")]


def read_scheme(categories: list[Any], known: Collection[int], learnt: Sequence[str], tally: Tally) -> KeypointScheme:
    """The keypoints that the categories of a COCO document name.

    Args:
        categories: of the document.
        known: ids of those that matter.
        learnt: names of an existing model or of the training split; may be empty.
        tally: takes the problems.
    """
    described = [each for each in with_keypoints(categories) if whole_number(each.get("id")) in known]
    usable = [each for each in described if _are_names(each["keypoints"])]
    for each in described:
        if each not in usable:
            tally.add(kinds.MALFORMED, "category {}: keypoints {}", shown(each.get("id")), shown(each["keypoints"]))
    if not usable:
        tally.add(kinds.NO_KEYPOINTS, "no category lists their names under 'keypoints'")
        return KeypointScheme()
    first = usable[0]
    names = tuple(first["keypoints"])
    for each in usable[1:]:
        if tuple(each["keypoints"]) != names:
            tally.add(kinds.SEVERAL_SCHEMES, "{} and {}", shown(first.get("name")), shown(each.get("name")))
    if learnt and [_plain(name) for name in names] != [_plain(name) for name in learnt]:
        tally.add(kinds.OTHER_KEYPOINTS, "{} here, but {} where they were learnt", shown(names), shown(tuple(learnt)))
    skeleton = _pairs(first.get("skeleton") or [], names, 1)
    if skeleton is None:
        tally.add(kinds.ODD_SCHEME, "category {}: skeleton {}", first.get("id"), shown(first["skeleton"]))
    pairs, flips = derived_pairs(names)
    for key in FLIP_KEYS:
        if first.get(key) is not None:
            stated = _partners(first[key], names) if key == "flip_idx" else _pairs(first[key], names, 0)
            if stated is not None and len({place for pair in stated for place in pair}) == 2 * len(stated):
                pairs, flips = stated, True
                break
            tally.add(kinds.ODD_SCHEME, "category {}: {} {}", first.get("id"), key, shown(first[key]))
    return KeypointScheme(names, pairs, skeleton or (), flips)


def derived_pairs(names: Sequence[str]) -> tuple[Pairs, bool]:
    """The pairs that names tell of: `left_eye` and `right_eye`, `lEye` and `rEye`, `eye_L` and `eye_R`.

    Returns:
        Pairs of places, and whether they are all that a mirror swaps, as `KeypointScheme.flips` has it.
    """
    words = [tuple(word.lower() for word in WORDS.findall(name)) for name in names]
    place = {each: i for i, each in enumerate(words)}
    if len(place) < len(names):
        return (), len(names) == 1  # names that differ in nothing but signs
    pairs, alone = set(), False
    for i, each in enumerate(words):
        partner = place.get(_mirrored_words(each))
        if partner is not None and partner != i:
            pairs.add((min(i, partner), max(i, partner)))
        elif any(word in OTHER_SIDE for word in each):
            alone = True
    bare = {tuple(word for word in each if not word.isdigit()) for each in words}
    return tuple(sorted(pairs)), not alone and (len(names) == 1 or len(bare) > 1)


def read_keypoints(record: dict[str, Any], count: int) -> NDArray[np.float64] | None:
    """(count, 3) x, y in pixels of the original and visibility 0, 1, 2; zeros for a keypoint without a label.

    A `null` is no number, as NaN is none: it has no label. None where an annotation has no such list, unless it says
    itself that nothing is labelled (`num_keypoints` 0).
    """
    value = record.get("keypoints")
    if value is None and whole_number(record.get("num_keypoints")) == 0:
        return np.zeros((count, 3))
    if not isinstance(value, list) or len(value) != 3 * count or not set(map(type, value)) <= {int, float, NoneType}:
        return None
    try:
        points = np.array(value, dtype=np.float64).reshape(-1, 3)
    except OverflowError:
        return None
    labelled = (np.abs(points) <= FARTHEST).all(axis=1) & (points[:, 2] > 0)  # of NaN, too, nothing is known
    points[~labelled] = 0
    points[:, 2] = points[:, 2].round().clip(0, 2)
    points[labelled, 2] = points[labelled, 2].clip(1)
    return points


def _are_names(value: object) -> bool:
    return isinstance(value, list) and len(value) <= MOST_KEYPOINTS and all(isinstance(each, str) for each in value)


def _plain(name: str) -> str:
    return name.strip().casefold()


def _mirrored_words(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words with left for right; where none of them is a side, with that at the beginning of a word (`lefteye`)."""
    if any(word in OTHER_SIDE for word in words):
        return tuple(OTHER_SIDE.get(word, word) for word in words)
    found = []
    for word in words:
        own, other = next((each for each in PREFIXES if word.startswith(each[0])), ("", ""))
        found.append(other + word.removeprefix(own))
    return tuple(found)


def _pairs(value: object, names: Sequence[str], first: int) -> Pairs | None:
    """Pairs of names, or of places counted from `first`, as places from 0; None for anything else."""
    if not isinstance(value, list):
        return None
    place: dict[object, int | None] = {name: i for i, name in enumerate(names)}
    pairs = []
    for each in value:
        if not isinstance(each, list) or len(each) != 2:
            return None
        ends = [place.get(end) if isinstance(end, str) else _counted_from(first, end) for end in each]
        inside = [end for end in ends if end is not None and 0 <= end < len(names)]
        if len(set(inside)) != 2:
            return None
        pairs.append((inside[0], inside[1]))
    return tuple(pairs)


def _counted_from(first: int, place: object) -> int | None:
    number = whole_number(place)
    return None if number is None else number - first


def _partners(value: object, names: Sequence[str]) -> Pairs | None:
    """The pairs of a list that says of each keypoint which one takes its place."""
    if not isinstance(value, list) or not all(type(each) is int for each in value):
        return None
    places = range(len(names))
    if sorted(value) != list(places) or any(value[value[i]] != i for i in places):
        return None
    return tuple((i, value[i]) for i in places if i < value[i])
