"""Shared by tests: training."""

import torch
from torch import Tensor

from msad_cli.models.detector import Detector
from support.specs import spec, target

TARGETS = [target([10.0, 20.0, 60.0, 90.0]), target([5.0, 5.0, 25.0, 25.0], [40.0, 40.0, 120.0, 120.0])]


def views() -> dict[int, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    high = [torch.randint(0, 256, (3, 128, 128), generator=generator, dtype=torch.uint8) for _ in range(2)]
    return {1: high, 2: [image[:, ::2, ::2].contiguous() for image in high]}


def detectors() -> tuple[Detector, Detector]:
    torch.manual_seed(0)
    return Detector(spec()), Detector(spec(role="student", ks=(2,)))


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()
