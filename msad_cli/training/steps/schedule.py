"""Learning rates."""

import math
from dataclasses import dataclass
from typing import Literal

Decay = Literal["steps", "cosine", "flat-cosine"]

BASE_BATCH = 16
"""The batch that the rates of `optimiser.OPTIMISERS` belong to; other batches scale them linearly."""
MILESTONES = (2 / 3, 8 / 9)
"""Shares of the run after which the rate is divided by ten: 60k and 80k of 90k steps."""


FLAT = 0.5
"""Share of the run in which `flat-cosine` keeps the rate, and …"""
LAST_RATE = 0.05
"""… the factor on it that the cosine ends at, both as RTMDet was trained (arXiv 2212.07784)."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate of each step: linear warm-up, then steps, a cosine, or first nothing and then a cosine.

    Attributes:
        restart: the step at which all of it begins anew, for the rest of the steps; 0 for never.
    """

    learning_rate: float
    steps: int
    warmup_steps: int
    decay: Decay
    restart: int = 0

    def at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        first, last = (self.restart, self.steps) if step >= self.restart else (0, self.restart)
        step, steps = step - first, last - first
        warmup = min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.decay == "cosine":
            factor = _cosine(step / steps)
        elif self.decay == "flat-cosine":
            factor = LAST_RATE + (1 - LAST_RATE) * _cosine(max(0.0, step / steps - FLAT) / (1 - FLAT))
        else:
            factor = 0.1 ** sum(step >= share * steps for share in MILESTONES)
        return self.learning_rate * warmup * factor


def _cosine(share: float) -> float:
    """From 1 to 0 as `share` goes from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
