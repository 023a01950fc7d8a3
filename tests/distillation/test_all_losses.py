"""What every method owes: gradients where they belong, one value in both precisions, a loss that falls."""

import re
from typing import Any

import pytest
import torch
from support.pairs import pair, targets
from support.training import total, views
from torch import Tensor

from msad_cli.cli.commands.distill import METHODS_HELP
from msad_cli.distillation.losses.table import DISTILLERS
from msad_cli.models.detector import Detector

DETECTORS = ("fcos", "retinanet", "rtmdet", "reppoints", "maskrcnn")
WITHOUT = {"reppoints": ("crosskd",), "maskrcnn": ("crosskd",)}
"""Methods that a detector has no use for."""
MASKED = ("mgd", "amd", "dmkd", "dsamkd", "samkd")
"""A step may change which cells they hide, and by that the loss more than it helps; below they fall over five steps."""
QUICK = [("fcos", True), ("maskrcnn", True)]
PAIRS = [
    (method, detector, aligned)
    for method in DISTILLERS
    for detector in DETECTORS
    for aligned in (True, False)
    if method not in WITHOUT.get(detector, ()) and (detector != "maskrcnn" or aligned or method != "output-kd")
]
CASES = [
    pytest.param(
        *each, marks=[] if each[1:] in QUICK or each == ("output-kd", "retinanet", False) else pytest.mark.slow
    )
    for each in PAIRS
]


def distilled(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: loss for name, loss in losses.items() if name.startswith("distil/")}


@pytest.mark.parametrize(("method", "detector", "aligned"), CASES)
def test_gradients_reach_all_that_is_trained_and_nothing_of_the_teacher(
    method: str, detector: str, aligned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student of other channels, so that there are adapters; RoI-KD and CrossKD have none, and want equal ones."""
    equal = method in ("roi-kd", "crosskd")
    student, teacher, module = pair(method, detector, aligned, 64 if equal else 96)
    torch.manual_seed(5)  # two stages draw their samples, and some methods their masks
    losses = module.train()(views(), targets())
    assert distilled(losses)
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
    total(losses).backward()
    assert [name for name, each in student.named_parameters() if each.requires_grad and each.grad is None] == []
    assert [name for name, each in module.distillers.named_parameters() if each.grad is None] == []
    assert all(each.grad is None and not each.requires_grad for each in teacher.parameters())
    # Alone, it moves the student, as far as it looks at it: the backbone in any case. A step along its gradient helps.
    module.zero_grad()
    if method == "crosskd":
        # Its divisor has no gradient, and changes with the cells that stand for objects: both losses have the first.
        weigh, seen = student.kind.weigh_positives, list[Tensor]()

        def first(*of: Any) -> Tensor:
            seen.append(weigh(*of))
            return seen[0]

        monkeypatch.setattr(student.kind, "weigh_positives", first)
    torch.manual_seed(5)
    alone = total(distilled(module(views(), targets())))
    alone.backward()
    moved = [each.grad.abs().sum() for each in student.core.backbone.body.parameters() if each.grad is not None]
    assert torch.stack(moved).sum() > 0
    trained = [(each, each.grad) for each in module.parameters() if each.grad is not None]
    assert all(slope.isfinite().all() for _, slope in trained)
    if method in MASKED:
        return
    size = torch.stack([slope.square().sum() for _, slope in trained]).sum()
    with torch.no_grad():
        for each, slope in trained:
            each.sub_(1e-3 * alone / size * slope)  # a thousandth off the loss, in a straight line
        torch.manual_seed(5)
        assert total(distilled(module(views(), targets()))) < alone


@pytest.mark.parametrize("method", DISTILLERS)
def test_a_batch_without_objects(method: str) -> None:
    _, _, module = pair(method)
    losses = module(views(), targets(empty=True))
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize(
    "method", [name if name in MASKED else pytest.param(name, marks=pytest.mark.slow) for name in DISTILLERS]
)
def test_it_falls_where_the_student_follows_it(method: str) -> None:
    """Five steps of Adam on the method's losses alone; the drawn masks of some are the same at start and end."""
    student, _, module = pair(method)
    trained = [*student.parameters(), *module.distillers.parameters()]
    optimiser = torch.optim.Adam([each for each in trained if each.requires_grad], lr=1e-3)
    values = []
    for _ in range(6):
        torch.manual_seed(1)
        optimiser.zero_grad()
        loss = total(distilled(module(views(), targets())))
        values.append(loss.item())
        loss.backward()
        optimiser.step()
    assert values[-1] < values[0]


@pytest.mark.parametrize("method", DISTILLERS)
def test_bf16_and_fp32_agree(method: str) -> None:
    _, _, module = pair(method)

    def losses() -> dict[str, Tensor]:
        torch.manual_seed(1)
        return distilled(module(views(), targets()))

    exact = losses()
    with torch.autocast("cpu", torch.bfloat16):
        half = losses()
    for name, loss in exact.items():
        # bf16 has 8 bits of mantissa; over some 20 layers a few per cent remain.
        torch.testing.assert_close(half[name], loss, rtol=0.1, atol=0.02, msg=name)


@pytest.mark.parametrize("method", DISTILLERS)
def test_what_it_trains_is_in_the_state_and_not_in_the_student(method: str) -> None:
    student, _, module = pair(method)
    of_method = {name for name, _ in module.distillers.named_parameters()}
    assert {f"distillers.{name}" for name in of_method} <= module.state_dict().keys()
    assert student.state_dict().keys() == Detector(student.spec).state_dict().keys()


def test_the_help_names_every_method() -> None:
    """It is written out, as it must not import torch."""
    assert set(DISTILLERS) < set(re.findall(r"[a-z][a-z0-9-]+", METHODS_HELP))
