"""The detectors, those of torchvision's against it: features in, frames, damaged weights, mixed precision."""

import math
from collections import OrderedDict
from copy import deepcopy
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from support.detectors import (
    EACH,
    EACH_OF_TORCHVISION,
    ORDINARY,
    TORCHVISIONS,
    TWO_STAGES,
    images,
    lively,
    silence_background,
    spec_of,
    stock,
    targets,
)
from support.specs import assert_same, spec
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from msad_cli.models.detector import Detector
from msad_cli.models.detectors.kinds import DETECTORS
from msad_cli.models.detectors.towers import depthwise_tower
from msad_cli.models.pyramid import AlignedBackbone
from msad_cli.models.spec import ClassName, Learning

PADDED = ((132, 136), (132, 260))
"""(height, width) of images whose frame is (128, 256), and of images whose frame is (256, 384)."""


@pytest.fixture(scope="module", params=TORCHVISIONS)
def pair(request: pytest.FixtureRequest) -> tuple[Any, Detector]:
    """Torchvision's detector and the same weights under our roof, every key having its place."""
    torch.manual_seed(0)
    theirs = stock(request.param)
    lively(theirs)
    # The scales of its RoIs are those of the first frame that it meets.
    with torch.no_grad():
        theirs.eval()([image.float() / 255 for image in images(ORDINARY)])
    convs = 4 if request.param == "retinanet" else 1
    ours = Detector(
        spec_of(request.param, role="student", ks=(1,), head_convs=convs, norm="batch", detections_per_image=10)
    )
    ours.core.load_state_dict(theirs.state_dict(), strict=True)
    for core in (theirs, ours.core):
        if isinstance(core, FasterRCNN):
            # Torchvision draws a size for each image; what it draws after that are samples.
            core.rpn.register_forward_pre_hook(lambda *_: torch.manual_seed(5) and None)
    return theirs, ours


@pytest.mark.parametrize("sizes", [ORDINARY, PADDED], ids=["ordinary", "padded"])
def test_features_in_equals_the_stock_forward_in_losses(
    pair: tuple[Any, Detector], sizes: tuple[tuple[int, int], ...]
) -> None:
    theirs, ours = pair
    theirs.transform.min_size = (sizes[0][0],)
    expected = theirs.train()([image.float() / 255 for image in images(sizes)], targets(sizes))
    ours.train()
    found = ours.losses(ours.pyramid(images(sizes), 1), ours.frame(images(sizes), 1), targets(sizes))
    assert found.keys() == expected.keys()
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss)


@pytest.mark.parametrize("sizes", [ORDINARY, PADDED], ids=["ordinary", "padded"])
@torch.no_grad()
def test_features_in_equals_the_stock_forward_in_detections(
    pair: tuple[Any, Detector], sizes: tuple[tuple[int, int], ...]
) -> None:
    theirs, ours = pair
    theirs.transform.min_size = (sizes[0][0],)
    ours.eval()
    silence_background(theirs, ours.core)
    expected = theirs.eval()([image.float() / 255 for image in images(sizes)])
    found = ours.detect({1: images(sizes)}, "high")
    assert_same(found, expected)
    for mine, other, size in zip(found, expected, sizes, strict=True):
        assert mine.keys() == other.keys()
        if "masks" in mine:
            assert mine["masks"].shape == (len(mine["boxes"]), 1, 28, 28)
            torch.testing.assert_close(paste_masks_in_image(mine["masks"], mine["boxes"], size), other["masks"])
        if "keypoints" in mine:
            torch.testing.assert_close(mine["keypoints"], other["keypoints"])
            torch.testing.assert_close(mine["keypoints_scores"], other["keypoints_scores"])


@torch.no_grad()
def test_a_padded_first_frame_misleads_torchvision_but_not_us() -> None:
    """The trap that the scales are set for: 132 pixels padded to 256 look like a stride of 2."""
    torch.manual_seed(0)
    theirs = stock("maskrcnn").eval()
    theirs.transform.min_size = (132,)
    theirs([image.float() / 255 for image in images(PADDED)])
    assert theirs.roi_heads.box_roi_pool.scales[0] == 1 / 2
    ours = Detector(spec_of("maskrcnn")).eval()
    ours.detect({1: images(PADDED)}, "high")
    assert ours.core.roi_heads.box_roi_pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]


@pytest.mark.parametrize("name", TORCHVISIONS)
def test_stock_coco_keys_load_strictly(name: str) -> None:
    """Torchvision's COCO weights have these names and shapes; nothing of ours may rename them."""
    count = 2 if name == "keypointrcnn" else 91
    with torch.device("meta"):
        published = get_model(f"{name}_resnet50_fpn", weights=None, weights_backbone=None, num_classes=count)
        mine = Detector(
            spec(
                role="baseline",
                scales="single",
                ks=(1,),
                detector=name,
                backbone="resnet50",
                width=1.0,
                channels=256,
                head_convs=4,
                norm="batch",
                classes=tuple(ClassName(i, str(i)) for i in range(1, count)),
                keypoints=tuple(map(str, range(17))) if name == "keypointrcnn" else (),
            )
        )
    shapes = {key: each.shape for key, each in published.state_dict().items()}
    assert {key: each.shape for key, each in mine.core.state_dict().items()} == shapes


class LowBackbone(nn.Module):
    """The half view as torchvision sees a backbone."""

    def __init__(self, backbone: AlignedBackbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.out_channels = backbone.out_channels

    def forward(self, pixels: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict((str(i), level) for i, level in enumerate(self.backbone.pyramid(pixels, 2)))


def halved(detector: Detector) -> Any:
    """Torchvision's detector for small images: half of each cell anchor, RoIs read at twice the scale."""
    small = deepcopy(detector.core)
    small.backbone = LowBackbone(detector.core.backbone)
    small.transform = GeneralizedRCNNTransform(64, 128, list(detector.spec.mean), list(detector.spec.std))
    owner = small.rpn if isinstance(small, FasterRCNN) else small
    ours = owner.anchor_generator
    owner.anchor_generator = AnchorGenerator(ours.sizes, ours.aspect_ratios)
    owner.anchor_generator.cell_anchors = [cell / 2 for cell in ours.cell_anchors]
    for pool in small.modules():
        if isinstance(pool, MultiScaleRoIAlign):
            pool.scales = [2 * scale for scale in pool.scales]
            pool.map_levels = LevelMapper(2, 5, canonical_scale=112)
    return small


@pytest.mark.parametrize("name", EACH_OF_TORCHVISION)
def test_low_view_in_the_hr_frame_equals_a_stock_detector_with_halved_anchors(name: str) -> None:
    torch.manual_seed(0)
    detector = Detector(spec_of(name))
    lively(detector.core)
    low = [torch.randint(0, 256, (3, 64, 128), dtype=torch.uint8) for _ in range(2)]
    large = targets(((128, 256), (128, 256)))
    small = [{**each, "boxes": each["boxes"] / 2, "masks": each["masks"][:, ::2, ::2]} for each in large]
    for each in small:
        each["keypoints"] = each["keypoints"] * torch.tensor([0.5, 0.5, 1.0])
    # Each small pixel of a mask stands for four large ones, so that both are the same image.
    for whole, half in zip(large, small, strict=True):
        whole["masks"] = half["masks"].repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    theirs = halved(detector)
    for core in (theirs, detector.core):
        if isinstance(core, FasterRCNN):
            core.rpn.register_forward_pre_hook(lambda *_: torch.manual_seed(5) and None)
    pixels = [image.float() / 255 for image in low]
    expected = theirs.train()(pixels, small)
    losses = detector.train().losses(detector.pyramid(low, 2), detector.frame(low, 2), large)
    assert losses.keys() == expected.keys()
    for loss, value in expected.items():
        if loss != "loss_mask":  # masks are sampled at places within their pixels
            torch.testing.assert_close(losses[loss], value)
    with torch.no_grad():
        detector.eval()
        silence_background(theirs, detector.core)
        assert_same(detector.detect({2: low}, "low"), theirs.eval()(pixels), scale=2)


@pytest.mark.parametrize("name", EACH)
@torch.no_grad()
def test_batched_equals_single(name: str) -> None:
    torch.manual_seed(0)
    detector = Detector(spec_of(name, detections_per_image=20)).eval()
    lively(detector.core)
    # Equal padded sizes: an image that is padded further sees more zeros beyond its edge.
    high = images(((120, 128), (120, 128)))
    views = {1: high, 2: [image[:, ::2, ::2] for image in high]}
    for view in detector.spec.views:
        single = [detector.detect({k: [of[i]] for k, of in views.items()}, view)[0] for i in range(2)]
        batched = detector.detect(views, view)
        assert_same(batched, single)
        for mine, other in zip(batched, single, strict=True):
            for value in mine.keys() - {"boxes", "scores", "labels"}:
                torch.testing.assert_close(mine[value], other[value], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", EACH)
@torch.no_grad()
def test_background_is_never_detected(name: str) -> None:
    torch.manual_seed(0)
    detector = Detector(spec_of(name)).eval()
    lively(detector.core)
    for found in detector.detect({1: images(ORDINARY)}, "high"):
        labels = set(found["labels"].tolist())  # an untrained head predicts every label alike, the background's too
        assert labels
        assert labels <= {1, 2}


@pytest.mark.parametrize("name", DETECTORS)
@torch.no_grad()
def test_no_more_detections_than_the_spec_has(name: str) -> None:
    torch.manual_seed(0)
    detector = Detector(spec_of(name, detections_per_image=7)).eval()
    lively(detector.core)
    assert [len(each["boxes"]) for each in detector.detect({1: images(ORDINARY)}, "high")] == [7, 7]


HEADS = {
    "fcos": ("classification_head.cls_logits", "regression_head.bbox_reg", "regression_head.bbox_ctrness"),
    "retinanet": ("classification_head.cls_logits", "regression_head.bbox_reg"),
    "rtmdet": ("head.rtm_cls.0", "head.rtm_reg.2"),
    "reppoints": ("first_points", "refine_conv", "cls_logits", "refined_points"),
    "fasterrcnn": ("rpn.head.cls_logits", "rpn.head.bbox_pred", "box_predictor.cls_score", "box_predictor.bbox_pred"),
    "maskrcnn": (
        "rpn.head.cls_logits",
        "rpn.head.bbox_pred",
        "box_predictor.cls_score",
        "box_predictor.bbox_pred",
        "mask_fcn_logits",
    ),
    "cascade_maskrcnn": (
        "rpn.head.cls_logits",
        "rpn.head.bbox_pred",
        "stages.0.box_predictor.bbox_pred",
        "stages.1.box_predictor.cls_score",
        "stages.2.mask_predictor.mask_fcn_logits",
    ),
    "keypointrcnn": (
        "rpn.head.cls_logits",
        "rpn.head.bbox_pred",
        "box_predictor.cls_score",
        "box_predictor.bbox_pred",
        "kps_score_lowres",
    ),
}


@pytest.mark.parametrize("value", [float("nan"), pytest.param(float("inf"), marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", EACH)
@torch.no_grad()
def test_damaged_weights_predict_finite_numbers_or_nothing(name: str, value: float) -> None:
    torch.manual_seed(0)
    whole = Detector(spec_of(name, detections_per_image=5)).eval()
    lively(whole.core)
    for layer in ("backbone.body.conv1", *HEADS[name]):
        detector = deepcopy(whole)
        damaged = [each for found, each in detector.core.named_parameters() if f"{layer}.weight" in found]
        assert len(damaged) == 1
        damaged[0].fill_(value)
        found = detector.detect({1: images(ORDINARY)}, "high")
        assert all(each.isfinite().all() for found in found for each in found.values())
        if layer == "backbone.body.conv1" and math.isnan(value):
            assert [len(each["boxes"]) for each in found] == [0, 0]


@pytest.mark.parametrize("name", EACH)
def test_a_batch_without_objects_trains(name: str) -> None:
    torch.manual_seed(0)
    detector = Detector(spec_of(name, role="student", ks=(2,)))
    empty = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": torch.zeros(0, 128, 128, dtype=torch.uint8),
        "keypoints": torch.zeros(0, 3, 3),
    }
    low = images(((64, 64), (64, 64)))
    losses = detector.losses(detector.pyramid(low, 2), detector.frame(low, 2), [empty, empty])
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert torch.isfinite(total)
    # Distributed training waits for the gradient of every parameter, a mask head's without masks too.
    trained = [each.grad for each in detector.parameters() if each.requires_grad]
    assert all(grad is not None and grad.isfinite().all() for grad in trained)


@pytest.mark.parametrize("name", TWO_STAGES)
def test_the_mode_of_a_two_stage_detector_is_not_asked_for(name: str) -> None:
    torch.manual_seed(0)
    detector = Detector(spec_of(name, norm="frozen", detections_per_image=5))
    pyramid, frame = detector.pyramid(images(ORDINARY), 1), detector.frame(images(ORDINARY), 1)
    found = []
    for training in (True, False):
        detector.train(training)
        torch.manual_seed(5)
        losses = detector.losses(pyramid, frame, targets(ORDINARY))
        with torch.no_grad():
            found.append((losses, detector.detect({1: images(ORDINARY)}, "high")[0]))
        assert all(module.training is training for module in detector.modules())
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("name", EACH)
def test_boxes_are_exact_in_mixed_precision(name: str) -> None:
    torch.manual_seed(0)
    detector = Detector(spec_of(name, detections_per_image=5))
    lively(detector.core)
    pixels, frame = images(ORDINARY), detector.frame(images(ORDINARY), 1)

    def losses() -> dict[str, Tensor]:
        torch.manual_seed(5)
        return detector.losses(detector.pyramid(pixels, 1), frame, targets(ORDINARY))

    # Anchors, and the proposals made of them; bf16 knows no side between 128 and 129 pixels.
    seen: list[Tensor] = []
    if isinstance(detector.core, FasterRCNN):
        detector.core.rpn.register_forward_hook(lambda *given: seen.append(given[2][0][0]))
        detector.core.rpn.anchor_generator.register_forward_hook(lambda *given: seen.append(given[2][0]))
    exact = losses()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        half = losses()
        found = detector.eval().detect({1: pixels}, "high")
    for loss, value in half.items():
        assert value.dtype == torch.float32
        # bf16 has 8 bits of mantissa; some thirty layers add up to about a percent.
        torch.testing.assert_close(value, exact[loss].detach(), rtol=0.05, atol=0.01)
    for boxes in (*seen, *(each["boxes"] for each in found)):
        assert boxes.dtype == torch.float32
        assert not torch.equal(boxes, boxes.bfloat16().float())
    assert {value.dtype for each in found for value in each.values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize("name", ["fcos", "retinanet"])
@pytest.mark.parametrize("convs", [1, 4, 5])
def test_towers_have_as_many_convolutions_as_the_spec(name: str, convs: int) -> None:
    for depthwise in (False, True):
        detector = Detector(spec_of(name, head_convs=convs, head_depthwise=depthwise))
        for part in ("classification_head", "regression_head"):
            tower = detector.core.head.get_submodule(part).conv
            sides = [each.kernel_size[0] for each in tower.modules() if isinstance(each, nn.Conv2d)]
            assert sides == [3, 1] * convs if depthwise else [3] * convs


def test_a_depthwise_tower_is_eight_to_nine_times_as_cheap_and_keeps_the_scale() -> None:
    torch.manual_seed(0)
    tower = depthwise_tower(256, 4)
    weights = sum(each.weight.numel() for each in tower.modules() if isinstance(each, nn.Conv2d))
    assert weights == 4 * (9 * 256 + 256 * 256)
    assert 8 < 4 * 9 * 256 * 256 / weights < 9
    x = torch.randn(2, 256, 16, 16)
    assert tower(x).shape == x.shape
    # Half of a standard normal's square lies above 0.
    torch.testing.assert_close(tower(x).square().mean(), torch.tensor(0.5), rtol=0.05, atol=0.0)


def test_a_two_stage_detector_learns_from_so_many_rois_of_an_image() -> None:
    torch.manual_seed(0)
    detector = Detector(spec_of("maskrcnn", learning=Learning(24)))
    pyramid, frame = detector.pyramid(images(ORDINARY), 1), detector.frame(images(ORDINARY), 1)
    seen: list[int] = []
    assert isinstance(detector.core, FasterRCNN)
    detector.core.roi_heads.box_head.register_forward_hook(lambda *given: seen.append(len(given[2])))
    detector.losses(pyramid, frame, targets(ORDINARY))
    assert seen == [24 * len(ORDINARY)]


@pytest.mark.parametrize("name", ["fcos", "retinanet"])
def test_views_share_one_assignment_and_keep_their_losses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last digit those of each pyramid alone. Objects are matched once: the core's own loss is asked once."""
    detector = Detector(spec_of(name, role="teacher", ks=(1, 2)))
    frame = detector.frame(images(ORDINARY), 1)
    pyramids = [[each + shift for each in detector.pyramid(images(ORDINARY), 1)] for shift in (0.0, 0.5, 1.0)]
    alone = [detector.losses(each, frame, targets(ORDINARY)) for each in pyramids]
    matching = Mock(wraps=detector.core.compute_loss)
    monkeypatch.setattr(detector.core, "compute_loss", matching)
    assert detector.losses_of_views(pyramids, frame, targets(ORDINARY)) == alone
    assert matching.call_count == 1
    assert alone[0] != alone[1] != alone[2]
