"""Which images make up the batch of each step."""

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


def same_place(step: int, images: int, before: int, now: int) -> int:
    """The step that stands in batches of `now` images where `step` stands in batches of `before`.

    In the middle of an epoch it is rounded down, so that less than a batch of images is seen twice.
    """
    epoch, place = divmod(step, images // before)
    return epoch * (images // now) + min(place * before // now, images // now - 1)
