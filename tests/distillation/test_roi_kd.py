"""Predictions of two-stage detectors: by hand, nothing between equal ones, and images without any object."""

import math

import pytest
import torch
from support.pairs import pair, targets
from support.specs import spec
from support.training import total, views
from torch import Tensor

from msad_cli.distillation.knowledge import Knowledge, best_view
from msad_cli.distillation.losses.roi_kd import RoIKD, _of_anchors, _of_rois
from msad_cli.distillation.losses.table import build_distillers
from msad_cli.models.detector import Detector
from msad_cli.models.detectors.two_stage import BoxOutputs, ProposalOutputs
from msad_cli.models.spec import Learning


def test_anchors_by_hand() -> None:
    """Logits 0 and ln 3, probabilities 1/2 and 3/4; the only anchor's weight is 3/4, and its sum counts as 1."""
    mine = ProposalOutputs(torch.zeros(1, 1), torch.tensor([[[1.0, 1.0, 2.0, 0.0]]]))
    theirs = ProposalOutputs(torch.full((1, 1), math.log(3)), torch.ones(1, 1, 4))
    found = {name: loss.item() for name, loss in _of_anchors(mine, theirs).items()}
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert found == pytest.approx({"objectness": kl, "proposals": 0.75 * 0.5}, rel=1e-5)


def test_rois_by_hand() -> None:
    """Two RoIs, background and one class. Teacher's logits (0, 2·ln 3): 9/10 of the class, 3/4 at T = 2.

    The second is background for certain: its box counts for nothing. The mean over two RoIs is half of
    T²·KL(3/4 ‖ 1/2), as the student knows nothing of the first and agrees on the second.
    """
    certain = torch.tensor([100.0, 0.0])
    mine = BoxOutputs(torch.stack([torch.zeros(2), certain]), torch.zeros(2, 2, 4))
    wanted = torch.stack([torch.tensor([0.0, 2 * math.log(3)]), certain])
    theirs = BoxOutputs(wanted, torch.tensor([[[7.0] * 4, [0.5] * 4], [[7.0] * 4, [9.0] * 4]]))
    found = {name: loss.item() for name, loss in _of_rois(mine, theirs).items()}
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert found == pytest.approx({"classes": 4 * kl / 2, "boxes": 0.9 * 0.5}, rel=1e-5)


def known(detector: str, **fields: object) -> tuple[Knowledge, Knowledge, RoIKD]:
    """What student and teacher know of two images; random networks, so that any proposal is worth a detection."""
    torch.manual_seed(0)
    teacher = (
        Detector(spec(detector=detector, head_convs=2, learning=Learning(8), **fields)).eval().requires_grad_(False)
    )
    student = Detector(spec(detector=detector, head_convs=2, learning=Learning(8), role="student", ks=(2,), **fields))
    return best_view(student, views()), best_view(teacher, views()), RoIKD(student.spec, teacher.spec)


@pytest.mark.parametrize(
    ("detector", "fields", "last"),
    [
        ("fasterrcnn", {}, set()),
        ("maskrcnn", {}, {"masks"}),
        ("cascade_maskrcnn", {}, {"masks"}),
        ("keypointrcnn", {"keypoints": ("head", "tail")}, {"keypoints"}),
    ],
)
def test_equal_outputs_cost_nothing_and_others_teach_every_head(
    detector: str, fields: dict[str, object], last: set[str]
) -> None:
    student, teacher, roi_kd = known(detector, **fields)
    names = {"objectness", "proposals", "classes", "boxes", *last}
    equal = roi_kd(teacher, teacher, [])
    assert set(equal) == names
    torch.testing.assert_close(total(equal), torch.tensor(0.0), atol=1e-5, rtol=0)
    losses = roi_kd(student, teacher, [])
    assert all(loss.item() > 0 for loss in losses.values())
    total(losses).backward()
    assert [
        name for name, each in student.detector.named_parameters() if each.requires_grad and each.grad is None
    ] == []


def test_where_the_teacher_finds_nothing_there_is_no_mask_to_learn() -> None:
    student, teacher, roi_kd = known("maskrcnn")
    teacher.detector.core.roi_heads.score_thresh = 1.1
    losses = roi_kd(student, teacher, [])
    assert losses["masks"].item() == 0
    assert losses["classes"].item() > 0


def test_masks_are_of_a_quarter_of_the_proposals() -> None:
    """8 proposals an image, of which 2 at most may be objects; a random network finds that many in each of two."""
    student, teacher, roi_kd = known("maskrcnn")
    asked: list[int] = []
    student.detector.core.roi_heads.mask_head.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    roi_kd(student, teacher, [])
    assert asked == [2 * 2]


def test_a_student_on_its_own_grid_is_refused() -> None:
    own = spec(detector="maskrcnn", role="student", scales="single", ks=(2,))
    with pytest.raises(
        ValueError, match="method output-kd: maskrcnn learns predictions at RoIs on aligned grids alone"
    ):
        build_distillers(own, spec(detector="maskrcnn"), {"output-kd": 1.0})


def test_it_draws_no_random_numbers() -> None:
    """The student's own losses are those without it."""

    def own(method: str) -> list[Tensor]:
        _, _, module = pair(method, "maskrcnn")
        torch.manual_seed(1)
        losses = module.train()(views(), targets())
        return [loss for name, loss in losses.items() if name.startswith("student/")]

    torch.testing.assert_close(own("output-kd"), own("l1"), rtol=0, atol=0)
