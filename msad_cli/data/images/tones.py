"""How images deeper than 8 bits become images of 8. Imports nothing: a model file's reader needs no more."""

import math
from dataclasses import dataclass

from msad_cli.errors import UsageError

MOST_BITS = 32


@dataclass(frozen=True)
class Tones:
    """Which values of images deeper than 8 bits become black and white; images of 8 bits stay as they are.

    One pair for all images of a set: an image that was scaled by its own values would show the same object in another
    grey than its neighbour.

    Attributes:
        black, white: the values that become 0 and 255. Where they are equal, each file's kind decides: 65535 is white
            in 16 bits, 1 in floating point from 0 to 1, and 255 where nothing is larger.
        deep_unseen: no image deeper than 8 bits was learnt from, so that another set's may say how they are read.
    """

    black: float = 0.0
    white: float = 0.0
    deep_unseen: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.black) and math.isfinite(self.white) and self.black <= self.white):
            raise ValueError(f"black {self.black} and white {self.white}: not two numbers in ascending order")

    @property
    def are_set(self) -> bool:
        """Whether black and white are the same for all files."""
        return self.black < self.white

    @property
    def bits(self) -> int:
        """How many bits they are the range of; 0 where they are that of no number of bits."""
        bits = int(self.white + 1).bit_length() - 1
        return bits if self.are_set and self.black == 0 and self.white == 2**bits - 1 else 0

    def __str__(self) -> str:
        return f"{self.black:g} … {self.white:g}" if self.are_set else "by file"


BY_FILE, NOT_MET = Tones(), Tones(deep_unseen=True)


def tones_of_bits(bits: int) -> Tones:
    """Those of images that use so many of their bits: 4095 of 12 is white."""
    return Tones(0.0, float(2**bits - 1))


def parse_bits(bits: int | None) -> Tones | None:
    """What `--bits` means; None where it was not given.

    Raises:
        UsageError: no such number of bits.
    """
    if bits is None:
        return None
    if not 1 <= bits <= MOST_BITS:
        raise UsageError(f"--bits {bits}: not from 1 to {MOST_BITS}", "such as --bits 12", code="number-out-of-range")
    return tones_of_bits(bits)
