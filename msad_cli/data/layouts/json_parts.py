"""Splits of sets that have a COCO annotation file for each, whatever these are called; of train alone a part is val."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from msad_cli.data.agreement.as_meant import referring_by_ids
from msad_cli.data.annotations.problem_tally import MET, Tally
from msad_cli.data.annotations.records import read_document
from msad_cli.data.annotations.values import whole_number
from msad_cli.data.layouts.base import Files
from msad_cli.data.layouts.cache import Converted, cached
from msad_cli.data.layouts.drawing import validation_part
from msad_cli.data.layouts.split_names import Own


def part_of(files: Files, own: Own, split: str) -> Files:
    """A split that is a file of its own or, where the set has none for it, a part of train."""
    if not own.drawn:
        return replace(files, notes=(*own.notes, *files.notes))
    file = files.annotations
    annotations, notes = cached(f"{file.stem}-{split}", [file], lambda: _part(file, split))
    return replace(files, annotations=annotations, notes=(*files.notes, *notes))


def _part(file: Path, split: str) -> Converted:
    tally = Tally()
    document = referring_by_ids(read_document(file), tally)
    names = {name: str(each.get("file_name")) for each in document["images"] if (name := _id(each, "id"))}
    validation, note = validation_part(list(names), file, names)

    def is_asked(record: Any, field: str) -> bool:
        # What has no id stays in train, where the reader complains of it.
        return (_id(record, field) in validation) == (split == "val")

    images = [each for each in document["images"] if is_asked(each, "id")]
    annotations = [each for each in document["annotations"] if is_asked(each, "image_id")]
    met = {MET: tally.to_plain()} if tally.problems() else {}
    return Converted({**document, "images": images, "annotations": annotations, **met}, (note,))


def _id(record: Mapping[str, Any] | Any, field: str) -> str:
    """The id as a text, a number however it is written; empty where there is none."""
    value = record.get(field) if isinstance(record, dict) else None
    number = whole_number(value)
    if number is not None:
        return str(number)
    return str(value) if type(value) in (int, str) else ""
