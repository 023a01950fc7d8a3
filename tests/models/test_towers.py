"""What distillers need of torchvision's detectors: towers cut in two, boxes, anchors and positives."""

from collections.abc import Sequence

import pytest
import torch
from support.detectors import stock
from support.specs import spec, target
from support.training import TARGETS
from torch import Tensor

from msad_cli.frame import Frame
from msad_cli.models.detector import Detector
from msad_cli.models.detectors.anchors import anchors_of_images
from msad_cli.models.detectors.base import Target, Tower
from msad_cli.models.detectors.dense import DenseKind

FRAME = Frame(((128, 256), (100, 250)), (128, 256))
TOWERS: tuple[Tower, ...] = ("classification", "regression")


def pyramid(finest: int = 8, channels: int = 64) -> list[Tensor]:
    """Of the frame, random; the finest level has this stride."""
    generator = torch.Generator().manual_seed(3)
    strides = [finest * 2**i for i in range(5)]
    return [torch.randn(2, channels, 128 // s, 256 // s, generator=generator) for s in strides]


def detector(name: str, **changes: object) -> Detector:
    torch.manual_seed(0)
    return Detector(spec(detector=name, keypoints=("nose",) if name == "keypointrcnn" else (), **changes))


@pytest.mark.parametrize("name", ["fcos", "retinanet"])
@pytest.mark.parametrize(("depthwise", "norm"), [(False, "group"), (True, "group"), (False, "batch"), (True, "batch")])
@pytest.mark.parametrize("convs", [0, 1, 3, 4])
@torch.no_grad()
def test_the_first_convolutions_and_the_rest_are_the_head(name: str, depthwise: bool, norm: str, convs: int) -> None:
    whole = detector(name, head_convs=4, head_depthwise=depthwise, head_norm=norm).eval()
    for each in whole.core.head.parameters():
        # Small as they begin, outputs would hardly depend on what comes in.
        torch.nn.init.normal_(each, std=0.2)
    maps = pyramid()
    expected = whole.outputs(maps)
    found: dict[str, Tensor] = {}
    for tower in TOWERS:
        found |= whole.kind.tower_outputs(tower, whole.kind.tower_start(tower, maps, convs), convs)
    assert found.keys() == expected.keys()
    for output, value in expected.items():
        torch.testing.assert_close(found[output], value)


@pytest.mark.parametrize("name", ["fcos", "retinanet"])
@torch.no_grad()
def test_the_start_has_both_signs_and_is_left_as_it_was(name: str) -> None:
    whole = detector(name, head_convs=2, head_depthwise=True)
    start = whole.kind.tower_start("classification", pyramid(), 1)
    kept = [each.clone() for each in start]
    whole.kind.tower_outputs("classification", start, 1)
    assert all(torch.equal(a, b) and a.min() < 0 < a.max() for a, b in zip(start, kept, strict=True))


@pytest.mark.parametrize("name", ["fcos", "retinanet"])
def test_boxes_are_those_that_the_detector_would_predict(name: str) -> None:
    whole = detector(name)
    maps = pyramid()
    outputs = whole.outputs(maps)
    outputs["bbox_regression"] = torch.rand_like(outputs["bbox_regression"]).requires_grad_()
    boxes = whole.boxes(maps, FRAME, outputs)
    assert boxes.shape == outputs["bbox_regression"].shape
    grids = [each.shape[-2] * each.shape[-1] for each in maps]
    per_cell = boxes.shape[1] // sum(grids)
    anchors = whole.core.anchor_generator.cell_anchors
    # The cell in the third row and fifth column of the finest level, whose stride is 8: around (32, 16).
    place = (2 * 32 + 4) * per_cell
    around = torch.tensor([32.0, 16.0, 32.0, 16.0]) + anchors[0][0]
    code = outputs["bbox_regression"][1, place]
    if name == "fcos":
        expected = torch.stack([32 - 8 * code[0], 16 - 8 * code[1], 32 + 8 * code[2], 16 + 8 * code[3]])
    else:
        expected = whole.core.box_coder.decode_single(code[None], around[None])[0]
    torch.testing.assert_close(boxes[1, place], expected)
    boxes.sum().backward()
    assert outputs["bbox_regression"].grad is not None


@pytest.mark.parametrize(
    ("name", "finest", "count"),
    [
        ("fcos", 8, 9),
        ("retinanet", 8, 9),
        ("reppoints", 8, 9),
        ("fasterrcnn", 4, 3),
        ("maskrcnn", 4, 3),
        ("cascade_maskrcnn", 4, 3),
        ("keypointrcnn", 4, 3),
    ],
)
@torch.no_grad()
def test_object_anchors_stand_around_their_cells(name: str, finest: int, count: int) -> None:
    maps = pyramid(finest)
    levels = detector(name).kind.object_anchors(maps, FRAME)
    for i, (level, each) in enumerate(zip(levels, maps, strict=True)):
        cells, stride = each.shape[-2] * each.shape[-1], finest * 2**i
        assert level.shape == (cells, count, 4)
        # The second cell of a row is one stride to the right of the first.
        torch.testing.assert_close(level[1] - level[0], torch.tensor([stride, 0.0, stride, 0.0]).expand(count, 4))
        # The smallest anchor's area, 32² pixels at the finest level, quadruples from level to level; corners are whole.
        sides = level[0, :, 2:] - level[0, :, :2]
        assert sides.prod(dim=1).min().sqrt().item() == pytest.approx(32 * 2**i, rel=0.03)


@torch.no_grad()
def test_fcos_borrows_retinanets_anchors() -> None:
    maps = pyramid()
    both = [detector(name).kind.object_anchors(maps, FRAME) for name in ("fcos", "retinanet")]
    for mine, theirs in zip(*both, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("name", ["fcos", "retinanet"])
@pytest.mark.parametrize(
    "targets",
    [
        TARGETS,
        [target([0.0, 0.0, 7.0, 9.0], [3.0, 1.0, 250.0, 120.0]), target([90.0, 40.0, 150.0, 100.0])],
        [target([10.0, 20.0, 60.0, 90.0]), {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}],
    ],
)
def test_positives_are_those_of_torchvision_and_fcos_weighs_them(
    name: str, targets: Sequence[Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = pyramid()
    theirs = stock(name)
    anchors, per_level = anchors_of_images(theirs.anchor_generator, maps, FRAME)
    seen: list[Tensor] = []

    def compute_loss(*arguments: list[Tensor]) -> dict[str, Tensor]:
        seen.extend(arguments[-1])
        return {}

    monkeypatch.setattr(theirs.head, "compute_loss", compute_loss)
    theirs.compute_loss(list(targets), {}, anchors, *([per_level] if name == "fcos" else []))
    positive = [each >= 0 for each in seen]
    expected = float(sum(each.sum() for each in positive))
    assert expected > 0
    if name == "fcos":
        # Centreness of equation 3 of the paper (Tian et al., 2019), from torchvision's own distances to the sides.
        boxes = [each["boxes"][found[some]] for each, found, some in zip(targets, seen, positive, strict=True)]
        where = [each[some] for each, some in zip(anchors, positive, strict=True)]
        left, top, right, bottom = theirs.box_coder.encode(torch.cat(where), torch.cat(boxes)).unbind(dim=1)
        axes = [torch.minimum(*each) / torch.maximum(*each) for each in ((left, right), (top, bottom))]
        expected = (axes[0] * axes[1]).sqrt().sum().item()
    found = detector(name).kind.weigh_positives(maps, FRAME, targets)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_centreness_by_hand() -> None:
    """The middle of an object, and a place 1/4 from its left and 1/5 from its upper side: √(1/3 · 1/4)."""
    middles = torch.tensor([[8.0, 10.0], [4.0, 4.0]])
    anchors = torch.cat([middles - 4, middles + 4], dim=1)
    kind = detector("fcos").kind
    assert isinstance(kind, DenseKind)
    found = kind.positive_weights(anchors, torch.tensor([[0.0, 0.0, 16.0, 20.0]]).expand(2, 4))
    torch.testing.assert_close(found, torch.tensor([1.0, (1 / 12) ** 0.5]))


@pytest.mark.parametrize("name", ["fcos", "retinanet"])
def test_without_objects_there_are_no_positives(name: str) -> None:
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    assert detector(name).kind.weigh_positives(pyramid(), FRAME, [empty, empty]).item() == 0
