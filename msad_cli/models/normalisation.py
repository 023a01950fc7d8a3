"""Normalisation layers by name."""

import math
from collections.abc import Callable

from torch import nn
from torchvision.ops import FrozenBatchNorm2d

MOST_GROUPS, FEWEST_CHANNELS = 32, 4
"""32 groups (Wu & He, ECCV 2018), unless they would get so narrow that they normalise single channels."""


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(math.gcd(MOST_GROUPS, channels // FEWEST_CHANNELS), channels)


def norm_layer(kind: str) -> Callable[[int], nn.Module]:
    """The constructor (channels -> layer) of `frozen`, `batch` or `group` normalisation.

    Frozen batch statistics suit pretrained weights. From scratch, groups: batch statistics that two resolutions share
    describe neither.
    """
    layers: dict[str, Callable[[int], nn.Module]] = {
        "frozen": FrozenBatchNorm2d,
        "batch": nn.BatchNorm2d,
        "group": _group_norm,
    }
    return layers[kind]
