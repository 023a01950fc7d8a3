"""Pascal VOC folders: Annotations/*.xml, ImageSets/Main/train.txt, JPEGImages/, …; boxes alone."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from msad_cli.data.annotations.boxes import LEAST_CUT
from msad_cli.data.annotations.values import shown
from msad_cli.data.writers.source import Notes, Source, copy_images
from msad_cli.errors import DataError

DECIMALS = 4
"""Of pixels."""


def write(folder: Path, splits: Mapping[str, Source]) -> Notes:
    """Writes Annotations/, ImageSets/Main/ and JPEGImages/.

    Where splits have images of the same name, the split's name is put before all names.

    Raises:
        DataError: two images would share an XML file.
    """
    notes = Notes()
    stems = Counter(os.path.splitext(place)[0] for of in splits.values() for place in filter(None, of.places))
    apart = len(splits) > 1 and max(stems.values(), default=0) > 1
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (folder / "Annotations").mkdir()
    for split, source in splits.items():
        of = replace(source, places=[_named(place, f"{split}_" if apart else "") for place in source.places])
        copy_images(of, folder / "JPEGImages", notes)
        names = _names(of)
        objects = _objects(of, notes)
        for image, name in names.items():
            file = folder / "Annotations" / f"{name}.xml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_document(of, image, objects.get(image, [])), encoding="utf-8")
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names.values()), encoding="utf-8")
    first = next(iter(splits.values())).records
    used = {int(each) for of in splits.values() for each in np.unique(of.records.annotations.labels)}
    notes["classes without objects, which VOC cannot hold"] += len(first.categories) - len(used)
    return notes


def _named(place: str, prefix: str) -> str:
    """The name of an image with something in front of it; none stays none."""
    folder, name = os.path.split(place)
    return os.path.join(folder, prefix + name) if place else ""


def _names(of: Source) -> dict[int, str]:
    """The name of each image without suffix, by its place; images without a file are left out."""
    owners: dict[str, str] = {}
    for place in filter(None, of.places):
        name = os.path.splitext(place)[0]
        if owners.setdefault(name, place) != place:
            raise DataError(
                f"{of.records.file}: {shown(place)} and {shown(owners[name])} would share {name}.xml",
                "rename one",
                code="label-file-shared",
            )
    return {i: os.path.splitext(place)[0] for i, place in enumerate(of.places) if place}


def _objects(of: Source, notes: Notes) -> dict[int, list[str]]:
    """The elements of each image's objects, by the image's place."""
    records, annotations = of.records, of.records.annotations
    found: dict[int, list[str]] = {}
    notes["boxes that are none, outside or repeated, left out"] += int(of.judged.bad.sum())
    notes["crowd regions, written as difficult"] += int((annotations.crowd & ~of.judged.bad).sum())
    for row in np.flatnonzero(~of.judged.bad).tolist():
        image = int(annotations.images[row])
        if not of.places[image]:
            continue
        corners = np.stack([annotations.boxes[row, :2], annotations.boxes[row, :2] + annotations.boxes[row, 2:]])
        cut = corners.clip(0, of.looked.sizes[image][::-1])
        notes["boxes cut to their image"] += bool(np.abs(cut - corners).max() > LEAST_CUT)
        notes["segmentations, which VOC cannot hold"] += not np.isnan(annotations.outlines[row, 0])
        notes["lists of keypoints, which VOC cannot hold"] += bool(annotations.keypoints[row].any())
        name = records.categories[int(annotations.labels[row]) - 1][1]
        found.setdefault(image, []).append(_object(name, cut, bool(annotations.crowd[row])))
    return found


def _object(name: str, corners: NDArray[np.float64], difficult: bool) -> str:
    """An object; VOC counts pixels from 1 and includes the last one."""
    (left, top), (right, bottom) = (corners + np.array([(1, 1), (0, 0)])).round(DECIMALS).tolist()
    sides = zip(("xmin", "ymin", "xmax", "ymax"), (left, top, right, bottom), strict=True)
    box = "".join(f"<{side}>{value:.10g}</{side}>" for side, value in sides)
    return (
        f"  <object><name>{escape(name)}</name><pose>Unspecified</pose><truncated>0</truncated>"
        f"<difficult>{int(difficult)}</difficult><bndbox>{box}</bndbox></object>\n"
    )


def _document(of: Source, image: int, objects: list[str]) -> str:
    height, width = of.looked.sizes[image].tolist()
    size = f"<width>{width}</width><height>{height}</height><depth>3</depth>"
    name = escape(os.path.basename(of.places[image]))
    return f"<annotation>\n  <filename>{name}</filename>\n  <size>{size}</size>\n{''.join(objects)}</annotation>\n"
