"""The plan of a fit as plain values: what was looked at, taken, and why. Table, state and page are made of it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from msad_cli.fitting.choice.budgets import Budget, words_of
from msad_cli.fitting.choice.candidates import Candidate
from msad_cli.fitting.choice.choosing import Choice, reason
from msad_cli.fitting.choice.evidence import strength
from msad_cli.fitting.choice.facts import Facts
from msad_cli.fitting.choice.measuring import BUSY, Measured, Runtimes
from msad_cli.fitting.choice.planted import CELLS
from msad_cli.fitting.scheduling import Epochs
from msad_cli.system.processor import processor_name
from msad_cli.text import duration, size_text

UNMEASURED = 3
"""Rows of candidates that are stronger than what was taken, or next to it, and were not measured."""
HEAD = ("network", "k", "HR", "sees", "GMACs", "ms", "by", "MB", "points", "")
PLAIN_K = "plain"
LEAST_SHARE = 1 / 3
"""Of the usual epochs, below which it is said that little is learnt."""


def rows_of(choice: Choice, facts: Facts, budget: Budget) -> list[dict[str, Any]]:
    """What is told of the candidates: those whose cost is known, and a few of those next to them; the strongest first.

    Of a budget whose costs are all known, the strongest that are too dear and the next that fit.
    """
    known = [place for place, each in enumerate(choice.order) if each.name in choice.measured]
    taken = choice.order.index(choice.chosen or choice.nearest)
    near = range(max(0, taken - UNMEASURED), min(len(choice.order), taken + UNMEASURED + 1))
    places = sorted({*known, *(near if budget.kind == "macs" or not known else ()), taken})
    return [_row(choice.order[place], choice, facts, budget) for place in places]


def _row(candidate: Candidate, choice: Choice, facts: Facts, budget: Budget) -> dict[str, Any]:
    measured = choice.measured.get(candidate.name)
    return {
        "name": candidate.name,
        "network": str(candidate.network),
        "k": PLAIN_K if candidate.plain else str(candidate.k),
        "hr": size_text(candidate.spec.resolution),
        "sees": list(candidate.sees),
        "macs": candidate.macs,
        "parameters": candidate.parameters,
        "milliseconds": {} if measured is None else measured.milliseconds,
        "bytes": None if measured is None else measured.size,
        "points": strength(candidate, facts),
        "taken": candidate == choice.chosen,
        "why": reason(candidate, choice, budget),
    }


def table_of(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Rows as texts, their head first."""
    return [list(HEAD), *(_cells(each) for each in rows)]


def _cells(row: Mapping[str, Any]) -> list[str]:
    fastest = next(iter(row["milliseconds"].items()), None)
    height, width = row["sees"]
    return [
        row["network"],
        row["k"],
        row["hr"],
        f"{height} × {width}",
        f"{row['macs'] / 1e9:.2f}",
        "-" if fastest is None else f"{fastest[1]:.1f}",
        "-" if fastest is None else fastest[0],
        "-" if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f}",
        f"{row['points']:+.1f}",
        row["why"],
    ]


def how_chosen(choices: Sequence[Choice]) -> list[str]:
    """A line on what was looked at, and how closely."""
    known = {name for each in choices for name in each.measured}
    total = sum(len(each.order) for each in choices)
    return [f"measured: {len(known)} of {total} candidates; the others are weaker, or were predicted to cost too much"]


def how_measured(facts: Facts, runtimes: Runtimes, threads: int, measured: Mapping[str, Measured]) -> list[str]:
    """Lines on what the table's numbers are."""
    count = f"{threads} thread{'s' if threads > 1 else ''}"
    clock = "CPU time" if threads == 1 else "wall time"
    lines = [
        f"ms: {clock} from a model's pixels to its boxes, network and post-processing, image by image, {count}, fp32, "
        f"the fastest of {', '.join(runtimes.names)}; {processor_name()}, torch {torch.__version__}",
        f"weights are random; heads are set so that {CELLS * facts.objects} cells find something: {facts.objects} "
        f"objects, as an image of this set has, at {CELLS} each",
        "points: AP ahead of docs/results-paper.md's student on blood cells, by what was measured there; they order "
        "candidates, and are no forecast for this set (docs/fit.md)",
    ]
    if runtimes.missing:
        lines.append(runtimes.missing)
    if not facts.alike:
        lines.append("images differ in their sides, so that graphs take any: fixed sides would be faster")
    if words := pace_words("while candidates were measured", [each.slower for each in measured.values()]):
        lines.append(words)
    busy = max((each.busy for each in measured.values()), default=1.0)
    if busy >= BUSY:
        lines.append(
            f"something else computes here: measuring took {busy:.1f} times the CPU time, and on shared cores CPU time "
            "is longer too; an idle machine gives smaller numbers"
        )
    return lines


def pace_words(when: str, slower: Sequence[float]) -> str:
    """What there is to say of a machine whose speed changed; empty where it did not by much.

    Args:
        slower: how many times as slow it was as when the fit began.
    """
    least, most = min(slower, default=1.0), max(slower, default=1.0)
    if most < BUSY and least > 1 / BUSY:
        return ""
    share = f"{1 / most:.0%}" + (f" to {1 / least:.0%}" if most > least else "")
    return (
        f"{when}, this machine had {share} of its speed when the fit began; ms are told as if it had all of it, by a "
        "small network that took turns with each model"
    )


def how_long(epochs: Epochs, time: str, teaching_why: str, control: str) -> list[str]:
    """Lines on what will be trained.

    Args:
        time: that there is, as it was typed.
        control: what there is to say of the plain detector that is not trained; empty where it is.
    """
    parts = [
        *([f"teacher {epochs.teacher} epochs"] if epochs.teacher else []),
        f"student {epochs.student} epochs",
        *([f"plain detector {epochs.control} epochs"] if epochs.control else []),
    ]
    hardly = "; of so few, little is learnt" if epochs.share < LEAST_SHARE else ""
    share = (
        "the usual epochs" if epochs.share == 1 else f"{epochs.share:.0%} of the usual epochs fit into {time}{hardly}"
    )
    lines = [
        f"{'with' if epochs.teacher else 'without'} a teacher: {teaching_why}",
        f"{', '.join(parts)}: about {duration(epochs.seconds)} of training on this machine; {share}",
    ]
    return [*lines, control] if control else lines


def nearest_words(choice: Choice, budget: Budget) -> tuple[str, str]:
    """What the candidate next to a budget is and costs, and a budget that it meets."""
    cost = choice.cost(choice.nearest, budget)
    assert cost is not None
    enough = cost / (budget.planned / budget.most)
    unit, one = {"latency": ("ms", 1.0), "macs": ("GMACs", 1e9), "size": ("MB", 1e6)}[budget.kind]
    step = 10.0 ** (math.floor(math.log10(enough / one)) - 1)  # the second of its digits, rounded up
    return (
        f"{choice.nearest.name}, takes {words_of(budget.kind, cost)}",
        f"{math.ceil(enough / one / step) * step:g}{unit}",
    )
