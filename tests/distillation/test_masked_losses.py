"""The masked distillers and FGD: against values by hand, at their minimum, on every kind of detector."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.specs import spec, target
from support.training import TARGETS, total, views
from torch import Tensor, nn

from msad_cli.distillation.distillation import Distillation, teaching
from msad_cli.distillation.knowledge import Knowledge, best_view, student_view
from msad_cli.distillation.losses.dsamkd import output_weight
from msad_cli.distillation.losses.fgd import Context, masks
from msad_cli.distillation.losses.mgd import random_mask
from msad_cli.distillation.losses.samkd import by_region, region_weight
from msad_cli.distillation.losses.table import DISTILLERS, build_distillers
from msad_cli.distillation.parts.attention import channel_attention, spatial_attention, without_top
from msad_cli.distillation.parts.differing_outputs import difference_weight
from msad_cli.distillation.unaligned import unaligned_teacher
from msad_cli.frame import Frame
from msad_cli.models.detector import Detector

METHODS = ("mgd", "amd", "dmkd", "dsamkd", "samkd", "fgd")
FRAME = Frame(((16, 16),), (16, 16))
NO_BOXES = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}

# Channel 0 is ln 1, ln 2, ln 3, ln 4 and channel 1 is 0: the mean over both, divided by t = 1/2, is ln 1 … ln 4.
LOGS = torch.tensor([[[[0.0, math.log(2)], [math.log(3), math.log(4)]], [[0.0, 0.0], [0.0, 0.0]]]])

# Of the student, the cells and the channel that LOGS attends to least are the strongest.
OPPOSITE = torch.tensor([[[[2.0, 2.0], [1.0, 1.0]], [[4.0, 4.0], [2.0, 2.0]]]])


def build(
    name: str, channels: int = 2, dense: bool = True, of_teacher: int | None = None, detector: str = ""
) -> nn.Module:
    """A distiller between networks that do not exist."""
    kind: dict[str, Any] = {"family": "two-stage", "dense": False, "finest_level": 2, "detector": detector}
    if dense:
        kind |= {"family": "dense", "dense": True, "finest_level": 3}
    own, theirs = (
        SimpleNamespace(channels=each, levels=range(3, 8), **kind) for each in (channels, of_teacher or channels)
    )
    return DISTILLERS[name][0](own, theirs)


def pyramid(finest: Tensor) -> list[Tensor]:
    """A map and four coarser ones of a single cell that say nothing."""
    return [finest, *[torch.zeros(*finest.shape[:2], 1, 1)] * 4]


def known(finest: Tensor) -> Knowledge:
    """A dense network's knowledge: one map, and outputs of a single cell that are 0."""
    return _framed(pyramid(finest), torch.zeros(len(finest), 1, 1))


def random_known(seed: int, channels: int = 4, sides: Sequence[int] = (16, 8, 4, 2, 1)) -> Knowledge:
    """A dense network's knowledge of TARGETS' two images."""
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(2, channels, side, side, generator=generator) for side in sides]
    return _framed(maps, torch.randn(2, sum(side**2 for side in sides), 3, generator=generator))


def _framed(maps: list[Tensor], logits: Tensor) -> Knowledge:
    framed = Knowledge(None, maps, Frame(((128, 128),) * len(logits), (128, 128)), {})  # type: ignore[arg-type]
    vars(framed)["outputs"] = {"cls_logits": logits}
    return framed


def make_identity(distiller: nn.Module) -> None:
    """Every generator gives back what is not negative; 3×3 kernels with a 1 in the middle."""
    for each in distiller.modules():
        if isinstance(each, nn.Conv2d) and each.kernel_size == (3, 3) and each.bias is not None:
            nn.init.dirac_(each.weight)
            nn.init.zeros_(each.bias)


def values(losses: dict[str, Tensor]) -> dict[str, float]:
    return {name: loss.item() for name, loss in losses.items()}


def test_attention_by_hand() -> None:
    # softmax(ln 1 … ln 4) = 1/10 … 4/10, times 4 cells; the sign of the map is of no matter.
    signs = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    torch.testing.assert_close(spatial_attention(LOGS * signs), torch.tensor([[[0.4, 0.8], [1.2, 1.6]]]))
    # Means ±(ln 3)/2 and 0; divided by 1/2, softmax(ln 3, 0) = 3/4, 1/4, times 2 channels.
    maps = torch.tensor([-math.log(3) / 2, 0.0])[None, :, None, None].expand(1, 2, 2, 2)
    torch.testing.assert_close(channel_attention(maps), torch.tensor([[1.5, 0.5]]))


def test_attention_has_mean_1_at_any_size() -> None:
    maps = 30 * torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(spatial_attention(maps).mean(dim=(1, 2)), torch.ones(2))
    torch.testing.assert_close(channel_attention(maps).mean(dim=1), torch.ones(2))


def test_the_strongest_cells_are_hidden_image_by_image() -> None:
    attention = torch.tensor([[[0.4, 0.8], [1.2, 1.6]], [[9.0, 8.0], [7.0, 6.0]]])
    # 0.65 · 4 = 2.6 cells, rounded down.
    expected = torch.tensor([[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 1.0]]])
    assert torch.equal(without_top(attention, 0.65), expected)
    assert torch.equal(without_top(torch.ones(1, 1, 1), 0.65), torch.ones(1, 1, 1))


@pytest.mark.parametrize(("dense", "squares", "alpha"), [(True, 7.0, 2e-5), (False, 15.0, 5e-7)])
def test_mgd_by_hand(monkeypatch: pytest.MonkeyPatch, dense: bool, squares: float, alpha: float) -> None:
    """The map 1 2 3 4 against ones. Drawn are 0.1, 0.9, 0.7, 0.5: hidden is what is less than λ.

    λ = 0.65 leaves 0 2 3 0, of which 1 is 1, 1, 2, 1 off; λ = 0.45 leaves 0 2 3 4: 1, 1, 2, 3. Two images: mean.
    """
    drawn = torch.tensor([[0.1, 0.9], [0.7, 0.5]])
    monkeypatch.setattr(torch, "rand_like", lambda like: drawn.expand_as(like) if like.shape[-1] == 2 else like)
    student = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(2, 1, 2, 2)
    distiller = build("mgd", channels=1, dense=dense)
    make_identity(distiller)
    found = distiller(known(student), known(torch.ones(2, 1, 2, 2)), [])
    assert values(found) == pytest.approx({"generation": alpha * squares})


def test_mgds_mask_is_random_in_the_cells_and_one_for_all_channels() -> None:
    torch.manual_seed(0)
    maps = torch.randn(4, 3, 100, 100)
    torch.manual_seed(1)
    mask = random_mask(maps, 0.65)
    assert mask.shape == (4, 1, 100, 100)
    # 40,000 draws: a standard deviation of 0.0024.
    assert mask.mean().item() == pytest.approx(0.35, abs=0.01)
    assert not torch.equal(mask[0], mask[1])
    torch.manual_seed(1)
    assert torch.equal(random_mask(maps, 0.65), mask)


def test_amd_by_hand() -> None:
    """The lower row is what the teacher attends to most, and SE lets 3/4 of each channel pass.

    Generated is 3/2 above in channel 0, 3 in channel 1, and 0 below.
    """
    distiller = build("amd")
    make_identity(distiller)
    for each in distiller.modules():
        if isinstance(each, nn.Conv2d) and each.kernel_size == (1, 1):
            nn.init.zeros_(each.weight)
            nn.init.constant_(each.bias, math.log(3))  # type: ignore[arg-type]
    squares = 1.5**2 + (1.5 - math.log(2)) ** 2 + math.log(3) ** 2 + math.log(4) ** 2 + 2 * 3**2
    found = distiller(known(OPPOSITE), known(LOGS), [])
    assert values(found) == pytest.approx({"generation": 2e-5 * squares})


@pytest.mark.parametrize(
    ("name", "dense", "hidden"),
    [
        ("amd", True, (13,)),
        ("amd", False, (9,)),
        ("dmkd", True, (13, 10)),
        ("dmkd", False, (13, 10)),
        ("dsamkd", True, (10, 10)),
        ("samkd", True, (10, 10)),
    ],
)
def test_how_much_is_hidden(name: str, dense: bool, hidden: tuple[int, ...]) -> None:
    """Of 4 × 5 cells and 20 channels: 0.65, 0.45, 0.5; what is hidden is 0 where a generator begins."""
    distiller = build(name, channels=20, dense=dense)
    seen: list[Tensor] = []
    for each in distiller.modules():
        if isinstance(each, nn.Sequential) and len(each) == 3:
            each.register_forward_pre_hook(lambda _, maps: seen.append(maps[0][0]))
    maps = torch.rand(1, 20, 4, 5, generator=torch.Generator().manual_seed(0)) + 1
    distiller(known(maps), known(maps), [])
    cells = int((seen[0] == 0).all(dim=0).sum())
    channels = int((seen[1] == 0).flatten(1).all(dim=1).sum())
    assert (cells, channels)[: len(hidden)] == hidden


def test_dmkd_by_hand() -> None:
    """Hidden are the lower row, and channel 0; the balance softmax(ln 3, 0) is 3/4 to 1/4.

    Generated: channel 0 is 3/4·2 above and 0 below, channel 1 is 3/4·4 + 1/4·4 above and 1/4·2 below.
    """
    distiller = build("dmkd")
    make_identity(distiller)
    with torch.no_grad():
        for name, each in distiller.named_parameters():
            if name.endswith("balance"):
                each.copy_(torch.tensor([math.log(3), 0.0]))
    first = 1.5**2 + (1.5 - math.log(2)) ** 2 + math.log(3) ** 2 + math.log(4) ** 2
    second = 2 * 4**2 + 2 * 0.5**2
    found = distiller(known(OPPOSITE), known(LOGS), [])
    assert values(found) == pytest.approx({"generation": 2e-5 * (first + second)})


def test_dsamkds_features_by_hand() -> None:
    """At p = 1, 2 and 4, balance 1/2 to 1/2, attention 0.4, 0.8, 1.2, 1.6.

    p = 1: hidden are the lower row, and channel 0; generated is 1 1 0 0, and 4 4 1 1. p = 2, with p² = 4, and p = 4,
    with 16: a single cell, 2 and 4, whose teacher is ln 4 and 0; hidden is channel 0, and of one cell nothing.
    """
    distiller = build("dsamkd")
    make_identity(distiller)
    whole = 0.4 + 0.8 * (1 - math.log(2)) ** 2 + 1.2 * math.log(3) ** 2 + 1.6 * math.log(4) ** 2
    whole += (0.4 + 0.8) * 4**2 + 1.2 + 1.6
    pooled = (1 - math.log(4)) ** 2 + 4**2
    found = distiller(known(OPPOSITE), known(LOGS), [])
    assert found["features"].item() == pytest.approx(2e-5 / 3 * (whole + (4 + 16) * pooled))
    two_stage = build("dsamkd", dense=False)
    make_identity(two_stage)
    alone = two_stage(known(OPPOSITE), known(LOGS), [])
    assert values(alone) == pytest.approx({"features": 5e-7 / 3 * (whole + 20 * pooled)})


def test_dsamkds_weights_of_outputs_by_hand() -> None:
    # Of two classes, the larger differences are 0.1, 0.2, 0.3, 0.4: mean 0.25, and 0.1 is in the lower half.
    teacher = torch.tensor([[[0.5, 0.6], [0.7, 0.5], [0.5, 0.2], [0.9, 0.5]]]).logit()
    one, other = (_framed(pyramid(torch.zeros(1, 2, 1, 1)), logits) for logits in (torch.zeros(1, 4, 2), teacher))
    torch.testing.assert_close(output_weight(one, other), torch.tensor([[0.0, 0.8, 1.2, 1.6]]))
    # One cell in twenty differs: 20 times the mean, cut off at 5. The image beside it is weighed by its own mean.
    apart = torch.zeros(2, 20)
    apart[0, 3], apart[1] = 0.5, 0.2
    expected = torch.zeros(2, 20)
    expected[0, 3], expected[1] = 5.0, 1.0
    torch.testing.assert_close(difference_weight(apart), expected)
    assert not output_weight(one, one).any()


def test_samkds_features_by_hand() -> None:
    """At r = 1, 2 and 4; the balance is 1/2 to 1/2. The teacher's channel 0 is 1 + ln 1 … 1 + ln 4, channel 1 is 0.

    r = 1: attention and what is hidden are those of DSAMKD's p = 1; generated is 1 1 0 0, and 4 4 1 1. r = 2, and r = 4
    of a map of 2 × 2: each cell is a region, of attention 1, in which no cell and channel 0 is hidden; generated is
    1 1 1/2 1/2, and 4 4 2 2.
    """
    distiller = build("samkd")
    make_identity(distiller)
    wanted = [1 + math.log(each) for each in (1, 2, 3, 4)]
    teacher = torch.tensor([wanted, [0.0] * 4]).view(1, 2, 2, 2)
    whole = sum(
        attention * ((mine - theirs) ** 2 + other**2)
        for attention, mine, theirs, other in zip((0.4, 0.8, 1.2, 1.6), (1, 1, 0, 0), wanted, (4, 4, 1, 1), strict=True)
    )
    cells = sum(
        (mine - theirs) ** 2 + other**2
        for mine, theirs, other in zip((1, 1, 0.5, 0.5), wanted, (4, 4, 2, 2), strict=True)
    )
    found = distiller(known(OPPOSITE), known(teacher), [])
    assert found["features"].item() == pytest.approx(2e-5 / 3 * (whole + 2 * cells))


def test_samkd_weighs_the_outputs_of_a_region_by_how_far_its_maps_are_apart() -> None:
    # Of 4 × 4 regions of 2 × 2 cells, the last differ by 0.1, 0.2, 0.3 and 0.4, and so do 12 by 0: mean 1/16. The
    # lower half has 0, and so has what is cut off: 0.4 is 6.4 times the mean.
    apart = torch.zeros(4, 4)
    apart[3] = torch.tensor([0.1, 0.2, 0.3, 0.4])
    difference = apart.repeat_interleave(2, dim=0).repeat_interleave(2, dim=1)
    # Half of it in each of two channels of the double size and opposite sign, and cells that differ among each other.
    checks = torch.tensor([[0.5, 1.5], [1.5, 0.5]]).repeat(4, 4)
    teacher = torch.stack([difference * checks * 2, torch.zeros(8, 8)])[None]
    expected = torch.zeros(8, 8)
    expected[6:] = torch.tensor([1.6, 3.2, 4.8, 5.0]).repeat_interleave(2)
    torch.testing.assert_close(region_weight(torch.zeros(1, 2, 8, 8), teacher)[0], expected)


def test_regions_of_a_map_that_cannot_be_divided_evenly() -> None:
    # 3 × 5 cells in 2 × 2 regions: rows 2 + 1, columns 3 + 2; each cell tells how many cells its region has.
    counts = by_region(torch.zeros(1, 1, 3, 5), 2, lambda region: torch.full_like(region, float(region[0, 0].numel())))
    assert counts[0, 0].tolist() == [[6, 6, 6, 4, 4], [6, 6, 6, 4, 4], [3, 3, 3, 2, 2]]
    maps = torch.rand(2, 3, 3, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(by_region(maps, 4, lambda region: region), maps)


def test_dsamkds_loss_of_outputs_by_hand() -> None:
    """Two cells, one class: logits 0, 0 and ln 3, 0. Scores 3/4 and 1/2, whose sum is 5/4.

    Differences 1/4 and 0, mean 1/8: weights 2 and 0; the cross-entropy of 1/2 is ln 2 whatever is wanted.
    Boxes: 2×2 in 2×4 has GIoU 1/2. The other box has no height, and is left out, though it is far off.
    """
    student, teacher = known(torch.ones(1, 2, 2, 2)), known(LOGS)
    stub = SimpleNamespace(boxes=lambda maps, frame, outputs: outputs["bbox_regression"])
    boxes = torch.tensor([[[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]], [[0.0, 0.0, 2.0, 4.0], [50.0, 9.0, 60.0, 9.0]]])
    logits = torch.tensor([[[0.0], [0.0]], [[math.log(3)], [0.0]]])
    for each, box, logit in zip((student, teacher), boxes, logits, strict=True):
        vars(each)["detector"] = stub
        vars(each)["outputs"] = {"cls_logits": logit[None], "bbox_regression": box[None]}
    found = build("dsamkd")(student, teacher, [])
    assert found["classes"].item() == pytest.approx(2 * math.log(2) / 1.25)
    assert found["boxes"].item() == pytest.approx(0.75 * 0.5 / 1.25)


def test_dense_boxes_by_hand() -> None:
    """Torchvision's first cell is around the origin, with a stride of 8: in FCOS a square of 8, in RetinaNet of 32."""
    fcos, retinanet = (Detector(spec(detector=each)) for each in ("fcos", "retinanet"))
    maps = [torch.zeros(2, 64, 128 // stride, 128 // stride) for stride in (8, 16, 32, 64, 128)]
    frame = Frame(((128, 128), (100, 90)), (128, 128))
    cells = 16**2 + 8**2 + 4**2 + 2**2 + 1
    # One side of the anchor in each direction, from the centre; the second cell is 8 pixels to the right.
    boxes = fcos.boxes(maps, frame, {"bbox_regression": torch.ones(2, cells, 4)})
    assert boxes.shape == (2, cells, 4)
    assert boxes[1, :2].tolist() == [[-8.0, -8.0, 8.0, 8.0], [0.0, -8.0, 16.0, 8.0]]
    assert boxes[0, -1].tolist() == [-128.0, -128.0, 128.0, 128.0]
    # Box deltas of 0 are the anchors; the fourth of nine is the square of 32. Shifted by a quarter of its width.
    deltas = torch.zeros(2, 9 * cells, 4)
    deltas[1, 3, 0] = 0.25
    boxes = retinanet.boxes(maps, frame, {"bbox_regression": deltas})
    assert boxes[:, 3].tolist() == [[-16.0, -16.0, 16.0, 16.0], [-8.0, -16.0, 24.0, 16.0]]


def test_fgds_masks_by_hand() -> None:
    """32 × 64 pixels on 4 × 8 cells of 8 pixels: rows are y.

    A box over columns 1 and 2 of row 0 has 1/2 a cell; it lies on one over 4 × 4 cells, 1/16 each, which touches its
    last row and column with a pixel only. The other 16 cells share the background. Then no box; then one without
    extent, in the far corner.
    """
    targets = [target([8.0, 0.0, 24.0, 8.0], [0.0, 0.0, 25.0, 25.0]), NO_BOXES, target([64.0, 32.0, 64.0, 32.0])]
    foreground, background = masks(targets, Frame(((32, 64),) * 3, (32, 64)), 4, 8)
    expected = torch.zeros(3, 4, 8)
    expected[0, :, :4] = 1 / 16
    expected[0, 0, 1:3] = 1 / 2
    expected[2, 3, 7] = 1.0
    assert torch.equal(foreground, expected)
    outside = torch.zeros(3, 4, 8)
    outside[0, :, 4:], outside[1], outside[2] = 1 / 16, 1 / 32, 1 / 31
    outside[2, 3, 7] = 0.0
    torch.testing.assert_close(background, outside)
    # One box over everything leaves no background.
    assert not masks([target([0.0, 0.0, 64.0, 32.0])], Frame(((32, 64),), (32, 64)), 4, 8)[1].any()


@pytest.mark.parametrize(
    ("detector", "temperature", "weights"),
    [
        # configs/distillers/fgd of yzd-v/FGD, commit 04900ad: retina_r101 and fcos_r101 for ResNet-50, mask_rcnn_r101.
        ("retinanet", 0.5, (1e-3, 5e-4, 5e-4, 5e-6)),
        ("fcos", 0.8, (1.6e-3, 8e-4, 8e-4, 8e-6)),
        ("maskrcnn", 0.5, (5e-5, 2.5e-5, 5e-5, 5e-7)),
    ],
)
def test_fgd_by_hand(detector: str, temperature: float, weights: Sequence[float]) -> None:
    """LOGS and, 2 off at (y, x) = (0, 1) of channel 0 and 4 off at (1, 0) of channel 1, a student; a box on (0, 1).

    Maps that are as many times as large as t is larger than 1/2 have the same attentions.
    """
    factor = temperature / 0.5
    maps = LOGS.clone()
    maps[0, 0, 0, 1] += 2
    maps[0, 1, 1, 0] += 4
    student, teacher = known(factor * maps), known(factor * LOGS)
    vars(student)["frame"] = FRAME
    # The teacher's channel means, divided by 1/2: (ln 24)/2 and 0.
    first = 2 * math.sqrt(24) / (1 + math.sqrt(24))
    second = 2 - first
    foreground = 0.8 * first * (factor * 2) ** 2
    background = 1.2 * second * (factor * 4) ** 2 / 3
    # The student's cells: ln 1, ln 2 + 2, ln 3 + 4, ln 4; its channels: (ln 24 + 2)/2 and 4/2.
    cells = [1, 2 * math.exp(2), 3 * math.exp(4), 4]
    attention = sum(abs(4 * a / sum(cells) - b) for a, b in zip(cells, (0.4, 0.8, 1.2, 1.6), strict=True))
    channels = math.sqrt(24) * math.e, math.exp(2)
    attention += 2 * abs(2 * channels[0] / sum(channels) - first)
    # The context blocks change nothing yet.
    parts = {
        "foreground": foreground,
        "background": background,
        "attention": attention,
        "relation": factor**2 * (2**2 + 4**2),
    }
    found = build("fgd", dense=detector != "maskrcnn", detector=detector)(
        student, teacher, [target([8.0, 0.0, 16.0, 8.0])]
    )
    expected = {name: weight * parts[name] for weight, name in zip(weights, parts, strict=True)}
    assert values(found) == pytest.approx(expected, rel=1e-5)


def test_fgds_context_by_hand() -> None:
    """Cells 0 and ln 3 in both channels have shares 1/4 and 3/4; the mean is 3/4·ln 3, to which all layers but the last
    are blind: of one hidden number, layer normalisation leaves its bias, 2, and the last layer is 5 times that, plus 1.
    """
    block = Context(2)
    maps = torch.tensor([0.0, math.log(3)])[None, None, None].expand(1, 2, 1, 2)
    assert torch.equal(block(maps), maps)
    with torch.no_grad():
        block.attend.weight.fill_(0.5)
        block.transform[1].bias.fill_(2.0)  # type: ignore[operator]
        block.transform[3].weight.fill_(5.0)  # type: ignore[operator]
        block.transform[3].bias.fill_(1.0)  # type: ignore[operator]
    torch.testing.assert_close(block(maps), maps + 11)
    block.transform = nn.Sequential(nn.Identity())
    torch.testing.assert_close(block(maps), maps + 0.75 * math.log(3))


def test_equal_networks_are_at_no_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    same = random_known(0)
    assert values(build("fgd", channels=4)(same, same, TARGETS)) == dict.fromkeys(
        ("foreground", "background", "attention", "relation"), 0.0
    )
    for name in ("dsamkd", "samkd"):
        assert build(name, channels=4)(same, same, [])["classes"].item() == 0.0
    # Nothing hidden, and generators that give back what they get, if it is not negative.
    monkeypatch.setattr(torch, "rand_like", torch.ones_like)
    positive = random_known(0)
    vars(positive)["pyramid"] = [each.abs() for each in positive.pyramid]
    distiller = build("mgd", channels=4)
    assert distiller(positive, positive, [])["generation"].item() > 0
    make_identity(distiller)
    assert distiller(positive, positive, [])["generation"].item() == 0.0


@pytest.mark.parametrize("name", METHODS)
def test_two_images_at_once_are_the_mean_of_each_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch, "rand_like", lambda like: torch.linspace(0, 1, like[0].numel()).view(like[:1].shape))
    torch.manual_seed(0)
    distiller = build(name, channels=4)
    student, teacher = random_known(1), random_known(2)

    def alone(both: Knowledge, i: int) -> Knowledge:
        return _framed([each[i : i + 1] for each in both.pyramid], both.outputs["cls_logits"][i : i + 1])

    whole = values(distiller(student, teacher, TARGETS))
    halves = [values(distiller(alone(student, i), alone(teacher, i), TARGETS[i : i + 1])) for i in range(2)]
    # The outputs' loss is divided by the teacher's scores of the batch.
    for part in whole.keys() - {"classes"}:
        assert whole[part] == pytest.approx((halves[0][part] + halves[1][part]) / 2, rel=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_the_coarsest_map_counts_for_dense_detectors_alone(name: str) -> None:
    student, teacher, other = random_known(1), random_known(2), random_known(2)
    vars(other)["pyramid"] = [*teacher.pyramid[:4], teacher.pyramid[4] + 1]
    for dense in (True, False):
        torch.manual_seed(0)
        distiller = build(name, channels=4, dense=dense)
        losses = []
        for each in (teacher, other):
            torch.manual_seed(0)
            losses.append(total(distiller(student, each, TARGETS)).item())
        assert (losses[0] != losses[1]) == dense


@pytest.mark.parametrize("name", METHODS)
def test_learning_lowers_the_loss(name: str) -> None:
    torch.manual_seed(0)
    student, teacher = random_known(1), random_known(2, channels=6)
    distiller = build(name, channels=4, of_teacher=6)
    learnt = [each.requires_grad_() for each in (*student.pyramid, student.outputs["cls_logits"])]
    optimiser = torch.optim.Adam([*learnt, *distiller.parameters()], lr=0.03)
    losses = []
    for _ in range(20):
        torch.manual_seed(0)
        loss = total(distiller(student, teacher, TARGETS))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_agrees(name: str) -> None:
    torch.manual_seed(0)
    distiller = build(name, channels=4, of_teacher=6)
    student, teacher = random_known(1), random_known(2, channels=6)
    torch.manual_seed(0)
    exact = distiller(student, teacher, TARGETS)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        half = distiller(student, teacher, TARGETS)
    for part, loss in exact.items():
        assert half[part].dtype == torch.float32
        # Two or three layers of 8 bits of mantissa.
        torch.testing.assert_close(half[part], loss, rtol=0.01, atol=0)


@pytest.mark.parametrize("scales", ["aligned", "single"])
@pytest.mark.parametrize("detector", ["retinanet", "maskrcnn"])
@pytest.mark.parametrize("name", ["dsamkd", "samkd"])
def test_outputs_are_compared_where_they_are_comparable(name: str, detector: str, scales: str) -> None:
    torch.manual_seed(0)
    teacher = Detector(spec(detector=detector)).eval().requires_grad_(False)
    student = Detector(spec(detector=detector, role="student", scales=scales, ks=(2,)))
    images = views()
    with torch.no_grad():
        theirs = best_view(teacher, images) if scales == "aligned" else unaligned_teacher(teacher, 2)(images)
        mine, targets = student_view(student, images, TARGETS)
        losses = DISTILLERS[name][0](student.spec, teacher.spec)(mine, theirs, targets)
    comparable = detector != "maskrcnn", detector != "maskrcnn" and scales == "aligned"
    assert ("classes" in losses, "boxes" in losses) == comparable
    assert all(loss.item() > 0 for loss in losses.values())


def test_all_at_once_train_in_half_precision() -> None:
    torch.manual_seed(0)
    teacher, student = Detector(spec()), Detector(spec(role="student", ks=(2,)))
    distillers = build_distillers(student.spec, teacher.spec, dict.fromkeys(METHODS, 1.0))
    module = Distillation(student, teaching(teacher, student), distillers, warmup_steps=1)
    with torch.autocast("cpu", torch.bfloat16):
        losses = module(views(), TARGETS)
    assert {name.split("/")[1] for name in losses if name.startswith("distil/")} == set(METHODS)
    total(losses).backward()
    trained = [each for each in module.parameters() if each.requires_grad]
    assert all(each.grad is not None and each.grad.isfinite().all() for each in trained)


@pytest.mark.parametrize("name", METHODS)
def test_nothing_that_a_distiller_trains_is_idle(name: str) -> None:
    """Gradients that are there, but 0, would teach nothing: after one step there are none.

    Maps of a single cell are left out: MGD hides all of it, and its share of itself is 1.
    """
    torch.manual_seed(0)
    distiller = build(name, channels=16, of_teacher=128)
    sides = (8, 4, 4, 4, 4)
    student, teacher = random_known(1, 16, sides), random_known(2, 128, sides)
    optimiser = torch.optim.Adam(distiller.parameters(), lr=0.01)
    for _ in range(2):
        optimiser.zero_grad()
        total(distiller(student, teacher, TARGETS)).backward()
        idle = [part for part, each in distiller.named_parameters() if each.grad is None or not each.grad.any()]
        optimiser.step()
    assert idle == []


def test_the_head_of_a_dense_student_learns_from_the_boxes_of_its_teacher() -> None:
    """One step along the gradient of the boxes' part lowers it."""
    torch.manual_seed(0)
    teacher = Detector(spec(detector="retinanet")).eval().requires_grad_(False)
    student = Detector(spec(detector="retinanet", role="student", ks=(2,)))
    images = views()
    distiller = build("dsamkd", channels=64)
    theirs = best_view(teacher, images)
    losses = []
    for _ in range(2):
        mine, _ = student_view(student, images, TARGETS)
        loss = distiller(mine, theirs, [])["boxes"]
        losses.append(loss.item())
        last = student.core.head.regression_head.bbox_reg
        (slope,) = torch.autograd.grad(loss, last.bias)
        with torch.no_grad():
            last.bias -= 0.01 * slope / slope.norm()
    assert losses[1] < losses[0]
