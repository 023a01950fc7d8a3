"""The towers of torchvision's dense heads: other ones in their place, and their cut into convolutions.

A convolution of a tower is a group: 3×3, or depthwise and 1×1, then the normalisation if there is one, then ReLU.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

GROUPS = 32
"""Of the towers' group normalisation, as in torchvision's FCOS."""


def set_towers(head: Any, towers: Sequence[nn.Sequential]) -> None:
    """Gives a head other towers, of classification and of regression."""
    head.classification_head.conv, head.regression_head.conv = towers


def plain_tower(channels: int, convs: int) -> nn.Sequential:
    """RetinaNet's tower with any number of convolutions: (N, C, h, w) -> (N, C, h, w)."""
    tower = nn.Sequential(*(Conv2dNormActivation(channels, channels, norm_layer=None) for _ in range(convs)))
    for module in tower.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return tower


def depthwise_tower(channels: int, convs: int) -> nn.Sequential:
    """Depthwise separable convolutions (Howard et al., 2017) in place of `convs` 3×3 ones, 8 to 9 times as cheap.

    Each is 3×3 depthwise, 1×1, group normalisation, ReLU; (N, C, h, w) -> (N, C, h, w).
    """
    layers: list[nn.Module] = []
    for _ in range(convs):
        depthwise = nn.Conv2d(channels, channels, kernel_size=3, padding=1, groups=channels, bias=False)
        pointwise = nn.Conv2d(channels, channels, kernel_size=1, bias=False)
        for conv in (depthwise, pointwise):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
        layers += [depthwise, pointwise, nn.GroupNorm(GROUPS, channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def convolutions(tower: nn.Sequential) -> list[list[nn.Module]]:
    """A tower's layers, a list a convolution, each ending with its ReLU."""
    groups: list[list[nn.Module]] = [[]]
    for module in tower:
        for layer in module if isinstance(module, Conv2dNormActivation) else [module]:
            groups[-1].append(layer)
            if isinstance(layer, nn.ReLU):
                groups.append([])
    return groups[:-1]


def by_anchor(maps: Sequence[Tensor], values: int) -> Tensor:
    """Maps (N, A·values, h, w) a level -> (N, h·w·A of all levels, values), float32, ordered as torchvision's heads."""
    levels = [each.unflatten(1, (-1, values)).permute(0, 3, 4, 1, 2).flatten(1, 3) for each in maps]
    return torch.cat(levels, dim=1).float()
