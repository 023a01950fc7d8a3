"""msad eval: COCO's numbers of a model on a split."""

from pathlib import Path
from typing import Annotated

import typer

from msad_cli.commands import options
from msad_cli.commands.measuring import parse_gates, parse_sigmas, refuse_unknown, remarks
from msad_cli.structures.errors import GateMissedError, UsageError


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file.")],
    data: options.Data = None,
    split: Annotated[str, typer.Option(metavar="val|train", help="Which split.")] = "val",
    view: Annotated[str | None, typer.Option(metavar="high|low|fused|all", help="Default: all the model has.")] = None,
    size: Annotated[str | None, typer.Option(metavar="SHORT,LONG", help="HR size. Default: the model's own.")] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="A row for each class too.")] = False,
    fail_under: Annotated[str | None, typer.Option(metavar="AP=0.36", help="Exit 8 if a number is lower.")] = None,
    predictions: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write the detections scored.")] = None,
    sigmas: Annotated[
        str | None,
        typer.Option(metavar="0.05,0.1,…", help="Of keypoints, for OKS. Default: the model's, or COCO's 17."),
    ] = None,
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
) -> None:
    """Measure AP and AR of a model, by COCO's own evaluation."""
    import json

    from msad_cli.commands.console import console, print_json, print_scores
    from msad_cli.commands.settings import choose_views, default_workers
    from msad_cli.data.coco import read_split
    from msad_cli.data.images import limit_pixels
    from msad_cli.data.layouts import find_split
    from msad_cli.engine.device import choose_compute
    from msad_cli.engine.evaluate import view_results
    from msad_cli.engine.files import write_text
    from msad_cli.engine.model_file import load_model
    from msad_cli.engine.scoring import number_names, oks_sigmas, score
    from msad_cli.engine.truth import ground_truth

    gates = parse_gates(fail_under)
    if split not in ("val", "train"):
        raise UsageError(f"--split {split}: unknown", "give val or train")
    resolution = options.parse_size(size) if size else None
    limit_pixels(options.parse_pixels(max_pixels))
    detector, card = load_model(model)
    spec = detector.spec
    chosen = parse_sigmas(sigmas, spec.keypoints) or spec.sigmas
    spread = oks_sigmas(len(spec.keypoints), chosen)
    views = choose_views(None if view == "all" else view, spec, model)
    compute = choose_compute(device, precision)
    workers = default_workers(compute.device)[0] if workers is None else workers
    paths = (val_json, val_images) if split == "val" else (train_json, train_images)
    files = find_split(data or card.data, split, *paths, spec.task)
    pictures = read_split(files.annotations, files.images, spec.categories, spec.task, spec.keypoints)
    detector.to(compute.device)
    truth = ground_truth(pictures)
    refuse_unknown(gates, number_names(truth, spec.task))
    for line in () if quiet else remarks(truth, spec.task, spec.detections_per_image, () if chosen else spread):
        console.print(line, soft_wrap=True, markup=False)
    scores = {}
    for each in views:
        detected = view_results(detector, pictures, each, compute, workers, resolution)
        for reason in detected.unreadable.values() if each == views[0] else ():
            console.print(f"passed over, its objects count as missed: {reason}", soft_wrap=True, markup=False)
        scores[each] = score(truth, detected.results, spec.task, spread)
        if predictions is not None and each == views[0]:
            write_text(predictions, json.dumps(detected.results) + "\n")
    if as_json:
        print_json({each: of.to_json() for each, of in scores.items()})
    elif not quiet:
        print_scores(
            f"{model} on {len(pictures)} pictures of {split}", {each: of.numbers for each, of in scores.items()}
        )
        for each in views if per_class else ():
            print_scores(f"{each}, by class", scores[each].per_class, "class")
    for name, least in gates.items():
        got = scores[views[0]].numbers[name]
        if not got >= least:
            raise GateMissedError(f"{name} of view {views[0]} is {got:.4f}, under {least}")
