"""Finding the annotation files and picture folders of a data set."""

from dataclasses import dataclass
from pathlib import Path

from msad_cli.data.demo import demo_folder
from msad_cli.structures.errors import DataError

DEMO = "demo"
"""The word that stands for the built-in set wherever a folder is asked for."""


@dataclass(frozen=True)
class Files:
    """An annotation file and the folder of its pictures."""

    annotations: Path
    images: Path


@dataclass(frozen=True)
class Layout:
    """The two splits of a set, and in words what was recognised."""

    train: Files
    val: Files
    recognised: str


def find_layout(data: str) -> Layout:
    """What lies under a folder, or the built-in demo set for the word `demo` (drawn at the first call, then cached).

    Raises:
        DataError: no such folder, or nothing in it that msad recognises.
    """
    if data == DEMO:
        layout = _coco(demo_folder())
        return Layout(layout.train, layout.val, "the built-in demo set")
    folder = Path(data)
    if not folder.is_dir():
        kind = "a file, not a folder" if folder.exists() else "no such folder"
        raise DataError(f"--data {data}: {kind}", "give the folder of a COCO-style set, or the word demo")
    return _coco(folder)


def _coco(folder: Path) -> Layout:
    train, val = (_coco_split(folder, split) for split in ("train", "val"))
    return Layout(train, val, f"COCO folder ({train.annotations.name}, {val.annotations.name})")


def _coco_split(folder: Path, split: str) -> Files:
    annotations = folder / "annotations"
    found = sorted(annotations.glob(f"instances_{split}*.json")) or sorted(
        annotations.glob(f"person_keypoints_{split}*.json")
    )
    if not found:
        raise DataError(
            f"{folder}: no annotations/instances_{split}*.json",
            "msad reads COCO folders: annotations/instances_train2017.json and …_val2017.json, train2017/, val2017/",
        )
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise DataError(f"{annotations}: several files for {split}: {names}", "choose with --train-json and --val-json")
    subset = found[0].stem.split("_")[-1]
    for images in (folder / subset, folder / "images" / subset, folder / split, folder / "images"):
        if images.is_dir():
            return Files(found[0], images)
    raise DataError(f"{folder}: no folder {subset}/ with the pictures of {found[0].name}", "or give --train-images")
