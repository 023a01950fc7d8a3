"""COCO annotation files, held as a few flat arrays so that memory does not grow in loader workers."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msad_cli.structures.errors import DataError

LARGEST_COORDINATE = 1e9
"""A box beyond this is an error, not a place in a picture."""


@dataclass(frozen=True)
class CocoSplit:
    """The pictures of one split and the boxes to learn from.

    Attributes:
        file: the annotation file.
        folder: where the pictures lie.
        image_ids: (I,) ids of the user's file.
        file_names: (I,) relative to `folder`.
        boxes: (B, 4) float32 corners x0, y0, x1, y1 in pixels of the original picture, x right, y down.
        labels: (B,) from 1: place in `categories` + 1.
        starts: (I + 1,) picture i owns the boxes starts[i]:starts[i + 1].
        categories: (original id, name) in ascending order of id.
        crowds: crowd regions left out; as in torchvision's references they are no training target.
        dropped: boxes left out because they have no extent or are not finite.
    """

    file: Path
    folder: Path
    image_ids: NDArray[np.int64]
    file_names: NDArray[np.str_]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    starts: NDArray[np.int64]
    categories: tuple[tuple[int, str], ...]
    crowds: int
    dropped: int

    def __len__(self) -> int:
        return len(self.image_ids)


def read_document(file: Path) -> dict[str, Any]:
    """The JSON document of an annotation file, its lists `images`, `annotations` and `categories` being present.

    Raises:
        DataError: missing file, broken JSON (with line and column), or another shape of document.
    """
    try:
        document = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise DataError(f"no such annotation file: {file}") from None
    except IsADirectoryError:
        raise DataError(f"{file}: a folder where an annotation file was expected") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{file}: broken JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):  # bytes that are no text, a number of thousands of digits
        raise DataError(f"{file}: not a JSON text") from None
    for name in ("images", "annotations", "categories"):
        if not isinstance(document, dict) or not isinstance(document.get(name), list):
            raise DataError(
                f"{file}: no list {name!r}", "msad reads COCO instance files: images, annotations, categories"
            )
    return dict(document)


def read_split(file: Path, folder: Path, categories: Sequence[tuple[int, str]] | None = None) -> CocoSplit:
    """Reads one split.

    Args:
        file: the annotation file.
        folder: where its pictures lie.
        categories: the classes of an existing model; without them, those of the file.

    Raises:
        DataError: the file is unusable, holds a malformed record, no image, or a category that is not known.
    """
    document = read_document(file)
    if not document["images"]:
        raise DataError(f"{file}: no images")
    with _Records(file, "categories"):
        known = tuple(sorted((int(each["id"]), str(each["name"])) for each in document["categories"]))
    known = tuple(categories) if categories is not None else known
    with _Records(file, "images"):
        images = [(int(each["id"]), str(each["file_name"])) for each in document["images"]]
        image_ids = np.array([image_id for image_id, _ in images], dtype=np.int64)
    _refuse_duplicates(file, "images", [image_id for image_id, _ in images])
    _refuse_duplicates(file, "categories", [category_id for category_id, _ in known])
    for image_id, name in images:
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise DataError(f"{file}: image {image_id}: file_name {name!r} leaves the folder of the pictures")
    place = {image_id: i for i, (image_id, _) in enumerate(images)}
    table, crowds, dropped = _read_boxes(file, document["annotations"], place, known)
    table = table[np.argsort(table[:, 0], kind="stable")]
    return CocoSplit(
        file=file,
        folder=folder,
        image_ids=image_ids,
        file_names=np.array([name for _, name in images]),
        boxes=table[:, 2:].astype(np.float32),
        labels=table[:, 1].astype(np.int64),
        starts=np.searchsorted(table[:, 0], np.arange(len(images) + 1)).astype(np.int64),
        categories=known,
        crowds=crowds,
        dropped=dropped,
    )


def _read_boxes(
    file: Path, annotations: list[Any], place: dict[int, int], categories: Sequence[tuple[int, str]]
) -> tuple[NDArray[np.float64], int, int]:
    """Rows (B, 6) of picture, label and corners; how many crowd regions, and boxes without extent, are left out."""
    label = {category_id: i for i, (category_id, _) in enumerate(categories, start=1)}
    rows, crowds, dropped = [], 0, 0
    for each in annotations:
        with _Records(file, "annotations", each):
            image, category = place.get(int(each["image_id"])), label.get(int(each["category_id"]))
            x, y, w, h = (float(value) for value in each["bbox"])
            crowd = bool(each.get("iscrowd", 0))
        if image is None:
            raise DataError(f"{file}: annotation {each.get('id')} is of image {each['image_id']}, which is not listed")
        if category is None:
            raise DataError(
                f"{file}: annotation {each.get('id')} has category {each['category_id']}, which is not known",
                "known are " + ", ".join(f"{i} ({name})" for i, name in categories[:20]),
            )
        if crowd:
            crowds += 1
        elif w > 0 and h > 0 and all(abs(value) < LARGEST_COORDINATE for value in (x, y, w, h)):
            rows.append((image, category, x, y, x + w, y + h))
        else:
            dropped += 1
    return np.array(rows, dtype=np.float64).reshape(-1, 6), crowds, dropped


def _refuse_duplicates(file: Path, name: str, ids: Sequence[int]) -> None:
    for each, times in Counter(ids).items():
        if times > 1:
            raise DataError(f"{file}: {name}: id {each} stands {times} times")


class _Records:
    """Turns a malformed record into a `DataError` that names the file, the list and the record."""

    def __init__(self, file: Path, name: str, record: object = None) -> None:
        self.file, self.name, self.record = file, name, record

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, KeyError | TypeError | ValueError | AttributeError | OverflowError):
            return
        what = f"a record has no {error}" if isinstance(error, KeyError) else f"a record is malformed ({error})"
        # The record is put into words only now: doing so for each of a million would take longer than reading them.
        record = "" if self.record is None else f": {str(self.record)[:200]}"
        raise DataError(f"{self.file}: {self.name}{record}: {what}") from None
