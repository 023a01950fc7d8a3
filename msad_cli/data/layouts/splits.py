"""What `msad data` looks at: the splits of a set, or a single annotation file."""

from pathlib import Path

from msad_cli.data.annotations.records import Records, read_records
from msad_cli.data.layouts.base import Files, find_file, find_split
from msad_cli.data.layouts.yolo import YAML_SUFFIXES
from msad_cli.errors import AbsentSplitError, UsageError
from msad_cli.models.detectors.kinds import TASKS

SPLITS = ("train", "val")


def parse_task(task: str) -> None:
    """Does nothing for a task that there is.

    Raises:
        UsageError: there is none of this name.
    """
    if task not in TASKS:
        raise UsageError(f"--task {task}: unknown", f"give {', '.join(TASKS)}")


def find_splits(path: str, split: str | None, images: Path | None, task: str) -> tuple[dict[str, Files], list[str]]:
    """The splits of a set by name; how they were read, and why others are not, in words.

    Raises:
        UsageError: an unknown split, or a folder of images for two splits.
        DataError: there is no split, or one cannot be read.
    """
    if split not in (None, *SPLITS):
        raise UsageError(f"--split {split}: unknown", "give train or val")
    if images is not None and split is None:
        raise UsageError("--images with a folder of two splits", "add --split train or --split val")
    found: dict[str, Files] = {}
    absent = []
    for name in [split] if split else SPLITS:
        try:
            found[name] = find_split(path, name, images=images, task=task)
        except AbsentSplitError as error:
            absent.append(error)
    if not found:
        raise absent[0]
    said = [f"{name}: {files.recognised}" for name, files in found.items()]
    said += dict.fromkeys(note for files in found.values() for note in files.notes)
    missing = "val" if "train" in found else "train"
    return found, [*said, *(f"no {missing} split: {error.message}" for error in absent)]


def find_splits_or_file(
    path: str, split: str | None, images: Path | None, task: str
) -> tuple[dict[str, Files], list[str]]:
    """`find_splits`, or a single annotation file as the split that its name tells."""
    if split in (None, *SPLITS) and Path(path).is_file() and Path(path).suffix.lower() not in YAML_SUFFIXES:
        name = split or ("val" if "val" in Path(path).stem else "train")
        return {name: find_file(Path(path), name, images)}, []
    return find_splits(path, split, images, task)


def records_of(found: dict[str, Files], task: str) -> dict[str, Records]:
    """The records of each split, val's with the classes and keypoints of train."""
    splits: dict[str, Records] = {}
    for name, files in found.items():
        learnt = splits.get("train")
        categories, keypoints = (learnt.categories, learnt.scheme.names) if learnt else (None, ())
        splits[name] = read_records(files.annotations, files.images, categories, task, keypoints)
    return splits
