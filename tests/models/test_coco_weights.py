"""Torchvision's COCO weights under our roof: their old names, their rows by name, their normalisation."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from support.detectors import (
    EACH_OF_TORCHVISION,
    ORDINARY,
    POINTS,
    TORCHVISIONS,
    images,
    lively,
    silence_background,
    spec_of,
    stock,
)
from support.specs import assert_same, spec
from torch import Tensor
from torchvision.models import get_model
from torchvision.ops import FrozenBatchNorm2d

from msad_cli.errors import UsageError
from msad_cli.models.detector import Detector
from msad_cli.models.spec import ClassName
from msad_cli.models.weights import initialise as init
from msad_cli.models.weights.coco import fitted

META = {"categories": ["__background__", "first", "second"], "keypoint_names": list(POINTS)}


def published(name: str) -> dict[str, Tensor]:
    """The state of a small stock detector under the names of torchvision's published files."""
    torch.manual_seed(0)
    core = stock(name, FrozenBatchNorm2d)
    lively(core)
    for module in core.modules():
        if isinstance(module, FrozenBatchNorm2d):
            # Variances so small that it matters what is added to them.
            module.running_var.uniform_(0.5e-4, 1.5e-4)
            module.weight.fill_(1e-2)
    old = {}
    for key, each in core.state_dict().items():
        if ".fpn." in key or ".rpn." in f".{key}" or "mask_head" in key or (name == "retinanet" and ".conv." in key):
            key = re.sub(r"_head\.conv\.(\d)\.0\.", lambda match: f"_head.conv.{2 * int(match[1])}.", key)  # noqa: PLW2901
            key = re.sub(r"mask_head\.(\d)\.0\.", lambda match: f"mask_head.mask_fcn{int(match[1]) + 1}.", key)  # noqa: PLW2901
            key = re.sub(r"(blocks\.\d)\.0\.", r"\1.", key)  # noqa: PLW2901
            key = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")  # noqa: PLW2901
        old[key] = each
    return old


def ours(name: str, *classes: str, points: tuple[str, ...] = POINTS) -> Detector:
    torch.manual_seed(1)
    return Detector(
        spec(
            detector=name,
            role="student",
            ks=(1,),
            norm="frozen",
            head_convs=4 if name == "retinanet" else 1,
            classes=tuple(ClassName(i, each) for i, each in enumerate(classes)),
            detections_per_image=10,
            keypoints=points if name == "keypointrcnn" else (),
        )
    )


@pytest.mark.parametrize("name", TORCHVISIONS)
@torch.no_grad()
def test_published_weights_detect_as_in_torchvision(name: str) -> None:
    old = published(name)
    theirs = stock(name, FrozenBatchNorm2d).eval()
    theirs.load_state_dict(old, strict=True)
    if name != "fcos":
        # What torchvision does in loading the COCO weights of the others.
        for module in theirs.modules():
            if isinstance(module, FrozenBatchNorm2d):
                module.eps = 0.0
    detector = ours(name, "first", "second").eval()
    detector.core.load_state_dict(fitted(detector.kind, old, META), strict=True)
    pixels = images(ORDINARY)
    cores: tuple[Any, ...] = (theirs, detector.core)
    silence_background(*cores)
    assert_same(detector.detect({1: pixels}, "high"), theirs([image.float() / 255 for image in pixels]))


CLASS_LAYERS = {
    "fcos": {"head.classification_head.cls_logits": (1, 1)},
    "retinanet": {"head.classification_head.cls_logits": (9, 1)},
    "fasterrcnn": {"roi_heads.box_predictor.cls_score": (1, 1), "roi_heads.box_predictor.bbox_pred": (1, 4)},
    "maskrcnn": {
        "roi_heads.box_predictor.cls_score": (1, 1),
        "roi_heads.box_predictor.bbox_pred": (1, 4),
        "roi_heads.mask_predictor.mask_fcn_logits": (1, 1),
    },
    "keypointrcnn": {"roi_heads.box_predictor.cls_score": (1, 1), "roi_heads.box_predictor.bbox_pred": (1, 4)},
}
"""Anchors a cell and numbers a class of the layers that know classes; rows lie in the order (anchor, class, number)."""


@pytest.mark.parametrize("name", TORCHVISIONS)
def test_classes_are_loaded_by_name(name: str) -> None:
    old = published(name)
    detector = ours(name, "Second", "unicorn", "first")
    own = {key: each.clone() for key, each in detector.core.state_dict().items()}
    fit = fitted(detector.kind, old, META)
    for layer, (anchors, numbers) in CLASS_LAYERS[name].items():
        for key in (f"{layer}.weight", f"{layer}.bias"):
            found, start = (each[key].reshape(anchors, 4, numbers, -1) for each in (fit, own))
            source = old[key].reshape(anchors, 3, numbers, -1)
            expected = torch.stack([source[:, 0], source[:, 2], start[:, 2], source[:, 1]], dim=1)
            assert torch.equal(found, expected)


def test_keypoints_are_loaded_by_name() -> None:
    old = published("keypointrcnn")
    detector = ours("keypointrcnn", "first", points=("Right", "elbow"))
    own = detector.core.state_dict()
    fit = fitted(detector.kind, old, META)
    key = "roi_heads.keypoint_predictor.kps_score_lowres"
    weight = torch.stack([old[f"{key}.weight"][:, 2], own[f"{key}.weight"][:, 1]], dim=1)
    assert torch.equal(fit[f"{key}.weight"], weight)
    assert torch.equal(fit[f"{key}.bias"], torch.stack([old[f"{key}.bias"][2], own[f"{key}.bias"][1]]))
    detector.core.load_state_dict(fit, strict=True)


@pytest.mark.parametrize("name", EACH_OF_TORCHVISION)
def test_a_file_of_published_weights_is_known_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As `--init coco`: to the bit what `fitted` gives, under old names or today's."""
    monkeypatch.setattr("msad_cli.models.weights.initialise.description", lambda _: META)
    monkeypatch.setattr("msad_cli.models.weights.coco.description", lambda _: META)
    old = published(name)
    for names in (old, stock(name, FrozenBatchNorm2d).state_dict()):
        state = dict(zip(names, old.values(), strict=True))
        torch.save({"model": {f"module.{each}": tensor for each, tensor in state.items()}}, tmp_path / "coco.pth")
        detector = ours(name, "Second", "unicorn", "first")
        expected = fitted(detector.kind, old, META)
        copied = init.from_file(detector, tmp_path / "coco.pth")
        assert copied.rows == "the head keeps its rows of Second, first, by name; from the prior: unicorn"
        own = detector.core.state_dict()
        assert all(torch.equal(own[each], tensor) for each, tensor in expected.items())


def test_init_coco_fills_a_full_size_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    state = get_model("maskrcnn_resnet50_fpn", weights=None, weights_backbone=None, num_classes=91).state_dict()
    asked: list[str] = []

    def download(url: str, *_: object, **__: object) -> Any:
        asked.append(url)
        return state

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    detector = Detector(
        spec_of(
            "maskrcnn",
            role="student",
            ks=(1,),
            backbone="resnet50",
            width=1.0,
            channels=256,
            head_convs=4,
            norm="frozen",
            classes=(ClassName(3, "person"),),
        )
    )
    copied = init.from_coco(detector)
    assert copied.tensors == copied.of
    assert "maskrcnn_resnet50_fpn_coco" in asked[0]
    scores = detector.core.roi_heads.box_predictor.cls_score.weight
    assert torch.equal(scores, state["roi_heads.box_predictor.cls_score.weight"][:2])


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 0.5},
        {"backbone": "resnet18"},
        {"channels": 64},
        {"head_convs": 3},
        {"head_depthwise": True},
        {"role": "student", "low_backbone": "resnet50"},
    ],
)
def test_there_are_no_coco_weights_for_other_architectures(changes: dict[str, object]) -> None:
    stock_size = {"backbone": "resnet50", "width": 1.0, "channels": 256, "head_convs": 4}
    with torch.device("meta"):
        detector = Detector(spec(**(stock_size | changes)))
    with pytest.raises(UsageError, match="torchvision's fcos weights are of resnet50 at"):
        init.from_coco(detector)


def test_imagenet_weights_fill_both_backbones_of_a_fusion_student(monkeypatch: pytest.MonkeyPatch) -> None:
    published = {name: get_model(name, weights=None).state_dict() for name in ("resnet18", "resnet34")}
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url",
        lambda url, *_, **__: published[url.rpartition("/")[2].partition("-")[0]],
    )
    detector = Detector(spec(role="student", width=1.0, low_backbone="resnet34", norm="frozen"))
    copied = init.from_imagenet(detector)
    assert copied.tensors == copied.of
    assert detector.low is not None
    for name, backbone in (("resnet18", detector.core.backbone), ("resnet34", detector.low)):
        assert all(torch.equal(each, published[name][key]) for key, each in backbone.body.state_dict().items())
