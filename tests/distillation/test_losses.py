"""Distances between a student and its teacher: values by hand, what they overlook, where their gradients go."""

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from support.maps import FIRST, OBJECTS, ONE, build, knowledge, known, pair, pyramid
from support.training import TARGETS, total, views
from torch import Tensor, nn

from msad_cli.distillation.distillation import Distillation, Weighted, teaching
from msad_cli.distillation.losses import fgfi
from msad_cli.distillation.losses.table import DISTILLERS

METHODS = ("fgfi", "podnet", "skd", "pkd", "cwd", "freekd", "crosskd")
NOTHING = [{name: value[:0] for name, value in each.items()} for each in OBJECTS]


def distance(method: str, student: Sequence[Tensor], teacher: Sequence[Tensor], channels: int = 1) -> float:
    """The only loss of a method that trains nothing."""
    own = SimpleNamespace(channels=channels, levels=range(3, 8))
    distiller = DISTILLERS[method][0](own, own)
    assert list(distiller.parameters()) == []
    (loss,) = distiller(known(student), known(teacher), []).values()
    return float(loss)


CASES = [
    (method, detector, aligned)
    for method in (*METHODS, "freekd late")
    for detector in ("fcos", "retinanet", "maskrcnn")
    for aligned in (True, False)
    if (method, detector) != ("crosskd", "maskrcnn")
]


@pytest.mark.parametrize(
    ("method", "student", "expected"),
    [
        # Teacher: 1 2 / 3 4. Sums of its squares over rows 5 25, over columns 10 20, together of length √1150. The
        # student's, transposed, are 10 20 and 5 25: differences 5 5 5 5, length 10. One level of five.
        ("podnet", FIRST.T, 10 / math.sqrt(1150) / 5),
        # Pearson's correlation of 1 2 3 4 with 1 3 2 4: (2.25 + 0.25·(-1)·2 + 2.25) / 5 = 0.8.
        ("pkd", FIRST.T, 1 - 0.8),
        ("pkd", -FIRST, 1 - -1.0),
        # Softmax of ln(1 2 3 4) is 0.1 0.2 0.3 0.4; the student's is a quarter everywhere (see `teachers`).
        ("cwd", torch.zeros(2, 2), sum(p * math.log(4 * p) for p in (0.1, 0.2, 0.3, 0.4))),
    ],
)
def test_by_hand(method: str, student: Tensor, expected: float) -> None:
    teacher = FIRST.log() if method == "cwd" else FIRST
    assert distance(method, pyramid(student), pyramid(teacher)) == pytest.approx(expected, rel=1e-4)
    assert distance(method, pyramid(teacher), pyramid(teacher)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("method", ["podnet", "skd", "pkd", "cwd"])
def test_channels_that_stand_twice_and_images_that_stand_twice_change_nothing(method: str) -> None:
    mine, theirs = ([torch.randn(2, 3, 4, 4) for _ in range(5)] for _ in range(2))
    expected = pytest.approx(distance(method, mine, theirs, 3), rel=1e-5)
    for times in ((1, 2, 1, 1), (2, 1, 1, 1)):
        student, teacher = ([each.repeat(times) for each in maps] for maps in (mine, theirs))
        assert distance(method, student, teacher, 3 * times[1]) == expected


@pytest.mark.parametrize("method", ["podnet", "skd", "pkd", "cwd"])
@pytest.mark.parametrize("value", [0.0, 3.0, None])
def test_gradients_are_finite_where_norms_and_deviations_are_zero(method: str, value: float | None) -> None:
    """Maps that are zero, those that are the same everywhere, and those that equal the teacher's."""
    equal = value is None
    mine = [torch.randn(2, 3, 4, 4) if value is None else torch.full((2, 3, 4, 4), value) for _ in range(5)]
    theirs = [each.clone() if equal else torch.randn_like(each) for each in mine]
    own = SimpleNamespace(channels=3, levels=range(3, 8))
    student = [each.requires_grad_() for each in mine]
    total(DISTILLERS[method][0](own, own)(known(student), known(theirs), [])).backward()
    gradients = [each.grad for each in student if each.grad is not None]
    assert len(gradients) >= 4
    assert all(each.isfinite().all() for each in gradients)
    assert not equal or max(each.abs().max() for each in gradients) < 1e-6


def test_podnet_is_at_most_the_root_of_two() -> None:
    """All in the first row and column, against all in the second: vectors that are orthogonal."""
    corner, other = torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, -1.0]])
    assert distance("podnet", pyramid(corner), pyramid(other)) == pytest.approx(math.sqrt(2) / 5)


def test_skd_by_hand_and_of_any_channels() -> None:
    """Student: two channels, columns that are orthogonal. Teacher: three, all cells alike."""
    one, zero = torch.ones(2), torch.zeros(2)
    columns = torch.stack([torch.stack([one, zero], dim=1), torch.stack([zero, one], dim=1)])[None]
    alike = torch.full((1, 3, 2, 2), 5.0)
    rest = [torch.zeros(1, 2, 2, 2)] * 4
    # Of 4 × 4 pairs, the 8 across columns have cosine 0 instead of 1: 8/16.
    assert distance("skd", [columns, *rest], [alike, *rest]) == pytest.approx(0.5)
    # The length of a cell's vector is of no matter, and neither is the student's.
    longer = columns * torch.tensor([[1.0, 7.0], [0.5, 1.0]])
    assert distance("skd", [longer, *rest], [alike, *rest]) == pytest.approx(0.5)
    assert distance("skd", [longer, *rest], [columns, *rest]) == pytest.approx(0.0, abs=1e-6)


def test_skd_passes_no_gradient_through_lengths() -> None:
    """The gradient of a cosine is orthogonal to the vector; with its length taken for a constant, it is not."""
    maps = torch.tensor([[1.0, 1.0], [0.5, -0.5]]).reshape(1, 2, 1, 2).requires_grad_()
    rest = [torch.zeros(1, 2, 2, 2)] * 4
    distiller = DISTILLERS["skd"][0](ONE, ONE)
    distiller(known([maps, *rest]), known([torch.ones(1, 2, 1, 2), *rest]), [])["affinity"].backward()
    assert maps.grad is not None
    assert (maps.grad * maps).sum(dim=1).abs().min() > 0.1


def test_skd_pools_to_at_most_sixteen_nodes_a_side() -> None:
    """On 34 columns, patches of 3: what is not the greatest of its patch is not seen."""
    maps = torch.rand(1, 4, 1, 34) + 1
    hidden = maps.clone()
    hidden[..., 1] = 0.5
    rest = [torch.zeros(1, 4, 2, 2)] * 4
    maps[..., 2] = hidden[..., 2] = 3.0
    assert distance("skd", [maps, *rest], [hidden, *rest]) == 0.0
    small, seen = maps[..., :16], hidden[..., :16]
    assert distance("skd", [small, *rest], [seen, *rest]) > 0.0


def test_pkd_overlooks_scale_and_shift_of_channels_and_cwd_the_shift() -> None:
    maps = [torch.randn(2, 3, 4, 4) for _ in range(5)]
    scale, shift = torch.tensor([0.5, 2.0, 9.0]).view(3, 1, 1), torch.tensor([-3.0, 0.0, 5.0]).view(3, 1, 1)
    both, shifted = [each * scale + shift for each in maps], [each + shift for each in maps]
    assert distance("pkd", both, maps, 3) == pytest.approx(0.0, abs=1e-4)
    assert distance("cwd", shifted, maps, 3) == pytest.approx(0.0, abs=1e-5)
    assert distance("cwd", both, maps, 3) > 0.1
    assert distance("podnet", shifted, maps, 3) > 0.1


def test_pkd_compares_four_levels_and_the_others_five() -> None:
    maps = [torch.randn(2, 3, 4, 4) for _ in range(5)]
    other = [*maps[:4], torch.randn(2, 3, 4, 4)]
    assert distance("pkd", maps, other, 3) == pytest.approx(0.0, abs=1e-6)
    assert min(distance(method, maps, other, 3) for method in ("podnet", "skd", "cwd")) > 0.01


def test_a_batch_is_the_mean_of_its_images() -> None:
    """Not of PKD, whose moments are the batch's, nor of FGFI and CrossKD, which divide by the batch's positives."""
    torch.manual_seed(0)  # two images may be as far apart as each other by chance
    mine, theirs = ([torch.randn(2, 3, 4, 4) for _ in range(5)] for _ in range(2))
    for method in ("podnet", "skd", "cwd"):
        single = [distance(method, [s[i : i + 1] for s in mine], [t[i : i + 1] for t in theirs], 3) for i in (0, 1)]
        assert single[0] != pytest.approx(single[1], rel=1e-3)
        assert distance(method, mine, theirs, 3) == pytest.approx(sum(single) / 2, rel=1e-5)


def test_imitation_masks_by_hand() -> None:
    """Of an object 10 × 10, anchors of its width and of height 10, 6 and 5 have IoU 1, 0.6 and 0.5; one twice its side
    0.25. More than half of the best is near, at any level."""
    heights = torch.tensor([10.0, 6.0, 5.0])
    finest = torch.stack([torch.tensor([0.0, 0.0, 10.0, float(each)]) for each in heights])[:, None]
    levels = [finest, torch.tensor([[[0.0, 0.0, 20.0, 20.0], [50.0, 50.0, 60.0, 60.0]]])]
    found = fgfi.imitation_masks(levels, torch.tensor([[0.0, 0.0, 10.0, 10.0]]))
    assert [each.tolist() for each in found] == [[True, True, False], [False]]
    # Another object: the second anchor of the coarser level fits it. One that nothing overlaps is near nothing.
    others = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0], [500.0, 0.0, 510.0, 10.0]])
    assert [each.tolist() for each in fgfi.imitation_masks(levels, others)] == [[True, True, False], [True]]
    assert not any(each.any() for each in fgfi.imitation_masks(levels, torch.zeros(0, 4)))


def test_fgfi_by_hand() -> None:
    """Only the first row of the finest level is near the object, and f is the identity: (1² + 2²) / (2·2)."""
    row = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [90.0, 0, 99, 9], [90.0, 0, 99, 9]])[:, None]
    far = torch.tensor([90.0, 0.0, 99.0, 9.0]).expand(4, 1, 4)
    kind = SimpleNamespace(object_anchors=lambda *_: [row, far, far, far, far])
    distiller = fgfi.FGFI(ONE, ONE)  # type: ignore[arg-type]
    for each in distiller.parameters():
        nn.init.dirac_(each) if each.ndim == 4 else nn.init.zeros_(each)
    target = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]])}
    teacher = known(pyramid(torch.zeros(2, 2)))
    student = replace(known(pyramid(FIRST)), detector=SimpleNamespace(kind=kind))  # type: ignore[arg-type]
    assert distiller(student, teacher, [target])["pyramid"].item() == pytest.approx(1.25)
    assert distiller(student, teacher, NOTHING[:1])["pyramid"].item() == 0.0


@pytest.mark.parametrize(("method", "detector", "aligned"), [each for each in CASES if each[0] == "freekd late"])
def test_a_step_helps_when_the_prompts_are_learnt(method: str, detector: str, aligned: bool) -> None:
    """A student of other channels, so that there are adapters; every method's own case is in test_all_losses."""
    student, teacher = pair(detector, aligned, 96)
    distiller = build(method, student, teacher)
    trained = [*distiller.parameters(), *student.core.backbone.parameters()]
    torch.manual_seed(5)  # two stages draw their samples
    losses = distiller(*knowledge(student, teacher))
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
    assert ("boxes" in losses) <= aligned
    student.zero_grad()
    total(losses).backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in distiller.parameters())
    assert all(each.grad is None for each in teacher.parameters())
    gradients = [each.grad for each in trained if each.grad is not None]
    assert len(gradients) > 40
    size = torch.stack([each.square().sum() for each in gradients]).sum()
    kept = {name: each.clone() for name, each in student.state_dict().items()}
    with torch.no_grad():
        for each in trained:
            if each.grad is not None:
                # In a straight line, this would take a thousandth off the loss.
                each.sub_(1e-3 * total(losses) / size * each.grad)
        torch.manual_seed(5)
        after = total(distiller(*knowledge(student, teacher)))
        student.load_state_dict(kept)
    assert after < total(losses)


QUICK = {("fcos", True), ("retinanet", False), ("maskrcnn", True)}


@pytest.mark.parametrize(
    ("method", "detector", "aligned"),
    [pytest.param(*each, marks=[] if each[1:] in QUICK else pytest.mark.slow) for each in CASES],
)
def test_batches_without_objects(method: str, detector: str, aligned: bool) -> None:
    student, teacher = pair(detector, aligned, 96)
    distiller = build(method, student, teacher)
    losses = distiller(*knowledge(student, teacher, NOTHING))
    total(losses).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(each.grad is not None and each.grad.isfinite().all() for each in distiller.parameters())


@pytest.mark.parametrize("method", [*METHODS, "freekd late"])
def test_bf16_and_fp32_agree(method: str) -> None:
    student, teacher = pair("retinanet", True, 96)
    weighted = Weighted(build(method, student, teacher), 1.0)
    module = Distillation(student, teaching(teacher, student), {method: weighted}, 1)
    with torch.no_grad():
        exact = module(views(), TARGETS)
        with torch.autocast("cpu", torch.bfloat16):
            half = module(views(), TARGETS)
    for name, loss in exact.items():
        if name.startswith("distil"):
            torch.testing.assert_close(half[name], loss, rtol=0.05, atol=1e-4)
