"""The flags that several commands share, and the parsing of their values."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from msad_cli.errors import UsageError
from msad_cli.frame import Letterbox, Resolution
from msad_cli.text import nearest

Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DIR|FILE|demo",
        help="COCO, Roboflow, YOLO or Pascal VOC set, one JSON, or the built-in set. A model knows its own.",
    ),
]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]|mps", help="Where to compute.")]
PrecisionName = Annotated[str, typer.Option("--precision", metavar="auto|bf16|fp16|fp32", help="Of the forward pass.")]
Workers = Annotated[int | None, typer.Option(min=0, max=128, help="Loader processes. Default: from the CPU's cores.")]
Cache = Annotated[
    str, typer.Option("--cache", metavar="ram|off", help="ram keeps decoded training images between epochs.")
]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="torch.compile backbone, pyramid and head: minutes at first, then faster steps."),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.safetensors", help="The model file to write.")]
Seed = Annotated[int, typer.Option(help="Seed of initialisation, shuffling and augmentation.")]
Depthwise = Annotated[
    bool, typer.Option("--head-depthwise", help="Depthwise separable convolutions in the head, an eighth of its cost.")
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Default: from the size of the set.")]
BatchSize = Annotated[int | None, typer.Option("--batch", min=1, help="Images a step. Default: 16 on a GPU, else 4.")]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Default: 0.01 × batch / 16.")]
Decay = Annotated[
    str, typer.Option("--decay", metavar="steps|cosine", help="÷10 at 2/3 and 8/9 of the run, or cosine.")
]
Warmup = Annotated[
    int | None, typer.Option("--warmup", min=0, help="Steps of learning-rate warm-up. Default: at most 500.")
]
Clip = Annotated[float, typer.Option(min=0.01, help="Largest norm of the gradient.")]
Ema = Annotated[float, typer.Option(min=0.0, max=0.99999, help="Decay of averaged weights, such as 0.999; 0 is off.")]
EvalEvery = Annotated[int | None, typer.Option(min=1, help="Epochs between evaluations. Default: 20 in a run.")]
TimedImages = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="FILE|DIR", help="Images to time. Default: the validation split of the model."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run of this file stopped.")]
Time = Annotated[
    str | None,
    typer.Option("--time", metavar="2h", help="Stop then, after the step, ready to --resume: 90s, 45m, 1h30m."),
]
Checkpoint = Annotated[str, typer.Option("--checkpoint", metavar="5m", help="Time between two states to resume from.")]
Log = Annotated[
    str | None, typer.Option("--log", metavar="tensorboard|wandb|mlflow,…", help="Report every epoch there too.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing result.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and end.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
MaxPixels = Annotated[
    str,
    typer.Option("--max-pixels", metavar="N", help="Larger images are refused as decompression bombs; 500M is known."),
]
MOST_PIXELS = "178956970"
"""The default of --max-pixels: Pillow's own limit."""
TrainJson = Annotated[Path | None, typer.Option(help="Annotation file of the training split.")]
ValJson = Annotated[Path | None, typer.Option(help="Annotation file of the validation split.")]
TrainImages = Annotated[Path | None, typer.Option(help="Folder of the training images.")]
ValImages = Annotated[Path | None, typer.Option(help="Folder of the validation images.")]


def parse_ks(flag: str, text: str, known: str = "124") -> tuple[int, ...]:
    """`2,4` -> (2, 4): different reductions, ascending.

    Raises:
        UsageError: not a list of some of the known ones.
    """
    parts = text.split(",")
    if not set(parts) <= set(known) or len(set(parts)) < len(parts):
        raise UsageError(
            f"{flag} {text}: grids of two resolutions agree where one is 2 or 4 times the other (pyramid levels are "
            "powers of two apart, and P1 is the finest that a backbone gives)",
            f"{flag} 2, {flag} 4 or {flag} 2,4",
        )
    return tuple(sorted(int(part) for part in parts))


def parse_duration(flag: str, text: str) -> float:
    """`90s`, `45m`, `2h`, `1h30m` or plain seconds, in seconds.

    Raises:
        UsageError: it is none of these.
    """
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip().lower())
    if not match or not any(match.groups()):
        raise UsageError(f"{flag} {text}: not a time", f"such as {flag} 90s, 45m, 2h or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(3600 * hours + 60 * minutes + seconds)


def parse_size(text: str) -> Resolution:
    """`800,1333` -> short side 800, long side at most 1333 (HR pixels); `800` alone limits the long side to 5/3 of it.

    Raises:
        UsageError: not one or two numbers, or out of range.
    """
    try:
        short, *long = (int(part) for part in text.split(","))
        return Resolution(short, long[0] if long else round(short * 5 / 3))
    except (ValueError, IndexError) as error:
        raise UsageError(f"--size {text}: {error}", "give SHORT,LONG in pixels, such as --size 800,1333") from None


def parse_sizes(text: str | None, k: int, own: Resolution) -> dict[int, Resolution]:
    """HR sizes by the short side of the image that a model sees, which is 1/k of them.

    `800,1333` or `800` is one HR size, as everywhere; `400,360,320`, falling, are several sizes of what the model sees,
    each with the sides' ratio of the model's own size, which nothing stands for.

    Raises:
        UsageError: it is none of these, or out of range, or the model takes one size alone.
    """
    if text and isinstance(own, Letterbox):
        raise UsageError(f"--size {text}: this model's sides are fixed", "leave it out, or export without --fixed")
    try:
        numbers = [int(part) for part in text.split(",")] if text else []
        if len(numbers) < 2 or numbers[0] <= numbers[1]:
            one = parse_size(text) if text else own
            return {one.short_side // k: one}
        if sorted(set(numbers), reverse=True) != numbers:
            raise ValueError("several sizes fall from the first to the last")
        longer = own.long_side / own.short_side
        return {side: Resolution(side * k, round(side * k * longer)) for side in numbers}
    except ValueError as error:
        raise UsageError(
            f"--size {text}: {error}", "--size 800,1333 is one HR size, --size 400,360,320 are three"
        ) from None


def parse_classes(text: str | None, categories: Sequence[tuple[int, str]]) -> set[int] | None:
    """`red,90` -> the labels (places, from 1) of the classes of these names or ids; None, for all, of None.

    Raises:
        UsageError: there is no such class.
    """
    if text is None:
        return None
    labels: set[int] = set()
    for word in text.split(","):
        own = {label for label, (_, name) in enumerate(categories, start=1) if name == word}
        # A class that is called 7 comes before the one of id 7.
        own = own or {label for label, (number, _) in enumerate(categories, start=1) if str(number) == word}
        if not own:
            names = [name for _, name in categories]
            near = nearest(word, names, 0.6)
            hint = f"did you mean {near}?" if near else f"known: {', '.join(names[:20])}{', …' * (len(names) > 20)}"
            raise UsageError(f"--classes {text}: the model has no class {word!r}", hint)
        labels |= own
    return labels


def parse_pixels(text: str) -> int:
    """`500M` -> 500,000,000 pixels; K, M and G stand for thousands, millions and thousands of millions.

    Raises:
        UsageError: no such number, or none that is positive.
    """
    match = re.fullmatch(r"(\d{1,12})([kmg]?)", text.lower(), re.ASCII)
    if match is None or int(match[1]) == 0:
        raise UsageError(f"--max-pixels {text}: not a number of pixels", "such as --max-pixels 500M")
    return int(match[1]) * {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}[match[2]]
