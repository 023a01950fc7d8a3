"""What a loss is divided by where several processes have each a share of the batch.

The loop weighs a process's losses by its share of the batch's images, and the gradients of all are added up. So a loss
that is a mean over images equals that of the whole batch as it is. One that is a sum over the batch, divided by a count
over the batch (of positive anchors, say), needs the count of all processes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import Tensor

_share: ContextVar[float | None] = ContextVar("share", default=None)


@contextmanager
def sharing(share: float) -> Iterator[None]:
    """A stretch in which this process has a share, from 0 to 1, of the images that are computed at once."""
    token = _share.set(share)
    try:
        yield
    finally:
        _share.reset(token)


@contextmanager
def share_times(factor: float) -> Iterator[None]:
    """A stretch in which this process's share is another, as that of some of its images among all like them."""
    share = _share.get()
    token = _share.set(None if share is None else factor * share)
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
    """
    share = _share.get()
    if share is None:
        return count.clamp(min=1)
    # A stand-in for an empty share counts for nothing, and divides by anything. The count goes through the CPU: gloo
    # says at once when another process is gone, NCCL waits for it.
    whole = torch.tensor(float(count) if share else 0.0, dtype=torch.float64)
    dist.all_reduce(whole)
    return torch.tensor(max(1.0, float(whole)) * (share or 1.0), device=count.device, dtype=torch.float32)
