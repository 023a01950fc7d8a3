"""What a student learns from: a teacher, or the assistant between."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msad_cli.errors import ModelFileError, UsageError
from msad_cli.frame import FRAME_DIVISOR
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import load_model
from msad_cli.models.spec import DetectorSpec
from msad_cli.runs.folder import Setting
from msad_cli.training.config import Asked, DistillConfig
from msad_cli.training.observer import Observer
from msad_cli.training.run import Outcome
from msad_cli.training.students.assistant import Train, first_stage, student_k
from msad_cli.training.students.plan_student import choose_teaching_view, is_pixel


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a student learns from.

    Attributes:
        file: of the teacher, or of the assistant in its place.
        detector: the model of that file.
        named: the spec of the teacher that was named.
        data, exif: the set that the teacher learnt from, and whether its labels fit images that EXIF turns.
        view: by which it teaches.
        k, init, aligned: of the student: what was asked for, or what learning from an assistant makes of it.
        training: by what settings the teacher that was named was trained, as far as its file remembers them.
        scores: of its views, if they are known.
    """

    file: Path
    detector: Detector
    named: DetectorSpec
    data: str
    exif: str
    view: Setting
    k: str | None
    init: str
    aligned: bool
    training: Mapping[str, Any]
    scores: Mapping[str, Mapping[str, float | None]] | None


def find_source(
    asked: Asked[DistillConfig], recorded: Mapping[str, Setting] | None, observer: Observer, train: Train
) -> Source | Outcome:
    """What the student learns from; where that is an assistant that could not be trained, how its training ended.

    Args:
        recorded: the settings of a run that goes on.
        train: trains a student: the assistant.

    Raises:
        UsageError: no teacher is named.
        ModelFileError: its file is not there, or is none of a model.
    """
    config, file = asked.config, asked.config.teacher
    if file is None:
        raise UsageError("no teacher given", "add --teacher FILE; msad teacher trains one", code="no-teacher-given")
    if "teacher" in asked.recalled and not file.exists():
        raise ModelFileError(
            f"{config.out}: its teacher is not at {file} any more",
            "add --teacher FILE, where it lies now",
            code="recorded-teacher-missing",
        )
    teacher, card = load_model(file)
    # A student shares the grids of its teacher. Those of a detector like torchvision's are its levels' at 128 alone.
    divisor = teacher.spec.divisor if teacher.spec.scales == "aligned" else FRAME_DIVISOR
    named = teacher.spec = replace(teacher.spec, divisor=divisor)
    if card.unfinished:
        observer.say(
            f"{file} is of a run that was not at its end: epoch {card.epochs} teaches; should that run go on and write "
            "the file anew, this one cannot be resumed"
        )
    source = Source(
        file=file,
        detector=teacher,
        named=named,
        data=card.data,
        exif=config.exif or card.exif,
        view=choose_teaching_view(named, card, recorded),
        k=config.k,
        init=config.init,
        aligned=config.aligned,
        training=card.training,
        scores=card.scores,
    )
    if not is_pixel(config.method):
        return source
    k = student_k(config, named)
    assistant, stage = first_stage(asked, file, train, observer)
    if stage.unfinished or stage.planned:
        return stage
    own, of_own = load_model(assistant)
    view = choose_teaching_view(own.spec, of_own, recorded)
    return replace(source, file=assistant, detector=own, view=view, k=k, init="teacher", aligned=False)
