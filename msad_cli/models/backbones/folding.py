"""Normalisation folded into the convolutions before it, for inference: the same numbers but for rounding.

Batch normalisation of learnt statistics is a factor and an addend of each channel. What normalises by groups, or keeps
statistics of several views apart, stays.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d


@torch.no_grad()
def fold(network: nn.Module) -> None:
    """Folds what can be folded of a network that is not trained any more, and lays its weights channels last.

    In all of msad's and torchvision's modules a norm is defined behind the convolution that it normalises. Nothing else
    reads that.
    """
    for module in list(network.modules()):
        for (_, before), (name, norm) in pairwise(list(module.named_children())):
            conv = before[-1] if isinstance(before, nn.Sequential) and len(before) else before
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm2d):
                conv.weight, conv.bias = _fused(conv, norm)
                setattr(module, name, nn.Identity())
    network.to(memory_format=torch.channels_last)


def _fused(conv: nn.Conv2d, norm: nn.BatchNorm2d | FrozenBatchNorm2d) -> tuple[nn.Parameter, nn.Parameter]:
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None, "norms of msad keep statistics"
    assert variance is not None
    return fuse_conv_bn_weights(conv.weight, conv.bias, mean, variance, norm.eps, norm.weight, norm.bias)
