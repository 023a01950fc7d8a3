"""The check of a data set: what it holds, how large its objects are, and everything that is wrong with it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.boxes import Judged, judge_boxes
from msad_cli.data.annotations.problems import Problem, Tally
from msad_cli.data.annotations.records import Records
from msad_cli.data.images.depth import Depth, look_at_depth
from msad_cli.data.images.split_images import SplitImages, look_at_images, same_images
from msad_cli.data.images.tones import BY_FILE, Tones
from msad_cli.frame import Resolution

SMALL_SIDE = 8.0
"""Pixels: the stride of the finest level (P3). Smaller objects fall between the cells."""
MOST_SMALL = 0.4
QUANTILES = (0.05, 0.5, 0.95)
BOTH = "train and val"


@dataclass(frozen=True)
class ObjectSizes:
    """Square roots of the objects' areas in pixels of the view downsampled by k: quantiles, and how many are small."""

    k: int
    quantiles: tuple[float, ...]
    small_share: float


@dataclass(frozen=True)
class SplitReport:
    """What one annotation file and its images are like.

    Attributes:
        name: `train` or `val`.
        file, folder: of the annotations and of the images.
        counts: by name, how many there are of each thing that is no problem.
        classes: (category id, name, boxes to learn from).
        sizes: at HR and in each downsampled view; none without boxes.
        problems: in the order in which they were met.
    """

    name: str
    file: str
    folder: str
    counts: dict[str, int]
    classes: tuple[tuple[int, str, int], ...]
    sizes: tuple[ObjectSizes, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Report:
    """What the splits of a set are like, and what is wrong between them.

    Attributes:
        tones: by which images of more than 8 bits are read.
        depth: why, in words; empty where there is none.
    """

    splits: tuple[SplitReport, ...]
    shared: tuple[Problem, ...] = ()
    tones: Tones = BY_FILE
    depth: str = ""

    @property
    def problems(self) -> list[tuple[str, Problem]]:
        """All problems, each with the split it is in; fatal ones first."""
        every = [(split.name, each) for split in self.splits for each in split.problems]
        every += [(BOTH, each) for each in self.shared]
        return sorted(every, key=lambda each: not each[1].fatal)

    def lines(self) -> Iterator[str]:
        """A line for each kind of problem."""
        for name, each in self.problems:
            yield each.in_line(name)

    def to_json(self) -> dict[str, Any]:
        """Plain values, `from_json`'s reverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Report":
        """The report that `to_json` was called on.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it was not.
        """
        splits = [
            SplitReport(
                **{
                    **each,
                    "classes": tuple((int(number), str(name), int(boxes)) for number, name, boxes in each["classes"]),
                    "sizes": tuple(ObjectSizes(**{**of, "quantiles": tuple(of["quantiles"])}) for of in each["sizes"]),
                    "problems": _problems(each["problems"]),
                }
            )
            for each in value["splits"]
        ]
        return cls(tuple(splits), _problems(value["shared"]), Tones(**value["tones"]), str(value["depth"]))


def _problems(values: Sequence[Mapping[str, Any]]) -> tuple[Problem, ...]:
    return tuple(Problem(**{**each, "examples": tuple(each["examples"])}) for each in values)


def check(splits: Mapping[str, Records], resolution: Resolution, ks: Sequence[int], decode: bool = False) -> Report:
    """Looks at everything.

    Args:
        splits: `train`, `val` or both; val's read with the categories of train.
        resolution: the HR size.
        ks: by which the views are downsampled.
        decode: whether all pixels of all images are decoded too, which takes much longer.
    """
    images = {name: look_at_images(records, decode) for name, records in splits.items()}
    depth = look_at_depth(splits, images)
    reports = tuple(_check_split(name, splits[name], images[name], resolution, ks, depth) for name in splits)
    tally = Tally()
    if len(splits) == 2:
        pairs = same_images(images["train"], images["val"])
        tally.add_all(kinds.SEEN_TWICE, range(len(pairs)), lambda i: f"{pairs[i][1]} is {pairs[i][0]}")
    return Report(reports, tally.problems(), depth.tones, depth.words)


def _check_split(
    name: str, records: Records, images: SplitImages, resolution: Resolution, ks: Sequence[int], depth: Depth
) -> SplitReport:
    of = records.annotations
    sizes = np.where(images.sizes > 0, images.sizes, records.sizes)
    judged = judge_boxes(records, sizes)
    found = [*records.problems, *images.problems, *depth.problems.get(name, ()), *judged.problems]
    explained = name == "train" and any(each.fatal for each in records.problems)
    if not judged.usable.any() and not explained:
        kind = kinds.NO_BOXES if name == "train" else kinds.VAL_EMPTY
        beside = "" if records.task == "boxes" else f" with {records.task}"
        found.append(replace(kind, count=1, examples=(f"none{beside} in {len(of)} annotations",)))
    lengths = _lengths(records, judged, sizes, resolution)
    downsampled = [k for k in ks if k > 1]
    for k in downsampled:
        small = int((lengths / k < SMALL_SIDE).sum())
        if small > MOST_SMALL * len(lengths):
            words = f"{small / len(lengths):.0%} of all at 1/{k} of {resolution.short_side},{resolution.long_side}"
            found.append(replace(kinds.SMALL, count=small, examples=(words,)))
    boxes = np.bincount(of.labels[judged.usable], minlength=len(records.categories) + 1)[1:].tolist()
    return SplitReport(
        name=name,
        file=str(records.file),
        folder=str(records.folder),
        counts={**_counts(records, judged, boxes), **depth.counts.get(name, {})},
        classes=tuple((*each, count) for each, count in zip(records.categories, boxes, strict=True)),
        sizes=tuple(_sizes(lengths, k) for k in (1, *downsampled)) if len(lengths) else (),
        problems=tuple(found),
    )


def _lengths(records: Records, judged: Judged, sizes: NDArray[np.int64], resolution: Resolution) -> NDArray[np.float64]:
    """√(width × height) in HR pixels of each box to learn from, clipped to its image, if the image's size is known."""
    of = records.annotations
    rows = np.flatnonzero(judged.usable & (sizes[of.images] > 0).all(axis=1))
    distinct, which = np.unique(sizes, axis=0, return_inverse=True)
    frames = np.array([resolution.frame_size(*size) if all(size) else (0, 0) for size in distinct.tolist()])
    image = of.images[rows]
    corners = np.concatenate([of.boxes[rows, :2], of.boxes[rows, :2] + of.boxes[rows, 2:]], axis=1)
    corners = corners.clip(0, np.tile(sizes[image][:, ::-1], 2))
    scale = frames.reshape(-1, 2)[which.ravel()[image]] / sizes[image]
    sides = (corners[:, 2:] - corners[:, :2]) * scale[:, ::-1]
    return np.asarray(np.sqrt(sides.prod(axis=1)))


def _sizes(lengths: NDArray[np.float64], k: int) -> ObjectSizes:
    quantiles = tuple(round(float(value), 2) for value in np.quantile(lengths / k, QUANTILES))
    return ObjectSizes(k, quantiles, round(float((lengths / k < SMALL_SIDE).mean()), 4))


def _counts(records: Records, judged: Judged, boxes: list[int]) -> dict[str, int]:
    of = records.annotations
    with_boxes = len(np.unique(of.images[judged.usable]))
    return {
        "images": len(records.image_ids),
        "images without boxes": len(records.image_ids) - with_boxes,
        "annotations": len(of),
        "boxes to learn from": int(judged.usable.sum()),
        "crowd regions": int(of.crowd.sum()),
        "classes": len(boxes),
        "classes without boxes": boxes.count(0),
        **_keypoint_counts(records, judged),
        **{f"segmentations: {kind}": count for kind, count in sorted(of.segmentations.items())},
    }


def _keypoint_counts(records: Records, judged: Judged) -> dict[str, int]:
    if records.task != "keypoints":
        return {}
    labelled = records.annotations.keypoints[judged.usable, :, 2] > 0
    return {
        "keypoints of an object": labelled.shape[1],
        "keypoints with a label": int(labelled.sum()),
        "objects without a labelled keypoint": int((~labelled.any(axis=1)).sum()),
    }
