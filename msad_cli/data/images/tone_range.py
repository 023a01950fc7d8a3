"""Which values the deep images of a set hold, and so which of them are black and white."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msad_cli.data.images.decode import read_header, read_values
from msad_cli.data.images.tones import BY_FILE, Tones, parse_bits, tones_of_bits
from msad_cli.errors import DataError

SAMPLE = 48
"""Deep images that are looked into, and values of each, at equal distances."""
VALUES = 2**16
LOOKED_AT = 256
"""Headers that are read where nobody knows yet which images are deep."""
THREADS = 8

LOWEST, HIGHEST = 0.01, 99.99
"""Percentiles of all values between which an image's are: single dead or hot pixels don't count."""
BYTE = 255
FULL = 15
"""Bits. A set that uses more than these uses 16, and stays as it is."""
RADIOMETRIC = 0.7
"""From this share of the largest value on, the least one is the ground of a measure (temperatures, for instance) and no
dark object."""
NARROW = 2**13
"""Values between both, of a measure; a set with more of them has contrast enough as it is."""
NEARLY_BLACK = 16
"""Of the 256 levels between black and white, an image below this one is nearly black."""
NO_DATA = (-9999.0, -32768.0)
"""What floating-point and signed files write where nothing was measured."""


@dataclass(frozen=True)
class Values:
    """What was found in some deep images of a set, P of them.

    Attributes:
        places: of each in the set.
        least, largest: (P,) of the values of each.
        tones: that follow from all of them.
    """

    places: tuple[int, ...]
    least: NDArray[np.float64]
    largest: NDArray[np.float64]
    tones: Tones

    @property
    def words(self) -> str:
        """What is read as black and white, and why."""
        if not self.places:
            return "none can be read"
        low, high = self.least.min(), self.largest.max()
        by = f"{self.tones.bits} bits" if self.tones.bits else "their own range"
        how = f"{self.tones} is black to white ({by})" if self.tones.are_set else "white is 65535"
        return f"values go from {low:g} to {high:g}: {how}"


def look_into(paths: Sequence[Path], deep: Sequence[int]) -> Values:
    """The values of a sample of deep images, at equal distances through the set.

    Args:
        paths: of all images of the set.
        deep: places of those deeper than 8 bits.
    """
    sample = [deep[i * len(deep) // min(SAMPLE, len(deep))] for i in range(min(SAMPLE, len(deep)))]
    with ThreadPoolExecutor(THREADS) as pool:
        looked = list(pool.map(_sampled, (paths[place] for place in sample)))
    found = [(place, values) for place, values in zip(sample, looked, strict=True) if values is not None]
    return Values(
        places=tuple(place for place, _ in found),
        least=np.array([values.min() for _, values in found], dtype=np.float64),
        largest=np.array([values.max() for _, values in found], dtype=np.float64),
        tones=tones_of([values for _, values in found]),
    )


def values_of(paths: Sequence[Path]) -> Values | None:
    """`look_into` images of which nobody knows whether they are deep; None where those that are looked at are not."""
    count = min(LOOKED_AT, len(paths))
    places = [i * len(paths) // count for i in range(count)]
    with ThreadPoolExecutor(THREADS) as pool:
        deep = [place for place, of in zip(places, pool.map(_is_deep, (paths[i] for i in places)), strict=True) if of]
    return look_into(paths, deep) if deep else None


def read_by(paths: Sequence[Path], tones: Tones, of_set: bool) -> tuple[Tones, str]:
    """How a model that has these tones reads images, and what there is to say of that; empty for nothing.

    Args:
        of_set: whether the images are a set, whose own range is taken where the model has learnt from no deep image.
            A few images are none: they would be read otherwise together than each alone.
    """
    values = values_of(paths)
    if values is None:
        return tones, ""
    if tones.deep_unseen and of_set:
        return values.tones, f"the model has learnt from images of 8 bits, these have more: {values.words}"
    dim, own = nearly_black(values, tones), values.tones
    if not dim:
        return tones, ""
    hint = f"--bits {own.bits} takes {own.white:g} for white" if own.bits else "--bits N says how many bits they use"
    return tones, (
        f"{len(dim)} of {len(values.places)} images of more than 8 bits are nearly black as the model reads them: "
        f"their values end at {values.largest[dim].max():g}; {hint}"
    )


def with_bits(tones: Tones, bits: int | None, paths: Sequence[Path]) -> tuple[Tones, str]:
    """How single images are read: by what `--bits` says, else as the model does, and what there is to say of that.

    Raises:
        UsageError: no such number of bits.
    """
    typed = parse_bits(bits)
    return (typed, "") if typed is not None else read_by(paths, tones, of_set=False)


def tones_of(images: Sequence[NDArray[Any]]) -> Tones:
    """Black and white of images whose values these are; `BY_FILE` for values that use all bits, or for none.

    Bits are whole: the darkest set of a camera of 12 bits shall be as dark as it is.
    """
    if not images:
        return BY_FILE
    low, high = (float(each) for each in np.percentile(np.concatenate(images), (LOWEST, HIGHEST)))
    floating = any(each.dtype.kind == "f" for each in images)
    if floating and low >= 0 and high <= 1:
        return Tones(0.0, 1.0)
    if low < 0 or (low >= RADIOMETRIC * high and high - low < NARROW and (floating or high > BYTE)):
        # Images of one colour have no range.
        return Tones(_rounded(low), _rounded(high)) if _rounded(low) < _rounded(high) else BY_FILE
    if floating and high < BYTE / 2:
        return Tones(0.0, _rounded(high))
    bits = max(8, math.ceil(math.log2(high + 1)))
    if bits <= FULL:
        return tones_of_bits(bits)
    return BY_FILE if bits == FULL + 1 else Tones(0.0, _rounded(high))


def nearly_black(values: Values, tones: Tones) -> list[int]:
    """Indices into `values` of images that are nearly black by these tones."""
    white = tones.white if tones.are_set else 65535.0
    limit = tones.black + (white - tones.black) * NEARLY_BLACK / 256
    # By their file's kind, 8 bits of 16 are read as 8.
    least = -math.inf if tones.are_set else 255
    return np.flatnonzero((values.largest < limit) & (values.largest > least)).tolist()


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _is_deep(path: Path) -> bool:
    try:
        return read_header(path).deep
    except DataError:
        return False


def _sampled(path: Path) -> NDArray[Any] | None:
    try:
        found = read_values(path)
    except DataError:
        return None
    if found is None:
        return None
    values, mode = found
    colours = values[..., :-1] if mode.endswith("A") else values
    flat = colours.reshape(-1)
    flat = flat[:: max(1, len(flat) // VALUES)]
    if flat.dtype.kind == "f" or flat.min(initial=0) < 0:
        flat = flat[np.isfinite(flat) & (np.abs(flat.astype(np.float64)) < 1e30) & ~np.isin(flat, NO_DATA)]
    return flat if len(flat) else None
