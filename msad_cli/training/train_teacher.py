"""Training a teacher, or one of the paper's baselines: from what is asked for to a model file."""

from typing import Any

import torch
from torch import nn

from msad_cli.data.images.decode import limit_pixels
from msad_cli.data.loading.dataset import TrainingSet
from msad_cli.distillation.aligned_teacher import AlignedTraining
from msad_cli.distillation.baselines import UnshiftedTraining
from msad_cli.distillation.two_step import TwoStepTraining
from msad_cli.errors import UsageError
from msad_cli.frame import FRAME_DIVISOR, STOCK_DIVISOR, Resolution
from msad_cli.models.detector import Detector
from msad_cli.models.detectors.kinds import DETECTORS, task_of
from msad_cli.models.model_file import Card
from msad_cli.models.spec import ClassName, DetectorSpec, Learning
from msad_cli.models.weights.initialise import initialise
from msad_cli.runs.folder import Setting
from msad_cli.system.files import fingerprint
from msad_cli.text import parse_ks, parse_pixels, parse_size
from msad_cli.training.config import AUTO, Asked, TeacherConfig
from msad_cli.training.interruption import Clock
from msad_cli.training.observer import Observer
from msad_cli.training.plan import (
    COCO_IMAGES,
    choose,
    choose_head,
    choose_norm,
    claim_output,
    in_two_steps,
    invalid_values_named,
)
from msad_cli.training.resume import all_settings, completed
from msad_cli.training.run import Outcome, Run
from msad_cli.training.sets import cache_decoded, choose_mirror, fields_from_data, folder_of, lasting, read_data
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
    _refuse_idle(asked)
    ks = _views(config)
    resolution = parse_size(config.size)
    clock = Clock.of(config.time, config.checkpoint)
    limit_pixels(parse_pixels(config.max_pixels))
    folder = claim_output(config, observer)
    _refuse_impossible(config, ks, resolution)
    data, task = folder_of(asked), task_of(config.detector)
    train, val, found = read_data(config, data, resolution, ks, task, observer, exif=config.exif or AUTO)
    fields, detections = fields_from_data(train, config.sigmas)
    choices = choose(config, len(train))
    spec, shape = _spec(config, ks, resolution, fields)
    computed = {"data": found, **shape, "detections": detections, **choices.settings, **brought}
    computed["init"] = said_of_start(Setting(config.init, asked.source("init")), config, spec)
    computed["fliplr"] = choose_mirror(config.fliplr, train)
    jitter, own = config.scales != "single", {"phase": spec.phase, "fliplr": computed["fliplr"].value}
    training = TrainingSet(train, resolution, spec.ks, jitter=jitter, seed=config.seed, **own)
    computed["cache"] = cache_decoded(training, config.cache, choices.workers)
    settings = all_settings(asked, computed)
    observer.plan(config.out, settings)
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
            initialise=lambda: initialise(model, config.init, config.init_partial),
            training=training,
            validation=val,
            choices=choices,
            settings=settings,
            folder=folder,
            card=Card(lasting(data), fingerprint(train.file), exif=config.exif or AUTO),
            clock=clock,
            compiled=(model,) if config.compile_ else (),
        ),
        observer,
    )


def _spec(
    config: TeacherConfig, ks: tuple[int, ...], resolution: Resolution, fields: dict[str, Any]
) -> tuple[DetectorSpec, dict[str, Setting]]:
    """What the model is; and for the record its head's size and its normalisation, by name.

    Args:
        fields: of the spec, as they follow from the data.
    """
    shape = choose_head(config)
    shape["norm"] = choose_norm(config.norm, config.init, config.detector, config.init_partial)
    with invalid_values_named("msad teacher --help lists the values"):
        spec = DetectorSpec(
            role="teacher" if config.scales == "aligned" else "baseline",
            detector=config.detector,
            backbone=config.backbone,
            width=config.width,
            channels=shape["head_channels"].value,
            head_convs=shape["head_convs"].value,
            norm=shape["norm"].value,
            scales=config.scales,  # type: ignore[arg-type]  # the spec checks it
            ks=ks,
            resolution=resolution,
            divisor=STOCK_DIVISOR if (config.scales, ks) == ("single", (1,)) else FRAME_DIVISOR,
            phase=config.phase,  # type: ignore[arg-type]
            fusion=config.fusion,  # type: ignore[arg-type]
            head_depthwise=config.head_depthwise,
            learning=Learning(config.rois),
            **fields,
        )
    return spec, shape


def _refuse_impossible(config: TeacherConfig, ks: tuple[int, ...], resolution: Resolution) -> None:
    """Does nothing to settings of which a model and a run can be made; a set is drawn or read afterwards, for minutes.

    Raises:
        UsageError, DeviceError: as `_spec` and `choose`.
    """
    keypoints = ("any",) if task_of(config.detector) == "keypoints" else ()
    _spec(config, ks, resolution, {"classes": (ClassName(1, "any"),), "keypoints": keypoints})
    choose(config, COCO_IMAGES)


def _refuse_idle(asked: Asked[TeacherConfig]) -> None:
    """Does nothing to settings that do something.

    Raises:
        UsageError: one was typed that means nothing to this detector or to these scales.
    """
    detector, scales = asked.config.detector, asked.config.scales
    known = DETECTORS.get(detector)
    if known is not None and known.family != "two-stage" and "rois" in asked.typed:
        raise UsageError(f"--rois: {detector} has no RoIs", "leave it out", code="setting-without-effect")
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
    if scales != "single":
        return (1, *parse_ks("--k", k or "2", "24"))
    ks = parse_ks("--k", k or "1")
    if len(ks) > 1:
        raise UsageError(
            f"--k {k} with --scales single", "a single scale has one k: 1, 2 or 4", code="k-unfit-for-scales"
        )
    return ks


def _module(detector: Detector, fusion_weight: float, align_steps: int) -> nn.Module:
    """What trains a detector: by views that are not aligned, in two steps if the first has a length, or jointly."""
    if detector.spec.scales != "aligned":
        return UnshiftedTraining(detector)
    return TwoStepTraining(detector, align_steps) if align_steps else AlignedTraining(detector, fusion_weight)
