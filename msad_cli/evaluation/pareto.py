"""Accuracy against latency: which models no other model beats in both."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A model's latency in milliseconds and its AP from 0 to 1."""

    milliseconds: float
    ap: float


def frontier(points: Mapping[str, Point]) -> list[str]:
    """The names of the models that no other beats, the fastest first: each slower one has a higher AP."""
    best: list[str] = []
    for name, point in sorted(points.items(), key=lambda each: (each[1].milliseconds, -each[1].ap)):
        if not best or point.ap > points[best[-1]].ap:
            best.append(name)
    return best


def within(points: Mapping[str, Point], budget: float) -> str | None:
    """The most accurate model that takes at most so many milliseconds, of equal ones the fastest; None if none does."""
    fitting = [name for name in frontier(points) if points[name].milliseconds <= budget]
    return fitting[-1] if fitting else None
