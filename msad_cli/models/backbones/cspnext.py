"""CSPNeXt (Lyu et al., RTMDet, arXiv 2212.07784), of any width, with OpenMMLab's names."""

from torch import Tensor, nn

from msad_cli.models.backbones.csp_blocks import SPP, ConvNorm, CSPLayer, Norm, as_published
from msad_cli.models.backbones.cspnext_sizes import SIZES

STEM = 64
STAGES = ((128, 3), (256, 6), (512, 6), (1024, 3))
"""Channels and blocks of CSPNeXt-l."""


class CSPNeXtBackbone(nn.Module):
    """The feature extractor of CSPNeXt: a stem of three 3×3 convolutions, and four stages that halve the resolution.

    Channels are those of CSPNeXt-l times that of the size, times `width`, rounded down.

    Args:
        name: a key of `SIZES`.
        width: a further factor on every stage's channels; 1.0 is the network of that name.
        norm: constructor of the normalisation layers; batch statistics get the published ε and momentum.

    Attributes:
        channels: channels of C1 (the stem, stride 2), C2, C3, C4, C5 (stride 32), by level.
    """

    def __init__(self, name: str, width: float, norm: Norm) -> None:
        super().__init__()
        size = SIZES[name]
        factor = size.width * width
        stem, first = int(STEM * factor), int(STEM * factor / 2)
        self.stem = nn.Sequential(
            ConvNorm(3, first, 3, norm, stride=2), ConvNorm(first, first, 3, norm), ConvNorm(first, stem, 3, norm)
        )
        self.channels = {1: stem}
        for number, (whole, blocks) in enumerate(STAGES, start=1):
            channels, last = int(whole * factor), number == len(STAGES)
            layers: list[nn.Module] = [ConvNorm(self.channels[number], channels, 3, norm, stride=2)]
            if last:
                layers.append(SPP(channels, norm))
            layers.append(CSPLayer(channels, channels, size.blocks(blocks), norm, identity=not last, attention=True))
            self.add_module(f"stage{number}", nn.Sequential(*layers))
            self.channels[number + 1] = channels
        as_published([self])

    def stages(self) -> list[list[nn.Module]]:
        """What makes C1 of the image, C2 of C1, …, C5 of C4."""
        return [[self.stem], *([self.get_submodule(f"stage{number}")] for number in (1, 2, 3, 4))]

    def first_convolution(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, half of channels[1], H / 2, W / 2): the input layer alone, before its normalisation."""
        first: Tensor = self.stem[0].conv(images)  # type: ignore[operator]
        return first

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """(N, 3, H, W) -> {level l: (N, channels[l], H / 2^l, W / 2^l)} for l = 1..5."""
        maps = {1: self.stem(images)}
        for number in (1, 2, 3, 4):
            maps[number + 1] = self.get_submodule(f"stage{number}")(maps[number])
        return maps
