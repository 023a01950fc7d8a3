"""Distilling a teacher into a student: from what is asked for to a model file."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from msad_cli.data.annotations.split import CocoSplit
from msad_cli.data.images.decode import limit_pixels
from msad_cli.data.images.without_labels import Unlabelled
from msad_cli.data.loading.dataset import TrainingSet
from msad_cli.distillation.distillation import Distillation, Weighted, teaching
from msad_cli.distillation.losses.table import ASK_THE_TEACHER
from msad_cli.errors import UsageError
from msad_cli.frame import Resolution
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card
from msad_cli.models.spec import DetectorSpec
from msad_cli.runs.folder import Setting
from msad_cli.system.files import fingerprint
from msad_cli.text import parse_pixels
from msad_cli.training.augmentation import choose_augmentation
from msad_cli.training.config import Asked, DistillConfig
from msad_cli.training.defaults.budget import fit_time
from msad_cli.training.defaults.inherited import inherited, remembered
from msad_cli.training.defaults.pace import Pace, pace_of, say_time
from msad_cli.training.interruption import Clock
from msad_cli.training.judging.nothing_found import finds_nothing
from msad_cli.training.observer import Observer
from msad_cli.training.plan import COCO_IMAGES, Choices, choose, choose_head_norm, claim_output, invalid_values_named
from msad_cli.training.resume import all_settings, completed
from msad_cli.training.run import Outcome, Run
from msad_cli.training.sets import cache_decoded, find_data, folder_of, lasting, read_data
from msad_cli.training.starting import adopted, said_of_start
from msad_cli.training.students.plan_student import (
    TEACHER_VIEW,
    choose_losses,
    choose_methods,
    is_pixel,
    of_distillation,
    rendered,
    start_student,
    student_spec,
    training_module,
    weights_so_far,
)
from msad_cli.training.students.pyramid_store import Store
from msad_cli.training.students.source import Source, find_source
from msad_cli.training.students.teacher_cache import cannot_keep, choose_store, keep_pyramids
from msad_cli.training.students.unlabelled import read_unlabelled, refuse_unlabelled, said_of_unlabelled
from msad_cli.training.trainer import fit


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
    _refuse_impossible(asked)
    source = find_source(asked, recorded := (folder.recorded() if config.resume else None), observer, train_student)
    if isinstance(source, Outcome):
        return source
    asked, from_teacher = inherited(asked, source.training, source.file)
    out, config = config.out, asked.config
    teacher, view = source.detector, source.view.value
    torch.manual_seed(config.seed)  # what distillation trains beside the student starts at random
    spec, losses, computed = _student(config, source, recorded)
    data = folder_of(asked, source.data, source.file) or ""
    train, val, unlabelled, computed["data"] = _splits(config, data, source, spec, losses, observer)
    spec = replace(spec, tones=train.tones)
    choices, store, training, more = _choose(config, source, spec, losses, train, len(val), computed["init"].value)
    pace = partial(_pace, source, spec, losses, training, choices, store)
    choices = of_distillation(choices, config.distill_warmup, is_pixel(config.method))
    computed["init"] = said_of_start(computed["init"], config, spec)
    computed |= more | said_of_unlabelled(config, unlabelled, choices)
    settings = all_settings(asked, {**computed, **choices.settings, **_meant(from_teacher, more), **brought})
    _say_first(config, observer, source, settings, choices, len(val), pace)
    if config.dry_run:
        return Outcome(out, planned=True)
    torch.manual_seed(config.seed)
    student, compute = Detector(spec), choices.compute
    keep_pyramids(store, teacher.to(compute.device), training, compute, choices.workers, observer, view)
    run = Run(
        command="distill",
        config=config,
        module=training_module(student, teacher, store, losses, choices, config, view),
        detector=student,
        initialise=partial(start_student, student, teacher, computed["init"].value, config.init_partial),
        training=training,
        validation=val,
        choices=choices,
        settings=settings,
        folder=folder,
        card=replace(_card(data, train.file, source, unlabelled), training=remembered(settings)),
        clock=clock,
        source=source.file,
        compiled=(student, teacher) if config.compile_ else (),
    )
    return fit(run, observer)


def _refuse_impossible(asked: Asked[DistillConfig]) -> None:
    """Does nothing to settings of which a run can be made; a set is drawn or read afterwards, for minutes.

    Raises:
        UsageError, DeviceError: as `choose` and `refuse_unlabelled`, or a time is planned for two trainings.
    """
    config = asked.config
    refuse_unlabelled(asked)
    if config.detection_weight != 1 and (config.no_distill or is_pixel(config.method)):
        raise UsageError(
            "--detection-weight: of a student that learns from its teacher, in one stage",
            "leave it out, or leave out --no-distill or --method pixel",
            code="setting-without-effect",
        )
    if config.detector is not None and is_pixel(config.method):
        raise UsageError(
            "--detector with --method pixel: its student is its assistant's twin",
            "leave out one of the two",
            code="setting-unfit-for-method",
        )
    choose(config, COCO_IMAGES, "")
    if config.budget_time is not None and is_pixel(config.method):
        raise UsageError(
            "--budget-time with --method pixel: its two stages are two trainings",
            "give --epochs, or --time, after which a run stops",
            code="setting-unfit-for-method",
        )


def _splits(
    config: DistillConfig,
    data: str,
    source: Source,
    spec: DetectorSpec,
    losses: Mapping[str, Weighted],
    observer: Observer,
) -> tuple[CocoSplit, CocoSplit, Unlabelled | None, Setting]:
    """Training split with its unlabelled images, validation split, what is unlabelled, and the data for the record.

    Annotations are read for the student's task, or for its teacher's, where that learns something from them too.
    """
    needs = source.detector.spec if ASK_THE_TEACHER & losses.keys() else spec
    found = find_data(config, data, needs.task, observer, needs, source.exif)
    train, val, said = read_data(config, found, spec.resolution, spec.ks, observer)
    train, unlabelled = read_unlabelled(config, data, train, val, observer)
    return train, val, unlabelled, said


def _choose(
    config: DistillConfig,
    source: Source,
    spec: DetectorSpec,
    losses: Mapping[str, Weighted],
    train: CocoSplit,
    validation: int,
    init: str,
) -> tuple[Choices, Store | None, TrainingSet, dict[str, Setting]]:
    """The choices of a run, of as many epochs as fit into `--budget-time`, and what `_images` has for them."""
    choices_of = partial(choose, config, train.labelled, spec.detector, init, spec.width)
    images_of = partial(_images, config, source, spec, losses, train)
    usual = choices_of()
    store, training, settings = images_of(usual)
    pace = partial(_pace, source, spec, losses, training, usual, store)
    fitted = fit_time(config, spec.resolution, usual, validation, pace, size_free=False)
    if fitted is None:
        return usual, store, training, settings
    choices = choices_of(within=fitted.epochs)
    return choices, *images_of(choices)


def _images(
    config: DistillConfig,
    source: Source,
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
    augmentation, settings = choose_augmentation(config, train, spec.detector, choices.epochs, cached=cached)
    teacher, view, fliplr = source.detector.spec, source.view.value, augmentation.fliplr
    refusal = cannot_keep(config.no_distill, is_pixel(config.method), source.aligned)
    store, settings["cache_teacher"] = choose_store(
        config.cache_teacher, refusal, source.file, teacher, train, choices.compute.precision, view, fliplr
    )
    ks = rendered(spec, teacher, losses, store is not None)
    training = TrainingSet(train, spec.resolution, ks, config.seed, augmentation, spec.phase)
    settings["cache"] = cache_decoded(training, config.cache, choices.workers)
    return store, training, settings


def _meant(from_teacher: Mapping[str, Setting], computed: Mapping[str, Setting]) -> dict[str, Setting]:
    """Settings of the teacher, with what its level of augmentation does here."""
    return {
        name: replace(each, reason=f"{each.reason}: {computed[name].reason}") if name == "augment" else each
        for name, each in from_teacher.items()
    }


def _pace(
    source: Source,
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


def _student(
    config: DistillConfig, source: Source, recorded: Mapping[str, Setting] | None
) -> tuple[DetectorSpec, dict[str, Weighted], dict[str, Setting]]:
    """What the student is and by what it learns, and for the record the choices behind both.

    Args:
        recorded: the settings of a run that goes on.
    """
    teacher = source.detector.spec
    with invalid_values_named("msad distill --help lists the values"):
        spec, computed = student_spec(
            teacher, source.k, _architecture(config), source.init, config.norm, source.aligned, config.init_partial
        )
        head = choose_head_norm(config.head_norm, config.norm, computed["init"].value, spec, recorded)
        spec = replace(spec, **{name: each.value for name, each in head.items()})
        computed |= head
        weights, computed["method"] = choose_methods(
            spec, config, weights_so_far(config), spec.detector == teacher.detector
        )
        losses = choose_losses(spec, teacher, config, weights)
    if losses:
        computed[TEACHER_VIEW] = source.view
    return spec, losses, computed


def _say_first(
    config: DistillConfig,
    observer: Observer,
    source: Source,
    settings: Mapping[str, Setting],
    choices: Choices,
    validation: int,
    pace: Callable[..., Pace | None],
) -> None:
    """The plan, and lines on a teacher that finds nothing, on the view by which it teaches, where that is not the
    model's own, and on how long the training will take here."""
    assert config.out is not None
    observer.plan(config.out, settings)
    if source.scores is not None and finds_nothing(source.scores.values()):
        observer.say("the teacher finds nothing: there is nothing to learn from it; msad teacher trains another")
    if not config.no_distill and source.view.value != source.detector.spec.views[0]:
        observer.say(f"the teacher teaches by its {source.view.value} view, {source.view.reason}")
    if not is_pixel(config.method):
        say_time(config, observer, choices, validation, lambda: {"student": pace()})


def _architecture(config: DistillConfig) -> dict[str, object]:
    """Fields of a student's spec by name; None stands for the teacher's own."""
    return {
        "detector": config.detector,
        "backbone": config.backbone,
        "width": config.width,
        "low_backbone": config.low_backbone,
        "low_width": config.low_width,
        "channels": config.head_channels,
        "head_convs": config.head_convs,
        "head_depthwise": config.head_depthwise or None,
    }


def _card(data: str, annotations: Path, source: Source, unlabelled: Unlabelled | None) -> Card:
    """What is known of a student before it is trained."""
    return Card(
        lasting(data),
        fingerprint(annotations),
        exif=source.exif,
        teacher=fingerprint(source.file),
        teacher_spec=source.named,
        unlabelled=unlabelled.fingerprint if unlabelled else "",
        unlabelled_images=len(unlabelled.paths) if unlabelled else 0,
    )
