"""Pascal VOC: an XML file an image, and lists of the images of each split.

Corners count pixels from 1 and include the last one: what VOC calls 1, 1, 10, 10 covers 0 to 10 here. A set with a
corner at 0 counts from 0, and its ends are outside.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.problem_tally import MET, Tally
from msad_cli.data.annotations.values import read_flag, read_side, shown
from msad_cli.data.images.decode import IMAGE_SUFFIXES
from msad_cli.data.images.names import outward_links
from msad_cli.data.images.places import files_below
from msad_cli.data.layouts.base import Files, Layout
from msad_cli.data.layouts.cache import Converted, cached, report_bad
from msad_cli.data.layouts.voc_images import images_of
from msad_cli.data.layouts.voc_splits import Choice, choose
from msad_cli.data.layouts.voc_xml import Corners, Element, number, parse, read_corners, refuse_other_tool
from msad_cli.errors import DataError

FOLDERS = ("annotations", "annotation", "xmls", "xml")
"""What the folder of the XML files is called, whatever the case."""
IMAGES = "jpegimages"


@dataclass(frozen=True)
class VocSet:
    """The files of a set.

    Attributes:
        root: its folder.
        annotations: the folder of the XML files, relative to the root.
        files: XML files by their names without suffix, relative to that folder.
        images: the folder that names of images are relative to.
        found: images in it and below.
    """

    root: Path
    annotations: str
    files: Mapping[str, Path]
    images: Path
    found: Sequence[str]


def _folder(place: Path) -> str | None:
    """The folder of the XML files, if it is called as such and has some."""
    every = sorted(place.iterdir()) if place.is_dir() else []
    named = (each for each in every if each.name.casefold() in FOLDERS and each.is_dir())
    return next((each.name for each in named if any(map(_is_xml, files_below(place, each.name)))), None)


def _find(place: Path, split: str, images: Path | None, task: str) -> Files:
    folder = _folder(place)
    assert folder is not None, "the layout recognised the place by it"
    files = [place / each for each in files_below(place, folder) if _is_xml(each)]
    return read_split_of(place, folder, files, split, images)


def read_split_of(place: Path, folder: str, files: Sequence[Path], split: str, images: Path | None) -> Files:
    """Where a split of a VOC set lies, once it is made COCO's.

    Args:
        place: the folder of the set.
        folder: of the XML files, relative to that.
        files: these.
        split: `train`, `val` or `test`.
        images: the folder of the images, where the user names it.

    Raises:
        AbsentSplitError: the set has no such split.
        DataError: a file of the set cannot be used.
    """
    refuse_other_tool(files[0])
    stems = {os.path.splitext(os.path.relpath(each, place / folder))[0]: each for each in sorted(files)}
    choice = choose(place, split, list(stems))
    read = [*stems.values(), *choice.lists]
    for name, target in outward_links(place, [os.path.relpath(each, place) for each in read]).items():
        raise DataError(
            f"{place / name}: a link to {target}, outside {place}", "put the file itself there", code="link-outward"
        )
    own = images or next((each for each in place.iterdir() if each.name.casefold() == IMAGES and each.is_dir()), place)
    found = [each for each in files_below(own) if os.path.splitext(each)[1].lower() in IMAGE_SUFFIXES]
    of = VocSet(place, folder, stems, own, found)
    folders = sorted({own, *((own / each).parent for each in found)})
    annotations, notes = cached(f"voc-{split}", [*read, *folders], lambda: _convert(of, choice))
    return Files(annotations, own, "Pascal VOC folder", (*choice.notes, *notes), place)


def _convert(of: VocSet, choice: Choice) -> Converted:
    roots = {stem: parse(file) for stem, file in of.files.items()}
    # Of all splits, so that they number the classes alike, and count pixels from the same number.
    classes = sorted({each.text_of("name") for root in roots.values() for each in root.all("object")} - {""})
    zeros = sum(_is_at_zero(each) for root in roots.values() for each in root.all("object"))
    for name in choice.names:
        if name not in roots:
            raise DataError(
                f"{of.root / of.annotations / name}.xml: no such file",
                "take the name out of the list, or add it",
                code="annotation-file-missing",
            )
    tally = Tally()
    told = {name: root.text_of("filename") for name, root in roots.items()}
    beside = os.path.relpath(of.root / of.annotations, of.images)
    placed, shared = images_of(told, of.found, beside)
    for name in choice.names:
        if name in shared:
            tally.add(kinds.SHARED_LABELS, "{} has {}", shown(name), " and ".join(map(shown, shared[name])))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    bad: list[str] = []
    total = enclosed = 0
    for image, name in enumerate(choice.names, start=1):
        size = next(roots[name].all("size"), Element("size", 0))
        sides = {side: read_side(number(size.text_of(side))) for side in ("width", "height")}
        images.append({"id": image, "file_name": placed[name], **(sides if all(sides.values()) else {})})
        for each in roots[name].all("object"):
            total += 1
            try:
                corners = read_corners(each)
                own = _annotation(each, corners, classes, 0 if zeros else 1)
            except ValueError as error:
                bad.append(f"{of.files[name]}, line {each.line}: {error}")
                continue
            enclosed += not corners.counted
            annotations.append({"id": len(annotations) + 1, "image_id": image, **own})
    report_bad(bad, total, tally)
    categories = [{"id": place, "name": name} for place, name in enumerate(classes, start=1)]
    document = {"images": images, "annotations": annotations, "categories": categories, MET: tally.to_plain()}
    crowds = sum(each["iscrowd"] for each in annotations)
    taken = set(placed.values())
    homes = {os.path.dirname(each) for each in taken}
    alone = [each for each in of.found if os.path.dirname(each) in homes and each not in taken]
    notes = {
        "images have no XML file, and are left out": 0 if choice.lists else len(alone),
        "objects have a corner at 0: all corners are counted from 0, and ends are outside": zeros,
        "objects without a bndbox are read as the box that encloses their robndbox or polygon": enclosed,
        "objects called difficult are neither learnt nor counted as missed, like COCO's crowds": crowds,
    }
    return Converted(document, tuple(f"{of.root}: {count} {what}" for what, count in notes.items() if count))


def _is_at_zero(element: Element) -> bool:
    """Whether an object's first corner can be none that counts from 1."""
    try:
        corners = read_corners(element)
    except ValueError:
        return False
    left, top, right, bottom = corners.ends
    first = min(left, top)
    return corners.counted and 0 <= first < 1 and right > left and bottom > top


def _annotation(element: Element, corners: Corners, classes: Sequence[str], first: int) -> dict[str, Any]:
    name = element.text_of("name")
    if not name:
        raise ValueError("an object without a name")
    bbox = corners.box(first)
    crowd = read_flag(element.text_of("difficult"))
    category = classes.index(name) + 1
    area = max(0.0, bbox[2] * bbox[3])
    own = {"category_id": category, "bbox": bbox, "area": area, "iscrowd": crowd, "difficult": crowd}
    return own | _rotation(element)


def _rotation(element: Element) -> dict[str, Any]:
    """What CVAT says of a rectangle that was turned, as its COCO files have it; nothing where it says nothing."""
    for attribute in next(element.all("attributes"), element).all("attribute"):
        if attribute.text_of("name") == "rotation" and (degrees := number(attribute.text_of("value"))):
            return {"attributes": {"rotation": degrees}}
    return {}


def _is_xml(name: str) -> bool:
    return os.path.splitext(name)[1].lower() == ".xml"


LAYOUT = Layout("Annotations/*.xml", lambda place: _folder(place) is not None, _find)
