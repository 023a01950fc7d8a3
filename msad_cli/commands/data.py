"""msad data: looking after data sets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msad_cli.commands import options
from msad_cli.structures.errors import DataError, UsageError

if TYPE_CHECKING:
    from msad_cli.data.layouts import Files

SPLITS = ("train", "val")

app = typer.Typer(no_args_is_help=True, help="Data sets: check and repair them, draw the built-in demo set.")


@app.callback()
def data() -> None:
    """Data sets: check and repair them, draw the built-in demo set."""


@app.command()
def check(
    path: Annotated[str, typer.Argument(metavar="DIR|FILE|demo", help="A COCO folder, or one annotation file.")],
    split: Annotated[str | None, typer.Option(metavar="train|val", help="Only this one.")] = None,
    images: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the pictures of FILE lie.")] = None,
    size: Annotated[str, typer.Option(metavar="SHORT,LONG", help="Sides of the large (HR) image.")] = "800,1333",
    k: Annotated[str, typer.Option(metavar="2[,4]", help="How many times the low view is reduced.")] = "2",
    task: Annotated[str, typer.Option(metavar="boxes|masks|keypoints", help="What is to be learnt.")] = "boxes",
    decode: Annotated[bool, typer.Option("--decode", help="Decode all pixels, to find truncated files. Slow.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 3 for any problem, not only for fatal ones.")] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Write a repaired annotation file of one split.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")] = None,
    max_pixels: options.MaxPixels = options.MOST_PIXELS,
    as_json: options.Json = False,
) -> None:
    """Look for everything that is wrong with a data set: boxes, ids, files, train against val. Exit 3 if unusable."""
    from msad_cli.commands.checking import checked, refuse_unusable
    from msad_cli.commands.console import print_json, print_line
    from msad_cli.commands.reporting import print_report
    from msad_cli.data.images import limit_pixels
    from msad_cli.data.records import Records, read_records
    from msad_cli.models.spec import TASKS

    if fix != (out is not None):
        raise UsageError("--fix and --out belong together", "msad data check FILE --fix --out repaired.json")
    if task not in TASKS.values():
        raise UsageError(f"--task {task}: unknown", f"give {', '.join(dict.fromkeys(TASKS.values()))}")
    resolution, ks = options.parse_size(size), options.parse_ks("--k", k)
    limit_pixels(options.parse_pixels(max_pixels))
    found, absent = _find(path, split, images, task)
    for line in absent:
        print_line(line)
    if out is not None:
        _fix(found, out, decode)
        return
    splits: dict[str, Records] = {}
    for name, files in found.items():
        learnt = splits.get("train")
        categories, keypoints = (learnt.categories, learnt.scheme.names) if learnt else (None, ())
        splits[name] = read_records(files.annotations, files.images, categories, task, keypoints)
    report = checked(splits, resolution, ks, print_line, anew=True, decode=decode)
    if as_json:
        print_json(report.to_json())
    else:
        print_report(report)
    refuse_unusable(report, path, "msad data check FILE --fix -o NEW repairs what it can", strict)


def _find(path: str, split: str | None, images: Path | None, task: str) -> tuple[dict[str, "Files"], list[str]]:
    """The splits to check by name, and why others are not."""
    from msad_cli.data.layouts import find_file, find_split

    if split not in (None, *SPLITS):
        raise UsageError(f"--split {split}: unknown", "give train or val")
    if Path(path).is_file():
        name = split or ("val" if "val" in Path(path).stem else "train")
        return {name: find_file(Path(path), name, images)}, []
    if images is not None and split is None:
        raise UsageError("--images with a folder of two splits", "add --split train or --split val")
    found, absent = {}, []
    for name in [split] if split else SPLITS:
        try:
            found[name] = find_split(path, name, images=images, task=task)
        except DataError as error:
            absent.append(error)
    if not found:
        raise absent[0]
    return found, [f"no {'val' if 'train' in found else 'train'} split to check: {error.message}" for error in absent]


def _fix(found: dict[str, "Files"], out: Path, decode: bool) -> None:
    """Writes the repaired annotations of the one split that was found."""
    import json

    from msad_cli.commands.reporting import print_repairs
    from msad_cli.data.records import read_document
    from msad_cli.data.repair import repair
    from msad_cli.engine.files import write_text

    if len(found) > 1:
        raise UsageError("--fix repairs one split at a time", "add --split train or --split val")
    if out.exists():
        raise UsageError(f"{out} exists", "give a file that does not exist yet")
    (files,) = found.values()
    repaired = repair(read_document(files.annotations), files.annotations, files.images, decode)
    write_text(out, json.dumps(repaired.document) + "\n")
    print_repairs(repaired.done, str(out))


@app.command()
def demo(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Draw it here, not in the cache.")
    ] = None,
    train: Annotated[int, typer.Option(min=1, help="Training pictures.")] = 400,
    val: Annotated[int, typer.Option(min=1, help="Validation pictures.")] = 100,
    seed: Annotated[int, typer.Option(help="Other seeds draw other sets.")] = 0,
) -> None:
    """Draw the demo set, a COCO folder; print where it lies."""
    from msad_cli.data.demo import demo_folder, draw_demo

    if out is None:
        typer.echo(demo_folder(train=train, val=val, seed=seed))
        return
    if out.exists():
        raise UsageError(f"{out} exists", "give a folder that does not exist yet")
    draw_demo(out, train=train, val=val, seed=seed)
    typer.echo(out)
