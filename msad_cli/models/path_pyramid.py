"""The aligned pyramid of RTMDet: CSPNeXt-PAFPN, a path down and one up again (Lyu et al., arXiv 2212.07784)."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msad_cli.frame import level_shift
from msad_cli.models.backbones.csp_blocks import ConvNorm, CSPLayer, Norm, as_published
from msad_cli.models.backbones.normalisation import freeze_view, select_view
from msad_cli.models.backbones.resnet import Backbone
from msad_cli.models.pyramid import AlignedBackbone

FINEST, COARSEST = 3, 5
"""Levels of the HR view."""


class PathNeck(nn.Module):
    """The stock neck of P3–P5, with OpenMMLab's names: `reduce_layers.0` goes from level 5 to 4, `downsamples.0` from 3
    to 4. It is run by `PathBackbone`.

    Args:
        inputs: channels of the backbone, by level.
        channels: of every level of the pyramid.
        blocks: of each CSP layer.
    """

    def __init__(self, inputs: dict[int, int], channels: int, blocks: int, norm: Norm) -> None:
        super().__init__()
        down, up = (4, 3), (3, 4)
        self.reduce_layers = nn.ModuleList(ConvNorm(inputs[each + 1], inputs[each], 1, norm) for each in down)
        self.top_down_blocks = nn.ModuleList(CSPLayer(2 * inputs[each], inputs[each], blocks, norm) for each in down)
        self.downsamples = nn.ModuleList(ConvNorm(inputs[each], inputs[each], 3, norm, stride=2) for each in up)
        self.bottom_up_blocks = nn.ModuleList(CSPLayer(2 * inputs[each], inputs[each + 1], blocks, norm) for each in up)
        self.out_convs = nn.ModuleList(ConvNorm(inputs[each], channels, 3, norm) for each in (3, 4, 5))


class FinerStep(nn.Module):
    """A level below the stock neck: the way down to it, its output, and the way up from it. As `PathNeck` has them."""

    def __init__(self, level: int, inputs: dict[int, int], channels: int, blocks: int, norm: Norm) -> None:
        super().__init__()
        own, above = inputs[level], inputs[level + 1]
        self.reduce = ConvNorm(above, own, 1, norm)
        self.top_down = CSPLayer(2 * own, own, blocks, norm)
        self.downsample = ConvNorm(own, own, 3, norm, stride=2)
        self.bottom_up = CSPLayer(2 * own, above, blocks, norm)
        self.out = ConvNorm(own, channels, 3, norm)


class PathBackbone(AlignedBackbone):
    """A backbone and CSPNeXt-PAFPN above it: three levels, P3–P5 of the HR view.

    Every view goes down from its own C5 to its finest level, P3 of the HR view, P2 at k = 2 and P1 at k = 4, and up
    again over three levels: those that have the grids of the HR view's. What leads beyond them is frozen where no
    view needs it.

    Args:
        backbone: the feature extractor.
        channels: channels of every level.
        ks: the reductions of the views that this pyramid has to serve.
        blocks: of each CSP layer.
        norm: constructor of the normalisation layers; batch statistics get the published ε and momentum.
    """

    fpn: PathNeck

    def __init__(self, backbone: Backbone, channels: int, ks: Sequence[int], blocks: int, norm: Norm) -> None:
        super().__init__(backbone, channels)
        inputs = backbone.channels
        self.fpn = PathNeck(inputs, channels, blocks, norm)
        below = range(FINEST - 1, FINEST - 1 - level_shift(max(ks)), -1)
        self.finer = nn.ModuleDict({str(each): FinerStep(each, inputs, channels, blocks, norm) for each in below})
        as_published([self.fpn, self.finer])
        for module in self._beyond(min(ks)):
            # A parameter without a gradient would stall distributed training.
            module.requires_grad_(False)
        for k in ks:
            finer_than_it = [each for level, each in self.finer.items() if int(level) < FINEST - level_shift(k)]
            for module in (*finer_than_it, *self._beyond(k)):
                freeze_view(module, k)

    def forward(self, images: Tensor, k: int = 1) -> OrderedDict[str, Tensor]:
        """Torchvision's contract for a backbone: the levels of `pyramid` by name, "0" being the finest."""
        finest, coarsest = FINEST - level_shift(k), COARSEST - level_shift(k)
        select_view(self, k)
        maps = self.body(images)
        laterals, merged = {}, maps[COARSEST]
        for level in range(COARSEST - 1, finest - 1, -1):
            reduce, top_down = self._down(level)
            laterals[level + 1] = reduce(merged)
            upsampled = F.interpolate(laterals[level + 1], size=maps[level].shape[-2:], mode="nearest")
            merged = top_down(torch.cat([upsampled, maps[level]], dim=1))
        levels = {finest: merged}
        for level in range(finest, coarsest):
            downsample, bottom_up = self._up(level)
            levels[level + 1] = bottom_up(torch.cat([downsample(levels[level]), laterals[level + 1]], dim=1))
        return OrderedDict((str(level - finest), self._out(level)(each)) for level, each in levels.items())

    def outputs_below(self, count: int) -> list[nn.Module]:
        """Their output convolutions alone: coarser levels are made from what lies before these."""
        return [self._out(FINEST + each) for each in range(count)]

    def _beyond(self, k: int) -> list[nn.Module]:
        """What only coarser levels need than those of the view downsampled by k."""
        above = range(COARSEST + 1 - level_shift(k), COARSEST + 1)
        return [module for level in above for module in (*self._up(level - 1), self._out(level))]

    def _down(self, level: int) -> tuple[nn.Module, nn.Module]:
        """From the level above to this one: what reduces the coarser map, and what merges both."""
        if level >= FINEST:
            return self.fpn.reduce_layers[4 - level], self.fpn.top_down_blocks[4 - level]
        return self._finer(level, "reduce"), self._finer(level, "top_down")

    def _up(self, level: int) -> tuple[nn.Module, nn.Module]:
        """From this level to the one above: what downsamples, and what merges both."""
        if level >= FINEST:
            return self.fpn.downsamples[level - FINEST], self.fpn.bottom_up_blocks[level - FINEST]
        return self._finer(level, "downsample"), self._finer(level, "bottom_up")

    def _out(self, level: int) -> nn.Module:
        return self.fpn.out_convs[level - FINEST] if level >= FINEST else self._finer(level, "out")

    def _finer(self, level: int, part: str) -> nn.Module:
        return self.finer.get_submodule(f"{level}.{part}")
