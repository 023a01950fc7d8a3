"""Which weights of a run become its model: those of its best evaluation, or the last ones."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from msad_cli import __version__
from msad_cli.evaluation.metrics import Scores, main_number
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import save_model
from msad_cli.models.spec import DetectorSpec
from msad_cli.runs.folder import without_nan
from msad_cli.system import distributed
from msad_cli.training.run import Run
from msad_cli.training.steps.state import Progress


@dataclass(frozen=True)
class Kept:
    """Weights that were evaluated, as the state of a run holds them.

    Attributes:
        step, per_epoch: how many were trained to come to them, and how many an epoch had.
        numbers: of each view, the model's best first, AP … from 0 to 1.
        threshold: the score of best F1, by the first of these views.
        weights: the model's tensors by name, on the CPU; none where the last ones are kept, which the run itself has.
    """

    step: int
    per_epoch: int
    numbers: dict[str, dict[str, float]]
    threshold: float
    weights: dict[str, Tensor]

    @classmethod
    def of(cls, detector: Detector, scores: Mapping[str, Scores], step: int, per_epoch: int, copied: bool) -> "Kept":
        """What a detector is now, `copied` or not, with the scores that it has now."""
        return cls(
            step=step,
            per_epoch=per_epoch,
            numbers={view: dict(each.numbers) for view, each in scores.items()},
            threshold=next(iter(scores.values())).threshold,
            weights={name: each.detach().cpu().clone() for name, each in detector.state_dict().items() if copied},
        )

    @property
    def epoch(self) -> int:
        """Whole epochs that were trained to come to them."""
        return self.step // self.per_epoch

    def to_save(self) -> dict[str, Any]:
        """As plain values and tensors; `Kept(**…)` takes them back."""
        return dict(vars(self))

    def ap(self, spec: DetectorSpec) -> float:
        """By what it is compared: AP of the model's best view, of what the model finds; NaN where that is unknown."""
        return main_number(self.numbers[spec.views[0]], spec.task)

    def words(self, spec: DetectorSpec, epochs: int) -> str:
        """`epoch 5 of 8, AP 26.1 (fused)`, where 8 `epochs` were trained; a run may have been finished between two."""
        ap = self.ap(spec)
        measured = "unknown" if math.isnan(ap) else f"{100 * ap:.1f}"
        place = f"epoch {self.epoch} of {epochs}"
        if self.step % self.per_epoch:
            place = f"step {self.step}, after {self.step / self.per_epoch:.2f} epochs"
        return f"{place}, AP {measured} ({spec.views[0]})"


def is_better(ap: float, than: float) -> bool:
    """Whether weights with this AP take the place of earlier ones: equal ones have been trained for longer, and where
    an AP is unknown nothing speaks for the earlier ones."""
    return math.isnan(ap) or math.isnan(than) or ap >= than


class Keeper:
    """Keeps the best weights of a run, or the last ones, in its model file and for its state.

    Attributes:
        kept: None before the first evaluation.
        current: whether these are the weights as they are now.
    """

    def __init__(self, run: Run, detector: Detector, progress: Progress) -> None:
        self.run = run
        self.detector = detector
        self.progress = progress
        self.best = run.config.keep == "best"
        self.kept: Kept | None = None
        self.current = False

    @property
    def epochs(self) -> int:
        """Whole epochs of the run so far."""
        return self.progress.step // self.run.choices.steps_per_epoch

    def consider(self, scores: Mapping[str, Scores]) -> None:
        """Takes an evaluation of the weights as they are into account; keeps and writes them if they are the better."""
        progress, spec = self.progress, self.detector.spec
        per_epoch = self.run.choices.steps_per_epoch
        now = Kept.of(self.detector, scores, progress.step, per_epoch, copied=self.best)
        # A fusion that is trained later, or a student after its assistant, cannot have become better before.
        progress.measure(now.ap(spec), counts=progress.step > self.run.choices.schedule.restart)
        self.current = not self.best or self.kept is None or is_better(now.ap(spec), self.kept.ap(spec))
        if self.current:
            self.kept = now
            self.write(unfinished=True)

    @property
    def out_of_patience(self) -> bool:
        """Whether so many evaluations had no better AP that the run ends."""
        return 0 < self.run.choices.patience <= self.progress.unimproved

    @property
    def held(self) -> str:
        """What the model file holds, in words."""
        kept = self._in_file
        if kept is not None:
            return kept.words(self.detector.spec, self.epochs)
        return f"the weights after step {self.progress.step}, which were not evaluated"

    def write(self, unfinished: bool) -> None:
        """Writes the model file: what is kept or, where nothing is yet, the weights as they are.

        Args:
            unfinished: whether the run goes on.
        """
        if distributed.rank() > 0:
            return
        kept, run = self._in_file, self.run
        card = replace(
            run.card,
            epochs=kept.epoch if kept else self.epochs,
            steps=kept.step if kept else self.progress.step,
            run_epochs=self.epochs,
            keep=run.config.keep,
            unfinished=unfinished,
            msad_version=__version__,
        )
        if kept:
            card = replace(card, scores=without_nan(kept.numbers), score_threshold=kept.threshold)
        save_model(run.folder.model, self.detector, card, kept.weights if kept else None)

    def to_save(self) -> dict[str, Any]:
        """What a state needs of it."""
        return {} if self.kept is None else {"kept": self.kept.to_save()}

    def restore(self, state: Mapping[str, Any]) -> str:
        """Takes over what `to_save` gave; says what is missing.

        Raises:
            TypeError: it is another version's.
        """
        kept = Kept(**state["kept"]) if "kept" in state else None
        if kept is not None and bool(kept.weights) == self.best:
            self.kept = kept
            return ""
        evaluated = kept is not None or self.progress.epochs >= self.run.choices.eval_every
        return "no weights of earlier epochs were kept: the best from here on are" if self.best and evaluated else ""

    @property
    def _in_file(self) -> Kept | None:
        gone_on = not self.best and not self.progress.measured
        return None if gone_on else self.kept
