"""Fusions that weigh views: aligned pyramids of several views become one (MSAD, section 3.2 and its ablation).

All fusions share one contract: `forward` takes one pyramid a view, finest level first, shapes equal level by level, and
gives the fused pyramid of those shapes. One module serves all levels. C-FF is the paper's choice; the others are its
rivals.
"""

from functools import reduce

import torch
from torch import Tensor, nn

from msad_cli.models.fusion_sums import ConcatFusion, SumFusion

REDUCTION = 16
"""r of the official code; the paper leaves it open."""


class CrossFusion(nn.Module):
    """Crossing feature-level fusion, C-FF: weighs maps against each other, image by image and level by level.

    z = GAP([A; B]) -> FC -> ReLU -> FC -> softmax -> (w0, w1), fused = w0·A + w1·B. Both FCs are free of bias.

    The last FC begins with zeros, and so the views with equal weights. Were it random, the weights would be an accident
    of the seed: from scratch, z is long (a norm of 14 a view, of 30 within 60 steps), almost the same for all images,
    and grows while the FCs hardly move. Softmax of that is 0 and 1, and then has no gradient to come back by.

    Args:
        channels: channels of a map.
        views: how many views are fused; the paper has 2.
    """

    def __init__(self, channels: int, views: int = 2) -> None:
        super().__init__()
        hidden = channels * views // REDUCTION
        self.squeeze = nn.Linear(channels * views, hidden, bias=False)
        self.weigh = nn.Linear(hidden, views, bias=False)
        nn.init.kaiming_uniform_(self.squeeze.weight, a=1)
        nn.init.zeros_(self.weigh.weight)

    def logits(self, maps: list[Tensor]) -> Tensor:
        """(N, views) float32, for one level's maps of (N, C, h, w) each."""
        pooled = torch.cat([each.mean(dim=(2, 3)) for each in maps], dim=1)
        # Under autocast they come in half precision, in which weights would not sum to 1.
        return self.weigh(torch.relu(self.squeeze(pooled))).float()  # type: ignore[no-any-return]

    def weights(self, maps: list[Tensor]) -> Tensor:
        """Weights (N, views), summing to 1 a row, for one level's maps of (N, C, h, w) each."""
        return torch.softmax(self.logits(maps), dim=1)

    def forward(self, pyramids: list[list[Tensor]]) -> list[Tensor]:
        """One pyramid a view, finest level first, shapes equal level by level -> the fused pyramid of those shapes."""
        return [_weighted(list(maps), self.weights(list(maps))) for maps in zip(*pyramids, strict=True)]


class SigmoidFusion(CrossFusion):
    """C-FF whose weights do not compete: a sigmoid each, from 0 to 1. An untrained one halves the sum of the views."""

    def weights(self, maps: list[Tensor]) -> Tensor:
        """Weights (N, views), each from 0 to 1, for one level's maps of (N, C, h, w) each."""
        return torch.sigmoid(self.logits(maps))


class ChannelFusion(CrossFusion):
    """C-FF with weights for every channel: the last FC has views · C outputs, view by view; the softmax is over
    views."""

    def __init__(self, channels: int, views: int = 2) -> None:
        super().__init__(channels, views)
        self.views = views
        self.weigh = nn.Linear(self.weigh.in_features, views * channels, bias=False)
        nn.init.zeros_(self.weigh.weight)

    def weights(self, maps: list[Tensor]) -> Tensor:
        """Weights (N, views, C), summing to 1 over views, for one level's maps of (N, C, h, w) each."""
        return torch.softmax(self.logits(maps).unflatten(1, (self.views, -1)), dim=1)


FUSIONS: dict[str, type[nn.Module]] = {
    "c-ff": CrossFusion,
    "sigmoid": SigmoidFusion,
    "channel": ChannelFusion,
    "sum": SumFusion,
    "concat": ConcatFusion,
}


def build_fusion(kind: str, channels: int, views: int) -> nn.Module:
    """The fusion of this name, one of `FUSIONS`.

    Raises:
        ValueError: there is no such fusion, or nothing to fuse.
    """
    if kind not in FUSIONS:
        raise ValueError(f"fusion {kind!r}: not one of {', '.join(FUSIONS)}")
    if views < 2:
        raise ValueError(f"fusion of {views} views: there have to be two or more")
    return FUSIONS[kind](channels, views)


def _weighted(maps: list[Tensor], weights: Tensor) -> Tensor:
    # (N, views) weighs whole maps, (N, views, C) each channel.
    rows = weights.to(maps[0].dtype).unbind(dim=1)
    return reduce(torch.add, (row.reshape(len(row), -1, 1, 1) * each for row, each in zip(rows, maps, strict=True)))
