"""msad eval: COCO's numbers of a model on a split."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msad_cli.cli import options
from msad_cli.cli.gates import parse_evaluator, parse_gates, parse_sigmas, refuse_unknown, remarks
from msad_cli.errors import GateMissedError, UsageError

if TYPE_CHECKING:
    from msad_cli.data.annotations.split import CocoSplit
    from msad_cli.evaluation.metrics import Scores
    from msad_cli.export.runtime import Model
    from msad_cli.frame import Resolution
    from msad_cli.models.spec import View
    from msad_cli.system.device import Compute
    from msad_cli.system.extras import Evaluator


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file.")],
    data: options.Data = None,
    split: Annotated[str, typer.Option(metavar="val|train", help="Which split.")] = "val",
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
    predictions: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write the detections scored.")] = None,
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
    max_pixels: options.MaxPixels = options.MOST_PIXELS,
    device: options.Device = "auto",
    precision: options.PrecisionName = "auto",
    workers: options.Workers = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> dict[str, Any]:
    """Measure AP and AR of a model, by COCO's own evaluation."""
    import json

    from msad_cli.cli.console import print_json, print_line, print_scores
    from msad_cli.cli.size_curve import report_sizes
    from msad_cli.data.annotations.split import read_split
    from msad_cli.data.images.decode import limit_pixels
    from msad_cli.data.layouts.splits import find_split
    from msad_cli.evaluation.ground_truth import ground_truth
    from msad_cli.evaluation.metrics import number_names, oks_sigmas
    from msad_cli.export.runtime import open_model
    from msad_cli.system.device import choose_compute
    from msad_cli.system.files import write_text
    from msad_cli.training.plan import choose_views, default_workers

    gates, library = parse_gates(fail_under), parse_evaluator(evaluator)
    if gates and size and size.count(",") > 1:
        raise UsageError(f"--fail-under with the sizes {size}", "a gate is on one size")
    if split not in ("val", "train"):
        raise UsageError(f"--split {split}: unknown", "give val or train")
    limit_pixels(options.parse_pixels(max_pixels))
    detector, card = open_model(model)
    spec = detector.spec
    chosen = parse_sigmas(sigmas, spec.keypoints) or spec.sigmas
    spread = oks_sigmas(len(spec.keypoints), chosen)
    views = choose_views(None if view == "all" else view, spec, model)
    compute = choose_compute(device, precision)
    workers = default_workers(compute.device)[0] if workers is None else workers
    paths = (val_json, val_images) if split == "val" else (train_json, train_images)
    files = find_split(data or card.data, split, *paths, spec.task)
    images = read_split(files.annotations, files.images, spec.categories, spec.task, spec.keypoints)
    detector.to(compute.device)
    truth = ground_truth(images)
    refuse_unknown(gates, number_names(truth, spec.task))
    words = remarks(truth, spec.task, spec.detections_per_image, () if chosen else spread)
    for line in () if quiet else (*files.notes, *words):
        print_line(line)
    sizes = options.parse_sizes(size, spec.ks[0], detector.resolution)
    measured = {
        side: _measure(detector, images, truth, views, compute, workers, resolution, spread, library)
        for side, resolution in sizes.items()
    }
    scores, results = measured[max(sizes)]
    if predictions is not None:
        write_text(predictions, json.dumps(results) + "\n")
    if len(sizes) > 1:
        report_sizes(model, {side: each for side, (each, _) in measured.items()}, plot, as_json, quiet)
        return scores
    if as_json:
        print_json({each: of.to_json() for each, of in scores.items()})
    elif not quiet:
        print_scores(f"{model} on {len(images)} images of {split}", {each: of.numbers for each, of in scores.items()})
        for each in views if per_class else ():
            print_scores(f"{each}, by class", scores[each].per_class, "class")
    for name, least in gates.items():
        got = scores[views[0]].numbers[name]
        if not got >= least:
            raise GateMissedError(f"{name} of view {views[0]} is {got:.4f}, under {least}")
    return scores


def _measure(
    detector: "Model",
    images: "CocoSplit",
    truth: dict[str, Any],
    views: Sequence["View"],
    compute: "Compute",
    workers: int,
    resolution: "Resolution",
    sigmas: Sequence[float],
    evaluator: "Evaluator",
) -> tuple[dict[str, "Scores"], list[dict[str, Any]]]:
    """The scores of each view, and what the first of them found."""
    from msad_cli.cli.console import print_line
    from msad_cli.evaluation.detect_split import view_results
    from msad_cli.evaluation.metrics import score

    detected = {view: view_results(detector, images, view, compute, workers, resolution) for view in views}
    for reason in detected[views[0]].unreadable.values():
        print_line(f"passed over, its objects count as missed: {reason}")
    task = detector.spec.task
    scores: dict[str, Scores] = {
        view: score(truth, of.results, task, sigmas, evaluator=evaluator) for view, of in detected.items()
    }
    return scores, detected[views[0]].results
