"""Detectors learn one batch by heart: two images of one square each, which they find again afterwards."""

import pytest
import torch
from support.specs import spec, target
from torch import Tensor
from torchvision.ops import box_iou

from msad_cli.models.detector import Detector
from msad_cli.models.detectors.base import Target
from msad_cli.models.spec import Learning

SQUARES = ([8.0, 16.0, 72.0, 80.0], [40.0, 32.0, 112.0, 104.0])


def batch() -> tuple[list[Tensor], list[Target]]:
    """Images of 128 × 128 pixels, one with a square of class 1, one of class 2, and their targets with masks."""
    images, targets = [], []
    for label, box in enumerate(SQUARES, start=1):
        x0, y0, x1, y1 = map(int, box)
        mask = torch.zeros(1, 128, 128, dtype=torch.uint8)
        mask[:, y0:y1, x0:x1] = 1
        images.append(110 + 100 * mask * torch.tensor([label == 1, label == 2, 1], dtype=torch.uint8)[:, None, None])
        targets.append({**target(box), "labels": torch.tensor([label]), "masks": mask})
    return images, targets


@pytest.mark.parametrize(("name", "steps"), [("fasterrcnn", 25)])
def test_one_batch_is_learnt_by_heart(name: str, steps: int) -> None:
    """A low view at half the size, from random weights."""
    torch.manual_seed(0)
    detector = Detector(spec(detector=name, role="student", ks=(2,), learning=Learning(32), detections_per_image=5))
    optimiser = torch.optim.Adam([each for each in detector.parameters() if each.requires_grad], lr=1e-3)
    images, targets = batch()
    low = [each[:, ::2, ::2] for each in images]
    frame = detector.frame(low, 2)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = torch.stack(list(detector.losses(detector.pyramid(low, 2), frame, targets).values())).sum()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        found = detector.eval().detect({2: low}, "low")
    for each, true in zip(found, targets, strict=True):
        assert each["labels"][0] == true["labels"][0]
        assert box_iou(each["boxes"][:1], true["boxes"]) > 0.6
        assert each["scores"][0] > 0.4
