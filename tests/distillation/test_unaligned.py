"""Students that are not aligned: ordinary small networks, and teachers whose knowledge is brought to their grid."""

import pytest
import torch
import torch.nn.functional as F
from support.dots import CENTRE, SIDE, centroid, dot, strided
from support.specs import spec
from support.training import TARGETS, detectors, total, views
from support.unaligned import odd_views, unaligned
from torch import Tensor

from msad_cli.data.images.scaled import whole_image
from msad_cli.data.loading.transforms import render
from msad_cli.distillation.baselines import UnshiftedTraining
from msad_cli.distillation.distillation import Distillation, teaching
from msad_cli.distillation.knowledge import best_view, student_view
from msad_cli.distillation.losses.table import build_distillers
from msad_cli.distillation.parts.coarser import coarser
from msad_cli.distillation.unaligned import unaligned_teacher
from msad_cli.frame import Phase
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
def test_an_unaligned_teacher_has_the_students_grids_and_its_maps_are_means_around_every_second_cell() -> None:
    teacher, _ = detectors()
    images = odd_views()
    student, _ = student_view(unaligned(), images, TARGETS)
    smaller = unaligned_teacher(teacher.eval(), 2)(images)
    assert [each.shape for each in smaller.pyramid] == [each.shape for each in student.pyramid]
    assert smaller.frame == student.frame
    for name in ("cls_logits", "bbox_ctrness"):
        assert smaller.outputs[name].shape == student.outputs[name].shape
    # Weights of ¼, ½, ¼ around every second cell, across and down.
    whole = best_view(teacher, images, 256)
    weights = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
    for mine, fine in zip(smaller.pyramid[:3], whole.pyramid, strict=False):
        expected = (fine[:, :, 1:4, 3:6] * weights).sum(dim=(2, 3))  # around the cell in row 2 and column 4
        torch.testing.assert_close(mine[:, :, 1, 2], expected, atol=1e-5, rtol=1e-4)
    # Outputs are rows of cells, those of P3 first: 32 in a row of the small grid, one anchor a cell.
    fine = whole.outputs["cls_logits"].unflatten(1, (-1, 1))[:, : 32 * 64, 0].reshape(2, 32, 64, -1)
    expected = (fine[:, 1:4, 3:6] * weights[..., None]).sum(dim=(1, 2))
    torch.testing.assert_close(smaller.outputs["cls_logits"][:, 32 + 2], expected)
    # Beyond the edge the first cells are repeated: of the top left one, 9/16, 3/16, 3/16, 1/16.
    corner = torch.tensor([[9.0, 3.0], [3.0, 1.0]])[..., None] / 16
    torch.testing.assert_close(smaller.outputs["cls_logits"][:, 0], (fine[:, :2, :2] * corner).sum(dim=(1, 2)))


@pytest.mark.parametrize(("k", "shifted", "before"), [(2, -0.25, -0.219), (4, -0.375, -0.328)])
def test_a_coarser_map_stays_where_the_students_own_is(k: int, shifted: float, before: float) -> None:
    """A dot, seen by a symmetric network in the large and the small image: P3 of both.

    An ordinary resize of the maps moves it by (k − 1) / 2 of the finer cells, which are k a cell. Where the small image
    was resized in an ordinary way too, (k − 1) / 2 HR pixels of 8 · k a cell come back of that.
    """

    def seen(view: int, phase: Phase = "grid") -> Tensor:
        return strided(render(whole_image(dot()), (SIDE, SIDE), view, phase=phase).float()[None], 3)

    own, fine = centroid(seen(k)), seen(1)
    assert own == pytest.approx([each / (8 * k) for each in CENTRE], abs=0.01)
    assert centroid(coarser(fine, k)) == pytest.approx(own, abs=0.005)
    resized = F.interpolate(fine, scale_factor=1 / k, mode="bilinear", align_corners=False)
    assert [a - b for a, b in zip(centroid(resized), own, strict=True)] == pytest.approx([shifted] * 2, abs=0.005)
    ordinary = centroid(seen(k, "centre"))
    assert [a - b for a, b in zip(centroid(resized), ordinary, strict=True)] == pytest.approx([before] * 2, abs=0.005)


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
