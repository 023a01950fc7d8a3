"""Samples, batches, and loaders whose every batch is a pure function of seed and step."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from msad_cli.data.annotations.split import CocoSplit
from msad_cli.data.images.decode import TOLERATED
from msad_cli.data.images.scaled import ScaledImage, open_image
from msad_cli.data.loading.augment import LEVELS, Augmentation, Photo, tiles
from msad_cli.data.loading.image_cache import CachedImages
from msad_cli.data.loading.pieces import Piece, composed, shown
from msad_cli.data.loading.sampler import ALONE, MixedSampler, Share, StepSampler
from msad_cli.data.loading.transforms import Part, Placement, render
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
        others: the places of the other images that are shown in it.
    """

    index: int
    original: tuple[int, int]
    frame_size: tuple[int, int]
    views: dict[int, Tensor]
    target: dict[str, Tensor]
    others: tuple[int, ...] = ()


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
        augmentation: without mirrors, where the keypoints' names do not tell left from right.

    Attributes:
        kept: where decoded images are kept between epochs, or None.
        phase: that of the model's spec.
    """

    def __init__(
        self,
        split: CocoSplit,
        resolution: Resolution,
        ks: Sequence[int],
        seed: int,
        augmentation: Augmentation = LEVELS["light"],
        phase: Phase = "centre",
    ) -> None:
        self.split = split
        self.resolution = resolution
        self.ks = tuple(ks)
        self.seed = seed
        self.augmentation = augmentation if split.scheme.flips else augmentation.unmirrored()
        self.phase: Phase = phase
        self.kept: CachedImages | None = None

    def keep_decoded(self) -> int:
        """Has decoded images kept between epochs, from the first batch on: the bytes that they will take."""
        self.kept = CachedImages(self.split, self._view_sizes)
        return self.kept.size

    def _view_sizes(self, height: int, width: int) -> set[tuple[int, int]]:
        """(height, width) of all views that an image of so many pixels can be asked for."""
        sizes = self.augmentation.sizes(height, width, self.resolution)
        return {(down // k, across // k) for down, across in sizes for k in self.ks}

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        draw = random.Random(f"{self.seed}/{epoch}/{index}")
        image, labelled = self._open(index), index < self.split.labelled
        way = self.augmentation.whole(image.size, self.resolution, draw)
        # Mosaics are of images with labels: what nobody labelled must not pass for background.
        mosaic = labelled and self.augmentation.draw_mosaic(epoch, draw)
        photo = self.augmentation.draw_photo(draw)
        others: list[int] = []
        if mosaic:
            pieces, others = self._mosaic(index, image, photo, draw)
        else:
            pieces = [shown(self.split, index, image, way, self.ks, self.phase, photo)]
        way = pieces[0].way
        views, target = composed(pieces)
        # Drawn last, so that a sample is otherwise the same with and without.
        if labelled and self.augmentation.draw_mixup(epoch, draw):
            views, target, mixed = self._blended(views, target, way.frame_size, draw)
            others += mixed
        target = {**(target if labelled else {}), "image": torch.tensor([index, way.mirrored])}
        return Sample(index, image.size, way.frame_size, views, target, tuple(others))

    def _mosaic(
        self, index: int, image: ScaledImage, photo: Photo, draw: random.Random
    ) -> tuple[list[Piece], list[int]]:
        """Four images in the frame that the first one has, and the places of the others in the split."""
        frame_size = self.resolution.frame_size(*image.size)
        first, *rest = tiles(frame_size, draw)

        def piece(place: int, image: ScaledImage, tile: Part) -> Piece:
            way = self.augmentation.in_tile(image.size, self.resolution, frame_size, tile, draw)
            return shown(self.split, place, image, way, self.ks, self.phase, photo)

        pieces, others = [piece(index, image, first)], []
        for tile in rest:
            place = draw.randrange(self.split.labelled)
            with suppress(DataError):  # its tile stays grey; that it cannot be read, its own sample says
                pieces.append(piece(place, self._open(place), tile))
                others.append(place)
        return pieces, others

    def _blended(
        self, views: dict[int, Tensor], target: dict[str, Tensor], frame_size: tuple[int, int], draw: random.Random
    ) -> tuple[dict[int, Tensor], dict[str, Tensor], list[int]]:
        """A frame with another image in it, each at half its strength, all that is in both, and the other's place."""
        place = draw.randrange(self.split.labelled)
        try:
            image = self._open(place)
            way = self.augmentation.in_tile(image.size, self.resolution, frame_size, (0, 0, *frame_size), draw)
            piece = shown(self.split, place, image, way, self.ks, self.phase, self.augmentation.draw_photo(draw))
        except DataError:  # nothing is blended in; that it cannot be read, its own sample says
            return views, target, []
        over, more = composed([piece])
        both = {k: ((each.short() + over[k]) // 2).to(torch.uint8) for k, each in views.items()}
        return both, {name: torch.cat([each, more[name]]) for name, each in target.items()}, [place]

    def _open(self, index: int) -> ScaledImage:
        split = self.split
        return open_image(split.path(index), split.tones) if self.kept is None else self.kept.open(index)


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
        size = self.resolution.frame_size(*image.size)
        if self.labelled:
            way = Placement.filling(image.size, size)
            return Sample(index, image.size, size, *composed([shown(split, index, image, way, self.ks, self.phase)]))
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
