"""One pass over a COCO document: what can be used of it, as flat arrays, and what is wrong with the rest.

The reader refuses a file at the first fatal problem found here, the check lists them all: they cannot disagree.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.keypoint_scheme import KeypointScheme, read_scheme, with_keypoints
from msad_cli.data.annotations.objects import Annotations, Asked, read_annotations
from msad_cli.data.annotations.problems import Problem, Tally
from msad_cli.data.annotations.values import read_id, read_side, shown, whole_number
from msad_cli.data.images.names import outward_links, refused_name
from msad_cli.errors import DataError

Names = NDArray[Any]
"""Texts of any length (NumPy's StringDType) in one block of memory, which forked loader workers share."""


@dataclass(frozen=True)
class Records:
    """What one annotation file says.

    Attributes:
        file: the annotation file.
        folder: where the images lie.
        image_ids: (I,) ids of the user's file.
        file_names: (I,) relative to `folder`; none leaves it.
        sizes: (I, 2) height and width in pixels as the file says, 0 where it does not.
        categories: (original id, name) in ascending order of id, or those of an existing model in its order.
        task: `boxes`, `masks` or `keypoints`: what the annotations were read for.
        scheme: the keypoints of the categories; none unless keypoints are the task.
        annotations: of these images and categories, as the file has them.
        problems: with everything that can be seen without a look at the images or at the extent of boxes.
    """

    file: Path
    folder: Path
    image_ids: NDArray[np.int64]
    file_names: Names
    sizes: NDArray[np.int64]
    categories: tuple[tuple[int, str], ...]
    task: str
    scheme: KeypointScheme
    annotations: Annotations
    problems: tuple[Problem, ...]

    def image_words(self, image: int) -> str:
        """An image by id and file name."""
        return f"image {self.image_ids[image]} ({shown(str(self.file_names[image]))})"

    def box_words(self, row: int) -> str:
        """An annotation by id, image and box."""
        of = self.annotations
        box = ", ".join(f"{value:g}" for value in of.boxes[row])
        return f"annotation {of.ids[row]} of image {self.image_ids[of.images[row]]}, bbox [{box}]"


def read_document(file: Path) -> dict[str, Any]:
    """The JSON document of an annotation file, its lists `images`, `annotations` and `categories` being present.

    Raises:
        DataError: missing file, broken JSON (with line and column), or another shape of document.
    """
    try:
        document = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise DataError(f"no such annotation file: {file}", code="annotation-file-missing") from None
    except IsADirectoryError:
        raise DataError(
            f"{file}: a folder where an annotation file was expected", code="annotation-file-is-folder"
        ) from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{file}: broken JSON at line {error.lineno}, column {error.colno}: {error.msg}", code="json-broken"
        ) from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})", code="read-refused") from None
    except (ValueError, RecursionError):  # bytes that are no text, a number of thousands of digits
        raise DataError(f"{file}: not a JSON text", code="json-broken") from None
    for name in ("images", "annotations", "categories"):
        if not isinstance(document, dict) or not isinstance(document.get(name), list):
            raise DataError(
                f"{file}: no list {name!r}",
                "msad reads COCO instance files: images, annotations, categories",
                code="coco-list-missing",
            )
    return dict(document)


def read_records(
    file: Path,
    folder: Path,
    categories: Sequence[tuple[int, str]] | None = None,
    task: str = "boxes",
    keypoints: Sequence[str] = (),
) -> Records:
    """Reads an annotation file and goes through its records.

    Args:
        file: the annotation file.
        folder: where its images lie.
        categories: the classes of an existing model or of the training split; without them, those of the file.
            Where keypoints are the task, only classes that have some take part.
        task: `boxes`, `masks` or `keypoints`.
        keypoints: names of those of an existing model or of the training split; without them, those of the file.

    Raises:
        DataError: the file is no COCO document. What is wrong with single records is among the problems.
    """
    return examine(read_document(file), file, folder, categories, task, keypoints)


def examine(
    document: dict[str, Any],
    file: Path,
    folder: Path,
    categories: Sequence[tuple[int, str]] | None = None,
    task: str = "boxes",
    keypoints: Sequence[str] = (),
) -> Records:
    """`read_records` for a document that was read already."""
    tally = Tally()
    own = _read_categories(document["categories"], tally)
    for root in root_categories(document):
        tally.add(kinds.ROOT_CATEGORY, "category {} ({!r})", root, own.pop(root))
    keyless: set[int] = set()
    if task == "keypoints":
        keyless = own.keys() - {whole_number(each.get("id")) for each in with_keypoints(document["categories"])}
    able = sorted((of, name) for of, name in own.items() if of not in keyless)
    known = tuple(able if categories is None else categories)
    for category, name in known:
        if category in own and not same_name(own[category], name):
            words = "category {} is {!r} here, but {!r} where it was learnt"
            tally.add(kinds.RENAMED_CATEGORY, words, category, own[category], name)
    scheme = KeypointScheme()
    if task == "keypoints":
        scheme = read_scheme(document["categories"], dict(known), keypoints, tally)
    ids, names, sizes, place = _read_images(document["images"], folder, tally)
    asked = Asked(task, len(scheme.names), keyless)
    return Records(
        file=file,
        folder=folder,
        image_ids=np.array(ids, dtype=np.int64),
        file_names=np.array(names, dtype=np.dtypes.StringDType()),
        sizes=np.array(sizes, dtype=np.int64).reshape(-1, 2),
        categories=known,
        task=task,
        scheme=scheme,
        annotations=read_annotations(document["annotations"], place, known, tally, asked),
        problems=tally.problems(),
    )


def same_name(one: str, other: str) -> bool:
    """Whether two names of a category differ at most in case and surrounding space."""
    return one.strip().casefold() == other.strip().casefold()


def _read_categories(records: list[Any], tally: Tally) -> dict[int, str]:
    names: dict[int, str] = {}
    ids: list[int] = []
    for row, each in enumerate(records, start=1):
        if not isinstance(each, dict) or not isinstance(each.get("name"), str | int):
            tally.add(kinds.MALFORMED, "categories, record {}: no name: {}", row, shown(each))
        elif (number := read_id(each, "id", "categories", row, tally)) is not None:
            ids.append(number)
            names.setdefault(number, str(each["name"]))
    _report_repeated(ids, "categories", tally)
    first: dict[str, int] = {}
    for number, name in names.items():
        if name in first:
            tally.add(kinds.SHARED_NAME, "{!r} is category {} and {}", name, first[name], number)
        first.setdefault(name, number)
    return names


def root_categories(document: dict[str, Any]) -> set[int]:
    """{0} where category 0 has neither annotations nor a group of its own, and is the group of others; else nothing."""
    records = [each for each in document["categories"] if isinstance(each, dict)]
    groups = {each["supercategory"] for each in records if isinstance(each.get("supercategory"), str)}
    first = [each for each in records if whole_number(each.get("id")) == 0]
    if len(first) != 1 or first[0].get("supercategory") != "none" or first[0].get("name") not in groups - {"none"}:
        return set()
    used = any(
        isinstance(each, dict) and whole_number(each.get("category_id")) == 0 for each in document["annotations"]
    )
    return set() if used else {0}


def _read_images(
    records: list[Any], folder: Path, tally: Tally
) -> tuple[list[int], list[str], list[tuple[int, int]], dict[int, int]]:
    """Ids, names and sizes of usable images, and the place of each id; -1 for an image that is listed but unusable."""
    if not records:
        tally.add(kinds.NO_IMAGES, "its list is empty")
    ids: list[int] = []
    found: dict[int, tuple[str, tuple[int, int]]] = {}
    for row, each in enumerate(records, start=1):
        if not isinstance(each, dict):
            tally.add(kinds.MALFORMED, "images, record {}: not an object: {}", row, shown(each))
            continue
        number = read_id(each, "id", "images", row, tally)
        if number is None:
            continue
        ids.append(number)
        name = each.get("file_name")
        if reason := refused_name(name):
            tally.add(kinds.BAD_NAME, "image {}: file_name {} {}", number, shown(name), reason)
            found.setdefault(number, ("", (0, 0)))
            continue
        size = (read_side(each.get("height")), read_side(each.get("width")))
        if 0 in size:
            tally.add(kinds.NO_SIZE, "image {} ({})", number, shown(name))
        found.setdefault(number, (str(name), size))
    _report_repeated(ids, "images", tally)
    outward = outward_links(folder, [name for name, _ in found.values() if name])
    _report_files(found, outward, tally)
    usable = [(number, *each) for number, each in found.items() if each[0] and each[0] not in outward]
    place = dict.fromkeys(found, -1) | {number: i for i, (number, _, _) in enumerate(usable)}
    return [each[0] for each in usable], [each[1] for each in usable], [each[2] for each in usable], place


def _report_files(found: dict[int, tuple[str, tuple[int, int]]], outward: dict[str, Path], tally: Tally) -> None:
    first: dict[str, int] = {}
    for number, (name, _) in found.items():
        if name in outward:
            tally.add(kinds.OUTWARD_LINK, "image {}: {} leads to {}", number, shown(name), outward[name])
        elif name and name in first:
            tally.add(kinds.SHARED_FILE, "{} is image {} and {}", shown(name), first[name], number)
        first.setdefault(name, number)


def _report_repeated(ids: list[int], name: str, tally: Tally) -> None:
    if len(set(ids)) < len(ids):
        for each, times in Counter(ids).items():
            if times > 1:
                tally.add(kinds.REPEATED_ID, "{}: id {} stands {} times", name, each, times)
