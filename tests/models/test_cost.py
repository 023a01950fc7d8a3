"""What models cost: torchvision's published figures, and how parts, views and relatives hang together."""

from dataclasses import replace

import pytest
import torch
from support.detectors import EACH, TORCHVISIONS, TWO_STAGES, spec_of
from support.specs import spec
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model_weights

from msad_cli.models.cost import cost_of_set, count_cost, relatives
from msad_cli.models.detector import Detector
from msad_cli.models.spec import ClassName, DetectorSpec

FRAME = [(256, 384)]


def whole(name: str, **changes: object) -> DetectorSpec:
    """Torchvision's detector in full size, for COCO."""
    count = 2 if name == "keypointrcnn" else 91
    values: dict[str, object] = {
        "role": "baseline",
        "scales": "single",
        "ks": (1,),
        "detector": name,
        "backbone": "resnet50",
        "width": 1.0,
        "channels": 256,
        "head_convs": 4,
        "norm": "frozen",
        "classes": tuple(ClassName(i, str(i)) for i in range(1, count)),
        "keypoints": tuple(map(str, range(17))) if name == "keypointrcnn" else (),
    }
    return spec(**{**values, **changes})


@pytest.mark.parametrize("name", TORCHVISIONS)
def test_parameters_are_the_published_ones(name: str) -> None:
    published = get_model_weights(f"{name}_resnet50_fpn")["DEFAULT"].meta["num_params"]
    assert sum(count_cost(whole(name), "high", FRAME).parameters.values()) == published


@pytest.mark.parametrize(("name", "giga"), [("fcos", 128.207), ("retinanet", 151.54)])
def test_a_dense_detector_costs_what_torchvision_publishes(name: str, giga: float) -> None:
    """GMACs of torchvision's weights' meta, which fit an image of 800 × 800."""
    cost = count_cost(whole(name), "high", [(800, 800)], padded=False)
    assert cost.total / 1e9 == pytest.approx(giga, rel=3e-3)


def test_rois_cost_what_their_layers_multiply() -> None:
    """By hand: fc6 and fc7 of the box head and its two outputs for 1000 RoIs; the mask head for 100."""
    cost = count_cost(whole("maskrcnn"), "high", FRAME)
    boxes = 1000 * (256 * 49 * 1024 + 1024 * 1024 + 1024 * 91 * 5)
    masks = 100 * (4 * 14**2 * 9 * 256 * 256 + 14**2 * 4 * 256 * 256 + 28**2 * 256 * 91)
    assert cost.macs["roi"] == boxes + masks
    # 3×3 of 256 to 256 and 1×1 to 3 · (1 + 4), on P2 … P6 of 256 × 384 pixels.
    cells = sum(256 * 384 // 4**level for level in range(2, 7))
    assert cost.macs["rpn"] == cells * (9 * 256 * 256 + 256 * 15)
    assert count_cost(whole("fasterrcnn"), "high", FRAME).macs["roi"] == boxes
    fewer = count_cost(whole("maskrcnn", detections_per_image=50), "high", FRAME)
    assert fewer.macs["roi"] == boxes + masks / 2


@pytest.mark.parametrize("name", EACH)
def test_a_view_downsampled_by_k_costs_the_backbone_k_squared_less_and_the_head_the_same(name: str) -> None:
    ks = (1, 2) if name in TWO_STAGES else (1, 2, 4)
    teacher = spec_of(name, ks=ks)
    costs = {view: count_cost(teacher, view, FRAME) for view in teacher.views}
    heads = ("rpn", "roi") if name in TWO_STAGES else ("head",)
    for view in teacher.views[1:]:
        (k,) = teacher.ks_of(view)
        assert costs[view].macs["backbone"] == costs["high"].macs["backbone"] / k**2
        assert all(costs[view].macs[part] == costs["high"].macs[part] for part in heads)
        assert costs[view].macs["fusion"] == 0 == costs[view].parameters["fusion"]
    for part in ("backbone", "pyramid"):
        assert costs["fused"].macs[part] == sum(costs[view].macs[part] for view in teacher.views[1:])
    assert costs["fused"].macs["fusion"] > 0
    alone = replace(teacher, role="student", ks=ks[-1:])
    assert count_cost(alone, "low", FRAME).macs == costs["low"].macs


@pytest.mark.parametrize("name", EACH)
def test_what_is_counted_once_holds_for_an_image_of_any_size(name: str) -> None:
    """Beside torch's counter on the network as it runs, of an image whose P6 and P7 end in parts of cells."""
    model = spec_of(name, ks=(1, 2), divisor=32)
    with torch.device("meta"):
        detector = Detector(model).eval()
        pixels = torch.empty(1, 3, 48, 80)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        maps = detector.backbone(2).pyramid(pixels, 2)
        for part in detector.kind.parts().values():
            part.run(maps)
    deformable = model.detector == "reppoints"  # which torch does not count
    assert deformable or count_cost(model, "low", [(96, 160)]).total == counter.get_total_flops() / 2
    assert not deformable or count_cost(model, "low", [(96, 160)]).total > counter.get_total_flops() / 2


def test_a_sets_cost_is_the_mean_of_its_images_as_the_model_sees_them() -> None:
    """HR images of 128 × 256, 128 × 172 and 256 × 128; of no images that of the model's resolution."""
    student = spec(role="student", ks=(2,), divisor=32)
    sizes = [(10, 20), (30, 40), (30, 40), (20, 10)]
    wide, narrow = (count_cost(student, "low", [each]).total for each in ((128, 256), (128, 172)))
    assert wide > 1.3 * narrow
    assert cost_of_set(student, "low", sizes).total == pytest.approx((wide + narrow) / 2)
    assert cost_of_set(student, "low", []).total == wide


def test_a_fusion_student_costs_both_backbones_and_one_head() -> None:
    student = spec(role="student", low_backbone="resnet34", low_width=0.5)
    high = count_cost(spec(role="student", ks=(1,)), "high", FRAME)
    low = count_cost(spec(role="student", ks=(2,), backbone="resnet34", width=0.5), "low", FRAME)
    both = count_cost(student, "fused", FRAME)
    for part in ("backbone", "pyramid"):
        assert both.macs[part] == high.macs[part] + low.macs[part]
        assert both.parameters[part] == high.parameters[part] + low.parameters[part]
    assert both.macs["head"] == high.macs["head"] == low.macs["head"]
    assert count_cost(student, "low", FRAME).parameters["backbone"] == low.parameters["backbone"]


def test_without_padding_the_images_share_of_the_padded_area_counts() -> None:
    student = spec_of("maskrcnn", role="student", ks=(2,))
    padded, exact = (count_cost(student, "low", [(200, 300)], each) for each in (True, False))
    for part in ("backbone", "pyramid", "rpn"):
        assert exact.macs[part] == pytest.approx(padded.macs[part] * 200 * 300 / (256 * 384))
    assert exact.macs["roi"] == padded.macs["roi"]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"role": "student", "ks": (2,)}, ["stock fcos, HR", "teacher, fused", "student, 1/2"]),
        ({"role": "student", "ks": (4,)}, ["stock fcos, HR", "teacher, fused", "student, 1/4"]),
        ({"role": "student", "ks": (1,)}, ["stock fcos, HR", "teacher, fused", "student, HR"]),
        ({}, ["stock fcos, HR", "teacher, fused", "student, 1/2"]),
        ({"ks": (1, 2, 4)}, ["stock fcos, HR", "teacher, fused", "student, 1/2", "student, 1/4"]),
        (
            {"role": "student", "low_backbone": "resnet34", "low_width": 0.5},
            ["stock fcos, HR", "teacher, fused", "student, fused"],
        ),
        ({"role": "baseline", "scales": "vanilla"}, ["stock fcos, HR"]),
        ({"role": "student", "ks": (4,), "head_depthwise": True}, ["stock fcos, HR", "teacher, fused", "student, 1/4"]),
    ],
)
def test_a_model_is_compared_with_its_relatives(changes: dict[str, object], names: list[str]) -> None:
    of = spec(**changes)
    found = relatives(of)
    assert list(found) == names
    assert all(count_cost(each, view, FRAME).total > 0 for each, view in found.values())
    if of.role == "student":
        assert found[names[-1]] == (of, of.views[0])
    if of.role == "teacher":
        assert found["teacher, fused"] == (of, "fused")


def test_a_student_is_compared_with_its_own_teacher() -> None:
    teacher = spec(ks=(1, 2, 4), head_convs=4)
    student = spec(role="student", ks=(4,), head_convs=1, head_depthwise=True)
    stock, fused, own = relatives(student, teacher).values()
    assert (fused, own) == ((teacher, "fused"), (student, "low"))
    assert (stock[0].head_convs, stock[0].ks, stock[0].head_depthwise) == (4, (1,), False)


def test_a_student_of_another_detector_is_compared_with_its_own_stock_one() -> None:
    teacher = spec_of("keypointrcnn", backbone="resnet34")
    found = relatives(spec_of("fasterrcnn", role="student", ks=(2,)), teacher)
    assert list(found) == ["stock fasterrcnn, HR", "teacher, fused", "student, 1/2"]
    stock = found["stock fasterrcnn, HR"][0]
    assert (stock.detector, stock.backbone, stock.keypoints) == ("fasterrcnn", "resnet34", ())
