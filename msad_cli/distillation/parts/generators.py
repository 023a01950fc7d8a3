"""Generating a teacher's map from a student's of which a part is hidden (MGD: Yang et al., ECCV 2022).

Generators learn beside the student and are no part of it.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from msad_cli.models.spec import DetectorSpec


class Constants(NamedTuple):
    """MGD's weight α of the sum of squares, and λ, the share of the map that is hidden."""

    alpha: float
    hidden: float


PUBLISHED = {"dense": Constants(2e-5, 0.65), "two-stage": Constants(5e-7, 0.45)}
"""By family; the P2 of two-stage detectors has four times the cells of P3."""


def published(student: DetectorSpec) -> Constants:
    """MGD's constants for a student's kind of detector."""
    return PUBLISHED[student.family]


def generator(channels: int) -> nn.Sequential:
    """G: 3×3 convolution, ReLU, 3×3 convolution; (N, C, h, w) -> (N, C, h, w)."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
    )


class DualGenerator(nn.Module):
    """w1·G_sp(F ⊙ M_sp) + w2·G_ch(F ⊙ M_ch), with w the softmax of two numbers that are learnt, at first one half each.

    One generator fills hidden cells, the other hidden channels (DMKD).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spatial = generator(channels)
        self.channel = generator(channels)
        self.balance = nn.Parameter(torch.zeros(2))

    def forward(self, maps: Tensor, cells: Tensor, channels: Tensor) -> Tensor:
        """Maps (N, C, h, w) generated from maps of the same shape.

        Args:
            cells: (N, 1, h, w), 0 where a cell is hidden, else 1.
            channels: (N, C, 1, 1), or (N, C, h, w) for cells of their own, 0 where a channel is hidden, else 1.
        """
        w1, w2 = self.balance.softmax(dim=0)
        spatial: Tensor = w1 * self.spatial(maps * cells)
        channel: Tensor = w2 * self.channel(maps * channels)
        return spatial + channel


def generation_loss(generated: Tensor, wanted: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """Σ weight·(generated − wanted)² / N over maps (N, C, h, w): a sum, so that it grows with the map.

    Args:
        weight: of each element, of a shape that broadcasts to the maps'.
    """
    squares = (generated.float() - wanted.float()).square()
    total: Tensor = (weight * squares).sum()
    return total / len(wanted)
