"""Samples, batches, and loaders whose every batch is a pure function of seed and step."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from msad_cli.data.coco import CocoSplit
from msad_cli.data.images import read_image
from msad_cli.data.transforms import render, training_views
from msad_cli.structures.errors import DataError
from msad_cli.structures.frame import Resolution


@dataclass(frozen=True)
class Sample:
    """One picture of a split.

    Attributes:
        index: its place in the split.
        original, frame_size: (height, width) of the file's picture and of its HR frame, in pixels.
        views: by k, uint8 RGB (3, h/k, w/k).
        target: `boxes` (M, 4) in HR pixels and `labels` (M,); empty in evaluation.
    """

    index: int
    original: tuple[int, int]
    frame_size: tuple[int, int]
    views: dict[int, Tensor]
    target: dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """Samples and, ready for a module, their views by k and their targets."""

    samples: tuple[Sample, ...]

    @property
    def views(self) -> dict[int, list[Tensor]]:
        """The same pictures at each reduction k, one image (3, h/k, w/k) a sample."""
        return {k: [sample.views[k] for sample in self.samples] for k in self.samples[0].views}

    @property
    def targets(self) -> list[dict[str, Tensor]]:
        """One target a sample, boxes in HR pixels."""
        return [sample.target for sample in self.samples]

    def __len__(self) -> int:
        return len(self.samples)


class TrainingSet(Dataset[Sample]):
    """Pictures with augmentation. Its keys are (epoch, index): a sample depends on nothing else but the seed."""

    def __init__(self, split: CocoSplit, resolution: Resolution, ks: Sequence[int], jitter: bool, seed: int) -> None:
        self.split = split
        self.resolution = resolution
        self.ks = tuple(ks)
        self.jitter = jitter
        self.seed = seed

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        split = self.split
        image = read_image(split.folder / str(split.file_names[index]))
        owned = slice(int(split.starts[index]), int(split.starts[index + 1]))
        boxes, labels = torch.from_numpy(split.boxes[owned]), torch.from_numpy(split.labels[owned])
        draw = random.Random(f"{self.seed}/{epoch}/{index}")
        views, boxes, kept, size = training_views(image, boxes, self.resolution, self.ks, self.jitter, draw)
        target = {"boxes": boxes, "labels": labels[kept]}
        return Sample(index, (image.height, image.width), size, views, target)


class EvaluationSet(Dataset[Sample]):
    """Pictures as they are, without targets: the ground truth stays with the evaluator, in original pixels."""

    def __init__(self, split: CocoSplit, resolution: Resolution, ks: Sequence[int]) -> None:
        self.split = split
        self.resolution = resolution
        self.ks = tuple(ks)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Sample:
        image = read_image(self.split.folder / str(self.split.file_names[index]))
        original = (image.height, image.width)
        size = self.resolution.frame_size(*original)
        return Sample(index, original, size, {k: render(image, size, k) for k in self.ks}, {})


class StepSampler(Sampler[list[tuple[int, int]]]):
    """The keys of every batch from one step to the last: a fresh shuffle each epoch, an incomplete batch dropped."""

    def __init__(self, pictures: int, batch: int, seed: int, first_step: int, last_step: int) -> None:
        self.pictures = pictures
        self.batch = batch
        self.seed = seed
        self.steps = range(first_step, last_step)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        per_epoch = self.pictures // self.batch
        order: list[int] = []
        shuffled = -1
        for step in self.steps:
            epoch, place = divmod(step, per_epoch)
            if epoch != shuffled:
                order = list(range(self.pictures))
                random.Random(f"{self.seed}/{epoch}").shuffle(order)
                shuffled = epoch
            yield [(epoch, index) for index in order[place * self.batch : (place + 1) * self.batch]]


class Fetched(Dataset[Sample | DataError]):
    """A set's samples, or in place of one its error: raised in a worker, it would arrive as the text of a traceback."""

    def __init__(self, data: TrainingSet | EvaluationSet) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.split)

    def __getitem__(self, key: Any) -> Sample | DataError:
        try:
            return self.data[key]
        except DataError as error:
            return error


def collate(samples: list[Sample | DataError]) -> Batch | DataError:
    """A list of samples as a batch, pictures keeping their own sizes; or the first error among them."""
    errors = [each for each in samples if isinstance(each, DataError)]
    return errors[0] if errors else Batch(tuple(each for each in samples if isinstance(each, Sample)))


def training_loader(data: TrainingSet, batch: int, workers: int, first_step: int, last_step: int) -> Iterator[Batch]:
    """One loader for all the steps of a run, epochs included, so that workers live as long as the run.

    Raises:
        DataError: a picture cannot be read.
    """
    sampler = StepSampler(len(data.split), batch, data.seed, first_step, last_step)
    return _batches(DataLoader(Fetched(data), batch_sampler=sampler, num_workers=workers, collate_fn=collate))


def evaluation_loader(data: EvaluationSet, batch: int, workers: int) -> Iterator[Batch]:
    """Every picture once, in the order of the split.

    Raises:
        DataError: a picture cannot be read.
    """
    return _batches(DataLoader(Fetched(data), batch_size=batch, num_workers=workers, collate_fn=collate))


def _batches(fetched: Iterable[Batch | DataError]) -> Iterator[Batch]:
    for batch in fetched:
        if isinstance(batch, DataError):
            raise batch
        yield batch
