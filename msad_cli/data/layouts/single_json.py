"""A single COCO annotation file for all images, split here into train and val."""

from pathlib import Path

from msad_cli.data.layouts.base import Files, Layout
from msad_cli.data.layouts.coco import UNLABELLED
from msad_cli.data.layouts.image_folders import image_folder, jsons_in
from msad_cli.data.layouts.json_parts import part_of
from msad_cli.data.layouts.named_json import preferred
from msad_cli.data.layouts.split_names import own_split


def set_of(file: Path) -> Path:
    """The folder of the set that an annotation file is of."""
    return file.parent.parent if file.parent.name.casefold() == "annotations" else file.parent


def _the_file(place: Path, task: str = "boxes") -> Path | None:
    """A .json file; of a folder the only one in it or, if it has none, in its `annotations`."""
    if place.is_file():
        return place if place.suffix.lower() == ".json" else None
    for folder in (place, place / "annotations", place / "Annotations"):
        if files := jsons_in(folder):
            own = [each for each in files if not each.name.startswith(UNLABELLED)] or files
            kept = preferred(own, task)
            return kept[0] if len(kept) == 1 else None
    return None


def _find(place: Path, split: str, images: Path | None, task: str) -> Files:
    file = _the_file(place, task)
    assert file is not None, "the layout recognised the place by it"
    own = own_split(split, ("train",), file, f"{split} in one annotation file")
    root = set_of(file)
    folder, notes = (images, ()) if images else image_folder(root, file, "", "--images")
    return part_of(Files(file, folder, f"one annotation file ({file.name})", notes, root), own, split)


LAYOUT = Layout("a single .json file", lambda place: _the_file(place) is not None, _find)
