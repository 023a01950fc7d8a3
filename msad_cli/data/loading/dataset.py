"""Samples, batches, and loaders whose every batch is a pure function of seed and step."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from msad_cli.data.annotations.split import CocoSplit
from msad_cli.data.images.decode import TOLERATED
from msad_cli.data.images.scaled import open_image
from msad_cli.data.loading.image_cache import CachedImages
from msad_cli.data.loading.mirroring import MIRRORED
from msad_cli.data.loading.sampler import ALONE, MixedSampler, Share, StepSampler
from msad_cli.data.loading.transforms import JITTER, Placement, render, training_views
from msad_cli.data.loading.workers import batches_of
from msad_cli.errors import DataError
from msad_cli.frame import Phase, Resolution


@dataclass(frozen=True)
class Sample:
    """One image of a split.

    Attributes:
        index: its place in the split.
        original, frame_size: (height, width) of the file's image and of its HR frame, in pixels.
        views: by k, uint8 RGB (3, h/k, w/k).
        target: `boxes` (M, 4) in HR pixels and `labels` (M,); by the split's task `masks`, uint8 (M, h, w) of the HR
            size, or `keypoints` (M, K, 3), x, y in HR pixels and visibility 0, 1, 2; and `image` (2,): the index, and
            1 where it is mirrored. Of an image without labels `image` alone. Empty in evaluation.
    """

    index: int
    original: tuple[int, int]
    frame_size: tuple[int, int]
    views: dict[int, Tensor]
    target: dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """Samples and, ready for a module, their views by k and their targets.

    Attributes:
        unreadable: by its place in the split, why an image is not among the samples.
    """

    samples: tuple[Sample, ...]
    unreadable: Mapping[int, str] = field(default_factory=dict)

    @property
    def views(self) -> dict[int, list[Tensor]]:
        """The same images at each reduction k, one image (3, h/k, w/k) a sample."""
        ks = self.samples[0].views if self.samples else ()
        return {k: [sample.views[k] for sample in self.samples] for k in ks}

    @property
    def targets(self) -> list[dict[str, Tensor]]:
        """One target a sample, boxes in HR pixels."""
        return [sample.target for sample in self.samples]

    @property
    def indices(self) -> tuple[int, ...]:
        """The places of the samples in their split."""
        return tuple(sample.index for sample in self.samples)

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory; torch's loader asks for it by this name."""

        def pinned(tensors: Mapping[Any, Tensor]) -> dict[Any, Tensor]:
            return {name: each.pin_memory() for name, each in tensors.items()}

        samples = [replace(each, views=pinned(each.views), target=pinned(each.target)) for each in self.samples]
        return Batch(tuple(samples), self.unreadable)


class TrainingSet(Dataset[Sample]):
    """Images with augmentation. Its keys are (epoch, index): a sample depends on nothing else but the seed.

    Args:
        fliplr: how likely an image is mirrored; none is where the keypoints' names do not tell left from right.

    Attributes:
        kept: where decoded images are kept between epochs, or None.
        phase: that of the model's spec.
    """

    def __init__(
        self,
        split: CocoSplit,
        resolution: Resolution,
        ks: Sequence[int],
        jitter: bool,
        seed: int,
        phase: Phase = "centre",
        fliplr: float = MIRRORED,
    ) -> None:
        self.split = split
        self.resolution = resolution
        self.ks = tuple(ks)
        self.jitter = jitter
        self.seed = seed
        self.fliplr = fliplr if split.scheme.flips else 0.0
        self.phase: Phase = phase
        self.kept: CachedImages | None = None

    def keep_decoded(self) -> int:
        """Has decoded images kept between epochs, from the first batch on: the bytes that they will take."""
        self.kept = CachedImages(self.split, self._view_sizes)
        return self.kept.size

    def _view_sizes(self, height: int, width: int) -> set[tuple[int, int]]:
        """(height, width) of all views that an image of so many pixels can be asked for."""
        frames = {self.resolution.frame_size(height, width, scale) for scale in (JITTER if self.jitter else (1.0,))}
        return {(down // k, across // k) for down, across in frames for k in self.ks}

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        split = self.split
        image = open_image(split.path(index), split.tones) if self.kept is None else self.kept.open(index)
        owned = slice(int(split.starts[index]), int(split.starts[index + 1]))
        boxes, labels = torch.from_numpy(split.boxes[owned]), torch.from_numpy(split.labels[owned])
        draw = random.Random(f"{self.seed}/{epoch}/{index}")
        views, boxes, kept, way = training_views(
            image, boxes, self.resolution, self.ks, self.jitter, draw, self.fliplr, self.phase
        )
        target = _target(split, owned.start, boxes, labels, kept, way) if index < split.labelled else {}
        place = torch.tensor([index, way.mirrored])
        return Sample(index, way.original, way.frame_size, views, target | {"image": place})


def _target(
    split: CocoSplit, first: int, boxes: Tensor, labels: Tensor, kept: Tensor, way: Placement
) -> dict[str, Tensor]:
    """What is to be found in an image that went this way.

    Args:
        first: the row of its first object in the split.
        boxes: in HR pixels, of those of its objects that are kept.
        labels: of all its objects.
    """
    target = {"boxes": boxes, "labels": labels[kept]}
    rows = first + kept.nonzero().flatten()
    if split.task == "keypoints":
        target["keypoints"] = way.keypoints(torch.from_numpy(split.keypoints)[rows], split.scheme.mirrored)
    if split.task == "masks":
        masks = way.masks([split.masks.segmentation(int(row)) for row in rows])
        drawn = masks.flatten(1).amax(dim=1) > 0  # a polygon thinner than a pixel may cover none
        target = {name: each[drawn] for name, each in (target | {"masks": masks}).items()}
    return target


class EvaluationSet(Dataset[Sample]):
    """Images as they are. The ground truth of AP stays with the evaluator, in original pixels.

    Args:
        mirrored: whether all are flipped.
        phase: that of the model's spec.
        labelled: whether samples have targets, for losses; those of images that are not flipped.
    """

    def __init__(
        self,
        split: CocoSplit,
        resolution: Resolution,
        ks: Sequence[int],
        mirrored: bool = False,
        phase: Phase = "centre",
        labelled: bool = False,
    ) -> None:
        self.split = split
        self.resolution = resolution
        self.ks = tuple(ks)
        self.mirrored = mirrored
        self.phase: Phase = phase
        self.labelled = labelled

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Sample:
        split, image = self.split, open_image(self.split.path(index), self.split.tones)
        if self.labelled:
            owned = slice(int(split.starts[index]), int(split.starts[index + 1]))
            boxes, labels = torch.from_numpy(split.boxes[owned]), torch.from_numpy(split.labels[owned])
            views, boxes, kept, way = training_views(
                image, boxes, self.resolution, self.ks, False, random.Random(index), False, self.phase
            )
            target = _target(split, owned.start, boxes, labels, kept, way)
            return Sample(index, way.original, way.frame_size, views, target)
        size = self.resolution.frame_size(*image.size)
        views = {k: render(image, size, k, self.mirrored, self.phase) for k in self.ks}
        return Sample(index, image.size, size, views, {})


@dataclass(frozen=True)
class Unreadable:
    """In place of a sample: the place of its image in the split, and why it cannot be read."""

    index: int
    reason: str


class Fetched(Dataset[Sample | Unreadable]):
    """A set's samples, unreadable ones included: an error raised in a worker would arrive as a traceback's text."""

    def __init__(self, data: TrainingSet | EvaluationSet) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.split)

    def __getitem__(self, key: Any) -> Sample | Unreadable:
        try:
            return self.data[key]
        except DataError as error:
            return Unreadable(key[1] if isinstance(key, tuple) else key, error.message)


def collate(fetched: list[Sample | Unreadable]) -> Batch:
    """A list of samples as a batch, images keeping their own sizes."""
    samples = tuple(each for each in fetched if isinstance(each, Sample))
    if get_worker_info() is not None:
        # Torch would move tensors into shared memory when it sends them, in a thread whose errors nobody sees: with
        # that memory full, the run would wait for ever.
        for sample in samples:
            for each in (*sample.views.values(), *sample.target.values()):
                each.share_memory_()
    return Batch(samples, {each.index: each.reason for each in fetched if isinstance(each, Unreadable)})


def first_batch(data: TrainingSet, batch: int, most: int) -> Batch:
    """The first labelled images of a run's first batch, at most so many, as the model sees them.

    Args:
        batch: labelled images a step.
    """
    keys = next(iter(StepSampler(data.split.labelled, batch, data.seed, 0, 1)))
    fetched = Fetched(data)
    return collate([fetched[key] for key in keys[:most]])


def training_loader(
    data: TrainingSet,
    batch: int,
    workers: int,
    first_step: int,
    last_step: int,
    share: Share = ALONE,
    pin: bool = False,
    unlabelled: int = 0,
) -> Iterator[Batch]:
    """One loader for all the steps of a run, epochs included, so that workers live as long as the run.

    Args:
        batch: labelled images a step, of all processes together.
        pin: whether batches come in page-locked memory, from which a GPU copies while it computes.
        unlabelled: images without labels a step, beside those; they come last.

    Raises:
        TrainingError: a worker died.
    """
    if data.kept is not None:
        data.kept.allocate(shared=workers > 0)
    split = data.split
    own = StepSampler(split.labelled, batch, data.seed, first_step, last_step, share)
    others = range(split.labelled, len(split))
    sampler = MixedSampler(own, others, unlabelled, share) if unlabelled else own
    return batches_of(Fetched(data), collate, workers, batch_sampler=sampler, pin_memory=pin)


def evaluation_loader(
    data: EvaluationSet,
    batch: int,
    workers: int,
    share: Share = ALONE,
    pin: bool = False,
    wanted: Sequence[int] | None = None,
) -> Iterator[Batch]:
    """Every image once, in the order of the split; of several processes each takes every so many-th batch.

    Whole batches: what is found in an image depends a little on the padding, and so on those beside it.

    Args:
        wanted: the places of some images; None for all.

    Raises:
        TrainingError: a worker died.
    """
    images = range(len(data)) if wanted is None else wanted
    batches = [images[start : start + batch] for start in range(0, len(images), batch)]
    rank, size = share
    return batches_of(Fetched(data), collate, workers, batch_sampler=batches[rank::size], pin_memory=pin)


def tolerate(unreadable: Mapping[int, str], split: CocoSplit) -> None:
    """Passes over a few images that cannot be read, by their place in the split.

    Raises:
        DataError: they are more than 1% of the split.
    """
    if len(unreadable) > TOLERATED * len(split):
        raise DataError(
            f"{len(unreadable)} of {len(split)} images of {split.file} cannot be read, the last: "
            f"{list(unreadable.values())[-1]}",
            "msad passes over 1%; replace the files, or take them out of the set",
            code="too-many-images-unreadable",
        )
