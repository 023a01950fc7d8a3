"""The losses of a batch and their gradients, in as many parts as memory asks for, or over all processes of a run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from msad_cli.errors import DeviceError
from msad_cli.models.whole_batch import sharing
from msad_cli.system.device import Compute, is_out_of_memory, to_device
from msad_cli.system.distributed import gather, replicated, size, summed

Views = Mapping[int, Sequence[Tensor]]
Targets = Sequence[Mapping[str, Tensor]]
Buffers = Sequence[tuple[Tensor, Tensor]]
"""A module's buffers, each with what was in it before the step."""

BLANK = 128
"""Sides, in HR pixels, of the image that a process looks at which has none of its own."""
SMALLER = "a smaller --size, --backbone, --width or --head-channels, or --precision bf16, needs less"


class TrainingBatch(Protocol):
    """What the loop asks of a batch, or of a process's share of it."""

    @property
    def views(self) -> Views: ...

    @property
    def targets(self) -> Targets: ...

    @property
    def indices(self) -> Sequence[int]:
        """The places of its images in their split."""

    @property
    def unreadable(self) -> Mapping[int, str]:
        """Images that were to be in the batch, and why they are not."""


@dataclass(frozen=True)
class Part:
    """What is computed at once.

    Attributes:
        weight: its images as a share of the whole batch's.
    """

    views: Views
    targets: Targets
    weight: float


class Gradients:
    """Fills the gradients of a module's parameters with those of whole batches.

    One process splits a batch that does not fit into memory. In several, which have each a share of it, torch's
    DistributedDataParallel averages the gradients while the backward pass still runs.

    Args:
        scaler: for fp16.
    """

    def __init__(self, module: nn.Module, compute: Compute, scaler: torch.amp.GradScaler | None) -> None:
        self.module = module
        self.called = replicated(module)
        self.compute = compute
        self.scaler = scaler

    def of(
        self, batch: TrainingBatch, image_counts: Sequence[int], parts: int, buffers: Buffers
    ) -> tuple[dict[str, float], int]:
        """The losses of the whole batch, their gradients being added to the parameters'; and the parts that memory
        allowed. No losses where there is no image.

        Args:
            batch: this process's share.
            image_counts: how many images each process has.
            parts: into so many parts the batch is split; doubled where memory runs out. Several processes leave it.

        Raises:
            DeviceError: out of memory with a single image, or in one of several processes.
        """
        if not any(image_counts):
            return {}, parts
        if size() > 1:
            return self._of_share(batch, image_counts), parts
        while True:
            try:
                return self._attempt(split(batch, parts), buffers if parts > 1 else ()), parts
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if parts >= len(batch.indices):
                    raise self._too_large(1, SMALLER) from None
            # Not in the except clause, whose error still holds the tensors of the attempt.
            self.module.zero_grad(set_to_none=True)
            if self.compute.device.type == "cuda":
                torch.cuda.empty_cache()
            parts *= 2

    def _attempt(self, parts: Sequence[Part], buffers: Buffers) -> dict[str, float]:
        """The losses of a batch that this process has alone."""
        values: dict[str, float] = {}
        for part in parts:
            put_back(buffers)
            names, losses = self._forward(part.views, part.targets)
            self._backward(losses, part.weight)
            for name, value in zip(names, losses.tolist(), strict=True):
                values[name] = values.get(name, 0.0) + part.weight * value
        return values

    def _of_share(self, batch: TrainingBatch, image_counts: Sequence[int]) -> dict[str, float]:
        """The losses of a batch of which this process has a share."""
        share = len(batch.indices) / sum(image_counts)
        if 0 in image_counts:
            batch = _with_stand_in(batch)
        try:
            with sharing(share):
                names, losses = self._forward(batch.views, batch.targets)
            weighted = [share * value if share else 0.0 for value in losses.tolist()]
            # Summed before the backward pass: a process that has failed is missed here, in gloo, which says so at once.
            # In the exchange of gradients NCCL would wait for it.
            values = summed(dict(zip(names, weighted, strict=True)))
            # DistributedDataParallel averages; what is wanted is the sum of gradients that are weighted by shares.
            self._backward(losses, share * size())
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            most = max(image_counts)
            raise self._too_large(most, f"--batch {most // 2 * size()}" if most > 1 else SMALLER) from None
        return values

    def _forward(self, views: Views, targets: Targets) -> tuple[list[str], Tensor]:
        """The names of the losses, and the losses (L,)."""
        with self.compute.autocast():
            losses = self.called(*to_device(views, targets, self.compute.device))
        return list(losses), torch.stack(list(losses.values()))

    def _backward(self, losses: Tensor, weight: float) -> None:
        total = losses.sum() * weight
        (total if self.scaler is None else self.scaler.scale(total)).backward()

    def _too_large(self, images: int, hint: str) -> DeviceError:
        many = "a single image" if images == 1 else f"{images} images a process"
        # Of several processes, which have a device each, all say the same.
        device = self.compute.device if size() == 1 else self.compute.device.type
        return DeviceError(f"out of memory on {device} with {many}", hint, code="out-of-memory")


def split(batch: TrainingBatch, parts: int) -> list[Part]:
    """A batch in at most so many parts of the same length but for the last."""
    total = len(batch.indices)
    length = math.ceil(total / parts)
    found = []
    for part in (slice(start, start + length) for start in range(0, total, length)):
        cut = {k: images[part] for k, images in batch.views.items()}
        targets = batch.targets[part]
        found.append(Part(cut, targets, len(targets) / total))
    return found


def put_back(buffers: Buffers) -> None:
    """Gives buffers the values that they had."""
    with torch.no_grad():
        for buffer, value in buffers:
            buffer.copy_(value)


@dataclass(frozen=True)
class _StandIn:
    """In place of a share without images: a black one without objects, so that the process does what all do."""

    views: Views
    targets: Targets
    indices: tuple[int, ...] = ()
    unreadable: Mapping[int, str] = field(default_factory=dict)


def _with_stand_in(batch: TrainingBatch) -> TrainingBatch:
    """The batch, or what stands for it where it is empty; of the kind that the other processes have."""
    kinds = gather(_kind(batch))
    if batch.indices:
        return batch
    ks, fields = next(each for each in kinds if each is not None)
    views = {k: [torch.zeros(3, BLANK // k, BLANK // k, dtype=torch.uint8)] for k in ks}
    return _StandIn(views, [{name: torch.zeros((0, *shape), dtype=of) for name, (shape, of) in fields.items()}])


Kind = tuple[tuple[int, ...], dict[str, tuple[tuple[int, ...], torch.dtype]]]
"""The reductions of views, and by name what an object of a target is like."""


def _kind(batch: TrainingBatch) -> Kind | None:
    if not batch.indices:
        return None
    fields = {name: (tuple(each.shape[1:]), each.dtype) for name, each in batch.targets[0].items()}
    return tuple(batch.views), fields
