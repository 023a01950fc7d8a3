"""Which candidate is the strongest that fits: few of them are measured, those near the budget."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from msad_cli.fitting.choice.budgets import Budget, words_of
from msad_cli.fitting.choice.candidates import Candidate
from msad_cli.fitting.choice.measuring import BYTES, Measure, Measured

MOST_MEASURED = 12
"""Candidates of one choice: writing a graph takes a quarter of a minute."""
UNSURE = 1.15
"""A candidate whose predicted cost is at most so many times the budget is measured before it is passed over."""
GROWTH = 0.8
"""Latency grows with multiply-accumulates to this power: a part of it is the same for all sizes. Of twelve candidates
of one network each, measured on two cores, 0.6 to 0.9."""
USUAL_RATE = 20.0
"""Milliseconds for 10⁹ multiply-accumulates, before anything is measured."""
GRAPH_BYTES = 1e6
"""Of a graph beside its parameters, about, before anything is measured."""


@dataclass(frozen=True)
class Choice:
    """What came of a choice.

    Attributes:
        chosen: the strongest that fits; None where none does.
        order: all candidates, the strongest first.
        measured: by name.
        nearest: of those whose cost is known the cheapest one.
    """

    chosen: Candidate | None
    order: list[Candidate]
    measured: dict[str, Measured]
    nearest: Candidate

    def cost(self, candidate: Candidate, budget: Budget) -> float | None:
        """What a candidate costs, where that is known."""
        return known_cost(candidate, budget, self.measured)


@dataclass
class _Search:
    """A choice in the making."""

    budget: Budget
    order: list[Candidate]
    measured: dict[str, Measured]
    refused: set[str] = field(default_factory=set)

    def predicted(self, candidate: Candidate) -> float:
        """A cost by what was measured of candidates like this one, the most alike first."""
        if self.budget.kind == "size":
            return BYTES * candidate.parameters + GRAPH_BYTES
        known = [each for each in self.order if each.name in self.measured]
        likeness: tuple[Callable[[Candidate], object], ...] = (
            lambda each: each.family,
            lambda each: each.network,
            lambda each: each.network.detector,
            lambda each: None,
        )
        for like in likeness:
            near = [each for each in known if like(each) == like(candidate)]
            if near:
                one = min(near, key=lambda each: abs(math.log(each.macs / candidate.macs)))
                return self.measured[one.name].latency * math.pow(candidate.macs / one.macs, GROWTH)
        return USUAL_RATE * candidate.macs / 1e9

    def next(self) -> Candidate | None:
        """What is to be measured next: the strongest that may fit, as long as none that is stronger is known to."""
        for each in self.order:
            cost = known_cost(each, self.budget, self.measured)
            if cost is not None and cost <= self.budget.planned:
                return None
            if cost is None and self.predicted(each) <= UNSURE * self.budget.planned and not self._too_large(each):
                return each
        return None

    def _too_large(self, candidate: Candidate) -> bool:
        """Whether one like it that costs no more was over the budget."""
        over = [
            each
            for each in self.order
            if each.family == candidate.family
            and each.macs <= candidate.macs
            and (known_cost(each, self.budget, self.measured) or 0.0) > self.budget.planned
        ]
        return bool(over)


def known_cost(candidate: Candidate, budget: Budget, measured: Mapping[str, Measured]) -> float | None:
    """What a candidate costs of what a budget is of; None before it is measured."""
    if budget.kind == "macs":
        return candidate.macs
    found = measured.get(candidate.name)
    if found is None:
        return None
    return found.latency if budget.kind == "latency" else float(found.size)


def choose_candidate(
    candidates: Sequence[Candidate],
    budget: Budget,
    strength: Callable[[Candidate], float],
    measure: Measure,
    known: Mapping[str, Measured],
) -> Choice:
    """The strongest candidate that fits a budget.

    The strongest that is predicted to fit is measured, and what is found corrects the predictions of the others, until
    one fits and nothing that is stronger may. Where none does, the cheapest is measured, so that this is certain.

    Args:
        strength: orders candidates, larger being stronger; of equal ones the cheaper is taken.
        measure: measures one.
        known: what was measured before, by name.
    """
    order = sorted(candidates, key=lambda each: (-strength(each), each.macs))
    search = _Search(budget, order, dict(known))
    for _ in range(MOST_MEASURED):
        following = search.next()
        if following is None:
            break
        search.measured[following.name] = measure(following)
    fitting = _fitting(search)
    cheapest = min(order, key=search.predicted if budget.kind != "macs" else lambda each: each.macs)
    if not fitting and known_cost(cheapest, budget, search.measured) is None:
        search.measured[cheapest.name] = measure(cheapest)
        fitting = _fitting(search)
    costs = {each.name: known_cost(each, budget, search.measured) for each in order}
    nearest = min(order, key=lambda each: math.inf if costs[each.name] is None else costs[each.name])  # type: ignore[arg-type, return-value]
    return Choice(next(iter(fitting), None), order, search.measured, nearest)


def _fitting(search: _Search) -> list[Candidate]:
    """Those that are known to fit, the strongest first."""
    costs = ((each, known_cost(each, search.budget, search.measured)) for each in search.order)
    return [each for each, cost in costs if cost is not None and cost <= search.budget.planned]


def reason(candidate: Candidate, choice: Choice, budget: Budget) -> str:
    """Why a candidate was taken or not, in words."""
    cost = choice.cost(candidate, budget)
    if candidate == choice.chosen:
        return "the strongest that fits"
    if cost is None:
        return "not measured"
    if cost > budget.planned:
        over = "over the budget" if cost > budget.most else f"over the {words_of(budget.kind, budget.planned)} planned"
        return over if candidate != choice.nearest or choice.chosen else f"{over}, the nearest"
    return "fits, and is weaker"
