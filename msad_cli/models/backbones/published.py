"""Which backbones torchvision publishes ImageNet weights of. Imports no torch."""

from msad_cli.models.backbones.cspnext_sizes import SIZES

PUBLISHED_WIDTH = 1.0
"""Of ImageNet weights."""


def has_imagenet_weights(backbone: str, width: float) -> bool:
    """Whether there are any of this backbone; CSPNeXt's are OpenMMLab's."""
    return width == PUBLISHED_WIDTH and backbone not in SIZES
