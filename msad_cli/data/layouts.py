"""Finding the annotation file and the picture folder of a split."""

from dataclasses import dataclass
from pathlib import Path

from msad_cli.data.demo import demo_folder
from msad_cli.structures.errors import DataError, UsageError

DEMO = "demo"
"""The word that stands for the built-in set wherever a folder is asked for."""


@dataclass(frozen=True)
class Files:
    """An annotation file, the folder of its pictures, and in words as what they were recognised."""

    annotations: Path
    images: Path
    recognised: str


def find_split(
    data: str | None, split: str, annotations: Path | None = None, images: Path | None = None, task: str = "boxes"
) -> Files:
    """Where a split lies.

    Args:
        data: the folder of a set, or `demo` (drawn at the first call, then cached); None if both paths are given.
        split: `train` or `val`.
        annotations, images: take the place of what is found in `data`.
        task: of two annotation files, `keypoints` prefers person_keypoints_*.json, others instances_*.json.

    Raises:
        UsageError: neither `data` nor both paths.
        DataError: no such folder, or nothing in it that msad recognises.
    """
    if annotations is not None and images is not None:
        return Files(annotations, images, "files as given")
    if not data:
        raise UsageError("no data given", "add --data DIR, or --data demo for the built-in set")
    folder = demo_folder() if data == DEMO else Path(data)
    if not folder.is_dir():
        kind = "a file, not a folder" if folder.exists() else "no such folder"
        raise DataError(f"--data {data}: {kind}", "give the folder of a COCO-style set, or the word demo")
    file = annotations or _annotation_file(folder, split, task)
    recognised = "the built-in demo set" if data == DEMO else f"COCO folder ({file.name})"
    return Files(file, images or _picture_folder(folder, split, file, f"--{split}-images"), recognised)


def find_file(file: Path, split: str, images: Path | None = None) -> Files:
    """A single annotation file of a split and its pictures: `images`, or the folder that lies beside it as in COCO.

    Raises:
        DataError: there is no such folder.
    """
    folder = file.parent.parent if file.parent.name == "annotations" else file.parent
    return Files(file, images or _picture_folder(folder, split, file, "--images"), "an annotation file")


def _annotation_file(folder: Path, split: str, task: str) -> Path:
    annotations = folder / "annotations"
    kinds = ("person_keypoints", "instances") if task == "keypoints" else ("instances", "person_keypoints")
    files = [sorted(annotations.glob(f"{kind}_{split}*.json")) for kind in kinds]
    found = files[0] or files[1]
    if not found:
        raise DataError(
            f"{folder}: no annotations/instances_{split}*.json",
            "msad reads COCO folders: annotations/instances_train2017.json and …_val2017.json, train2017/, val2017/",
        )
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise DataError(f"{annotations}: several files for {split}: {names}", f"choose with --{split}-json")
    return found[0]


def _picture_folder(folder: Path, split: str, file: Path, flag: str) -> Path:
    subset = file.stem.split("_")[-1]
    named = (folder / subset, folder / "images" / subset, folder / split)
    for images in (*named, *sorted(folder.glob(f"{split}*")), folder / "images"):
        if images.is_dir():
            return images
    raise DataError(f"{folder}: no folder {subset}/ with the pictures of {file.name}", f"or give {flag}")
