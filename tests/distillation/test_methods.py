"""What is learnt: the joint loss, the distillation, the baselines."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.specs import spec
from support.training import TARGETS, detectors, total, views
from torch import Tensor

from msad_cli.distillation.aligned_teacher import AlignedTraining
from msad_cli.distillation.baselines import UnshiftedTraining
from msad_cli.distillation.distillation import GAMMA, TAU, Distillation, Weighted, teaching
from msad_cli.distillation.knowledge import Knowledge
from msad_cli.distillation.losses.feature_l1 import FeatureL1
from msad_cli.distillation.losses.output_kd import OutputKD
from msad_cli.distillation.losses.table import build_distillers, suitable_methods
from msad_cli.distillation.two_step import TwoStepTraining
from msad_cli.errors import UsageError
from msad_cli.models.detector import Detector
from msad_cli.models.weights.initialise import copy_matching
from msad_cli.runs.folder import RunFolder, Setting
from msad_cli.system.device import Compute
from msad_cli.training.config import DistillConfig
from msad_cli.training.plan import Choices
from msad_cli.training.steps.schedule import Schedule
from msad_cli.training.students.plan_student import choose_methods, of_distillation, weights_so_far


def distillation(student: Detector, teacher: Detector, warmup_steps: int = 500, l1: float = 0.6) -> Distillation:
    """By L1 alone, γ·τ = 0.6."""
    distillers = build_distillers(student.spec, teacher.spec, {"l1": l1})
    return Distillation(student, teaching(teacher, student), distillers, warmup_steps)


def knowledge(pyramid: list[Tensor], **outputs: Tensor) -> Knowledge:
    """What a network that does not exist knows."""
    known = Knowledge(None, pyramid, None, {})  # type: ignore[arg-type]
    vars(known)["outputs"] = outputs
    return known


def without_gradient(detector: Detector) -> list[str]:
    return [name for name, each in detector.named_parameters() if each.requires_grad and each.grad is None]


def test_joint_loss_is_the_sum_of_its_views() -> None:
    teacher, _ = detectors()
    images = views()
    frame = teacher.frame(images[1], 1)
    high, low = teacher.pyramid(images[1], 1), teacher.pyramid(images[2], 2)
    parts = {
        "k1": (1.0, teacher.losses(high, frame, TARGETS)),
        "k2": (1.0, teacher.losses(low, frame, TARGETS)),
        "fused": (0.4, teacher.losses(teacher.fuse([high, low]), frame, TARGETS)),
    }
    found = AlignedTraining(teacher, 0.4)(images, TARGETS)
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
    total(distillation(student, teacher)(views(), TARGETS)).backward()
    assert without_gradient(student) == []
    assert all(each.grad is None and not each.requires_grad for each in teacher.parameters())


def test_l1_by_hand() -> None:
    # Level 1: |1 - 0| and |0 - 2| over two cells, mean 1.5; level 2: |3 - 4| over one, mean 1.
    student = [torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[3.0]]]])]
    teacher = [torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([[[[4.0]]]])]
    student, teacher = [*student, *[torch.zeros(1, 1, 1, 1)] * 3], [*teacher, *[torch.zeros(1, 1, 1, 1)] * 3]
    l1 = FeatureL1(spec(), spec())
    assert list(l1.parameters()) == []
    assert l1(knowledge(student), knowledge(teacher), [])["pyramid"].item() == 2.5
    assert l1(knowledge(student), knowledge(student), [])["pyramid"].item() == 0.0


def test_l1_adapts_channels_where_they_differ() -> None:
    """64 channels to 96 by a convolution that is all 1/64 with bias 1: maps of 3 become 4, which is 1 off from 5."""
    l1 = FeatureL1(spec(channels=64), spec(channels=96))
    with torch.no_grad():
        for each in l1.parameters():
            each.fill_(1 / 64 if each.ndim > 1 else 1.0)
    student = knowledge([torch.full((1, 64, 1, 1), 3.0)] * 5)
    teacher = knowledge([torch.full((1, 96, 1, 1), 5.0)] * 5)
    assert l1(student, teacher, [])["pyramid"].item() == pytest.approx(5.0)


def test_output_kd_by_hand() -> None:
    """One cell, one class. Logits 0 and 2·ln 3 at T = 2: probabilities 1/2 and 3/4."""
    student = knowledge(
        [],
        cls_logits=torch.zeros(1, 1, 1),
        bbox_regression=torch.tensor([[[1.0, 1.0, 2.0, 0.0]]]),
        bbox_ctrness=torch.zeros(1, 1, 1),
    )
    teacher = knowledge(
        [],
        cls_logits=torch.full((1, 1, 1), 2 * math.log(3)),
        bbox_regression=torch.ones(1, 1, 4),
        bbox_ctrness=torch.full((1, 1, 1), math.log(3)),
    )
    # KL(3/4 ‖ 1/2) = 3/4·ln(3/2) + 1/4·ln(1/2); the cell's weight σ(2·ln 3) = 9/10; Σw is less than 1, so that it is 1.
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    output_kd = OutputKD(spec(), spec())
    found = {name: loss.item() for name, loss in output_kd(student, teacher, []).items()}
    assert found == pytest.approx({"classes": 4 * kl, "boxes": 0.9 * 0.5, "centreness": 0.9 * kl}, rel=1e-5)
    assert total(output_kd(teacher, teacher, [])).item() == pytest.approx(0.0, abs=1e-7)


def test_output_kd_is_the_least_for_equal_outputs_of_real_networks() -> None:
    teacher, student = detectors()
    images = views()
    frame = teacher.frame(images[1], 1)
    mine, theirs = (Knowledge(each, each.pyramid(images[2], 2), frame, images) for each in (student, teacher))
    output_kd = OutputKD(student.spec, teacher.spec)
    assert total(output_kd(mine, theirs, [])).item() > 0
    torch.testing.assert_close(total(output_kd(theirs, theirs, [])), torch.tensor(0.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("detector", "method"),
    [("fcos", "output-kd"), ("retinanet", "output-kd"), ("maskrcnn", "l1")],
)
def test_dense_students_learn_from_outputs_and_others_from_maps(detector: Any, method: str) -> None:
    assert suitable_methods(spec(role="student", ks=(2,), detector=detector).dense) == (method,)


@pytest.mark.parametrize(("gamma", "tau"), [(0.1, 3.0), (0.2, 2.0)])
def test_gamma_and_tau_without_l1_are_refused(gamma: float, tau: float) -> None:
    student = spec(role="student", ks=(2,))
    with pytest.raises(UsageError, match="methods: output-kd"):
        choose_methods(student, DistillConfig(gamma=gamma, tau=tau))
    assert choose_methods(student, DistillConfig(method="pkd,l1", gamma=gamma, tau=tau))[0] == {
        "pkd": 10.0,
        "l1": gamma * tau,
    }
    assert set(choose_methods(student, DistillConfig())[0]) == {"output-kd"}  # the paper's are the flags' defaults


@pytest.mark.parametrize(
    ("detector", "weights"),
    [
        # open-mmlab/mmrazor, configs/distill/mmdet. cwd: 10 a level in cwd_fpn_frcnn_r101_frcnn_r50_1x_coco.py, base of
        # cwd_fpn_retina_r101_retina_r50_1x_coco.py (commit 5bf1eca). pkd: 10 in
        # pkd_fpn_retina_x101_retina_r50_2x_coco.py (2ce36c4), and 6 in
        # pkd_fpn_faster-rcnn_r101_faster-rcnn_r50_2x_coco.py (5ae9565).
        ("retinanet", {"cwd": 10.0, "pkd": 10.0}),
        ("fcos", {"cwd": 10.0, "pkd": 10.0}),
        ("maskrcnn", {"cwd": 10.0, "pkd": 6.0}),
    ],
)
def test_usual_weights_are_the_published_ones_of_the_kind_of_detector(detector: str, weights: dict[str, float]) -> None:
    student = spec(role="student", ks=(2,), detector=detector)
    assert choose_methods(student, DistillConfig(method="cwd,pkd"))[0] == weights
    # A weight that is typed is the weight, whatever is usual.
    assert choose_methods(student, DistillConfig(method="cwd,pkd", weight="pkd=2"))[0] == {**weights, "pkd": 2.0}


def test_a_run_that_goes_on_keeps_the_weights_that_it_has_recorded(tmp_path: Path) -> None:
    """cwd was 5 before it was 10; of such a run, the reason of the method says it."""
    student = spec(role="student", ks=(2,))
    out = tmp_path / "student.safetensors"
    config = DistillConfig(method="cwd,l1", out=out, resume=True)
    RunFolder(out).record({"method": Setting("cwd,l1", "flag", "cwd × 5, l1 × 0.6")})
    assert weights_so_far(config) == {"cwd": 5.0, "l1": 0.6}
    assert choose_methods(student, config, weights_so_far(config))[0] == {"cwd": 5.0, "l1": GAMMA * TAU}
    # What is recorded now is read in the same way.
    RunFolder(out).record({"method": choose_methods(student, replace(config, weight="cwd=1e-07"))[1]})
    assert weights_so_far(config) == {"cwd": 1e-7, "l1": 0.6}
    assert weights_so_far(replace(config, resume=False)) == {}


def test_distillation_warms_up_with_the_learning_rate_unless_typed() -> None:
    """1000 steps of 100 epochs, 100 of them of warm-up; of pixel, a quarter more before."""
    compute = Compute(torch.device("cpu"), "fp32")
    choices = Choices(
        compute=compute,
        batch=4,
        workers=0,
        epochs=100,
        optimizer="sgd",
        schedule=Schedule(0.01, 1000, 100, "steps"),
        eval_every=1,
        settings={},
    )
    assert of_distillation(choices, None, pixel=False).settings["distill_warmup"].value == 100
    assert of_distillation(choices, 7, pixel=False).settings["distill_warmup"] == Setting(7, "flag")
    tuned = of_distillation(choices, None, pixel=True)
    assert (tuned.settings["distill_warmup"].value, tuned.epochs) == (100, 125)
    assert (tuned.schedule.steps, tuned.schedule.restart) == (1250, 250)


def test_a_student_with_a_lighter_head_learns_by_both_and_its_adapters_are_not_its_own() -> None:
    teacher, _ = detectors()
    light = Detector(spec(role="student", ks=(2,), channels=96, head_convs=2))
    own = set(light.state_dict())
    module = Distillation(
        light, teaching(teacher, light), build_distillers(light.spec, teacher.spec, {"l1": 0.6, "output-kd": 1.0})
    )
    losses = module(views(), TARGETS)
    assert {"distil/l1/pyramid", "distil/output-kd/boxes"} < losses.keys()
    total(losses).backward()
    assert without_gradient(light) == []
    assert all(each.grad is not None for each in module.distillers.parameters())
    assert set(light.state_dict()) == own


def test_outputs_are_computed_once_and_change_no_loss() -> None:
    teacher, student = detectors()
    plain = Distillation(student, None, {})({2: views()[2]}, TARGETS)
    head = student.core.head.forward
    calls = []

    def counted(pyramid: list[Tensor]) -> dict[str, Tensor]:
        calls.append(1)
        outputs: dict[str, Tensor] = head(pyramid)
        return outputs

    student.core.head.forward = counted
    found = Distillation(
        student, teaching(teacher, student), {"output-kd": Weighted(OutputKD(student.spec, teacher.spec), 1.0)}
    )(views(), TARGETS)
    assert len(calls) == 1
    for name, loss in plain.items():
        torch.testing.assert_close(found[name], loss)


@pytest.mark.parametrize(
    ("name", "detector", "message"),
    [("l2", "fcos", "method 'l2': not one of l1, output-kd"), ("crosskd", "maskrcnn", "maskrcnn has no head")],
)
def test_methods_that_cannot_be(name: str, detector: str, message: str) -> None:
    own = SimpleNamespace(channels=64, levels=range(3, 8), detector=detector, dense=detector == "fcos")
    with pytest.raises(ValueError, match=message):
        build_distillers(own, own, {name: 1.0})  # type: ignore[arg-type]


def test_the_student_may_be_of_the_large_image_or_of_several_views() -> None:
    """Table 3b's last row, and table 7: what is imitated is the teacher's fused pyramid in either case."""
    teacher, _ = detectors()
    images = views()
    fused = teacher.fuse([teacher.pyramid(images[k], k) for k in (1, 2)])
    for ks in ((1,), (1, 2)):
        student = Detector(spec(role="student", ks=ks))
        own = [student.pyramid(images[k], k) for k in ks]
        pyramid = student.fuse(own) if len(ks) > 1 else own[0]
        frame = student.frame(images[1], 1)
        losses = distillation(student, teacher, warmup_steps=1)(images, TARGETS)
        mine, theirs = (Knowledge(student, each, frame, images) for each in (pyramid, fused))
        expected = FeatureL1(student.spec, teacher.spec)(mine, theirs, TARGETS)["pyramid"]
        torch.testing.assert_close(losses["distil/l1/pyramid"], 0.6 * expected)


def test_two_steps() -> None:
    """First L_Align, the fusion standing still; then L_fused, everything else standing still."""
    teacher, _ = detectors()
    module = TwoStepTraining(teacher, align_steps=1)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1, weight_decay=0.1)
    states = [{name: each.clone() for name, each in teacher.state_dict().items()}]
    keys = []
    for _ in range(2):
        module.train()
        optimiser.zero_grad()
        losses = module(views(), TARGETS)
        total(losses).backward()
        optimiser.step()
        keys.append({name.split("/")[0] for name in losses})
        states.append({name: each.clone() for name, each in teacher.state_dict().items()})
    assert keys == [{"k1", "k2"}, {"fused"}]
    changed = [
        {name.split(".")[0] for name, each in after.items() if not torch.equal(each, before[name])}
        for before, after in itertools.pairwise(states)
    ]
    assert changed == [{"core"}, {"fusion"}]
    assert "detector.fusion.squeeze.weight" in module.state_dict()  # each once: the step counts are all that is added
    assert len(module.state_dict()) == len(teacher.state_dict()) + 1


def test_distillation_weight_is_gamma_tau_after_a_linear_warmup() -> None:
    teacher, student = detectors()
    images = views()
    module = distillation(student, teacher, warmup_steps=4)
    with torch.no_grad():
        frame = teacher.frame(images[1], 1)
        fused = teacher.fuse([teacher.pyramid(images[k], k) for k in (1, 2)])
        mine, theirs = (Knowledge(student, each, frame, images) for each in (student.pyramid(images[2], 2), fused))
        full = 0.6 * FeatureL1(student.spec, teacher.spec)(mine, theirs, TARGETS)["pyramid"]
        found = torch.stack([module(images, TARGETS)["distil/l1/pyramid"] for _ in range(6)])
    torch.testing.assert_close(found / full, torch.tensor([0.25, 0.5, 0.75, 1.0, 1.0, 1.0]))


def test_warmup_survives_saving_and_the_teacher_is_not_saved() -> None:
    teacher, student = detectors()
    module = distillation(student, teacher)
    for _ in range(3):
        module(views(), TARGETS)
    state = module.state_dict()
    assert not any("teacher" in name for name in state)
    resumed = distillation(Detector(student.spec), teacher)
    resumed.load_state_dict(state)
    assert int(resumed.steps_done) == 3
    resumed(views(), TARGETS)
    assert int(resumed.steps_done) == 4


def test_teacher_stays_in_eval_mode_when_the_student_trains() -> None:
    teacher, student = detectors()
    distillation(student, teacher.train()).train()
    assert student.training
    assert not any(module.training for module in teacher.modules())


def test_without_a_teacher_there_is_no_distillation_and_no_need_of_large_pixels() -> None:
    _, student = detectors()
    losses = Distillation(student, None, {})({2: views()[2]}, TARGETS)
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
    images = views()
    boxes = [{**each, "boxes": each["boxes"] / k} for each in TARGETS]
    alone = Detector(replace(vanilla.spec, scales="single", ks=(1,)))
    alone.load_state_dict(vanilla.state_dict())
    expected = UnshiftedTraining(alone)({1: images[k]}, boxes)
    found = UnshiftedTraining(vanilla)(images, TARGETS)
    for name, loss in expected.items():
        torch.testing.assert_close(found[name.replace("k1", f"k{k}")], loss)


def test_vanilla_low_detections_are_in_hr_pixels() -> None:
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
    module = distillation(student, teacher, warmup_steps=1)
    exact = module(views(), TARGETS)
    with torch.autocast("cpu", torch.bfloat16):
        half = module(views(), TARGETS)
    for name, loss in exact.items():
        # bf16 has 8 bits of mantissa; some thirty layers add up to about a percent.
        torch.testing.assert_close(half[name], loss, rtol=0.03, atol=0.01)


@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_the_detection_loss_is_weighed_by_itself(weight: float) -> None:
    teacher, student = detectors()
    distillers = build_distillers(student.spec, teacher.spec, {"output-kd": 1.0})
    usual, weighed = (
        Distillation(student, teaching(teacher, student), distillers, 1, detection_weight=each)(views(), TARGETS)
        for each in (1.0, weight)
    )
    assert usual.keys() == weighed.keys()
    for name, loss in usual.items():
        before, after = loss.item(), weighed[name].item()
        assert before > 0
        assert after == pytest.approx(before * (weight if name.startswith("student/") else 1.0))
