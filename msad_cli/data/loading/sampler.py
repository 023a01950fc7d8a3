"""Which images each batch holds: a pure function of seed and step."""

import random
from collections.abc import Iterator

from torch.utils.data import Sampler

Share = tuple[int, int]
"""Which of how many processes, from 0: the first of four is (0, 4)."""
ALONE: Share = (0, 1)


class StepSampler(Sampler[list[tuple[int, int]]]):
    """The keys of every batch from one step to the last: a fresh shuffle each epoch, an incomplete batch dropped.

    Of several processes each takes a slice of the batch that a single one would take; slices differ by an image at
    most, and are empty where there are more processes than images.
    """

    def __init__(
        self, images: int, batch: int, seed: int, first_step: int, last_step: int, share: Share = ALONE
    ) -> None:
        self.images = images
        self.batch = batch
        self.seed = seed
        self.steps = range(first_step, last_step)
        rank, size = share
        self.slice = slice(rank * batch // size, (rank + 1) * batch // size)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        per_epoch = self.images // self.batch
        order: list[int] = []
        shuffled = -1
        for step in self.steps:
            epoch, place = divmod(step, per_epoch)
            if epoch != shuffled:
                order = list(range(self.images))
                random.Random(f"{self.seed}/{epoch}").shuffle(order)
                shuffled = epoch
            yield [(epoch, index) for index in order[place * self.batch : (place + 1) * self.batch][self.slice]]


class MixedSampler(Sampler[list[tuple[int, int]]]):
    """The keys of batches that hold unlabelled images too: behind those of a `StepSampler` come as many others.

    The others go round in a cycle of their own, shuffled anew each time, and lose none at its end: they are a pure
    function of seed and step, whatever their number.

    Args:
        labelled: of the images that have labels; its epochs are those of the run.
        others: the places of the images without labels.
        count: how many of them a batch has.
        share: which of how many processes takes its slice of both parts.
    """

    def __init__(self, labelled: StepSampler, others: range, count: int, share: Share = ALONE) -> None:
        self.labelled = labelled
        self.others = others
        self.count = count
        rank, size = share
        self.slice = slice(rank * count // size, (rank + 1) * count // size)

    def __len__(self) -> int:
        return len(self.labelled)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        orders: dict[int, list[int]] = {}
        for step, keys in zip(self.labelled.steps, self.labelled, strict=True):
            places = range(step * self.count, (step + 1) * self.count)
            rounds = {place // len(self.others) for place in places}
            orders = {each: orders.get(each) or self._order(each) for each in sorted(rounds)}
            drawn = [(place // len(self.others), place % len(self.others)) for place in places]
            yield keys + [(number, orders[number][place]) for number, place in drawn[self.slice]]

    def _order(self, number: int) -> list[int]:
        order = list(self.others)
        random.Random(f"{self.labelled.seed}/unlabelled/{number}").shuffle(order)
        return order


def same_place(step: int, images: int, before: int, now: int) -> int:
    """The step that stands in batches of `now` images where `step` stands in batches of `before`.

    In the middle of an epoch it is rounded down, so that less than a batch of images is seen twice.
    """
    epoch, place = divmod(step, images // before)
    return epoch * (images // now) + min(place * before // now, images // now - 1)
