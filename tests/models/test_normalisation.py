"""Normalisation: statistics by view, where they come from and go to, and what synchronises them."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.ops import FrozenBatchNorm2d

from msad_cli.errors import DeviceError
from msad_cli.models.backbones.normalisation import (
    BatchNorm,
    FrozenNorm,
    ViewNorm,
    norm_layer,
    of_view,
    select_view,
    stock_name,
    synchronised,
)
from msad_cli.models.detector import Detector
from msad_cli.models.spec import DetectorSpec, Norm
from msad_cli.models.weights.initialise import copy_matching, from_file


def used(spec: DetectorSpec) -> Detector:
    """A detector whose batch statistics have seen images: bright large ones, dark small ones."""
    torch.manual_seed(0)
    detector = Detector(spec).train()
    with torch.no_grad():
        for weight in detector.core.backbone.body.parameters():
            weight.add_(torch.randn_like(weight) / 50)
        for k in spec.ks:
            for _ in range(3):
                detector.pyramid(images(k), k)
    return detector.eval()


def images(k: int) -> list[Tensor]:
    return [torch.randint(0, 256 // k, (3, 128 // k, 128 // k), dtype=torch.uint8) for _ in range(2)]


@pytest.fixture
def batch_teacher(teacher_spec: DetectorSpec) -> Detector:
    return used(replace(teacher_spec, norm="batch"))


def test_a_view_updates_and_uses_its_own_statistics() -> None:
    torch.manual_seed(0)
    layer = norm_layer("batch", (1, 2))(3)
    assert isinstance(layer, ViewNorm)
    x = torch.randn(4, 3, 5, 5) * 3 + 2
    select_view(layer, 2)
    layer(x)
    # Momentum 0.1 from a start of 0 and 1; the variance without bias.
    own = layer.get_submodule("k2")
    torch.testing.assert_close(own.get_buffer("running_mean"), 0.1 * x.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(own.get_buffer("running_var"), 0.9 + 0.1 * x.var(dim=(0, 2, 3)))
    assert torch.equal(layer.get_submodule("k1").get_buffer("running_mean"), torch.zeros(3))
    layer.eval()
    mean, variance = own.get_buffer("running_mean"), own.get_buffer("running_var")
    expected = (x - mean[:, None, None]) / (variance + 1e-5).sqrt()[:, None, None]
    torch.testing.assert_close(layer(x), expected)
    select_view(layer, 1)
    torch.testing.assert_close(layer(x), x / (1 + 1e-5) ** 0.5)


def test_a_view_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="has no statistics of the view downsampled by 4"):
        select_view(nn.Sequential(norm_layer("batch", (1, 2))(3)), 4)


@torch.no_grad()
def test_order_of_views_does_not_matter(batch_teacher: Detector) -> None:
    """What ran before leaves no trace in evaluation."""
    high, low = images(1), images(2)
    first = [batch_teacher.pyramid(high, 1), batch_teacher.pyramid(low, 2)]
    second = [batch_teacher.pyramid(low, 2), batch_teacher.pyramid(high, 1)][::-1]
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_a_student_has_the_features_of_its_teachers_low_view(batch_teacher: Detector, norm: Norm) -> None:
    """A frozen student of a teacher with batch statistics starts from those of its own view."""
    student = Detector(replace(batch_teacher.spec, role="student", ks=(2,), norm=norm)).eval()
    copied = copy_matching(student, of_view(batch_teacher.state_dict(), 2))
    assert copied.left == ()
    low = images(2)
    for mine, teachers in zip(student.pyramid(low, 2), batch_teacher.pyramid(low, 2), strict=True):
        torch.testing.assert_close(mine, teachers)
    wrong = Detector(student.spec).eval()
    copy_matching(wrong, of_view(batch_teacher.state_dict(), 1))
    assert not torch.allclose(wrong.pyramid(low, 2)[0], student.pyramid(low, 2)[0], atol=1e-3)


@torch.no_grad()
def test_a_file_of_a_teacher_starts_its_student_and_the_other_way_round(
    batch_teacher: Detector, tmp_path: Path
) -> None:
    torch.save(batch_teacher.state_dict(), tmp_path / "teacher.pth")
    student = Detector(replace(batch_teacher.spec, role="student", ks=(2,))).eval()
    assert from_file(student, tmp_path / "teacher.pth").left == ()
    low = images(2)
    for mine, teachers in zip(student.pyramid(low, 2), batch_teacher.pyramid(low, 2), strict=True):
        torch.testing.assert_close(mine, teachers)
    torch.save(student.state_dict(), tmp_path / "student.pth")
    teacher = Detector(batch_teacher.spec).eval()
    assert all(name.startswith("fusion.") for name in from_file(teacher, tmp_path / "student.pth").left)
    for mine, students in zip(teacher.pyramid(low, 2), student.pyramid(low, 2), strict=True):
        torch.testing.assert_close(mine, students)


@torch.no_grad()
def test_frozen_and_group_students_need_no_view(teacher_spec: DetectorSpec) -> None:
    norms: tuple[Norm, ...] = ("frozen", "group")
    for norm in norms:
        teacher = used(replace(teacher_spec, norm=norm))
        student = Detector(replace(teacher.spec, role="student", ks=(2,))).eval()
        assert copy_matching(student, of_view(teacher.state_dict(), 2)).left == ()
        low = images(2)
        for mine, teachers in zip(student.pyramid(low, 2), teacher.pyramid(low, 2), strict=True):
            assert torch.equal(mine, teachers)


def test_stock_weights_go_to_every_view(teacher_spec: DetectorSpec) -> None:
    torch.manual_seed(0)
    published = get_model("resnet18", weights=None).state_dict()
    published = {name: torch.rand_like(each) if each.is_floating_point() else each for name, each in published.items()}
    backbone = Detector(replace(teacher_spec, norm="batch", width=1.0, ks=(1, 2, 4))).core.backbone.body
    copied = copy_matching(backbone, published)
    assert copied.left == ()
    own = backbone.state_dict()
    for name in own:
        assert torch.equal(own[name], published[stock_name(name)])
    assert {f"bn1.k{k}.running_var" for k in (1, 2, 4)} <= set(own)
    # Two tensors, not one under two names: files and updates are the views' own.
    assert own["bn1.k1.weight"].data_ptr() != own["bn1.k2.weight"].data_ptr()


def test_names_of_a_model_of_one_view_are_torchvisions(teacher_spec: DetectorSpec) -> None:
    for changes in ({"role": "student", "ks": (2,)}, {"role": "baseline", "scales": "vanilla"}):
        spec = replace(teacher_spec, norm="batch", **changes)
        assert "core.backbone.body.bn1.running_mean" in Detector(spec).state_dict()


def test_view_names_are_recognised_and_nothing_else() -> None:
    tensor = torch.zeros(1)
    names = ["bn1.k1.weight", "bn1.k2.weight", "bn1.k16.bias", "layer.k2.inner.weight", "k2.weight", "fc.weight"]
    assert [stock_name(name) for name in names] == ["bn1.weight", "bn1.weight", "bn1.bias", *names[3:]]
    assert set(of_view(dict.fromkeys(names, tensor), 2)) == {"bn1.weight", *names[3:]}


@torch.no_grad()
def test_a_copy_of_a_model_selects_its_own_view(batch_teacher: Detector) -> None:
    """Averaged weights are a deep copy."""
    other = copy.deepcopy(batch_teacher)
    low = images(2)
    expected = batch_teacher.pyramid(low, 2)
    batch_teacher.pyramid(images(1), 1)
    assert all(torch.equal(a, b) for a, b in zip(other.pyramid(low, 2), expected, strict=True))


def test_gradients_reach_the_view_that_ran(teacher_spec: DetectorSpec) -> None:
    detector = Detector(replace(teacher_spec, norm="batch")).train()
    sum(level.sum() for level in detector.pyramid(images(2), 2)).backward()  # type: ignore[union-attr]
    first = detector.core.backbone.body.bn1
    assert first.k1.weight.grad is None
    assert first.k2.weight.grad is not None


def test_synchronised_layers_keep_names_values_and_views(batch_teacher: Detector) -> None:
    before = {name: each.clone() for name, each in batch_teacher.state_dict().items()}
    # The layers can be exchanged anywhere; run they can on GPUs only.
    module = synchronised(batch_teacher, torch.device("cuda"))
    assert module is batch_teacher
    after = module.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(each, after[name]) for name, each in before.items())
    norms = [each for each in module.modules() if isinstance(each, nn.SyncBatchNorm)]
    assert len(norms) == 2 * 20  # ResNet-18 has 20 normalisations: the stem's, 2 in each of 8 blocks, 3 shortcuts
    select_view(module, 2)
    assert {each.k for each in module.modules() if isinstance(each, ViewNorm)} == {2}


def test_a_cpu_cannot_synchronise(batch_teacher: Detector, student: Detector) -> None:
    with pytest.raises(DeviceError, match="needs GPUs"):
        synchronised(batch_teacher, torch.device("cpu"))
    assert synchronised(student, torch.device("cpu")) is student  # its groups need nobody else


def test_layers_by_name() -> None:
    assert type(norm_layer("frozen", (1, 2))(8)) is FrozenNorm
    assert type(norm_layer("batch")(8)) is BatchNorm
    assert type(norm_layer("batch", (2,))(8)) is BatchNorm
    assert type(norm_layer("group", (1, 2))(8)) is nn.GroupNorm


def test_frozen_statistics_stay_in_the_precision_of_the_map() -> None:
    """Torchvision's output and gradient; in bfloat16 to half a unit of its 8 bits, and no float32 map between."""
    torch.manual_seed(0)
    stock, frozen = FrozenBatchNorm2d(8), FrozenNorm(8)
    state = {name: torch.rand_like(each) + 0.5 for name, each in stock.state_dict().items()}
    stock.load_state_dict(state)
    frozen.load_state_dict(state)
    x = torch.randn(2, 8, 5, 7)
    assert torch.equal(frozen(x), stock(x))
    half = x.bfloat16().requires_grad_()
    output = frozen(half)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), stock(half.detach().float()), rtol=2**-8, atol=1e-6)
    output.float().sum().backward()
    scale = state["weight"] * (state["running_var"] + stock.eps).rsqrt()
    torch.testing.assert_close(half.grad, scale[:, None, None].expand_as(x).bfloat16(), rtol=2**-7, atol=0)
