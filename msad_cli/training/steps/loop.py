"""The training loop: a generator of steps over any module that yields named losses."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from msad_cli.errors import DeviceError
from msad_cli.models.backbones.normalisation import FrozenNorm
from msad_cli.system.device import Compute
from msad_cli.system.distributed import gather, seed_step
from msad_cli.training.steps.gradients import Gradients, TrainingBatch, put_back
from msad_cli.training.steps.schedule import Schedule


@dataclass(frozen=True)
class Step:
    """What one step did.

    Attributes:
        number: steps done so far, this one included.
        losses: by name; their sum was minimised. Empty if no image of the batch could be read.
        gradient_norm: before clipping.
        indices: the places of the batch's images in their split.
        unreadable: images that were left out, and why.
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
    seed: int = 0,
) -> Iterator[Step]:
    """Trains `module` on `batches`, yielding after each step; what else a run does stands in the caller's for loop.

    Of several processes each has its share of every batch, and all yield the same steps. They must have the same
    parameters and buffers at the start.

    Args:
        first_step: steps done before; the schedule goes on from there.
        clip: the largest gradient norm over all parameters.
        scaler: for fp16.
        parts: into so many parts each batch is split, its gradients being added up. Doubled where memory runs out.
            Several processes take no notice of it.
        seed: of what processes after the first draw.

    Raises:
        DeviceError: out of memory with a single image, or in one of several processes.
        RuntimeError: torch's, where another process is gone (`distributed.is_loss_of_another`).
    """
    parameters = [each for group in optimiser.param_groups for each in group["params"]]
    gradients = Gradients(module, compute, scaler)
    before = time.perf_counter()
    for number, batch in enumerate(batches, start=first_step):
        ready = time.perf_counter()
        module.train()
        rate = schedule.at(number)
        for group in optimiser.param_groups:
            group["lr"] = rate
        shares = gather((tuple(batch.indices), dict(batch.unreadable)))
        images = [len(indices) for indices, _ in shares]
        seed_step(seed, number)
        buffers = [(each, each.clone()) for each in written(module)]
        optimiser.zero_grad(set_to_none=True)
        try:
            values, parts = gradients.of(batch, images, parts, buffers)
        except (RuntimeError, DeviceError):
            put_back(buffers)  # memory ran out, or another process is gone; what stands here is still whole
            raise
        norm = _update(parameters, optimiser, clip, scaler, values) if values else math.nan
        updated = math.isfinite(norm)
        if not updated:
            put_back(buffers)
        after = time.perf_counter()
        yield Step(
            number=number + 1,
            losses=values,
            learning_rate=rate,
            gradient_norm=norm,
            indices=tuple(index for indices, _ in shares for index in indices),
            unreadable={index: reason for _, unreadable in shares for index, reason in unreadable.items()},
            seconds=after - before,
            waited=ready - before,
            updated=updated,
            parts=parts,
        )
        before = time.perf_counter()


def written(module: nn.Module) -> list[Tensor]:
    """The buffers that a step may write to (batch statistics, warm-up), which have to go with a step that is skipped.

    Frozen statistics, four buffers a layer, are not among them: most of what a pretrained backbone has.
    """
    free = (each for each in module.modules() if not isinstance(each, FrozenNorm))
    return [buffer for each in free for buffer in each.buffers(recurse=False)]


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
