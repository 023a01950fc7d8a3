"""msad predict: images and videos in, annotated ones and detections out."""

import itertools
import os
import re
import signal
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msad_cli.cli import options
from msad_cli.cli.output.tally import Tally
from msad_cli.errors import DataError, PartialFailureError, UsageError
from msad_cli.text import MOST_PIXELS, parse_classes, parse_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from msad_cli.data.images.tones import Tones
    from msad_cli.inference.inputs import Input
    from msad_cli.inference.predictor import Frames, Prediction
    from msad_cli.inference.writers import Saver

DEFAULT_MODELS = ("student.safetensors", "teacher.safetensors")
FOLDER = "predictions"
SAVES = ("image", "json", "coco", "yolo", "csv", "crop")


def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Images, videos, folders, quoted patterns, a camera's number, an address; - reads paths.",
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", metavar="FILE", help="Default: student.safetensors here, then teacher."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder of the results. Default: predictions, predictions2, …"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results of an earlier run.")] = False,
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
        int | None,
        typer.Option(min=1, rich_help_panel="Machine", help="Images of one size at once. Default: 8 on a GPU, else 1."),
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(metavar=",".join(SAVES), help="What to write. Default: image,json; nothing with --stdout."),
    ] = None,
    stdout: Annotated[bool, typer.Option("--stdout", help="A JSON line an image on stdout, as they come.")] = False,
    nms_iou: options.NmsIou = None,
    agnostic: Annotated[
        bool, typer.Option("--agnostic/--per-class-nms", help="An object has its best class alone, or all of them.")
    ] = True,
    max_detections: options.MaxDetections = None,
    tile: Annotated[
        int | None,
        typer.Option(min=32, metavar="PIXELS", help="Look at images in tiles of so many pixels, for small objects."),
    ] = None,
    overlap: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of a tile that lies in the next one too.")
    ] = 0.2,
    every: Annotated[int, typer.Option(min=1, metavar="N", help="Look at every Nth frame of a video.")] = 1,
    max_pixels: options.MaxPixels = MOST_PIXELS,
    runtime: options.Runtime = None,
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
    from msad_cli.inference.predictor import Wanted, predict_frames, usual_batch
    from msad_cli.inference.predictor import predict as predict_images
    from msad_cli.inference.tiles import predict_tiled
    from msad_cli.inference.writers import Saver
    from msad_cli.models.compiled import compile_parts
    from msad_cli.models.decode.nms import overlap_of
    from msad_cli.models.views import choose_views
    from msad_cli.system.device import choose_compute

    saves = _parse_saves(save if save is not None else "" if stdout else "image,json")
    limit_pixels(parse_pixels(max_pixels))
    folder = out or _free_folder(overwrite)
    images, videos = _find(inputs, folder, saves, tile)
    sources = [*images, *videos]
    path = model or _default_model()
    detector, card = open_model(path, runtime)
    detector.limit(nms_iou, max_detections)
    if (tones := _tones(detector.spec.tones, bits, images)) != detector.spec.tones:
        detector.spec = replace(detector.spec, tones=tones)
    best = choose_views(view, detector.spec, path)[0]
    labels = parse_classes(classes, detector.spec.categories)
    compute = choose_compute(device, precision)
    compile_parts([detector] if compile_ else [], compute.device)
    least = detector.drop_below(card.score_threshold if score is None else score)
    if score is not None and score < least and not quiet:
        print_line(f"--score {score:g}: {path} finds nothing below {least:g}")
    wanted = Wanted(least, labels, overlap_of(nms_iou) if agnostic else None)
    at_once = batch or usual_batch(compute)
    saver = Saver(folder, saves, detector.spec, sources)
    saver.begin(overwrite)
    detector = detector.to(compute.device)
    if tile is None:
        of_images = predict_images(detector, best, images, wanted, compute, at_once, saver.draws)
    else:
        of_images = predict_tiled(detector, best, images, wanted, compute, at_once, tile, overlap)

    def look(source: "Input", frames: "Frames") -> "Iterator[Prediction | DataError]":
        return predict_frames(detector, best, source, frames, wanted, compute, at_once)

    tally = Tally(len(sources), [name for _, name in detector.spec.categories])
    _save(itertools.chain(of_images, _of_videos(look, videos, saver, every)), saver, tally, stdout, quiet)
    saver.finish()
    kind = "images and videos" if videos else "images"
    for line in () if quiet else tally.summary(kind, least, path, detector.spec.detections_per_image):
        print_line(line)
    if saves and not quiet:
        print_line(f"-> {folder}/")
    if tally.failed:
        raise PartialFailureError(
            f"{tally.failed} of {len(sources)} {kind} could not be read",
            "they are named above",
            code="inputs-unreadable",
        )


def _save(results: "Iterable[Prediction | DataError]", saver: "Saver", tally: Tally, stdout: bool, quiet: bool) -> None:
    """Writes predictions as they come, and tells of each."""
    from msad_cli.cli.console import print_line
    from msad_cli.inference.writers import json_line

    for result in results:
        if isinstance(result, DataError):
            print_line(f"error: {result.message}")
            tally.failed += 1
            continue
        rows, line = saver.add(result), tally.add(result)
        if stdout:
            print(json_line(result, rows, saver.spec.categories), flush=True)
        if line and not quiet:
            print_line(line)


def _tones(tones: "Tones", bits: int | None, images: "list[Input]") -> "Tones":
    """How images of more than 8 bits are read; says so where the model's way would show little of these."""
    from msad_cli.cli.console import print_line
    from msad_cli.data.images.tone_range import with_bits

    found, said = with_bits(tones, bits, [each.path for each in images])
    if said:
        print_line(said)
    return found


def _find(names: list[str], out: Path, saves: set[str], tile: int | None) -> "tuple[list[Input], list[Input]]":
    """The images and the videos that are meant.

    Raises:
        UsageError: there is none, one would be overwritten, or cannot be looked at for what is asked.
    """
    from msad_cli.inference.inputs import distinct, find_inputs, resolved
    from msad_cli.inference.streams import is_stream, open_address
    from msad_cli.inference.video import need_decoder

    typed = [name for name in names if is_stream(name)]
    earlier = [Path(each) for each in os.listdir() if re.fullmatch(rf"{FOLDER}\d*", each)]
    files = _with_listed([name for name in names if name not in typed])
    found = distinct([*find_inputs(files, [out, *earlier]), *(open_address(name) for name in typed)])
    images, videos = ([each for each in found if each.is_video is kind] for kind in (False, True))
    if videos:
        need_decoder()
    if videos and "coco" in saves:
        raise UsageError(
            f"--save coco: {videos[0].path} is a video, whose frames are no files",
            "name images alone",
            code="video-in-coco",
        )
    if videos and tile:
        raise UsageError(f"--tile: {videos[0].path} is a video", "name images alone", code="video-in-tiles")
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
    from msad_cli.inference.streams import Stream
    from msad_cli.inference.video import Video

    for source in videos:
        try:
            video = Stream(source) if source.stream else Video(source.path)
            with saver.video(source, video.rate / every) as write, _until_interrupted(source) as ended:
                for each in look(source, video.frames(every)):
                    if isinstance(each, DataError):
                        raise each
                    write(each)
                    yield each
                    if ended:
                        break
        except DataError as error:
            yield error


@contextmanager
def _until_interrupted(source: "Input") -> "Iterator[list[int]]":
    """A list that Ctrl-C puts something into: so a stream ends, and what was found is written. A second interrupts."""
    if not source.stream:
        yield []
        return
    ended: list[int] = []

    def end(number: int, _: object) -> None:
        ended.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield ended
    finally:
        signal.signal(signal.SIGINT, before)


def _free_folder(overwrite: bool) -> Path:
    """The first of predictions, predictions2, … that holds nothing yet; the first of all to write over it."""
    names = itertools.chain([FOLDER], (f"{FOLDER}{number}" for number in itertools.count(2)))
    return next(path for path in map(Path, names) if overwrite or not path.exists() or not any(path.iterdir()))


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
