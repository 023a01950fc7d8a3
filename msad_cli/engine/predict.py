"""Detections of picture files, each decoded straight at the size that the model sees, in threads beside the model."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from msad_cli.data.images import read_image
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
    image: Image.Image
    found: dict[str, Tensor]


@dataclass(frozen=True)
class _Decoded:
    """A picture, its HR (height, width), and its views by k, on the CPU."""

    source: Input
    image: Image.Image
    frame_size: tuple[int, int]
    views: dict[int, Tensor]


def predict(
    detector: Model, view: View, inputs: Sequence[Input], score: float, compute: Compute, batch: int = 1
) -> Iterator[Prediction | DataError]:
    """A prediction a picture, in order; a picture that cannot be read yields its error instead.

    Args:
        score: the least that is answered.
        batch: how many neighbours of one size are given to the model at once. They need no padding for each other, so
            that this changes nothing but the rounding of sums.
    """
    together: list[_Decoded] = []
    for each in _decoded(detector, view, inputs, ahead=2 * batch + DECODERS):
        joins = isinstance(each, _Decoded) and (not together or each.frame_size == together[0].frame_size)
        if not joins or len(together) == batch:
            yield from _detect(detector, view, together, score, compute)
            together = []
        if isinstance(each, DataError):
            yield each
        else:
            together.append(each)
    yield from _detect(detector, view, together, score, compute)


def _decoded(detector: Model, view: View, inputs: Sequence[Input], ahead: int) -> Iterator[_Decoded | DataError]:
    """The pictures in order, at most `ahead` of them waiting in memory."""

    def decode(source: Input) -> _Decoded | DataError:
        try:
            image = read_image(source.path)
        except DataError as error:
            return error
        frame_size = detector.spec.resolution.frame_size(image.height, image.width)
        return _Decoded(source, image, frame_size, {k: render(image, frame_size, k) for k in detector.spec.ks_of(view)})

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
        moved = in_original(kept, (each.image.height, each.image.width), each.frame_size)
        yield Prediction(each.source, each.image, {**moved, "labels": moved["labels"].long()})
