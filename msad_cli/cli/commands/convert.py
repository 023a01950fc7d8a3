"""msad data convert: a set of any layout that is read in any that is written."""

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from msad_cli.cli import options
from msad_cli.errors import UsageError
from msad_cli.text import MOST_PIXELS, parse_pixels


def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A set of any layout that --data takes.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DST", help="The folder to write.")],
    to: Annotated[str, typer.Option("--to", metavar="LAYOUT", help="The layout to write, such as coco, yolo or voc.")],
    task: Annotated[
        str | None, typer.Option(metavar="boxes|masks|keypoints", help="What to keep. Default: all that is there.")
    ] = None,
    crowd_as_objects: options.CrowdAsObjects = False,
    join_classes: options.JoinClasses = False,
    max_pixels: options.MaxPixels = MOST_PIXELS,
    exif: options.Exif = None,
    quiet: options.Quiet = False,
) -> None:
    """Write a set, images included, in another layout, and say what that cannot hold."""
    from msad_cli.cli.console import print_line
    from msad_cli.data.annotations.check import check
    from msad_cli.data.annotations.check_cache import refuse_unusable
    from msad_cli.data.annotations.problems import KINDS, NO_BOXES
    from msad_cli.data.annotations.records import read_document
    from msad_cli.data.images.decode import limit_pixels
    from msad_cli.data.layouts.decisions import Decisions, decided
    from msad_cli.data.layouts.splits import find_splits, parse_task
    from msad_cli.data.writers import table
    from msad_cli.data.writers.source import Source, natural_task, to_be_written
    from msad_cli.frame import Resolution
    from msad_cli.system.files import explained

    if to not in table.WRITERS:
        raise UsageError(f"--to {to}: unknown", f"give {' or '.join(table.WRITERS)}", code="unknown-value")
    if out.exists():
        raise UsageError(f"{out} exists", "give a folder that does not exist yet", code="result-exists")
    parse_task(task or "boxes")
    limit_pixels(parse_pixels(max_pixels))
    found, said = find_splits(source, None, None, task or "boxes", exif or "auto")
    answers = decided(found, Decisions(crowd_as_objects, join_classes))
    said += [note for name, of in answers.items() for note in of.notes[len(found[name].notes) :]]
    splits: dict[str, Source] = {}
    for name, files in answers.items():
        document = read_document(files.annotations)
        task = task or natural_task(document)
        learnt = next((each.records for each in splits.values()), None)
        splits[name] = to_be_written(document, files, task, learnt)
    # What the check would say, less what depends on the size of training; background alone may be converted.
    report = check({name: of.records for name, of in splits.items()}, Resolution(800, 1333), ())
    beside = {kind.code for kind in KINDS} - {NO_BOXES.code}
    refuse_unusable(report.only(beside), source, f"msad data check {source} lists all")
    with explained(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=out.parent) as temporary:
            notes = table.WRITERS[to](Path(temporary) / out.name, splits)
            os.replace(Path(temporary) / out.name, out)
    if quiet:
        return
    for line in (*said, *report.lines(), *(f"{count} {what}" for what, count in notes.items() if count)):
        print_line(line)
    kept = "boxes" if to in table.BOXES_ALONE else task
    images = " + ".join(f"{len(of.records.image_ids)} images of {name}" for name, of in splits.items())
    print_line(f"{out} written: {images}, {kept}; msad data check {out}")
