"""The training loop: a generator of steps over any module that yields named losses."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from msad_cli.engine.device import Compute, is_out_of_memory
from msad_cli.engine.schedule import Schedule
from msad_cli.structures.errors import DeviceError

Views = Mapping[int, Sequence[Tensor]]
Targets = Sequence[Mapping[str, Tensor]]


class TrainingBatch(Protocol):
    """What the loop asks of a batch."""

    @property
    def views(self) -> Views: ...

    @property
    def targets(self) -> Targets: ...

    @property
    def indices(self) -> Sequence[int]:
        """The places of its pictures in their split."""

    @property
    def unreadable(self) -> Mapping[int, str]:
        """Pictures that were to be in the batch, and why they are not."""


@dataclass(frozen=True)
class Step:
    """What one step did.

    Attributes:
        number: steps done so far, this one included.
        losses: by name; their sum was minimised. Empty if no picture of the batch could be read.
        gradient_norm: before clipping.
        indices: the places of the batch's pictures in their split.
        unreadable: pictures that were left out, and why.
        seconds: wall time of the step, waiting for data included.
        waited: seconds of it spent waiting for data.
        updated: whether the parameters were; a step that is not finite is skipped.
        parts: into so many parts the batch was split to fit into memory.
    """

    number: int
    losses: dict[str, float]
    learning_rate: float
    gradient_norm: float
    indices: tuple[int, ...]
    unreadable: Mapping[int, str]
    seconds: float
    waited: float
    updated: bool
    parts: int


def train(
    module: nn.Module,
    batches: Iterable[TrainingBatch],
    optimiser: torch.optim.Optimizer,
    schedule: Schedule,
    compute: Compute,
    *,
    first_step: int = 0,
    clip: float = 10.0,
    scaler: torch.amp.GradScaler | None = None,
    parts: int = 1,
) -> Iterator[Step]:
    """Trains `module` on `batches`, yielding after each step; what else a run does stands in the caller's for loop.

    Args:
        first_step: steps done before; the schedule goes on from there.
        clip: the largest gradient norm over all parameters.
        scaler: for fp16.
        parts: into so many parts each batch is split, its gradients being added up. Doubled where memory runs out.

    Raises:
        DeviceError: out of memory with a single picture.
    """
    parameters = [each for group in optimiser.param_groups for each in group["params"]]
    before = time.perf_counter()
    for number, batch in enumerate(batches, start=first_step):
        ready = time.perf_counter()
        module.train()
        rate = schedule.at(number)
        for group in optimiser.param_groups:
            group["lr"] = rate
        # What a forward pass writes into buffers (batch statistics, warm-up) has to go with a step that is skipped.
        buffers = [(each, each.clone()) for each in module.buffers()]
        optimiser.zero_grad(set_to_none=True)
        values, parts = _losses(module, batch, compute, scaler, parts, buffers)
        norm = _update(parameters, optimiser, clip, scaler, values) if values else math.nan
        updated = math.isfinite(norm)
        if not updated:
            _put_back(buffers)
        after = time.perf_counter()
        yield Step(
            number + 1, values, rate, norm, tuple(batch.indices), batch.unreadable, after - before, ready - before,
            updated, parts,
        )  # fmt: skip
        before = time.perf_counter()


def to_device(views: Views, targets: Targets, device: torch.device) -> tuple[Any, Any]:
    """Views and targets of a batch on a device."""
    moved = {k: [image.to(device, non_blocking=True) for image in images] for k, images in views.items()}
    return moved, [{name: each.to(device) for name, each in target.items()} for target in targets]


def _losses(
    module: nn.Module,
    batch: TrainingBatch,
    compute: Compute,
    scaler: torch.amp.GradScaler | None,
    parts: int,
    buffers: Sequence[tuple[Tensor, Tensor]],
) -> tuple[dict[str, float], int]:
    """The losses of a batch, their gradients being added to the parameters'; and the parts that memory allowed."""
    while True:
        values: dict[str, float] = {}
        try:
            for views, targets, share in _split(batch, parts):
                if parts > 1:
                    _put_back(buffers)
                for name, value in _backward(module, views, targets, share, compute, scaler).items():
                    values[name] = values.get(name, 0.0) + share * value
            return values, parts
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if parts >= len(batch.indices):
                _put_back(buffers)
                raise DeviceError(
                    f"out of memory on {compute.device} with a single picture",
                    "a smaller --size, --backbone, --width or --head-channels, or --precision bf16, needs less",
                ) from None
        # Not in the except clause, whose error still holds the tensors of the attempt.
        module.zero_grad(set_to_none=True)
        if compute.device.type == "cuda":
            torch.cuda.empty_cache()
        parts *= 2


def _backward(
    module: nn.Module,
    views: Views,
    targets: Targets,
    share: float,
    compute: Compute,
    scaler: torch.amp.GradScaler | None,
) -> dict[str, float]:
    """Adds the gradient of `share` times the losses' sum; returns the losses."""
    with compute.autocast():
        losses = module(*to_device(views, targets, compute.device))
    stacked = torch.stack(list(losses.values()))
    total = stacked.sum() * share
    (total if scaler is None else scaler.scale(total)).backward()
    return dict(zip(losses, stacked.tolist(), strict=True))


def _split(batch: TrainingBatch, parts: int) -> Iterator[tuple[Views, Targets, float]]:
    """A batch's views and targets in parts, each with its share of the pictures."""
    views, targets = batch.views, batch.targets
    size = math.ceil(len(targets) / parts) or 1
    for start in range(0, len(targets), size):
        part = slice(start, start + size)
        here = targets[part]
        yield {k: images[part] for k, images in views.items()}, here, len(here) / len(targets)


def _put_back(buffers: Sequence[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for buffer, value in buffers:
            buffer.copy_(value)


def _update(
    parameters: list[Any],
    optimiser: torch.optim.Optimizer,
    clip: float,
    scaler: torch.amp.GradScaler | None,
    losses: Mapping[str, float],
) -> float:
    """Clip, step; the gradient norm, which is not finite where the step was skipped."""
    if scaler is not None:
        scaler.unscale_(optimiser)
    norm = float(nn.utils.clip_grad_norm_(parameters, clip)) if math.isfinite(sum(losses.values())) else math.nan
    if math.isfinite(norm):
        optimiser.step() if scaler is None else scaler.step(optimiser)
    if scaler is not None:
        scaler.update()
    return norm
