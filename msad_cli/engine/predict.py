"""Detections of picture files, each decoded straight at the size that the model sees, in threads beside the model."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from msad_cli.data.scaled import Picture, open_picture, whole_picture
from msad_cli.data.transforms import render
from msad_cli.engine.device import Compute
from msad_cli.engine.evaluate import in_original
from msad_cli.engine.exported import Model
from msad_cli.engine.inputs import Input
from msad_cli.models.spec import View
from msad_cli.structures.errors import DataError

DECODERS = min(8, os.cpu_count() or 1)
"""Threads that decode; Pillow leaves the interpreter to others meanwhile."""


@dataclass(frozen=True)
class Prediction:
    """What was found in a picture: `boxes` (corners in its pixels), `scores`, `labels` (from 1), and by task `masks`
    (D, 1, 28, 28), probabilities on a grid over each of `mask_boxes` (D, 4), or `keypoints` (D, K, 3) in its
    pixels."""

    source: Input
    picture: Picture
    found: dict[str, Tensor]

    @property
    def image(self) -> Image.Image:
        """The whole picture, RGB and upright."""
        return self.picture.at(1)


@dataclass(frozen=True)
class _Decoded:
    """A picture, its HR (height, width), and its views by k, on the CPU."""

    source: Input
    picture: Picture
    frame_size: tuple[int, int]
    views: dict[int, Tensor]


def usual_batch(compute: Compute) -> int:
    """How many pictures are given to a model at once unless somebody says: a CPU has no use for more than one."""
    return 1 if compute.device.type == "cpu" else 8


def predict(
    detector: Model,
    view: View,
    inputs: Sequence[Input],
    score: float,
    compute: Compute,
    batch: int = 1,
    whole: bool = False,
) -> Iterator[Prediction | DataError]:
    """A prediction a picture, in order; a picture that cannot be read yields its error instead.

    Args:
        score: the least that is answered.
        batch: how many neighbours of one size are given to the model at once. They need no padding for each other, so
            that this changes nothing but the rounding of sums.
        whole: whether `image` of every prediction will be asked for: then it is decoded beside the model too.
    """
    together: list[_Decoded] = []
    for each in _decoded(detector, view, inputs, whole, ahead=2 * batch + DECODERS):
        joins = isinstance(each, _Decoded) and (not together or each.frame_size == together[0].frame_size)
        if not joins or len(together) == batch:
            yield from _detect(detector, view, together, score, compute)
            together = []
        if isinstance(each, DataError):
            yield each
        else:
            together.append(each)
    yield from _detect(detector, view, together, score, compute)


def _decoded(
    detector: Model, view: View, inputs: Sequence[Input], whole: bool, ahead: int
) -> Iterator[_Decoded | DataError]:
    """The pictures in order, at most `ahead` of them waiting in memory."""

    def decode(source: Input) -> _Decoded | DataError:
        try:
            picture = open_picture(source.path) if source.image is None else whole_picture(source.image)
            frame_size = detector.spec.resolution.frame_size(*picture.size)
            views = {k: render(picture, frame_size, k) for k in detector.spec.ks_of(view)}
            if whole:
                picture.at(1)
        except DataError as error:
            return error
        return _Decoded(source, picture, frame_size, views)

    waiting: deque[Future[_Decoded | DataError]] = deque()
    with ThreadPoolExecutor(DECODERS) as pool:
        for source in inputs:
            waiting.append(pool.submit(decode, source))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _detect(
    detector: Model, view: View, pictures: Sequence[_Decoded], score: float, compute: Compute
) -> Iterator[Prediction]:
    if not pictures:
        return
    views = {k: [each.views[k].to(compute.device) for each in pictures] for k in pictures[0].views}
    with compute.inference():
        detections = detector.detect(views, view)
    for each, found in zip(pictures, detections, strict=True):
        sure = found["scores"] >= score
        kept = {name: values[sure].float() for name, values in found.items()}
        moved = in_original(kept, each.picture.size, each.frame_size)
        yield Prediction(each.source, each.picture, {**moved, "labels": moved["labels"].long()})
