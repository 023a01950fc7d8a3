"""msad data: looking after data sets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msad_cli.cli import options
from msad_cli.cli.commands.convert import convert
from msad_cli.cli.help import Command, Group
from msad_cli.errors import UsageError
from msad_cli.text import MOST_PIXELS, parse_ks, parse_pixels, parse_size

if TYPE_CHECKING:
    from msad_cli.data.layouts.base import Files

Source = Annotated[str, typer.Argument(metavar="DIR|FILE|demo", help="A set, its data.yaml, or one annotation file.")]
Split = Annotated[str | None, typer.Option(metavar="train|val|test", help="Only this one.")]
Images = Annotated[Path | None, typer.Option(metavar="DIR", help="Where the images of FILE lie.")]
Size = Annotated[str, typer.Option(rich_help_panel="Data", metavar="SHORT,LONG", help="Sides of the large (HR) image.")]
Reductions = Annotated[
    str, typer.Option("--k", rich_help_panel="Data", metavar="2[,4]", help="By how much the low view is downsampled.")
]
Task = Annotated[str, typer.Option(metavar="boxes|masks|keypoints", help="What is to be learnt.")]

app = typer.Typer(cls=Group, help="Data sets: check, repair, convert and count them, draw the demo set.")
app.command(cls=Command, epilog="Example: msad data convert yolo_set/ --to coco -o coco_set")(convert)


@app.callback()
def data() -> None:
    """Data sets: check, repair, convert and count them, draw the demo set."""


@app.command(cls=Command, epilog="Example: msad data check coco_set/ --size 320,533")
def check(
    path: Source,
    split: Split = None,
    images: Images = None,
    size: Size = "800,1333",
    k: Reductions = "2",
    task: Task = "boxes",
    decode: Annotated[bool, typer.Option("--decode", help="Decode all pixels, to find truncated files. Slow.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 3 for any problem, not only for fatal ones.")] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Write a repaired annotation file of one split.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")] = None,
    crowd_as_objects: options.CrowdAsObjects = False,
    join_classes: options.JoinClasses = False,
    max_pixels: options.MaxPixels = MOST_PIXELS,
    exif: options.Exif = None,
    as_json: options.Json = False,
) -> None:
    """Look for everything that is wrong with a data set: boxes, ids, files, train against val. Exit 3 if unusable."""
    from msad_cli.cli.console import print_line
    from msad_cli.cli.output.check_tables import print_report
    from msad_cli.cli.output.json_output import print_json
    from msad_cli.data.annotations.check_cache import checked, refuse_unusable
    from msad_cli.data.layouts.splits import records_of

    if fix != (out is not None):
        raise UsageError(
            "--fix and --out belong together", "msad data check FILE --fix --out repaired.json", code="fix-without-out"
        )
    resolution, ks = parse_size(size), parse_ks("--k", k)
    found = _find(path, split, images, task, max_pixels, exif, (crowd_as_objects, join_classes))
    if out is not None:
        _fix(found, out, decode)
        return
    report = checked(records_of(found, task), resolution, ks, print_line, anew=True, decode=decode)
    if as_json:
        print_json("data check", **report.to_json())
    else:
        print_report(report)
    refuse_unusable(report, path, "msad data check FILE --fix -o NEW repairs what it can", strict)


@app.command(cls=Command, epilog="Example: msad data stats demo --k 2,4")
def stats(
    path: Source,
    split: Split = None,
    images: Images = None,
    size: Size = "800,1333",
    k: Reductions = "2",
    task: Task = "boxes",
    crowd_as_objects: options.CrowdAsObjects = False,
    join_classes: options.JoinClasses = False,
    max_pixels: options.MaxPixels = MOST_PIXELS,
    exif: options.Exif = None,
    as_json: options.Json = False,
) -> None:
    """Count images and objects by class, and say how large these are at HR and at 1/k. Exit 3 if unusable."""
    from msad_cli.cli.console import print_line
    from msad_cli.cli.output.check_tables import print_counts, print_problems
    from msad_cli.cli.output.json_output import print_json
    from msad_cli.data.annotations.check_cache import checked, refuse_unusable
    from msad_cli.data.layouts.splits import records_of

    resolution, ks = parse_size(size), parse_ks("--k", k)
    found = _find(path, split, images, task, max_pixels, exif, (crowd_as_objects, join_classes))
    report = checked(records_of(found, task), resolution, ks, print_line)
    if as_json:
        print_json("data stats", **report.to_json())
    else:
        print_counts(report)
        print_problems(report)
    refuse_unusable(report, path, f"msad data check {path} lists all")


def _find(
    path: str,
    split: str | None,
    images: Path | None,
    task: str,
    max_pixels: str,
    exif: str | None,
    decisions: tuple[bool, bool],
) -> dict[str, "Files"]:
    """The splits that are looked at, by name; says how they were read."""
    from msad_cli.cli.console import print_line
    from msad_cli.data.images.decode import limit_pixels
    from msad_cli.data.layouts.decisions import Decisions, decided
    from msad_cli.data.layouts.splits import find_splits_or_file, parse_task

    parse_task(task)
    limit_pixels(parse_pixels(max_pixels))
    found, said = find_splits_or_file(path, split, images, task, exif or "auto")
    answers = decided(found, Decisions(*decisions))
    notes = [note for name, of in answers.items() for note in of.notes[len(found[name].notes) :]]
    for line in (*said, *notes):
        print_line(line)
    return answers


def _fix(found: dict[str, "Files"], out: Path, decode: bool) -> None:
    """Writes the repaired annotations of the one split that was found."""
    import json

    from msad_cli.cli.output.check_tables import print_repairs
    from msad_cli.data.annotations.records import read_document
    from msad_cli.data.annotations.repair import repair
    from msad_cli.system.files import write_text

    if len(found) > 1:
        raise UsageError(
            "--fix repairs one split at a time", "add --split train or --split val", code="fix-of-two-splits"
        )
    if out.exists():
        raise UsageError(f"{out} exists", "give a file that does not exist yet", code="result-exists")
    (files,) = found.values()
    repaired = repair(read_document(files.annotations), files.annotations, files.images, decode, files.root)
    write_text(out, json.dumps(repaired.document) + "\n")
    print_repairs(repaired.done, str(out))


@app.command(cls=Command, epilog="Example: msad data demo -o shapes --train 100")
def demo(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Draw it here, not in the cache.")
    ] = None,
    train: Annotated[int, typer.Option(min=1, help="Training images.")] = 400,
    val: Annotated[int, typer.Option(min=1, help="Validation images.")] = 100,
    seed: Annotated[int, typer.Option(rich_help_panel="Data", help="Other seeds draw other sets.")] = 0,
) -> None:
    """Draw the demo set, a COCO folder; print where it lies."""
    from msad_cli.data.layouts.demo import demo_folder, draw_demo

    if out is None:
        typer.echo(demo_folder(train=train, val=val, seed=seed))
        return
    if out.exists():
        raise UsageError(f"{out} exists", "give a folder that does not exist yet", code="result-exists")
    draw_demo(out, train=train, val=val, seed=seed)
    typer.echo(out)
