"""Shared by tests: specs."""

import torch
from torch import Tensor

from msad_cli.frame import Resolution
from msad_cli.models.spec import ClassName, DetectorSpec


def spec(**changes: object) -> DetectorSpec:
    """A small teacher, with changes."""
    values: dict[str, object] = {
        "role": "teacher",
        "detector": "fcos",
        "backbone": "resnet18",
        "width": 0.25,
        "channels": 64,
        "head_convs": 1,
        "norm": "group",
        "scales": "aligned",
        "ks": (1, 2),
        "resolution": Resolution(128, 256),
        "classes": (ClassName(7, "seven"), ClassName(90, "ninety")),
    }
    return DetectorSpec(**{**values, **changes})  # type: ignore[arg-type]


def target(*boxes: list[float]) -> dict[str, Tensor]:
    return {"boxes": torch.tensor(boxes), "labels": torch.ones(len(boxes), dtype=torch.int64)}


def assert_same(ours: list[dict[str, Tensor]], theirs: list[dict[str, Tensor]], scale: float = 1.0) -> None:
    """Equal detections, there being some; `theirs` in pixels `scale` times as large as ours."""
    for mine, other in zip(ours, theirs, strict=True):
        assert len(mine["boxes"]) > 0
        assert torch.equal(mine["labels"], other["labels"])
        torch.testing.assert_close(mine["scores"], other["scores"])
        torch.testing.assert_close(mine["boxes"], other["boxes"] * scale, rtol=1e-5, atol=1e-3)
