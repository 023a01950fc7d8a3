"""YOLO sets: a data.yaml says where images lie and what the classes are; yolo_labels.py reads what is in them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.problem_tally import MET
from msad_cli.data.annotations.records import examine
from msad_cli.data.annotations.values import shown
from msad_cli.data.images.names import outward_links
from msad_cli.data.images.split_images import look_at_images
from msad_cli.data.layouts.base import Files, Layout
from msad_cli.data.layouts.cache import Converted, cached
from msad_cli.data.layouts.drawing import validation_part
from msad_cli.data.layouts.split_names import own_split
from msad_cli.data.layouts.yolo_class_files import CLASSES, report_other_names
from msad_cli.data.layouts.yolo_images import Chosen, field_of, images_of, splits_there
from msad_cli.data.layouts.yolo_label_files import (
    find_labels,
    label_name,
    report_labels,
    report_lost,
    report_other_labels,
)
from msad_cli.data.layouts.yolo_labels import Labels, read_labels
from msad_cli.data.layouts.yolo_yaml import YoloSet, read_yolo, yolo_file
from msad_cli.errors import DataError


def _find(place: Path, split: str, images: Path | None, task: str) -> Files:
    file = yolo_file(place)
    assert file is not None, "the layout recognised the place by it"
    return read_split_of(read_yolo(file), split, images, f"YOLO set ({file.name})")


def read_split_of(of: YoloSet, split: str, images: Path | None, recognised: str) -> Files:
    """Where a split of a YOLO set lies, once it is made COCO's.

    Args:
        of: what is said of it.
        split: `train`, `val` or `test`.
        images: the folder of the images, where the user names it.
        recognised: as what the set was.

    Raises:
        AbsentSplitError: the set has no such split.
        DataError: a file of the set cannot be used.
    """
    there, gone = splits_there(of.root, of.fields)
    own = own_split(split, there, of.file, f"{split}:")
    chosen = images_of(of.file, of.root, field_of(of.fields, own.split)[0], there[own.split])
    notes = [*of.notes, *(f"{of.file}: {each}" for each in gone), *own.notes]
    if own.drawn:
        validation, note = validation_part(chosen.names, of.file)
        chosen.names = [each for each in chosen.names if (each in validation) == (split == "val")]
        notes.append(note)
    for name in chosen.names:
        if name in chosen.elsewhere:
            chosen.tally.add(kinds.ELSEWHERE, "{}", chosen.elsewhere[name])
    labels = find_labels(of.root, chosen.names)
    for label, target in outward_links(of.root, labels.values()).items():
        raise DataError(
            f"{of.root / label}: a link to {target}, outside {of.root}",
            "put the file itself there",
            code="link-outward",
        )
    wanted = [labels.get(each, label_name(each)) for each in chosen.names]
    folders = {os.path.dirname(each) for each in (*chosen.names, *wanted)}
    beside = [os.path.join(each, CLASSES) for each in sorted({".", *folders})]
    inside = (*chosen.names, *wanted, *sorted(folders), *beside)
    sources = [of.file, *chosen.lists, *(of.root / each for each in inside)]
    annotations, others = cached(f"yolo-{split}", sources, lambda: _convert(of, chosen, labels, split), of.names)
    return Files(annotations, images or of.root, recognised, (*notes, *others), of.root, stated=False)


def _convert(of: YoloSet, chosen: Chosen, labels: Mapping[str, str], split: str) -> Converted:
    images: list[dict[str, Any]] = [{"id": i, "file_name": name} for i, name in enumerate(chosen.names, start=1)]
    seen = look_at_images(examine({"images": images, "categories": [], "annotations": []}, of.file, of.root))
    sizes = dict(zip(map(str, seen.paths), seen.sizes.tolist(), strict=True))
    annotations: list[dict[str, Any]] = []
    met, unlabelled = Labels(), 0
    for image in images:
        height, width = sizes.get(str(of.root / image["file_name"]), (0, 0))
        if not height:
            continue  # the check names it, and nobody knows where in it the objects are
        image |= {"width": width, "height": height}
        label = labels.get(image["file_name"])
        found = read_labels(of.root / label, (width, height), of.names, of.keypoints, met) if label else []
        unlabelled += not found
        annotations += [{"image_id": image["id"], **each} for each in found]
    for number, each in enumerate(annotations, start=1):
        each |= {"id": number, "iscrowd": 0}
    notes = [f"{of.file}: {each}" for each in met.report(chosen.tally)]
    if unlabelled:
        some = f"{unlabelled} of {len(chosen.names)} images"
        notes.append(f"{of.file}: {some} have no label file or an empty one, and are background")
    report_labels(of.root, chosen.folders, labels, chosen.tally)
    if not labels:
        report_lost(of.root, chosen.names, split == "train", chosen.tally)
    report_other_labels(of.root, chosen.names, labels, chosen.tally)
    report_other_names(of.root, {os.path.dirname(each) for each in labels.values()}, of.names, chosen.tally)
    document = {"images": images, "annotations": annotations, "categories": _categories(of)}
    return Converted({**document, MET: chosen.tally.to_plain()}, tuple(notes))


def _categories(of: YoloSet) -> list[dict[str, Any]]:
    """With the numbers of the labels as ids."""
    categories: list[dict[str, Any]] = [{"id": number, "name": name} for number, name in of.names.items()]
    count = of.keypoints[0]
    for each in categories if count else ():
        stated = of.fields.get("kpt_names")
        names = stated.get(each["id"]) if isinstance(stated, dict) else stated
        each["keypoints"] = names or [str(number) for number in range(1, count + 1)]
        if not _is_list_of(each["keypoints"], str, count):
            raise DataError(
                f"{of.file}: kpt_names {shown(stated)}",
                f"{count} names for each class, or leave it away",
                code="keypoint-names-malformed",
            )
        if of.fields.get("skeleton"):
            each["skeleton"] = of.fields["skeleton"]  # as COCO has it; what is malformed, the reader says
        if (flipped := of.fields.get("flip_idx")) is not None:
            if not _is_list_of(flipped, int, count):
                raise DataError(
                    f"{of.file}: flip_idx {shown(flipped)}",
                    f"{count} places from 0, or leave it away",
                    code="keypoint-flips-malformed",
                )
            each["flip_idx"] = flipped
    return categories


def _is_list_of(value: object, kind: type, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(type(each) is kind for each in value)


LAYOUT = Layout("data.yaml", lambda place: yolo_file(place) is not None, _find)
