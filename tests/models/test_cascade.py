"""Cascade Mask R-CNN beside formulas that are written here: matching, losses, decoding of boxes, means of stages."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.specs import spec, target
from torch import Tensor, nn
from torchvision.ops import batched_nms, box_iou, roi_align

from msad_cli.errors import UsageError
from msad_cli.models.cost import count_cost
from msad_cli.models.detector import Detector
from msad_cli.models.spec import ClassName, Learning
from msad_cli.models.weights import initialise as init

OVERLAPS = (0.5, 0.6, 0.7)
DEVIATIONS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
WEIGHTS = (1.0, 0.5, 0.25)
SIZES = [(100, 120), (128, 128)]
"""Of two images, in pixels; the frame is 128 × 128."""


@pytest.fixture
def heads() -> Any:
    """Of two classes, with deltas that move boxes visibly; all proposals are sampled."""
    torch.manual_seed(0)
    detector = Detector(spec(detector="cascade_maskrcnn", learning=Learning(10_000), detections_per_image=10))
    for each in detector.kind.stages:  # type: ignore[attr-defined]
        nn.init.normal_(each.box_predictor.bbox_pred.weight, std=0.2)
        nn.init.normal_(each.box_predictor.cls_score.weight, std=0.2)
        nn.init.normal_(each.mask_predictor.mask_fcn_logits.weight, std=0.2)
    return detector.core.roi_heads


def features() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {str(i): torch.randn(2, 64, 128 // s, 128 // s, generator=generator) for i, s in enumerate((4, 8, 16, 32))}


def proposals() -> list[Tensor]:
    """Around the objects, from near to far, and elsewhere."""
    return [
        torch.tensor(
            [[12.0, 18.0, 62.0, 92.0], [20.0, 20.0, 60.0, 90.0], [30.0, 40.0, 80.0, 99.0], [80.0, 4, 118, 50]]
        ),
        torch.tensor([[4.0, 6.0, 50.0, 60.0], [55.0, 15.0, 125.0, 118.0], [70.0, 30.0, 120.0, 120.0]]),
    ]


def targets() -> list[dict[str, Tensor]]:
    """Masks have ones in the upper half of the image."""
    found = [target([10.0, 20.0, 60.0, 90.0]), target([5.0, 5.0, 50.0, 60.0], [60.0, 10.0, 120.0, 120.0])]
    found[1]["labels"] = torch.tensor([2, 1])
    for each, size in zip(found, SIZES, strict=True):
        each["masks"] = torch.zeros(len(each["boxes"]), *size, dtype=torch.uint8)
        each["masks"][:, :50] = 1
    return found


def moved(boxes: Tensor, deltas: Tensor, deviations: tuple[float, ...], size: tuple[int, int]) -> Tensor:
    """Boxes (R, 4) after their deltas (R, 4), clipped."""
    rows = []
    for (x0, y0, x1, y1), (dx, dy, dw, dh) in zip(
        boxes.tolist(), (deltas * torch.tensor(deviations)).tolist(), strict=True
    ):
        width, height = x1 - x0, y1 - y0
        x, y = x0 + width / 2 + dx * width, y0 + height / 2 + dy * height
        half = width * math.exp(dw) / 2, height * math.exp(dh) / 2
        corners = (x - half[0], y - half[1], x + half[0], y + half[1])
        rows.append([min(max(each, 0), size[1 - i % 2]) for i, each in enumerate(corners)])
    return torch.tensor(rows)


def predicted(stage: Any, maps: dict[str, Tensor], boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Class logits (R, 3) and deltas (R, 4) of one stage."""
    read = stage.box_head(stage.box_roi_pool(maps, boxes, SIZES))
    return stage.box_predictor.cls_score(read), stage.box_predictor.bbox_pred(read)


def masks_of(stage: Any, maps: dict[str, Tensor], boxes: list[Tensor]) -> Tensor:
    """Logits of each class's mask (R, 3, 28, 28) of one stage."""
    found: Tensor = stage.mask_predictor(stage.mask_head(stage.mask_roi_pool(maps, boxes, SIZES)))
    return found


@torch.no_grad()
def test_losses_by_the_definition(heads: Any) -> None:
    maps, true = features(), targets()
    heads.train()
    _, found = heads(maps, proposals(), SIZES, true)
    expected = dict.fromkeys(("loss_classifier", "loss_box_reg", "loss_mask"), 0.0)
    boxes, positives = proposals(), []
    for stage, overlap, deviations, weight in zip(heads.stages, OVERLAPS, DEVIATIONS, WEIGHTS, strict=True):
        rois = [torch.cat([each, one["boxes"]]) for each, one in zip(boxes, true, strict=True)]
        logits, deltas = predicted(stage, maps, rois)
        best = [box_iou(each, one["boxes"]).max(dim=1) for each, one in zip(rois, true, strict=True)]
        objects = [each.values >= overlap for each in best]
        positives.append(int(torch.cat(objects).sum()))
        labels = torch.cat(
            [one["labels"][each.indices] * some for one, each, some in zip(true, best, objects, strict=True)]
        )
        expected["loss_classifier"] += weight * float(-logits.log_softmax(1)[range(len(labels)), labels].mean())
        # What is to be predicted: the way to the object in sides of the RoI, over the stage's deviations.
        own = torch.cat([one["boxes"][each.indices] for one, each in zip(true, best, strict=True)])
        at = torch.cat(rois)
        sides, wanted_sides = at[:, 2:] - at[:, :2], own[:, 2:] - own[:, :2]
        way = (own[:, :2] + own[:, 2:] - at[:, :2] - at[:, 2:]) / 2 / sides
        wanted = torch.cat([way, (wanted_sides / sides).log()], dim=1) / torch.tensor(deviations)
        apart = (deltas - wanted)[labels > 0].abs()
        smooth = torch.where(apart < 1, apart**2 / 2, apart - 0.5)
        expected["loss_box_reg"] += weight * float(smooth.sum() / len(labels))
        where = [each[some] for each, some in zip(rois, objects, strict=True)]
        own_masks = masks_of(stage, maps, where)[range(positives[-1]), labels[labels > 0]]
        whole = [one["masks"][:1, None].float() for one in true]  # all of an image are equal
        wanted_masks = [roi_align(mask, [each], 28)[:, 0] for mask, each in zip(whole, where, strict=True)]
        cross = F.binary_cross_entropy_with_logits(own_masks, torch.cat(wanted_masks))
        expected["loss_mask"] += weight * float(cross)
        counts = [len(each) for each in boxes]
        parts = deltas.split([len(each) for each in rois])
        boxes = [
            moved(each, delta[:count], deviations, size)
            for each, delta, count, size in zip(boxes, parts, counts, SIZES, strict=True)
        ]
    assert len(set(positives)) > 1  # the thresholds, and boxes that have moved, tell
    assert {name: loss.item() for name, loss in found.items()} == pytest.approx(expected, rel=1e-4)


@torch.no_grad()
def test_scores_and_masks_are_means_and_boxes_the_last_ones(heads: Any) -> None:
    maps = features()
    found, _ = heads.eval()(maps, proposals(), SIZES)
    boxes, shares = proposals(), []
    for stage, deviations in zip(heads.stages, DEVIATIONS, strict=True):
        logits, deltas = predicted(stage, maps, boxes)
        shares.append(logits.softmax(dim=1))
        parts = deltas.split([len(each) for each in boxes])
        boxes = [moved(*each[:2], deviations, each[2]) for each in zip(boxes, parts, SIZES, strict=True)]
    scores = torch.stack(shares).mean(dim=0).split([len(each) for each in boxes])
    wanted = []
    for own, score in zip(boxes, scores, strict=True):
        rows, classes = (score[:, 1:] > 0.05).nonzero().unbind(dim=1)
        kept = batched_nms(own[rows], score[rows, classes + 1], classes, 0.5)
        wanted.append((own[rows][kept], score[rows, classes + 1][kept], classes[kept] + 1))
    logits = torch.stack([masks_of(stage, maps, [each[0] for each in wanted]) for stage in heads.stages])
    labels = torch.cat([each[2] for each in wanted])
    masks = logits.sigmoid().mean(dim=0)[range(len(labels)), labels][:, None]
    for each, (own, score, label), mask in zip(
        found, wanted, masks.split([len(each[0]) for each in wanted]), strict=True
    ):
        assert len(own) > 1
        assert each["labels"].tolist() == label.tolist()
        for name, value in (("boxes", own), ("scores", score), ("masks", mask)):
            torch.testing.assert_close(each[name], value, rtol=1e-4, atol=1e-4)


def test_stages_sample_a_quarter_of_objects_at_most() -> None:
    """32 RoIs an image, of 100 proposals at an object and 100 elsewhere: 8 stand for it."""
    detector = Detector(spec(detector="cascade_maskrcnn", learning=Learning(32)))
    near, far = torch.tensor([10.0, 20.0, 60.0, 90.0]).expand(100, 4), torch.tensor([80.0, 4, 118, 50]).expand(100, 4)
    for stage in detector.kind.stages:  # type: ignore[attr-defined]
        _, _, (labels,), _ = stage.select_training_samples([torch.cat([near, far])], [targets()[0]])
        assert (len(labels), int((labels > 0).sum())) == (32, 8)


def test_it_costs_three_heads_of_boxes_and_three_of_masks() -> None:
    """By hand, for COCO's 80 classes: 1000 proposals and 100 masks."""
    classes = tuple(ClassName(i, str(i)) for i in range(80))
    whole = spec(
        detector="cascade_maskrcnn", backbone="resnet50", width=1.0, channels=256, head_convs=4, classes=classes
    )
    cost = count_cost(whole, "high", [(256, 384)])
    boxes = 256 * 49 * 1024 + 1024 * 1024 + 1024 * (81 + 4)
    layers = 4 * 9 * 256 * 256
    masks = 14**2 * (layers + 4 * 256 * 256) + 28**2 * 256 * 81
    assert cost.macs["roi"] == 3 * (1000 * boxes + 100 * masks)
    biases = 1024 + 1024 + 81 + 4 + 5 * 256 + 81
    assert cost.parameters["roi"] == 3 * (boxes + layers + 4 * 256 * 256 + 256 * 81 + biases)


def test_what_it_has_not_is_said() -> None:
    with pytest.raises(UsageError, match="msad knows no published weights of cascade_maskrcnn"):
        init.from_coco(Detector(spec(detector="cascade_maskrcnn")))
    with pytest.raises(ValueError, match="would need level P0"):
        spec(detector="cascade_maskrcnn", ks=(1, 4))
