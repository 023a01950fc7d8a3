"""Distilling a teacher into a student: from what is asked for to a model file."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from msad_cli.data.annotations.split import CocoSplit
from msad_cli.data.images.decode import limit_pixels
from msad_cli.data.loading.dataset import TrainingSet
from msad_cli.distillation.distillation import Distillation, Weighted, teaching
from msad_cli.errors import ModelFileError, UsageError
from msad_cli.frame import FRAME_DIVISOR, Resolution
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, load_model
from msad_cli.models.spec import DetectorSpec
from msad_cli.runs.folder import Setting
from msad_cli.system.distributed import from_first
from msad_cli.system.files import fingerprint
from msad_cli.text import parse_duration, parse_pixels
from msad_cli.training.config import Asked, DistillConfig
from msad_cli.training.defaults.budget import fit_time
from msad_cli.training.defaults.inherited import inherited, remembered
from msad_cli.training.defaults.pace import WORTH_TIMING, Pace, pace_of, words
from msad_cli.training.interruption import Clock
from msad_cli.training.judging.nothing_found import finds_nothing
from msad_cli.training.observer import Observer
from msad_cli.training.plan import COCO_IMAGES, Choices, choose, claim_output, invalid_values_named
from msad_cli.training.resume import all_settings, completed
from msad_cli.training.run import Outcome, Run
from msad_cli.training.sets import cache_decoded, choose_mirror, find_data, folder_of, lasting, read_data
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
    _refuse_impossible(config)
    source = _source(asked, folder.recorded() if config.resume else None, observer)
    if isinstance(source, Outcome):
        return source
    asked, from_teacher = inherited(asked, source.training, source.file)
    out, config = config.out, asked.config
    teacher, view = source.detector, source.view.value
    torch.manual_seed(config.seed)  # what distillation trains beside the student starts at random
    spec, losses, computed = _student(config, source)
    data = folder_of(asked, source.data, source.file) or ""
    found = find_data(config, data, spec.task, observer, spec, source.exif)
    train, val, computed["data"] = read_data(config, found, spec.resolution, spec.ks, observer)
    spec = replace(spec, tones=train.tones)
    choices_of = partial(choose, config, len(train), spec.detector, computed["init"].value, spec.width)
    store, training, more = _images(config, source, spec, losses, train, usual := choices_of())
    pace = partial(_pace, source, spec, losses, training, usual, store)
    within = _within(config, spec.resolution, usual, len(val), pace)
    choices = of_distillation(choices_of(within=within), config.distill_warmup, is_pixel(config.method))
    computed |= more | {"init": said_of_start(computed["init"], config, spec)}
    settings = all_settings(asked, {**computed, **choices.settings, **from_teacher, **brought})
    observer.plan(out, settings)
    _say_first(config, observer, source, choices, len(val), pace)
    if config.dry_run:
        return Outcome(out, planned=True)
    torch.manual_seed(config.seed)
    student, compute = Detector(spec), choices.compute
    keep_pyramids(store, teacher.to(compute.device), training, compute, choices.workers, observer, view)
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
        card=replace(_card(data, train.file, source), training=remembered(settings)),
        clock=clock,
        source=source.file,
        compiled=(student, teacher) if config.compile_ else (),
    )
    return fit(run, observer)


def _refuse_impossible(config: DistillConfig) -> None:
    """Does nothing to settings of which a run can be made; a set is drawn or read afterwards, for minutes.

    Raises:
        UsageError, DeviceError: as `choose`, or a time is planned for two trainings.
    """
    choose(config, COCO_IMAGES, "")
    if config.budget_time is None:
        return
    parse_duration("--budget-time", config.budget_time)
    if is_pixel(config.method):
        raise UsageError(
            "--budget-time with --method pixel: its two stages are two trainings",
            "give --epochs, or --time, after which a run stops",
            code="setting-unfit-for-method",
        )


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
    mirror = choose_mirror(config.fliplr, train)
    teacher, view, fliplr = source.detector.spec, source.view.value, mirror.value
    refusal = cannot_keep(config.no_distill, is_pixel(config.method), source.aligned)
    store, cached = choose_store(
        config.cache_teacher, refusal, source.file, teacher, train, choices.compute.precision, view, fliplr
    )
    ks, own = rendered(spec, teacher, losses, store is not None), {"phase": spec.phase, "fliplr": fliplr}
    training = TrainingSet(train, spec.resolution, ks, jitter=store is None, seed=config.seed, **own)
    decoded = cache_decoded(training, config.cache, choices.workers)
    return store, training, {"fliplr": mirror, "cache_teacher": cached, "cache": decoded}


def _within(
    config: DistillConfig, size: Resolution, usual: Choices, validation: int, pace: Callable[..., Pace | None]
) -> tuple[int, str] | None:
    """The epochs that fit into `--budget-time`, and why; a run that goes on has chosen already."""
    if config.budget_time is None or config.resume:
        return None
    return from_first(lambda: fit_time(config, size, usual, validation, pace, size_free=False)).epochs


def _pace(
    source: _Source,
    spec: DetectorSpec,
    losses: Mapping[str, Weighted],
    training: TrainingSet,
    choices: Choices,
    store: Store | None,
    _: Resolution | None = None,
) -> Pace | None:
    """The pace of a student's training; with a teacher cache, which is filled later, that of a student alone."""
    student = Detector(spec)
    teach = teaching(source.detector, student, source.view.value) if losses and store is None else None
    # Copies: what distillers count and remember in these steps is no part of the run.
    module = Distillation(student, teach, {} if teach is None else copy.deepcopy(dict(losses)))
    return pace_of(module, student, training, choices)


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
            training=card.training,
            scores=card.scores,
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
        training=card.training,
        scores=card.scores,
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


def _say_first(
    config: DistillConfig,
    observer: Observer,
    source: _Source,
    choices: Choices,
    validation: int,
    pace: Callable[..., Pace | None],
) -> None:
    """Lines on a teacher that finds nothing, on the view by which it teaches, where that is not the model's own, and on
    how long the training will take here."""
    if source.scores is not None and finds_nothing(source.scores.values()):
        observer.say("the teacher finds nothing: there is nothing to learn from it; msad teacher trains another")
    if not config.no_distill and source.view.value != source.detector.spec.views[0]:
        observer.say(f"the teacher teaches by its {source.view.value} view, {source.view.reason}")
    if observer.silent or config.resume or is_pixel(config.method) or choices.schedule.steps < WORTH_TIMING:
        return
    timed = pace()
    observer.say(words({"student": timed.of(choices, validation)} if timed else {}))


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
