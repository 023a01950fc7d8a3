"""The towers of torchvision's dense heads: other ones in their place, and their cut into convolutions.

A convolution of a tower is a group: 3×3, or depthwise and 1×1, then the normalisation if there is one, then ReLU.

All levels share a tower. Batch statistics they cannot share: in training every level is normalised by itself, and a
mean of statistics would fit none of them in evaluation (Wu & Johnson, arXiv 2105.07576). So each level has its own.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

GROUPS = 32
"""Of the towers' group normalisation, as in torchvision's FCOS."""


class LevelTower(nn.ModuleList):
    """A tower whose levels share convolutions, each with batch normalisation of its own, which is a `ModuleList`.

    Torchvision's heads hand a tower one after another what they are given, unread: for this one (level, map) pairs.
    """

    def forward(self, entered: tuple[int, Tensor]) -> Tensor:
        """A level's place from 0 and its map (N, C, h, w) -> (N, C, h, w)."""
        level, x = entered
        for layer in self.layers(level):
            x = layer(x)
        return x

    def layers(self, level: int) -> Iterator[nn.Module]:
        """Those that a level passes, in order."""
        for layer in _flat(self):
            yield layer[level] if isinstance(layer, nn.ModuleList) else layer

    def apart(self) -> "SeparateTowers":
        """Equal towers, one for each level, into which its normalisation can be folded."""
        (count,) = {len(layer) for layer in _flat(self) if isinstance(layer, nn.ModuleList)}
        return SeparateTowers(nn.Sequential(*map(deepcopy, self.layers(level))) for level in range(count))


class SeparateTowers(LevelTower):
    """A tower for each level."""

    def layers(self, level: int) -> Iterator[nn.Module]:
        """Those of a level's own tower."""
        tower: Any = self[level]
        return iter(tower)


def level_tower(
    channels: int, convs: int, depthwise: bool, levels: int, norm: Callable[[int], nn.Module]
) -> LevelTower:
    """`convs` convolutions, 3×3 or depthwise and 1×1, each followed by batch normalisation and ReLU."""
    tower = LevelTower()
    for _ in range(convs):
        tower.extend(_depthwise(channels) if depthwise else [_convolution(channels)])
        tower.append(nn.ModuleList(norm(channels) for _ in range(levels)))
        tower.append(nn.ReLU(inplace=True))
    return tower


def entering(tower: nn.Module, pyramid: Iterable[Tensor]) -> list[Any]:
    """What torchvision's head is given of a pyramid, for towers like this one."""
    return list(enumerate(pyramid)) if isinstance(tower, LevelTower) else list(pyramid)


def set_towers(head: Any, towers: Sequence[nn.Module]) -> None:
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
        layers += [*_depthwise(channels), nn.GroupNorm(GROUPS, channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _convolution(channels: int) -> nn.Module:
    conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
    nn.init.normal_(conv.weight, std=0.01)
    return conv


def _depthwise(channels: int) -> list[nn.Module]:
    depthwise = nn.Conv2d(channels, channels, kernel_size=3, padding=1, groups=channels, bias=False)
    pointwise = nn.Conv2d(channels, channels, kernel_size=1, bias=False)
    for conv in (depthwise, pointwise):
        nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
    return [depthwise, pointwise]


def convolutions(tower: Any, level: int) -> list[list[nn.Module]]:
    """The layers that a level passes in a tower, a list a convolution, each ending with its ReLU."""
    return _grouped(tower.layers(level) if isinstance(tower, LevelTower) else _flat(tower))


def _grouped(layers: Iterable[nn.Module]) -> list[list[nn.Module]]:
    groups: list[list[nn.Module]] = [[]]
    for layer in layers:
        groups[-1].append(layer)
        if isinstance(layer, nn.ReLU):
            groups.append([])
    return groups[:-1]


def _flat(tower: Any) -> Iterator[nn.Module]:
    """A tower's layers, nested or not."""
    for module in tower:
        yield from module if isinstance(module, nn.Sequential) else [module]


def nested(tower: Any) -> Any:
    """A tower of the same kind whose layers are nested by convolution: their names begin `0.0`, `0.1`, `1.0`.

    Torchvision's RetinaNet takes flat names `0.weight`, `2.weight` for those of its old files, and renames them.
    """
    made = [nn.Sequential(*each) for each in _grouped(tower)]
    return LevelTower(made) if isinstance(tower, LevelTower) else nn.Sequential(*made)


def by_anchor(maps: Sequence[Tensor], values: int) -> Tensor:
    """Maps (N, A·values, h, w) a level -> (N, h·w·A of all levels, values), float32, ordered as torchvision's heads."""
    levels = [each.unflatten(1, (-1, values)).permute(0, 3, 4, 1, 2).flatten(1, 3) for each in maps]
    return torch.cat(levels, dim=1).float()
