"""What of a set decides which model suits it: the size of its images, of its objects, and how many there are."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from msad_cli.data.annotations.split import CocoSplit
from msad_cli.data.images.decode import limit_pixels
from msad_cli.data.images.scaled import open_image
from msad_cli.data.layouts.image_sizes import image_sizes_of
from msad_cli.data.loading.transforms import render
from msad_cli.errors import DataError
from msad_cli.frame import SIDE_MULTIPLE, Resolution
from msad_cli.models.spec import DetectorSpec
from msad_cli.text import MOST_PIXELS, parse_pixels
from msad_cli.training.config import TeacherConfig
from msad_cli.training.observer import Observer
from msad_cli.training.sets import fields_from_data, find_data, read_data

ALIKE, MOST_OTHERS = 0.02, 0.05
"""By how much the ratio of sides may differ from the usual one, and the share of images that may differ by more or
stand where the usual one lies, for a graph to be exported with fixed sides."""
LOOKED_AT = 16
"""Images that are shown to untrained networks, and opened where a set does not state sizes."""


@dataclass(frozen=True)
class Facts:
    """What is known of a set before anything is trained.

    Attributes:
        data: as it was typed.
        train, val: its splits, checked.
        fields: of a detector's spec that follow from the set: its classes, how many detections an image may have.
        size: (height, width) of the usual image in its own pixels: the median of the short side, and of the ratio.
        alike: whether nearly all images have its ratio of sides and lie or stand as it does.
        images: (height, width) of the validation images, where their file states them.
        objects: in an image of the validation split, the mean, rounded up; at least 1.
        side: the median square root of an object's area as a share of its image's short side.
    """

    data: str
    train: CocoSplit
    val: CocoSplit
    fields: dict[str, Any]
    size: tuple[int, int]
    alike: bool
    images: Sequence[tuple[int, int]]
    objects: int
    side: float

    @property
    def short(self) -> int:
        """The usual image's short side."""
        return min(self.size)

    @property
    def counted(self) -> Sequence[tuple[int, int]]:
        """The images by which a candidate's cost is counted, see `msad_cli.export.formats.images_of`: graphs of fixed
        sides see every image as they see the usual one.
        """
        return [self.size] if self.alike else self.images

    def resolution(self, short: int) -> Resolution:
        """The HR size of this short side whose long side is that of the usual image."""
        return Resolution(short, max(short, _multiple(short * max(self.size) / self.short)))

    def views(self, spec: DetectorSpec, most: int = LOOKED_AT) -> list[Tensor]:
        """The first validation images as a student sees them: uint8 (3, h, w). What cannot be read is left out."""
        (k,), found = spec.ks, []
        for path in self.val.paths[:most]:
            try:
                image = open_image(path, self.val.tones)
                found.append(render(image, spec.resolution.frame_size(*image.size), k, phase=spec.phase))
            except DataError:
                continue
        return found


class _Listening(Observer):
    """Passes on what is said of a set."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def say(self, line: str) -> None:
        self._tell(line)


def find_facts(data: str, say: Callable[[str], None]) -> Facts:
    """A set, checked, and what is known of it.

    Args:
        say: is told what the check found.

    Raises:
        DataError: it cannot be found, read or used, or none of its images can be opened.
    """
    limit_pixels(parse_pixels(MOST_PIXELS))
    config, observer = TeacherConfig(data=data), _Listening(say)
    found = find_data(config, data, "boxes", observer)
    size, alike = usual_size(_stated(found.learnt.sizes))
    resolution = Resolution(*(max(32, _multiple(each)) for each in sorted(size))) if size[0] else Resolution(32, 32)
    train, val, _ = read_data(config, found, resolution, (1, 2), observer)
    if not size[0]:
        size, alike = usual_size(_opened(train))
    fields, _ = fields_from_data(train, None)
    counts = np.diff(val.starts)
    return Facts(
        data=data,
        train=train,
        val=val,
        fields=fields,
        size=size,
        alike=alike,
        images=image_sizes_of(data),
        objects=max(1, math.ceil(float(counts.mean()) if len(counts) else 1)),
        side=_object_side(train, min(size)),
    )


def usual_size(sizes: NDArray[np.int64]) -> tuple[tuple[int, int], bool]:
    """(height, width) of the usual image among sizes (I, 2), and whether nearly all are like it; 0, 0 of none."""
    if not len(sizes):
        return (0, 0), False
    short, long = np.sort(sizes, axis=1).T
    ratio, side = float(np.median(long / short)), int(np.median(short))
    lying = (sizes[:, 1] >= sizes[:, 0]).mean() >= 0.5
    square = ratio <= 1 + ALIKE
    as_usual = square | ((sizes[:, 1] >= sizes[:, 0]) == lying)
    others = (np.abs(long / short / ratio - 1) > ALIKE) | ~as_usual
    pair = (side, round(side * ratio))
    return (pair if lying else pair[::-1]), bool(others.mean() <= MOST_OTHERS)


def _stated(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return sizes[(sizes > 0).all(axis=1)]


def _opened(split: CocoSplit) -> NDArray[np.int64]:
    found = []
    for path in split.paths[:LOOKED_AT]:
        try:
            found.append(open_image(path, split.tones).size)
        except DataError:
            continue
    if not found:
        raise DataError(
            f"{split.folder}: none of its first images can be opened",
            "msad data check says what is wrong",
            code="images-unreadable",
        )
    return np.array(found, dtype=np.int64)


def _object_side(split: CocoSplit, short: int) -> float:
    sides = np.sqrt((split.boxes[:, 2:] - split.boxes[:, :2]).prod(axis=1))
    own = split.sizes.min(axis=1)
    images = np.repeat(np.arange(len(split)), np.diff(split.starts))
    return float(np.median(sides / np.where(own[images] > 0, own[images], short)))


def _multiple(pixels: float) -> int:
    return max(SIDE_MULTIPLE, round(pixels / SIDE_MULTIPLE) * SIDE_MULTIPLE)
