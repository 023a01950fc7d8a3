"""msad eval: COCO's numbers of a model on a split."""

from pathlib import Path
from typing import Annotated

import typer

from msad_cli.cli import options
from msad_cli.cli.gates import parse_gates, refuse_unknown
from msad_cli.errors import GateMissedError, UsageError
from msad_cli.text import MOST_PIXELS


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file.")],
    data: options.Data = None,
    split: Annotated[str, typer.Option(metavar="val|test|train", help="Which split.")] = "val",
    view: Annotated[
        str | None, typer.Option(metavar="high|middle|low|fused|all", help="Default: all the model has.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="SHORT,LONG|A,B,C",
            help="HR size (default: the model's), or short sides of its input, large to small.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="AP over several sizes. Default: MODEL.sizes.png.")
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="A row for each class too.")] = False,
    fail_under: Annotated[str | None, typer.Option(metavar="AP=0.36", help="Exit 8 if a number is lower.")] = None,
    nms_iou: options.NmsIou = None,
    agnostic: Annotated[
        bool, typer.Option("--agnostic/--per-class-nms", help="Count an object's best class alone, or all of them.")
    ] = False,
    max_detections: options.MaxDetections = None,
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Write the detections scored: boxes; masks or keypoints beside it."),
    ] = None,
    sigmas: Annotated[
        str | None,
        typer.Option(metavar="0.05,0.1,…", help="Of keypoints, for OKS. Default: the model's, or COCO's 17."),
    ] = None,
    evaluator: Annotated[
        str, typer.Option(metavar="hotcoco|pycocotools", help="Which library evaluates; slower, pycocotools is COCO's.")
    ] = "hotcoco",
    train_json: options.TrainJson = None,
    val_json: options.ValJson = None,
    train_images: options.TrainImages = None,
    val_images: options.ValImages = None,
    crowd_as_objects: options.CrowdAsObjects = False,
    join_classes: options.JoinClasses = False,
    max_pixels: options.MaxPixels = MOST_PIXELS,
    runtime: options.Runtime = None,
    bits: options.Bits = None,
    exif: options.Exif = None,
    device: options.Device = "auto",
    precision: options.PrecisionName = "auto",
    workers: options.Workers = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure AP and AR of a model, by COCO's own evaluation."""
    from msad_cli.cli.console import print_line
    from msad_cli.cli.output.evaluated import print_evaluated
    from msad_cli.cli.output.scores import print_scores
    from msad_cli.cli.output.size_curve import report_sizes
    from msad_cli.evaluation.evaluate import Evaluation, EvaluationConfig

    gates = parse_gates(fail_under)
    if gates and size and size.count(",") > 1:
        raise UsageError(f"--fail-under with the sizes {size}", "a gate is on one size", code="gate-on-several-sizes")
    config = EvaluationConfig(
        data=data,
        split=split,
        view=view,
        size=size,
        sigmas=sigmas,
        evaluator=evaluator,
        nms_iou=nms_iou,
        agnostic=agnostic,
        max_detections=max_detections,
        predictions=predictions,
        train_json=train_json,
        val_json=val_json,
        train_images=train_images,
        val_images=val_images,
        crowd_as_objects=crowd_as_objects,
        join_classes=join_classes,
        max_pixels=max_pixels,
        runtime=runtime,
        bits=bits,
        exif=exif,
        device=device,
        precision=precision,
        workers=workers,
    )
    evaluation = Evaluation(model, config)
    refuse_unknown(gates, evaluation.names)
    for line in () if quiet else evaluation.remarks():
        print_line(line)
    measured = {side: each.scores for side, each in evaluation.measure(print_line).items()}
    scores = measured[max(measured)]
    if as_json:
        print_evaluated(model, evaluation, measured)
    if len(measured) > 1:
        report_sizes(model, measured, plot, quiet or as_json)
        return
    if not quiet and not as_json:
        images = len(evaluation.split)
        print_scores(f"{model} on {images} images of {split}", {each: of.numbers for each, of in scores.items()})
        for each in scores if per_class else ():
            print_scores(f"{each}, by class", scores[each].per_class, "class")
    best = evaluation.views[0]
    for name, least in gates.items():
        got = scores[best].numbers[name]
        if not got >= least:
            raise GateMissedError(f"{name} of view {best} is {got:.4f}, under {least}", code="gate-missed")
