"""The list `annotations` of a COCO document: each record's image, class, box, crowd flag, area, mask or keypoints."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msad_cli.data.agreement.outlines import outline_of
from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.keypoint_scheme import read_keypoints
from msad_cli.data.annotations.problem_tally import Problem, Tally
from msad_cli.data.annotations.segmentation import Segmentation, Segmentations, SegmentationsBuilder, read_segmentation
from msad_cli.data.annotations.values import read_area, read_box, read_crowd, read_flag, read_id, shown, whole_number

TASKS = ("boxes", "masks", "keypoints")
"""What is learnt of an object; the last two beside its box."""
UNKNOWN_ID = -1
MANY_DRAWN, MANY = 0.1, 0.5
"""Share of crowd regions that is worth a word, of those drawn as RLE and of all; in COCO 1.2% are some."""
KEYLESS = 0
"""In place of the label of a class that has no keypoints."""


@dataclass(frozen=True)
class Annotations:
    """Columns of A annotations, in the order of the file; those whose image or class cannot be used are left out.

    Attributes:
        rows: (A,) place in the file's list, from 0.
        ids: (A,) the file's own, or -1.
        images: (A,) place of the image among the usable ones.
        labels: (A,) class from 1: place in the categories + 1.
        boxes: (A, 4) x, y, width, height in pixels of the original image, whatever the file says.
        crowd: (A,) whether it is a region of many objects.
        areas: (A,) in square pixels.
        outlines: (A, 4) corners x0, y0, x1, y1 of the segmentation's extent, NaN where there is none; of an RLE in
            pixels of its grid.
        grids: (A, 2) height and width of the RLE's grid; 0 for polygons.
        segmentations: how many segmentations of each kind.
        masks: (A) segmentations; all empty unless masks are the task.
        keypoints: (A, K, 3) x, y and visibility 0, 1, 2; K = 0 unless keypoints are the task.
        complete: (A,) whether what the task asks for beside the box is there.
    """

    rows: NDArray[np.int64]
    ids: NDArray[np.int64]
    images: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    outlines: NDArray[np.float64]
    grids: NDArray[np.int64]
    segmentations: dict[str, int]
    masks: Segmentations
    keypoints: NDArray[np.float64]
    complete: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Asked:
    """What is wanted of annotations beside their boxes.

    Attributes:
        task: `boxes`, `masks` or `keypoints`.
        keypoints: how many each object has.
        keyless: ids of classes that have none, and are left out where keypoints are the task.
    """

    task: str = "boxes"
    keypoints: int = 0
    keyless: Collection[int] = ()


def read_annotations(
    records: list[Any],
    place: Mapping[int, int],
    categories: Sequence[tuple[int, str]],
    tally: Tally,
    asked: Asked = Asked(),
) -> Annotations:
    """Goes through the annotations.

    Args:
        records: of the file.
        place: of each image id that is listed; -1 for those that cannot be used.
        categories: those that are known.
        tally: takes the problems.
        asked: what is wanted beside boxes.
    """
    label = dict.fromkeys(asked.keyless, KEYLESS) | {of: i for i, (of, _) in enumerate(categories, start=1)}
    known = ", ".join(f"{category} ({name})" for category, name in categories[:20])
    unknown = replace(kinds.UNKNOWN_CATEGORY, advice=f"known are {known or 'none: the list of categories is empty'}")
    # Flat: a million tuples would keep the garbage collector busy for seconds.
    whole: list[int] = []
    real: list[float] = []
    segmentations: Counter[str] = Counter()
    ids: set[int] = set()
    shapes = _Shapes(asked, tally)
    crowds = _Crowds()
    for row, each in enumerate(records):
        if (referred := _read_references(each, row, place, label, unknown, tally)) is None:
            continue
        own = _read_own_id(each, row, ids, tally)
        if (box := read_box(each.get("bbox"))) is None:
            tally.add(kinds.MALFORMED, "annotations, record {}, id {}: bbox {}", row + 1, own, shown(each.get("bbox")))
            continue
        segmentation = segmentation_kind(each.get("segmentation"))
        segmentations[segmentation] += 1
        if segmentation == "malformed" and asked.task != "masks":
            tally.add(kinds.ODD_SEGMENTATION, "annotation {} (record {})", own, row + 1)
        crowd = read_crowd(each, own, tally)
        value = each.get("segmentation")
        drawn = read_segmentation(value) if asked.task == "masks" or isinstance(value, dict) else None
        extent, grid = outline_of(value, drawn)
        shapes.add(each, drawn, f"annotation {own} (record {row + 1})", bool(crowd))
        crowds.add(each, own, bool(crowd))
        whole += (row, own, *referred, crowd, *grid)
        real += (*box, read_area(each.get("area"), box, own, tally), *extent)
    crowds.report(tally)
    integers = np.array(whole, dtype=np.int64).reshape(-1, 7)
    reals = np.array(real, dtype=np.float64).reshape(-1, 9)
    return Annotations(
        rows=integers[:, 0],
        ids=integers[:, 1],
        images=integers[:, 2],
        labels=integers[:, 3],
        boxes=reals[:, :4],
        crowd=integers[:, 4].astype(bool),
        areas=reals[:, 4],
        outlines=reals[:, 5:],
        grids=integers[:, 5:],
        segmentations=dict(segmentations),
        masks=shapes.masks.built(),
        keypoints=np.frombuffer(bytes(shapes.keypoints)).reshape(len(integers), asked.keypoints, 3),
        complete=np.array(shapes.complete, dtype=bool),
    )


class _Shapes:
    """Collects the masks or keypoints of annotations, and says which have none."""

    def __init__(self, asked: Asked, tally: Tally) -> None:
        self.asked, self.tally = asked, tally
        self.masks = SegmentationsBuilder()
        self.keypoints = bytearray()
        self.complete: list[bool] = []

    def add(self, record: dict[str, Any], drawn: Segmentation | None, words: str, crowd: bool) -> None:
        """The next annotation's, its segmentation read. Of a crowd region nothing is learnt: it lacks nothing."""
        task, count = self.asked.task, self.asked.keypoints
        segmentation = drawn if task == "masks" else None
        points = read_keypoints(record, count) if task == "keypoints" else None
        self.masks.add(segmentation)
        self.keypoints += (np.zeros((count, 3)) if points is None else points).tobytes()
        self.complete.append(task == "boxes" or segmentation is not None or points is not None)
        if not self.complete[-1] and not crowd:
            kind, value = {
                "masks": (kinds.NO_SEGMENTATION, record.get("segmentation")),
                "keypoints": (kinds.NO_POINTS, record.get("keypoints")),
            }[task]
            self.tally.add(kind, "{}: {}", words, shown(value))


class _Crowds:
    """Counts crowd regions: where they are many, they may be single objects that a tool marked so."""

    def __init__(self) -> None:
        self.own: list[int] = []
        self.drawn = self.all = 0

    def add(self, record: dict[str, Any], own: int, crowd: bool) -> None:
        """The next annotation. What VOC calls difficult, or a file marks to be ignored, was meant to be left out."""
        self.all += 1
        if crowd and read_flag(record.get("iscrowd")) and not read_flag(record.get("difficult")):
            self.own.append(own)
            self.drawn += isinstance(record.get("segmentation"), dict)

    def report(self, tally: Tally) -> None:
        if self.drawn > MANY_DRAWN * self.all or len(self.own) >= max(1, MANY * self.all):
            share = f"{len(self.own)} of {self.all} annotations"
            tally.add_all(kinds.MANY_CROWDS, self.own, lambda own: f"annotation {own}; {share}")


def segmentation_kind(value: object) -> str:
    """`polygon`, `RLE`, `uncompressed RLE`, `none`, or `malformed`."""
    if not value:
        return "none"
    if isinstance(value, list):
        return "polygon" if all(_is_polygon(each) for each in value) else "malformed"
    if isinstance(value, dict) and isinstance(value.get("size"), list) and len(value["size"]) == 2:
        if isinstance(value.get("counts"), str):
            return "RLE"
        if isinstance(value.get("counts"), list):
            return "uncompressed RLE"
    return "malformed"


def _is_polygon(points: object) -> bool:
    """x, y, x, y, … of three points or more."""
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        return False
    return set(map(type, points)) <= {int, float}


def _read_references(
    each: Any, row: int, place: Mapping[int, int], label: Mapping[int, int], unknown: Problem, tally: Tally
) -> tuple[int, int] | None:
    """Place of the image and label of the class."""
    if not isinstance(each, dict):
        tally.add(kinds.MALFORMED, "annotations, record {}: not an object: {}", row + 1, shown(each))
        return None
    image_id = read_id(each, "image_id", "annotations", row + 1, tally)
    category_id = read_id(each, "category_id", "annotations", row + 1, tally)
    if image_id is None or category_id is None:
        return None
    image, category = place.get(image_id), label.get(category_id)
    if image is None:
        tally.add(kinds.UNLISTED_IMAGE, "annotation {} is of image {}", shown(each.get("id")), image_id)
    if category is None:
        tally.add(unknown, "annotation {} has category {}", shown(each.get("id")), category_id)
    if category == KEYLESS:
        tally.add(kinds.KEYLESS, "annotation {} has category {}", shown(each.get("id")), category_id)
    return None if image is None or not category or image < 0 else (image, category)


def _read_own_id(each: dict[str, Any], row: int, ids: set[int], tally: Tally) -> int:
    value = each.get("id")
    plain = whole_number(value) is not None
    own = read_id(each, "id", "annotations", row + 1, tally) if plain else None
    if own is None:
        tally.add(kinds.UNNUMBERED, "annotations, record {}: id {}", row + 1, shown(value))
        return UNKNOWN_ID
    if own in ids:
        tally.add(kinds.UNNUMBERED, "annotations, record {}: id {} again", row + 1, own)
    ids.add(own)
    return own
