"""msad predict: images and videos in, annotated ones and detections out."""

import itertools
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msad_cli.cli import options
from msad_cli.errors import DataError, PartialFailureError, UsageError
from msad_cli.text import MOST_PIXELS, parse_classes, parse_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from msad_cli.data.images.tones import Tones
    from msad_cli.inference.inputs import Input
    from msad_cli.inference.predictor import Frames, Prediction
    from msad_cli.inference.writers import Saver

DEFAULT_MODELS = ("student.safetensors", "teacher.safetensors")
SAVES = ("image", "json", "coco", "yolo", "csv", "crop")


def predict(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Images, videos, folders, quoted patterns; - reads paths.")
    ],
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="Default: student.safetensors here, then teacher.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the results.")] = Path(
        "predictions"
    ),
    score: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Least score. Default: the model's best-F1.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="NAME|ID,…", help="Find these classes alone. Default: all.")
    ] = None,
    view: Annotated[
        str | None, typer.Option(metavar="high|middle|low|fused", help="Default: the model's best.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images of one size at once. Default: 8 on a GPU, else 1.")
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(metavar=",".join(SAVES), help="What to write. Default: image,json; nothing with --stdout."),
    ] = None,
    stdout: Annotated[bool, typer.Option("--stdout", help="A JSON line an image on stdout, as they come.")] = False,
    every: Annotated[int, typer.Option(min=1, metavar="N", help="Look at every Nth frame of a video.")] = 1,
    max_pixels: options.MaxPixels = MOST_PIXELS,
    bits: options.Bits = None,
    device: options.Device = "auto",
    precision: options.PrecisionName = "auto",
    compile_: options.Compile = False,
    quiet: options.Quiet = False,
) -> None:
    """Detect objects in images and videos; the small image is decoded straight from each file."""
    from msad_cli.cli.console import print_line
    from msad_cli.data.images.decode import limit_pixels
    from msad_cli.export.runtime import open_model
    from msad_cli.inference.predictor import predict as predict_images
    from msad_cli.inference.predictor import predict_frames, usual_batch
    from msad_cli.inference.writers import Saver, json_line
    from msad_cli.models.compiled import compile_parts
    from msad_cli.models.model_file import choose_views
    from msad_cli.system.device import choose_compute

    saves = _parse_saves(save if save is not None else "" if stdout else "image,json")
    limit_pixels(parse_pixels(max_pixels))
    images, videos = _find(inputs, out, saves)
    sources = [*images, *videos]
    path = model or _default_model()
    detector, card = open_model(path)
    detector.spec = replace(detector.spec, tones=_tones(detector.spec.tones, bits, images))
    best = choose_views(view, detector.spec, path)[0]
    labels = parse_classes(classes, detector.spec.categories)
    compute = choose_compute(device, precision)
    compile_parts([detector] if compile_ else [], compute.device)
    least = card.score_threshold if score is None else score
    at_once = batch or usual_batch(compute)
    saver = Saver(out, saves, detector.spec, sources)
    detector = detector.to(compute.device)
    of_images = predict_images(detector, best, images, least, compute, at_once, saver.draws, labels)

    def look(source: "Input", frames: "Frames") -> "Iterator[Prediction | DataError]":
        return predict_frames(detector, best, source, frames, least, compute, at_once, labels)

    objects, failed, frames = 0, 0, Counter[Path]()
    for result in itertools.chain(of_images, _of_videos(look, videos, saver, every)):
        if isinstance(result, DataError):
            print_line(f"error: {result.message}")
            failed += 1
            continue
        results = saver.add(result)
        objects += len(results)
        if stdout:
            print(json_line(result, results, detector.spec.categories), flush=True)
        if result.frame is not None:
            frames[result.source.path] += 1
        elif not quiet:
            print_line(f"{result.source.path}: {len(results)} object{'s' * (len(results) != 1)}")
    saver.finish()
    kind = "images and videos" if videos else "images"
    if not quiet:
        for name, count in frames.items():
            print_line(f"{name}: {count} frames")
        done = f"{len(sources) - failed} of {len(sources)} {kind}, {objects} objects of score ≥ {least:.2f} by {path}"
        print_line(f"{done} -> {out}/" if saves else done)
    if failed:
        raise PartialFailureError(
            f"{failed} of {len(sources)} {kind} could not be read", "they are named above", code="inputs-unreadable"
        )


def _tones(tones: "Tones", bits: int | None, images: "list[Input]") -> "Tones":
    """How images of more than 8 bits are read; says so where the model's way would show little of these."""
    from msad_cli.cli.console import print_line
    from msad_cli.data.images.tone_range import with_bits

    found, said = with_bits(tones, bits, [each.path for each in images])
    if said:
        print_line(said)
    return found


def _find(names: list[str], out: Path, saves: set[str]) -> "tuple[list[Input], list[Input]]":
    """The images and the videos that are meant.

    Raises:
        UsageError: there is none, one would be overwritten, or cannot be looked at for what is asked.
    """
    from msad_cli.inference.inputs import find_inputs, resolved
    from msad_cli.inference.video import need_decoder

    found = find_inputs(_with_listed(names), out)
    images, videos = ([each for each in found if each.is_video is kind] for kind in (False, True))
    if videos:
        need_decoder()
    if videos and "coco" in saves:
        raise UsageError(
            f"--save coco: {videos[0].path} is a video, whose frames are no files",
            "name images alone",
            code="video-in-coco",
        )
    for each in found:
        if "image" in saves and resolved(out / each.relative) == resolved(each.path):
            raise UsageError(
                f"{each.path} would be overwritten by its own result",
                "choose another folder with --out",
                code="result-replaces-input",
            )
    return images, videos


def _of_videos(
    look: "Callable[[Input, Frames], Iterator[Prediction | DataError]]",
    videos: "Sequence[Input]",
    saver: "Saver",
    every: int,
) -> "Iterator[Prediction | DataError]":
    """What `look` finds in frames, which are drawn and written meanwhile; an error ends a video, not those after it."""
    from msad_cli.inference.video import Video

    for source in videos:
        try:
            video = Video(source.path)
            with saver.video(source, video.rate / every) as write:
                for each in look(source, video.frames(every)):
                    if isinstance(each, DataError):
                        raise each
                    write(each)
                    yield each
        except DataError as error:
            yield error


def _parse_saves(text: str) -> set[str]:
    """`image,json` as a set.

    Raises:
        UsageError: something in it is unknown.
    """
    saves = set(text.split(",")) - {""}
    if unknown := sorted(saves - set(SAVES)):
        raise UsageError(
            f"--save {text}: unknown {', '.join(unknown)}", f"known: {', '.join(SAVES)}", code="unknown-value"
        )
    return saves


def _with_listed(inputs: list[str]) -> list[str]:
    """The inputs, with the lines of stdin in place of `-`.

    Raises:
        UsageError: stdin has none.
    """
    if "-" not in inputs:
        return inputs
    listed = [line for line in os.fsdecode(sys.stdin.buffer.read()).splitlines() if line]
    names = [each for name in inputs for each in (listed if name == "-" else [name])]
    if not names:
        raise UsageError(
            "- reads paths from stdin, which had none", "find . -name '*.jpg' | msad predict -", code="stdin-empty"
        )
    return names


def _default_model() -> Path:
    for name in DEFAULT_MODELS:
        if Path(name).exists():
            return Path(name)
    raise UsageError(
        f"no model: neither {' nor '.join(DEFAULT_MODELS)} lies in this folder",
        "give one with -m FILE",
        code="no-model-given",
    )
