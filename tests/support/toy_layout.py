"""A layout that nobody uses, as a file of its own would hold it: boxes.txt has a row `file x y width height` each.

All images are those of train.
"""

from pathlib import Path
from typing import Any

from msad_cli.data.layouts.base import Files, Layout
from msad_cli.data.layouts.cache import Converted, cached, read_text
from msad_cli.errors import AbsentSplitError

FILE = "boxes.txt"


def _find(place: Path, split: str, images: Path | None, task: str) -> Files:
    if split != "train":
        raise AbsentSplitError(f"{place}: a toy has no {split}", "give it a train", code="split-missing")
    annotations, notes = cached("toy", [place / FILE], lambda: _convert(place / FILE))
    return Files(annotations, images or place, "toy set", notes)


def _convert(file: Path) -> Converted:
    rows = [line.split() for line in read_text(file).splitlines()]
    names = list(dict.fromkeys(row[0] for row in rows))
    annotations: list[dict[str, Any]] = [
        {"id": i, "image_id": names.index(name) + 1, "category_id": 1, "bbox": [float(each) for each in box]}
        for i, (name, *box) in enumerate(rows, start=1)
    ]
    images = [{"id": i, "file_name": name} for i, name in enumerate(names, start=1)]
    return Converted({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]})


LAYOUT = Layout(FILE, lambda place: (place / FILE).is_file(), _find)
