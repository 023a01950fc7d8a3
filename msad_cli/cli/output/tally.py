"""What `msad predict` says of its results: a line an image, and a summary."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from msad_cli.inference.predictor import Prediction

MANY = 1000
"""Inputs, from which on a line an image would hide all else."""
SECONDS_BETWEEN_LINES = 30.0


@dataclass
class Tally:
    """What was found so far.

    Attributes:
        inputs: how many there are.
        names: of classes, by label − 1.
    """

    inputs: int
    names: Sequence[str]
    objects: int = 0
    failed: int = 0
    cut: int = 0
    images: int = 0
    seconds: float = 0.0
    frames: Counter[Path] = field(default_factory=Counter)
    _said: float = field(default_factory=time.monotonic)

    def add(self, found: "Prediction") -> str | None:
        """Counts an image or a frame, and says what is to be printed of it, if anything."""
        labels = found.found["labels"].tolist()
        self.objects += len(labels)
        self.cut += found.cut
        self.images += 1
        self.seconds += found.seconds
        if found.frame is not None:
            self.frames[found.source.path] += 1
            return None
        if self.inputs < MANY:
            return f"{found.source.path}: {self._classes(labels)}  {1000 * found.seconds:.0f} ms"
        if time.monotonic() - self._said < SECONDS_BETWEEN_LINES:
            return None
        self._said = time.monotonic()
        return f"{self.images + self.failed} of {self.inputs} images, {self.objects} objects"

    def _classes(self, labels: Sequence[int]) -> str:
        counts = Counter(labels)
        return ", ".join(f"{counts[each]} {self.names[each - 1]}" for each in sorted(counts)) or "nothing"

    def summary(self, kind: str, least: float, model: Path, most: int) -> Iterator[str]:
        """The last lines.

        Args:
            kind: what the inputs are called.
            least: score of what is answered.
            most: detections of an image.
        """
        for name, count in self.frames.items():
            yield f"{name}: {count} frames"
        if self.cut:
            were = "1 image has" if self.cut == 1 else f"{self.cut} images have"
            yield f"{were} {most} detections, the most allowed, and may hold more: raise --max-detections"
        each = f", {1000 * self.seconds / self.images:.0f} ms each in the model" if self.images else ""
        done = f"{self.inputs - self.failed} of {self.inputs} {kind}"
        yield f"{done}, {self.objects} objects of score ≥ {least:.2f} by {model}{each}"
