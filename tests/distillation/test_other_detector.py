"""A teacher of one detector and a student of another: features everywhere, predictions nowhere."""

import pytest
import torch
from support.pairs import targets
from support.specs import spec
from support.training import total, views

from msad_cli.distillation.distillation import Distillation, teaching
from msad_cli.distillation.losses.table import COMPARE_OUTPUTS, DISTILLERS, build_distillers
from msad_cli.errors import UsageError
from msad_cli.models.detector import Detector
from msad_cli.models.spec import Learning, Measuring
from msad_cli.training.config import DistillConfig
from msad_cli.training.students.plan_student import choose_methods, student_spec

BY_FEATURES = [method for method in DISTILLERS if method not in COMPARE_OUTPUTS]
QUICK = ("l1", "freekd", "dsamkd", "samkd")
PAIRS = [("cascade_maskrcnn", "fasterrcnn"), ("reppoints", "fcos")]


def pair(method: str, of_teacher: str, of_student: str) -> tuple[Detector, Distillation]:
    torch.manual_seed(0)
    few = Learning(16)
    teacher = Detector(spec(detector=of_teacher, learning=few))
    named = student_spec(teacher.spec, "2", {"detector": of_student}, "teacher", "auto")[0]
    student = Detector(named)
    distillers = build_distillers(student.spec, teacher.spec, {method: 1.0})
    return student, Distillation(student, teaching(teacher, student), distillers, 1)


@pytest.mark.parametrize("detectors", PAIRS)
@pytest.mark.parametrize(
    "method", [each if each in QUICK else pytest.param(each, marks=pytest.mark.slow) for each in BY_FEATURES]
)
def test_features_teach_a_student_of_another_detector(method: str, detectors: tuple[str, str]) -> None:
    student, module = pair(method, *detectors)
    losses = module.train()(views(), targets())
    distilled = {name: loss for name, loss in losses.items() if name.startswith("distil/")}
    assert distilled
    # Cells of FCOS and of RepPoints are one grid, and yet their logits and boxes mean different things.
    assert not {name for name in distilled if name.endswith(("/classes", "/boxes"))}
    total(distilled).backward()
    moved = [each.grad for each in student.core.backbone.body.parameters() if each.grad is not None]
    assert all(each.isfinite().all() for each in moved)
    assert float(torch.stack([each.abs().sum() for each in moved]).sum()) > 0


@pytest.mark.parametrize("method", sorted(COMPARE_OUTPUTS))
def test_predictions_of_different_detectors_are_not_compared(method: str) -> None:
    with pytest.raises(ValueError, match=f"method {method}: it compares predictions, and the student is retinanet"):
        build_distillers(spec(detector="retinanet", role="student", ks=(2,)), spec(), {method: 1.0})


def test_crosskd_asks_for_towers_that_reppoints_has_not() -> None:
    """Its tower of classes reads where the other one points."""
    _, module = pair("crosskd", "reppoints", "reppoints")
    with pytest.raises(UsageError, match="reppoints has not towers"):
        module(views(), targets())


def test_what_a_student_of_another_detector_learns_by_unless_somebody_says() -> None:
    other = spec(detector="retinanet", role="student", ks=(2,))
    assert set(choose_methods(other, DistillConfig(), one_detector=False)[0]) == {"l1"}
    assert set(choose_methods(other, DistillConfig())[0]) == {"output-kd"}


def test_the_students_spec() -> None:
    """It has the teacher's classes, size and head, and of another task nothing."""
    points = {"keypoints": ("nose", "left", "right"), "flip_pairs": ((1, 2),), "skeleton": ((0, 1),)}
    teacher = spec(detector="keypointrcnn", measuring=Measuring((0.1, 0.2, 0.3)), **points)
    found, _ = student_spec(teacher, None, {"detector": "fasterrcnn"}, "auto", "auto")
    assert (found.detector, found.classes, found.ks, found.channels) == ("fasterrcnn", teacher.classes, (2,), 64)
    assert (found.keypoints, found.flip_pairs, found.skeleton, found.measuring) == ((), (), (), Measuring())


@pytest.mark.parametrize(
    ("of_teacher", "detector", "known"),
    [("fcos", "fasterrcnn", "fcos, retinanet, reppoints"), ("fcos", "rtmdet", "fcos, retinanet, reppoints")],
)
def test_other_levels_are_refused(of_teacher: str, detector: str, known: str) -> None:
    with pytest.raises(UsageError, match=f"--detector {detector}: its levels are not those") as refused:
        student_spec(spec(detector=of_teacher), None, {"detector": detector}, "auto", "auto")
    assert refused.value.hint == f"choose from {known}"


def test_an_unknown_detector_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="detector 'retinanett': not one of"):
        student_spec(spec(), None, {"detector": "retinanett"}, "auto", "auto")
