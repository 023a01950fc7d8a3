"""Maps without their channels' own mean and spread."""

import torch
from torch import Tensor

EPSILON = 1e-6
"""Added to the variance, so that a channel that is the same everywhere has a finite gradient."""


def channel_moments(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of (N, C, h, w) over images and cells, (1, C, 1, 1) each."""
    # The variance of the sample itself: one cell has none, where the unbiased one is no number.
    variance, mean = torch.var_mean(maps, dim=(0, 2, 3), correction=0, keepdim=True)
    return mean, (variance + EPSILON).sqrt()


def standardised(maps: Tensor) -> Tensor:
    """Maps (N, C, h, w) whose channels have mean 0 and variance 1 over images and cells."""
    mean, deviation = channel_moments(maps)
    return (maps - mean) / deviation
