"""Distilling a teacher into a student: from what is asked for to a model file."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from msad_cli.data.annotations.split import CocoSplit
from msad_cli.data.images.decode import limit_pixels
from msad_cli.data.loading.dataset import TrainingSet
from msad_cli.distillation.distillation import Weighted
from msad_cli.errors import ModelFileError, UsageError
from msad_cli.frame import FRAME_DIVISOR
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, load_model
from msad_cli.models.spec import DetectorSpec
from msad_cli.runs.folder import Setting
from msad_cli.system.files import fingerprint
from msad_cli.text import parse_pixels
from msad_cli.training.config import Asked, DistillConfig
from msad_cli.training.interruption import Clock
from msad_cli.training.observer import Observer
from msad_cli.training.plan import COCO_IMAGES, Choices, choose, claim_output, invalid_values_named
from msad_cli.training.resume import all_settings, completed
from msad_cli.training.run import Outcome, Run
from msad_cli.training.sets import cache_decoded, choose_augmentation, folder_of, lasting, read_data
from msad_cli.training.starting import adopted, said_of_start
from msad_cli.training.students.assistant import first_stage, student_k
from msad_cli.training.students.plan_student import (
    TEACHER_VIEW,
    choose_losses,
    choose_methods,
    choose_teaching_view,
    is_pixel,
    of_distillation,
    rendered,
    start_student,
    student_spec,
    training_module,
    weights_so_far,
)
from msad_cli.training.students.pyramid_store import Store
from msad_cli.training.students.teacher_cache import cannot_keep, choose_store, keep_pyramids
from msad_cli.training.trainer import fit


@dataclass(frozen=True, kw_only=True)
class _Source:
    """What a student learns from.

    Attributes:
        file: of the teacher, or of the assistant in its place.
        detector: the model of that file.
        named: the spec of the teacher that was named.
        data, exif: the set that the teacher learnt from, and whether its labels fit images that EXIF turns.
        view: by which it teaches.
        k, init, aligned: of the student: what was asked for, or what learning from an assistant makes of it.
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


def train_student(asked: Asked[DistillConfig], observer: Observer) -> Outcome:
    """Trains until the end, a signal or the time limit; of several processes the first one writes.

    Raises:
        MsadError: whatever is wrong with what is asked for, the teacher, the data, the device, or the training.
    """
    asked, brought = adopted(completed(asked))
    config = asked.config
    assert config.out is not None
    clock = Clock.of(config.time, config.checkpoint)
    limit_pixels(parse_pixels(config.max_pixels))
    folder = claim_output(config, observer)
    choose(config, COCO_IMAGES)  # what cannot be is refused before a set is drawn or read
    source = _source(asked, folder.recorded() if config.resume else None, observer)
    if isinstance(source, Outcome):
        return source
    teacher, view, pixel = source.detector, source.view.value, is_pixel(config.method)
    torch.manual_seed(config.seed)  # what distillation trains beside the student starts at random
    spec, losses, computed = _student(config, source)
    data, sides = folder_of(asked, source.data, source.file) or "", (spec.resolution, spec.ks, spec.task)
    train, val, computed["data"] = read_data(config, data, *sides, observer, spec, source.exif)
    spec = replace(spec, tones=train.tones)
    choices = of_distillation(choose(config, len(train)), config.distill_warmup, pixel)
    store, training, more = _images(config, source, spec, losses, train, choices)
    computed |= more
    computed["init"] = said_of_start(computed["init"], config, spec)
    settings = all_settings(asked, {**computed, **choices.settings, **brought})
    observer.plan(config.out, settings)
    _say_unusual_view(observer, settings, teacher.spec)
    if config.dry_run:
        return Outcome(config.out, planned=True)
    torch.manual_seed(config.seed)
    student = Detector(spec)
    device = choices.compute.device
    keep_pyramids(store, teacher.to(device), training, choices.compute, choices.workers, observer, view)
    run = Run(
        command="distill",
        config=config,
        module=training_module(student, teacher, store, losses, choices, config.afp, view),
        detector=student,
        initialise=partial(start_student, student, teacher, computed["init"].value, config.init_partial),
        training=training,
        validation=val,
        choices=choices,
        settings=settings,
        folder=folder,
        card=_card(data, train.file, source),
        clock=clock,
        source=source.file,
        compiled=(student, teacher) if config.compile_ else (),
    )
    return fit(run, observer)


def _images(
    config: DistillConfig,
    source: _Source,
    spec: DetectorSpec,
    losses: Mapping[str, Weighted],
    train: CocoSplit,
    choices: Choices,
) -> tuple[Store | None, TrainingSet, dict[str, Setting]]:
    """What a student is shown in training: where its teacher's pyramids of it are cached, if they are, and its images;
    and for the record the choices behind both.

    Raises:
        UsageError: the cache is of no use here, or there is no room for it.
    """
    cached = config.cache_teacher is not None
    augmentation, settings = choose_augmentation(config, train, choices.epochs, cached=cached)
    teacher, view, fliplr = source.detector.spec, source.view.value, augmentation.fliplr
    refusal = cannot_keep(config.no_distill, is_pixel(config.method), source.aligned)
    store, settings["cache_teacher"] = choose_store(
        config.cache_teacher, refusal, source.file, teacher, train, choices.compute.precision, view, fliplr
    )
    ks = rendered(spec, teacher, losses, store is not None)
    training = TrainingSet(train, spec.resolution, ks, config.seed, augmentation, spec.phase)
    settings["cache"] = cache_decoded(training, config.cache, choices.workers)
    return store, training, settings


def _source(
    asked: Asked[DistillConfig], recorded: Mapping[str, Setting] | None, observer: Observer
) -> _Source | Outcome:
    """What the student learns from; where that is an assistant that could not be trained, how its training ended.

    Args:
        recorded: the settings of a run that goes on.

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
    # A student shares the grids of its teacher, whose images are padded for that.
    named = teacher.spec = replace(teacher.spec, divisor=FRAME_DIVISOR)
    if card.unfinished:
        observer.say(
            f"{file} is of a run that was not at its end: epoch {card.epochs} teaches; should that run go on and write "
            "the file anew, this one cannot be resumed"
        )
    if not is_pixel(config.method):
        return _Source(
            file=file,
            detector=teacher,
            named=named,
            data=card.data,
            exif=config.exif or card.exif,
            view=choose_teaching_view(named, card, recorded),
            k=config.k,
            init=config.init,
            aligned=config.aligned,
        )
    k = student_k(config, named)
    assistant, stage = first_stage(asked, file, train_student, observer)
    if stage.unfinished or stage.planned:
        return stage
    own, of_own = load_model(assistant)
    return _Source(
        file=assistant,
        detector=own,
        named=named,
        data=card.data,
        exif=config.exif or card.exif,
        view=choose_teaching_view(own.spec, of_own, recorded),
        k=k,
        init="teacher",
        aligned=False,
    )


def _student(config: DistillConfig, source: _Source) -> tuple[DetectorSpec, dict[str, Weighted], dict[str, Setting]]:
    """What the student is and by what it learns, and for the record the choices behind both."""
    teacher = source.detector.spec
    with invalid_values_named("msad distill --help lists the values"):
        spec, computed = student_spec(
            teacher, source.k, _architecture(config), source.init, config.norm, source.aligned, config.init_partial
        )
        weights, computed["method"] = choose_methods(spec, config, weights_so_far(config))
        losses = choose_losses(spec, teacher, config, weights)
    if losses:
        computed[TEACHER_VIEW] = source.view
    return spec, losses, computed


def _say_unusual_view(observer: Observer, settings: Mapping[str, Setting], teacher: DetectorSpec) -> None:
    """A line on the view by which a teacher teaches, where it is not the model's own."""
    view = settings.get(TEACHER_VIEW)
    if view is not None and view.value != teacher.views[0]:
        observer.say(f"the teacher teaches by its {view.value} view, {view.reason}")


def _architecture(config: DistillConfig) -> dict[str, object]:
    """Fields of a student's spec by name; None stands for the teacher's own."""
    return {
        "backbone": config.backbone,
        "width": config.width,
        "low_backbone": config.low_backbone,
        "low_width": config.low_width,
        "channels": config.head_channels,
        "head_convs": config.head_convs,
        "head_depthwise": config.head_depthwise or None,
    }


def _card(data: str, annotations: Path, source: _Source) -> Card:
    """What is known of a student before it is trained."""
    return Card(
        lasting(data),
        fingerprint(annotations),
        exif=source.exif,
        teacher=fingerprint(source.file),
        teacher_spec=source.named,
    )
