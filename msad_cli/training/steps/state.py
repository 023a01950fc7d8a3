"""All that a training has to remember in order to go on as if it had never stopped."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from msad_cli.runs.plots.epochs import LOSS
from msad_cli.training.steps.loop import Step


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: steps done.
        epochs: epochs whose row is written.
        batch: labelled images a step.
        parts: into so many parts a batch is split to fit into memory.
        unreadable: by place in the training split, why an image was passed over.
        skipped_in_a_row: steps up to now that were not finite.
        measured: whether the weights were evaluated as they are now.
        best: the highest AP of an evaluation up to now.
        unimproved: evaluations since then, as far as they count for patience.
        images, seconds, updates, skipped, losses: of the epoch so far.
    """

    step: int = 0
    epochs: int = 0
    batch: int = 0
    parts: int = 1
    unreadable: dict[int, str] = field(default_factory=dict)
    skipped_in_a_row: int = 0
    measured: bool = False
    best: float = 0.0
    unimproved: int = 0
    images: int = 0
    seconds: float = 0.0
    updates: int = 0
    skipped: int = 0
    losses: dict[str, float] = field(default_factory=dict)

    def add(self, step: Step) -> None:
        """Counts a step in."""
        self.step, self.parts, self.measured = step.number, step.parts, False
        self.images, self.seconds = self.images + len(step.indices), self.seconds + step.seconds
        self.unreadable |= step.unreadable
        if step.updated:
            self.updates, self.skipped_in_a_row = self.updates + 1, 0
            for name, value in {**step.losses, **grouped(step.losses), "total": sum(step.losses.values())}.items():
                self.losses[name] = self.losses.get(name, 0.0) + value
        elif step.indices:
            self.skipped, self.skipped_in_a_row = self.skipped + 1, self.skipped_in_a_row + 1

    def measure(self, ap: float, counts: bool) -> None:
        """Counts an evaluation in.

        Args:
            ap: 0, as before anything is found, and NaN are no reason to lose patience.
            counts: whether the run could have become better by now.
        """
        improved = math.isnan(ap) or ap > self.best or self.best == 0
        self.unimproved = self.unimproved + 1 if counts and not improved else 0
        self.best, self.measured = max(self.best, 0.0 if math.isnan(ap) else ap), True

    def end_epoch(self) -> dict[str, float]:
        """The epoch's part of a row of results.csv; starts the sums anew."""
        self.epochs += 1
        speed = self.images / max(1e-9, self.seconds)
        means = {f"{LOSS}{name}": value / self.updates for name, value in self.losses.items()}
        row = {"epoch": self.epochs, "images/s": speed, "skipped": self.skipped, **means}
        self.images, self.seconds, self.updates, self.skipped, self.losses = 0, 0.0, 0, 0, {}
        return row


@dataclass(frozen=True)
class TrainingState:
    """A training's parts.

    Attributes:
        module: what is trained.
        average: averaged weights, or None.
        identity: of the run, as nested JSON: model, data, teacher. A state goes on only where it is the same.
    """

    module: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    average: AveragedModel | None
    progress: Progress
    identity: Mapping[str, Any]

    def to_save(self) -> dict[str, Any]:
        """As nested plain values and tensors, which load without executing code."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        return {**state, "progress": vars(self.progress), "random": random_states(), "identity": dict(self.identity)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes over what `to_save` gave.

        Raises:
            ValueError: it is another run's.
        """
        for path, value in _leaves(state["identity"]).items():
            now = _leaves(self.identity).get(path)
            if now != value:
                raise ValueError(f"{path} was {value} and is now {now}")
        for name, part in self._parts().items():
            if name in state:
                part.load_state_dict(state[name])
        vars(self.progress).update(state["progress"])
        restore_random_states(state["random"])

    def _parts(self) -> dict[str, Any]:
        parts = {"module": self.module, "optimiser": self.optimiser, "scaler": self.scaler, "average": self.average}
        return {name: part for name, part in parts.items() if part is not None}


def grouped(losses: Mapping[str, float]) -> dict[str, float]:
    """Losses summed over what stands behind the slash: `k1/classification` and `k1/bbox_regression` into `k1`."""
    sums: dict[str, float] = {}
    for name, value in losses.items():
        group = name.split("/")[0]
        sums[group] = sums.get(group, 0.0) + value
    return sums


def random_states() -> dict[str, Any]:
    """The states of the global generators of Python, numpy, and torch on every device."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def restore_random_states(states: Mapping[str, Any]) -> None:
    """The inverse of `random_states`; those of GPUs only where there are as many."""
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """`{"spec": {"width": 1.0}}` as `{"spec.width": 1.0}`."""
    if not isinstance(value, Mapping):
        return {path: value}
    return {name: each for key in value for name, each in _leaves(value[key], f"{path}.{key}".strip(".")).items()}
