"""Roboflow's COCO export: each split's folder holds its images and one annotation file."""

from pathlib import Path

from msad_cli.data.layouts.base import Files, Layout
from msad_cli.data.layouts.image_folders import folders_in
from msad_cli.data.layouts.json_parts import part_of
from msad_cli.data.layouts.split_names import own_split, split_named

FILE = "_annotations.coco.json"


def _folders(place: Path) -> dict[str, Path]:
    """The folder of each split that is there."""
    found = [each for each in folders_in(place) if (each / FILE).is_file()] if place.is_dir() else []
    return {split: each for each in found[::-1] if (split := split_named(each.name))}


def _find(place: Path, split: str, images: Path | None, task: str) -> Files:
    folders = _folders(place)
    wanted = " nor ".join(f"{each}/{FILE}" for each in {"val": ("valid", "val", "test")}.get(split, (split,)))
    own = own_split(split, folders, place, wanted)
    folder = folders[own.split]
    files = Files(folder / FILE, images or folder, f"Roboflow COCO folder ({folder.name}/{FILE})", root=place)
    return part_of(files, own, split)


LAYOUT = Layout("{split}/" + FILE, lambda place: bool(_folders(place)), _find)
