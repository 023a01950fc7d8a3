"""Detectors learn one image of two squares by heart, and find them again afterwards."""

import pytest
import torch
from support.specs import spec, target
from torchvision.ops import box_iou

from msad_cli.models.detector import Detector
from msad_cli.models.spec import Learning

SQUARES = ([4.0, 8.0, 60.0, 64.0], [60.0, 56.0, 124.0, 120.0])
"""Of class 1 and of class 2, in an image of 128 × 128 pixels."""


@pytest.mark.parametrize(
    ("name", "steps", "rate"), [("reppoints", 30, 3e-3), ("fasterrcnn", 25, 1e-3), ("cascade_maskrcnn", 25, 1e-3)]
)
def test_one_image_is_learnt_by_heart(name: str, steps: int, rate: float) -> None:
    """A low view of half the size, from random weights; the best detection of each class."""
    torch.manual_seed(0)
    masks = torch.zeros(2, 128, 128, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, SQUARES, strict=True):
        mask[int(y0) : int(y1), int(x0) : int(x1)] = 1
    low = [torch.stack([110 + 100 * masks[0], 110 + 100 * masks[1], 110 * torch.ones_like(masks[0])])[:, ::2, ::2]]
    true = {**target(*SQUARES), "labels": torch.tensor([1, 2]), "masks": masks}
    detector = Detector(spec(detector=name, role="student", ks=(2,), learning=Learning(16)))
    optimiser = torch.optim.Adam([each for each in detector.parameters() if each.requires_grad], lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        losses = detector.losses(detector.pyramid(low, 2), detector.frame(low, 2), [true])
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    with torch.no_grad():
        (found,) = detector.eval().detect({2: low}, "low")
    for label, box in zip(true["labels"], true["boxes"], strict=True):
        best = (found["labels"] == label).nonzero()[0, 0]
        assert found["scores"][best] > 0.3
        assert box_iou(found["boxes"][best][None], box[None]) > 0.6
