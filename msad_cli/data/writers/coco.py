"""COCO folders: annotations/instances_train2017.json, train2017/, …"""

import json
from collections.abc import Mapping
from pathlib import Path

from msad_cli.data.annotations.problem_tally import MET
from msad_cli.data.annotations.records import root_categories
from msad_cli.data.annotations.values import whole_number
from msad_cli.data.writers.source import Notes, Source, copy_images


def write(folder: Path, splits: Mapping[str, Source]) -> Notes:
    """Writes annotations/instances_train2017.json, train2017/, …; annotations stay as they are."""
    notes = Notes()
    for name, of in splits.items():
        copy_images(of, folder / f"{name}2017", notes)
        place: dict[int | None, str] = dict(zip(of.records.image_ids.tolist(), of.places, strict=True))
        named = [{**each, "file_name": place.get(whole_number(each["id"]))} for each in of.document["images"]]
        images = [each for each in named if each["file_name"]]
        there = {whole_number(each["id"]) for each in images}
        root = root_categories(of.document)
        document = {
            **{field: value for field, value in of.document.items() if field != MET},
            "images": images,
            "annotations": [each for each in of.document["annotations"] if whole_number(each["image_id"]) in there],
            "categories": [each for each in of.document["categories"] if whole_number(each["id"]) not in root],
        }
        kind = "person_keypoints" if of.records.task == "keypoints" else "instances"
        file = folder / "annotations" / f"{kind}_{name}2017.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(document) + "\n", encoding="utf-8")
    return notes
