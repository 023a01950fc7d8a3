"""Roboflow's COCO export: each split's folder holds its images and one annotation file."""

from pathlib import Path

from msad_cli.data.layouts.base import Files, Layout
from msad_cli.errors import AbsentSplitError

FILE = "_annotations.coco.json"
FOLDERS = {"train": ("train",), "val": ("valid", "val", "test")}
"""By split; the first that is there is taken."""


def _recognises(place: Path) -> bool:
    return any((place / each / FILE).is_file() for names in FOLDERS.values() for each in names)


def _find(place: Path, split: str, images: Path | None, task: str) -> Files:
    names = FOLDERS[split]
    found = next((place / each for each in names if (place / each / FILE).is_file()), None)
    if found is None:
        raise AbsentSplitError(
            f"{place}: no {' nor '.join(f'{each}/{FILE}' for each in names)}",
            f"add a split for {split}",
            code="split-missing",
        )
    return Files(found / FILE, images or found, f"Roboflow COCO folder ({found.name}/{FILE})")


LAYOUT = Layout("{split}/" + FILE, _recognises, _find)
