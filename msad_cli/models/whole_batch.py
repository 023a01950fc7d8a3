"""What a loss is divided by where several processes have each a share of the batch.

The loop weighs a process's losses by its share of the batch's images and adds up the gradients of all. So a loss that
is a mean over images equals that of the whole batch as it is. One that is a sum over the batch, divided by a count
over the batch (of positive anchors, say), needs the count of all processes.

Memory may run out in one process while the others wait for its count. So a word on memory goes with every count, and a
process that has none left takes part in one exchange more to say so; then all of them leave the step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import Tensor

_share: ContextVar[float | None] = ContextVar("share", default=None)


class ElsewhereOutOfMemoryError(torch.OutOfMemoryError):
    """Memory ran out in another process, which all processes know by now."""


@contextmanager
def sharing(share: float) -> Iterator[None]:
    """A stretch in which this process has a share, from 0 to 1, of the images that are computed at once."""
    token = _share.set(share)
    try:
        yield
    finally:
        _share.reset(token)


def in_several_processes() -> bool:
    """Whether the images that are computed are a share of some batch."""
    return _share.get() is not None


def batch_divisor(count: Tensor) -> Tensor:
    """What a sum over this process's images is divided by: the batch's count, at least 1, times this share of it.

    Without other processes it is `count` itself, at least 1. All processes have to ask for the same counts in the same
    order.

    Args:
        count: a number () of this process's images, without gradient.

    Raises:
        ElsewhereOutOfMemoryError: another process ran out of memory meanwhile.
    """
    share = _share.get()
    if share is None:
        return count.clamp(min=1)
    # A stand-in for an empty share counts for nothing, and divides by anything.
    whole = add_up(float(count) if share else 0.0)
    return torch.tensor(max(1.0, whole) * (share or 1.0), device=count.device, dtype=torch.float32)


def add_up(number: float, out_of_memory: bool = False) -> float:
    """The sum of a number over all processes, and with it the word on memory.

    Raises:
        ElsewhereOutOfMemoryError: a process has none left; this one too where it said so itself.
    """
    numbers = torch.tensor([number, float(out_of_memory)], dtype=torch.float64)
    dist.all_reduce(numbers)
    total, lacking = numbers.tolist()
    if lacking:
        raise ElsewhereOutOfMemoryError("out of memory in one of several processes")
    return float(total)
