"""Batches with images that nobody has labelled: detection losses are those of the others, distillation is of all."""

import pytest
import torch
from support.pairs import pair
from support.training import TARGETS, total, views
from torch import Tensor

from msad_cli.distillation.distillation import Distillation
from msad_cli.distillation.labelled_part import LabelledPart
from msad_cli.models.detector import Views

ROUNDING = 1e-5
"""Of float32: sums over a batch of four go in another order than over two."""


def target(image: int, labels: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """What the loader gives, of an image that has labels or has none."""
    return {"image": torch.tensor([image, 0]), **(labels or {})}


def mixed(seed: int) -> tuple[Views, list[dict[str, Tensor]]]:
    """Two images with labels and masks between two without: noise that is drawn by the seed, and darker with it."""
    draw = torch.Generator().manual_seed(seed)
    others = [torch.randint(0, 256 // seed, (3, 128, 128), generator=draw, dtype=torch.uint8) for _ in range(2)]
    own = views()
    high = [others[0], *own[1], others[1]]
    labelled = [
        target(number, each | {"masks": torch.ones(len(each["boxes"]), 128, 128, dtype=torch.uint8)})
        for number, each in enumerate(TARGETS)
    ]
    return {1: high, 2: [each[:, ::2, ::2].contiguous() for each in high]}, [target(8), *labelled, target(9)]


def losses(module: Distillation, of: Views, targets: list[dict[str, Tensor]]) -> dict[str, float]:
    torch.manual_seed(5)  # of a two-stage detector's samples
    return {name: loss.item() for name, loss in module(of, targets).items()}


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("detector", ["fcos", "retinanet", "maskrcnn"])
def test_the_detection_loss_of_a_mixed_batch_is_that_of_its_labelled_part(detector: str, aligned: bool) -> None:
    """Also where the others show something else; what is distilled differs."""
    method = "output-kd" if aligned or detector != "maskrcnn" else "l1"
    _, _, module = pair(method, detector, aligned)
    of, targets = mixed(1)
    alone = losses(module, {k: each[1:3] for k, each in of.items()}, targets[1:3])
    module._detection = LabelledPart(0.5)
    one, other = (losses(module, *mixed(seed)) for seed in (1, 8))
    detection = {name for name in alone if name.startswith("student/")}
    assert len(detection) >= 2 + (detector == "fcos")
    for name in detection:
        assert alone[name] > 0
        assert one[name] == pytest.approx(alone[name], rel=ROUNDING)
        assert other[name] == pytest.approx(alone[name], rel=ROUNDING)
    assert any(one[name] != pytest.approx(other[name], rel=1e-3) for name in one.keys() - detection)


def test_a_student_learns_from_images_without_labels() -> None:
    """A batch without a single labelled image: no detection loss, but a gradient of what the teacher says."""
    student, _, module = pair("output-kd")
    module._detection = LabelledPart(0.5)
    of, targets = mixed(1)
    found = module({k: each[::3] for k, each in of.items()}, targets[::3])
    assert all(loss.item() == 0 for name, loss in found.items() if name.startswith("student/"))
    total(found).backward()
    assert all(
        bool(each.grad.abs().sum() > 0) for name, each in student.core.named_parameters() if "cls_logits" in name
    )


def test_every_labelled_image_counts_the_same_in_whatever_part_of_a_batch() -> None:
    """RetinaNet's losses are means over images: of parts of one and three images, weighted by their images.

    Each part has a labelled image; the whole batch's mean over both is the sum of the parts.
    """
    _, _, module = pair("output-kd", "retinanet")
    module._detection = LabelledPart(0.5)
    of, targets = mixed(1)
    whole = losses(module, of, targets)
    sums = dict.fromkeys(whole, 0.0)
    for part in (slice(1, 2), slice(2, 4), slice(0, 1)):
        for name, loss in losses(module, {k: each[part] for k, each in of.items()}, targets[part]).items():
            sums[name] += len(targets[part]) / 4 * loss
    for name in ("student/classification", "student/bbox_regression"):
        assert whole[name] > 0
        assert sums[name] == pytest.approx(whole[name], rel=ROUNDING)


@pytest.mark.parametrize("detector", ["fcos", "retinanet"])
def test_without_unlabelled_images_nothing_is_another_number(detector: str) -> None:
    """To the last digit, whether a part of the batch is asked for or all of it: the factor is 1."""
    _, _, module = pair("output-kd", detector)
    targets = [target(number, each) for number, each in enumerate(TARGETS)]
    plain = losses(module, views(), targets)
    module._detection = LabelledPart(1.0)
    assert losses(module, views(), targets) == plain
