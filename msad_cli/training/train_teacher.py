"""Training a teacher, or one of the paper's baselines: from what is asked for to a model file."""

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from msad_cli.data.annotations.split import CocoSplit
from msad_cli.data.images.decode import limit_pixels
from msad_cli.data.loading.dataset import TrainingSet
from msad_cli.distillation.aligned_teacher import AlignedTraining
from msad_cli.distillation.baselines import UnshiftedTraining
from msad_cli.distillation.distillation import Distillation
from msad_cli.distillation.two_step import TwoStepTraining
from msad_cli.errors import UsageError
from msad_cli.frame import FRAME_DIVISOR, Resolution
from msad_cli.models.detector import Detector
from msad_cli.models.detectors.kinds import DETECTORS, task_of
from msad_cli.models.model_file import Card
from msad_cli.models.spec import ClassName, DetectorSpec, Learning, usual_divisor
from msad_cli.models.weights.initialise import initialise
from msad_cli.runs.folder import RunFolder, Setting
from msad_cli.system.device import choose_device
from msad_cli.system.files import fingerprint
from msad_cli.text import parse_ks, parse_pixels, parse_size
from msad_cli.training.augmentation import choose_augmentation
from msad_cli.training.config import ALONE, AUTO, ROLES, Asked, TeacherConfig
from msad_cli.training.defaults.budget import fit_time
from msad_cli.training.defaults.inherited import remembered
from msad_cli.training.defaults.machine import LARGE, Network, choose_network, choose_size
from msad_cli.training.defaults.pace import Pace, pace_of, say_time, student_pace
from msad_cli.training.interruption import Clock
from msad_cli.training.observer import Observer
from msad_cli.training.plan import (
    COCO_IMAGES,
    Choices,
    choose,
    choose_head_norm,
    choose_norm,
    claim_output,
    in_two_steps,
    invalid_values_named,
)
from msad_cli.training.resume import all_settings, completed
from msad_cli.training.run import Outcome, Run
from msad_cli.training.sets import (
    cache_decoded,
    fields_from_data,
    find_data,
    folder_of,
    lasting,
    read_data,
)
from msad_cli.training.starting import adopted, said_of_start
from msad_cli.training.trainer import fit


def train_teacher(asked: Asked[TeacherConfig], observer: Observer) -> Outcome:
    """Trains until the end, a signal or the time limit; of several processes the first one writes.

    Raises:
        MsadError: whatever is wrong with what is asked for, the data, the device, or the training.
    """
    asked, brought = adopted(completed(asked))
    config = asked.config
    assert config.out is not None
    ks = _views(config)
    clock = Clock.of(config.time, config.checkpoint)
    limit_pixels(parse_pixels(config.max_pixels))
    folder = claim_output(config, observer)
    device = choose_device(config.device)[0]
    network, computed = choose_network(config, device)
    _refuse_idle(asked, network)
    _refuse_impossible(config, network, ks)
    data = folder_of(asked)
    found = find_data(config, data, task_of(network.detector), observer, exif=config.exif or AUTO)
    resolution, size = choose_size(config.size, found.learnt, device)
    train, val, computed["data"] = read_data(config, found, resolution, ks, observer)
    fields, computed["detections"] = fields_from_data(train, config.sigmas)
    spec, normalised = _spec(config, network, ks, resolution, fields)
    computed["padding"] = Setting(spec.divisor, "auto", "HR pixels, of which padded sides are multiples")
    spec, choices, training, chosen = _choose(config, network, spec, train, len(val))
    computed |= normalised | ({} if size is None else {"size": size}) | chosen | brought
    start = computed.get("init", Setting(network.init, asked.source("init")))
    computed["init"] = said_of_start(start, config, spec)
    computed["cache"] = cache_decoded(training, config.cache, choices.workers)
    settings = all_settings(asked, computed)
    observer.plan(config.out, settings)
    say_time(config, observer, choices, len(val), partial(_paces, config, spec, training, choices))
    if config.dry_run:
        return Outcome(config.out, planned=True)
    torch.manual_seed(config.seed)
    model = Detector(spec)
    choices = in_two_steps(choices) if config.strategy == "two-step" else choices
    return fit(
        Run(
            command="teacher",
            config=config,
            module=_module(model, config.lambda_, choices.schedule.restart),
            detector=model,
            initialise=lambda: initialise(model, network.init, config.init_partial),
            training=training,
            validation=val,
            choices=choices,
            settings=settings,
            folder=folder,
            card=Card(lasting(data), fingerprint(train.file), exif=config.exif or AUTO, training=remembered(settings)),
            clock=clock,
            compiled=(model,) if config.compile_ else (),
        ),
        observer,
    )


def _images(
    config: TeacherConfig, train: CocoSplit, spec: DetectorSpec, epochs: int
) -> tuple[TrainingSet, dict[str, Setting]]:
    """What is looked at in training, and for the record how images are changed."""
    jitter = config.scales != "single"
    augmentation, settings = choose_augmentation(config, train, spec.detector, epochs, jitter)
    return TrainingSet(train, spec.resolution, spec.ks, config.seed, augmentation, spec.phase), settings


def _choose(
    config: TeacherConfig, network: Network, spec: DetectorSpec, train: CocoSplit, validation: int
) -> tuple[DetectorSpec, Choices, TrainingSet, dict[str, Setting]]:
    """The choices of a run and its spec, of the size that fits into `--budget-time`, and images of that size.

    A run that goes on has chosen already.
    """

    choices_of = partial(choose, config, len(train), network.detector, network.init, network.width)

    def pace_at(resolution: Resolution) -> Pace | None:
        model, images = Detector(replace(spec, resolution=resolution)), copy.copy(training)
        images.resolution = resolution
        return pace_of(_module(model, config.lambda_, 0), model, images, usual)

    usual = choices_of()
    training, changed = _images(config, train, spec, usual.epochs)
    fitted = fit_time(config, spec.resolution, usual, validation, pace_at, size_free=config.size is None)
    if fitted is None:
        return spec, usual, training, usual.settings | changed
    spec, choices = replace(spec, resolution=fitted.resolution), choices_of(within=fitted.epochs)
    training, changed = _images(config, train, spec, choices.epochs)
    size = {} if fitted.size is None else {"size": fitted.size}
    return spec, choices, training, choices.settings | changed | size


def _paces(
    config: TeacherConfig, spec: DetectorSpec, training: TrainingSet, choices: Choices
) -> dict[str, Pace | None]:
    """That of this training and, of a teacher, that of its student's."""
    model = Detector(spec)
    own = pace_of(_module(model, config.lambda_, 0), model, training, choices)
    return {
        spec.role: own,
        "its student": student_pace(model, training, choices) if spec.role == "teacher" and own else None,
    }


def _spec(
    config: TeacherConfig, network: Network, ks: tuple[int, ...], resolution: Resolution, fields: dict[str, Any]
) -> tuple[DetectorSpec, dict[str, Setting]]:
    """What the model is, and its normalisation and that of its head for the record.

    Args:
        fields: of the spec, as they follow from the data.
    """
    norm = choose_norm(config.norm, network.init, network.detector, config.init_partial)
    scales = "aligned" if config.scales == ALONE else config.scales
    with invalid_values_named("msad teacher --help lists the values"):
        spec = DetectorSpec(
            role=ROLES.get(config.scales, "baseline"),
            detector=network.detector,
            backbone=network.backbone,
            width=network.width,
            channels=network.head_channels,
            head_convs=network.head_convs,
            norm=norm.value,
            scales=scales,  # type: ignore[arg-type]  # the spec checks it
            ks=ks,
            resolution=resolution,
            divisor=_padding(config, scales, ks),
            phase=config.phase,  # type: ignore[arg-type]
            fusion=config.fusion,  # type: ignore[arg-type]
            head_depthwise=config.head_depthwise,
            learning=Learning(network.rois),
            **fields,
        )
        head = choose_head_norm(config.head_norm, config.norm, network.init, spec, _recorded(config))
        spec = replace(spec, **{name: each.value for name, each in head.items()})
    return spec, {"norm": norm, **head}


def _recorded(config: TeacherConfig) -> dict[str, Setting] | None:
    """The settings of a run that goes on."""
    assert config.out is not None
    return RunFolder(config.out).recorded() if config.resume else None


def _padding(config: TeacherConfig, scales: str, ks: tuple[int, ...]) -> int:
    """To multiples of how many HR pixels images are padded: a run that goes on keeps what it had."""
    usual, before = usual_divisor(scales, ks), _recorded(config)
    if before is None:
        return usual
    recorded = before.get("padding")
    # Aligned runs that were begun before it was recorded had 128.
    return int(recorded.value) if recorded else FRAME_DIVISOR if scales == "aligned" else usual


def _refuse_impossible(config: TeacherConfig, network: Network, ks: tuple[int, ...]) -> None:
    """Does nothing to settings of which a model and a run can be made; a set is drawn or read afterwards, for minutes.

    Raises:
        UsageError, DeviceError: as `_spec` and `choose`.
    """
    resolution = LARGE.size if config.size is None else parse_size(config.size)
    keypoints = ("any",) if task_of(network.detector) == "keypoints" else ()
    _spec(config, network, ks, resolution, {"classes": (ClassName(1, "any"),), "keypoints": keypoints})
    choose(config, COCO_IMAGES, network.detector)


def _refuse_idle(asked: Asked[TeacherConfig], network: Network) -> None:
    """Does nothing to settings that do something.

    Raises:
        UsageError: one was typed that means nothing to this detector or to these scales.
    """
    scales, known = asked.config.scales, DETECTORS.get(network.detector)
    if known is not None and known.family != "two-stage" and "rois" in asked.typed:
        raise UsageError(f"--rois: {network.detector} has no RoIs", "leave it out", code="setting-without-effect")
    if scales != "aligned" and {"fusion", "lambda_"} & asked.typed:
        raise UsageError(
            f"--fusion, --lambda: --scales {scales} fuses nothing", "leave them out", code="setting-without-effect"
        )


def _views(config: TeacherConfig) -> tuple[int, ...]:
    """By what the views that are trained on are downsampled."""
    k, scales, strategy = config.k, config.scales, config.strategy
    if strategy not in ("joint", "two-step") or (strategy != "joint" and scales != "aligned"):
        raise UsageError(
            f"--strategy {strategy} with --scales {scales}",
            "aligned scales know joint and two-step",
            code="strategy-unfit-for-scales",
        )
    if scales not in ("single", ALONE):
        return (1, *parse_ks("--k", k or "2", "24"))
    ks = parse_ks("--k", k or ("1" if scales == "single" else "2"))
    if len(ks) > 1:
        raise UsageError(
            f"--k {k} with --scales {scales}", "it has one view, and so one k: 1, 2 or 4", code="k-unfit-for-scales"
        )
    return ks


def _module(detector: Detector, fusion_weight: float, align_steps: int) -> nn.Module:
    """What trains a detector: without a teacher, by views that are not aligned, in two steps if the first has a length,
    or jointly."""
    if detector.spec.role == "student":
        return Distillation(detector, None, {})
    if detector.spec.scales != "aligned":
        return UnshiftedTraining(detector)
    return TwoStepTraining(detector, align_steps) if align_steps else AlignedTraining(detector, fusion_weight)
