"""Exported models in a detector's place: what evaluates, predicts and times models takes both."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from msad_cli.engine.extras import missing_extra
from msad_cli.engine.model_file import Card, load_model
from msad_cli.engine.sidecar import read_sidecar, sidecar_path
from msad_cli.models.deployed import INPUT, OUTPUTS
from msad_cli.models.on_features import Detection
from msad_cli.models.spec import DetectorSpec, View
from msad_cli.structures.errors import ModelFileError

if TYPE_CHECKING:
    from msad_cli.models.detector import Views

ONNX = ".onnx"

Run = Callable[[Tensor], Sequence[Tensor]]
"""uint8 images (N, 3, h, w) of one size -> what `Deployed` answers."""


class Model(Protocol):
    """What evaluation, prediction and timing need of a model; `Detector` is one."""

    spec: DetectorSpec

    def look(self, views: "Views", view: View) -> Any: ...

    def finish(self, seen: Any) -> list[Detection]: ...

    def detect(self, views: "Views", view: View) -> list[Detection]: ...

    def to(self, device: torch.device) -> "Model": ...

    def eval(self) -> "Model": ...


class ExportedModel:
    """An exported model in a detector's place. It computes on the CPU, in float32.

    Attributes:
        spec: with the one view that was exported.
    """

    def __init__(self, spec: DetectorSpec, run: Run) -> None:
        self.spec = spec
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
        images = [each.cpu() for each in views[self.spec.ks_of(view)[0]]]
        answers: list[Sequence[Tensor]] = []
        while images:
            alike = next((i for i, each in enumerate(images) if each.shape != images[0].shape), len(images))
            answers.append(self._run(torch.stack(images[:alike])))
            images = images[alike:]
        return answers

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
    if path.suffix != ONNX:
        return load_model(path)
    if not path.is_file():
        raise ModelFileError(f"no such model file: {path}", "msad export MODEL writes one")
    spec, card = read_sidecar(sidecar_path(path))
    return ExportedModel(spec, onnx_run(path.read_bytes(), spec.task, str(path))), card


def onnx_run(model: bytes, task: str, name: str) -> Run:
    """onnxruntime's session of a model for this task, with as many threads as torch has.

    Args:
        name: of its file, for messages.

    Raises:
        ModelFileError: onnxruntime refuses the model, or it answers something else.
        UsageError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise missing_extra("onnxruntime", "export") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime has classes of errors for what is wrong with a model, which share no base.
        raise ModelFileError(f"{name}: onnxruntime cannot run it ({str(error)[:200]})", "export it again") from None

    names = tuple(each.name for each in session.get_outputs())
    if names != OUTPUTS[task] or [each.name for each in session.get_inputs()] != [INPUT]:
        raise ModelFileError(f"{name}: does not answer {task}", "its JSON is that of another model; export it again")

    def run(pixels: Tensor) -> list[Tensor]:
        return [torch.from_numpy(each) for each in session.run(None, {INPUT: pixels.numpy()})]

    return run
