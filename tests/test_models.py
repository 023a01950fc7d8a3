"""The model floor against torchvision: its forward, its weights, its pyramid; and the alignment of the views."""

from collections import OrderedDict
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.detection import FCOS, fcos_resnet50_fpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork

from msad_cli.models import init
from msad_cli.models.backbones import BACKBONES, ResNetBody, build_body
from msad_cli.models.cost import count_cost
from msad_cli.models.detector import Detector
from msad_cli.models.fusion import CrossFusion
from msad_cli.models.normalisation import norm_layer
from msad_cli.models.on_features import dense_detections, dense_losses
from msad_cli.models.pyramid import AlignedBackbone
from msad_cli.models.spec import BACKBONE_NAMES, ClassName, DetectorSpec
from msad_cli.structures.errors import UsageError
from msad_cli.structures.frame import Frame, Resolution, level_shift


def spec(**changes: object) -> DetectorSpec:
    """A small teacher, with changes."""
    values: dict[str, object] = {
        "role": "teacher", "detector": "fcos", "backbone": "resnet18", "width": 0.25, "channels": 64, "head_convs": 1,
        "norm": "group", "scales": "aligned", "ks": (1, 2), "resolution": Resolution(128, 256),
        "classes": (ClassName(7, "seven"), ClassName(90, "ninety")),
    }  # fmt: skip
    return DetectorSpec(**{**values, **changes})  # type: ignore[arg-type]


def target(*boxes: list[float]) -> dict[str, Tensor]:
    return {"boxes": torch.tensor(boxes), "labels": torch.ones(len(boxes), dtype=torch.int64)}


def assert_same(ours: list[dict[str, Tensor]], theirs: list[dict[str, Tensor]], scale: float = 1.0) -> None:
    """Equal detections, there being some; `theirs` in pixels `scale` times as large as ours."""
    for mine, other in zip(ours, theirs, strict=True):
        assert len(mine["boxes"]) > 0
        assert torch.equal(mine["labels"], other["labels"])
        torch.testing.assert_close(mine["scores"], other["scores"])
        torch.testing.assert_close(mine["boxes"], other["boxes"] * scale, rtol=1e-5, atol=1e-3)


@pytest.fixture(scope="module")
def stock() -> FCOS:
    """Torchvision's FCOS with random weights; its images are 128 pixels high, so its transform does not resize."""
    torch.manual_seed(0)
    model: FCOS = fcos_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=128, max_size=256, score_thresh=0.05
    )
    return model


@pytest.fixture(scope="module")
def ours(stock: FCOS) -> Detector:
    """The same weights under our roof; only the finer level is new."""
    detector = Detector(spec(backbone="resnet50", width=1.0, channels=256, head_convs=4, norm="batch"))
    copied = init.copy_matching(detector.core, stock.state_dict())
    assert all(name.startswith("backbone.finer.2.") for name in copied.left)
    return detector


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (3, 128, width), generator=generator, dtype=torch.uint8) for width in (128, 256)]


def test_features_in_equals_the_stock_forward_in_losses(stock: FCOS, ours: Detector) -> None:
    targets = [target([10, 20, 60, 90]), target([5, 5, 30, 30], [100, 10, 250, 120])]
    expected = stock.train()([image.float() / 255 for image in images()], targets)
    ours.train()
    found = dense_losses(ours.core, ours.pyramid(images(), 1), ours.frame(images(), 1), targets)
    assert found.keys() == expected.keys()
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss)


@torch.no_grad()
def test_features_in_equals_the_stock_forward_in_detections(stock: FCOS, ours: Detector) -> None:
    expected = stock.eval()([image.float() / 255 for image in images()])
    ours.eval()
    assert_same(dense_detections(ours.core, ours.pyramid(images(), 1), ours.frame(images(), 1)), expected)


def test_stock_coco_keys_load_strictly() -> None:
    """Torchvision's COCO weights have 91 classes and these names and shapes; nothing of ours may rename them."""
    with torch.device("meta"):
        published = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91).state_dict()
        classes = tuple(ClassName(i, str(i)) for i in range(1, 91))
        mine = Detector(
            spec(role="baseline", scales="single", ks=(1,), backbone="resnet50", width=1.0, channels=256, head_convs=4,
                 norm="batch", classes=classes)
        ).core.state_dict()  # fmt: skip
    assert {name: each.shape for name, each in mine.items()} == {name: each.shape for name, each in published.items()}


@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_bodies_have_torchvisions_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        theirs = get_model(name, weights=None).state_dict()
        mine = build_body(name, 1.0, norm_layer("batch")).state_dict()
    assert {key: each.shape for key, each in mine.items()} == {
        key: each.shape for key, each in theirs.items() if not key.startswith(("fc.", "classifier."))
    }


def test_spec_and_backbones_know_the_same_names() -> None:
    assert (*BACKBONES, "mobilenet_v2") == BACKBONE_NAMES


@torch.no_grad()
def test_body_computes_what_torchvisions_resnet_computes() -> None:
    torch.manual_seed(0)
    theirs = get_model("resnet18", weights=None).eval()
    mine = ResNetBody("resnet18", 1.0, norm_layer("batch")).eval()
    mine.load_state_dict({name: each for name, each in theirs.state_dict().items() if not name.startswith("fc.")})
    pixels = torch.randn(1, 3, 64, 96)
    maps = mine(pixels)
    assert [maps[level].shape[-1] for level in range(1, 6)] == [48, 24, 12, 6, 3]  # 96 / 2^l
    torch.testing.assert_close(theirs.fc(maps[5].mean(dim=(2, 3))), theirs(pixels))


def test_grids_of_both_views_agree_for_all_padded_sizes() -> None:
    with torch.device("meta"):
        backbone = AlignedBackbone(ResNetBody("resnet18", 0.25, norm_layer("group")), 32, 3, (1, 2, 4))
    for height in range(128, 1409, 128):
        width = 1536 - height
        grids = {}
        for k in (1, 2, 4):
            levels = backbone.pyramid(torch.empty(1, 3, height // k, width // k, device="meta"), k)
            grids[k] = [tuple(level.shape[-2:]) for level in levels]
        expected = [(height // stride, width // stride) for stride in (8, 16, 32, 64, 128)]
        assert grids[1] == grids[2] == grids[4] == expected


@torch.no_grad()
def test_finer_level_is_what_an_fpn_with_that_level_gives() -> None:
    torch.manual_seed(0)
    body = ResNetBody("resnet18", 0.25, norm_layer("group"))
    backbone = AlignedBackbone(body, 32, 3, (1, 2))
    whole = FeaturePyramidNetwork([body.channels[level] for level in (2, 3, 4, 5)], 32)
    whole.inner_blocks[0][0].load_state_dict(backbone.finer.get_submodule("2.inner").state_dict())
    whole.layer_blocks[0][0].load_state_dict(backbone.finer.get_submodule("2.layer").state_dict())
    for index in range(3):
        whole.inner_blocks[index + 1].load_state_dict(backbone.fpn.inner_blocks[index].state_dict())
        whole.layer_blocks[index + 1].load_state_dict(backbone.fpn.layer_blocks[index].state_dict())
    pixels = torch.randn(1, 3, 64, 128)
    maps = body(pixels)
    expected = whole(OrderedDict((str(level), maps[level]) for level in (2, 3, 4, 5)))
    for mine, theirs in zip(backbone.pyramid(pixels, 2), expected.values(), strict=False):
        torch.testing.assert_close(mine, theirs)


def test_no_view_computes_a_level_that_nobody_reads() -> None:
    """The HR view needs no P2, the half view no P7."""
    backbone = AlignedBackbone(ResNetBody("resnet18", 0.25, norm_layer("group")), 32, 3, (1, 2))
    called: list[str] = []
    for name, module in (("P2", backbone.finer.get_submodule("2.layer")), ("P7", backbone.fpn.extra_blocks.p7)):
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    backbone.pyramid(torch.zeros(1, 3, 128, 128), 1)
    assert called == ["P7"]
    backbone.pyramid(torch.zeros(1, 3, 64, 64), 2)
    assert called == ["P7", "P2"]


class LowBackbone(nn.Module):
    """The half view as torchvision sees a backbone."""

    def __init__(self, backbone: AlignedBackbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.out_channels = backbone.out_channels

    def forward(self, pixels: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict((str(i), level) for i, level in enumerate(self.backbone.pyramid(pixels, 2)))


def halved(detector: Detector) -> FCOS:
    """An ordinary torchvision detector for small images: half of each cell anchor, everything else as it is."""
    anchors = AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((1.0,),) * 5)
    anchors.cell_anchors = [cell / 2 for cell in anchors.cell_anchors]
    return FCOS(
        LowBackbone(detector.core.backbone), 3, min_size=64, max_size=128, image_mean=list(detector.spec.mean),
        image_std=list(detector.spec.std), anchor_generator=anchors, head=detector.core.head, score_thresh=0.05,
    )  # fmt: skip


def test_low_view_in_the_hr_frame_equals_a_stock_detector_with_halved_anchors() -> None:
    torch.manual_seed(0)
    detector = Detector(spec())
    low = [torch.randint(0, 256, (3, 64, 128), dtype=torch.uint8) for _ in range(2)]
    targets = [target([10, 20, 60, 90], [100, 8, 240, 100]), target([60, 60, 70, 72])]
    small = [{**each, "boxes": each["boxes"] / 2} for each in targets]
    stock = halved(detector)
    pixels = [image.float() / 255 for image in low]
    expected = stock.train()(pixels, small)
    losses = detector.train().losses(detector.pyramid(low, 2), detector.frame(low, 2), targets)
    for name, loss in expected.items():
        torch.testing.assert_close(losses[name], loss)
    with torch.no_grad():
        detector.eval()
        found = dense_detections(detector.core, detector.pyramid(low, 2), detector.frame(low, 2))
        assert_same(found, stock.eval()(pixels), scale=2)


@torch.no_grad()
def test_background_is_never_detected() -> None:
    torch.manual_seed(0)
    detector = Detector(spec()).eval()
    low = [torch.randint(0, 256, (3, 64, 128), dtype=torch.uint8)]
    raw = dense_detections(detector.core, detector.pyramid(low, 2), detector.frame(low, 2))
    assert set(raw[0]["labels"].tolist()) == {0, 1, 2}  # an untrained head answers every label alike
    assert set(detector.detect({2: low}, "low")[0]["labels"].tolist()) == {1, 2}


@torch.no_grad()
def test_batched_equals_single() -> None:
    torch.manual_seed(0)
    detector = Detector(spec()).eval()
    # Equal padded sizes: an image that is padded further sees more zeros beyond its edge.
    high = [torch.randint(0, 256, (3, 120, 128), dtype=torch.uint8) for _ in range(2)]
    views = {1: high, 2: [image[:, ::2, ::2] for image in high]}
    for view in detector.spec.views:
        single = [detector.detect({k: [of[i]] for k, of in views.items()}, view)[0] for i in range(2)]
        assert_same(detector.detect(views, view), single)


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


def test_imagenet_weights_are_those_of_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    published = get_model("resnet18", weights=None).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: published)
    detector = Detector(spec(width=1.0, norm="frozen"))
    copied = init.from_imagenet(detector)
    body = detector.core.backbone.body.state_dict()
    assert copied.tensors == copied.of == len(body)
    assert all(torch.equal(each, published[name]) for name, each in body.items())


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
