"""The processes of one run, as torchrun starts them: who this is, and how they agree.

Every function here answers for a run in one process too, without any communication. Those that communicate have to be
called by all processes in the same order. Numbers and objects go through the CPU (gloo), gradients over the device they
are on.
"""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from msad_cli.errors import DeviceError, TrainingError, UsageError

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""So long a process waits for another. The first one may check a large set, or score one, while the others wait."""
LOST = ("gloo", "Connection closed by peer", "Connection reset by peer", "Timed out waiting", "NCCL")
"""Words in what torch says when another process is gone or does not answer."""


class LostError(TrainingError):
    """Another process of the run has ended, or does not answer."""


def join() -> Callable[[str], bool]:
    """Joins the processes that torchrun started; to be called once, where there are several.

    Returns:
        Whether a process of this run called it with the same words before; unknown is false.
    """
    # Its functions have the group of their import as a default: a later import, as the first optimizer makes it, would
    # keep the group and its threads beyond `leave`, and a thread that lives at the interpreter's end may abort it.
    import torch.distributed.nn
    from torch.distributed.rendezvous import rendezvous  # not in every build of torch

    store, own, count = next(iter(rendezvous("env://")))
    gpus = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    dist.init_process_group(backend, store=store, rank=own, world_size=count, timeout=TIMEOUT)

    def said_before(words: str) -> bool:
        try:
            return int(store.add(f"msad said: {words}", 1)) > 1
        except RuntimeError:  # the process that kept the store is gone
            return False

    return said_before


def leave() -> None:
    """The end of a run that went well: frees what joining took."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def joined() -> Iterator[None]:
    """A stretch in which the processes that torchrun started know of each other; nothing where there is one."""
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1 or size() > 1:
        yield
        return
    join()
    yield
    leave()


def size() -> int:
    """How many processes share the run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0; the first one alone writes and prints."""
    return dist.get_rank() if size() > 1 else 0


def on_this_machine() -> int:
    """How many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", size())) if size() > 1 else 1


def gather(value: T) -> list[T]:
    """What each process gives, by rank."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    dist.all_gather_object(values, value)
    return values


def hand_in(value: T) -> list[T]:
    """What each process gives, by rank, in the first one; nothing in the others."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size() if rank() == 0 else []
    dist.gather_object(value, values or None)
    return values


def from_first(work: Callable[[], T]) -> T:
    """What some work comes to, which the first process alone does."""
    if size() == 1:
        return work()
    result: list[Any] = [work() if rank() == 0 else None]
    dist.broadcast_object_list(result)
    return result[0]  # type: ignore[no-any-return]


@contextmanager
def first_then_others() -> Iterator[None]:
    """A stretch that the first process goes through before the others: they find in caches what it has put there."""
    if rank() > 0:
        wait_for_all()
    yield
    if rank() == 0:
        wait_for_all()


def wait_for_all() -> None:
    """Goes on when all processes are here."""
    largest(0)


def largest(number: int) -> int:
    """The largest of all processes' numbers."""
    if size() == 1:
        return number
    shared = torch.tensor(number)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return int(shared)


def summed(numbers: dict[str, float]) -> dict[str, float]:
    """The sums over all processes, which have the same names in the same order."""
    if size() == 1 or not numbers:
        return numbers
    shared = torch.tensor(list(numbers.values()), dtype=torch.float64)
    dist.all_reduce(shared)
    return dict(zip(numbers, shared.tolist(), strict=True))


def like_first(module: nn.Module) -> None:
    """Gives a module the parameters and buffers that it has in the first process."""
    if size() > 1:
        for each in module.state_dict().values():
            dist.broadcast(each, 0)


def replicated(module: nn.Module) -> nn.Module:
    """What is called in the place of a module so that its gradients are averages over all processes: torch's
    DistributedDataParallel, or `module` itself in a single one. Names, hooks and state stay those of `module`.

    All processes must have the same parameters and buffers, on the device where they will train.
    """
    if size() == 1:
        return module
    # Which parameters have a gradient depends on the step: methods of two stages freeze a part in mid-run, others train
    # prompts for a while, and what a user brings is unknown. So no static graph. One that nowhere had a gradient keeps
    # none, as in a single process, and is not touched by momentum and weight decay either.
    replica = DistributedDataParallel(_Whole(module), find_unused_parameters=True, gradient_as_bucket_view=True)
    # All processes write the same into buffers: batch statistics are synchronised, the rest are counters. Set here,
    # since the argument's name depends on torch's version.
    replica.broadcast_buffers = False
    return replica


class _Whole(nn.Module):
    """A module, and a parameter without use: where a first step used all, torch would warn in every process."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.unused = nn.Parameter(next(module.parameters()).new_zeros(1))

    def forward(self, *batch: Any) -> Any:
        return self.module(*batch)


def own_device(device: torch.device) -> torch.device:
    """The device of this process where `device` was chosen for all of them.

    Raises:
        UsageError: a single device for several processes.
        DeviceError: there are more processes than GPUs.
    """
    if size() == 1 or device.type == "cpu":
        return device
    if device.type != "cuda" or device.index:
        raise UsageError(
            f"--device {device} for {size()} processes",
            "leave it away, and each takes a GPU of its own, or --device cpu",
            code="device-of-several-processes",
        )
    place, there = int(os.environ.get("LOCAL_RANK", rank())), torch.cuda.device_count()
    if place >= there:
        raise DeviceError(
            f"{on_this_machine()} processes on a machine with {there} GPUs",
            f"torchrun --nproc-per-node {there}",
            code="too-few-gpus",
        )
    torch.cuda.set_device(place)
    return torch.device("cuda", place)


def seed_step(seed: int, step: int) -> None:
    """Lets each process draw numbers of its own in a step.

    The first one goes on with the global generators as a single process does, and its states are saved. What the others
    draw depends on seed, step and rank alone, so that nothing of theirs has to be saved.
    """
    if rank() > 0:
        number = random.Random(f"{seed}/{step}/rank {rank()}").getrandbits(32)
        random.seed(number)
        np.random.seed(number)
        torch.manual_seed(number)


def is_loss_of_another(error: BaseException) -> bool:
    """Whether an error says that another process is gone or does not answer."""
    if size() == 1 or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, dist.DistError) or any(words in str(error) for words in LOST)


def lost(hint: str) -> LostError:
    """The error to be shown in place of torch's."""
    minutes = round(TIMEOUT.total_seconds() / 60)
    return LostError(
        f"another process of this run has ended, or did not answer for {minutes} minutes", hint, code="process-lost"
    )
