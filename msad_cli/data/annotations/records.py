"""One pass over a COCO document: what can be used of it, as flat arrays, and what is wrong with the rest.

The reader refuses a file at the first fatal problem found here, the check lists them all: they cannot disagree.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msad_cli.data.agreement.as_meant import as_meant
from msad_cli.data.agreement.category_names import plain_name, same_name, with_known_ids
from msad_cli.data.agreement.other_tools import other_tool
from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.keypoint_scheme import KeypointScheme, read_scheme, with_keypoints
from msad_cli.data.annotations.objects import Annotations, Asked, read_annotations
from msad_cli.data.annotations.problem_tally import MET, Problem, Tally
from msad_cli.data.annotations.values import read_id, shown, whole_number
from msad_cli.data.images.listed import read_images, report_repeated
from msad_cli.errors import DataError
from msad_cli.frame import Resolution

Names = NDArray[Any]
"""Texts of any length (NumPy's StringDType) in one block of memory, which forked loader workers share."""


@dataclass(frozen=True)
class Records:
    """What one annotation file says.

    Attributes:
        file: the annotation file.
        folder: where the images lie; the whole set's where not all lie in the folder that was named.
        image_ids: (I,) ids of the user's file.
        file_names: (I,) relative to `folder`; none leaves it.
        sizes: (I, 2) height and width in pixels as the file says, 0 where it does not.
        categories: (original id, name) in ascending order of id, or those of an existing model in its order.
        task: `boxes`, `masks` or `keypoints`: what the annotations were read for.
        scheme: the keypoints of the categories; none unless keypoints are the task.
        annotations: of these images and categories, as the file has them.
        problems: with everything that can be seen without a look at the images or at the extent of boxes.
        with_keypoints: how many of the file's categories name keypoints, whatever the task is.
        sought: the folder that the images were looked for in, and that of the whole set.
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
    with_keypoints: int
    sought: tuple[Path, Path | None]

    def unused(self) -> str:
        """What most objects have that was not read, and which detector learns it; empty where there is nothing."""
        if self.task != "boxes":
            return ""
        if self.with_keypoints:
            return "the set has keypoints, which are not learnt: msad teacher --detector keypointrcnn finds them too"
        kinds = self.annotations.segmentations
        if 2 * sum(kinds.get(kind, 0) for kind in ("polygon", "RLE", "uncompressed RLE")) <= len(self.annotations):
            return ""
        return "the set has masks, which are not learnt: msad teacher --detector maskrcnn finds them too"

    def image_words(self, image: int) -> str:
        """An image by id and file name."""
        return f"image {self.image_ids[image]} ({shown(str(self.file_names[image]))})"

    def box_words(self, row: int) -> str:
        """An annotation by id, image and box."""
        of = self.annotations
        box = ", ".join(f"{value:g}" for value in of.boxes[row])
        return f"annotation {of.ids[row]} of image {self.image_ids[of.images[row]]}, bbox [{box}]"


def frame_scales(sizes: NDArray[np.int64], resolution: Resolution) -> NDArray[np.float64]:
    """(I, 2) HR pixels for one of an image's own, down and across; NaN where its size is not known.

    Args:
        sizes: (I, 2) height and width in pixels, 0 where they are not known.
    """
    distinct, which = np.unique(sizes, axis=0, return_inverse=True)
    unknown = (np.nan, np.nan)
    scales = [np.divide(resolution.frame_size(*size), size) if all(size) else unknown for size in distinct.tolist()]
    return np.array(scales, dtype=np.float64).reshape(-1, 2)[which.ravel()]


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
    lists = ("images", "annotations", "categories")
    whole = isinstance(document, dict) and all(isinstance(document.get(name), list) for name in lists)
    if not whole and (found := other_tool(document)):
        raise DataError(f"{file}: written by {found[0]}", found[1], code="json-of-another-tool")
    if isinstance(document, dict) and isinstance(document.get("images"), list) and "annotations" not in document:
        raise DataError(
            f"{file}: no list 'annotations', so that there is nothing to learn from or to compare with",
            "msad predict MODEL IMAGES --save coco finds objects in them",
            code="annotations-missing",
        )
    for name in lists:
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
    root: Path | None = None,
) -> Records:
    """Reads an annotation file and goes through its records.

    Args:
        file: the annotation file.
        folder: where its images lie.
        categories: the classes of an existing model or of the training split; without them, those of the file.
            Where keypoints are the task, only classes that have some take part.
        task: `boxes`, `masks` or `keypoints`.
        keypoints: names of those of an existing model or of the training split; without them, those of the file.
        root: the folder of the whole set, where images are looked for that are not in `folder`.

    Raises:
        DataError: the file is no COCO document. What is wrong with single records is among the problems.
    """
    return examine(read_document(file), file, folder, categories, task, keypoints, root)


def examine(
    document: dict[str, Any],
    file: Path,
    folder: Path,
    categories: Sequence[tuple[int, str]] | None = None,
    task: str = "boxes",
    keypoints: Sequence[str] = (),
    root: Path | None = None,
) -> Records:
    """`read_records` for a document that was read already."""
    tally = Tally()
    document = as_meant(document, tally)
    tally.add_known(document.get(MET), kinds.KINDS)
    roots = root_categories(document)
    if categories is not None:
        document = with_known_ids(document, categories, roots, tally)
        roots = root_categories(document)
    own = _read_categories(document["categories"], roots, tally)
    for above in roots:
        tally.add(kinds.ROOT_CATEGORY, "category {} ({!r})", above, own.pop(above))
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
    listed = read_images(document["images"], folder, root, tally)
    asked = Asked(task, len(scheme.names), keyless)
    return Records(
        file=file,
        folder=listed.folder,
        image_ids=np.array(listed.ids, dtype=np.int64),
        file_names=np.array(listed.names, dtype=np.dtypes.StringDType()),
        sizes=np.array(listed.sizes, dtype=np.int64).reshape(-1, 2),
        categories=known,
        task=task,
        scheme=scheme,
        annotations=read_annotations(document["annotations"], listed.place, known, tally, asked),
        problems=tally.problems(),
        with_keypoints=len(with_keypoints(document["categories"])),
        sought=(folder, root),
    )


def _read_categories(records: list[Any], roots: Collection[int], tally: Tally) -> dict[int, str]:
    names: dict[int, str] = {}
    ids: list[int] = []
    for row, each in enumerate(records, start=1):
        if not isinstance(each, dict) or not isinstance(each.get("name"), str | int):
            tally.add(kinds.MALFORMED, "categories, record {}: no name: {}", row, shown(each))
        elif (number := read_id(each, "id", "categories", row, tally)) is not None:
            ids.append(number)
            names.setdefault(number, str(each["name"]))
    report_repeated(ids, "categories", tally)
    first: dict[str, int] = {}
    for number, name in names.items():
        if number in roots:
            continue  # it is left out, so that nothing can be merged with it
        if name in first:
            tally.add(kinds.SHARED_NAME, "{!r} is category {} and {}", name, first[name], number)
        first.setdefault(name, number)
    for alike in alike_names(first):
        shown_names, numbers = [repr(name) for name in alike], [str(first[name]) for name in alike]
        tally.add(kinds.NAMES_ALIKE, "{} are category {}", _listed(shown_names), _listed(numbers))
    return names


def alike_names(names: Iterable[str]) -> list[list[str]]:
    """The groups of several different names that are one without case and blanks."""
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(plain_name(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


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
