"""How good the model of a run is by its validation split."""

import contextlib
import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from msad_cli.distillation.split_losses import SplitLosses
from msad_cli.evaluation.detect_split import Detected, put_together, view_results
from msad_cli.evaluation.ground_truth import ground_truth
from msad_cli.evaluation.metrics import Result, Scores, oks_sigmas, score
from msad_cli.models.detector import Detector
from msad_cli.models.spec import View
from msad_cli.runs.plots.epochs import VALIDATION_LOSS
from msad_cli.system import distributed
from msad_cli.training.interruption import Interruption
from msad_cli.training.run import Run


class Validation:
    """Evaluates detectors of a run; of several processes each looks at its share.

    Attributes:
        results: what the last evaluation found by the model's best view, in the first process.
        loss: the last evaluation's, of an image, by that view.

    Args:
        say: takes a line about an image that cannot be read.
    """

    def __init__(self, run: Run, say: Callable[[str], None]) -> None:
        self.run = run
        self.say = say
        self.results: list[Result] = []
        self.loss = math.nan

    @cached_property
    def truth(self) -> dict[str, Any]:
        """The split's ground truth, the same at every evaluation."""
        return ground_truth(self.run.validation)

    def measure(self, detector: Detector, interruption: Interruption, batch: int) -> dict[str, Scores]:
        """The scores of every view, the model's best first, or nothing where a signal cut it short.

        Raises:
            DataError: too many images cannot be read.
        """
        scores: dict[str, Scores] = {}
        losses = SplitLosses(detector, detector.spec.views[0])
        for view in detector.spec.views:
            own = losses if view == losses.view else None
            detected = self._detect(detector, view, interruption, batch, own)
            if detected is None:
                return {}
            for reason in detected.unreadable.values():
                self.say(f"passed over, its objects count as missed: {reason}")
            scores[view] = self._score(detector, detected)
            if own is not None:
                self.results, self.loss = detected.results, own.mean()
        return scores

    def columns(self, scores: Mapping[str, Scores]) -> dict[str, float]:
        """What results.csv has of the last evaluation, which came to these scores; nothing of none."""
        numbers = {f"{name}/{view}": value for view, each in scores.items() for name, value in each.numbers.items()}
        losses = {f"{VALIDATION_LOSS}{view}": self.loss for view in list(scores)[:1]}
        return {name: value for name, value in (losses | numbers).items() if math.isfinite(value)}

    def _detect(
        self, detector: Detector, view: View, interruption: Interruption, batch: int, losses: SplitLosses | None
    ) -> Detected | None:
        run, found = self.run, None
        compute, workers = run.choices.compute, run.choices.workers
        with contextlib.suppress(KeyboardInterrupt), interruption.at_once():
            found = view_results(detector, run.validation, view, compute, workers, batch=batch, losses=losses)
        return found if distributed.size() == 1 else put_together(found, run.validation)

    def _score(self, detector: Detector, detected: Detected) -> Scores:
        spec = detector.spec
        sigmas = oks_sigmas(len(spec.keypoints), spec.measuring.sigmas)
        return distributed.from_first(lambda: score(self.truth, detected.results, spec.task, sigmas))


def in_words(scores: Mapping[str, Scores]) -> str:
    """`fused 26.1  high 25.0`: AP of boxes by view."""
    return "  ".join(f"{view} {100 * each.numbers['AP']:.1f}" for view, each in scores.items())
