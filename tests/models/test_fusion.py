"""Fusions: values by hand on maps of 2 × 2, weights that sum to 1, symmetry, gradients, three views, half precision."""

import pytest
import torch
from torch import Tensor, nn

from msad_cli.models.fusion import FUSIONS, ChannelFusion, CrossFusion, SigmoidFusion, build_fusion
from msad_cli.models.fusion_sums import ConcatFusion, SumFusion

CHANNELS = 32
KINDS = tuple(FUSIONS)
WEIGHING = ("c-ff", "sigmoid", "channel")


def pyramids(views: int, seed: int = 0) -> list[list[Tensor]]:
    """One pyramid of two levels a view, for two images."""
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(2, CHANNELS, side, side, generator=generator) for side in (4, 2)] for _ in range(views)]


def planted(fusion: CrossFusion) -> CrossFusion:
    """z[0] = mean of A's first channel, if positive, is the first logit; all others are 0."""
    with torch.no_grad():
        for weight in fusion.parameters():
            weight.zero_()
            weight[0, 0] = 1.0
    return fusion


def awake(kind: str, views: int) -> nn.Module:
    """A fusion whose last layer, if it has one that begins with zeros, is drawn at random."""
    torch.manual_seed(0)
    fusion = build_fusion(kind, CHANNELS, views)
    if isinstance(fusion, CrossFusion):
        nn.init.normal_(fusion.weigh.weight)
    return fusion


@pytest.fixture
def maps() -> tuple[Tensor, Tensor]:
    """A, whose first channel has the mean (1 + 2 + 3 + 6) / 4 = 3 and whose others are 1; B is −1 throughout."""
    a = torch.ones(1, CHANNELS, 2, 2)
    a[0, 0] = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    return a, torch.full((1, CHANNELS, 2, 2), -1.0)


def test_c_ff_by_hand(maps: tuple[Tensor, Tensor]) -> None:
    a, b = maps
    fusion = planted(CrossFusion(CHANNELS))
    # e^3 / (e^3 + e^0) = 0.952574
    torch.testing.assert_close(fusion.weights([a, b]), torch.tensor([[0.952574, 0.047426]]), atol=1e-6, rtol=0)
    fused = fusion([[a], [b]])[0]
    # 0.952574 · 6 − 0.047426 = 5.668018; 0.952574 − 0.047426 = 0.905148
    assert fused[0, 0, 1, 1].item() == pytest.approx(5.668018, abs=1e-5)
    assert fused[0, 1, 0, 0].item() == pytest.approx(0.905148, abs=1e-5)


def test_sigmoid_by_hand(maps: tuple[Tensor, Tensor]) -> None:
    a, b = maps
    fusion = planted(SigmoidFusion(CHANNELS))
    # 1 / (1 + e^−3) = 0.952574 and 1 / (1 + e^0) = 0.5: nothing makes them compete.
    torch.testing.assert_close(fusion.weights([a, b]), torch.tensor([[0.952574, 0.5]]), atol=1e-6, rtol=0)
    # 0.952574 · 6 − 0.5
    assert fusion([[a], [b]])[0][0, 0, 1, 1].item() == pytest.approx(5.215444, abs=1e-5)


def test_channel_by_hand(maps: tuple[Tensor, Tensor]) -> None:
    a, b = maps
    fusion = planted(ChannelFusion(CHANNELS))
    weights = fusion.weights([a, b])
    assert weights.shape == (1, 2, CHANNELS)
    # The first output is A's first channel; all other logits are 0.
    torch.testing.assert_close(weights[0, :, 0], torch.tensor([0.952574, 0.047426]), atol=1e-6, rtol=0)
    assert torch.equal(weights[0, :, 1:], torch.full((2, CHANNELS - 1), 0.5))
    fused = fusion([[a], [b]])[0]
    assert fused[0, 0, 1, 1].item() == pytest.approx(5.668018, abs=1e-5)
    assert torch.equal(fused[0, 1:], torch.zeros(CHANNELS - 1, 2, 2))  # (1 − 1) / 2


def test_sum_and_concat_by_hand(maps: tuple[Tensor, Tensor]) -> None:
    a, b = maps
    added, stacked = SumFusion(CHANNELS), ConcatFusion(CHANNELS)
    with torch.no_grad():
        for weight in (*added.parameters(), stacked.conv.weight):
            weight.zero_()
        # Output 5 is ten times A's first channel, shifted to the right by one, plus B's third.
        for of_a, of_b in (tuple(added.parameters()), stacked.conv.weight.split(CHANNELS, dim=1)):
            of_a[5, 0, 1, 0] = 10.0
            of_b[5, 2, 1, 1] = 1.0
    for fused in (added([[a], [b]])[0], stacked([[a], [b]])[0]):
        assert torch.equal(fused[0, 5], torch.tensor([[-1.0, 9.0], [-1.0, 29.0]]))  # 10 · 1 − 1 and 10 · 3 − 1
        assert fused[0, :5].abs().sum() == 0


def test_one_convolution_of_stacked_maps_is_the_sum_of_convolutions() -> None:
    """What the module says of the paper's two rivals: with these details they are one function."""
    added, stacked = SumFusion(CHANNELS, 3), ConcatFusion(CHANNELS, 3)
    for weight in added.parameters():
        nn.init.normal_(weight)
    with torch.no_grad():
        stacked.conv.weight.copy_(torch.cat(list(added.parameters()), dim=1))
    for mine, other in zip(added(pyramids(3)), stacked(pyramids(3)), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("kind", ["sum", "concat"])
def test_convolutions_start_as_the_mean(kind: str, views: int) -> None:
    given = pyramids(views)
    for level, fused in enumerate(build_fusion(kind, CHANNELS, views)(given)):
        torch.testing.assert_close(fused, torch.stack([each[level] for each in given]).mean(dim=0))


@pytest.mark.parametrize("views", [2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_views_keeps_shapes_and_reaches_every_parameter(kind: str, views: int) -> None:
    fusion = awake(kind, views)
    given = [[level.requires_grad_() for level in each] for each in pyramids(views)]
    fused = fusion(given)
    assert [each.shape for each in fused] == [each.shape for each in given[0]]
    torch.stack([(each**2).sum() for each in fused]).sum().backward()
    for weight in fusion.parameters():
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0
    assert all(level.grad is not None and level.grad.abs().sum() > 0 for each in given for level in each)


@pytest.mark.parametrize("views", [2, 3])
def test_weights_sum_to_1(views: int) -> None:
    maps = [each[0] for each in pyramids(views)]
    cross, channel, sigmoid = (awake(kind, views) for kind in ("c-ff", "channel", "sigmoid"))
    assert isinstance(cross, CrossFusion)
    assert isinstance(channel, ChannelFusion)
    assert isinstance(sigmoid, SigmoidFusion)
    torch.testing.assert_close(cross.weights(maps).sum(dim=1), torch.ones(2))
    torch.testing.assert_close(channel.weights(maps).sum(dim=1), torch.ones(2, CHANNELS))
    weights = sigmoid.weights(maps)
    assert weights.shape == (2, views)
    assert ((weights > 0) & (weights < 1)).all()


def exchanged(fusion: nn.Module) -> None:
    """Puts the parameters of the first of two views where the second's were, and the other way round."""
    with torch.no_grad():
        for name, weight in fusion.named_parameters():
            if name in {"squeeze.weight", "conv.weight"}:
                weight.copy_(torch.cat(weight.chunk(2, dim=1)[::-1], dim=1))
            elif name == "weigh.weight":
                weight.copy_(torch.cat(weight.chunk(2, dim=0)[::-1], dim=0))
    if isinstance(fusion, SumFusion):
        fusion.convs = nn.ModuleList([fusion.convs[1], fusion.convs[0]])


@pytest.mark.parametrize("kind", KINDS)
def test_no_view_is_preferred_but_by_parameters(kind: str) -> None:
    torch.manual_seed(0)
    fusion = build_fusion(kind, CHANNELS, 2)
    for weight in fusion.parameters():
        nn.init.normal_(weight, std=0.3)
    high, low = pyramids(2)
    before = fusion([high, low])
    exchanged(fusion)
    for mine, other in zip(fusion([low, high]), before, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["c-ff", "channel"])
def test_equal_views_fuse_to_themselves(kind: str) -> None:
    """Weights that sum to 1 change nothing where there is nothing to choose."""
    high = pyramids(1)[0]
    for fused, each in zip(build_fusion(kind, CHANNELS, 3)([high, high, high]), high, strict=True):
        torch.testing.assert_close(fused, each)


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_a_batch_do_not_meet(kind: str) -> None:
    torch.manual_seed(0)
    fusion = build_fusion(kind, CHANNELS, 2)
    given = pyramids(2)
    together = fusion(given)
    for image in (0, 1):
        alone = fusion([[level[image : image + 1] for level in each] for each in given])
        for mine, other in zip(alone, together, strict=True):
            torch.testing.assert_close(mine, other[image : image + 1])


@pytest.mark.parametrize("kind", WEIGHING)
def test_weights_are_float32_under_autocast(kind: str) -> None:
    """In bfloat16, whose numbers near 1/3 lie 2^-9 apart, three weights would miss a sum of 1 by more than 1e-6."""
    torch.manual_seed(0)
    fusion = build_fusion(kind, CHANNELS, 3)
    half = [[level.to(torch.bfloat16) for level in each] for each in pyramids(3)]
    with torch.autocast("cpu", torch.bfloat16):
        weights = fusion.weights([each[0] for each in half])  # type: ignore[operator]
        fused = fusion(half)
    assert weights.dtype == torch.float32
    if kind != "sigmoid":
        torch.testing.assert_close(weights.sum(dim=1), torch.ones_like(weights[:, 0]), rtol=0, atol=1e-6)
    assert all(each.dtype == torch.bfloat16 and each.isfinite().all() for each in fused)


def test_the_first_layer_starts_kaiming_uniform() -> None:
    """With a = 1 the bound is √(3 / fan_in): 512 inputs, of 256 channels of 2 views."""
    torch.manual_seed(0)
    for kind in WEIGHING:
        fusion = build_fusion(kind, 256, 2)
        # 32 hidden units (r = 16); the channel-wise one has 2 · 256 outputs instead of 2.
        assert fusion.get_parameter("weigh.weight").shape == (512 if kind == "channel" else 2, 32)
        assert fusion.get_parameter("squeeze.weight").abs().max().item() == pytest.approx((3 / 512) ** 0.5, rel=0.01)


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("kind", WEIGHING)
def test_views_start_with_equal_weights_whatever_they_show(kind: str, views: int) -> None:
    """The last layer is 0, so that softmax gives 1 / views, and sigmoid ½: also of maps as large as training from
    scratch has them, of which a random last layer made 0.09 and 0.91 at the first step and 0.99 at the 40th."""
    fusion = build_fusion(kind, CHANNELS, views)
    assert isinstance(fusion, CrossFusion)
    large = [10 * each[0] + 30 * view for view, each in enumerate(pyramids(views))]
    weights = fusion.weights(large)
    assert torch.equal(weights, torch.full_like(weights, 0.5 if kind == "sigmoid" else 1 / views))


@pytest.mark.parametrize("kind", WEIGHING)
def test_the_first_step_leaves_equal_weights_towards_the_better_view(kind: str) -> None:
    """Where A is what is asked for and B is noise, a step of gradient descent gives A more than B."""
    torch.manual_seed(0)
    fusion = build_fusion(kind, CHANNELS, 2)
    assert isinstance(fusion, CrossFusion)
    a, b = (each[0] for each in pyramids(2))
    (fusion([[a], [b]])[0] - a).square().sum().backward()
    with torch.no_grad():
        fusion.weigh.weight -= 1e-3 * fusion.weigh.weight.grad  # type: ignore[operator]
    of_a, of_b = fusion.weights([a, b]).reshape(2, 2, -1).mean(dim=(0, 2)).tolist()
    assert of_a > 0.5 > of_b or (kind == "sigmoid" and of_a > of_b)


def test_what_is_no_fusion_is_refused() -> None:
    with pytest.raises(ValueError, match="'mean': not one of c-ff, sigmoid, channel, sum, concat"):
        build_fusion("mean", CHANNELS, 2)
    with pytest.raises(ValueError, match="fusion of 1 views: there have to be two or more"):
        build_fusion("c-ff", CHANNELS, 1)
