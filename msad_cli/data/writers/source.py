"""What is written as a set of another layout, and what every writer has to answer."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msad_cli.data.agreement.as_meant import as_meant
from msad_cli.data.annotations.boxes import Judged, judge_boxes
from msad_cli.data.annotations.keypoint_scheme import with_keypoints
from msad_cli.data.annotations.problem_tally import Tally
from msad_cli.data.annotations.records import Records, examine
from msad_cli.data.images.split_images import SplitImages, look_at_images
from msad_cli.data.layouts.base import Files
from msad_cli.errors import DataError

Notes = Counter[str]
"""What a format cannot hold, or what is missing, and how often."""


@dataclass(frozen=True)
class Source:
    """A split to be written.

    Attributes:
        document: COCO's, as it is meant.
        records: made of it.
        looked: its files.
        judged: its boxes.
        places: (I,) names of the images below the folder that they have in common; empty where there is no file.
    """

    document: dict[str, Any]
    records: Records
    looked: SplitImages
    judged: Judged
    places: list[str]


Write = Callable[[Path, Mapping[str, Source]], Notes]
"""Writes splits, by name, into a folder that is not there yet. Raises `DataError` where the layout cannot hold them."""


def natural_task(document: Mapping[str, Any]) -> str:
    """The task that a COCO document has the most for: `keypoints`, `masks` or `boxes`."""
    if with_keypoints(document["categories"]):
        return "keypoints"
    segmented = any(isinstance(each, dict) and each.get("segmentation") for each in document["annotations"])
    return "masks" if segmented else "boxes"


def to_be_written(document: dict[str, Any], files: Files, task: str, learnt: Records | None) -> Source:
    """A split, if it can be used.

    Args:
        document: of the annotation file.
        files: that it was read from.
        task: `boxes`, `masks` or `keypoints`.
        learnt: the training split, whose classes and keypoints the others share.

    Raises:
        DataError: something is wrong that is fatal.
    """
    categories, names = (None, ()) if learnt is None else (learnt.categories, learnt.scheme.names)
    file = files.annotations
    records = examine(document, file, files.images, categories, task, names, files.root)
    images = look_at_images(records)
    judged = judge_boxes(records, images.sizes)
    for problem in (*records.problems, *images.problems):
        if problem.fatal:
            raise DataError(f"{file}: {problem.in_words()}", problem.advice, code=problem.code)
    names = records.file_names.tolist()
    above = os.path.commonpath([os.path.dirname(name) for name in names]) if names else ""
    seen = (images.sizes[:, 0] > 0).tolist()
    places = [os.path.relpath(name, above or ".") if there else "" for name, there in zip(names, seen, strict=True)]
    return Source(as_meant(document, Tally()), records, images, judged, places)


def copy_images(of: Source, folder: Path, notes: Notes) -> None:
    """Copies the images of a split below a folder, each to its place; notes those that have none."""
    for place, path in zip(of.places, of.looked.paths, strict=True):
        if not place:
            notes["images that are missing or unreadable, left out"] += 1
            continue
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / place)
