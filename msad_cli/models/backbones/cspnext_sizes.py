"""The sizes of CSPNeXt. Imports no torch."""

from typing import NamedTuple


class Size(NamedTuple):
    """Factors on the channels and on the number of blocks of CSPNeXt-l."""

    width: float
    depth: float

    def blocks(self, count: int) -> int:
        """How many blocks there are for so many of CSPNeXt-l; at least one."""
        return max(1, round(count * self.depth))


SIZES = {
    "cspnext_nano": Size(0.25, 0.167),
    "cspnext_tiny": Size(0.375, 0.167),
    "cspnext_s": Size(0.5, 0.33),
    "cspnext_m": Size(0.75, 0.67),
    "cspnext_l": Size(1.0, 1.0),
    "cspnext_x": Size(1.25, 1.33),
}
"""The published ones, and `nano`, which is narrower than any of them."""
