"""The repair of an annotation file, as far as it takes no decision."""

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msad_cli.data.agreement.as_meant import as_meant, referring_by_ids
from msad_cli.data.agreement.corrected import corrected
from msad_cli.data.annotations.boxes import judge_boxes
from msad_cli.data.annotations.objects import segmentation_kind
from msad_cli.data.annotations.problem_tally import MET, Tally
from msad_cli.data.annotations.problems import BAD_LABELS, FEW_BAD_LABELS
from msad_cli.data.annotations.records import Records, examine
from msad_cli.data.annotations.values import EXACT, read_box, shown, whole_number
from msad_cli.data.images.split_images import SplitImages, look_at_images
from msad_cli.errors import DataError

Record = dict[str, Any]


@dataclass(frozen=True)
class Repaired:
    """A document without what the check found, and how often each thing was done to it."""

    document: dict[str, Any]
    done: dict[str, int]


def repair(
    document: dict[str, Any], file: Path, folder: Path, decode: bool = False, root: Path | None = None
) -> Repaired:
    """Corrects what can be corrected, takes out what cannot be used, and keeps the rest as it is.

    Args:
        document: of an annotation file.
        file: its name, for messages.
        folder: where the images lie.
        decode: whether images are decoded whole to see which can be read.
        root: the folder of the whole set, where images are looked for that are not in `folder`.

    Raises:
        DataError: a decision is needed, or nothing usable is left.
    """
    done: Counter[str] = Counter()
    tally = Tally()
    plain = as_meant(_with_whole_ids(referring_by_ids(document, tally), file, done), tally)
    for each in tally.problems():
        done[f"{each.what}: {each.outcome}"] += each.count
    records = examine(plain, file, folder, root=root)
    seen = look_at_images(records, decode)
    plain = corrected(plain, records, seen, done)
    records = examine(plain, file, folder, root=root)
    images = _repaired_images(plain["images"], records, seen, done)
    annotations = _repaired_annotations(plain["annotations"], records, seen, done)
    readable = seen.sizes[records.annotations.images, 0] > 0
    if not (judge_boxes(records, seen.sizes).usable & readable).any():
        raise DataError(
            f"{file}: no {'boxes' if images else 'images'} would be left",
            "msad data check lists why",
            code="repair-leaves-nothing",
        )
    bad = [each.count for each in records.problems if each.code in (BAD_LABELS.code, FEW_BAD_LABELS.code)]
    done["objects in label files that cannot be read, left out"] += sum(bad)
    kept = {field: value for field, value in plain.items() if field != MET}  # what was met is left behind
    repaired = {**kept, "images": images, "annotations": annotations}
    return Repaired(repaired, {what: count for what, count in done.items() if count})


def _with_whole_ids(document: dict[str, Any], file: Path, done: Counter[str]) -> dict[str, Any]:
    """The document with whole numbers of at most 2^53 for ids, each category and image once."""
    named = [each for each in document["categories"] if isinstance(each, dict) and _is_name(each.get("name"))]
    categories, of_category = _numbered(named, done, "categories")
    images, of_image = _numbered(document["images"], done, "images")
    _refuse_two_names(categories, file)
    files: dict[int, set[str]] = {}
    for each in images:
        files.setdefault(each["id"], set()).add(str(each.get("file_name")))
    # Of two files under one id nobody knows to which the boxes belong.
    clear = [each for each in images if len(files[each["id"]]) == 1]
    lists = {"images": _once(clear), "categories": _once(categories)}
    done["images of an id that other files have too, taken out"] += len(images) - len(clear)
    done["records that repeat an id, taken out"] += len(clear) + len(categories) - sum(map(len, lists.values()))
    annotations = []
    for each in document["annotations"]:
        ids = [each.get(name) for name in ("image_id", "category_id")] if isinstance(each, dict) else [None, None]
        image, category = of_image.get(_key(ids[0])), of_category.get(_key(ids[1]))
        if image is not None and category is not None:
            annotations.append({**each, "image_id": image, "category_id": category})
            done["annotations referring by other than whole numbers"] += any(type(each) is not int for each in ids)
    unlisted = len(document["annotations"]) - len(annotations)
    done["annotations without a listed image and category, taken out"] += unlisted
    _number_annotations(annotations, done)
    return {**document, **lists, "annotations": annotations}


def _refuse_two_names(categories: list[Record], file: Path) -> None:
    names: dict[int, str] = {}
    for each in categories:
        if names.setdefault(each["id"], str(each["name"])) != str(each["name"]):
            raise DataError(
                f"{file}: category {each['id']} is called {shown(names[each['id']])} and {shown(str(each['name']))}",
                "correct that by hand: only you know which class its boxes are of",
                code="category-named-twice",
            )


def _is_name(value: object) -> bool:
    return isinstance(value, str | int)


def _key(value: object) -> Hashable:
    """What records refer to each other by: a number however it is written, or a text; None for what is no id."""
    number = whole_number(value)
    return number if number is not None or not isinstance(value, str) else value


def _numbered(records: Iterable[Any], done: Counter[str], name: str) -> tuple[list[Record], dict[Hashable, int]]:
    """Records with whole numbers as ids, and the number of each id; those that have none are left out.

    Texts and numbers above 2^53 get the next free numbers in their own order, so that files which list the same
    categories number them alike.
    """
    usable = [each for each in records if isinstance(each, dict) and _key(each.get("id")) is not None]
    keys = {_key(each["id"]) for each in usable}
    fine = {key for key in keys if isinstance(key, int) and abs(key) <= EXACT}
    others = sorted(keys - fine, key=lambda key: (isinstance(key, str), str(key)))
    numbers: dict[Hashable, int] = {key: key for key in fine if isinstance(key, int)}
    numbers |= {key: number for number, key in enumerate(others, start=max([0, *numbers.values()]) + 1)}
    done[f"ids of {name} renumbered"] += len(others)
    done[f"ids of {name} written as whole numbers"] += sum(
        type(each["id"]) is not int and _key(each["id"]) in fine for each in usable
    )
    return [{**each, "id": numbers[_key(each["id"])]} for each in usable], numbers


def _number_annotations(annotations: list[Record], done: Counter[str]) -> None:
    """Gives those without an id of their own the next free numbers."""
    own = [whole_number(each.get("id")) for each in annotations]
    free = max([0, *(number for number in own if number is not None and number <= EXACT)]) + 1
    taken: set[int] = set()
    for each, number in zip(annotations, own, strict=True):
        if number is None or number in taken or abs(number) > EXACT:
            each["id"], free = free, free + 1
            done["annotations renumbered"] += 1
        else:
            each["id"] = number
            taken.add(number)


def _once(records: list[Record]) -> list[Record]:
    first: dict[int, Record] = {}
    for each in records:
        first.setdefault(each["id"], each)
    return list(first.values())


def _repaired_images(images: list[Record], records: Records, seen: SplitImages, done: Counter[str]) -> list[Record]:
    by_id = {each["id"]: each for each in images}
    repaired = []
    for i, image_id in enumerate(records.image_ids.tolist()):
        height, width = seen.sizes[i].tolist()
        if not height:
            continue
        image = by_id[image_id]
        size = {} if seen.stated_turned[i] else {"height": height, "width": width}
        done["sizes of images corrected"] += any(image.get(name) != side for name, side in size.items())
        repaired.append({**image, **size})
    done["images without a readable file in the folder, taken out"] += len(images) - len(repaired)
    return repaired


def _repaired_annotations(
    annotations: list[Record], records: Records, seen: SplitImages, done: Counter[str]
) -> list[Record]:
    # Where EXIF turns an image whose stated size is unturned, the boxes may be unturned too: those stay.
    sizes = np.where(seen.stated_turned[:, None], 0, seen.sizes)
    of = records.annotations
    boxes = _clipped(of.boxes, sizes[of.images])
    bad = judge_boxes(replace(records, annotations=replace(of, boxes=boxes)), sizes).bad
    readable = seen.sizes[of.images, 0] > 0
    repaired = []
    for j in np.flatnonzero(readable & ~bad).tolist():
        each = dict(annotations[of.rows[j]])
        box, area = boxes[j].tolist(), float(of.areas[j])
        if box != list(read_box(each["bbox"]) or ()):
            done["boxes clipped to their image"] += 1
            area = min(area, box[2] * box[3])
        filled = {"bbox": box, "area": area, "iscrowd": int(of.crowd[j])}
        for name in ("area", "iscrowd"):
            done[f"values of {name} filled in"] += name not in each or each[name] != filled[name]
        each |= {name: value for name, value in filled.items() if each.get(name) != value}
        if segmentation_kind(each.get("segmentation")) == "malformed":
            del each["segmentation"]
            done["malformed segmentations, taken out"] += 1
        repaired.append(each)
    left = set(records.image_ids.tolist())
    malformed = sum(each["image_id"] in left for each in annotations) - len(of)
    done["malformed annotations, taken out"] += malformed
    done["annotations of images that were taken out"] += len(annotations) - malformed - int(readable.sum())
    done["boxes that are none, outside or repeated, taken out"] += int((readable & bad).sum())
    return repaired


def _clipped(boxes: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Boxes x, y, width, height (A, 4) cut to images of height and width (A, 2), where these are known."""
    inside = boxes.copy()
    with np.errstate(invalid="ignore"):
        rows = np.flatnonzero((sizes > 0).all(axis=1) & np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1))
    limits = sizes[rows][:, ::-1]
    low, high = boxes[rows, :2], boxes[rows, :2] + boxes[rows, 2:]
    out = ((low < 0) | (high > limits)).any(axis=1)
    low, high = low.clip(0, limits), high.clip(0, limits)
    inside[rows[out]] = np.concatenate([low, high - low], axis=1)[out]
    return inside
