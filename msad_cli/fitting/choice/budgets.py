"""What a deployed model may cost: milliseconds an image, multiply-accumulates, or bytes. Imports no torch."""

import re
from dataclasses import dataclass
from typing import Literal

from msad_cli.errors import UsageError

Kind = Literal["latency", "macs", "size"]
KNOWN = "such as 15ms, 30fps, 0.5GMACs or 5MB"
UNITS: dict[str, tuple[Kind, float]] = {
    "ms": ("latency", 1.0),
    "s": ("latency", 1000.0),
    "fps": ("latency", 1000.0),
    "gmacs": ("macs", 1e9),
    "mmacs": ("macs", 1e6),
    "gflops": ("macs", 0.5e9),
    "mb": ("size", 1e6),
    "mib": ("size", 2.0**20),
    "kb": ("size", 1e3),
}
"""By a unit in lower case: what it is of, and how much one is in milliseconds, multiply-accumulates or bytes. A
FLOP count is twice the multiply-accumulates; images a second are the one unit of which more is harder."""
PER_SECOND = "fps"
HEADROOM = 0.08
"""The share of a latency that is kept free: a trained head has another load than the one that was planted. Of the first
two models that were trained, 11.5 and 14.6 ms had been 10.9 and 13.7 before."""


@dataclass(frozen=True)
class Budget:
    """What a model may cost at most.

    Attributes:
        kind: of what.
        most: milliseconds an image, multiply-accumulates of one, or bytes of a file.
        text: as it was typed, with its unit.
    """

    kind: Kind
    most: float
    text: str

    @property
    def planned(self) -> float:
        """What is planned with."""
        return self.most * (1 - HEADROOM) if self.kind == "latency" else self.most

    def words(self, cost: float) -> str:
        """A cost of this kind, for people."""
        return words_of(self.kind, cost)


def words_of(kind: Kind, cost: float) -> str:
    """A cost, for people."""
    if kind == "latency":
        return f"{cost:.1f} ms"
    return f"{cost / 1e9:.2f} GMACs" if kind == "macs" else f"{cost / 1e6:.1f} MB"


def parse_budget(text: str) -> Budget:
    """`15ms`, `30fps`, `0.5GMACs`, `1GFLOPs`, `5MB`; a number alone is milliseconds.

    Raises:
        UsageError: it is none of these, or not positive.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)", text.strip().lower())
    unit = UNITS.get(match[2] or "ms") if match else None
    number = float(match[1]) if match else 0.0
    if match is None or unit is None or not number > 0:
        raise UsageError(f"--budget {text}: not a budget", KNOWN, code="budget-malformed")
    kind, one = unit
    whole = text if match[2] else f"{match[1]}ms"
    return Budget(kind, one / number if match[2] == PER_SECOND else one * number, whole)
