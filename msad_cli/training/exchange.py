"""Adding up gradients over processes while the backward pass still runs.

DistributedDataParallel does that too, but it waits for ever where one process stops in the middle of a backward pass,
as it does when memory runs out; it has to be told of parameters without a gradient, which a method of two stages has in
each of them; and it cannot do with a process that has no image. Here what is not ready in time is sent at the end.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from msad_cli.system.distributed import size

BUCKET = 25 * 2**20
"""Bytes that are sent at once, as DistributedDataParallel has it."""


class Exchange:
    """The gradients of parameters, summed over all processes; does nothing in a single one.

    `prepare`, then `start`, backward and `finish`. All processes send the same buckets in the same order, each as soon
    as it and all before it are full. Behind its gradients a bucket says which parameters had one: one that nowhere had
    any keeps none, and is not touched by momentum and weight decay either.

    Args:
        parameters: float32, all on one device.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.running = False
        self._parameters = list(parameters) if size() > 1 else []
        self._buckets: list[_Bucket] = []
        self._sending: list[Any] = []
        self._place: dict[int, _Bucket] = {}
        for each in self._parameters:
            each.register_post_accumulate_grad_hook(self._note)

    def prepare(self) -> None:
        """Makes room for what has a gradient in this step; a method may freeze a part in mid-run."""
        # Backwards: the last layers have their gradients first.
        wanted = [each for each in reversed(self._parameters) if each.requires_grad]
        if [id(each) for each in wanted] != list(self._place):
            self._buckets = [_Bucket(each) for each in _in_buckets(wanted)]
            self._place = {id(each): bucket for bucket in self._buckets for each in bucket.parameters}

    def start(self) -> None:
        """From now on gradients are sent when they are ready."""
        self.running = True
        for bucket in self._buckets:
            bucket.missing = len(bucket.parameters)

    def finish(self) -> None:
        """Sends the rest, waits for all, and replaces each gradient by its sum."""
        self._send(ready=False)
        for each in self._sending:
            each.wait()
        self._sending = []
        self.running = False
        for bucket in self._buckets:
            bucket.hand_out()

    def _note(self, parameter: Tensor) -> None:
        if self.running:
            self._place[id(parameter)].missing -= 1
            self._send(ready=True)

    def _send(self, ready: bool) -> None:
        """Sends the buckets that come next, only full ones where they have to be `ready`."""
        for bucket in self._buckets[len(self._sending) :]:
            if ready and bucket.missing:
                return
            bucket.fill()
            self._sending.append(dist.all_reduce(bucket.sent, async_op=True))


class _Bucket:
    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters = parameters
        self.missing = 0
        numbers = [each.numel() for each in parameters]
        self.sent = parameters[0].new_zeros(sum(numbers) + len(parameters), requires_grad=False)
        *flat, self.known = self.sent.split([*numbers, len(parameters)])
        self.gradients = [each.view_as(parameter) for each, parameter in zip(flat, parameters, strict=True)]

    def fill(self) -> None:
        self.known.copy_(torch.tensor([float(each.grad is not None) for each in self.parameters]))
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            gradient.zero_() if parameter.grad is None else gradient.copy_(parameter.grad)

    def hand_out(self) -> None:
        for parameter, gradient, known in zip(self.parameters, self.gradients, self.known.tolist(), strict=True):
            parameter.grad = gradient if known else None


def _in_buckets(parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    buckets: list[list[Tensor]] = []
    room = 0
    for each in parameters:
        if room <= 0:
            buckets.append([])
            room = BUCKET
        buckets[-1].append(each)
        room -= each.numel() * each.element_size()
    return buckets
