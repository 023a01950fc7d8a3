"""The training loop: a generator of steps over any module that yields named losses."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from msad_cli.engine.device import Compute
from msad_cli.engine.schedule import Schedule


class TrainingBatch(Protocol):
    """What the loop asks of a batch."""

    @property
    def views(self) -> Mapping[int, Sequence[Tensor]]: ...

    @property
    def targets(self) -> Sequence[Mapping[str, Tensor]]: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Step:
    """What one step did.

    Attributes:
        number: steps done so far, this one included.
        losses: by name; their sum was minimised.
        gradient_norm: before clipping.
        images: pictures in the batch.
        seconds: wall time of the step, waiting for data included.
        waited: seconds of it spent waiting for data.
        finite: whether the parameters were updated; a step that is not finite is skipped.
    """

    number: int
    losses: dict[str, float]
    learning_rate: float
    gradient_norm: float
    images: int
    seconds: float
    waited: float
    finite: bool


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
) -> Iterator[Step]:
    """Trains `module` on `batches`, yielding after each step; what else a run does stands in the caller's for loop.

    Args:
        first_step: steps done before; the schedule goes on from there.
        clip: the largest gradient norm over all parameters.
        scaler: for fp16.
    """
    parameters = [each for group in optimiser.param_groups for each in group["params"]]
    before = time.perf_counter()
    for number, batch in enumerate(batches, start=first_step):
        ready = time.perf_counter()
        module.train()
        rate = schedule.at(number)
        for group in optimiser.param_groups:
            group["lr"] = rate
        views, targets = to_device(batch, compute.device)
        with compute.autocast():
            losses = module(views, targets)
        optimiser.zero_grad(set_to_none=True)
        norm = _update(torch.stack(list(losses.values())).sum(), parameters, optimiser, clip, scaler)
        values = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True))
        after = time.perf_counter()
        yield Step(number + 1, values, rate, norm, len(batch), after - before, ready - before, math.isfinite(norm))
        before = time.perf_counter()


def to_device(batch: TrainingBatch, device: torch.device) -> tuple[dict[int, list[Tensor]], list[dict[str, Tensor]]]:
    """A batch's views and targets on a device."""
    views = {k: [image.to(device, non_blocking=True) for image in images] for k, images in batch.views.items()}
    return views, [{name: each.to(device) for name, each in target.items()} for target in batch.targets]


def _update(
    loss: Tensor,
    parameters: list[Any],
    optimiser: torch.optim.Optimizer,
    clip: float,
    scaler: torch.amp.GradScaler | None,
) -> float:
    """Backward, clip, step; the gradient norm, which is not finite where the step was skipped."""
    if scaler is None:
        loss.backward()
    else:
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
    norm = float(nn.utils.clip_grad_norm_(parameters, clip)) if math.isfinite(loss.item()) else math.nan
    if scaler is not None:
        scaler.step(optimiser)
        scaler.update()
    elif math.isfinite(norm):
        optimiser.step()
    return norm
