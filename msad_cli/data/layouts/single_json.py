"""A single COCO annotation file for all images, split here into train and val."""

from pathlib import Path
from typing import Any

from msad_cli.data.annotations.records import read_document
from msad_cli.data.annotations.values import whole_number
from msad_cli.data.images.decode import IMAGE_SUFFIXES
from msad_cli.data.layouts.base import Files, Layout
from msad_cli.data.layouts.cache import Converted, cached, validation_part


def split_of_one_json(file: Path, split: str) -> tuple[Path, tuple[str, ...]]:
    """The annotation file of a split, and notes.

    Raises:
        DataError: the file is no COCO document, or lists fewer than two images.
    """
    return cached(f"{file.stem}-{split}", [file], lambda: _part(file, split))


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


def _the_file(place: Path) -> Path | None:
    """A .json file; of a folder the only one in it or, if it has none, in its `annotations`."""
    if place.is_file():
        return place if place.suffix.lower() == ".json" else None
    files = sorted(place.glob("*.json")) or sorted((place / "annotations").glob("*.json"))
    return files[0] if len(files) == 1 else None


def _find(place: Path, split: str, images: Path | None, task: str) -> Files:
    file = _the_file(place)
    assert file is not None, "the layout recognised the place by it"
    annotations, notes = split_of_one_json(file, split)
    return Files(annotations, images or images_beside(file), f"one annotation file ({file.name})", notes)


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


LAYOUT = Layout("a single .json file", lambda place: _the_file(place) is not None, _find)
