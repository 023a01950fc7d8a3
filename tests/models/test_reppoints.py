"""RepPoints beside formulas that are written here, cell by cell and point by point."""

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from support.specs import spec, target
from torch import Tensor
from torchvision.ops import DeformConv2d, box_iou

from msad_cli.errors import UsageError
from msad_cli.frame import Frame
from msad_cli.models.cost import count_cost
from msad_cli.models.detector import Detector
from msad_cli.models.detectors import points as of_points
from msad_cli.models.detectors.point_matches import by_overlap, by_place
from msad_cli.models.spec import ClassName
from msad_cli.models.weights import initialise as init
from msad_cli.training.starting import foretold

STRIDES = (8, 16, 32, 64, 128)
FRAME = Frame(((128, 128),) * 3, (128, 128))


def reppoints(**changes: object) -> Detector:
    torch.manual_seed(0)
    return Detector(spec(detector="reppoints", **{"role": "student", "ks": (1,), **changes}))


def maps(count: int = 3) -> list[Tensor]:
    """A pyramid of the frame, of which only the shapes count."""
    return [torch.empty(count, 64, 128 // s, 128 // s) for s in STRIDES]


def cells() -> Iterator[tuple[int, int, int]]:
    """Stride, x and y of each cell of the frame, in order."""
    for s in STRIDES:
        yield from ((s, x, y) for y in range(0, 128, s) for x in range(0, 128, s))


# The head.


def value_at(plane: Tensor, y: float, x: float) -> Tensor:
    """Between the cells of a plane (C, h, w), beyond which there is 0: (C,), by its four neighbours."""
    found = torch.zeros(len(plane))
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < plane.shape[1] and 0 <= column < plane.shape[2]:
                found += plane[:, row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return found


@torch.no_grad()
def test_the_head_reads_where_its_first_points_are() -> None:
    head = reppoints(head_convs=2).core.head
    for each in head.parameters():
        torch.nn.init.normal_(each, std=0.1)
    torch.nn.init.normal_(head.first_points.weight)
    pyramid = [torch.randn(1, 64, 3, 4), torch.randn(1, 64, 2, 2)]
    found = head(pyramid)
    rows: dict[str, list[Tensor]] = {"cls_logits": [], "bbox_regression": [], "bbox_first": []}

    def box(points: list[tuple[Tensor, Tensor]]) -> Tensor:
        y, x = (torch.stack(each) for each in zip(*points, strict=True))
        sd = [((each - each.mean()) ** 2).sum().div(8).sqrt() for each in (x, y)]
        half, middle = torch.stack(sd) * head.spread.exp(), torch.stack([x.mean(), y.mean()])
        return torch.cat([half - middle, half + middle])

    apart = 0.0
    for level in pyramid:
        towers = []
        for tower in (head.class_tower, head.point_tower):
            x = level
            for conv, norm, _ in tower:
                x = F.relu(F.group_norm(F.conv2d(x, conv.weight, padding=1), 32, norm.weight, norm.bias))
            towers.append(x)
        first = F.conv2d(towers[1], head.first_conv.weight, head.first_conv.bias, padding=1).relu()
        first = F.conv2d(first, head.first_points.weight, head.first_points.bias)[0]
        apart += float(first.abs().mean())
        for row in range(level.shape[2]):
            for column in range(level.shape[3]):
                own = first[:, row, column]
                points = [(own[2 * i], own[2 * i + 1]) for i in range(9)]
                read = []
                for conv, tower in ((head.class_conv, towers[0]), (head.refine_conv, towers[1])):
                    sums = torch.zeros(64)
                    for i, (y, x) in enumerate(points):
                        there = value_at(tower[0], row + float(y), column + float(x))
                        sums += conv.weight[:, :, i // 3, i % 3] @ there
                    read.append(sums.relu())
                rows["cls_logits"].append(head.cls_logits.weight[:, :, 0, 0] @ read[0] + head.cls_logits.bias)
                delta = head.refined_points.weight[:, :, 0, 0] @ read[1] + head.refined_points.bias
                rows["bbox_first"].append(box(points))
                moved = [(y + delta[2 * i], x + delta[2 * i + 1]) for i, (y, x) in enumerate(points)]
                rows["bbox_regression"].append(box(moved))
    assert apart / len(pyramid) > 0.5  # points that are no whole cells away, and some beyond the edge
    for name, expected in rows.items():
        torch.testing.assert_close(found[name][0], torch.stack(expected), rtol=1e-4, atol=1e-4)


def read_by(conv: DeformConv2d) -> tuple[Tensor, Tensor]:
    """Maps (2, 8, 5, 7) and offsets up to several cells, some of them far beyond the edge."""
    offsets = 3 * torch.randn(2, 18, 5, 7)
    offsets[0, :2] = torch.tensor((1e9, -1e9)).view(2, 1, 1)
    return torch.randn(2, conv.in_channels, 5, 7, requires_grad=True), offsets.requires_grad_()


def test_a_cpu_reads_what_torchvisions_deformable_convolution_reads() -> None:
    """Values and all gradients, of places within, at the edge and outside."""
    torch.manual_seed(0)
    conv = DeformConv2d(8, 4, 3, padding=1, bias=False)
    inputs, slope = read_by(conv), torch.randn(2, 4, 5, 7)
    expected, found = conv(*inputs), of_points.sampled(conv.weight, *inputs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    theirs, own = (torch.autograd.grad(each, (*inputs, conv.weight), slope) for each in (expected, found))
    assert all(float(each.abs().max()) > 0.1 for each in theirs)
    torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-4)


def test_infinitely_far_away_is_nothing() -> None:
    """There torchvision's gradients are no numbers."""
    torch.manual_seed(0)
    conv = DeformConv2d(8, 4, 3, padding=1, bias=False)
    inputs = read_by(conv)
    with torch.no_grad():
        inputs[1][1, :2] = torch.tensor((math.inf, -math.inf)).view(2, 1, 1)
    found = of_points.sampled(conv.weight, *inputs)
    torch.testing.assert_close(found, conv(*inputs), rtol=1e-4, atol=1e-5)
    assert all(bool(each.isfinite().all()) for each in torch.autograd.grad(found.sum(), (*inputs, conv.weight)))


def test_a_pseudo_box_by_hand() -> None:
    """Points at x = −4 … 4 and y = 2 throughout: mean 0, variance 60 / 8; a spread of ln 2 doubles it."""
    head = reppoints().core.head
    head.spread.data.fill_(math.log(2))
    points = torch.stack([torch.full((9,), 2.0), torch.arange(-4.0, 5.0)], dim=1).flatten()[None, None]
    half = 2 * math.sqrt(60 / 8)
    boxes = head.distances(points)
    torch.testing.assert_close(boxes[0, 0], torch.tensor([half, -2.0, half, 2.0]))
    # Right and left grow with the spread, of whose gradient a hundredth arrives.
    boxes[..., [0, 2]].sum().backward()
    torch.testing.assert_close(head.spread.grad, torch.tensor([0.01 * 2 * half, 0.0]))


def test_a_tenth_of_the_gradient_moves_the_points_that_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    slopes = []
    for share in (of_points.GUIDED, 1.0):
        monkeypatch.setattr(of_points, "GUIDED", share)
        head = reppoints().core.head
        torch.nn.init.normal_(head.first_points.weight, std=0.3)
        outputs = head([torch.randn(1, 64, 4, 4, generator=torch.Generator().manual_seed(1))])
        # The refined box begins at the first points, and does not move them: what moves them is where they read.
        whole = outputs["cls_logits"].sum() + outputs["bbox_regression"].sum()
        slopes.append(torch.autograd.grad(whole, head.first_points.bias)[0])
    assert float(slopes[1].abs().max()) > 1e-4
    torch.testing.assert_close(slopes[0], 0.1 * slopes[1])


# Assignment and losses.


def objects() -> list[dict[str, Tensor]]:
    """Of three images: two that want the same cell and one of a level of its own, none, and a thin one."""
    some = target([14.0, 16.0, 50.0, 52.0], [10.0, 12.0, 50.0, 52.0], [0.0, 0.0, 127.0, 120.0])
    some["labels"] = torch.tensor([2, 1, 1])
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return [some, none, target([60.0, 3.0, 63.0, 100.0])]


def place_by_loops(boxes: Tensor) -> dict[int, int]:
    found: dict[int, tuple[float, int]] = {}
    for number, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        level = min(7, max(3, int((math.log2((x1 - x0) / 4) + math.log2((y1 - y0) / 4)) / 2)))
        apart = [
            math.hypot((x - (x0 + x1) / 2) / (x1 - x0), (y - (y0 + y1) / 2) / (y1 - y0)) if s == 2**level else math.inf
            for s, x, y in cells()
        ]
        nearest = min(apart)
        cell = apart.index(nearest)
        if cell not in found or nearest < found[cell][0]:
            found[cell] = (nearest, number)
    return {cell: number for cell, (_, number) in found.items()}


def overlap_by_loops(boxes: Tensor, true: Tensor) -> dict[int, int]:
    """Of each cell its object, or −2 between the thresholds; the background's cells are not there."""
    ious = box_iou(boxes, true).tolist()
    found = {}
    for cell, row in enumerate(ious):
        best = max(row, default=0.0)
        if best >= 0.4:
            found[cell] = row.index(best) if best >= 0.5 else -2
    for number in range(len(true)):
        column = [row[number] for row in ious]
        if max(column) > 0:
            found[column.index(max(column))] = number
    return found


def predicted() -> tuple[Tensor, dict[str, Tensor]]:
    """Places and strides of all cells, and outputs for three images: first boxes some of which meet objects."""
    generator = torch.Generator().manual_seed(3)
    places = torch.tensor([[x, y] for _, x, y in cells()], dtype=torch.float32)
    sides = [1 + 2 * torch.rand(3, len(places), 4, generator=generator) for _ in range(2)]
    logits = 2 * torch.randn(3, len(places), 2, generator=generator)
    return places, {"cls_logits": logits, "bbox_first": sides[0], "bbox_regression": sides[1]}


def boxes_by_hand(distances: Tensor) -> Tensor:
    rows = [
        [x - s * left, y - s * top, x + s * right, y + s * bottom]
        for (s, x, y), (left, top, right, bottom) in zip(cells(), distances.tolist(), strict=True)
    ]
    return torch.tensor(rows)


def test_cells_have_objects_by_the_definition() -> None:
    places, outputs = predicted()
    strides = torch.tensor([s for s, *_ in cells()]).float()
    shared = neither = 0
    for image, true in enumerate(objects()):
        found = by_place(places, strides, true["boxes"])
        expected = place_by_loops(true["boxes"])
        assert {cell: int(found[cell]) for cell in range(len(found)) if found[cell] >= 0} == expected
        shared += len(true["boxes"]) - len(expected)
        first = boxes_by_hand(outputs["bbox_first"][image])
        matched = by_overlap(first, true["boxes"])
        wanted = overlap_by_loops(first, true["boxes"])
        assert {cell: int(matched[cell]) for cell in range(len(matched)) if matched[cell] != -1} == wanted
        neither += list(wanted.values()).count(-2)
    assert (shared, neither > 0) == (1, True)


def test_an_object_that_no_box_meets_half_way_has_its_best_one() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [4.0, 0.0, 6.0, 10.0], [50.0, 50.0, 60.0, 60.0]])
    true = torch.tensor([[0.0, 0.0, 40.0, 10.0], [80.0, 80.0, 90.0, 90.0]])
    assert by_overlap(boxes, true).tolist() == [0, -1, -1]  # IoU 0.25 and 0.05; nobody meets the second


def smooth_l1(apart: float, beta: float = 1 / 9) -> float:
    return apart**2 / (2 * beta) if apart < beta else apart - beta / 2


def focal(logit: float, wanted: bool) -> float:
    """α = 0.25, γ = 2."""
    p = 1 / (1 + math.exp(-logit))
    return -0.25 * (1 - p) ** 2 * math.log(p) if wanted else -0.75 * p**2 * math.log(1 - p)


def test_losses_by_loops() -> None:
    detector = reppoints()
    _, outputs = predicted()
    found = detector.kind.losses(maps(), FRAME, objects(), outputs)
    sums = dict.fromkeys(("classification", "bbox_first", "bbox_regression"), 0.0)
    counts = dict.fromkeys(sums, 0)
    for image, true in enumerate(objects()):
        first, refined = (boxes_by_hand(outputs[name][image]) for name in ("bbox_first", "bbox_regression"))
        by_box = overlap_by_loops(first, true["boxes"])
        pairs = {"bbox_first": (first, place_by_loops(true["boxes"])), "bbox_regression": (refined, by_box)}
        for name, (boxes, matches) in pairs.items():
            for cell, (stride, *_) in enumerate(cells()):
                if matches.get(cell, -1) >= 0:
                    counts[name] += 1
                    own = true["boxes"][matches[cell]]
                    sums[name] += sum(smooth_l1(abs(float(each)) / (4 * stride)) for each in boxes[cell] - own)
        for cell, logits in enumerate(outputs["cls_logits"][image].tolist()):
            match = by_box.get(cell, -1)
            if match != -2:
                label = int(true["labels"][match]) if match >= 0 else 0
                sums["classification"] += sum(focal(x, label == i) for i, x in enumerate(logits, start=1))
    counts["classification"] = counts["bbox_regression"]
    assert counts["bbox_first"] == 3
    assert counts["bbox_regression"] > 3
    weights = {"classification": 1, "bbox_first": 0.5, "bbox_regression": 1}
    assert {name: loss.item() for name, loss in found.items()} == pytest.approx(
        {name: weights[name] * sums[name] / counts[name] for name in sums}, rel=1e-4
    )


def test_weights_of_classes_weigh_gradients_alone() -> None:
    detector = reppoints()
    found = []
    for weights in (None, torch.tensor([1.0, 3.0, 0.0])):
        detector.kind.class_weights = weights
        _, outputs = predicted()
        logits = outputs["cls_logits"].requires_grad_()
        loss = detector.kind.losses(maps(), FRAME, objects(), outputs)["classification"]
        found.append((loss.detach(), torch.autograd.grad(loss, logits)[0]))
    torch.testing.assert_close(found[1][0], found[0][0])
    torch.testing.assert_close(found[1][1], found[0][1] * torch.tensor([3.0, 0.0]))


# Detection, cost, weights.


def test_each_level_has_its_own_candidates() -> None:
    """4096 cells of the finest level stand for one object, with better scores than the coarsest one's only cell of
    another: 1000 pairs a level are looked at."""
    detector = reppoints()
    frame = Frame(((512, 512),), (512, 512))
    pyramid = [torch.empty(1, 64, 512 // s, 512 // s) for s in STRIDES]
    count = sum((512 // s) ** 2 for s in STRIDES)
    logits = torch.full((1, count, 2), -9.0)
    logits[0, :4096, 0] = 2.0
    logits[0, -1, 0] = 0.0
    distances = torch.ones(1, count, 4)
    places = torch.tensor([[x, y] for y in range(0, 512, 8) for x in range(0, 512, 8)]) / 8
    distances[0, :4096] = torch.cat([places - 1, 9 - places], dim=1)  # all from 8 to 72
    (found,) = detector.kind.detect(pyramid, frame, {"cls_logits": logits, "bbox_regression": distances})
    torch.testing.assert_close(found["scores"], torch.tensor([2.0, 0.0]).sigmoid())
    # The last cell of stride 128 stands at 384, and reaches a stride to each side.
    assert found["boxes"].tolist() == [[8, 8, 72, 72], [256, 256, 512, 512]]


def test_the_published_head_costs_what_its_layers_multiply() -> None:
    """By hand, for COCO's 80 classes: towers of three 3×3 convolutions of 256, three more 3×3 ones, of which two are
    deformable, and 1×1 ones to 18, 18 and 80; cells of P3 … P7 of 256 × 384 pixels."""
    classes = tuple(ClassName(i, str(i)) for i in range(80))
    whole = spec(detector="reppoints", backbone="resnet50", width=1.0, channels=256, head_convs=3, classes=classes)
    cost = count_cost(whole, "high", [(256, 384)])
    of_cells = sum(256 * 384 // 4**level for level in range(3, 8))
    weights = 9 * 9 * 256 * 256 + 256 * (18 + 18 + 80)
    assert cost.macs["head"] == of_cells * weights
    # Biases and the normalisations of both towers, and the two scalars.
    assert cost.parameters["head"] == weights + 256 + 18 + 18 + 80 + 6 * 2 * 256 + 2


def test_what_it_has_not_is_said() -> None:
    detector = reppoints()
    with pytest.raises(UsageError, match="msad knows no published weights of reppoints"):
        init.from_coco(detector)
    with pytest.raises(UsageError, match="msad knows no published weights of reppoints"):  # before a run begins
        foretold(detector.spec, "coco", False)
    with pytest.raises(UsageError, match="reppoints has not towers"):
        detector.kind.tower_start("classification", maps(), 1)
