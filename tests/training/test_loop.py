"""The loop, the schedule, the optimiser's groups, the choices of defaults."""

import math
from dataclasses import dataclass

import pytest
import torch
from support.specs import spec
from torch import Tensor, nn

from msad_cli.data.loading.dataset import Batch, Sample
from msad_cli.distillation.aligned_teacher import AlignedTraining
from msad_cli.errors import DeviceError, UsageError
from msad_cli.models.backbones.normalisation import FrozenNorm
from msad_cli.models.detector import Detector
from msad_cli.system.device import Compute, choose_device, choose_precision, is_out_of_memory
from msad_cli.training.config import TeacherConfig
from msad_cli.training.observer import Speed
from msad_cli.training.plan import choose
from msad_cli.training.steps.loop import Step, train, written
from msad_cli.training.steps.optimiser import sgd
from msad_cli.training.steps.schedule import Schedule

CPU = Compute(torch.device("cpu"), "fp32")
CONSTANT = Schedule(1.0, 1000, 0, "steps")
"""Rate 1 for the first 666 steps."""


@dataclass
class Numbers:
    """A batch of one-pixel images."""

    values: list[float]

    @property
    def views(self) -> dict[int, list[Tensor]]:
        return {1: [torch.tensor(value) for value in self.values]}

    @property
    def targets(self) -> list[dict[str, Tensor]]:
        return [{} for _ in self.values]

    @property
    def indices(self) -> range:
        return range(len(self.values))

    @property
    def unreadable(self) -> dict[int, str]:
        return {} if self.values else {7: "torn"}


class Line(nn.Module):
    """Loss = weight × mean of the batch; its gradient is that mean."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, views: dict[int, list[Tensor]], _targets: object) -> dict[str, Tensor]:
        return {"line/mean": self.weight * torch.stack(views[1]).mean()}


def test_published_schedule() -> None:
    """Linear warm-up of 500 steps to 0.01, divided by ten at 60k and 80k of 90k steps (detectron2's 1× schedule)."""
    schedule = Schedule(0.01, 90_000, 500, "steps")
    assert schedule.at(0) == pytest.approx(0.01 / 500)
    assert schedule.at(499) == 0.01
    assert schedule.at(59_999) == 0.01
    assert schedule.at(60_000) == pytest.approx(0.001)
    assert schedule.at(80_000) == pytest.approx(0.0001)


def test_cosine_schedule() -> None:
    schedule = Schedule(2.0, 100, 0, "cosine")
    # (1 + cos(π·t)) at t = 0, 1/2 and 3/4
    assert [schedule.at(step) for step in (0, 50, 75)] == pytest.approx([2.0, 1.0, 1 - 2**-0.5])


def test_rtmdets_schedule() -> None:
    """Warm-up, flat to the half, then a cosine to 1/20: base_lr, begin and eta_min of its published configuration."""
    schedule = Schedule(4.0, 100, 10, "flat-cosine")
    assert [schedule.at(step) for step in (4, 10, 50)] == pytest.approx([2.0, 4.0, 4.0])
    # 0.2 + (4 − 0.2)·(1 + cos(π·t)) / 2 at t = 1/2 and nearly 1
    assert schedule.at(75) == pytest.approx(2.1)
    assert schedule.at(99) == pytest.approx(0.2, abs=0.004)


def test_a_schedule_that_restarts() -> None:
    """60 steps and then 30, each with its warm-up of 3 and its divisions at 2/3 and 8/9."""
    schedule = Schedule(9.0, 90, 3, "steps", restart=60)
    first, second = Schedule(9.0, 60, 3, "steps"), Schedule(9.0, 30, 3, "steps")
    assert [schedule.at(step) for step in range(90)] == [first.at(step) for step in range(60)] + [
        second.at(step) for step in range(30)
    ]


def test_norms_and_biases_do_not_decay() -> None:
    detector = Detector(spec())
    decaying, free = sgd(detector, 0.1).param_groups
    assert decaying["weight_decay"] == 1e-4
    assert free["weight_decay"] == 0.0
    assert {each.ndim for each in decaying["params"]} == {2, 4}  # C-FF's and all convolutions' weights
    assert {each.ndim for each in free["params"]} == {1}
    trainable = sum(each.requires_grad for each in detector.parameters())
    assert len(decaying["params"]) + len(free["params"]) == trainable


def test_a_students_unreachable_level_is_frozen() -> None:
    frozen = [
        name for name, each in Detector(spec(role="student", ks=(2,))).named_parameters() if not each.requires_grad
    ]
    assert frozen == ["core.backbone.fpn.extra_blocks.p7.weight", "core.backbone.fpn.extra_blocks.p7.bias"]


def test_steps_by_hand() -> None:
    """Rate 0.5, momentum 0.9: w = 1 − 0.5·2 = 0, then w = 0 − 0.5·(0.9·2 + 4) = −2.9."""
    line = Line()
    optimiser = sgd(line, 0.5)
    steps = train(line, [Numbers([1.0, 3.0]), Numbers([4.0])], optimiser, Schedule(0.5, 2, 0, "cosine"), CPU, clip=100)
    first = next(steps)
    assert (first.number, first.losses, first.gradient_norm, first.indices) == (1, {"line/mean": 2.0}, 2.0, (0, 1))
    assert line.weight.item() == 0.0
    second = next(steps)
    # The cosine has halved the rate by the second of two steps: 0 − 0.25·5.8 = −1.45.
    assert second.learning_rate == pytest.approx(0.25)
    assert line.weight.item() == pytest.approx(-1.45)


def test_gradients_are_clipped_to_their_norm() -> None:
    line = Line()
    (step,) = train(line, [Numbers([40.0])], sgd(line, 1.0), Schedule(1.0, 9, 0, "steps"), CPU, clip=0.25)
    assert step.gradient_norm == 40.0
    assert line.weight.item() == pytest.approx(1 - 0.25, abs=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_changes_nothing(value: float) -> None:
    line = Line()
    steps = list(train(line, [Numbers([value]), Numbers([1.0])], sgd(line, 0.5), Schedule(0.5, 9, 0, "steps"), CPU))
    assert [step.updated for step in steps] == [False, True]
    assert line.weight.item() == 0.5


class Counting(Line):
    """Counts its forward passes in a buffer, and has no memory for more than `room` images."""

    count: Tensor

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.register_buffer("count", torch.zeros(()))

    def forward(self, views: dict[int, list[Tensor]], targets: object) -> dict[str, Tensor]:
        self.count += 1
        losses = super().forward(views, targets)
        if len(views[1]) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return losses


def test_a_batch_too_large_for_memory_is_split_and_its_gradients_are_added() -> None:
    """Rate 1, values 1, 2, 6: in parts of two and one, the gradient is 2/3·1.5 + 1/3·6 = 3, the mean, as unsplit."""
    line = Counting(room=2)
    batches = [Numbers([1.0, 2.0, 6.0]), Numbers([1.0, 2.0, 6.0])]
    steps = list(train(line, batches, sgd(line, 1.0, momentum=0.0, weight_decay=0.0), CONSTANT, CPU, clip=100))
    assert [(step.parts, step.gradient_norm) for step in steps] == [(2, 3.0), (2, 3.0)]
    assert steps[0].losses == {"line/mean": 3.0}
    assert line.weight.item() == 1 - 3 - 3
    assert line.count == 2  # one a step, as without a split


def test_memory_for_not_even_one_image() -> None:
    line = Counting(room=0)
    with pytest.raises(DeviceError, match="out of memory on cpu with a single image"):
        list(train(line, [Numbers([1.0, 2.0, 6.0])], sgd(line, 1.0), CONSTANT, CPU))
    assert (line.weight.item(), line.count.item()) == (1.0, 0)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (KeyError("out of memory"), False),
    ],
)
def test_what_is_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_buffers_do_not_remember_a_skipped_step() -> None:
    """Batch statistics of a batch with NaN would stay NaN for ever."""
    line = Counting(room=9)
    list(train(line, [Numbers([1.0]), Numbers([float("nan")]), Numbers([1.0])], sgd(line, 0.1), CONSTANT, CPU))
    assert line.count == 2


def test_frozen_statistics_are_not_copied_each_step() -> None:
    """What a step may write to is: batch statistics and counters."""
    module = nn.Sequential(FrozenNorm(2), nn.BatchNorm2d(2), Counting(room=9))
    assert [id(each) for each in written(module)] == [id(each) for each in (*module[1].buffers(), module[2].count)]


def test_a_batch_without_a_readable_image_changes_nothing() -> None:
    line = Line()
    (step,) = train(line, [Numbers([])], sgd(line, 1.0), CONSTANT, CPU)
    assert (step.updated, step.losses, step.indices, step.unreadable) == (False, {}, (), {7: "torn"})
    assert line.weight.item() == 1.0


def test_the_teacher_overfits_one_batch() -> None:
    torch.manual_seed(0)
    module = AlignedTraining(Detector(spec()))
    high = [torch.randint(0, 256, (3, 128, 128), dtype=torch.uint8)]

    views = {1: high, 2: [high[0][:, ::2, ::2]]}
    target = {"boxes": torch.tensor([[20.0, 20.0, 90.0, 100.0]]), "labels": torch.tensor([1])}
    batch = Batch((Sample(0, (128, 128), (128, 128), {k: of[0] for k, of in views.items()}, target),))
    steps = list(train(module, [batch] * 25, sgd(module, 0.02), Schedule(0.02, 25, 5, "cosine"), CPU))
    first, last = (sum(step.losses.values()) for step in (steps[0], steps[-1]))
    # Centreness has a floor, its entropy; classification and regression have none.
    assert last < 0.6 * first


def test_a_run_that_waits_for_data_is_advised_after_50_steps_and_after_epochs() -> None:
    """0.25 s of a second are spent waiting, from step 100 on 0.75: after 120 steps 0.33 on average, after 110 0.29."""
    speed = Speed(total=500, steps_per_epoch=30)
    said = {}
    for number in range(1, 151):
        waited = 0.25 if number <= 100 else 0.75
        speed.add(Step(number, {}, 0.1, 1.0, (0,), {}, 1.0, waited, True, 1))
        if advice := speed.advice(number):
            said[number] = advice
    assert list(said) == [120, 150]
    assert len(set(said.values())) == 1
    assert "--cache ram" in said[120]
    hasty = Speed(total=500, steps_per_epoch=30)
    for number in range(1, 51):
        hasty.add(Step(number, {}, 0.1, 1.0, (0,), {}, 1.0, 0.5, True, 1))
        assert bool(hasty.advice(number)) is (number == 50)  # the first epochs are too short to tell


def test_computed_defaults() -> None:
    """Without a GPU: 12,000 images in all, but no fewer than COCO's 12 epochs. Rates are the published ones for a batch
    of 16, four times as large for a narrow network from scratch, but not RetinaNet's, whose head has no norms."""
    nothing_typed = TeacherConfig(device="cpu", precision="fp32")
    choices = choose(nothing_typed, 117_266, "fcos")
    assert choices.epochs == 12
    assert choices.batch == 8
    assert choices.schedule.learning_rate == pytest.approx(0.01 * 8 / 16)
    assert choices.steps_per_epoch == 117_266 // 8
    assert choose(nothing_typed, 292, "fcos").epochs == 42 == math.ceil(12_000 / 292)
    small = choose(nothing_typed, 3, "fcos")
    assert (small.batch, small.epochs) == (3, 150)

    def rate(detector: str, init: str, width: float, optimizer: str = "sgd") -> float:
        config = TeacherConfig(device="cpu", precision="fp32", optimizer=optimizer)
        return choose(config, 100, detector, init, width).schedule.learning_rate

    assert rate("fcos", "none", 0.5) == pytest.approx(0.02)
    assert rate("fcos", "none,teacher", 0.5) == pytest.approx(0.02)
    assert rate("retinanet", "none", 0.5) == rate("fcos", "none", 1.0) == rate("fcos", "teacher", 0.5) == 0.005
    assert rate("fcos", "none", 0.5, "adamw") == pytest.approx(0.001 * 8 / 16)
    assert choose(nothing_typed, 100, "maskrcnn").batch == 4
    with pytest.raises(UsageError, match="--optimizer lion"):
        choose(TeacherConfig(device="cpu", optimizer="lion"), 100, "fcos")


def test_devices_and_precisions_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="no such device"):
        choose_device("gpu")
    with pytest.raises(DeviceError, match="cannot use it"):
        choose_device("cuda:97")
    with pytest.raises(UsageError, match="only CUDA"):
        choose_precision("fp16", torch.device("cpu"))
    with pytest.raises(UsageError, match="unknown"):
        choose_precision("fp8", torch.device("cpu"))
