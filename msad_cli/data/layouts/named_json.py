"""COCO annotation files named after their splits, or in folders that are: train.json, or train/labels.json."""

from pathlib import Path

from msad_cli.data.annotations.records import read_document
from msad_cli.data.layouts.base import Files, Layout
from msad_cli.data.layouts.coco import KINDS, UNLABELLED, split_of
from msad_cli.data.layouts.image_folders import image_folder, jsons_in
from msad_cli.data.layouts.json_parts import part_of
from msad_cli.data.layouts.split_names import own_split, split_named
from msad_cli.errors import DataError

MOST_NAMED = 5
"""Files in a message."""
FOLDERS = ("annotations", "Annotations", ".", "labels")


def _files(place: Path, task: str) -> dict[str, list[Path]]:
    """Annotation files by split, of the first folder that has one of train."""
    for folder in FOLDERS if place.is_dir() else ():
        files = jsons_in(place / folder)
        found: dict[str, list[Path]] = {}
        for each in files:
            if (split := split_of(each)) and not each.name.startswith(UNLABELLED):
                found.setdefault(split, []).append(each)
        if "train" in found:
            return {split: preferred(each, task) for split, each in found.items()}
    return _in_folders(place, task) if place.is_dir() else {}


def _in_folders(place: Path, task: str) -> dict[str, list[Path]]:
    """Annotation files of folders that are named after splits, if there is one of train."""
    found: dict[str, list[Path]] = {}
    for folder in sorted(place.iterdir()):
        if (split := split_named(folder.name)) and folder.is_dir():
            files = jsons_in(folder) or jsons_in(folder / "annotations")
            if files:
                found.setdefault(split, []).extend(preferred(files, task))
    return found if "train" in found else {}


def preferred(files: list[Path], task: str) -> list[Path]:
    """Of files of several kinds, those that COCO's names say to be the task's."""
    for kind in KINDS[::-1] if task == "keypoints" else KINDS:
        if of := [each for each in files if each.name.startswith(f"{kind}_")]:
            return of
    return files


def _find(place: Path, split: str, images: Path | None, task: str) -> Files:
    found = _files(place, task)
    own = own_split(split, found, place, f"{split}.json")
    file, *others = found[own.split]
    if others:
        read_document(file)  # says whose it is, if it is another tool's
        names = ", ".join(each.name for each in (file, *others[: MOST_NAMED - 1]))
        raise DataError(
            f"{file.parent}: several files for {split}: {names}",
            f"choose with --{split}-json",
            code="annotation-file-ambiguous",
        )
    # In a folder of a split its images lie there too.
    home = next((each for each in (file.parent, file.parent.parent) if split_named(each.name)), place)
    root = home if place in home.parents else place
    folder, notes = (images, ()) if images else image_folder(root, file, own.split, f"--{split}-images")
    return part_of(Files(file, folder, f"COCO files by split ({file.name})", notes, place), own, split)


LAYOUT = Layout("{split}.json", lambda place: bool(_files(place, "boxes")), _find)
