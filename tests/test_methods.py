"""What is learnt: the joint loss, the distillation, the baselines."""

from dataclasses import replace

import pytest
import torch
from test_models import spec, target
from torch import Tensor

from msad_cli.methods.aligned import AlignedTraining
from msad_cli.methods.distillation import Distillation
from msad_cli.methods.distillers.feature_l1 import feature_l1
from msad_cli.methods.unshifted import UnshiftedTraining
from msad_cli.models.detector import Detector
from msad_cli.models.init import copy_matching

TARGETS = [target([10.0, 20.0, 60.0, 90.0]), target([5.0, 5.0, 25.0, 25.0], [40.0, 40.0, 120.0, 120.0])]


def views() -> dict[int, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    high = [torch.randint(0, 256, (3, 128, 128), generator=generator, dtype=torch.uint8) for _ in range(2)]
    return {1: high, 2: [image[:, ::2, ::2].contiguous() for image in high]}


def detectors() -> tuple[Detector, Detector]:
    torch.manual_seed(0)
    return Detector(spec()), Detector(spec(role="student", ks=(2,)))


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def without_gradient(detector: Detector) -> list[str]:
    return [name for name, each in detector.named_parameters() if each.requires_grad and each.grad is None]


def test_joint_loss_is_the_sum_of_its_views() -> None:
    teacher, _ = detectors()
    pictures = views()
    frame = teacher.frame(pictures[1], 1)
    high, low = teacher.pyramid(pictures[1], 1), teacher.pyramid(pictures[2], 2)
    parts = {
        "k1": (1.0, teacher.losses(high, frame, TARGETS)),
        "k2": (1.0, teacher.losses(low, frame, TARGETS)),
        "fused": (0.4, teacher.losses(teacher.fuse([high, low]), frame, TARGETS)),
    }
    found = AlignedTraining(teacher, 0.4)(pictures, TARGETS)
    expected = {f"{view}/{name}": w * loss for view, (w, losses) in parts.items() for name, loss in losses.items()}
    assert found.keys() == expected.keys()
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss)


def test_every_trainable_parameter_of_the_teacher_gets_a_gradient() -> None:
    teacher, _ = detectors()
    total(AlignedTraining(teacher)(views(), TARGETS)).backward()
    assert without_gradient(teacher) == []


def test_every_trainable_parameter_of_the_student_gets_a_gradient_and_none_of_the_teacher() -> None:
    teacher, student = detectors()
    total(Distillation(student, teacher)(views(), TARGETS)).backward()
    assert without_gradient(student) == []
    assert all(each.grad is None and not each.requires_grad for each in teacher.parameters())


def test_l1_by_hand() -> None:
    # Level 1: |1 - 0| and |0 - 2| over two cells, mean 1.5; level 2: |3 - 4| over one, mean 1.
    student = [torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[3.0]]]])]
    teacher = [torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([[[[4.0]]]])]
    assert feature_l1(student, teacher).item() == 2.5
    assert feature_l1(student, student).item() == 0.0


def test_distillation_weight_is_gamma_tau_after_a_linear_warmup() -> None:
    teacher, student = detectors()
    pictures = views()
    module = Distillation(student, teacher, gamma=0.2, tau=3.0, warmup_steps=4)
    with torch.no_grad():
        fused = teacher.fuse([teacher.pyramid(pictures[k], k) for k in (1, 2)])
        full = 0.6 * feature_l1(student.pyramid(pictures[2], 2), fused)  # γ·τ = 0.6
        found = torch.stack([module(pictures, TARGETS)["distil/l1"] for _ in range(6)])
    torch.testing.assert_close(found / full, torch.tensor([0.25, 0.5, 0.75, 1.0, 1.0, 1.0]))


def test_warmup_survives_saving_and_the_teacher_is_not_saved() -> None:
    teacher, student = detectors()
    module = Distillation(student, teacher, warmup_steps=500)
    for _ in range(3):
        module(views(), TARGETS)
    state = module.state_dict()
    assert not any("teacher" in name for name in state)
    resumed = Distillation(Detector(student.spec), teacher)
    resumed.load_state_dict(state)
    assert int(resumed.steps_done) == 3
    resumed(views(), TARGETS)
    assert int(resumed.steps_done) == 4


def test_teacher_stays_in_eval_mode_when_the_student_trains() -> None:
    teacher, student = detectors()
    Distillation(student, teacher.train()).train()
    assert student.training
    assert not any(module.training for module in teacher.modules())


def test_without_a_teacher_there_is_no_distillation_and_no_need_of_large_pixels() -> None:
    _, student = detectors()
    losses = Distillation(student, None)({2: views()[2]}, TARGETS)
    assert {name.split("/")[0] for name in losses} == {"student"}


def test_student_takes_over_everything_it_shares_with_its_teacher() -> None:
    teacher, student = detectors()
    copied = copy_matching(student, teacher.state_dict())
    assert copied.tensors == copied.of
    with torch.no_grad():
        low = views()[2]
        for mine, theirs in zip(student.pyramid(low, 2), teacher.pyramid(low, 2), strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("k", [1, 2])
def test_vanilla_views_are_ordinary_images_of_their_own(k: int) -> None:
    torch.manual_seed(0)
    vanilla = Detector(spec(role="baseline", scales="vanilla"))
    pictures = views()
    boxes = [{**each, "boxes": each["boxes"] / k} for each in TARGETS]
    alone = Detector(replace(vanilla.spec, scales="single", ks=(1,)))
    alone.load_state_dict(vanilla.state_dict())
    expected = UnshiftedTraining(alone)({1: pictures[k]}, boxes)
    found = UnshiftedTraining(vanilla)(pictures, TARGETS)
    for name, loss in expected.items():
        torch.testing.assert_close(found[name.replace("k1", f"k{k}")], loss)


def test_vanilla_low_detections_are_answered_in_hr_pixels() -> None:
    torch.manual_seed(0)
    vanilla = Detector(spec(role="baseline", scales="vanilla")).eval()
    low = views()[2]
    with torch.no_grad():
        found = vanilla.detect({2: low}, "low")
        small = vanilla.detect({1: low}, "high")
    assert len(found[0]["boxes"]) > 0
    torch.testing.assert_close(found[0]["boxes"], small[0]["boxes"] * 2)


def test_a_batch_without_boxes_trains() -> None:
    teacher, _ = detectors()
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    loss = total(AlignedTraining(teacher)(views(), [empty, empty]))
    loss.backward()
    assert torch.isfinite(loss)


def test_bf16_and_fp32_agree() -> None:
    teacher, student = detectors()
    module = Distillation(student, teacher, warmup_steps=1)
    exact = module(views(), TARGETS)
    with torch.autocast("cpu", torch.bfloat16):
        half = module(views(), TARGETS)
    for name, loss in exact.items():
        # bf16 has 8 bits of mantissa; some thirty layers add up to about a percent.
        torch.testing.assert_close(half[name], loss, rtol=0.03, atol=0.01)
