"""Normalisation folded into convolutions: the same outputs but for rounding, and fewer modules."""

import copy
from typing import Any

import pytest
import torch
from support.detectors import images, lively, spec_of
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from msad_cli.models.detector import Detector

NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def with_statistics(**changes: Any) -> Detector:
    """A detector whose norms do something: each has statistics, factors and addends of its own."""
    torch.manual_seed(0)
    detector = Detector(spec_of(**changes)).eval()
    lively(detector.core)
    for each in detector.modules():
        if isinstance(each, NORMS):
            for values, low, high in (
                (each.running_mean, -0.5, 0.5),
                (each.running_var, 0.5, 2.0),
                (each.weight, 0.7, 1.4),
                (each.bias, -0.2, 0.2),
            ):
                nn.init.uniform_(values, low, high)  # type: ignore[arg-type]
    return detector


def norms(detector: Detector) -> int:
    return sum(isinstance(each, NORMS) for each in detector.modules())


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference as a share of the largest value."""
    assert float(one.std()) > 0.001
    return float((one - other).abs().max() / one.abs().max())


STUDENT = {"role": "student", "ks": (2,)}


@pytest.mark.parametrize(
    "changes",
    [
        {"detector": "rtmdet", "backbone": "cspnext_nano", "norm": "batch", **STUDENT},
        {"detector": "rtmdet", "backbone": "cspnext_nano", "norm": "batch", "head_depthwise": True, **STUDENT},
        {"detector": "rtmdet", "norm": "group", **STUDENT},
        {"detector": "fcos", "norm": "batch", **STUDENT},
        {"detector": "fcos", "norm": "batch", "head_norm": "batch", **STUDENT},
        {"detector": "retinanet", "norm": "batch", "head_norm": "batch", "head_depthwise": True, **STUDENT},
        {"detector": "retinanet", "norm": "frozen", "backbone": "resnet50", **STUDENT},
        {"detector": "fcos", "norm": "frozen", "backbone": "mobilenet_v2", **STUDENT},
        {"detector": "maskrcnn", "norm": "frozen"},
    ],
    ids=lambda changes: "-".join(str(each) for each in changes.values()),
)
@torch.no_grad()
def test_outputs_are_the_same_and_no_norm_is_left(changes: dict[str, Any]) -> None:
    detector = with_statistics(**changes)
    folded = copy.deepcopy(detector).fold()
    assert norms(folded) == 0
    k = detector.spec.ks[-1]
    seen = images(((64, 96),))
    pyramid, other = detector.pyramid(seen, k), folded.pyramid(seen, k)
    for one, two in zip(pyramid, other, strict=True):
        assert apart(one, two) < 1e-5
    found = folded.outputs(pyramid)
    for name, values in detector.outputs(pyramid).items():
        assert apart(found[name], values) < 1e-5


@torch.no_grad()
def test_statistics_of_several_views_stay_apart() -> None:
    detector = with_statistics(detector="rtmdet", norm="batch")
    folded = copy.deepcopy(detector).fold()
    assert norms(folded) == norms(detector) > 0
    for k in (1, 2):
        seen = images(((128 // k, 128 // k),))
        for one, two in zip(detector.pyramid(seen, k), folded.pyramid(seen, k), strict=True):
            assert apart(one, two) < 1e-5


@torch.no_grad()
def test_two_backbones_are_folded() -> None:
    fusing = {"role": "student", "ks": (1, 2), "low_backbone": "resnet18", "low_width": 0.25, "norm": "frozen"}
    assert norms(with_statistics(detector="fcos", **fusing).fold()) == 0
