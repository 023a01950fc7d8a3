"""Normalisation layers by name, and whose statistics they hold.

Batch statistics belong to a view. What a network sees at two resolutions has two distributions (Touvron et al., NeurIPS
2019), and resolutions that share all weights do better with normalisation of their own (Wang et al., ECCV 2020). In
training every pass is normalised by its own batch; statistics shared by the views, which the official MSAD code updates
twice a step, would average the two and fit neither pass in evaluation. They would also be the wrong start for a
student, which sees the small view alone. So a model of several views has one BatchNorm a view, named `bn1.k1`,
`bn1.k2`. A model of one view has torchvision's names, whatever its view is.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from msad_cli.errors import DeviceError

MOST_GROUPS, FEWEST_CHANNELS = 32, 4
"""32 groups (Wu & He, ECCV 2018), unless they would get so narrow that they normalise single channels."""

FUSED = 0
"""Stands among the views k for the fusion of them all: of a head's statistics, which sees fused maps too."""
OF_A_VIEW = re.compile(r"\.k(\d+)\.(weight|bias|running_mean|running_var|num_batches_tracked)$")


class BatchNorm(nn.BatchNorm2d):
    """Torch's, which takes what it has learnt where a map has one value alone, as P7 of a single small image has: of
    that there are no statistics, and torch refuses it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) -> the same shape."""
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        normalised: Tensor = super().forward(x)
        return normalised


class ViewNorm(nn.Module):
    """Batch normalisation of several views: each has parameters and statistics of its own.

    Torchvision's blocks hand a norm nothing but a map; so the view is selected before a pass, see `select_view`.

    Args:
        channels: channels of a map.
        views: the reductions k, the first of which is selected.
    """

    def __init__(self, channels: int, views: Sequence[int]) -> None:
        super().__init__()
        self.views = tuple(views)
        self.k = views[0]
        for k in views:
            self.add_module(f"k{k}", BatchNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w), normalised as the selected view is."""
        normalised: Tensor = self.get_submodule(f"k{self.k}")(x)
        return normalised


class FrozenNorm(FrozenBatchNorm2d):  # type: ignore[misc]
    """Batch normalisation that learns nothing. In half precision one operation that stays in it: torchvision's two
    would make every map float32 again. In float32 torchvision's, which keep no map for the way back."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) -> the same shape and precision."""
        if x.dtype == torch.float32:
            normalised: Tensor = super().forward(x)
            return normalised
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def norm_layer(kind: str, views: Sequence[int] = (1,)) -> Callable[[int], nn.Module]:
    """The constructor (channels -> layer) of `frozen`, `batch` or `group` normalisation.

    Frozen batch statistics suit pretrained weights; batch statistics need several images a device; groups need neither.

    Args:
        kind: the name.
        views: the reductions k that the model will see; only batch statistics are kept apart.
    """
    layers: dict[str, Callable[[int], nn.Module]] = {
        "frozen": FrozenNorm,
        "batch": partial(ViewNorm, views=tuple(views)) if len(views) > 1 else BatchNorm,
        "group": _group_norm,
    }
    return layers[kind]


def select_view(module: nn.Module, k: int) -> None:
    """Has every norm of `module` take the view downsampled by k, from now on.

    Raises:
        ValueError: a norm has no such view.
    """
    for name, each in module.named_modules():
        if isinstance(each, ViewNorm):
            if not hasattr(each, f"k{k}"):
                raise ValueError(f"{name}: has no statistics of the view downsampled by {k}")
            each.k = k


def freeze_view(module: nn.Module, k: int) -> None:
    """Has the norms of a view learn nothing, in a module that it never passes.

    A parameter without a gradient would stall distributed training.
    """
    for each in module.modules():
        if isinstance(each, ViewNorm):
            each.get_submodule(f"k{k}").requires_grad_(False)


def start_fused(module: nn.Module) -> None:
    """Gives the norms of fused maps the parameters and statistics of the first view, where there are both."""
    for each in module.modules():
        if isinstance(each, ViewNorm) and hasattr(each, f"k{FUSED}"):
            first, fused = (each.get_submodule(name) for name in (f"k{each.views[0]}", f"k{FUSED}"))
            fused.load_state_dict(first.state_dict())


def stock_name(name: str) -> str:
    """What torchvision calls a tensor: `layer1.0.bn1.k2.weight` -> `layer1.0.bn1.weight`; other names as they are."""
    return OF_A_VIEW.sub(r".\2", name)


def of_view(state: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """The state of a model of one view from that of a model of several: the norms of the view k, under stock names.

    Other tensors, and states without views, stay as they are.
    """
    found = {name: OF_A_VIEW.search(name) for name in state}
    return {stock_name(name): state[name] for name, match in found.items() if not match or int(match[1]) == k}


def synchronised(module: nn.Module, device: torch.device) -> nn.Module:
    """Has batch statistics taken over all processes' images; to be called where several train, before the first step.

    Names and shapes of the state stay the same; frozen and group normalisation stay as they are.

    Returns:
        `module`, whose layers were changed; another object only where `module` itself is a BatchNorm2d.

    Raises:
        DeviceError: there are batch statistics, and the device is a CPU, where torch cannot synchronise them.
    """
    if device.type == "cpu":
        if any(isinstance(each, nn.BatchNorm2d) for each in module.modules()):
            raise DeviceError(
                "batch normalisation in several processes needs GPUs",
                "add --norm group, or train in one process",
                code="batch-norm-needs-gpus",
            )
        return module
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
    return converted


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(math.gcd(MOST_GROUPS, channels // FEWEST_CHANNELS, channels), channels)
