"""What is left of all that a head finds. Imports no torch."""

from dataclasses import dataclass

SCORE_THRESHOLD = 0.05
"""Detections scored lower are dropped. COCO's AP counts weak detections too; torchvision's 0.2 would cut them off."""


@dataclass(frozen=True)
class Limits:
    """Limits of a detector's post-processing.

    Attributes:
        score: what is not surer is dropped.
        candidates: how many pairs of an anchor and a class, the best of an image, suppression looks at; None for as
            many as the detector has by itself.
        one_class: whether an anchor takes part with its best class alone.
    """

    score: float = SCORE_THRESHOLD
    candidates: int | None = None
    one_class: bool = False

    def words(self) -> str:
        """Of those limits by which less is found than by a detector's own; empty where there are none."""
        score = "" if self.score == SCORE_THRESHOLD else f"scores above {self.score:g}"
        candidates = "" if self.candidates is None else f"{self.candidates} candidates"
        return ", ".join(filter(None, (score, candidates)))


OWN = Limits()
"""A detector's own."""
