"""The check of a data set: what it holds, how large its objects are, and everything that is wrong with it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msad_cli.data.agreement.category_names import plain_name
from msad_cli.data.agreement.contradictions import contradictions
from msad_cli.data.agreement.forms import Form
from msad_cli.data.agreement.sizes import resized_images, without_resized
from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.boxes import Judged, judge_boxes
from msad_cli.data.annotations.problem_tally import Problem, Tally
from msad_cli.data.annotations.records import Records, frame_scales
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

    def only(self, codes: Collection[str]) -> "Report":
        """The report with some kinds of problems alone, those between the splits left out."""
        kept = [tuple(of for of in each.problems if of.code in codes) for each in self.splits]
        return Report(tuple(replace(each, problems=of) for each, of in zip(self.splits, kept, strict=True)))

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
    seen = _Seen(depth)
    reports = tuple(_check_split(name, splits[name], images[name], resolution, ks, seen) for name in splits)
    tally = Tally()
    if len(splits) == 2:
        pairs = same_images(images["train"], images["val"])
        tally.add_all(kinds.SEEN_TWICE, range(len(pairs)), lambda i: f"{pairs[i][1]} is {pairs[i][0]}")
        _report_apart(reports[0], reports[1], tally)
    return Report(reports, tally.problems(), depth.tones, depth.words)


@dataclass
class _Seen:
    """What is known of the whole set, and what was found in the split before: the same tool wrote the next one."""

    depth: Depth
    resized: bool = False
    forms: list[Form] = field(default_factory=list)


def _report_apart(train: SplitReport, val: SplitReport, tally: Tally) -> None:
    """Classes of one name that are learnt by one id and measured by another."""
    learnt = {category: boxes for category, _, boxes in train.classes}
    names = [plain_name(name) for _, name, _ in val.classes]
    for category, name, boxes in val.classes:
        if boxes and not learnt.get(category) and names.count(plain_name(name)) > 1:
            tally.add(kinds.ONLY_IN_VAL, "{!r}, category {}: {} in val", name, category, boxes)


def _check_split(
    name: str, records: Records, images: SplitImages, resolution: Resolution, ks: Sequence[int], seen: "_Seen"
) -> SplitReport:
    of = records.annotations
    resized = resized_images(records, images.sizes, images.stated_turned, seen.resized)
    sizes = resized.frames
    judged = judge_boxes(records, sizes)
    found = [*records.problems, *without_resized(images.problems, resized), *resized.problems]
    found += seen.depth.problems.get(name, ())
    # Of which raster the boxes of an image are that EXIF turns is another question.
    frames = np.where(images.stated_turned[:, None], 0, sizes)
    said = contradictions(records, frames, seen.forms)
    seen.resized, seen.forms = bool(resized.problems), [each.form for each in said if each.form]
    found += [each.problem for each in said]
    found += judged.problems
    explained = name == "train" and any(each.fatal for each in records.problems)
    if not judged.usable.any() and not explained:
        found.append(_nothing_left(name, records, judged))
    elif records.task == "keypoints" and judged.usable.any() and not of.keypoints[judged.usable, :, 2].any():
        found.append(_nothing_labelled(name, int(judged.usable.sum())))
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
        counts={**_counts(records, judged, boxes), **seen.depth.counts.get(name, {})},
        classes=tuple((*each, count) for each, count in zip(records.categories, boxes, strict=True)),
        sizes=tuple(_sizes(lengths, k) for k in (1, *downsampled)) if len(lengths) else (),
        problems=tuple(found),
    )


def _nothing_left(name: str, records: Records, judged: Judged) -> Problem:
    """That no box is left, and what became of all."""
    of = records.annotations
    kind = kinds.NO_BOXES if name == "train" else kinds.VAL_EMPTY
    beside = "" if records.task == "boxes" else f" with {records.task}"
    gone = [(int(of.crowd.sum()), "crowd regions or to be ignored")]
    gone += [(each.count, each.what) for each in judged.problems if each.outcome == "dropped"]
    gone += [(int((~of.complete & ~of.crowd).sum()), f"without {records.task}")]
    words = ", ".join(f"{count} {what}" for count, what in gone if count)
    # What VOC calls difficult is a crowd region, but none of those that are counted as too many.
    crowded = any(each.code == kinds.MANY_CROWDS.code for each in records.problems)
    advice = kinds.MANY_CROWDS.advice if crowded and name == "train" else kind.advice
    example = f"none{beside} in {len(of)} annotations" + (f": {words}" if words else "")
    return replace(kind, advice=advice, count=1, examples=(example,))


def _nothing_labelled(name: str, objects: int) -> Problem:
    """That all keypoints say of themselves that nobody labelled them."""
    kind = kinds.NO_BOXES if name == "train" else kinds.VAL_EMPTY
    advice = (
        "the third number of a keypoint is 2 where it is visible and 1 where it is hidden; 0 says that it has no label"
    )
    example = f"none with a labelled keypoint in {objects} annotations: all have a visibility of 0"
    return replace(kind, advice=advice, count=1, examples=(example,))


def _lengths(records: Records, judged: Judged, sizes: NDArray[np.int64], resolution: Resolution) -> NDArray[np.float64]:
    """√(width × height) in HR pixels of each box to learn from, clipped to its image, if the image's size is known."""
    of = records.annotations
    rows = np.flatnonzero(judged.usable & (sizes[of.images] > 0).all(axis=1))
    image = of.images[rows]
    corners = np.concatenate([of.boxes[rows, :2], of.boxes[rows, :2] + of.boxes[rows, 2:]], axis=1)
    corners = corners.clip(0, np.tile(sizes[image][:, ::-1], 2))
    scale = frame_scales(sizes, resolution)[image]
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
