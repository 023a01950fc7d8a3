"""What `import msad_cli as msad` gives: trainings, fits and evaluation as functions, and models for images in memory.

Keywords are the fields of `TeacherConfig`, `DistillConfig`, `FitConfig` and `EvaluationConfig`: the commands' flags,
with `_` for `-`. They take what one would type (`epochs=12`, `size="400,640"`, `lambda_=0.4`), and trainings objects
too: two datasets as `data`, modules as `losses`, a function as `on_step`. Nothing is printed unless `quiet=False`.
Every mistake is raised as an `MsadError`.
"""

import inspect
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from msad_cli.data.images.in_memory import rgb_image
from msad_cli.data.images.tones import Tones, parse_bits
from msad_cli.errors import DataError, MsadError, UsageError  # noqa: F401  # MsadError is for callers
from msad_cli.evaluation.evaluate import Evaluation, EvaluationConfig
from msad_cli.evaluation.metrics import Scores
from msad_cli.export.runtime import Model as Network
from msad_cli.export.runtime import open_model
from msad_cli.fitting.fit_folder import FitConfig, begin
from msad_cli.fitting.job import Fitted, fit_model
from msad_cli.fitting.programs import Programs
from msad_cli.inference import predictor
from msad_cli.inference.inputs import Input
from msad_cli.models.decode.nms import SAME_OBJECT, overlap_of
from msad_cli.models.decode.paste_masks import paste_masks
from msad_cli.models.model_file import Card
from msad_cli.models.spec import DetectorSpec
from msad_cli.models.views import choose_views
from msad_cli.system import distributed
from msad_cli.system.device import Compute, choose_compute
from msad_cli.training import train_teacher as training
from msad_cli.training.config import PYTHON_ONLY, Asked, Config, DistillConfig, TeacherConfig
from msad_cli.training.observer import Lines, Observer
from msad_cli.training.run import Outcome
from msad_cli.training.students import train_student as training_of_students

if TYPE_CHECKING:
    import supervision

Settings = ParamSpec("Settings")
PathLike = str | os.PathLike[str]
Measures = dict[str, Scores]
ImageLike = str | os.PathLike[str] | Image.Image | NDArray[np.uint8] | Tensor
"""A file, a PIL image, a uint8 array (H, W, 3) or a uint8 tensor (3, H, W), both RGB."""


@dataclass(frozen=True)
class Trained:
    """What a training leaves.

    Attributes:
        model: the model file; beside it lies its run folder. After `dry_run` there is none.
        scores: of each view, the model's best first. Empty after `dry_run`, and where `time` stopped the run, which
            `resume=True` continues, or with `finish=True` ends; `load(model).card` has the numbers of the file.
        held: what the model file holds, such as `epoch 5 of 8, AP 26.1 (fused)`.
    """

    model: Path
    scores: dict[str, Scores]
    held: str = ""


@dataclass(frozen=True)
class Detections:
    """The D objects found in an image, the surest first, as NumPy arrays.

    Attributes:
        boxes: (D, 4) float32, corners x0, y0, x1, y1 in pixels of the image.
        scores: (D,) float32, from 0 to 1.
        labels: (D,) int64, the ids that the categories have in the set that the model learnt from.
        names: (D,) those categories' names.
        masks: (D, height, width) bool, from a Mask R-CNN, else None.
        keypoints: (D, K, 3) float32, from a Keypoint R-CNN: x and y in pixels of the image, and 1; else None.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    masks: NDArray[np.bool_] | None = None
    keypoints: NDArray[np.float32] | None = None

    def to_supervision(self) -> "supervision.Detections":
        """As the trackers and annotators of supervision take them; `class_id` are `labels`.

        Raises:
            UsageError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError:
            # Not an extra: it brings packages under licences that msad's own do not have.
            raise UsageError(
                "supervision is not installed", "pip install supervision", code="package-missing"
            ) from None
        data: dict[str, NDArray[np.generic] | list[str]] = {"class_name": np.array(self.names, dtype=object)}
        return supervision.Detections(self.boxes, self.masks, self.scores, self.labels, data=data)


@dataclass(frozen=True)
class Model:
    """A model in memory, ready to look at images.

    Attributes:
        file: it was read from.
        detector: for inference alone, on its device; `detector.spec` says what it is.
        card: what is known of it beside that: its data, its scores, the threshold of best F1.
        compute: device and precision.
        overlap: IoU with a surer box of any class above which one is taken for the same object.
    """

    file: Path
    detector: Network
    card: Card
    compute: Compute
    overlap: float = SAME_OBJECT

    @property
    def spec(self) -> DetectorSpec:
        """What the model is: its classes, size, views."""
        return self.detector.spec

    @overload  # a text is a sequence of texts too, but the first case comes first
    def predict(  # type: ignore[overload-overlap]
        self,
        images: ImageLike,
        *,
        score: float | None = None,
        view: str | None = None,
        batch: int | None = None,
        agnostic: bool = True,
    ) -> Detections: ...

    @overload
    def predict(
        self,
        images: Sequence[ImageLike],
        *,
        score: float | None = None,
        view: str | None = None,
        batch: int | None = None,
        agnostic: bool = True,
    ) -> list[Detections]: ...

    def predict(
        self,
        images: ImageLike | Sequence[ImageLike],
        *,
        score: float | None = None,
        view: str | None = None,
        batch: int | None = None,
        agnostic: bool = True,
    ) -> Detections | list[Detections]:
        """What is in an image, or in each of several.

        Args:
            images: files, which are turned as their EXIF orientation says, or pixels, which are taken as they are.
            score: the least that is answered; the model's own threshold of best F1 unless given.
            view: `high`, `middle`, `low` or `fused`; the model's best unless given.
            batch: images of one size that are looked at together; 8 on a GPU and 1 elsewhere unless given.
            agnostic: whether an object has its best class alone; else a box may come again under another class.

        Raises:
            DataError: a file cannot be read.
            UsageError: something else than an image, a view that the model does not have, or a number out of range.
            DeviceError: out of memory.
        """
        if isinstance(images, str) or not isinstance(images, Sequence):
            return self.predict([images], score=score, view=view, batch=batch, agnostic=agnostic)[0]
        if score is not None and not 0 <= score <= 1:
            raise UsageError(f"score {score}: not from 0 to 1", "leave it out", code="number-out-of-range")
        if batch is not None and not batch >= 1:
            raise UsageError(f"batch {batch}: not at least 1", "leave it out", code="number-out-of-range")
        inputs = [_input(number, each, self.spec.tones) for number, each in enumerate(images, start=1)]
        chosen = choose_views(view, self.spec, self.file)[0]
        least = self.card.score_threshold if score is None else score
        at_once = batch or predictor.usual_batch(self.compute)
        wanted = predictor.Wanted(least, overlap=self.overlap if agnostic else None)
        predictions = predictor.predict(self.detector, chosen, inputs, wanted, self.compute, at_once)
        return [self._detections(each) for each in predictions]

    def _detections(self, prediction: predictor.Prediction | DataError) -> Detections:
        if isinstance(prediction, DataError):
            raise prediction
        found, size = prediction.found, (prediction.image.height, prediction.image.width)
        classes = [self.spec.classes[label - 1] for label in found["labels"].tolist()]
        masks = None
        if "masks" in found:
            masks = np.zeros((len(classes), *size), dtype=np.bool_)
            for mask, pasted in zip(masks, paste_masks(found["masks"], found["mask_boxes"], size), strict=True):
                mask[:] = pasted
        return Detections(
            found["boxes"].numpy(),
            found["scores"].numpy(),
            np.array([each.category_id for each in classes], dtype=np.int64),
            tuple(each.name for each in classes),
            masks,
            found["keypoints"].numpy() if "keypoints" in found else None,
        )


def load(
    model: str | os.PathLike[str],
    *,
    device: str = "auto",
    precision: str = "auto",
    runtime: str | None = None,
    nms_iou: float | None = None,
    max_detections: int | None = None,
    bits: int | None = None,
) -> Model:
    """The model of a file that `msad teacher`, `distill` or `export` (.onnx) wrote.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `auto`, `bf16`, `fp16` or `fp32`.
        runtime: of an .onnx file, `onnxruntime` or `openvino`.
        nms_iou: of two boxes that overlap more, the surer one is kept; the detector's own IoU unless given.
        max_detections: of an image, at most 1000; the model's own number unless given.
        bits: of images of more than 8 bits, how many are used; the model's own range unless given.

    Raises:
        ModelFileError: no such file, or none of msad's.
        DeviceError: the device cannot be used.
        UsageError: no such device or precision, or a number that cannot be.
    """
    file = Path(model)
    compute = choose_compute(device, precision)
    detector, card = open_model(file, runtime)
    detector.limit(nms_iou, max_detections)
    if (tones := parse_bits(bits)) is not None:
        detector.spec = replace(detector.spec, tones=tones)
    return Model(file, detector.to(compute.device), card, compute, overlap_of(nms_iou))


def _input(number: int, image: ImageLike, tones: Tones) -> Input:
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        return Input(path, Path(path.name))
    name = f"image {number}"
    return Input(Path(name), Path(name), rgb_image(image, name, tones))


def _training(
    config: Callable[Settings, Config], train: Callable[[Asked[Config], Observer], Outcome], about: str
) -> Callable[Settings, Trained]:
    """A function of the settings of a configuration that trains and tells how it went."""

    def function(*args: Settings.args, **settings: Settings.kwargs) -> Trained:
        asked = Asked(config(*args, **{"quiet": True, **settings}), frozenset(settings) - PYTHON_ONLY)  # type: ignore[arg-type]
        with distributed.joined():
            outcome = train(asked, Observer() if asked.config.quiet or distributed.rank() else Lines())
        if outcome.stopped:
            # The state is written: now the signal does what it does without msad.
            signal.raise_signal(outcome.stopped)
        return Trained(outcome.model, outcome.scores, outcome.held)

    function.__doc__ = about
    function.__signature__ = inspect.signature(config).replace(return_annotation=Trained)  # type: ignore[attr-defined]
    return function


train_teacher = _training(
    TeacherConfig,
    training.train_teacher,
    """Trains a teacher, or a baseline: `msad teacher`, whose flags the keywords are.

    Raises:
        MsadError: whatever is wrong with what is asked for, the data, the device, or the training.
    """,
)
distill = _training(
    DistillConfig,
    training_of_students.train_student,
    """Distils a teacher into a student: `msad distill`, whose flags the keywords are.

    Raises:
        MsadError: whatever is wrong with what is asked for, the teacher, the data, the device, or the training.
    """,
)


def _fitting(config: Callable[Settings, FitConfig]) -> Callable[Settings, Fitted]:
    def fit(*args: Settings.args, **settings: Settings.kwargs) -> Fitted:
        """From a set and a budget to a model to ship: `msad fit`, whose flags the keywords are.

        Its commands run as programs of their own.

        Returns:
            Plan, commands and verdict. `verdict.ship` is the file to ship, `verdict.met` whether what was trained is
            within the budget. After `dry_run` there is no verdict.

        Raises:
            UnmetBudgetError: no candidate meets the budget.
            MsadError: whatever else is wrong with what is asked for, the data, the device, or a command.
        """
        asked = config(*args, **{"quiet": True, **settings})  # type: ignore[arg-type]
        folder, state = begin(asked, settings)
        fitted = fit_model(folder, state, Programs(asked.quiet), asked.dry_run)
        if fitted.stopped:
            # The state is written: now the signal does what it does without msad.
            signal.raise_signal(fitted.stopped - 128)
        return fitted

    fit.__signature__ = inspect.signature(config).replace(return_annotation=Fitted)  # type: ignore[attr-defined]
    return fit


fit = _fitting(FitConfig)


def _evaluation(config: Callable[Settings, EvaluationConfig]) -> Callable[Concatenate[PathLike, Settings], Measures]:
    def evaluate(model: PathLike, /, *args: Settings.args, **settings: Settings.kwargs) -> Measures:
        """Measures AP and AR of a model file by COCO's own evaluation: `msad eval`, whose flags the keywords are.

        Returns:
            The scores of each view, the model's best first; of several sizes, those of the largest.

        Raises:
            MsadError: the model, the data or the device cannot be used.
        """
        measured = Evaluation(Path(model), config(*args, **settings)).measure(lambda line: None)
        return measured[max(measured)].scores

    own = inspect.Parameter("model", inspect.Parameter.POSITIONAL_ONLY, annotation=PathLike)
    keywords = inspect.signature(config).parameters.values()
    evaluate.__signature__ = inspect.Signature([own, *keywords], return_annotation=Measures)  # type: ignore[attr-defined]
    return evaluate


evaluate = _evaluation(EvaluationConfig)
