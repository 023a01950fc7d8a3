"""Backbones by name: ResNet and ResNeXt of any width (He et al., CVPR 2016; Xie et al., CVPR 2017) and others.

ResNets are assembled from torchvision's blocks and with torchvision's names, so that its ImageNet weights load at width
1.0; the assembly is ours because torchvision's own has one width and hides the stem.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from msad_cli.models.backbones.cspnext import CSPNeXtBackbone
from msad_cli.models.backbones.cspnext_sizes import SIZES
from msad_cli.models.backbones.mobilenet import MobileNetV2Backbone


class Shape(NamedTuple):
    """Block class, blocks a stage, groups and width per group of the 3×3 convolutions."""

    block: Any
    blocks: tuple[int, int, int, int]
    groups: int = 1
    width_per_group: int = 64


BACKBONES = {
    "resnet18": Shape(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Shape(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Shape(Bottleneck, (3, 4, 6, 3)),
    "resnet101": Shape(Bottleneck, (3, 4, 23, 3)),
    "resnet152": Shape(Bottleneck, (3, 8, 36, 3)),
    "resnext50_32x4d": Shape(Bottleneck, (3, 4, 6, 3), 32, 4),
    "resnext101_32x8d": Shape(Bottleneck, (3, 4, 23, 3), 32, 8),
    "resnext101_64x4d": Shape(Bottleneck, (3, 4, 23, 3), 64, 4),
}


def build_backbone(name: str, width: float, norm: Callable[[int], nn.Module]) -> "Backbone":
    """The feature extractor of this name.

    Args:
        name: one of `spec.BACKBONE_NAMES`.
        width: factor on the channels, 1.0 being the published network.
        norm: constructor of the normalisation layers, see `normalisation.norm_layer`.
    """
    if name == "mobilenet_v2":
        return MobileNetV2Backbone(width, norm)
    if name in SIZES:
        return CSPNeXtBackbone(name, width, norm)
    return ResNetBackbone(name, width, norm)


class ResNetBackbone(nn.Module):
    """The feature extractor of a ResNet: no average pool, no classifier.

    Args:
        name: a key of `BACKBONES`.
        width: factor on every stage's channels.
        norm: constructor of the normalisation layers.

    Attributes:
        channels: channels of C1 (the stem before max-pool, stride 2), C2, C3, C4, C5 (stride 32), by level.
    """

    def __init__(self, name: str, width: float, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        shape = BACKBONES[name]
        stem, *stages = (int(channels * width) for channels in (64, 64, 128, 256, 512))
        self.conv1 = nn.Conv2d(3, stem, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = norm(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.channels = {1: stem}
        for number, (planes, blocks) in enumerate(zip(stages, shape.blocks, strict=True), start=1):
            inputs = self.channels[number]
            self.add_module(f"layer{number}", _stage(shape, inputs, planes, blocks, 1 if number == 1 else 2, norm))
            self.channels[number + 1] = planes * shape.block.expansion
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self) -> list[list[nn.Module]]:
        """What makes C1 of the image, C2 of C1, …, C5 of C4."""
        return [[self.conv1, self.bn1], *([self.get_submodule(f"layer{number}")] for number in (1, 2, 3, 4))]

    def first_convolution(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, channels[1], H / 2, W / 2): the input layer alone, before its normalisation."""
        first: Tensor = self.conv1(images)
        return first

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """(N, 3, H, W) -> {level l: (N, channels[l], H / 2^l, W / 2^l)} for l = 1..5."""
        maps = {1: self.relu(self.bn1(self.first_convolution(images)))}
        x = self.maxpool(maps[1])
        for number in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{number}")(x)
            maps[number + 1] = x
        return maps


Backbone = ResNetBackbone | MobileNetV2Backbone | CSPNeXtBackbone
"""What the pyramid stands on: `channels` by level, and a forward from images (N, 3, H, W) to maps by level, 1 to 5."""


def _stage(
    shape: Shape, inputs: int, planes: int, blocks: int, stride: int, norm: Callable[[int], nn.Module]
) -> nn.Sequential:
    outputs = planes * shape.block.expansion
    # Of 64 planes, base_width is the share that each group gets. A group of a narrow ResNeXt keeps one channel.
    base_width = max(shape.width_per_group, -(-64 // planes))
    block = partial(shape.block, groups=shape.groups, base_width=base_width, norm_layer=norm)
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False), norm(outputs))
    first = block(inputs, planes, stride, shortcut)
    return nn.Sequential(first, *(block(outputs, planes) for _ in range(blocks - 1)))
