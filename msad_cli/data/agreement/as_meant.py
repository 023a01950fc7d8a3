"""A COCO document as its writer meant it, where tools write otherwise than COCO and there is no doubt.

Nothing is changed in a document that says what COCO says; what is changed is counted. Reading the result again changes
nothing more.
"""

import math
from collections.abc import Collection, Hashable, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

import numpy as np

from msad_cli.data.agreement.forms import near, nearer
from msad_cli.data.agreement.outlines import Extent, outline_of
from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.problem_tally import Tally
from msad_cli.data.annotations.segmentation import read_segmentation
from msad_cli.data.annotations.values import read_box, read_side, shown, whole_number

LONGEST_ID = 100
"""Digits."""
UPRIGHT = 1.0
"""Degrees up to which a turned rectangle is taken as it is."""
CLOSE = 1.5
"""Pixels between a box and the extent of its outline: tools round."""
Box = tuple[float, float, float, float]


def as_meant(document: Mapping[str, Any], tally: Tally) -> dict[str, Any]:
    """A document with the same records in the same order, changed where they are written otherwise than COCO's.

    - Ids of images and categories that are texts, or too large for 64 bits, are numbered.
    - An annotation that refers to its image by file name, or to its category by name, has their ids.
    - An image without `file_name` has the last part of its `coco_url` for one, as in LVIS.
    - A box that is missing is that of its outline.
    - A rectangle that CVAT turned (`attributes.rotation`, degrees) is the box that encloses it.
    - The sides of an RLE that are exchanged are put right, where its mask then lies in the box.

    Args:
        document: with its lists `images`, `annotations` and `categories`.
        tally: takes the problems.
    """
    document = referring_by_ids(document, tally)
    images, of_image = _numbered(document["images"], "images", tally)
    categories, of_category = _numbered(document["categories"], "categories", tally)
    images = [_with_name(each, tally) for each in images]
    sides = {
        each["id"]: (read_side(each.get("height")), read_side(each.get("width")))
        for each in images
        if isinstance(each, dict) and "id" in each and isinstance(each["id"], Hashable)
    }
    annotations = []
    for each in document["annotations"]:
        meant = _referring(each, of_image, of_category) if of_image or of_category else each
        annotations.append(_meant(meant, sides, tally) if isinstance(meant, dict) else meant)
    return {**document, "images": images, "categories": categories, "annotations": annotations}


def referring_by_ids(document: Mapping[str, Any], tally: Tally) -> dict[str, Any]:
    """A document whose annotations refer to images and categories by ids, where some did so by their names."""
    annotations = document["annotations"]
    for field, records, name in (("image_id", "images", "file_name"), ("category_id", "categories", "name")):
        told = {each[field] for each in annotations if isinstance(each, dict) and isinstance(each.get(field), str)}
        ids = _ids_by_name(document[records], name, told) if told else {}
        for text in sorted(ids):
            tally.add(kinds.RENUMBERED, "annotations: {} {} is {}", field, shown(text), shown(ids[text]))
        if ids:
            named = [isinstance(each, dict) and isinstance(each.get(field), str) for each in annotations]
            annotations = [
                {**each, field: ids.get(each[field], each[field])} if by_name else each
                for each, by_name in zip(annotations, named, strict=True)
            ]
    return {**document, "annotations": annotations}


def _ids_by_name(records: list[Any], field: str, told: Collection[str]) -> dict[str, Any]:
    """The id of the one record of each name that is told and is the id of none."""
    own = {_key(each.get("id")) for each in records if isinstance(each, dict)}
    found: dict[str, list[Any]] = {text: [] for text in told if whole_number(text) is None and _key(text) not in own}
    for each in records if found else ():
        if isinstance(each, dict) and isinstance(name := each.get(field), str) and name in found:
            found[name].append(each.get("id"))
    return {text: ids[0] for text, ids in found.items() if len(ids) == 1 and ids[0] is not None}


def _with_name(each: Any, tally: Tally) -> Any:
    if not isinstance(each, dict) or each.get("file_name") or not isinstance(url := each.get("coco_url"), str):
        return each
    name = unquote(PurePosixPath(url.partition("?")[0]).name)
    if not name:
        return each
    tally.add(kinds.NAME_OF_URL, "image {}: {}", shown(each.get("id")), shown(url))
    return {**each, "file_name": name}


def _key(value: object) -> str | int | None:
    """An id that has to be numbered, as others refer to it: a text, or a number of more than 64 bits."""
    if whole_number(value) is not None or isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < LONGEST_ID else text or None


def _numbered(records: list[Any], name: str, tally: Tally) -> tuple[list[Any], dict[str | int, int]]:
    """Records with numbers for such ids, and the number of each.

    The numbers follow from the order of the ids, so that files which list the same categories number them alike.
    """
    keys = {key for each in records if isinstance(each, dict) and (key := _key(each.get("id"))) is not None}
    if not keys:
        return records, {}
    own = [
        number for each in records if isinstance(each, dict) and (number := whole_number(each.get("id"))) is not None
    ]
    first = max([0, *own]) + 1
    numbers = {
        key: number for number, key in enumerate(sorted(keys, key=lambda key: (isinstance(key, str), key)), first)
    }
    numbered = []
    for each in records:
        key = _key(each.get("id")) if isinstance(each, dict) else None
        if key is not None:
            tally.add(kinds.RENUMBERED, "{}: id {} is {}", name, shown(each["id"]), numbers[key])
        numbered.append(each if key is None else {**each, "id": numbers[key]})
    return numbered, numbers


def _referring(each: Any, of_image: Mapping[str | int, int], of_category: Mapping[str | int, int]) -> Any:
    """An annotation that refers to images and categories by their numbers."""
    if not isinstance(each, dict):
        return each
    changed = {
        field: numbers[key]
        for field, numbers in (("image_id", of_image), ("category_id", of_category))
        if (key := _key(each.get(field))) in numbers and key is not None
    }
    return {**each, **changed} if changed else each


def _meant(each: dict[str, Any], sides: Mapping[Any, tuple[int, int]], tally: Tally) -> dict[str, Any]:
    value, box = each.get("segmentation"), each.get("bbox")
    if isinstance(value, dict) and isinstance(image := each.get("image_id"), Hashable):
        each = _with_sides(each, sides.get(image, (0, 0)), tally)
    if _is_missing(box):
        each = _boxed(each, tally)
    attributes = each.get("attributes")
    if isinstance(attributes, dict) and attributes.get("rotation"):
        each = _enclosing(each, attributes, tally)
    return each


def _is_missing(box: object) -> bool:
    return not box or (isinstance(box, list) and len(box) == 4 and not any(box))


def _extent(value: Any) -> Extent:
    return outline_of(value, read_segmentation(value) if isinstance(value, dict) else None)[0]


def _fits(box: Box, extent: Extent) -> bool:
    return bool(near(np.array([box]), np.array([extent]))[0])


def _boxed(each: dict[str, Any], tally: Tally) -> dict[str, Any]:
    x0, y0, x1, y1 = _extent(each.get("segmentation"))
    if not (x1 > x0 and y1 > y0):
        return each
    tally.add(kinds.BOX_OF_OUTLINE, "annotation {}: bbox {}", shown(each.get("id")), shown(each.get("bbox")))
    return {**each, "bbox": [x0, y0, x1 - x0, y1 - y0]}


def _with_sides(each: dict[str, Any], stated: tuple[int, int], tally: Tally) -> dict[str, Any]:
    """An annotation whose RLE says width, height in place of height, width, put right if its box agrees."""
    size = each["segmentation"].get("size")
    height, width = stated
    if not height or not width or height == width or size != [width, height] or each.get("iscrowd"):
        return each
    exchanged = {**each["segmentation"], "size": [height, width]}
    box = read_box(each.get("bbox"))
    if (
        box is not None
        and any(box)
        and (_fits(box, _extent(each["segmentation"])) or not _fits(box, _extent(exchanged)))
    ):
        return each
    words = "annotation {}: size {} in an image of height {} and width {}"
    tally.add(kinds.SIDES_EXCHANGED, words, shown(each.get("id")), shown(size), height, width)
    return {**each, "segmentation": exchanged}


def _enclosing(each: dict[str, Any], attributes: dict[str, Any], tally: Tally) -> dict[str, Any]:
    """An annotation with the box around its turned rectangle; as it is, if it is upright or its outline says so."""
    try:
        degrees = float(attributes["rotation"])
    except (TypeError, ValueError, OverflowError):
        return each
    box = read_box(each.get("bbox"))
    if box is None or not math.isfinite(degrees) or min(degrees % 180, 180 - degrees % 180) <= UPRIGHT:
        return each
    x, y, width, height = box
    cosine, sine = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    across, down = width * cosine + height * sine, width * sine + height * cosine
    enclosing = (x + (width - across) / 2, y + (height - down) / 2, across, down)
    value = each.get("segmentation")
    extents = np.array([_extent(value)])
    drawn, unturned = not np.isnan(extents).any(), _is_rectangle(value, box)
    if drawn and not unturned and not nearer(np.array([enclosing]), np.array([box]), extents)[0]:
        return each  # the outline is that of the box as it stands: the rotation is only told
    tally.add(
        kinds.TURNED_BOX, "annotation {}: {:g} degrees, bbox {}", shown(each.get("id")), degrees, shown(list(box))
    )
    outline = {"segmentation": [_turned(box, degrees)]} if unturned else {}
    return {**each, **outline, "bbox": list(enclosing), "attributes": {**attributes, "rotation": 0.0}}


def _is_rectangle(value: Any, box: Box) -> bool:
    """Whether an outline is the rectangle of the box, not turned."""
    if not isinstance(value, list) or len(value) != 1 or not isinstance(value[0], list) or len(value[0]) not in (8, 10):
        return False
    ring = np.array(value[0], dtype=np.float64).reshape(-1, 2)
    sides = np.array([[box[0], box[1]], [box[0] + box[2], box[1] + box[3]]])
    return bool((np.abs(ring[:, None] - sides).min(axis=1) < CLOSE).all())


def _turned(box: Box, degrees: float) -> list[float]:
    """The corners x, y, … of a box that is turned about its centre, clockwise as seen in the image."""
    x, y, width, height = box
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    offsets = np.array([(-width, -height), (width, -height), (width, height), (-width, height)]) / 2
    corners = offsets @ np.array([(cosine, sine), (-sine, cosine)]) + (x + width / 2, y + height / 2)
    return [float(value) for value in corners.ravel()]
