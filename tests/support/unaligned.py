"""Shared by tests: unaligned."""

import torch
from torch import Tensor

from msad_cli.models.detector import Detector
from support.specs import spec


def unaligned() -> Detector:
    torch.manual_seed(1)
    return Detector(spec(role="student", scales="single", ks=(2,)))


def odd_views() -> dict[int, list[Tensor]]:
    """Two images whose HR padding, 128 × 384, is no multiple of 256."""
    generator = torch.Generator().manual_seed(0)
    high = [torch.randint(0, 256, (3, 96, side), generator=generator, dtype=torch.uint8) for side in (300, 200)]
    return {1: high, 2: [image[:, ::2, ::2].contiguous() for image in high]}
