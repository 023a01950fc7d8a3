"""Shared by tests: pairs."""

import torch
from torch import Tensor

from msad_cli.distillation.distillation import Distillation, teaching
from msad_cli.distillation.losses.table import build_distillers
from msad_cli.models.detector import Detector
from msad_cli.models.detectors.kinds import DETECTORS
from msad_cli.models.spec import Learning
from support.specs import spec
from support.training import TARGETS

EMPTY = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


def pair(
    method: str, detector: str = "fcos", aligned: bool = True, channels: int = 64
) -> tuple[Detector, Detector, Distillation]:
    """A student of so many channels, its teacher of 64, and what trains one by the other."""
    torch.manual_seed(0)
    # Few of a two-stage detector's proposals are as good as many.
    learning = Learning(32 if DETECTORS[detector].family == "two-stage" else 512)
    shape = {"detector": detector, "head_convs": 2, "learning": learning}
    teacher = Detector(spec(**shape))
    # A teacher that is sure of something: fresh heads say the same everywhere.
    with torch.no_grad():
        for each in teacher.core.parameters():
            each.add_(0.02 * torch.randn_like(each))
    scales = {"scales": "aligned" if aligned else "single", "ks": (2,)}
    student = Detector(spec(**shape, role="student", channels=channels, **scales))
    distillers = build_distillers(student.spec, teacher.spec, {method: 1.0})
    return student, teacher, Distillation(student, teaching(teacher, student), distillers, 1)


def targets(empty: bool = False) -> list[dict[str, Tensor]]:
    if empty:
        return [{**EMPTY, "masks": torch.zeros(0, 128, 128, dtype=torch.uint8)}] * 2
    return [{**each, "masks": torch.ones(len(each["boxes"]), 128, 128, dtype=torch.uint8)} for each in TARGETS]
