"""What updates the parameters, and which parameters decay. A new optimiser is a function, and a line of the table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import nn


def sgd(module: nn.Module, learning_rate: float, momentum: float = 0.9, weight_decay: float = 1e-4) -> torch.optim.SGD:
    """Stochastic gradient descent over the trainable parameters, as the published configurations have it."""
    return torch.optim.SGD(_groups(module, weight_decay), lr=learning_rate, momentum=momentum)


def adamw(module: nn.Module, learning_rate: float, weight_decay: float = 0.05) -> torch.optim.AdamW:
    """AdamW over the trainable parameters, with the decay of RTMDet (arXiv 2212.07784)."""
    return torch.optim.AdamW(_groups(module, weight_decay), lr=learning_rate)


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Norms and biases, which have one dimension, do not decay."""
    parameters = [each for each in module.parameters() if each.requires_grad]
    return [
        {"params": [each for each in parameters if each.ndim > 1], "weight_decay": weight_decay},
        {"params": [each for each in parameters if each.ndim <= 1], "weight_decay": 0.0},
    ]


@dataclass(frozen=True)
class Entry:
    """An optimiser, and what is known before it is built.

    Attributes:
        build: from a module and a learning rate.
        learning_rate: for a batch of `schedule.BASE_BATCH`; other batches scale it linearly.
        from_scratch: by how much the rate is larger where a small network starts at random.
    """

    build: Callable[[nn.Module, float], torch.optim.Optimizer]
    learning_rate: float
    from_scratch: float


OPTIMISERS: Mapping[str, Entry] = MappingProxyType({"sgd": Entry(sgd, 0.01, 4.0), "adamw": Entry(adamw, 0.001, 1.0)})
"""By the name that `--optimizer` takes. The rate of SGD is the published one of FCOS."""
