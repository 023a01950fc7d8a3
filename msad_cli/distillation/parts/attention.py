"""Where, and in which channels, a map is strong (FGD: Yang et al., CVPR 2022, focal distillation).

Both attentions have mean 1, whatever the map's size, so that losses weighted by them keep their scale.
"""

import torch
from torch import Tensor

TEMPERATURE = 0.5
"""t: the lower it is, the more the few strongest places take of the whole."""


def spatial_attention(maps: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """A^sp = H·W·softmax over the cells of mean_c|F| / t: float32 maps (N, C, h, w) -> (N, h, w)."""
    strength = maps.abs().mean(dim=1)
    cells = strength[0].numel()
    return cells * (strength / temperature).flatten(1).softmax(dim=1).view_as(strength)


def channel_attention(maps: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """A^ch = C·softmax over the channels of mean_hw|F| / t: float32 maps (N, C, h, w) -> (N, C)."""
    strength = maps.abs().mean(dim=(2, 3))
    return maps.shape[1] * (strength / temperature).softmax(dim=1)


def without_top(attention: Tensor, share: float) -> Tensor:
    """A mask of an attention's shape (N, …): 0 at the strongest `share` of each image's entries, else 1.

    Their number is rounded down: of a map of one cell, something is left to generate it from.
    """
    flat = attention.flatten(1)
    top = flat.topk(int(share * flat.shape[1]), dim=1).indices
    return torch.ones_like(flat).scatter(1, top, 0.0).view_as(attention)
