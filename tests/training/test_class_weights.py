"""Weights of classes: whose gradients they multiply, and how they are chosen."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.specs import spec
from torch import Tensor

from msad_cli.data.annotations.split import CocoSplit, read_split
from msad_cli.errors import UsageError
from msad_cli.models.detector import Detector
from msad_cli.training.sets import class_weights


@pytest.fixture
def train(coco_folder: Path) -> CocoSplit:
    """Categories 7, red, and 90, blue, in this order."""
    return read_split(coco_folder / "annotations" / "instances_train2017.json", coco_folder / "train2017")


@pytest.mark.parametrize("detector", ["fcos", "retinanet"])
def test_gradients_of_a_class_are_multiplied_and_the_loss_is_the_plain_one(detector: str) -> None:
    """Of FCOS and RetinaNet alike the last layer's bias: a row for each label, the background first, of each anchor."""
    torch.manual_seed(0)
    model = Detector(spec(role="student", detector=detector, ks=(1,)))
    image = torch.randint(0, 256, (3, 128, 128), dtype=torch.uint8)
    targets = [{"boxes": torch.tensor([[10.0, 10, 60, 60], [70, 70, 110, 120]]), "labels": torch.tensor([1, 2])}]
    bias = model.core.head.classification_head.cls_logits.bias

    def of(weights: Tensor | None) -> tuple[dict[str, float], Tensor]:
        model.kind.class_weights = weights
        losses = model.losses(model.pyramid([image], 1), model.frame([image], 1), targets)
        (gradient,) = torch.autograd.grad(losses["classification"], [bias])
        return {name: float(each.detach()) for name, each in losses.items()}, gradient.view(-1, 3)

    plain, gradient = of(None)
    weighted, other = of(torch.tensor([1.0, 2.0, 0.5]))
    assert weighted == plain
    torch.testing.assert_close(other, gradient * torch.tensor([1.0, 2.0, 0.5]))
    assert (gradient != 0).all()


def test_auto_is_the_root_of_how_rare_a_class_is(train: CocoSplit) -> None:
    """Of 4, 16 and 100 objects: the root of 16/4, 16/16 and 16/100; of none 1. Beyond 16 times it stays at 4."""
    categories = ((1, "a"), (2, "b"), (3, "c"), (4, "none"))
    labels = torch.tensor([1] * 4 + [2] * 16 + [3] * 100).numpy()
    weights = class_weights("auto", replace(train, categories=categories, labels=labels))
    assert weights == pytest.approx({"a": 2, "b": 1, "c": 0.4, "none": 1})
    labels = torch.tensor([1] + [2] * 100 + [3] * 100).numpy()
    assert class_weights("auto", replace(train, categories=categories, labels=labels))["a"] == 4


def test_typed_weights_are_of_the_datas_classes(train: CocoSplit) -> None:
    assert class_weights("blue=3", train) == {"red": 1, "blue": 3}
    assert class_weights(None, train) == {}


@pytest.mark.parametrize("text", ["blu=3", "blue", "blue=", "blue=0", "blue=-1", "blue=inf", "blue=nan", ""])
def test_what_is_no_weight_of_a_class(train: CocoSplit, text: str) -> None:
    with pytest.raises(UsageError, match="not CLASS=NUMBER"):
        class_weights(text, train)


def test_a_two_stage_detector_has_none(train: CocoSplit) -> None:
    with pytest.raises(UsageError, match="of dense detectors"):
        class_weights("auto", replace(train, task="masks"))
