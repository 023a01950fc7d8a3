"""How the deep images of a set are read, and what there is to say of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.problem_tally import Problem, Tally
from msad_cli.data.annotations.records import Records
from msad_cli.data.images.split_images import SplitImages
from msad_cli.data.images.tone_range import BYTE, Values, look_into, nearly_black
from msad_cli.data.images.tones import NOT_MET, Tones


@dataclass(frozen=True)
class Depth:
    """What is known of the images of a set that have more than 8 bits.

    Attributes:
        tones: by which all of them are read.
        words: why, in a line; empty where there is none.
        problems, counts: by the name of the split.
    """

    tones: Tones = NOT_MET
    words: str = ""
    problems: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    counts: Mapping[str, dict[str, int]] = field(default_factory=dict)


def look_at_depth(splits: Mapping[str, Records], images: Mapping[str, SplitImages]) -> Depth:
    """Decides by train, or by val where train has no deep image; what is read by it may be any of both."""
    deep = {name: np.flatnonzero(each.deep).tolist() for name, each in images.items()}
    values = {name: look_into(images[name].paths, places) for name, places in deep.items() if places}
    if not values:
        return Depth()
    first = values.get("train") or next(iter(values.values()))
    problems = {name: _problems(splits[name], deep[name], each, first.tones) for name, each in values.items()}
    counts = {
        name: {
            "images of more than 8 bits": len(deep[name]),
            **({"their least value": round(of.least.min()), "their largest value": round(of.largest.max())}),
        }
        for name, of in values.items()
        if of.places
    }
    total = sum(map(len, deep.values()))
    return Depth(first.tones, f"{total} images have more than 8 bits; {first.words}", problems, counts)


def _problems(records: Records, deep: list[int], values: Values, tones: Tones) -> tuple[Problem, ...]:
    tally = Tally()
    ranges = dict(zip(values.places, zip(values.least, values.largest, strict=True), strict=True))

    def words(place: int) -> str:
        least, largest = ranges.get(place, (None, None))
        return records.image_words(place) + ("" if least is None else f": values from {least:g} to {largest:g}")

    if tones.are_set and tones.white not in (1, BYTE):
        kind = replace(kinds.LEVELS, outcome=f"{tones} is black to white, unless --bits or a model says otherwise")
        tally.add_all(kind, deep, words)
    dim = nearly_black(values, tones)
    tally.add_all(kinds.DIM, [values.places[i] for i in dim], words)
    return tally.problems()
