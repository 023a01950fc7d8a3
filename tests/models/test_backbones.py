"""Backbones: MobileNetV2 against torchvision's, widths and norms of all, and what docs/backbones.md says of them."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

from msad_cli.frame import Resolution
from msad_cli.models.backbones.mobilenet import MobileNetV2Backbone
from msad_cli.models.backbones.normalisation import norm_layer
from msad_cli.models.backbones.resnet import build_backbone
from msad_cli.models.detector import Detector
from msad_cli.models.spec import BACKBONE_NAMES, ClassName, DetectorSpec
from msad_cli.models.weights import initialise as init

TEACHER = DetectorSpec(
    role="teacher",
    detector="fcos",
    backbone="mobilenet_v2",
    width=1.0,
    channels=64,
    head_convs=1,
    norm="frozen",
    scales="aligned",
    ks=(1, 2),
    resolution=Resolution(64, 96),
    classes=(ClassName(1, "one"),),
)


@torch.no_grad()
def test_mobilenet_computes_what_torchvisions_computes() -> None:
    torch.manual_seed(0)
    theirs = mobilenet_v2(weights=None).eval()
    mine = MobileNetV2Backbone(1.0, norm_layer("frozen")).eval()
    mine.load_state_dict({name: each for name, each in theirs.state_dict().items() if name.startswith("features.")})
    pixels = torch.randn(1, 3, 64, 96)
    maps = mine(pixels)
    # The last stage of each stride, by hand from table 2 of the paper; of stride 2 the first, which is the stem.
    for level, end in {1: 1, 2: 4, 3: 7, 4: 14, 5: 19}.items():
        torch.testing.assert_close(maps[level], theirs.features[:end](pixels))
        assert maps[level].shape == (1, mine.channels[level], 64 >> level, 96 >> level)


@pytest.mark.parametrize(
    ("width", "channels"),
    [
        # 32, 24, 32, 96 times the width, rounded to multiples of 8 and never down by more than a tenth; 1280.
        (0.25, [8, 8, 8, 24, 1280]),
        (0.35, [16, 8, 16, 32, 1280]),  # 11.2 -> 8 would be less than nine tenths of it; 8.4 -> 8 is not
        (0.5, [16, 16, 16, 48, 1280]),
        (0.75, [24, 24, 24, 72, 1280]),
        (1.0, [32, 24, 32, 96, 1280]),
        (2.0, [64, 48, 64, 192, 2560]),
    ],
)
def test_channels_of_mobilenet_at_every_width(width: float, channels: list[int]) -> None:
    with torch.device("meta"):
        backbone = build_backbone("mobilenet_v2", width, norm_layer("frozen"))
        maps = backbone(torch.empty(1, 3, 32, 32))
    assert list(backbone.channels.values()) == channels
    assert {level: each.shape[1] for level, each in maps.items()} == backbone.channels


@pytest.mark.parametrize("norm", ["frozen", pytest.param("batch", marks=pytest.mark.slow), "group"])
@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnext50_32x4d",
        "mobilenet_v2",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("resnet50", "resnext101_64x4d")),
    ],
)
def test_every_width_works_with_every_norm(name: str, norm: str) -> None:
    """Widths that leave odd channels, stages of a few channels, and more than the published ones.

    The other backbones have more of the same blocks.
    """
    for width in (0.125, 0.14, 0.25, 0.33, 0.35, 0.57, 1.03, 1.9, 4.0):
        with torch.device("meta"):
            backbone = build_backbone(name, width, norm_layer(norm)).eval()
            maps = backbone(torch.empty(1, 3, 64, 32))
        assert {level: tuple(each.shape) for level, each in maps.items()} == {
            level: (1, backbone.channels[level], 64 >> level, 32 >> level) for level in (1, 2, 3, 4, 5)
        }


def test_group_norms_keep_four_channels_a_group_or_more() -> None:
    for channels in range(4, 600):
        layer = norm_layer("group")(channels)
        assert isinstance(layer, nn.GroupNorm)
        assert channels / layer.num_groups >= 4
    assert norm_layer("group")(256).num_groups == 32


def test_published_widths_of_resnext_are_torchvisions() -> None:
    """Only groups that would have no channel at all were widened: 32 groups at 8 planes, 8 · 4 / 64 < 1."""
    with torch.device("meta"):
        narrow = build_backbone("resnext50_32x4d", 0.125, norm_layer("group")).state_dict()
        half = build_backbone("resnext50_32x4d", 0.5, norm_layer("group")).state_dict()
    assert narrow["layer1.0.conv2.weight"].shape == (32, 1, 3, 3)
    assert half["layer1.0.conv2.weight"].shape == (64, 2, 3, 3)  # half of 128 channels in 32 groups


def test_imagenet_weights_of_mobilenet_are_those_of_the_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    published: dict[str, torch.Tensor] = mobilenet_v2(weights=None).state_dict()
    asked: list[str] = []

    def state(url: str, *_: object, **__: object) -> dict[str, torch.Tensor]:
        asked.append(url)
        return published

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", state)
    detector = Detector(TEACHER)
    copied = init.from_imagenet(detector)
    backbone = detector.core.backbone.body.state_dict()
    assert asked == [MobileNet_V2_Weights.DEFAULT.url]
    assert copied.tensors == copied.of == len(backbone)
    assert all(torch.equal(each, published[name]) for name, each in backbone.items())


@torch.no_grad()
def test_a_teacher_on_mobilenet_detects_in_every_view() -> None:
    torch.manual_seed(0)
    detector = Detector(TEACHER).eval()
    views = {k: [torch.randint(0, 256, (3, 64 // k, 96 // k), dtype=torch.uint8)] for k in (1, 2)}
    for view in detector.spec.views:
        assert set(detector.detect(views, view)[0]) == {"boxes", "scores", "labels"}


def test_the_table_of_channels_is_right() -> None:
    """docs/backbones.md lists them; the command that stands there prints the same rows."""
    text = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    assert {name for name, *_ in rows} == set(BACKBONE_NAMES)
    for name, width, *channels in rows:
        with torch.device("meta"):
            backbone = build_backbone(name, float(width), norm_layer("frozen"))
        assert [str(each) for each in backbone.channels.values()] == channels
