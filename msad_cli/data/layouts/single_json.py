"""A single COCO annotation file for all images, split here into train and val."""

from pathlib import Path
from typing import Any

from msad_cli.data.annotations.records import read_document
from msad_cli.data.annotations.values import whole_number
from msad_cli.data.images.decode import IMAGE_SUFFIXES
from msad_cli.data.layouts.cache import Converted, kept, validation_part


def split_of_one_json(file: Path, split: str) -> tuple[Path, tuple[str, ...]]:
    """The annotation file of a split, and notes.

    Raises:
        DataError: the file is no COCO document, or lists fewer than two images.
    """
    return kept(f"{file.stem}-{split}", [file], lambda: _part(file, split))


def images_beside(file: Path) -> Path:
    """The folder of the images of an annotation file: the file's own, if there are any in it, else one beside it."""
    folder = file.parent.parent if file.parent.name == "annotations" else file.parent
    entries = sorted(folder.iterdir())
    if any(each.suffix.lower() in IMAGE_SUFFIXES for each in entries):
        return folder
    named = [folder / "images" / file.stem.split("_")[-1], folder / "images", folder / file.stem]
    found = [each for each in named if each.is_dir()]
    others = [each for each in entries if each.is_dir() and each.name != "annotations"]
    return found[0] if found else others[0] if len(others) == 1 else folder


def _part(file: Path, split: str) -> Converted:
    document = read_document(file)
    validation, note = validation_part([name for each in document["images"] if (name := _id(each, "id"))], file)

    def is_asked(record: Any, field: str) -> bool:
        # What has no usable id stays in train, where the reader complains of it.
        return (_id(record, field) in validation) == (split == "val")

    images = [each for each in document["images"] if is_asked(each, "id")]
    annotations = [each for each in document["annotations"] if is_asked(each, "image_id")]
    return Converted({**document, "images": images, "annotations": annotations}, (note,))


def _id(record: Any, field: str) -> str:
    """The id as a text, empty where there is none that can be used."""
    number = whole_number(record.get(field)) if isinstance(record, dict) else None
    return "" if number is None else str(number)
