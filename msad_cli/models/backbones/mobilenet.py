"""The MobileNetV2 backbone of any width (Sandler et al., CVPR 2018): torchvision's own, read at five of its stages."""

from collections.abc import Callable

from torch import Tensor, nn
from torchvision.models import MobileNetV2

TAPS = {0: 1, 3: 2, 6: 3, 13: 4, 18: 5}
"""Place in `features` -> level. C1 is the first convolution, C2–C4 are the last blocks of strides 4, 8 and 16, and C5
is the 1×1 convolution behind the last block, as in the official MSAD code."""


class MobileNetV2Backbone(nn.Module):
    """The feature extractor of MobileNetV2: no average pool, no classifier.

    Channels are the published ones times `width`, rounded to multiples of 8 as by torchvision; the 1×1 convolution at
    the end has 1280 channels up to width 1, and more above.

    Args:
        width: factor on the channels.
        norm: constructor of the normalisation layers.

    Attributes:
        channels: channels of C1 (stride 2) … C5 (stride 32), by level.
    """

    def __init__(self, width: float, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        # The classifier is dropped at once, so it need not have a thousand classes.
        self.features = MobileNetV2(num_classes=1, width_mult=width, norm_layer=norm).features
        self.channels = {level: int(self.features[place].out_channels) for place, level in TAPS.items()}

    def stages(self) -> list[list[nn.Module]]:
        """What makes C1 of the image, C2 of C1, …, C5 of C4."""
        ends = [place + 1 for place in TAPS]
        return [list(self.features)[first:end] for first, end in zip((0, *ends), ends, strict=False)]

    def first_convolution(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, channels[1], H / 2, W / 2): the input layer alone, before its normalisation."""
        first: Tensor = self.features[0][0](images)
        return first

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """(N, 3, H, W) -> {level l: (N, channels[l], H / 2^l, W / 2^l)} for l = 1..5."""
        maps, x = {}, images
        for place, stage in enumerate(self.features):
            x = stage(x)
            if place in TAPS:
                maps[TAPS[place]] = x
        return maps
