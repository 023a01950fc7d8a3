"""Batch normalisation in the heads of FCOS and RetinaNet: of each level and view its own."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from support.detectors import images, lively, spec_of, targets
from support.flags import EXACT, SMALLEST
from support.specs import assert_same, spec
from torch import nn

from msad_cli.cli.app import run
from msad_cli.distillation.aligned_teacher import AlignedTraining
from msad_cli.distillation.distillation import Distillation
from msad_cli.errors import UsageError
from msad_cli.models.backbones.normalisation import BatchNorm, norm_layer
from msad_cli.models.detector import Detector
from msad_cli.models.detectors.towers import LevelTower, entering, level_tower
from msad_cli.models.model_file import Card, load_model, save_model
from msad_cli.models.spec import DetectorSpec, HeadNorm
from msad_cli.models.weights.inherit import from_teacher
from msad_cli.models.weights.initialise import from_coco
from msad_cli.runs.folder import RunFolder, Setting
from msad_cli.training.plan import choose_head_norm

SQUARE = ((128, 128), (128, 128))
KINDS = [("fcos", False), ("fcos", True), ("retinanet", True)]
"""Detector, and whether its head is depthwise."""


def built(name: str, depthwise: bool = False, **changes: object) -> Detector:
    torch.manual_seed(0)
    detector = Detector(spec_of(name, head_norm="batch", head_depthwise=depthwise, **changes))
    lively(detector.core)
    return detector


def test_a_level_is_normalised_by_its_own_statistics() -> None:
    """By hand, of one channel: a 1×1 convolution of weight 1 leaves 0, 2 and 10, 14; a single value stays unseen."""
    tower = level_tower(4, 1, False, 3, norm_layer("batch")).train()
    conv, norms, _ = tower
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norms, nn.ModuleList)
    nn.init.dirac_(conv.weight)
    maps = [torch.tensor([0.0, 2.0]), torch.tensor([10.0, 14.0]), torch.tensor([5.0])]
    entered = entering(tower, [each.expand(1, 4, 1, -1).clone() for each in maps])
    found = [tower(each) for each in entered]
    assert found[0][0, 0, 0].tolist() == pytest.approx([0.0, 1.0], abs=1e-4)
    assert found[1][0, 0, 0].tolist() == pytest.approx([0.0, 1.0], abs=1e-4)
    # What is learnt has begun with mean 0 and variance 1, of which a tenth is replaced.
    assert [float(each.get_buffer("running_mean")[0]) for each in norms] == pytest.approx([0.1, 1.2, 0.0])
    assert [float(each.get_buffer("running_var")[0]) for each in norms] == pytest.approx([0.9 + 0.2, 0.9 + 0.8, 1.0])
    assert found[2][0, 0, 0].tolist() == pytest.approx([5.0], abs=1e-4)


@pytest.mark.parametrize(("name", "depthwise"), KINDS)
def test_levels_share_convolutions_until_they_are_folded(name: str, depthwise: bool) -> None:
    student = built(name, depthwise, role="student", ks=(2,), head_convs=2).eval()
    tower = student.core.head.classification_head.conv
    assert isinstance(tower, LevelTower)
    assert sum(isinstance(each, nn.Conv2d) for each in tower.modules()) == (4 if depthwise else 2)
    assert sum(isinstance(each, BatchNorm) for each in tower.modules()) == 2 * 5
    apart = tower.apart()
    assert sum(isinstance(each, nn.Conv2d) for each in apart.modules()) == 5 * (4 if depthwise else 2)
    for level, each in entering(apart, student.pyramid(images(SQUARE), 2)):
        assert torch.equal(apart((level, each.clone())), tower((level, each.clone())))


@pytest.mark.parametrize(("name", "depthwise"), KINDS)
def test_batch_statistics_belong_to_a_view_and_a_student_takes_its_own(name: str, depthwise: bool) -> None:
    teacher = built(name, depthwise, norm="batch").train()
    high = images(SQUARE)
    views = {1: high, 2: [each[:, ::2, ::2] // 2 for each in high]}
    with torch.no_grad():
        for _ in range(5):
            AlignedTraining(teacher)(views, targets(SQUARE))
    tower = teacher.core.head.regression_head.conv
    norm = next(each[0] for each in tower.modules() if isinstance(each, nn.ModuleList) and each is not tower)
    statistics = [norm.get_submodule(f"k{k}").get_buffer("running_mean") for k in (1, 2, 0)]
    assert all((statistics[i] - statistics[j]).abs().max() > 1e-4 for i, j in ((0, 1), (0, 2), (1, 2)))
    teacher.eval()
    with torch.no_grad():
        expected = teacher.detect(views, "low")
        for view in teacher.spec.views[:2]:  # what was looked at before leaves no trace
            teacher.detect(views, view)
            assert_same(teacher.detect(views, "low"), expected)
        student = Detector(replace(teacher.spec, role="student", ks=(2,))).eval()
        assert from_teacher(student, teacher).left == ()
        assert_same(student.detect(views, "low"), expected)


@pytest.mark.parametrize("ks", [(2,), (1, 2)])
def test_all_that_is_trained_gets_a_gradient(ks: tuple[int, ...]) -> None:
    """Of a fusion student the norms of its views alone, which it never passes, are not trained."""
    student = built("fcos", role="student", ks=ks, norm="batch").train()
    views = {k: [each[:, ::k, ::k] for each in images(SQUARE)] for k in ks}
    sum(Distillation(student, None, {})(views, targets(SQUARE)).values()).backward()
    head = {name: each for name, each in student.core.head.named_parameters() if each.requires_grad}
    assert all(each.grad is not None for each in head.values())
    assert len(head) > 2 * 5 * 2


@pytest.mark.parametrize("name", ["fcos", "retinanet"])
@pytest.mark.parametrize("norm", get_args(HeadNorm))
def test_files_and_teachers_bring_depthwise_towers_back(name: str, norm: HeadNorm, tmp_path: Path) -> None:
    """Torchvision's RetinaNet renames tensors that are called like those of its old files."""
    student = built(name, True, role="student", ks=(2,), head_convs=3)
    student = Detector(replace(student.spec, head_norm=norm)).eval()
    save_model(tmp_path / "s.safetensors", student, Card())
    copied = Detector(student.spec)
    assert from_teacher(copied, student).left == ()
    for again in (load_model(tmp_path / "s.safetensors")[0], copied):
        state = again.state_dict()
        assert all(torch.equal(state[key], each) for key, each in student.state_dict().items())


def test_a_file_brings_it_back_and_old_ones_have_groups(tmp_path: Path) -> None:
    student = built("fcos", role="student", ks=(2,)).eval()
    save_model(tmp_path / "s.safetensors", student, Card())
    again, _ = load_model(tmp_path / "s.safetensors")
    with torch.no_grad():
        views = {2: images(((64, 64),))}
        assert_same(again.detect(views, "low"), student.detect(views, "low"))
    old = student.spec.to_json()
    assert old.pop("head_norm") == "batch"
    tower = Detector(DetectorSpec.from_json(old)).core.head.classification_head.conv
    assert sum(isinstance(each, nn.GroupNorm) for each in tower.modules()) == student.spec.head_convs


@pytest.mark.parametrize(
    ("asked", "norm", "init", "detector", "recorded", "expected"),
    [
        ("auto", "auto", "none", "fcos", None, "group"),
        ("auto", "batch", "none", "fcos", None, "batch"),
        ("auto", "batch", "imagenet", "retinanet", None, "batch"),
        ("auto", "batch", "coco", "fcos", None, "group"),
        ("group", "batch", "none", "fcos", None, "group"),
        ("batch", "auto", "none", "fcos", None, "batch"),
        # A run that was begun before there was a choice had groups; others keep what they had.
        ("auto", "batch", "none", "fcos", {}, "group"),
        ("auto", "batch", "none", "fcos", {"head_norm": Setting("batch", "auto")}, "batch"),
        ("auto", "batch", "none", "rtmdet", None, None),
    ],
)
def test_it_goes_with_the_backbones_unless_it_is_typed(
    asked: str, norm: str, init: str, detector: str, recorded: Mapping[str, Setting] | None, expected: str | None
) -> None:
    found = choose_head_norm(asked, norm, init, spec(detector=detector), recorded)
    assert (found["head_norm"].value if found else None) == expected


def test_where_there_is_no_choice_it_is_refused() -> None:
    with pytest.raises(UsageError, match="the head of rtmdet has no choice"):
        choose_head_norm("batch", "batch", "none", spec(detector="rtmdet"), None)
    published = spec(backbone="resnet50", width=1.0, channels=256, head_convs=4, head_norm="batch")
    with torch.device("meta"), pytest.raises(UsageError, match="group normalisation in the head"):
        from_coco(Detector(published))


def test_teacher_and_student_train_with_it(demo: Path, tmp_path: Path) -> None:
    """`--norm batch` of a teacher; its student inherits both, and one that asks for groups has them."""
    teacher, flags = tmp_path / "teacher.safetensors", [*SMALLEST, "--size=64,96", "--batch=2", "--epochs=1", *EXACT]
    assert run(["teacher", "--data", str(demo), *flags, "--norm", "batch", "--out", str(teacher), "--quiet"]) == 0
    kinds = {}
    for name, more in (("same", []), ("groups", ["--head-norm", "group"])):
        out = tmp_path / f"{name}.safetensors"
        distil = ["distill", "--teacher", str(teacher), "--epochs=1", "--batch=2", *more, "--out", str(out), "--quiet"]
        assert run([*distil, *EXACT]) == 0
        kinds[name] = load_model(out)[0].spec
        assert RunFolder(out).recorded()["head_norm"].value == kinds[name].head_norm
    assert {name: (each.norm, each.head_norm) for name, each in kinds.items()} == {
        "same": ("batch", "batch"),
        "groups": ("batch", "group"),
    }
    assert json.loads((tmp_path / "teacher.run" / "args.json").read_text())["head_norm"]["value"] == "batch"
