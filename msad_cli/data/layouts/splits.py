"""Finding the files of a split, in whatever layout the set is; or a single annotation file."""

from dataclasses import replace
from pathlib import Path

from msad_cli.data.annotations.objects import TASKS
from msad_cli.data.annotations.records import Records, read_document, read_records
from msad_cli.data.layouts import single_json, table
from msad_cli.data.layouts.base import Files, Layout
from msad_cli.data.layouts.coco import split_of
from msad_cli.data.layouts.image_folders import folders_in, image_folder, jsons_in
from msad_cli.data.layouts.named_json import MOST_NAMED
from msad_cli.data.layouts.single_json import set_of
from msad_cli.data.layouts.voc_xml import refuse_other_tool
from msad_cli.data.orientation.upright_labels import upright
from msad_cli.errors import AbsentSplitError, DataError, UsageError

SPLITS = ("train", "val")
"""What a set is learnt from."""
NAMED = (*SPLITS, "test")


def parse_task(task: str) -> None:
    """Does nothing for a task that there is.

    Raises:
        UsageError: there is none of this name.
    """
    if task not in TASKS:
        raise UsageError(f"--task {task}: unknown", f"give {', '.join(TASKS)}", code="unknown-value")


def find_split(
    data: str | None,
    split: str,
    annotations: Path | None = None,
    images: Path | None = None,
    task: str = "boxes",
    exif: str = "auto",
) -> Files:
    """Where a split lies, with labels of upright images.

    Args:
        data: the folder of a set, its data.yaml or single .json, or `demo` (drawn at the first call, then cached);
            None if both paths are given.
        split: `train`, `val` or `test`.
        annotations, images: take the place of what is found in `data`.
        task: `boxes`, `masks` or `keypoints`; a layout may have different files for them.
        exif: whether labels fit images that EXIF turns: `auto`, `keep` or `ignore`, as `upright` takes it.

    Raises:
        UsageError: neither `data` nor both paths.
        DataError: no such folder, nothing in it that msad recognises, or a file of another layout than COCO's that
            cannot be used, with its line.
    """
    return upright(_find(data, split, annotations, images, task), exif)


def _find(data: str | None, split: str, annotations: Path | None, images: Path | None, task: str) -> Files:
    if annotations is not None and images is not None:
        return Files(annotations, images, "files as given")
    if not data:
        raise UsageError("no data given", "add --data DIR, or --data demo for the built-in set", code="no-data-given")
    place, named = Path(data), next((each for each in table.LAYOUTS if each.word == data), None)
    if named is None and not place.exists():
        raise DataError(
            f"{data}: no such folder", "give the folder of a set, or the word demo", code="data-folder-missing"
        )
    if annotations is None:
        return (named or _recognised(place, split)).find(place, split, images, task)
    if named is not None:
        return replace(named.find(place, split, images, task), annotations=annotations)
    folder, notes = (images, ()) if images else image_folder(place, annotations, split, f"--{split}-images")
    return Files(annotations, folder, f"COCO folder ({annotations.name})", notes, place)


def _layout_of(place: Path) -> Layout | None:
    return next((each for each in table.LAYOUTS if each.recognises(place)), None)


def _recognised(place: Path, split: str) -> Layout:
    """The layout of the set at a place.

    Raises:
        DataError: msad does not know it.
    """
    if (found := _layout_of(place)) is not None:
        return found
    if place.is_file():
        raise DataError(
            f"{place}: a file, not a folder",
            "give the folder of a set, a .json or a data.yaml",
            code="data-is-a-file",
        )
    if files := sorted(each.relative_to(place) for at in (place, place / "annotations") for each in jsons_in(at)):
        read_document(place / files[0])  # says whose it is, if it is another tool's
        names = ", ".join(map(str, files[:MOST_NAMED]))
        raise DataError(
            f"{place}: several .json files, of which none is named after a split: {names}",
            "tell which is which: --train-json FILE and --val-json FILE, or call them train.json and val.json",
            code="annotation-file-ambiguous",
        )
    for each in sorted((*place.glob("*.xml"), *place.glob("annotations/*.xml")))[:1]:
        refuse_other_tool(each)
    within = next((each for each in folders_in(place) if _layout_of(each)), None)
    *others, last = (each.sign.format(split=split) for each in table.LAYOUTS if each.sign)
    raise DataError(
        f"{place}: no set that msad knows: no {', '.join(others)}, nor {last}",
        f"there is one in {within}: give that folder" if within else "docs/data.md shows the layouts",
        code="unknown-layout",
    )


def find_file(file: Path, split: str, images: Path | None = None, exif: str = "auto") -> Files:
    """A single annotation file of a split and its images: `images`, or the folder that lies beside it as in COCO.

    Raises:
        AbsentSplitError: there is no such folder.
    """
    root = set_of(file)
    folder, notes = (images, ()) if images else image_folder(root, file, split, "--images")
    return upright(Files(file, folder, "an annotation file", notes, root), exif)


def find_splits(
    path: str, split: str | None, images: Path | None, task: str, exif: str = "auto"
) -> tuple[dict[str, Files], list[str]]:
    """The splits of a set by name; how they were read, and why others are not, in words.

    Raises:
        UsageError: an unknown split, or a folder of images for two splits.
        DataError: there is no split, or one cannot be read.
    """
    if split not in (None, *NAMED):
        raise UsageError(f"--split {split}: unknown", f"give {' or '.join(NAMED)}", code="unknown-value")
    if images is not None and split is None:
        raise UsageError(
            "--images with a folder of two splits", "add --split train or --split val", code="images-of-two-splits"
        )
    found: dict[str, Files] = {}
    absent = []
    for name in [split] if split else SPLITS:
        try:
            found[name] = find_split(path, name, images=images, task=task, exif=exif)
        except AbsentSplitError as error:
            absent.append(error)
    if not found:
        raise absent[0]
    said = [f"{name}: {files.recognised}" for name, files in found.items()]
    said += dict.fromkeys(note for files in found.values() for note in files.notes)
    missing = "val" if "train" in found else "train"
    return found, [*said, *(f"no {missing} split: {error.message}" for error in absent)]


def find_splits_or_file(
    path: str, split: str | None, images: Path | None, task: str, exif: str = "auto"
) -> tuple[dict[str, Files], list[str]]:
    """`find_splits`, or a single annotation file as the split that its name tells."""
    place = Path(path)
    # A .json is looked at as it is, not split into train and val as it is to be learnt from.
    if split in (None, *NAMED) and place.is_file() and _layout_of(place) is single_json.LAYOUT:
        name = split or split_of(place) or "train"
        files = find_file(place, name, images, exif)
        return {name: files}, list(files.notes)
    return find_splits(path, split, images, task, exif)


def records_of(found: dict[str, Files], task: str) -> dict[str, Records]:
    """The records of each split, val's with the classes and keypoints of train."""
    splits: dict[str, Records] = {}
    for name, files in found.items():
        learnt = splits.get("train")
        categories, keypoints = (learnt.categories, learnt.scheme.names) if learnt else (None, ())
        splits[name] = read_records(files.annotations, files.images, categories, task, keypoints, files.root)
    return splits
