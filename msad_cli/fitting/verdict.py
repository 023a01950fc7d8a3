"""What came of a fit: the model beside its budget and beside the plain detector of that budget."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msad_cli.export.formats import read_description
from msad_cli.fitting.choice.budgets import Budget
from msad_cli.text import percent

CHANCE = 0.01
"""AP. Single trainings have a standard deviation of 0.3 to 1.4 points (docs/results.md): less is no difference."""


@dataclass(frozen=True)
class Outcome:
    """A trained model.

    Attributes:
        file: that is deployed.
        ap: from 0 to 1, as deployed; None where it finds nothing.
        milliseconds: an image, from its pixels to its boxes.
        cost: of what the budget is of.
    """

    file: Path
    ap: float | None
    milliseconds: float
    cost: float


@dataclass(frozen=True)
class Verdict:
    """What to ship.

    Attributes:
        student, control: what was trained; the plain detector may be missing.
        int8: the student's graph of 8 bits, if there is one.
        met: whether the student is within the budget.
        control_met: whether the plain detector is.
        words: all of it, in a sentence or two.
    """

    student: Outcome
    control: Outcome | None
    met: bool
    control_met: bool
    words: str
    int8: Outcome | None = None

    @property
    def ship(self) -> Path:
        """The file to ship: the plain detector's where that is better, whatever was hoped."""
        return self.control.file if self.control is not None and self.control_better else self.student.file

    @property
    def control_better(self) -> bool:
        """Whether the plain detector has more AP by more than chance, within the budget."""
        if self.control is None or not self.control_met:
            return False
        return (self.control.ap or 0.0) - (self.student.ap or 0.0) >= CHANCE

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        models = {"student": self.student, "int8": self.int8, "plain": self.control}
        return {
            **{name: None if each is None else {**vars(each), "file": str(each.file)} for name, each in models.items()},
            "budget_met": self.met,
            "ship": str(self.ship),
            "verdict": self.words,
        }


def ap_of(file: Path) -> float | None:
    """The AP that a model's file, or the JSON beside an exported one, has of its view; None of nothing.

    Raises:
        ModelFileError: it cannot be read.
    """
    spec, card = read_description(file)
    return (card.scores or {}).get(spec.views[0], {}).get("AP")


def decide(
    budget: Budget,
    student: Outcome,
    control: Outcome | None,
    notes: Mapping[str, str],
    int8: Outcome | None = None,
) -> Verdict:
    """The verdict on what was trained.

    Args:
        notes: what became of a part that could not be trained, and what is to be said of the machine's pace, in words.
        int8: the student in 8 bits.
    """
    met = student.cost <= budget.most
    control_met = control is not None and control.cost <= budget.most
    words = f"student {percent(student.ap)} AP in {student.milliseconds:.1f} ms (budget {budget.text}"
    if budget.kind != "latency":
        words += f", it takes {budget.words(student.cost)}"
    words += ")" if met else f"), {student.cost / budget.most - 1:.0%} over the budget"
    if int8 is not None:
        words += f"; in 8 bits, {int8.file}, {percent(int8.ap)} in {int8.milliseconds:.1f} ms"
    without = Verdict(student, control, met, control_met, "")
    if control is None:
        words += f"; {notes['control']}" if "control" in notes else "; no plain detector was trained"
    else:
        over = "" if control_met else f", {control.cost / budget.most - 1:.0%} over it"
        words += f"; the plain detector of that budget has {percent(control.ap)} in {control.milliseconds:.1f} ms{over}"
        gain = (student.ap or 0.0) - (control.ap or 0.0)
        if without.control_better:
            words += f". The plain detector is better by {-100 * gain:.1f} AP: ship {control.file}"
        elif abs(gain) < CHANCE and control_met:
            words += ". They are even: trainings of other seeds differ by as much"
    if "pace" in notes:
        words += f"; {notes['pace']}"
    return Verdict(student, control, met, control_met, words, int8)
