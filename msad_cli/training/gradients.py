"""The losses of a batch and their gradients, in as many parts as memory asks for, over all processes of a run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from msad_cli.errors import DeviceError
from msad_cli.models.whole_batch import ElsewhereOutOfMemoryError, add_up, sharing
from msad_cli.system.device import Compute, is_out_of_memory, to_device
from msad_cli.system.distributed import gather, size, summed
from msad_cli.training.exchange import Exchange

Views = Mapping[int, Sequence[Tensor]]
Targets = Sequence[Mapping[str, Tensor]]
Buffers = Sequence[tuple[Tensor, Tensor]]
"""A module's buffers, each with what was in it before the step."""

BLANK = 128
"""Sides, in HR pixels, of the image that a process looks at which has none of its own."""


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
    """What a process computes at once.

    Attributes:
        weight: its images as a share of the whole batch's.
        share: its images as a share of those that all processes compute at this time.
    """

    views: Views
    targets: Targets
    weight: float
    share: float


class Gradients:
    """Fills the gradients of a module's parameters with those of whole batches.

    Args:
        exchange: of the same parameters.
        scaler: for fp16.
    """

    def __init__(
        self, module: nn.Module, exchange: Exchange, compute: Compute, scaler: torch.amp.GradScaler | None
    ) -> None:
        self.module = module
        self.exchange = exchange
        self.compute = compute
        self.scaler = scaler
        self.synchronised = any(isinstance(each, nn.SyncBatchNorm) for each in module.modules())

    def of(
        self, batch: TrainingBatch, image_counts: Sequence[int], parts: int, buffers: Buffers
    ) -> tuple[dict[str, float], int]:
        """The losses of the whole batch, their gradients being added to the parameters'; and the parts that memory
        allowed. No losses where there is no image.

        Args:
            batch: this process's share.
            image_counts: how many images each process has.
            parts: into so many parts the shares are split; doubled where memory runs out in any process.

        Raises:
            DeviceError: out of memory with a single image.
        """
        total = sum(image_counts)
        if total and 0 in image_counts:
            batch = _with_stand_in(batch)
        while total:
            try:
                return summed(self._attempt(split(batch, image_counts, parts), buffers if parts > 1 else ())), parts
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._tell(error)
                if parts >= max(image_counts):
                    put_back(buffers)
                    raise self._too_large("with a single image") from None
            # Not in the except clause, whose error still holds the tensors of the attempt.
            self.module.zero_grad(set_to_none=True)
            if self.compute.device.type == "cuda":
                torch.cuda.empty_cache()
            parts *= 2
        return {}, parts

    def _attempt(self, parts: Sequence[Part], buffers: Buffers) -> dict[str, float]:
        """This process's share of the losses."""
        values: dict[str, float] = {}
        for number, part in enumerate(parts, start=1):
            put_back(buffers)
            for name, value in self._pass(part, last=number == len(parts)).items():
                values[name] = values.get(name, 0.0) + (part.weight * value if part.weight else 0.0)
        if size() > 1:
            self.exchange.finish()
            add_up(0.0)
        return values

    def _pass(self, part: Part, last: bool) -> dict[str, float]:
        """One pass forward and back; the losses, not weighted."""
        if size() == 1:
            with self.compute.autocast():
                losses = self.module(*to_device(part.views, part.targets, self.compute.device))
        else:
            with self.compute.autocast(), sharing(part.share):
                losses = self.module(*to_device(part.views, part.targets, self.compute.device))
            if last:
                self.exchange.prepare()
            add_up(0.0)  # whether all have got so far
            if last:
                self.exchange.start()
        stacked = torch.stack(list(losses.values()))
        # What is made of a stand-in has no gradient. Only batch statistics are exchanged on the way back too.
        if part.weight or self.synchronised:
            total = stacked.sum() * part.weight
            (total if self.scaler is None else self.scaler.scale(total)).backward()
        return dict(zip(losses, stacked.tolist(), strict=True))

    def _tell(self, error: BaseException) -> None:
        """Brings all processes out of an attempt in which memory ran out here or elsewhere.

        Raises:
            DeviceError: the others cannot be told, as they wait for batch statistics.
        """
        if size() == 1 or isinstance(error, ElsewhereOutOfMemoryError):
            return
        if self.synchronised:
            raise self._too_large("in one of several processes, which share their batch statistics") from None
        if self.exchange.running:
            self.exchange.finish()
        try:
            add_up(0.0, out_of_memory=True)
        except ElsewhereOutOfMemoryError:
            return

    def _too_large(self, when: str) -> DeviceError:
        return DeviceError(
            f"out of memory on {self.compute.device} {when}",
            "a smaller --size, --backbone, --width or --head-channels, or --precision bf16, needs less",
        )


def split(batch: TrainingBatch, image_counts: Sequence[int], parts: int) -> list[Part]:
    """A process's images in parts: as many as the process with the most images has.

    Args:
        batch: the process's share, with a stand-in where it is empty.
        image_counts: how many images each process has.
    """
    views, targets = batch.views, batch.targets
    own, most, total = len(batch.indices), max(image_counts), sum(image_counts)
    length = math.ceil(most / parts)
    found = []
    for start in range(0, most, length):
        here = len(range(own)[start : start + length])
        everywhere = sum(len(range(each)[start : start + length]) for each in image_counts)
        # A share that is at its end takes its first image once more, for nothing.
        part = slice(start, start + length) if here else slice(0, 1)
        cut = {k: images[part] for k, images in views.items()}
        found.append(Part(cut, targets[part], here / total, here / everywhere))
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
