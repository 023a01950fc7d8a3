"""RTMDet beside formulas that are written here, and beside OpenMMLab's layout and published sizes."""

import json
import math
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from support.detectors import ORDINARY, images, lively, targets
from support.overfit import OF_RTMDET, overfit
from support.specs import assert_same, spec, target
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou

from msad_cli.distillation.two_step import TwoStepTraining
from msad_cli.errors import UsageError
from msad_cli.frame import Frame
from msad_cli.models.backbones.normalisation import norm_layer
from msad_cli.models.backbones.resnet import build_backbone
from msad_cli.models.cost import count_cost
from msad_cli.models.detector import Detector
from msad_cli.models.detectors.task_aligned import assign
from msad_cli.models.model_file import Card, load_model, save_model
from msad_cli.models.path_pyramid import PathBackbone
from msad_cli.models.spec import ClassName, DetectorSpec
from msad_cli.models.weights import download
from msad_cli.models.weights import initialise as init
from msad_cli.models.weights.inherit import from_teacher

SQUARE = ((128, 128), (128, 128))


def rtmdet(**changes: object) -> DetectorSpec:
    """A small one, with changes."""
    return spec(detector="rtmdet", backbone="cspnext_nano", width=0.5, **changes)


def published(size: str, channels: int, **changes: object) -> DetectorSpec:
    """OpenMMLab's of this size, for COCO."""
    classes = tuple(ClassName(number, str(number)) for number in range(80))
    whole = {"role": "baseline", "scales": "single", "ks": (1,), "divisor": 32, "norm": "batch", "head_convs": 2}
    return spec(
        detector="rtmdet",
        backbone=f"cspnext_{size}",
        channels=channels,
        **{"width": 1.0, "classes": classes, **whole, **changes},
    )


@pytest.mark.parametrize(
    ("size", "channels", "millions", "giga"),
    [("tiny", 96, 4.896, 8.1), ("s", 128, 8.89, 14.8), ("m", 192, 24.71, 39.27), ("l", 256, 52.3, 80.23)],
)
def test_sizes_are_the_published_ones(size: str, channels: int, millions: float, giga: float) -> None:
    """mmdetection's configs/rtmdet/README.md, which cuts off tiny's 4.8 million after one digit; its "FLOPs" are
    multiply-accumulates and count normalisations too."""
    cost = count_cost(published(size, channels), "high", [(640, 640)])
    assert sum(cost.parameters.values()) / 1e6 == pytest.approx(millions, rel=1e-3)
    assert cost.total / 1e9 == pytest.approx(giga, rel=0.01)


# The pyramid.


@pytest.mark.parametrize("name", ["cspnext_nano", "mobilenet_v2", "resnet18"])
def test_grids_of_all_views_are_those_of_the_hr_view(name: str) -> None:
    with torch.device("meta"):
        norm = norm_layer("group")
        pyramid = PathBackbone(build_backbone(name, 0.5, norm), 64, (1, 2, 4), 1, norm)
        for k in (1, 2, 4):
            levels = pyramid.pyramid(torch.empty(1, 3, 256 // k, 384 // k), k)
            assert [tuple(each.shape) for each in levels] == [(1, 64, 256 // s, 384 // s) for s in (8, 16, 32)]


@pytest.mark.parametrize("k", [1, 2, 4])
@torch.no_grad()
def test_a_view_goes_down_to_its_finest_level_and_up_again(k: int) -> None:
    """The path written out: P3–P5 of the image itself, P2–P4 at k = 2, P1–P3 at k = 4."""
    torch.manual_seed(0)
    norm = norm_layer("group")
    mine = PathBackbone(build_backbone("cspnext_nano", 0.5, norm), 64, (1, 2, 4), 1, norm)
    pixels = torch.randn(1, 3, 128, 64)
    c1, c2, c3, c4, c5 = mine.body(pixels).values()
    neck, finer = mine.fpn, mine.finer

    def part(level: int, name: str) -> torch.nn.Module:
        return finer.get_submodule(f"{level}.{name}")

    def doubled(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    five = neck.reduce_layers[0](c5)
    p4 = neck.top_down_blocks[0](torch.cat([doubled(five), c4], 1))
    four = neck.reduce_layers[1](p4)
    p3 = neck.top_down_blocks[1](torch.cat([doubled(four), c3], 1))
    three = part(2, "reduce")(p3)
    p2 = part(2, "top_down")(torch.cat([doubled(three), c2], 1))
    two = part(1, "reduce")(p2)
    p1 = part(1, "top_down")(torch.cat([doubled(two), c1], 1))

    def up(level: int, x: Tensor, lateral: Tensor) -> Tensor:
        if level < 3:
            return part(level, "bottom_up")(torch.cat([part(level, "downsample")(x), lateral], 1))  # type: ignore[no-any-return]
        both = torch.cat([neck.downsamples[level - 3](x), lateral], 1)
        return neck.bottom_up_blocks[level - 3](both)  # type: ignore[no-any-return]

    if k == 1:
        n4 = up(3, p3, four)
        expected = [conv(x) for conv, x in zip(neck.out_convs, (p3, n4, up(4, n4, five)), strict=True)]
    elif k == 2:
        n3 = up(2, p2, three)
        expected = [part(2, "out")(p2), neck.out_convs[0](n3), neck.out_convs[1](up(3, n3, four))]
    else:
        n2 = up(1, p1, two)
        expected = [part(1, "out")(p1), part(2, "out")(n2), neck.out_convs[0](up(2, n2, three))]
    for found, each in zip(mine.pyramid(pixels, k), expected, strict=True):
        torch.testing.assert_close(found, each, rtol=1e-5, atol=1e-5)


# Head, assignment and loss.


@torch.no_grad()
def test_the_head_shares_its_convolutions_and_nothing_else() -> None:
    torch.manual_seed(0)
    detector = Detector(rtmdet(role="student", ks=(2,), head_convs=2))
    head = detector.core.head
    for each in head.parameters():
        torch.nn.init.normal_(each, std=0.1)
    pyramid = [torch.randn(1, 64, 4 // s, 8 // s) for s in (1, 2, 4)]
    found = head(pyramid)
    rows: dict[str, list[Tensor]] = {"cls_logits": [], "bbox_regression": []}
    for level, maps in enumerate(pyramid):
        for tower, last, name in (
            (head.cls_convs, head.rtm_cls, "cls_logits"),
            (head.reg_convs, head.rtm_reg, "bbox_regression"),
        ):
            x = maps
            for i in range(2):
                own = tower[level][i].bn
                x = F.conv2d(x, tower[0][i].conv.weight, padding=1)
                x = F.group_norm(x, own.num_groups, own.weight, own.bias)
                x = x * torch.sigmoid(x)
            cells = F.conv2d(x, last[level].weight, last[level].bias)[0]
            rows[name] += [cells[:, y, x] for y in range(cells.shape[1]) for x in range(cells.shape[2])]
    for name, expected in rows.items():
        torch.testing.assert_close(found[name][0], torch.stack(expected), rtol=1e-5, atol=1e-5)


def bce(logit: float, wanted: float) -> float:
    """Of a logit's probability."""
    p = 1 / (1 + math.exp(-logit))
    return -wanted * math.log(p) - (1 - wanted) * math.log(1 - p)


def by_loops(
    points: Tensor, strides: Tensor, boxes: Tensor, logits: Tensor, objects: dict[str, Tensor]
) -> dict[int, tuple[int, float]]:
    """The assignment of one image by its definition: of cells that have one, the object and the quality."""
    ious = box_iou(boxes, objects["boxes"])
    fit: dict[tuple[int, int], float] = {}
    chosen: dict[int, list[int]] = {}
    for number, (label, (x1, y1, x2, y2)) in enumerate(
        zip(objects["labels"].tolist(), objects["boxes"].tolist(), strict=True)
    ):
        wide, high = max(x2 - x1, 2 * float(strides.min())), max(y2 - y1, 2 * float(strides.min()))
        for cell, (x, y) in enumerate(points.tolist()):
            if abs(x - (x1 + x2) / 2) < wide / 2 and abs(y - (y1 + y2) / 2) < high / 2:
                score = 1 / (1 + math.exp(-float(logits[cell, label - 1])))
                fit[cell, number] = score * float(ious[cell, number]) ** 6
        best = sorted((cell for cell, of in fit if of == number), key=lambda cell: -fit[cell, number])[:13]
        for cell in best:
            if fit[cell, number] > 0:
                chosen.setdefault(cell, []).append(number)
    one = {cell: max(numbers, key=lambda each: ious[cell, each]) for cell, numbers in chosen.items()}
    whole = {}
    for number in set(one.values()):
        x1, y1, x2, y2 = objects["boxes"][number].tolist()
        small = min(x2 - x1, y2 - y1) < 2 * float(strides.min())
        own = [cell for cell in one if one[cell] == number]
        highest = 1.0 if small else max(float(ious[cell, number]) for cell in own)
        whole[number] = highest / max(fit[cell, number] for cell in own)
    return {cell: (number, fit[cell, number] * whole[number]) for cell, number in one.items()}


def predicted(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, list[dict[str, Tensor]]]:
    """Points and strides of the levels of 64 × 64 pixels, boxes near them, logits, and the objects of three images:
    two that overlap, none, and two of which one is small."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.tensor([[x, y] for s in (8, 16, 32) for y in range(0, 64, s) for x in range(0, 64, s)]).float()
    strides = torch.tensor([s for s in (8, 16, 32) for _ in range((64 // s) ** 2)]).float()
    sides = 6 + 20 * torch.rand(3, len(points), 4, generator=generator)
    boxes = torch.cat([points - sides[..., :2], points + sides[..., 2:]], dim=2)
    logits = 2 * torch.randn(3, len(points), 2, generator=generator)
    objects = [
        target([10.0, 10.0, 45.0, 50.0], [20.0, 4.0, 60.0, 40.0]),
        target(),
        target([1.0, 30.0, 30.0, 63.0], [40.0, 8.0, 50.0, 34.0]),
    ]
    objects[2]["labels"] = torch.tensor([1, 2])
    objects[0]["labels"] = torch.tensor([2, 1])
    objects[1]["boxes"] = torch.zeros(0, 4)
    return points, strides, boxes, logits, objects


def test_cells_are_assigned_by_the_definition() -> None:
    points, strides, boxes, logits, objects = predicted()
    found = assign(points, strides, boxes, logits, objects)
    several = 0
    for image, true in enumerate(objects):
        expected = by_loops(points, strides, boxes[image], logits[image], true) if len(true["boxes"]) else {}
        assert sorted(expected) == found.positive[image].nonzero()[:, 0].tolist()
        several += len(expected)
        for cell, (number, quality) in expected.items():
            assert float(found.quality[image, cell]) == pytest.approx(quality, abs=1e-5)
            assert torch.equal(found.boxes[image, cell], true["boxes"][number])
            assert int(found.labels[image, cell]) == int(true["labels"][number]) - 1
        assert float(found.quality[image][~found.positive[image]].abs().sum()) == 0
    assert several > 6


def test_a_cell_that_two_objects_chose_stands_for_the_one_that_its_box_overlaps_most() -> None:
    points, strides, boxes, logits, _ = predicted()
    alike = target([8.0, 8.0, 52.0, 52.0], [12.0, 12.0, 56.0, 56.0])
    found = assign(points, strides, boxes[:1], logits[:1], [alike])
    cells = found.positive[0].nonzero()[:, 0]
    ious = box_iou(boxes[0], alike["boxes"])
    alone = [
        set(assign(points, strides, boxes[:1], logits[:1], [target(each)]).positive[0].nonzero()[:, 0].tolist())
        for each in alike["boxes"].tolist()
    ]
    both = sorted(alone[0] & alone[1])
    assert len(both) > 3
    assert set(cells.tolist()) == alone[0] | alone[1]
    for cell in both:
        assert torch.equal(found.boxes[0, cell], alike["boxes"][int(ious[cell].argmax())])


def test_an_object_smaller_than_a_cell_has_the_cells_around_it() -> None:
    """The finest cells are 8 pixels wide. The box has none in it, and 16 × 16 pixels about its middle, (28, 28), have
    four: those at 24 and 32."""
    points, strides, _, _, _ = predicted()
    boxes = torch.cat([points - 8, points + 8], dim=1)[None]
    found = assign(points, strides, boxes, torch.zeros(1, len(points), 2), [target([26.0, 26.0, 30.0, 30.0])])
    of_level = found.positive[0, :64].nonzero()[:, 0].tolist()
    assert of_level == [8 * 3 + 3, 8 * 3 + 4, 8 * 4 + 3, 8 * 4 + 4]
    # All have the same IoU, 16 of 256 pixels, and each is the best.
    assert found.quality[0, of_level].tolist() == pytest.approx([1.0] * 4)


def test_losses_are_quality_focal_and_giou_by_quality() -> None:
    torch.manual_seed(0)
    detector = Detector(rtmdet(role="student", ks=(1,)))
    points, strides, boxes, logits, objects = predicted()
    distances = torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=2) / strides[:, None]
    pyramid = [torch.empty(3, 64, 64 // s, 64 // s) for s in (8, 16, 32)]
    outputs = {"cls_logits": logits, "bbox_regression": distances}
    found = detector.kind.losses(pyramid, Frame(((64, 64),) * 3, (64, 64)), objects, outputs)
    classes = regression = quality = 0.0
    for image, true in enumerate(objects):
        cells = by_loops(points, strides, boxes[image], logits[image], true) if len(true["boxes"]) else {}
        for cell in range(len(points)):
            number, suits = cells.get(cell, (0, 0.0))
            for label, logit in enumerate(logits[image, cell].tolist()):
                own = cell in cells and label == int(true["labels"][number]) - 1
                wanted = suits if own else 0.0
                classes += bce(logit, wanted) * (wanted - 1 / (1 + math.exp(-logit))) ** 2
            if cell in cells:
                giou = generalized_box_iou(boxes[image, cell][None], true["boxes"][number][None])
                regression += suits * (1 - float(giou))
                quality += suits
    assert quality > 1
    assert float(found["classification"]) == pytest.approx(classes / quality, rel=1e-5)
    assert float(found["bbox_regression"]) == pytest.approx(2 * regression / quality, rel=1e-5)


def test_weights_of_classes_weigh_gradients_alone() -> None:
    torch.manual_seed(0)
    detector = Detector(rtmdet(role="student", ks=(1,)))
    pyramid, frame = detector.pyramid(images(SQUARE), 1), detector.frame(images(SQUARE), 1)
    found = []
    for weights in (None, torch.tensor([1.0, 3.0, 0.0])):
        detector.kind.class_weights = weights
        loss = detector.losses(pyramid, frame, targets(SQUARE))["classification"]
        (slope,) = torch.autograd.grad(loss, detector.core.head.rtm_cls[0].bias, retain_graph=True)
        found.append((loss.detach(), slope))
    torch.testing.assert_close(found[1][0], found[0][0])
    torch.testing.assert_close(found[1][1], found[0][1] * torch.tensor([3.0, 0.0]))


def test_views_together_have_the_losses_of_each_alone() -> None:
    torch.manual_seed(0)
    detector = Detector(rtmdet())
    high = images(SQUARE)
    pyramids = [detector.pyramid(high, 1), detector.pyramid([each[:, ::2, ::2] for each in high], 2)]
    pyramids.append(detector.fuse(pyramids))
    frame = detector.frame(high, 1)
    alone = [detector.losses(each, frame, targets(SQUARE)) for each in pyramids]
    assert float(alone[0]["classification"].detach()) != float(alone[1]["classification"].detach())
    torch.testing.assert_close(detector.losses_of_views(pyramids, frame, targets(SQUARE)), alone)


def test_a_cell_stands_on_multiples_of_its_stride() -> None:
    """Without half a cell's offset: a distance of 1 to every side is the box from (x − 1)·s to (x + 1)·s."""
    detector = Detector(rtmdet(role="student", ks=(1,)))
    pyramid = [torch.empty(1, 64, 128 // s, 128 // s) for s in (8, 16, 32)]
    ones = {"bbox_regression": torch.ones(1, 256 + 64 + 16, 4)}
    boxes = detector.kind.boxes(pyramid, Frame(((128, 128),), (128, 128)), ones)[0]
    assert boxes[17].tolist() == [0, 0, 16, 16]  # level 8, second row, second cell
    assert boxes[256 + 9].tolist() == [0, 0, 32, 32]
    assert boxes[256 + 64 + 6].tolist() == [32, 0, 96, 64]


@pytest.mark.slow
def test_it_learns_four_images_by_heart(tmp_path_factory: pytest.TempPathFactory) -> None:
    """60 steps of a ResNet-18 an eighth as wide; AP of the views was 0.65 to 0.71."""
    teacher = overfit(tmp_path_factory, OF_RTMDET)
    scores = json.loads((teacher.with_suffix(".run") / "metrics.json").read_text())
    assert {view: each["AP"] > 0.5 for view, each in scores.items()} == {"fused": True, "high": True, "low": True}


# Statistics.


@torch.no_grad()
def test_batch_statistics_belong_to_a_view_and_a_student_takes_its_own() -> None:
    torch.manual_seed(0)
    teacher = Detector(rtmdet(norm="batch")).train()
    lively(teacher.core)
    high = images(SQUARE)
    views = {1: high, 2: [each[:, ::2, ::2] // 2 for each in high]}
    for _ in range(5):
        pyramids = [teacher.pyramid(views[k], k) for k in (1, 2)]
        teacher.losses_of_views([*pyramids, teacher.fuse(pyramids)], teacher.frame(high, 1), targets(SQUARE))
    statistics = [teacher.core.head.cls_convs[0][0].bn.get_submodule(f"k{k}").running_mean for k in (1, 2, 0)]
    assert all((statistics[i] - statistics[j]).abs().max() > 1e-4 for i, j in ((0, 1), (0, 2), (1, 2)))
    teacher.eval()
    expected = teacher.detect(views, "low")
    for view in ("fused", "high"):  # what was looked at before leaves no trace
        teacher.detect(views, view)
        assert_same(teacher.detect(views, "low"), expected)
    student = Detector(rtmdet(norm="batch", role="student", ks=(2,))).eval()
    assert from_teacher(student, teacher).left == ()
    assert_same(student.detect(views, "low"), expected)


@torch.no_grad()
def test_a_head_takes_the_statistics_of_the_view_that_is_named() -> None:
    """Of cached pyramids nobody calls `fuse`."""
    torch.manual_seed(0)
    teacher = Detector(rtmdet(norm="batch")).eval()
    for name, each in teacher.core.head.named_buffers():
        if name.endswith("running_mean"):
            each.normal_()
    views = {1: images(SQUARE), 2: [each[:, ::2, ::2] for each in images(SQUARE)]}
    seen = {view: teacher.look(views, view) for view in teacher.spec.views}
    for view, look in seen.items():
        teacher.select(view)
        assert torch.equal(teacher.outputs(look.pyramid)["cls_logits"], look.outputs["cls_logits"])
    teacher.select("low")
    assert not torch.equal(teacher.outputs(seen["fused"].pyramid)["cls_logits"], seen["fused"].outputs["cls_logits"])


def test_in_two_steps_the_fusion_begins_with_the_large_views_statistics() -> None:
    torch.manual_seed(0)
    module = TwoStepTraining(Detector(rtmdet(norm="batch")), 1).train()
    views = {1: images(SQUARE), 2: [each[:, ::2, ::2] for each in images(SQUARE)]}
    assert {each.split("/")[0] for each in module(views, targets(SQUARE))} == {"k1", "k2"}
    assert {each.split("/")[0] for each in module(views, targets(SQUARE))} == {"fused"}
    norm = module.detector.core.head.reg_convs[1][0].bn
    assert torch.equal(norm.k0.running_var, norm.k1.running_var)
    assert not torch.equal(norm.k0.running_var, norm.k2.running_var)


# Files.


@torch.no_grad()
def test_a_model_file_gives_the_same_predictions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector = Detector(rtmdet(norm="batch")).eval()
    lively(detector.core)
    save_model(tmp_path / "a.safetensors", detector, Card())
    read, _ = load_model(tmp_path / "a.safetensors")
    views = {1: images(ORDINARY), 2: [each[:, ::2, ::2] for each in images(ORDINARY)]}
    for view in detector.spec.views:
        assert_same(read.detect(views, view), detector.detect(views, view))


def openmmlabs(detector: Detector) -> dict[str, Tensor]:
    """The state of a detector under OpenMMLab's names: each level has all of its towers, the stem reads BGR."""
    state = {}
    for name, each in detector.core.state_dict().items():
        theirs = name.replace("backbone.body.", "backbone.").replace("backbone.fpn.", "neck.")
        theirs = f"bbox_{theirs}" if theirs.startswith("head.") else theirs
        shared = theirs.startswith("bbox_head.") and theirs.endswith("conv.weight")
        for level in range(3) if shared else (0,):
            state[theirs.replace("_convs.0.", f"_convs.{level}.") if shared else theirs] = each.clone()
    state["backbone.stem.0.conv.weight"] = state["backbone.stem.0.conv.weight"].flip(1)
    return state


CAT = 15
"""The place of the class among COCO's 80, from 0: person, bicycle, … bird, cat."""


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Tensor]:
    """A synthetic one of RTMDet-tiny, in OpenMMLab's layout."""
    torch.manual_seed(0)
    state = openmmlabs(Detector(published("tiny", 96)))
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(each.shape, generator=generator).to(each.dtype) for name, each in state.items()}


def test_the_layout_is_openmmlabs(checkpoint: dict[str, Tensor]) -> None:
    """Names and shapes of RTMDet-tiny by mmdetection's code (backbones/cspnext.py, necks/cspnext_pafpn.py,
    dense_heads/rtmdet_head.py): channels 96, 192 and 384 of the neck, 80 classes."""
    shapes = {name: tuple(each.shape) for name, each in checkpoint.items()}
    expected = {
        "backbone.stem.2.conv.weight": (24, 12, 3, 3),
        "backbone.stage1.1.blocks.0.conv2.depthwise_conv.conv.weight": (24, 1, 5, 5),
        "backbone.stage2.1.attention.fc.bias": (96,),
        "backbone.stage4.1.conv2.conv.weight": (384, 768, 1, 1),
        "backbone.stage4.2.final_conv.bn.running_var": (384,),
        "neck.reduce_layers.0.conv.weight": (192, 384, 1, 1),
        "neck.top_down_blocks.1.main_conv.conv.weight": (48, 192, 1, 1),
        "neck.downsamples.1.conv.weight": (192, 192, 3, 3),
        "neck.bottom_up_blocks.1.final_conv.conv.weight": (384, 384, 1, 1),
        "neck.out_convs.2.conv.weight": (96, 384, 3, 3),
        "bbox_head.cls_convs.2.1.conv.weight": (96, 96, 3, 3),
        "bbox_head.reg_convs.1.0.bn.num_batches_tracked": (),
        "bbox_head.rtm_cls.0.weight": (80, 96, 1, 1),
        "bbox_head.rtm_reg.2.bias": (4,),
    }
    assert {name: shapes[name] for name in expected} == expected


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_file_of_openmmlabs_fills_all_that_is_stock(
    tmp_path: Path, checkpoint: dict[str, Tensor], wrapped: bool
) -> None:
    torch.save({"meta": {"epoch": 300}, "state_dict": checkpoint} if wrapped else checkpoint, tmp_path / "rtmdet.pth")
    classes = (ClassName(3, "new"), ClassName(9, "cat"))
    aligned = {"role": "teacher", "scales": "aligned", "ks": (1, 2), "divisor": 128}
    detector = Detector(published("tiny", 96, classes=classes, **aligned))
    start = detector.core.head.rtm_cls[1].weight[0].clone()
    copied = init.from_file(detector, tmp_path / "rtmdet.pth")
    assert copied.rows == "the head keeps its rows of cat, by name; from the prior: new"
    # What published weights have not: the level below theirs.
    assert copied.left
    assert all(name.startswith("backbone.finer.") for name in copied.left)
    core = detector.core
    assert torch.equal(core.backbone.body.stem[0].conv.weight, checkpoint["backbone.stem.0.conv.weight"].flip(1))
    assert torch.equal(core.head.rtm_cls[1].weight, torch.stack([start, checkpoint["bbox_head.rtm_cls.1.weight"][CAT]]))
    own = core.state_dict()
    for view in (1, 2, 0):
        theirs = checkpoint["bbox_head.cls_convs.2.1.bn.running_mean"]
        assert torch.equal(own[f"head.cls_convs.2.1.bn.k{view}.running_mean"], theirs)
    assert torch.equal(own["backbone.fpn.out_convs.2.bn.k1.weight"], checkpoint["neck.out_convs.2.bn.weight"])


def test_init_coco_asks_for_the_file_of_its_backbone(
    monkeypatch: pytest.MonkeyPatch, checkpoint: dict[str, Tensor]
) -> None:
    asked: list[str] = []

    def state(url: str) -> dict[str, Tensor]:
        asked.append(url)
        return checkpoint

    monkeypatch.setattr(init, "of_address", state)
    detector = Detector(published("tiny", 96))
    # The names here are numbers, of which COCO knows none.
    assert init.from_coco(detector).rows.startswith("the head keeps no row of a class")
    assert asked[0].endswith("/rtmdet_tiny_8xb32-300e_coco_20220902_112414-78e30dcc.pth")
    assert torch.equal(detector.core.head.rtm_reg[2].bias, checkpoint["bbox_head.rtm_reg.2.bias"])


@pytest.mark.parametrize(
    "changes",
    [{"backbone": "cspnext_nano"}, {"width": 0.5}, {"channels": 64}, {"head_convs": 1}, {"norm": "group"}],
)
def test_init_coco_is_refused_for_other_networks(changes: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="cspnext_tiny, cspnext_s"):
        init.from_coco(Detector(replace(published("tiny", 96), **changes)))  # type: ignore[arg-type]


def test_without_a_network_it_says_what_else_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UsageError, match=r"cannot download https://download\.openmmlab\.com") as refused:
        init.from_coco(Detector(published("tiny", 96)))
    assert refused.value.code == "download-failed"
    assert refused.value.hint == download.OFFLINE_HINT


def test_imagenet_weights_of_cspnext_are_not_torchvisions() -> None:
    with pytest.raises(UsageError, match="torchvision has no weights of cspnext_nano"):
        init.from_imagenet(Detector(rtmdet()))
