"""FreeKD, its frequencies and its prompts; CrossKD, a student's maps in its teacher's head."""

import math

import pytest
import torch
from support.maps import FIRST, ONE, build, knowledge, known, pair, pyramid
from support.specs import spec
from support.training import total
from torchvision.ops import box_iou, generalized_box_iou_loss

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.distillation.losses import freekd
from msad_cli.distillation.losses.crosskd import CrossKD, log_iou_loss, quality_focal
from msad_cli.distillation.losses.table import build_distillers
from msad_cli.distillation.parts.haar import haar, inverse_haar


def test_haar_by_hand_and_back() -> None:
    low, highs = haar(FIRST.reshape(1, 1, 2, 2), 1)
    # (1+2+3+4)/2; across columns (1-2+3-4)/2, across rows (1+2-3-4)/2, across both (1-2-3+4)/2.
    assert low.item() == 5.0
    assert highs[0].flatten().tolist() == [-1.0, -2.0, 0.0]
    maps = torch.randn(2, 3, 5, 11)
    low, highs = haar(maps, 3)
    # 6 × 12, 4 × 6 and 2 × 4 cells in pairs, with the zeros that each scale needs.
    assert [each.shape[2:] for each in highs] == [(3, 3, 6), (3, 2, 3), (3, 1, 2)]
    torch.testing.assert_close(inverse_haar(low, highs)[..., :5, :11], maps)
    energy = low.square().sum() + torch.stack([each.square().sum() for each in highs]).sum()
    torch.testing.assert_close(energy, maps.square().sum())


def test_haar_adds_zeros_scale_by_scale() -> None:
    """P7 of 256 × 384 pixels, padded as DWTForward(J=3, wave="haar", mode="zero") of pytorch_wavelets does (commit
    0351b9f, dwt/lowlevel.py, afb1d): one zero at the end of a side that is odd, anew at each scale."""
    low, highs = haar(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])[None, None], 3)
    # 1 2 / 4 5 and 3 0 / 6 0; their low bands 6 and 4.5 above zeros; of these the low band 5.25 among zeros.
    assert [each.flatten().tolist() for each in highs] == [
        [-1.0, 4.5, -3.0, -1.5, 0.0, -1.5],
        [0.75, 5.25, 0.75],
        [2.625, 2.625, 2.625],
    ]
    assert low.item() == 2.625


def test_freekd_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a teacher of zeros, whose masks are a half whatever the prompts are."""
    monkeypatch.setattr(freekd, "PROMPT_STEPS", 0)
    distiller = freekd.FreeKD(ONE, ONE)  # type: ignore[arg-type]
    # A box a cell, 4 in the finest level and 1 in the others: the first and the last of them differ.
    boxes = torch.ones(1, 8, 4)
    boxes[0, 0], boxes[0, 7] = torch.tensor([3.0, 1.0, 1.0, 1.5]), torch.tensor([1.0, 1.0, 1.0, 5.0])
    rest = [torch.zeros(1, 1, 1, 1)] * 4
    student = known([FIRST[None, None], *rest], bbox_regression=boxes)
    found = distiller(student, known([torch.zeros(1, 1, 2, 2), *rest], bbox_regression=torch.ones(1, 8, 4)), [])
    # Bands: 1 + 2 + 0 over three of one cell; of the low 5 beside zeros 2.5 each; of the low 2.5 beside zeros 1.25.
    assert found["bands"].item() == pytest.approx((3 / 3 + 2.5 + 1.25) / 2)
    assert found["features"].item() == pytest.approx(5 * 30 / 4)  # 1 + 4 + 9 + 16 over four cells
    # The sum of levels' means, as mmrazor calls a loss for each output of retina_reg: |2| − 1/2 and 0.5² / 2
    # of 16 numbers, |4| − 1/2 of 4. The mean over all 32 would be 0.16.
    assert found["boxes"].item() == pytest.approx((1.5 + 0.125) / 16 + 3.5 / 4)
    same = distiller(student, student, [])
    assert {name: loss.item() for name, loss in same.items()} == {"features": 0.0, "boxes": 0.0, "bands": 0.0}


def test_freekds_prompts_weigh_the_teachers_bands_scale_by_scale() -> None:
    """Of the teacher's 1 2 / 3 4, bands add up to −3, 7.5 and 3.75; prompts make 3/4, 1/4 and 1/2 of that."""
    distiller = freekd.FreeKD(ONE, ONE)  # type: ignore[arg-type]
    distiller.load_state_dict({**distiller.state_dict(), "steps_done": torch.tensor(freekd.PROMPT_STEPS + 1)})
    prompts = torch.tensor([9.0, -math.log(3) / 3, -math.log(3) / 7.5, 0.0])
    distiller.frozen[0] = prompts[:, None, None]
    found = distiller(known(pyramid(torch.zeros(2, 2))), known(pyramid(FIRST)), [])["bands"]
    assert found.item() == pytest.approx(0.75 * 3 / 3 + 0.25 * 7.5 / 3 + 0.5 * 3.75 / 3)


@pytest.mark.parametrize("detector", ["fcos", "retinanet"])
@torch.no_grad()
def test_freekds_prompts_begin_with_the_teachers_own_maps(detector: str) -> None:
    student, teacher = pair(detector, True)
    distiller, facts = build("freekd", student, teacher), knowledge(student, teacher)
    assert isinstance(distiller, freekd.FreeKD)
    distiller.prompts.zero_()
    expected = total(facts[1].losses(facts[2]))
    torch.testing.assert_close(distiller(*facts)["prompt_detection"], expected, rtol=1e-4, atol=0)


def test_freekd_masks_by_hand() -> None:
    """Prompts that see the second of two channels only, where ln 3 is; two masks that meet in one cell of two."""
    band, prompts = torch.tensor([1.0, math.log(3)]).reshape(1, 2, 1, 1), torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    torch.testing.assert_close(freekd.band_masks(band, prompts).flatten(), torch.tensor([0.75, 0.25]))
    masks = torch.tensor([[[1.0, 1.0]], [[1.0, 0.0]]])[None]
    assert freekd.dice(masks).item() == pytest.approx(2 * 1 / (2 + 1))
    assert freekd.dice(masks[:, :1].expand(1, 6, 1, 2)).item() == pytest.approx(1.0)


def test_freekd_freezes_its_prompts_after_they_are_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freekd, "PROMPT_STEPS", 2)
    student, teacher = pair("fcos", True)
    distiller, facts = build("freekd", student, teacher), knowledge(student, teacher)
    assert isinstance(distiller, freekd.FreeKD)
    optimiser = torch.optim.SGD(distiller.parameters(), lr=1.0, momentum=0.9, weight_decay=0.1)
    names, prompts = [], [distiller.prompts.detach().clone()]
    for _ in range(4):
        optimiser.zero_grad()
        losses = distiller(*facts)
        total(losses).backward(retain_graph=True)
        optimiser.step()
        names.append(losses.keys() - {"features", "boxes"})
        prompts.append(distiller.frozen.clone())
    learning = {"prompt_detection", "prompt_likeness"}
    assert names == [learning, learning, {"bands"}, {"bands"}]
    assert not prompts[2].any()
    # The copy is made of what was learnt, and stays when the optimiser still moves the parameter.
    assert prompts[3].any()
    assert not torch.equal(prompts[3], prompts[0])
    assert torch.equal(prompts[3], prompts[4])
    assert not torch.equal(prompts[4], distiller.prompts)
    resumed = build("freekd", student, teacher)
    resumed.load_state_dict(distiller.state_dict())
    assert resumed(*facts).keys() - {"features", "boxes"} == {"bands"}


def test_freekd_prompts_learn_what_the_teacher_needs() -> None:
    student, teacher = pair("fcos", True)
    distiller, facts = build("freekd", student, teacher), knowledge(student, teacher)
    assert isinstance(distiller, freekd.FreeKD)
    optimiser = torch.optim.Adam([distiller.prompts], lr=0.02)
    course = []
    for _ in range(6):
        optimiser.zero_grad()
        losses = distiller(*facts)
        (losses["prompt_detection"] + losses["prompt_likeness"]).backward()
        optimiser.step()
        course.append(losses["prompt_detection"].item() + losses["prompt_likeness"].item())
    assert course[-1] < course[0]


def test_quality_focal_by_hand() -> None:
    """Probabilities 1/2 and 3/4: their distance 1/4, their cross-entropy −ln(1/2)."""
    found = quality_focal(torch.zeros(1), torch.tensor([math.log(3)]))
    assert found.item() == pytest.approx(math.log(2) / 4)
    assert quality_focal(torch.tensor([2.0]), torch.tensor([2.0])).item() == 0.0


@pytest.mark.parametrize(
    ("detector", "teacher", "student", "places"),
    [
        ("fcos", 4, 4, (2, 2)),
        ("retinanet", 4, 4, (3, 3)),
        ("retinanet", 2, 4, (1, 1)),
        ("retinanet", 4, 2, (3, 2)),
        ("fcos", 1, 4, (0, 0)),
    ],
)
def test_where_crosskd_enters_the_teachers_towers(
    detector: str, teacher: int, student: int, places: tuple[int, int]
) -> None:
    specs = [spec(detector=detector, head_convs=each) for each in (student, teacher)]
    distiller = CrossKD(*specs)
    assert (distiller.entry, distiller.taken) == places


@pytest.mark.parametrize(("detector", "classes", "boxes"), [("fcos", 0.4, 0.75), ("retinanet", 1.0, 1.0)])
@torch.no_grad()
def test_crosskd_is_its_formula(detector: str, classes: float, boxes: float) -> None:
    """Maps enter before the first convolution here: the scale and shift of their channels are of no matter."""
    student, teacher = pair(detector, True)
    distiller = build("crosskd", student, teacher)
    assert isinstance(distiller, CrossKD)
    distiller.entry = distiller.taken = 0
    _, theirs, targets = knowledge(student, teacher)
    frame = theirs.frame
    same = distiller(Knowledge(student, [3 * each - 2 for each in theirs.pyramid], frame, {}), theirs, targets)
    assert total(same).item() < 1e-3

    found = distiller(Knowledge(student, [-each for each in theirs.pyramid], frame, {}), theirs, targets)
    # With the teacher's means instead of their own, these are mirrored at them.
    mirrored = [2 * each.mean(dim=(0, 2, 3), keepdim=True) - each for each in theirs.pyramid]
    outputs, wanted = teacher.outputs(mirrored), theirs.outputs
    positives = float(teacher.kind.weigh_positives(mirrored, frame, targets))
    assert positives > 1
    focal = quality_focal(outputs["cls_logits"], wanted["cls_logits"]).sum().item()
    assert found["classes"].item() == pytest.approx(classes * focal / positives, rel=1e-3)
    first, second = (teacher.boxes(mirrored, frame, each) for each in (outputs, wanted))
    thick = (second[..., 2] - second[..., 0] >= 1) & (second[..., 3] - second[..., 1] >= 1)
    assert thick.any()
    weight = wanted["cls_logits"].sigmoid().amax(dim=2)
    if detector == "fcos":
        iou = torch.stack([box_iou(*each).diagonal() for each in zip(first, second, strict=True)])
        distances = -iou.nan_to_num().clamp(min=1e-6).log()
    else:
        distances = generalized_box_iou_loss(first, second)
    apart = (weight * distances)[thick].sum().item()
    assert found["boxes"].item() == pytest.approx(boxes * apart / positives, rel=1e-3)


def test_log_iou_by_hand() -> None:
    """Of 6 pixels 2 are shared; boxes beside each other, and two without area, have the IoU 1e-6 of mmdet's IoULoss."""
    found = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 5.0, 5.0]], requires_grad=True)
    wanted = torch.tensor([[1.0, 0.0, 3.0, 2.0], [4.0, 0.0, 6.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    distances = log_iou_loss(found, wanted)
    torch.testing.assert_close(distances, torch.tensor([math.log(3), math.log(1e6), math.log(1e6)]))
    distances.sum().backward()
    assert found.grad is not None
    assert found.grad.isfinite().all()


def test_crosskd_has_no_use_for_two_stages() -> None:
    own = spec(detector="maskrcnn")
    with pytest.raises(ValueError, match="method crosskd: maskrcnn has no head that predicts at every cell"):
        build_distillers(own, own, {"crosskd": 1.0})
