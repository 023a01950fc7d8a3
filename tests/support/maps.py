"""Shared by tests: maps."""

from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from msad_cli.distillation.knowledge import Knowledge, best_view, student_view
from msad_cli.distillation.losses import freekd
from msad_cli.distillation.losses.table import build_distillers
from msad_cli.distillation.unaligned import unaligned_teacher
from msad_cli.models.detector import Detector
from msad_cli.models.detectors.base import Target
from support.specs import spec
from support.training import TARGETS, views

OBJECTS = [{**each, "masks": torch.ones(len(each["boxes"]), 128, 128, dtype=torch.uint8)} for each in TARGETS]


ONE = SimpleNamespace(channels=1, levels=range(3, 8), family="dense", dense=True, finest_level=3, detector="fcos")


FIRST = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def pyramid(finest: Tensor) -> list[Tensor]:
    """A pyramid of one image and one channel, (1, 1, 2, 2) in the finest level and zero in the four others."""
    return [finest.reshape(1, 1, 2, 2), *[torch.zeros(1, 1, 2, 2)] * 4]


def known(maps: Sequence[Tensor], **outputs: Tensor) -> Knowledge:
    """What a network knows of which there is only the pyramid."""
    found = Knowledge(SimpleNamespace(core=None, spec=ONE), maps, None, {})  # type: ignore[arg-type]
    vars(found)["outputs"] = outputs
    return found


@cache
def pair(detector: str, aligned: bool, channels: int = 64) -> tuple[Detector, Detector]:
    """A student of so many channels and a frozen teacher of 64."""
    torch.manual_seed(0)
    small = {"detector": detector, "head_convs": 2}
    how = {"ks": (2,)} if aligned else {"ks": (2,), "scales": "single"}
    teacher, student = Detector(spec(**small)), Detector(spec(role="student", channels=channels, **small, **how))
    for each in teacher.core.parameters():
        # Heads begin so small that they would predict nearly the same to anything.
        if each.ndim == 4 and each.std() < 0.02:
            nn.init.normal_(each, std=0.05)
    return student, teacher.eval().requires_grad_(False)


def knowledge(
    student: Detector, teacher: Detector, targets: Sequence[Target] = OBJECTS
) -> tuple[Knowledge, Knowledge, Sequence[Target]]:
    """Of the student, of the teacher, and the targets in their frame."""
    mine, targets = student_view(student, views(), targets)
    with torch.no_grad():
        aligned = student.spec.scales == "aligned"
        theirs = best_view(teacher, views()) if aligned else unaligned_teacher(teacher, 2)(views())
    return mine, theirs, targets


def build(method: str, student: Detector, teacher: Detector) -> nn.Module:
    """A method's distiller; "freekd late" is the one whose prompts have learnt already."""
    torch.manual_seed(1)
    name = method.split(maxsplit=1)[0]
    distiller = build_distillers(student.spec, teacher.spec, {name: 1.0})[name].distiller
    if name != method:
        distiller.load_state_dict({**distiller.state_dict(), "steps_done": torch.tensor(freekd.PROMPT_STEPS)})
    return distiller
