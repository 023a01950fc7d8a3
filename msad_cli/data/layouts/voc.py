"""Pascal VOC: an XML file an image, and lists of the images of each split.

Corners count pixels from 1 and include the last one: what VOC calls 1, 1, 10, 10 covers 0 to 10 here.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

from msad_cli.data.annotations.values import read_side, shown
from msad_cli.data.images.decode import IMAGE_SUFFIXES
from msad_cli.data.images.names import outward_links, refused_name
from msad_cli.data.layouts.base import Files, Layout
from msad_cli.data.layouts.cache import DECIMALS, Converted, cached, read_text
from msad_cli.data.layouts.drawing import validation_part
from msad_cli.errors import AbsentSplitError, DataError

LISTS = {"train": ("train", "trainval"), "val": ("val", "test")}
"""Lists of ImageSets/Main by split; the first that is there is taken."""
DEEPEST = 50
"""Elements within each other."""
CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass
class _Element:
    tag: str
    line: int
    text: str = ""
    children: "list[_Element]" = field(default_factory=list)

    def all(self, tag: str) -> "Iterator[_Element]":
        return (each for each in self.children if each.tag == tag)

    def text_of(self, tag: str) -> str:
        """Of the first child of that name; empty without one."""
        return next((each.text.strip() for each in self.all(tag)), "")


def _recognises(folder: Path) -> bool:
    return next((folder / "Annotations").glob("*.xml"), None) is not None


def _find(place: Path, split: str, images: Path | None, task: str) -> Files:
    files = sorted((place / "Annotations").rglob("[!.]*.xml"))  # macOS leaves ._a.xml beside a.xml
    names, list_file, notes = _names(place, split, files)
    read = [*files, *([list_file] if list_file else [])]
    for name, target in outward_links(place, [str(each.relative_to(place)) for each in read]).items():
        raise DataError(
            f"{place / name}: a link to {target}, outside {place}", "put the file itself there", code="link-outward"
        )
    own = place / "JPEGImages"
    annotations, others = cached(f"voc-{split}", [*read, own], lambda: _convert(place, own, files, names))
    return Files(annotations, images or own, "Pascal VOC folder", (*notes, *others))


def _names(folder: Path, split: str, files: Sequence[Path]) -> tuple[list[str], Path | None, tuple[str, ...]]:
    """The images of a split without suffix, the list that names them, and notes."""
    found = {of: folder / "ImageSets" / "Main" / f"{of}.txt" for each in LISTS.values() for of in each}
    lists = [found[of] for of in LISTS[split] if found[of].is_file()]
    if not lists and any(each.is_file() for each in found.values()):
        wanted = " nor ".join(f"{of}.txt" for of in LISTS[split])
        raise AbsentSplitError(
            f"{found[split].parent}: neither {wanted}",
            f"list the images of {split}, a name a line",
            code="split-missing",
        )
    if not lists:
        annotations = folder / "Annotations"
        stems = [each.relative_to(annotations).with_suffix("").as_posix() for each in files]
        validation, note = validation_part(stems, folder)
        return sorted(each for each in stems if (each in validation) == (split == "val")), None, (note,)
    names: dict[str, None] = {}
    for number, line in enumerate(read_text(lists[0]).splitlines(), start=1):
        if not (name := line.strip()):
            continue
        if reason := refused_name(name):
            raise DataError(
                f"{lists[0]}, line {number}: {shown(name)} {reason}",
                "list names without suffix",
                code="file-name-refused",
            )
        names[name] = None
    return list(names), lists[0], (f"{split} is {lists[0]}",) if lists[0] != found[split] else ()


def _convert(folder: Path, images: Path, files: Sequence[Path], names: Sequence[str]) -> Converted:
    annotations_folder = folder / "Annotations"
    roots = {each.relative_to(annotations_folder).with_suffix("").as_posix(): _parse(each) for each in files}
    # Of all splits, so that they number the classes alike.
    classes = sorted({each.text_of("name") for root in roots.values() for each in root.all("object")} - {""})
    by_stem = _images(images)
    found: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, name in enumerate(names, start=1):
        root = roots.get(name)
        if root is None:
            raise DataError(
                f"{annotations_folder / name}.xml: no such file",
                "take the name out of the list, or add it",
                code="annotation-file-missing",
            )
        size = next(root.all("size"), _Element("size", root.line))
        sides = {side: read_side(_number(size.text_of(side))) for side in ("width", "height")}
        stated = sides if all(sides.values()) else {}
        found.append({"id": number, "file_name": by_stem.get(name, f"{name}.jpg"), **stated})
        for each in root.all("object"):
            own = _read_object(annotations_folder / f"{name}.xml", each, classes)
            annotations.append({"id": len(annotations) + 1, "image_id": number, **own})
    crowds = sum(each["iscrowd"] for each in annotations)
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    note = f"{folder}: {crowds} objects called difficult are neither learnt nor counted as missed, like COCO's crowds"
    document = {"images": found, "annotations": annotations, "categories": categories}
    return Converted(document, (note,) if crowds else ())


def _images(images: Path) -> dict[str, str]:
    """Names of the images by their names without suffix, both relative to the folder."""
    names = (os.path.relpath(os.path.join(at, name), images) for at, _, files in os.walk(images) for name in files)
    parts = (os.path.splitext(name) for name in sorted(names))
    return {stem: stem + suffix for stem, suffix in parts if suffix.lower() in IMAGE_SUFFIXES}


def _read_object(file: Path, element: _Element, classes: Sequence[str]) -> dict[str, Any]:
    name = element.text_of("name")
    if not name:
        raise DataError(
            f"{file}, line {element.line}: an object without a name", "name its class", code="object-without-name"
        )
    box = next(element.all("bndbox"), None)
    if box is None:
        raise DataError(
            f"{file}, line {element.line}: an object without a bndbox",
            "give its corners, or take it out",
            code="object-without-box",
        )
    corners = []
    for corner in CORNERS:
        value = _number(box.text_of(corner))
        if value is None:
            raise DataError(
                f"{file}, line {box.line}: {corner} {shown(box.text_of(corner))} is no number",
                "a bndbox has the pixels xmin, ymin, xmax and ymax, counted from 1",
                code="corner-not-a-number",
            )
        corners.append(value)
    left, top, right, bottom = corners
    bbox = [round(each, DECIMALS) for each in (left - 1, top - 1, right - left + 1, bottom - top + 1)]
    crowd = int(element.text_of("difficult") == "1")
    category = classes.index(name) + 1
    return {"category_id": category, "bbox": bbox, "area": max(0.0, bbox[2] * bbox[3]), "iscrowd": crowd}


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def _parse(file: Path) -> _Element:
    """The elements of an XML file with their lines, below its outermost one."""
    parser = expat.ParserCreate()
    above = [_Element("", 0)]

    def start(tag: str, _: object) -> None:
        if len(above) > DEEPEST:
            raise ValueError("elements lie too deep")
        above[-1].children.append(_Element(tag, parser.CurrentLineNumber))
        above.append(above[-1].children[-1])

    def take(text: str) -> None:
        above[-1].text += text

    def refuse(*_: object) -> None:
        raise ValueError("declares entities, which no annotation needs")

    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: above.pop()
    parser.CharacterDataHandler = take
    parser.EntityDeclHandler = refuse  # a few of them can stand for gigabytes, or for another file
    try:
        parser.Parse(read_text(file), True)
    except expat.ExpatError as error:
        what = expat.ErrorString(error.code)
        raise DataError(
            f"{file}: broken XML at line {error.lineno}, column {error.offset + 1}: {what}", code="xml-broken"
        ) from None
    except ValueError as error:
        raise DataError(f"{file}, line {parser.CurrentLineNumber}: {error}", code="xml-refused") from None
    return above[0].children[0]


LAYOUT = Layout("Annotations/*.xml", _recognises, _find)
