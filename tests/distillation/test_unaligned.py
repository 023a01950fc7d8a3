"""Students that are not aligned: ordinary small networks, and teachers whose knowledge is brought to their grid."""

import pytest
import torch
from support.specs import spec
from support.training import TARGETS, detectors, total, views
from support.unaligned import odd_views, unaligned

from msad_cli.distillation.baselines import UnshiftedTraining
from msad_cli.distillation.distillation import Distillation, teaching
from msad_cli.distillation.knowledge import best_view, student_view
from msad_cli.distillation.losses.table import build_distillers
from msad_cli.distillation.unaligned import unaligned_teacher
from msad_cli.models.detector import Detector


def test_a_student_that_is_not_aligned_trains_as_the_single_scale_baseline_does() -> None:
    student = unaligned()
    images = views()
    expected = UnshiftedTraining(student)(images, TARGETS)
    found = Distillation(student, None, {})({2: images[2]}, TARGETS)
    assert {name.removeprefix("student/") for name in found} == {name.removeprefix("k2/") for name in expected}
    for name, loss in expected.items():
        torch.testing.assert_close(found[name.replace("k2/", "student/")], loss)


@torch.no_grad()
def test_an_unaligned_teacher_has_the_students_grids_and_its_maps_are_means_of_two_by_two_cells() -> None:
    teacher, _ = detectors()
    images = odd_views()
    student, _ = student_view(unaligned(), images, TARGETS)
    coarser = unaligned_teacher(teacher.eval(), 2)(images)
    assert [each.shape for each in coarser.pyramid] == [each.shape for each in student.pyramid]
    assert coarser.frame == student.frame
    for name in ("cls_logits", "bbox_ctrness"):
        assert coarser.outputs[name].shape == student.outputs[name].shape
    # At half the size, bilinear interpolation takes the middle between 2 × 2 cells.
    whole = best_view(teacher, images, 256)
    for mine, fine in zip(coarser.pyramid, whole.pyramid, strict=True):
        torch.testing.assert_close(mine, torch.nn.functional.avg_pool2d(fine, 2), atol=1e-5, rtol=1e-4)
    # The first outputs are those of the top left cell of P3: the mean over its four, one anchor a cell.
    fine = whole.outputs["cls_logits"].unflatten(1, (-1, 1))[:, : 32 * 64, 0].reshape(2, 32, 64, -1)
    torch.testing.assert_close(coarser.outputs["cls_logits"][:, 0], fine[:, :2, :2].mean(dim=(1, 2)))
    second_row = coarser.outputs["cls_logits"][:, 32]
    torch.testing.assert_close(second_row, fine[:, 2:4, :2].mean(dim=(1, 2)))


@torch.no_grad()
def test_a_single_scale_teacher_predicts_from_its_large_image() -> None:
    torch.manual_seed(0)
    teacher = Detector(spec(role="baseline", scales="vanilla")).eval()
    images = views()
    known = best_view(teacher, images)
    for mine, expected in zip(known.pyramid, teacher.pyramid(images[1], 1), strict=True):
        assert torch.equal(mine, expected)


@pytest.mark.parametrize("method", ["l1", "output-kd"])
def test_it_learns_from_its_teacher(method: str) -> None:
    teacher, _ = detectors()
    student = unaligned()
    module = Distillation(
        student, teaching(teacher, student), build_distillers(student.spec, teacher.spec, {method: 1.0}), 1
    )
    images = odd_views()
    losses = module(images, TARGETS)
    # Boxes of levels of one name are of different sizes: nothing to compare.
    assert "distil/output-kd/boxes" not in losses
    distil = total({name: loss for name, loss in losses.items() if name.startswith("distil/")})
    assert distil.item() > 0
    distil.backward()
    reached = [each for each in student.core.backbone.parameters() if each.requires_grad and each.grad is not None]
    assert len(reached) > 50
    assert all(each.grad is None for each in teacher.parameters())
