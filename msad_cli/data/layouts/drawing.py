"""The tenth of a set that is val where the set does not say so itself: drawn, but always the same."""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from msad_cli.errors import DataError

VALIDATION_SHARE = 0.1
SPLIT_SEED = 0
FEWEST_FRAMES = 10
"""Images whose names are a running number, where nothing else tells of a video."""
FEWEST_CALLED = 3
"""Images of a video, where their names tell of one."""
MOST_GAPS = 0.5
"""The share of frames of such a video that may have been thrown away."""
EXPORTED = re.compile(r"[_-][a-z]{3,4}\.rf\.\w+$", re.IGNORECASE)
"""What Roboflow puts behind a name."""
MOST_OF_VIDEOS = 2 * VALIDATION_SHARE
"""The share of all images that whole videos may be."""
FRAME = re.compile(r"frame|video|clip|movie|seq|(?<![a-z])(vid|cam)", re.IGNORECASE)


def validation_part(names: Sequence[str], where: Path, files: Mapping[str, str] | None = None) -> tuple[set[str], str]:
    """A tenth of some names, always the same, for a set that does not say itself what is val; and that in words.

    Neighbours in a video are nearly one image: of frames a whole block, or whole videos, are drawn. So are the versions
    that Roboflow makes of an image: they stay together.

    Args:
        names: of images, by which they are drawn.
        where: the set, for messages.
        files: the file of each; without it, they are their names.

    Raises:
        DataError: there are not two.
    """
    distinct = sorted(set(names))
    if len(distinct) < 2:
        raise DataError(
            f"{where}: {len(distinct)} images cannot be split into train and val",
            "add images",
            code="too-few-images-to-split",
        )
    called = {name: (files or {}).get(name, name) for name in distinct}
    versions = _versions(called)
    firsts = list(versions)
    count = max(1, round(VALIDATION_SHARE * len(firsts)))
    videos = _videos({name: called[name] for name in firsts})
    what, warning = "", ""
    if _told(videos):
        drawn, which = _frames(videos, count)
        what = f", {which}"
    else:
        places = np.random.default_rng(SPLIT_SEED).permutation(len(firsts))[:count]
        drawn = {firsts[place] for place in places.tolist()}
        if len(firsts) < len(distinct):
            what = f", all versions of {count} originals"
        if videos:
            warning = (
                "; their names are running numbers: if they are frames of videos, neighbours are on both sides, and AP "
                "will look too good without a split of your own"
            )
    chosen = {name for first in drawn for name in versions[first]}
    note = (
        f"{where} names no split: {len(chosen)} of its {len(distinct)} images{what}, drawn with seed {SPLIT_SEED}, "
        f"are val, the rest is train{warning}"
    )
    return chosen, note


def _versions(files: Mapping[str, str]) -> dict[str, list[str]]:
    """Names by the first one of an original that Roboflow made several images of; each alone if there is only one."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name, file in files.items():
        stem = os.path.splitext(file)[0]
        original = EXPORTED.sub("", stem)
        groups[original if original != stem else file].append(name)
    return {each[0]: each for each in groups.values()} if len(groups) > 1 else {name: [name] for name in files}


def _videos(files: Mapping[str, str]) -> dict[str, list[str]]:
    """Names in running order by what stands before the number; nothing unless all files are numbered, with few gaps."""
    groups: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name, file in files.items():
        stem = EXPORTED.sub("", os.path.splitext(file)[0])
        number = re.fullmatch(r"(.*?)(\d+)\D{0,12}", stem, re.DOTALL)
        if number is None:
            return {}
        groups[number[1]].append((int(number[2]), name))
    videos = {}
    fewest, gaps = (FEWEST_CALLED, MOST_GAPS) if _told(groups) else (FEWEST_FRAMES, VALIDATION_SHARE)
    for before, members in groups.items():
        numbers = np.array(sorted(number for number, _ in members))
        steps = np.diff(numbers)
        # Frames are taken at one pace; some may have been thrown away.
        if len(members) < fewest or (steps == np.median(steps)).mean() < 1 - gaps:
            return {}
        videos[before] = [name for _, name in sorted(members)]
    return videos


def _told(videos: Collection[str]) -> bool:
    """Whether what stands before numbers tells that these are frames."""
    return bool(videos) and all(FRAME.search(each) for each in videos)


def _frames(videos: Mapping[str, Sequence[str]], count: int) -> tuple[set[str], str]:
    """Whole videos, or at least `count` neighbours of one; and which, in words."""
    rng = np.random.default_rng(SPLIT_SEED)
    order = [sorted(videos)[place] for place in rng.permutation(len(videos)).tolist()]
    total = sum(map(len, videos.values()))
    chosen: list[str] = []
    whole = 0
    for video in order:
        if len(chosen) < count and len(chosen) + len(videos[video]) <= MOST_OF_VIDEOS * total:
            chosen += videos[video]
            whole += 1
    if whole:
        return set(chosen), f"{whole} whole videos of {len(videos)}"
    longest = max(order, key=lambda video: len(videos[video]))
    first = int(rng.integers(0, len(videos[longest]) - count + 1)) if len(videos[longest]) > count else 0
    return set(videos[longest][first : first + count]), "neighbouring frames of a video"
