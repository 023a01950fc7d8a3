"""msad teacher: the multi-scale fused teacher, or one of the paper's baselines."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from msad_cli.cli import options
from msad_cli.errors import UsageError
from msad_cli.models.detectors.kinds import DETECTORS, task_of
from msad_cli.training.resume import all_settings, is_typed, resumable

if TYPE_CHECKING:
    from torch import nn

    from msad_cli.models.detector import Detector


@resumable(lambda values: f"{'teacher' if values['scales'] == 'aligned' else values['scales']}.safetensors")
def teacher(
    context: typer.Context,
    data: options.Data = None,
    k: Annotated[
        str | None, typer.Option(metavar="2|4|2,4", help="How many times the reduced views are. Default: 2.")
    ] = None,
    detector: Annotated[
        str, typer.Option(metavar="|".join(DETECTORS), help="Torchvision's detector to build on.")
    ] = "fcos",
    backbone: Annotated[
        str, typer.Option(metavar="NAME", help="resnet18…152, resnext50_32x4d, resnext101_32x8d…, mobilenet_v2")
    ] = "resnet50",
    width: Annotated[float, typer.Option(help="Factor on the backbone's channels.")] = 1.0,
    head_channels: Annotated[int, typer.Option(help="Channels of pyramid and head.")] = 256,
    head_convs: Annotated[int, typer.Option(help="Convolutions of each tower of the head.")] = 4,
    head_depthwise: options.Depthwise = False,
    size: Annotated[
        str, typer.Option(metavar="SHORT,LONG", help="Sides of the large (HR) image in pixels.")
    ] = "800,1333",
    init: Annotated[
        str, typer.Option(metavar="imagenet|coco|none|FILE", help="Where weights start from.")
    ] = "imagenet",
    norm: Annotated[
        str, typer.Option(metavar="auto|frozen|batch|group", help="Normalisation of the backbone.")
    ] = "auto",
    scales: Annotated[
        str, typer.Option(metavar="aligned|vanilla|single", help="vanilla and single: the baselines.")
    ] = "aligned",
    fusion: Annotated[
        str, typer.Option(metavar="c-ff|sigmoid|channel|sum|concat", help="How the views' pyramids become one.")
    ] = "c-ff",
    strategy: Annotated[
        str, typer.Option(metavar="joint|two-step", help="The fusion together with the rest, or alone afterwards.")
    ] = "joint",
    lambda_: Annotated[float, typer.Option("--lambda", min=0.0, help="Weight λ of the fused view's loss.")] = 0.4,
    rois: Annotated[int, typer.Option(help="Regions an image that two-stage detectors learn from.")] = 512,
    sigmas: Annotated[
        str | None, typer.Option(metavar="0.05,…", help="Of keypoints, for OKS. Default: COCO's of 17, else 0.05.")
    ] = None,
    train_json: options.TrainJson = None,
    val_json: options.ValJson = None,
    train_images: options.TrainImages = None,
    val_images: options.ValImages = None,
    epochs: options.Epochs = None,
    batch: options.BatchSize = None,
    lr: options.LearningRate = None,
    decay: options.Decay = "steps",
    warmup: options.Warmup = None,
    clip: options.Clip = 10.0,
    ema: options.Ema = 0.0,
    eval_every: options.EvalEvery = None,
    device: options.Device = "auto",
    precision: options.PrecisionName = "auto",
    compile_: options.Compile = False,
    workers: options.Workers = None,
    cache: options.Cache = "off",
    max_pixels: options.MaxPixels = options.MOST_PIXELS,
    seed: options.Seed = 0,
    out: options.Out = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    time: options.Time = None,
    checkpoint: options.Checkpoint = "5m",
    log: options.Log = None,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
) -> dict[str, Any]:
    """Train the teacher: one network on an image and on the same image reduced k times, and their fusion."""
    import torch

    from msad_cli.cli.console import announce_result, print_plan
    from msad_cli.data.images.decode import limit_pixels
    from msad_cli.data.loading.dataset import TrainingSet
    from msad_cli.models.detector import Detector
    from msad_cli.models.model_file import Card, fingerprint
    from msad_cli.models.spec import DetectorSpec
    from msad_cli.models.weights.initialise import initialise
    from msad_cli.training.clock import Clock
    from msad_cli.training.plan import (
        choose,
        choose_norm,
        claim_output,
        fields_from_data,
        in_two_steps,
        invalid_values_named,
        keep_decoded,
        lasting,
        read_data,
    )
    from msad_cli.training.trainer import Run, fit

    _refuse_idle(context, detector, scales)
    ks = _views(k, scales, strategy)
    resolution = options.parse_size(size)
    assert out is not None
    clock = Clock.of(time, checkpoint)
    limit_pixels(options.parse_pixels(max_pixels))
    folder = claim_output(out, resume, overwrite or dry_run, log, quiet)
    task = task_of(detector)
    train, val, found = read_data(data, train_json, val_json, train_images, val_images, resolution, ks, task, quiet)
    fields, detections = fields_from_data(train, sigmas)
    choices = choose(
        len(train), device=device, precision=precision, batch=batch, workers=workers, epochs=epochs, lr=lr,
        decay=decay, warmup=warmup, eval_every=eval_every,
    )  # fmt: skip
    chosen_norm = choose_norm(norm, init)
    with invalid_values_named("msad teacher --help lists the values"):
        spec = DetectorSpec(
            role="teacher" if scales == "aligned" else "baseline",
            detector=detector,
            backbone=backbone,
            width=width,
            channels=head_channels,
            head_convs=head_convs,
            norm=chosen_norm.value,
            scales=scales,  # type: ignore[arg-type]  # the spec checks it
            ks=ks,
            resolution=resolution,
            fusion=fusion,  # type: ignore[arg-type]
            head_depthwise=head_depthwise,
            rois=rois,
            **fields,
        )
    training = TrainingSet(train, resolution, spec.ks, jitter=scales != "single", seed=seed)
    computed = {"data": found, "norm": chosen_norm, "detections": detections, **choices.settings}
    settings = all_settings(context, {**computed, "cache": keep_decoded(training, cache, choices.workers)})
    print_plan(f"plan of {out}", settings, quiet)
    if dry_run:
        return {}
    torch.manual_seed(seed)
    model = Detector(spec)
    choices = in_two_steps(choices) if strategy == "two-step" else choices
    module = _module(model, lambda_, choices.schedule.restart)
    scores = fit(
        Run(
            "teacher", module, model, lambda: initialise(model, init), training, val, choices, settings, folder,
            Card(lasting(data), fingerprint(train.file)), clip, ema, clock, resume, quiet, (model,) if compile_ else (),
        )
    )  # fmt: skip
    if not quiet:
        announce_result(out, scores, f"msad distill --teacher {out}" if spec.role == "teacher" else f"msad eval {out}")
    return scores


def _refuse_idle(context: typer.Context, detector: str, scales: str) -> None:
    """Does nothing to flags that do something.

    Raises:
        UsageError: one was typed that means nothing to this detector or to these scales.
    """
    known = DETECTORS.get(detector)
    if known is not None and known.family != "two-stage" and is_typed(context, "rois"):
        raise UsageError(f"--rois: {detector} has no regions", "leave it out")
    if scales != "aligned" and (is_typed(context, "fusion") or is_typed(context, "lambda_")):
        raise UsageError(f"--fusion, --lambda: --scales {scales} fuses nothing", "leave them out")


def _views(k: str | None, scales: str, strategy: str) -> tuple[int, ...]:
    """The reductions of the views that are trained on."""
    if strategy not in ("joint", "two-step") or (strategy != "joint" and scales != "aligned"):
        raise UsageError(f"--strategy {strategy} with --scales {scales}", "aligned scales know joint and two-step")
    if scales != "single":
        return (1, *options.parse_ks("--k", k or "2", "24"))
    ks = options.parse_ks("--k", k or "1")
    if len(ks) > 1:
        raise UsageError(f"--k {k} with --scales single", "a single scale has one k: 1, 2 or 4")
    return ks


def _module(detector: "Detector", fusion_weight: float, align_steps: int) -> "nn.Module":
    """What trains a detector: by views that are not aligned, in two steps if the first has a length, or jointly."""
    from msad_cli.distillation.aligned_teacher import AlignedTraining
    from msad_cli.distillation.baselines import UnshiftedTraining
    from msad_cli.distillation.two_step import TwoStepTraining

    if detector.spec.scales != "aligned":
        return UnshiftedTraining(detector)
    return TwoStepTraining(detector, align_steps) if align_steps else AlignedTraining(detector, fusion_weight)
