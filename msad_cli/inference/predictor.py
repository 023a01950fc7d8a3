"""Detections of images and of videos' frames, brought to the size that the model sees in threads beside the model."""

import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from msad_cli.data.images.scaled import ScaledImage, open_image, whole_image
from msad_cli.data.loading.transforms import render
from msad_cli.errors import DataError
from msad_cli.evaluation.detect_split import in_original
from msad_cli.export.runtime import Model
from msad_cli.inference.inputs import Input
from msad_cli.models.decode.nms import one_class_a_box
from msad_cli.models.spec import View
from msad_cli.system.device import Compute

DECODERS = min(8, os.cpu_count() or 1)
"""Threads that decode; Pillow leaves the interpreter to others meanwhile."""


Frames = Iterator[tuple[int, Image.Image]]
"""Frames of a video with their numbers, from 0."""
Given = TypeVar("Given")
Done = TypeVar("Done")


@dataclass(frozen=True)
class Wanted:
    """What is answered of all that a model finds.

    Attributes:
        score: the least.
        labels: of the classes, from 1; all if None.
        overlap: IoU with a surer box of any class above which one is taken for the same object, and left out. None
            answers both, as evaluation counts them.
    """

    score: float
    labels: Collection[int] | None = None
    overlap: float | None = None

    def of(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is wanted of detections that have the score."""
        answer = one_class_a_box(found, self.overlap)
        if self.labels is None:
            return answer
        kept = torch.isin(answer["labels"].long(), torch.tensor(sorted(self.labels)))
        return {name: each[kept] for name, each in answer.items()}


@dataclass(frozen=True)
class Prediction:
    """What was found in an image: `boxes` (corners in its pixels), `scores`, `labels` (from 1), and by task `masks`
    (D, 1, 28, 28), probabilities on a grid over each of `mask_boxes` (D, 4), or `keypoints` (D, K, 3) in its
    pixels. Of a video, `frame` is the number of the frame, from 0. `cut` says that the model may have found more, had
    it been allowed more detections. `seconds` is the model's time for it, decoding and drawing aside."""

    source: Input
    scaled: ScaledImage
    found: dict[str, Tensor]
    frame: int | None = None
    cut: bool = False
    seconds: float = 0.0

    @property
    def image(self) -> Image.Image:
        """The whole image, RGB and upright."""
        return self.scaled.at(1)


@dataclass(frozen=True)
class _Decoded:
    """An image, its HR (height, width), and its views by k, on the CPU."""

    source: Input
    scaled: ScaledImage
    frame_size: tuple[int, int]
    views: dict[int, Tensor]
    frame: int | None = None


def usual_batch(compute: Compute) -> int:
    """How many images are given to a model at once unless somebody says: a CPU has no use for more than one."""
    return 1 if compute.device.type == "cpu" else 8


def predict(
    detector: Model,
    view: View,
    inputs: Sequence[Input],
    wanted: Wanted,
    compute: Compute,
    batch: int = 1,
    whole: bool = False,
) -> Iterator[Prediction | DataError]:
    """A prediction an image, in order; an image that cannot be read yields its error instead.

    Args:
        batch: how many neighbours of one size are given to the model at once. They need no padding for each other, so
            that this changes nothing but the rounding of sums.
        whole: whether `image` of every prediction will be asked for: then it is decoded beside the model too.
    """

    def decode(source: Input) -> _Decoded | DataError:
        try:
            image = open_image(source.path, detector.spec.tones) if source.image is None else whole_image(source.image)
            seen = _rendered(detector, view, source, image)
            if whole:
                seen.scaled.at(1)
        except DataError as error:
            return error
        return seen

    decoded = _in_threads(DECODERS, decode, inputs, ahead=2 * batch + DECODERS)
    yield from _in_batches(detector, view, decoded, wanted, compute, batch)


def predict_frames(
    detector: Model,
    view: View,
    source: Input,
    frames: Frames,
    wanted: Wanted,
    compute: Compute,
    batch: int = 1,
) -> Iterator[Prediction | DataError]:
    """A prediction a frame of a video, in order; where it cannot be read further, the error ends it.

    Args:
        frames: are asked for in a thread beside the model.
    """

    def decode(_: int) -> _Decoded | DataError | None:
        try:
            number, image = next(frames)
        except StopIteration:
            return None
        except DataError as error:
            return error
        return replace(_rendered(detector, view, source, whole_image(image)), frame=number)

    def decoded() -> Iterator[_Decoded | DataError]:
        # One thread: a decoder goes from frame to frame.
        for each in _in_threads(1, decode, itertools.count(), ahead=2 * batch):
            if each is None:
                return
            yield each

    yield from _in_batches(detector, view, decoded(), wanted, compute, batch)


def _rendered(detector: Model, view: View, source: Input, image: ScaledImage) -> _Decoded:
    frame_size = detector.resolution.frame_size(*image.size)
    spec = detector.spec
    views = {k: render(image, frame_size, k, phase=spec.phase) for k in spec.ks_of(view)}
    return _Decoded(source, image, frame_size, views)


def _in_threads(threads: int, work: Callable[[Given], Done], items: Iterable[Given], ahead: int) -> Iterator[Done]:
    """What `work` makes of items, in order, at most `ahead` of them waiting in memory."""
    waiting: deque[Future[Done]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for each in items:
            waiting.append(pool.submit(work, each))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _in_batches(
    detector: Model,
    view: View,
    decoded: Iterable[_Decoded | DataError],
    wanted: Wanted,
    compute: Compute,
    batch: int,
) -> Iterator[Prediction | DataError]:
    together: list[_Decoded] = []
    for each in decoded:
        joins = isinstance(each, _Decoded) and (not together or each.frame_size == together[0].frame_size)
        if not joins or len(together) == batch:
            yield from _detect(detector, view, together, wanted, compute)
            together = []
        if isinstance(each, DataError):
            yield each
        else:
            together.append(each)
    yield from _detect(detector, view, together, wanted, compute)


def _detect(
    detector: Model, view: View, images: Sequence[_Decoded], wanted: Wanted, compute: Compute
) -> Iterator[Prediction]:
    if not images:
        return
    views = {k: [each.views[k].to(compute.device) for each in images] for k in images[0].views}
    begun = time.perf_counter()
    with compute.inference():
        detections = [{name: values.cpu() for name, values in each.items()} for each in detector.detect(views, view)]
    seconds = (time.perf_counter() - begun) / len(images)
    for each, found in zip(images, detections, strict=True):
        sure = {name: values[found["scores"] >= wanted.score].float() for name, values in found.items()}
        cut = len(sure["scores"]) == detector.spec.detections_per_image
        answer = wanted.of(sure)
        moved = in_original(answer, each.scaled.size, each.frame_size)
        yield Prediction(
            each.source, each.scaled, {**moved, "labels": moved["labels"].long()}, each.frame, cut, seconds
        )
