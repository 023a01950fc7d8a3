"""Exported models in a detector's place: what evaluates, predicts and times models takes both."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from msad_cli.errors import ModelFileError, UsageError
from msad_cli.export.base import Run
from msad_cli.export.formats import FORMATS, RUNTIMES, format_of
from msad_cli.export.sidecar import InputShape, fitting, pad_colour, read_exported
from msad_cli.frame import Resolution
from msad_cli.models.decode.deployed import OUTPUTS
from msad_cli.models.decode.limits import SCORE_THRESHOLD
from msad_cli.models.detectors.base import Detection
from msad_cli.models.model_file import Card, load_model
from msad_cli.models.spec import DetectorSpec, View

if TYPE_CHECKING:
    from msad_cli.models.detector import Views

ANY = InputShape()


class Model(Protocol):
    """What evaluation, prediction and timing need of a model; `Detector` is one."""

    spec: DetectorSpec

    @property
    def resolution(self) -> Resolution: ...

    def look(self, views: "Views", view: View) -> Any: ...

    def finish(self, seen: Any) -> list[Detection]: ...

    def detect(self, views: "Views", view: View) -> list[Detection]: ...

    def limit(self, nms_iou: float | None = None, most: int | None = None) -> None: ...

    def drop_below(self, score: float) -> float: ...

    def to(self, device: torch.device) -> "Model": ...

    def eval(self) -> "Model": ...


class ExportedModel:
    """An exported model in a detector's place. It computes on the CPU, in float32.

    Attributes:
        spec: with the one view that was exported.
        shape: of its input.
        lowest: the score below which the graph finds nothing.
        resolution: by which HR images are sized.
    """

    def __init__(self, spec: DetectorSpec, run: Run, shape: InputShape = ANY, lowest: float = SCORE_THRESHOLD) -> None:
        self.spec = spec
        self.shape = shape
        self.lowest = lowest
        self.resolution = fitting(spec, shape)
        self._run = run

    def to(self, _: torch.device) -> "ExportedModel":
        """Itself: an exported model stays where it is."""
        return self

    def eval(self) -> "ExportedModel":
        """Itself: it knows no other mode."""
        return self

    def limit(self, nms_iou: float | None = None, most: int | None = None) -> None:
        """Nothing, unless it is asked for something: suppression is in the graph.

        Raises:
            UsageError: it is.
        """
        if nms_iou is not None or most is not None:
            raise UsageError(
                "--nms-iou, --max-detections: suppression is in the graph of an exported model",
                "msad export takes these flags",
                code="suppression-fixed",
            )

    def drop_below(self, score: float) -> float:
        """The lowest score of this or a surer one: that of the graph stays."""
        return max(score, self.lowest)

    def detect(self, views: "Views", view: View) -> list[Detection]:
        """As `Detector.detect`: detections in HR pixels, one dict an image."""
        return self.finish(self.look(views, view))

    def look(self, views: "Views", view: View) -> list[Sequence[Tensor]]:
        """All that is computed, for neighbours of one size together."""
        images = [self.padded(each.cpu()) for each in views[self.spec.ks_of(view)[0]]]
        outputs: list[Sequence[Tensor]] = []
        while images:
            alike = next((i for i, each in enumerate(images) if each.shape != images[0].shape), len(images))
            count = min(alike, self.shape.batch or alike)
            outputs.append([each[:count] for each in self._run(self.stacked(images[:count]))])
            images = images[count:]
        return outputs

    def padded(self, image: Tensor) -> Tensor:
        """An image (3, h, w) at the top left of the fixed sides; as it is where there are none."""
        if self.shape.sides is None:
            return image
        colour = torch.tensor(pad_colour(self.spec), dtype=torch.uint8)
        whole = colour[:, None, None].repeat(1, *self.shape.sides)
        whole[:, : image.shape[1], : image.shape[2]] = image
        return whole

    def stacked(self, images: Sequence[Tensor]) -> Tensor:
        """Images of one size as the batch that the graph takes: a fixed one is filled up with black ones."""
        missing = 0 if self.shape.batch is None else self.shape.batch - len(images)
        return F.pad(torch.stack(list(images)), (0, 0, 0, 0, 0, 0, 0, missing))

    def finish(self, seen: list[Sequence[Tensor]]) -> list[Detection]:
        """What `look` gave, as one dict an image, without the padding."""
        (k,) = self.spec.ks
        names = OUTPUTS[self.spec.task]
        rows = [dict(zip(names, row, strict=True)) for outputs in seen for row in zip(*outputs, strict=True)]
        return [_in_frame({name: each[row["labels"] > 0] for name, each in row.items()}, k) for row in rows]


def _in_frame(found: Detection, k: int) -> Detection:
    moved = {**found, "boxes": found["boxes"] * k}
    if "masks" in found:
        moved["masks"] = found["masks"][:, None]
    if "keypoints" in found:
        moved["keypoints"] = found["keypoints"] * found["keypoints"].new_tensor([k, k, 1])
    return moved


def open_model(path: Path, runtime: str | None = None, fold: bool = True) -> tuple[Model, Card]:
    """The model of a .safetensors or an exported file, on the CPU and for inference alone, and its card.

    Args:
        runtime: one of `RUNTIMES`, for an .onnx file; the usual one unless given.
        fold: whether normalisation is folded into convolutions, which is faster and rounds otherwise.

    Raises:
        ModelFileError: it cannot be read, is of a format that is not opened, or has no JSON beside it.
        UsageError: a package that runs it is not installed, or the runtime is not one for it.
    """
    form = format_of(path)
    if runtime is not None and (form is None or form.name != "onnx" or runtime not in RUNTIMES):
        raise UsageError(
            f"--runtime {runtime}: nothing that runs {path.name}",
            f"{', '.join(RUNTIMES)} run .onnx files; msad export MODEL writes one",
            code="runtime-refused",
        )
    if form is None:
        detector, card = load_model(path)
        return detector.fold() if fold else detector, card
    if form.unopened:
        opened = next(each for each in FORMATS.values() if not each.unopened)
        raise ModelFileError(
            f"{path}: a {form.suffix} file is not run, because {form.unopened}",
            f"msad export MODEL writes an {opened.suffix}",
            code="format-not-run",
        )
    notes = read_exported(path)
    load = form.load if runtime is None else RUNTIMES[runtime]
    run = load(path.read_bytes(), notes.spec.task, str(path), notes.shape, notes.identity)
    return ExportedModel(notes.spec, run, notes.shape, notes.limits.score), notes.card
