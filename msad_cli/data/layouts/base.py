"""Finding the annotation file and the image folder of a split, in whatever layout the set is."""

from dataclasses import dataclass, replace
from pathlib import Path

from msad_cli.data.layouts.demo import demo_folder
from msad_cli.data.layouts.single_json import images_beside, split_of_one_json
from msad_cli.data.layouts.voc import is_voc, split_of_voc
from msad_cli.data.layouts.yolo import YAML_SUFFIXES, split_of_yolo, yolo_file
from msad_cli.errors import AbsentSplitError, DataError, UsageError

DEMO = "demo"
"""The word that stands for the built-in set wherever a folder is asked for."""
KINDS = ("instances", "person_keypoints")
"""COCO's annotation files."""
COCO_FILES = [f"{kind}_{split}" for kind in KINDS for split in ("train", "val")]
ROBOFLOW = "_annotations.coco.json"
ROBOFLOW_FOLDERS = {"train": ("train",), "val": ("valid", "val", "test")}
"""By split; the first that is there is taken."""


@dataclass(frozen=True)
class Files:
    """What a split is read from.

    Attributes:
        annotations: a COCO file; of other layouts, what was made of theirs and lies in the user's cache.
        images: the folder of its images.
        recognised: in words, as what.
        notes: what the user has to know of how the set was read.
    """

    annotations: Path
    images: Path
    recognised: str
    notes: tuple[str, ...] = ()


def find_split(
    data: str | None, split: str, annotations: Path | None = None, images: Path | None = None, task: str = "boxes"
) -> Files:
    """Where a split lies.

    Args:
        data: the folder of a set, its data.yaml or single .json, or `demo` (drawn at the first call, then cached);
            None if both paths are given.
        split: `train` or `val`.
        annotations, images: take the place of what is found in `data`.
        task: of two annotation files, `keypoints` prefers person_keypoints_*.json, others instances_*.json.

    Raises:
        UsageError: neither `data` nor both paths.
        DataError: no such folder, nothing in it that msad recognises, or a file of another layout than COCO's that
            cannot be used, with its line.
    """
    if annotations is not None and images is not None:
        return Files(annotations, images, "files as given")
    if not data:
        raise UsageError("no data given", "add --data DIR, or --data demo for the built-in set")
    place = demo_folder() if data == DEMO else Path(data)
    if not place.exists():
        raise DataError(f"--data {data}: no such folder", "give the folder of a set, or the word demo")
    if annotations is None:
        found = _recognised(place, split, images, task)
    else:
        images = images or _image_folder(place, split, annotations, f"--{split}-images")
        found = Files(annotations, images, f"COCO folder ({annotations.name})")
    return replace(found, recognised="the built-in demo set") if data == DEMO else found


def _recognised(place: Path, split: str, images: Path | None, task: str) -> Files:
    """A split of the set at a place."""
    if place.is_file():
        return _single_file(place, split, images)
    if any(each for stem in COCO_FILES for each in (place / "annotations").glob(f"{stem}*.json")):
        file = _annotation_file(place, split, task)
        folder = images or _image_folder(place, split, file, f"--{split}-images")
        return Files(file, folder, f"COCO folder ({file.name})")
    if any((place / each / ROBOFLOW).is_file() for of in ROBOFLOW_FOLDERS.values() for each in of):
        return _roboflow(place, split, images)
    if data_yaml := yolo_file(place):
        return _single_file(data_yaml, split, images)
    if is_voc(place):
        annotations, beside, notes = split_of_voc(place, split)
        return Files(annotations, images or beside, "Pascal VOC folder", notes)
    if len(files := sorted(place.glob("*.json")) or sorted((place / "annotations").glob("*.json"))) == 1:
        return _single_file(files[0], split, images)
    raise DataError(
        f"{place}: no set that msad knows: no annotations/instances_{split}*.json, {split}/{ROBOFLOW}, data.yaml, "
        "Annotations/*.xml, nor a single .json file",
        "docs/data.md shows the layouts",
    )


def find_file(file: Path, split: str, images: Path | None = None) -> Files:
    """A single annotation file of a split and its images: `images`, or the folder that lies beside it as in COCO.

    Raises:
        DataError: there is no such folder.
    """
    folder = file.parent.parent if file.parent.name == "annotations" else file.parent
    return Files(file, images or _image_folder(folder, split, file, "--images"), "an annotation file")


def _single_file(file: Path, split: str, images: Path | None) -> Files:
    if file.suffix.lower() in YAML_SUFFIXES:
        annotations, beside, notes = split_of_yolo(file, split)
        return Files(annotations, images or beside, f"YOLO set ({file.name})", notes)
    if file.suffix.lower() != ".json":
        raise DataError(f"--data {file}: a file, not a folder", "give the folder of a set, a .json or a data.yaml")
    annotations, notes = split_of_one_json(file, split)
    return Files(annotations, images or images_beside(file), f"one annotation file ({file.name})", notes)


def _roboflow(folder: Path, split: str, images: Path | None) -> Files:
    names = ROBOFLOW_FOLDERS[split]
    found = next((folder / each for each in names if (folder / each / ROBOFLOW).is_file()), None)
    if found is None:
        raise AbsentSplitError(
            f"{folder}: no {' nor '.join(f'{each}/{ROBOFLOW}' for each in names)}", f"add a split for {split}"
        )
    return Files(found / ROBOFLOW, images or found, f"Roboflow COCO folder ({found.name}/{ROBOFLOW})")


def _annotation_file(folder: Path, split: str, task: str) -> Path:
    annotations = folder / "annotations"
    kinds = KINDS[::-1] if task == "keypoints" else KINDS
    files = [sorted(annotations.glob(f"{kind}_{split}*.json")) for kind in kinds]
    found = files[0] or files[1]
    if not found:
        raise AbsentSplitError(
            f"{folder}: no annotations/instances_{split}*.json",
            "msad reads COCO folders: annotations/instances_train2017.json and …_val2017.json, train2017/, val2017/",
        )
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise DataError(f"{annotations}: several files for {split}: {names}", f"choose with --{split}-json")
    return found[0]


def _image_folder(folder: Path, split: str, file: Path, flag: str) -> Path:
    subset = file.stem.split("_")[-1]
    named = (folder / subset, folder / "images" / subset, folder / split)
    for images in (*named, *sorted(folder.glob(f"{split}*")), folder / "images"):
        if images.is_dir():
            return images
    raise AbsentSplitError(f"{folder}: no folder {subset}/ with the images of {file.name}", f"or give {flag}")
