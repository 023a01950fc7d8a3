"""Exported models in a detector's place: what evaluates, predicts and times models takes both."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from msad_cli.errors import ModelFileError
from msad_cli.export.sidecar import ONNX, PT2, InputShape, fitting, pad_colour, read_exported
from msad_cli.frame import Resolution
from msad_cli.models.decode.deployed import INPUT, OUTPUTS
from msad_cli.models.detectors.base import Detection
from msad_cli.models.model_file import Card, load_model
from msad_cli.models.spec import DetectorSpec, View
from msad_cli.system.extras import missing_extra

if TYPE_CHECKING:
    from msad_cli.models.detector import Views

IDENTITY = "msad"
"""The name, in the metadata of an .onnx file, of what the JSON beside it repeats."""
ANY = InputShape()

Run = Callable[[Tensor], Sequence[Tensor]]
"""uint8 images (N, 3, h, w) of one size -> what `Deployed` answers."""


class Model(Protocol):
    """What evaluation, prediction and timing need of a model; `Detector` is one."""

    spec: DetectorSpec

    @property
    def resolution(self) -> Resolution: ...

    def look(self, views: "Views", view: View) -> Any: ...

    def finish(self, seen: Any) -> list[Detection]: ...

    def detect(self, views: "Views", view: View) -> list[Detection]: ...

    def to(self, device: torch.device) -> "Model": ...

    def eval(self) -> "Model": ...


class ExportedModel:
    """An exported model in a detector's place. It computes on the CPU, in float32.

    Attributes:
        spec: with the one view that was exported.
        shape: of its input.
        resolution: by which HR images are sized.
    """

    def __init__(self, spec: DetectorSpec, run: Run, shape: InputShape = ANY) -> None:
        self.spec = spec
        self.shape = shape
        self.resolution = fitting(spec, shape)
        self._run = run

    def to(self, _: torch.device) -> "ExportedModel":
        """Itself: an exported model stays where it is."""
        return self

    def eval(self) -> "ExportedModel":
        """Itself: it knows no other mode."""
        return self

    def detect(self, views: "Views", view: View) -> list[Detection]:
        """As `Detector.detect`: detections in HR pixels, one dict an image."""
        return self.finish(self.look(views, view))

    def look(self, views: "Views", view: View) -> list[Sequence[Tensor]]:
        """All that is computed, for neighbours of one size together."""
        images = [self.padded(each.cpu()) for each in views[self.spec.ks_of(view)[0]]]
        answers: list[Sequence[Tensor]] = []
        while images:
            alike = next((i for i, each in enumerate(images) if each.shape != images[0].shape), len(images))
            count = min(alike, self.shape.batch or alike)
            answers.append([each[:count] for each in self._run(self.stacked(images[:count]))])
            images = images[count:]
        return answers

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
        rows = [dict(zip(names, row, strict=True)) for answers in seen for row in zip(*answers, strict=True)]
        return [_in_frame({name: each[row["labels"] > 0] for name, each in row.items()}, k) for row in rows]


def _in_frame(found: Detection, k: int) -> Detection:
    moved = {**found, "boxes": found["boxes"] * k}
    if "masks" in found:
        moved["masks"] = found["masks"][:, None]
    if "keypoints" in found:
        moved["keypoints"] = found["keypoints"] * found["keypoints"].new_tensor([k, k, 1])
    return moved


def open_model(path: Path) -> tuple[Model, Card]:
    """The model of a .safetensors or .onnx file, on the CPU and in eval mode, and its card.

    Raises:
        ModelFileError: it cannot be read, or an .onnx file has no JSON beside it.
        UsageError: onnxruntime is not installed.
    """
    if path.suffix.lower() == PT2:
        raise ModelFileError(
            f"{path}: a .pt2 file is not run, because loading one can run code", "msad export MODEL writes an .onnx"
        )
    if path.suffix.lower() != ONNX:
        return load_model(path)
    notes = read_exported(path)
    run = onnx_run(path.read_bytes(), notes.spec.task, str(path), notes.shape, notes.identity)
    return ExportedModel(notes.spec, run, notes.shape), notes.card


def onnx_run(model: bytes, task: str, name: str, shape: InputShape = ANY, identity: str = "") -> Run:
    """onnxruntime's session of a model, with as many threads as torch has.

    Args:
        task: that it has to answer.
        name: of its file, for messages.
        shape: that its input has to have.
        identity: that its metadata have to repeat, if they have one; tools that change a graph may drop it.

    Raises:
        ModelFileError: onnxruntime refuses the model, or it is another one.
        UsageError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise missing_extra("onnxruntime", "export") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    with _explained(name):
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    known = session.get_modelmeta().custom_metadata_map.get(IDENTITY, identity)
    names = tuple(each.name for each in session.get_outputs())
    if known != identity or names != OUTPUTS[task] or [each.name for each in session.get_inputs()] != [INPUT]:
        raise ModelFileError(f"{name}: the JSON beside it is that of another model", "copy both files of one export")
    found = session.get_inputs()[0].shape
    fixed, stated = ([each for each in sides if isinstance(each, int)] for sides in (found, shape.dimensions))
    if fixed != stated:
        raise ModelFileError(
            f"{name}: its input is {found}, the JSON beside it says {shape.dimensions}",
            "msad export MODEL --fixed HEIGHT,WIDTH --batch N fixes it in both",
        )

    def run(pixels: Tensor) -> list[Tensor]:
        with _explained(name):
            return [torch.from_numpy(each) for each in session.run(None, {INPUT: pixels.numpy()})]

    return run


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # onnxruntime has classes of errors for what is wrong with a model, which share no base.
        raise ModelFileError(f"{name}: onnxruntime cannot run it ({str(error)[:200]})", "export it again") from None
