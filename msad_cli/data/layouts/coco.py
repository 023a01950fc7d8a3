"""COCO folders: annotations/instances_train2017.json and train2017/, with anything in place of 2017."""

from pathlib import Path

from msad_cli.data.layouts.base import Files, Layout
from msad_cli.errors import AbsentSplitError, DataError

KINDS = ("instances", "person_keypoints")
"""COCO's annotation files."""
STEMS = [f"{kind}_{split}" for kind in KINDS for split in ("train", "val")]


def image_folder(folder: Path, split: str, file: Path, flag: str) -> Path:
    """The folder of the images of an annotation file, where COCO has it.

    Args:
        folder: of the set.
        flag: that names a folder, for the message.

    Raises:
        AbsentSplitError: there is none.
    """
    subset = file.stem.split("_")[-1]
    named = (folder / subset, folder / "images" / subset, folder / split)
    for images in (*named, *sorted(folder.glob(f"{split}*")), folder / "images"):
        if images.is_dir():
            return images
    raise AbsentSplitError(
        f"{folder}: no folder {subset}/ with the images of {file.name}", f"or give {flag}", code="image-folder-missing"
    )


def _recognises(place: Path) -> bool:
    return any(each for stem in STEMS for each in (place / "annotations").glob(f"{stem}*.json"))


def _find(place: Path, split: str, images: Path | None, task: str) -> Files:
    """Of two annotation files, `keypoints` prefers person_keypoints_*.json, others instances_*.json."""
    file = _annotation_file(place, split, task)
    folder = images or image_folder(place, split, file, f"--{split}-images")
    return Files(file, folder, f"COCO folder ({file.name})")


def _annotation_file(folder: Path, split: str, task: str) -> Path:
    annotations = folder / "annotations"
    kinds = KINDS[::-1] if task == "keypoints" else KINDS
    files = [sorted(annotations.glob(f"{kind}_{split}*.json")) for kind in kinds]
    found = files[0] or files[1]
    if not found:
        raise AbsentSplitError(
            f"{folder}: no annotations/instances_{split}*.json",
            "msad reads COCO folders: annotations/instances_train2017.json and …_val2017.json, train2017/, val2017/",
            code="split-missing",
        )
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise DataError(
            f"{annotations}: several files for {split}: {names}",
            f"choose with --{split}-json",
            code="annotation-file-ambiguous",
        )
    return found[0]


LAYOUT = Layout("annotations/instances_{split}*.json", _recognises, _find)
