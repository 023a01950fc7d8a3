"""Pascal VOC's XML files beside the images, as labelImg and Roboflow write them: in one folder, or in one a split."""

from pathlib import Path

from msad_cli.data.images.places import files_below
from msad_cli.data.layouts.base import Files, Layout
from msad_cli.data.layouts.voc import read_split_of
from msad_cli.data.layouts.voc_xml import is_annotation


def _files(place: Path) -> list[Path]:
    """XML files of one image each."""
    every = (place / each for each in files_below(place) if each.lower().endswith(".xml"))
    return [each for each in every if is_annotation(each)] if place.is_dir() else []


def _find(place: Path, split: str, images: Path | None, task: str) -> Files:
    return read_split_of(place, ".", _files(place), split, images)


LAYOUT = Layout("*.xml", lambda place: bool(_files(place)), _find)
