"""The views and their levels: which there are, how they align, what is trained, students of one backbone and of two."""

import re
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from support.detectors import EACH, POINTS, TWO_STAGES, images, lively, spec_of, targets
from support.specs import assert_same, spec
from torch import Tensor
from torchvision.ops import FeaturePyramidNetwork

from msad_cli.distillation.aligned_teacher import AlignedTraining
from msad_cli.distillation.baselines import UnshiftedTraining
from msad_cli.distillation.distillation import Distillation, teaching
from msad_cli.distillation.losses.table import build_distillers
from msad_cli.models.backbones.normalisation import norm_layer
from msad_cli.models.backbones.resnet import ResNetBackbone
from msad_cli.models.detector import Detector
from msad_cli.models.pyramid import FPNBackbone
from msad_cli.models.spec import DetectorSpec
from msad_cli.models.weights.initialise import copy_matching

SQUARE = ((128, 128), (128, 128))


def backbone(finest: int, ks: tuple[int, ...]) -> FPNBackbone:
    return FPNBackbone(ResNetBackbone("resnet18", 0.25, norm_layer("group")), 32, finest, ks)


def views(ks: tuple[int, ...]) -> dict[int, list[Tensor]]:
    return {k: [image[:, ::k, ::k].contiguous() for image in images(SQUARE)] for k in ks}


def train(module: torch.nn.Module, ks: tuple[int, ...]) -> dict[str, Tensor]:
    """Losses of one batch, after their gradients were taken."""
    losses: dict[str, Tensor] = module(views(ks), targets(SQUARE))
    torch.stack(list(losses.values())).sum().backward()
    return losses


def without_gradient(detector: Detector) -> list[str]:
    return [name for name, each in detector.named_parameters() if each.requires_grad and each.grad is None]


def frozen(detector: Detector) -> set[str]:
    return {name for name, each in detector.named_parameters() if not each.requires_grad}


@pytest.mark.parametrize(("finest", "ks"), [(3, (1, 2, 4)), (2, (1, 2))])
def test_grids_of_all_views_agree_for_all_padded_sizes(finest: int, ks: tuple[int, ...]) -> None:
    with torch.device("meta"):
        pyramid = backbone(finest, ks)
    for height in range(128, 1409, 128):
        width = 1536 - height
        expected = [(height // 2**level, width // 2**level) for level in range(finest, finest + 5)]
        for k in ks:
            levels = pyramid.pyramid(torch.empty(1, 3, height // k, width // k, device="meta"), k)
            assert [tuple(level.shape[-2:]) for level in levels] == expected


@pytest.mark.parametrize(("finest", "k"), [(3, 2), (3, 4), (2, 2)])
@torch.no_grad()
def test_finer_levels_are_what_an_fpn_with_these_levels_gives(finest: int, k: int) -> None:
    torch.manual_seed(0)
    mine = backbone(finest, (k,))
    lowest = finest - k.bit_length() + 1
    whole = FeaturePyramidNetwork([mine.body.channels[level] for level in range(lowest, 6)], 32)
    for place, level in enumerate(range(lowest, 6)):
        if level < finest:
            inner, layer = mine.finer.get_submodule(f"{level}.inner"), mine.finer.get_submodule(f"{level}.layer")
        else:
            inner, layer = mine.fpn.inner_blocks[level - finest][0], mine.fpn.layer_blocks[level - finest][0]
        whole.inner_blocks[place][0].load_state_dict(inner.state_dict())
        whole.layer_blocks[place][0].load_state_dict(layer.state_dict())
    pixels = torch.randn(1, 3, 64, 128)
    maps = mine.body(pixels)
    expected = whole(OrderedDict((str(level), maps[level]) for level in range(lowest, 6)))
    for found, theirs in zip(mine.pyramid(pixels, k), expected.values(), strict=False):
        torch.testing.assert_close(found, theirs)


@torch.no_grad()
def test_p6_of_two_stages_is_every_second_cell_of_p5() -> None:
    levels = backbone(2, (1,)).pyramid(torch.randn(1, 3, 128, 256), 1)
    assert torch.equal(levels[4], levels[3][:, :, ::2, ::2])


def test_no_view_computes_a_level_that_nobody_reads() -> None:
    whole = backbone(3, (1, 2, 4))
    called: list[str] = []
    modules = {"P1": whole.finer.get_submodule("1.layer"), "P2": whole.finer.get_submodule("2.layer")}
    for name, module in (modules | dict(whole.fpn.extra_blocks.named_children())).items():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    for k, expected in {1: ["p6", "p7"], 2: ["P2", "p6"], 4: ["P2", "P1"]}.items():
        called.clear()
        whole.pyramid(torch.zeros(1, 3, 128 // k, 128 // k), k)
        assert called == expected


def test_views_have_names_and_pixels() -> None:
    three = spec(ks=(1, 2, 4))
    assert three.views == ("fused", "high", "middle", "low")
    assert [three.ks_of(view) for view in three.views] == [(1, 2, 4), (1,), (2,), (4,)]
    assert spec().views == ("fused", "high", "low")
    assert [spec().ks_of(view) for view in spec().views] == [(1, 2), (1,), (2,)]
    for ks, view in (((1,), "high"), ((2,), "low"), ((4,), "low")):
        student = spec(role="student", ks=ks)
        assert (student.views, student.ks_of(view)) == ((view,), ks)  # type: ignore[arg-type]
    assert spec(role="student").views == ("fused", "high", "low")
    vanilla = spec(role="baseline", scales="vanilla", ks=(1, 2, 4))
    assert vanilla.views == ("high", "middle", "low")
    assert spec(role="baseline", scales="single", ks=(1,)).views == ("high",)


@pytest.mark.parametrize("name", EACH)
def test_the_joint_loss_trains_every_parameter_of_a_teacher(name: str) -> None:
    ks = (1, 2) if name in TWO_STAGES else (1, 2, 4)
    torch.manual_seed(0)
    teacher = Detector(spec_of(name, ks=ks))
    losses = train(AlignedTraining(teacher), ks)
    assert {loss.split("/")[0] for loss in losses} == {"fused", *(f"k{k}" for k in ks)}
    assert without_gradient(teacher) == []
    assert frozen(teacher) == set()


@pytest.mark.parametrize(
    ("name", "k"), [("fcos", 1), ("fcos", 4), ("retinanet", 2), ("maskrcnn", 2), ("keypointrcnn", 1)]
)
def test_a_student_has_all_from_its_teacher_and_freezes_what_it_cannot_reach(name: str, k: int) -> None:
    ks = (1, 2) if name in TWO_STAGES else (1, 2, 4)
    torch.manual_seed(0)
    teacher, student = Detector(spec_of(name, ks=ks)), Detector(spec_of(name, role="student", ks=(k,)))
    copied = copy_matching(student, teacher.state_dict())
    assert copied.tensors == copied.of
    train(
        Distillation(student, teaching(teacher, student), build_distillers(student.spec, teacher.spec, {"l1": 0.6})), ks
    )
    assert without_gradient(student) == []
    unreached = {1: "", 2: "7", 4: "67"}[k] if name not in TWO_STAGES else ""
    extra = "core.backbone.fpn.extra_blocks"
    assert frozen(student) == {f"{extra}.p{level}.{part}" for level in unreached for part in ("weight", "bias")}
    finer = {1: [], 2: ["1" if name in TWO_STAGES else "2"], 4: ["1", "2"]}
    assert sorted(student.core.backbone.finer) == finer[k]


def fusion_student(**changes: object) -> DetectorSpec:
    return spec(role="student", low_backbone="resnet34", low_width=0.5, **changes)


@pytest.mark.parametrize("name", EACH)
def test_a_fusion_student_has_two_backbones_and_one_head(name: str) -> None:
    torch.manual_seed(0)
    points = POINTS if name == "keypointrcnn" else ()
    student = Detector(fusion_student(detector=name, keypoints=points, detections_per_image=5))
    lively(student.core)
    single = Detector(replace(student.spec, ks=(1,), low_backbone="", low_width=1.0))
    # The stock keys are those of the HR backbone alone.
    assert student.core.state_dict().keys() == single.core.state_dict().keys()
    assert student.low is not None
    assert student.low.body.channels == {1: 32, 2: 32, 3: 64, 4: 128, 5: 256}
    unreached = {
        "fcos": "extra_blocks.p7",
        "retinanet": "extra_blocks.p7",
        "reppoints": "extra_blocks.p7",
        "rtmdet": "(downsamples.1|bottom_up_blocks.1|out_convs.2)",
    }
    beyond = re.compile(rf"low\.fpn\.{unreached.get(name, '$')}\.")
    assert frozen(student) == {each for each, _ in student.named_parameters() if beyond.match(each)}
    shown = views((1, 2))
    pyramids = [student.core.backbone.pyramid(student.pixels(shown[1], 1), 1)]
    pyramids.append(student.low.pyramid(student.pixels(shown[2], 2), 2))
    frame = student.frame(shown[1], 1)
    losses = student.losses(student.fuse(pyramids), frame, targets(SQUARE))
    torch.stack(list(losses.values())).sum().backward()
    assert without_gradient(student) == []
    with torch.no_grad():
        single.core.load_state_dict(student.core.state_dict())
        assert_same(student.eval().detect(shown, "high"), single.eval().detect({1: shown[1]}, "high"))
        fused = student.fuse(pyramids)
        for mine, theirs in zip(fused, student.fuse([student.pyramid(shown[k], k) for k in (1, 2)]), strict=True):
            assert torch.equal(mine, theirs)


def test_vanilla_targets_and_detections_go_through_the_small_image() -> None:
    """A baseline at k = 2 equals a detector of one scale that is given everything at half the size."""
    torch.manual_seed(0)
    vanilla = Detector(spec_of("keypointrcnn", role="baseline", scales="vanilla", detections_per_image=5))
    alone = Detector(replace(vanilla.spec, scales="single", ks=(1,)))
    alone.load_state_dict(vanilla.state_dict())
    for detector in (vanilla, alone):
        detector.core.rpn.register_forward_pre_hook(lambda *_: torch.manual_seed(5) and None)
    shown, large = views((1, 2)), targets(SQUARE)
    scale = torch.tensor([0.5, 0.5, 1.0])
    small = [{**each, "boxes": each["boxes"] / 2, "keypoints": each["keypoints"] * scale} for each in large]
    expected = UnshiftedTraining(alone)({1: shown[2]}, small)
    found = UnshiftedTraining(vanilla)(shown, large)
    for name, loss in expected.items():
        torch.testing.assert_close(found[name.replace("k1", "k2")], loss)
    with torch.no_grad():
        low = vanilla.eval().detect({2: shown[2]}, "low")[0]
        same = alone.eval().detect({1: shown[2]}, "high")[0]
    assert len(low["boxes"]) == 5
    torch.testing.assert_close(low["boxes"], same["boxes"] * 2)
    torch.testing.assert_close(low["keypoints"], same["keypoints"] / scale)
    torch.testing.assert_close(low["scores"], same["scores"])


def test_a_pixel_of_a_smaller_mask_belongs_to_what_covers_half_of_it() -> None:
    torch.manual_seed(0)
    vanilla = Detector(spec_of("maskrcnn", role="baseline", scales="vanilla"))
    whole = targets(SQUARE)
    for each in whole:
        each["masks"] = torch.zeros_like(each["masks"])
        each["masks"][:, :64, :63] = 1  # the pixel at column 31 of the half image is half covered
    seen: list[list[dict[str, Tensor]]] = []
    vanilla.core.roi_heads.register_forward_pre_hook(lambda _, given: seen.append(given[3]))
    UnshiftedTraining(vanilla)(views((1, 2)), whole)
    assert torch.equal(seen[0][1]["masks"], whole[1]["masks"])
    expected = torch.zeros(2, 64, 64, dtype=torch.uint8)
    expected[:, :32, :32] = 1
    assert torch.equal(seen[1][1]["masks"], expected)
