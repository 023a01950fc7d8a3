"""COCO's numbers of a model file, trained or exported, on a split of a set."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msad_cli.data.annotations.check_cache import checked, refuse_unusable
from msad_cli.data.annotations.problems import OF_READING, READ_OTHERWISE
from msad_cli.data.annotations.records import Records, read_records
from msad_cli.data.annotations.split import CocoSplit, to_split
from msad_cli.data.images.decode import limit_pixels
from msad_cli.data.images.tone_range import read_by
from msad_cli.data.images.tones import parse_bits
from msad_cli.data.layouts.decisions import Decisions, decided
from msad_cli.data.layouts.splits import NAMED, find_split
from msad_cli.errors import UsageError
from msad_cli.evaluation.detect_split import view_results
from msad_cli.evaluation.ground_truth import ground_truth
from msad_cli.evaluation.metrics import Result, Scores, number_names, oks_sigmas, remarks, score
from msad_cli.evaluation.result_files import result_words, write_results
from msad_cli.export.runtime import Model, open_model
from msad_cli.frame import Resolution
from msad_cli.models.decode.nms import overlap_of
from msad_cli.models.model_file import remembered_data
from msad_cli.models.views import choose_views
from msad_cli.system.device import Compute, choose_compute, default_workers
from msad_cli.system.extras import EVALUATORS, Evaluator
from msad_cli.system.files import refuse_unwritable
from msad_cli.text import MOST_PIXELS, name_files, parse_pixels, parse_sigmas, parse_sizes

if TYPE_CHECKING:
    from msad_cli.models.spec import View

MOST_WORKERS = 128
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What an evaluation is asked for; the flags of `msad eval`, which says what each means.

    None stands for what the model file remembers, or for what follows from the machine.
    """

    data: str | None = None
    split: str = "val"
    view: str | None = None
    size: str | None = None
    sigmas: str | None = None
    evaluator: str = "hotcoco"
    nms_iou: float | None = None
    agnostic: bool = False
    max_detections: int | None = None
    predictions: Path | None = None
    train_json: Path | None = None
    val_json: Path | None = None
    train_images: Path | None = None
    val_images: Path | None = None
    crowd_as_objects: bool = False
    join_classes: bool = False
    max_pixels: str = MOST_PIXELS
    runtime: str | None = None
    bits: int | None = None
    exif: str | None = None
    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None

    def __post_init__(self) -> None:
        name_files(self, ("predictions", "train_json", "val_json", "train_images", "val_images"))
        if self.workers is not None and not 0 <= self.workers <= MOST_WORKERS:
            raise UsageError(
                f"--workers {self.workers}: not from 0 to {MOST_WORKERS}", "leave it out", code="number-out-of-range"
            )


@dataclass(frozen=True)
class Measured:
    """What a model has at one size of its input.

    Attributes:
        scores: of each view, the model's best first.
        results: what the first of them found, in COCO's result form.
    """

    scores: dict[str, Scores]
    results: list[Result]


class Evaluation:
    """A model and a split, ready to be measured.

    Raises:
        UsageError: a value that cannot be, or a view that the model does not have.
        ModelFileError, DataError, DeviceError: the model, the data or the device cannot be used.
        OutputError: the predictions cannot be written.
    """

    def __init__(self, model: Path, config: EvaluationConfig) -> None:
        if config.split not in NAMED:
            raise UsageError(f"--split {config.split}: unknown", f"give {' or '.join(NAMED)}", code="unknown-value")
        self.evaluator: Evaluator = parse_evaluator(config.evaluator)
        limit_pixels(parse_pixels(config.max_pixels))
        self.config = config
        # Not folded: the numbers are those at the end of the training, to the last digit.
        self.detector, card = open_model(model, config.runtime, fold=False)
        self.detector.limit(config.nms_iou, config.max_detections)
        self.overlap = overlap_of(config.nms_iou) if config.agnostic else None
        spec = self.spec = self.detector.spec
        self.given_sigmas = parse_sigmas(config.sigmas, spec.keypoints) or spec.measuring.sigmas
        self.sigmas = oks_sigmas(len(spec.keypoints), self.given_sigmas)
        self.views: Sequence[View] = choose_views(None if config.view == "all" else config.view, spec, model)
        self.compute: Compute = choose_compute(config.device, config.precision)
        given = {
            "train": (config.train_json, config.train_images),
            "val": (config.val_json, config.val_images),
        }
        paths = given.get(config.split, (None, None))
        data = config.data or (card.data if all(paths) else remembered_data(card.data, model))
        files = find_split(data, config.split, *paths, spec.task, config.exif or card.exif)
        decisions = Decisions(config.crowd_as_objects, config.join_classes, spec.categories)
        (files,) = decided({config.split: files}, decisions).values()
        known = (spec.categories, spec.task, spec.keypoints, files.root)
        records = read_records(files.annotations, files.images, *known)
        self.problems = [each for each in records.problems if each.code in OF_READING]
        split = to_split(records)
        self.notes = (*files.notes, *contradictions_in_words(records, config.split, self.detector.resolution))
        typed = parse_bits(config.bits)
        tones, said = (typed, "") if typed else read_by(split.paths, spec.tones, of_set=True)
        self.notes += (said,) if said else ()
        self.split: CocoSplit = replace(split, tones=tones)
        self.sizes = parse_sizes(config.size, spec.ks[0], self.detector.resolution)
        if config.predictions is not None:
            refuse_unwritable(config.predictions)
        self.detector.to(self.compute.device)

    @cached_property
    def truth(self) -> dict[str, Any]:
        """The split's ground truth."""
        return ground_truth(self.split)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the numbers that will be measured, in order."""
        return number_names(self.truth, self.spec.task)

    def remarks(self) -> Iterator[str]:
        """What there is to say of the data, and of what is measured otherwise than in COCO."""
        yield from self.notes
        yield from (each.in_line(self.config.split) for each in self.problems)
        if not len(self.split.boxes):
            yield (
                f"{self.split.file}: no object to compare with, AP is unknown; "
                "msad predict MODEL IMAGES --save coco writes what the model finds"
            )
        unchosen = () if self.given_sigmas else self.sigmas
        yield from remarks(self.truth, self.spec.task, self.spec.detections_per_image, unchosen)
        if self.config.predictions is not None and self.spec.task != "boxes":
            yield result_words(self.config.predictions, self.spec.task)

    def measure(self, say: Say) -> dict[int, Measured]:
        """The numbers at each size, by the short side of the image that the model sees.

        The detections of the largest size go into the file that was asked for, masks and keypoints into one beside it.

        Args:
            say: is told of images that cannot be read.
        """
        found = {side: self._measure(self.detector, resolution, say) for side, resolution in self.sizes.items()}
        if self.config.predictions is not None:
            write_results(self.config.predictions, found[max(found)].results, self.spec.task)
        return found

    def _measure(self, detector: Model, resolution: Resolution, say: Say) -> Measured:
        asked = self.config.workers
        workers = default_workers(self.compute.device)[0] if asked is None else asked
        detected = {
            view: view_results(detector, self.split, view, self.compute, workers, resolution, overlap=self.overlap)
            for view in self.views
        }
        for reason in detected[self.views[0]].unreadable.values():
            say(f"passed over, its objects count as missed: {reason}")
        task = self.spec.task
        scores: dict[str, Scores] = {
            view: score(self.truth, of.results, task, self.sigmas, evaluator=self.evaluator)
            for view, of in detected.items()
        }
        return Measured(scores, detected[self.views[0]].results)


def _silent(_: str) -> None:
    """To whom nothing matters that is only on the way."""


def contradictions_in_words(records: Records, split: str, resolution: Resolution) -> list[str]:
    """What is read otherwise than it stands, in words.

    Raises:
        DataError: the annotations contradict themselves or their images.
    """
    report = checked({split: records}, resolution, (), _silent).only(READ_OTHERWISE)
    refuse_unusable(report, str(records.file), f"msad data check {records.file} lists all")
    return list(report.lines())


def parse_evaluator(text: str) -> Evaluator:
    """The library of this name.

    Raises:
        UsageError: there is none.
    """
    for each in EVALUATORS:
        if text == each:
            return each
    raise UsageError(f"--evaluator {text}: unknown", f"give {' or '.join(EVALUATORS)}", code="unknown-value")
