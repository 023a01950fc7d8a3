"""YOLO sets: data.yaml, images/train/, labels/train/, …, a text file of labels an image."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from msad_cli.data.annotations.boxes import LEAST_CUT
from msad_cli.data.annotations.problems import KEYLESS
from msad_cli.data.annotations.records import Records
from msad_cli.data.annotations.segmentation import encode, overlap
from msad_cli.data.annotations.values import shown
from msad_cli.data.images.decode import IMAGE_SUFFIXES
from msad_cli.data.layouts.yolo_label_files import label_name
from msad_cli.data.writers.source import Notes, Source, copy_images
from msad_cli.data.writers.tracing import one_ring, stretched
from msad_cli.errors import DataError

OTHER_AREA = 0.01
"""Share by which an area differs from that of its box before that is worth a word."""


def write(folder: Path, splits: Mapping[str, Source]) -> Notes:
    """Writes data.yaml, images/train/, labels/train/, …

    Raises:
        DataError: two images would share a file of labels.
    """
    notes = Notes()
    fields: dict[str, Any] = {name: f"images/{name}" for name in splits}
    records = next(iter(splits.values())).records
    fields["names"] = dict(enumerate(name for _, name in records.categories))
    if count := len(records.scheme.names):
        fields["kpt_shape"] = [count, 3]
        fields["kpt_names"] = {number: list(records.scheme.names) for number in fields["names"]}
        if records.scheme.flips:
            fields["flip_idx"] = records.scheme.mirrored
        if records.scheme.skeleton:
            fields["skeleton"] = [[begin + 1, end + 1] for begin, end in records.scheme.skeleton]
            notes["skeleton, kept in data.yaml, where msad alone reads it"] += 1
    folder.mkdir(exist_ok=True)
    for name, of in splits.items():
        copy_images(of, folder / "images" / name, notes)
        for place, lines in _labels(of, name, notes).items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, default_flow_style=None)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    return notes


def _labels(of: Source, split: str, notes: Notes) -> dict[str, list[str]]:
    """Rows of each file of labels, by its name; no row for background."""
    owners: dict[str, str] = {}
    for place in filter(None, of.places):
        label = label_name(f"images/{split}/{place}")
        if owners.setdefault(label, place) != place:
            raise DataError(
                f"{of.records.file}: {shown(place)} and {shown(owners[label])} would share {label}",
                "rename one",
                code="label-file-shared",
            )
        if os.path.splitext(place)[1].lower() not in IMAGE_SUFFIXES:
            notes["images whose suffix YOLO's tools pass over"] += 1
    annotations = of.records.annotations
    lines: dict[str, list[str]] = {label: [] for label in owners}
    notes["crowd regions, or marked 'ignore', left out"] += int(annotations.crowd.sum())
    notes["boxes that are none, outside or repeated, left out"] += int((of.judged.bad & ~annotations.crowd).sum())
    keyless = (each.count for each in of.records.problems if each.code == KEYLESS.code)
    notes["annotations of classes without keypoints, left out"] += sum(keyless)
    for row in np.flatnonzero(~of.judged.bad & ~annotations.crowd).tolist():
        image = int(annotations.images[row])
        if place := of.places[image]:
            numbers = _row(of.records, row, of.looked.sizes[image][::-1], notes)
            lines[label_name(f"images/{split}/{place}")].append(label_row(int(annotations.labels[row]), numbers))
    return lines


def label_row(label: int, numbers: Iterable[float]) -> str:
    """A row of a file of labels: the class, counted from 0 there and from 1 here, and what is said of an object."""
    return " ".join((str(label - 1), *(f"{number:.8f}" for number in numbers)))


def _row(records: Records, row: int, size: NDArray[np.int64], notes: Notes) -> list[float]:
    """The numbers of an object behind its class; `size` is width and height of the image."""
    of = records.annotations
    corners = np.stack([of.boxes[row, :2], of.boxes[row, :2] + of.boxes[row, 2:]])
    cut = corners.clip(0, size)
    notes["boxes cut to their image"] += bool(np.abs(cut - corners).max() > LEAST_CUT)
    if records.task == "masks":
        ring = _ring(records, row, cut, size, notes)
        shares: list[float] = (ring.clip(0, size) / size).ravel().tolist()
        return shares
    area, stated = float(np.prod(cut[1] - cut[0])), float(of.areas[row])
    notes["areas, which YOLO cannot hold (width × height is taken)"] += abs(stated - area) > OTHER_AREA * area
    box: list[float] = np.concatenate([cut.mean(axis=0) / size, (cut[1] - cut[0]) / size]).tolist()
    if records.task != "keypoints":
        return box
    points = of.keypoints[row].copy()
    outside = ((points[:, :2] < 0) | (points[:, :2] > size)).any(axis=1)
    notes["keypoints outside their image, written as unlabelled"] += int(outside.sum())
    points[outside] = 0
    points[:, :2] /= size
    return [*box, *points.ravel().tolist()]


def _ring(
    records: Records, row: int, corners: NDArray[np.float64], size: NDArray[np.int64], notes: Notes
) -> NDArray[np.float64]:
    """The single ring (P, 2) of an object with these corners of its box, in pixels of an image of this size."""
    segmentation, grid = records.annotations.masks.segmentation(row), (int(size[1]), int(size[0]))
    if not segmentation:
        (left, top), (right, bottom) = corners
        notes["objects without a segmentation, written as that of their box"] += 1
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    if isinstance(segmentation, dict):
        notes["RLE masks, written as polygons along the sides of pixels"] += 1
        segmentation = encode(segmentation, grid)  # their own may be another than the image's
    notes["segmentations of several polygons, joined into one"] += (
        isinstance(segmentation, list) and len(segmentation) > 1
    )
    if isinstance(segmentation, list) and overlap(segmentation, grid):
        notes["of these, whose polygons overlap, written as polygons along the sides of pixels"] += 1
        ends = np.concatenate(segmentation).clip(0, size)
        ring = stretched(one_ring(encode(segmentation, grid)), np.stack([ends.min(axis=0), ends.max(axis=0)]))
    else:
        ring = one_ring(segmentation)
    extent = np.stack([ring.min(axis=0), ring.max(axis=0)])
    notes["boxes more than a pixel off their segmentation, which alone is written"] += bool(
        np.abs(extent - corners).max() > LEAST_CUT
    )
    return ring
