"""RTMDet's head: towers whose convolutions all levels share, each level with normalisation and outputs of its own."""

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from msad_cli.models.backbones.csp_blocks import Norm, as_published
from msad_cli.models.detectors.base import Tower
from msad_cli.models.detectors.towers import by_anchor

PRIOR = 0.01
"""The score of every class before anything is learnt."""
FIRST_DISTANCE = 1.0
"""Strides from a cell to each side of its box, before anything is learnt. The published code begins with boxes without
an area, whose IoU with any object is 0, where distances are predicted as they are."""


class Convolution(nn.Module):
    """One convolution of a tower at one level. Of all levels the first alone holds the weights, `conv`."""

    def __init__(self, channels: int, norm: Norm, conv: nn.Module | None) -> None:
        super().__init__()
        if conv is not None:
            self.conv = conv
        self.bn = norm(channels)


class SharedHead(nn.Module):
    """Two towers over all levels, with OpenMMLab's names: convolutions shared by the levels, all else apart.

    Args:
        convs: convolutions of each tower.
        levels: how many maps a pyramid has.
        depthwise: whether the convolutions are depthwise separable.
        exponential: whether distances are predicted as logarithms.
    """

    def __init__(
        self, channels: int, classes: int, convs: int, levels: int, norm: Norm, depthwise: bool, exponential: bool
    ) -> None:
        super().__init__()
        self.classes, self.exponential = classes, exponential

        def tower() -> nn.ModuleList:
            shared = [_convolution(channels, depthwise) for _ in range(convs)]
            first = nn.ModuleList(Convolution(channels, norm, each) for each in shared)
            others = (nn.ModuleList(Convolution(channels, norm, None) for _ in shared) for _ in range(levels - 1))
            return nn.ModuleList([first, *others])

        self.cls_convs, self.reg_convs = tower(), tower()
        self.rtm_cls = nn.ModuleList(nn.Conv2d(channels, classes, 1) for _ in range(levels))
        self.rtm_reg = nn.ModuleList(nn.Conv2d(channels, 4, 1) for _ in range(levels))
        as_published([self])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
        for scores, distances in zip(self.rtm_cls, self.rtm_reg, strict=True):
            nn.init.constant_(scores.get_parameter("bias"), -math.log((1 - PRIOR) / PRIOR))
            first = math.log(FIRST_DISTANCE) if exponential else FIRST_DISTANCE
            nn.init.constant_(distances.get_parameter("bias"), first)

    def unshare(self) -> None:
        """Gives each level convolutions of its own, equal ones: what is folded into them differs by level."""
        towers: Any = (self.cls_convs, self.reg_convs)
        for first, *others in towers:
            for level in others:
                for each, shared in zip(level, first, strict=True):
                    norm = each.bn
                    del each.bn
                    each.conv, each.bn = deepcopy(shared.conv), norm  # in the order in which they are computed

    def forward(self, pyramid: Sequence[Tensor]) -> dict[str, Tensor]:
        """Maps (N, channels, h, w) -> `cls_logits` (N, cells, classes), `bbox_regression` (N, cells, 4) in strides."""
        found: dict[str, Tensor] = {}
        for tower in get_args(Tower):
            found |= self.outputs_of(tower, self.through(tower, pyramid, 0, None))
        return found

    def through(self, tower: Tower, maps: Sequence[Tensor], start: int, stop: int | None) -> list[Tensor]:
        """Maps behind the convolutions `start` … `stop` − 1 of a tower, each with its normalisation and activation."""
        levels: Any = self.cls_convs if tower == "classification" else self.reg_convs
        found = []
        for x, own in zip(maps, levels, strict=True):
            for first, each in list(zip(levels[0], own, strict=True))[start:stop]:
                conv = each.conv if hasattr(each, "conv") else first.conv
                x = F.silu(each.bn(conv(x)))  # noqa: PLW2901
            found.append(x)
        return found

    def outputs_of(self, tower: Tower, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """What stands on a tower."""
        if tower == "classification":
            logits = [layer(each) for layer, each in zip(self.rtm_cls, maps, strict=True)]
            return {"cls_logits": by_anchor(logits, self.classes)}
        distances = by_anchor([layer(each) for layer, each in zip(self.rtm_reg, maps, strict=True)], 4)
        return {"bbox_regression": distances.exp() if self.exponential else distances}


def _convolution(channels: int, depthwise: bool) -> nn.Module:
    if not depthwise:
        return nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    first = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    return nn.Sequential(first, nn.Conv2d(channels, channels, 1, bias=False))
