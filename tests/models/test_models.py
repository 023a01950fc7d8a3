"""The model floor against torchvision: its forward, its weights, its pyramid; and the alignment of the views."""

from urllib.error import URLError

import pytest
import torch
from support.specs import spec
from torchvision.models import get_model

from msad_cli.errors import UsageError
from msad_cli.frame import Frame, level_shift
from msad_cli.models.backbones.cspnext_sizes import SIZES
from msad_cli.models.backbones.normalisation import norm_layer
from msad_cli.models.backbones.resnet import BACKBONES, ResNetBackbone, build_backbone
from msad_cli.models.cost import count_cost
from msad_cli.models.detector import Detector
from msad_cli.models.fusion import CrossFusion
from msad_cli.models.spec import BACKBONE_NAMES
from msad_cli.models.weights import initialise as init


@pytest.mark.parametrize("name", [*BACKBONES, "mobilenet_v2"])
def test_backbones_have_torchvisions_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        theirs = get_model(name, weights=None).state_dict()
        mine = build_backbone(name, 1.0, norm_layer("batch")).state_dict()
    assert {key: each.shape for key, each in mine.items()} == {
        key: each.shape for key, each in theirs.items() if not key.startswith(("fc.", "classifier."))
    }


def test_spec_and_backbones_know_the_same_names() -> None:
    assert (*BACKBONES, "mobilenet_v2", *SIZES) == BACKBONE_NAMES


@torch.no_grad()
def test_backbone_computes_what_torchvisions_resnet_computes() -> None:
    torch.manual_seed(0)
    theirs = get_model("resnet18", weights=None).eval()
    mine = ResNetBackbone("resnet18", 1.0, norm_layer("batch")).eval()
    mine.load_state_dict({name: each for name, each in theirs.state_dict().items() if not name.startswith("fc.")})
    pixels = torch.randn(1, 3, 64, 96)
    maps = mine(pixels)
    assert [maps[level].shape[-1] for level in range(1, 6)] == [48, 24, 12, 6, 3]  # 96 / 2^l
    torch.testing.assert_close(theirs.fc(maps[5].mean(dim=(2, 3))), theirs(pixels))


def test_fusion_is_the_papers_formula() -> None:
    fusion = CrossFusion(32)
    # 2·32 -> 64/16 = 4 -> 2, and no biases.
    assert {name: tuple(each.shape) for name, each in fusion.named_parameters()} == {
        "squeeze.weight": (4, 64),
        "weigh.weight": (2, 4),
    }
    with torch.no_grad():
        fusion.squeeze.weight.zero_()
        fusion.squeeze.weight[0, 0] = 1.0  # the first hidden unit is the mean of A's first channel
        fusion.weigh.weight.zero_()
        fusion.weigh.weight[0, 0] = 1.0
    a, b = torch.full((1, 32, 2, 2), 2.0), torch.full((1, 32, 2, 2), -1.0)
    share = torch.sigmoid(torch.tensor(2.0))  # softmax(2, 0)
    torch.testing.assert_close(fusion.weights([a, b]), torch.stack([share, 1 - share])[None])
    torch.testing.assert_close(fusion([[a], [b]])[0], share * a + (1 - share) * b)


@pytest.mark.parametrize("views", [2, 3, 4])
def test_fusion_keeps_shapes_for_any_number_of_views(views: int) -> None:
    fusion = CrossFusion(32, views)
    pyramids = [[torch.randn(2, 32, 8, 6), torch.randn(2, 32, 4, 3)] for _ in range(views)]
    fused = fusion(pyramids)
    assert [each.shape for each in fused] == [each.shape for each in pyramids[0]]
    torch.testing.assert_close(fusion.weights([each[0] for each in pyramids]).sum(dim=1), torch.ones(2))


@pytest.mark.parametrize("k", [0, 3, 6, 8])
def test_other_reductions_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        level_shift(k)


def test_frame_of_a_low_view_is_the_hr_frame() -> None:
    # 100 -> 128 and 260 -> 384 are the next multiples of 128.
    assert Frame.around([(50, 64), (40, 130)], 2) == Frame(((100, 128), (80, 260)), (128, 384))
    assert Frame.around([(50, 64)], 2).image_sizes == Frame.around([(100, 128)], 1).image_sizes


def test_without_a_network_published_weights_are_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    detector = Detector(spec(width=1.0))
    with pytest.raises(UsageError, match="cannot download") as caught:
        init.from_imagenet(detector)
    assert "--init none" in caught.value.hint


def test_imagenet_weights_are_those_of_the_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    published = get_model("resnet18", weights=None).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: published)
    detector = Detector(spec(width=1.0, norm="frozen"))
    copied = init.from_imagenet(detector)
    backbone = detector.core.backbone.body.state_dict()
    assert copied.tensors == copied.of == len(backbone)
    assert all(torch.equal(each, published[name]) for name, each in backbone.items())


def test_cost_of_resnet50_is_the_published_one() -> None:
    """4.09 GMACs at 224 × 224 (torchvision's ResNet50_Weights.IMAGENET1K_V2.meta) less 2.05 M of the classifier."""
    whole = spec(role="baseline", scales="single", ks=(1,), backbone="resnet50", width=1.0, channels=256, norm="frozen")
    cost = count_cost(whole, "high", [(448, 448)], padded=False)
    assert cost.macs["backbone"] / 4 == pytest.approx(4.089e9 - 2.05e6, rel=1e-3)
    # A student sees a quarter of the pixels, so its backbone costs a quarter; its head runs on the same grid.
    student = spec(role="student", ks=(2,), backbone="resnet50", width=1.0, channels=256, norm="frozen")
    low = count_cost(student, "low", [(448, 448)], padded=False)
    assert low.macs["backbone"] == cost.macs["backbone"] / 4
    assert low.macs["head"] == cost.macs["head"]
