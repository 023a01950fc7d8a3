"""Slimmable checkpoints against a network that is sliced as theirs are, from the layout that their code writes."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from msad_cli.errors import ModelFileError, UsageError
from msad_cli.frame import Resolution
from msad_cli.models.backbones.normalisation import norm_layer
from msad_cli.models.backbones.resnet import build_backbone
from msad_cli.models.detector import Detector
from msad_cli.models.spec import ClassName, DetectorSpec, Norm
from msad_cli.models.weights import initialise as init
from msad_cli.models.weights.slimmable import is_slimmable, to_backbone_state

State = dict[str, Tensor]
RESNET_WIDTHS, MOBILENET_WIDTHS = [0.25, 0.5, 0.75, 1.0], [0.35, 0.5, 0.75, 1.0]
# MobileNetV2's channels, published -> at each width of the list: multiples of 8, at least nine tenths of the share.
MOBILENET = {
    32: [16, 16, 24, 32],
    16: [8, 8, 16, 16],
    24: [8, 16, 24, 24],
    64: [24, 32, 48, 64],
    96: [32, 48, 72, 96],
    160: [56, 80, 120, 160],
    320: [112, 160, 240, 320],
}
LINES = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
"""Expansion, channels, blocks, stride."""


def conv(state: State, name: str, outputs: int, inputs: int, kernel: int) -> None:
    state[f"{name}.weight"] = torch.randn(outputs, inputs, kernel, kernel) * (2 / (inputs * kernel**2)) ** 0.5


def norms(state: State, name: str, sizes: list[int], shared: bool = False) -> None:
    for index, size in enumerate(sizes):
        prefix = name if shared else f"{name}.bn.{index}"
        state |= {f"{prefix}.weight": 0.5 + torch.rand(size), f"{prefix}.bias": torch.randn(size) / 10}
        state |= {f"{prefix}.running_mean": torch.randn(size) / 10, f"{prefix}.running_var": 0.5 + torch.rand(size)}
        state[f"{prefix}.num_batches_tracked"] = torch.tensor(7)


def resnet50() -> State:
    """A made-up checkpoint; 1000 classes are a few here."""
    torch.manual_seed(0)
    state: State = {}
    conv(state, "features.0.0", 64, 3, 7)
    norms(state, "features.0.1", [16, 32, 48, 64])
    inputs, number = 64, 1
    for planes, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            backbone = f"features.{number}.body"
            narrow, wide = [planes * i // 4 for i in (1, 2, 3, 4)], [planes * i for i in (1, 2, 3, 4)]
            conv(state, f"{backbone}.0", planes, inputs, 1)
            norms(state, f"{backbone}.1", narrow)
            conv(state, f"{backbone}.3", planes, planes, 3)
            norms(state, f"{backbone}.4", narrow)
            conv(state, f"{backbone}.6", planes * 4, planes, 1)
            norms(state, f"{backbone}.7", wide)
            if block == 0:
                conv(state, f"features.{number}.shortcut.0", planes * 4, inputs, 1)
                norms(state, f"features.{number}.shortcut.1", wide)
            inputs, number = planes * 4, number + 1
    state |= {"classifier.0.weight": torch.randn(5, 2048), "classifier.0.bias": torch.randn(5)}
    return state


def mobilenet_v2() -> State:
    """A made-up checkpoint; 1000 classes are a few here."""
    torch.manual_seed(0)
    state: State = {}
    conv(state, "features.0.0", 32, 3, 3)
    norms(state, "features.0.1", MOBILENET[32])
    inputs, number = 32, 1
    for expansion, outputs, blocks, _ in LINES:
        for _ in range(blocks):
            backbone, hidden, start = f"features.{number}.body", inputs * expansion, 0
            sizes = [size * expansion for size in MOBILENET[inputs]]
            if expansion != 1:
                conv(state, f"{backbone}.0", hidden, inputs, 1)
                norms(state, f"{backbone}.1", sizes)
                start = 3
            conv(state, f"{backbone}.{start}", hidden, 1, 3)
            norms(state, f"{backbone}.{start + 1}", sizes)
            conv(state, f"{backbone}.{start + 3}", outputs, hidden, 1)
            norms(state, f"{backbone}.{start + 4}", MOBILENET[outputs])
            inputs, number = outputs, number + 1
    conv(state, "features.18.0", 1280, 320, 1)
    norms(state, "features.18.1", [1280], shared=True)
    return state


class Sliced:
    """A slimmable network of one width, run straight from its checkpoint."""

    def __init__(self, state: State, index: int) -> None:
        self.state = state
        self.index = index

    def norm(self, x: Tensor, name: str) -> Tensor:
        prefix = f"{name}.bn.{self.index}" if f"{name}.bn.0.weight" in self.state else name
        mean, variance, weight, bias = (
            self.state[f"{prefix}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, weight, bias)

    def layer(self, x: Tensor, name: str, place: int, outputs: int, stride: int = 1, depthwise: bool = False) -> Tensor:
        """A convolution, cut to the channels at hand, and its norm."""
        weight = self.state[f"{name}.{place}.weight"][:outputs, : 1 if depthwise else x.shape[1]]
        groups = x.shape[1] if depthwise else 1
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
        return self.norm(x, f"{name}.{place + 1}")

    def resnet50(self, pixels: Tensor) -> dict[int, Tensor]:
        quarters = self.index + 1
        maps = {1: self.layer(pixels, "features.0", 0, 16 * quarters, 2).relu()}
        x, number = F.max_pool2d(maps[1], 3, 2, 1), 1
        for stage, (planes, blocks) in enumerate(((16, 3), (32, 4), (64, 6), (128, 3))):
            for block in range(blocks):
                stride, name = 2 if stage and block == 0 else 1, f"features.{number}.body"
                y = self.layer(x, name, 0, planes * quarters).relu()
                y = self.layer(y, name, 3, planes * quarters, stride).relu()
                y = self.layer(y, name, 6, planes * 4 * quarters)
                shortcut = f"features.{number}.shortcut"
                x = (y + (self.layer(x, shortcut, 0, planes * 4 * quarters, stride) if block == 0 else x)).relu()
                number += 1
            maps[stage + 2] = x
        return maps

    def mobilenet_v2(self, pixels: Tensor) -> dict[int, Tensor]:
        x = self.layer(pixels, "features.0", 0, MOBILENET[32][self.index], 2).clamp(0, 6)
        maps, number, level = {1: x}, 1, 1
        for expansion, outputs, blocks, stride in LINES:
            for block in range(blocks):
                name, start, y = f"features.{number}.body", 0, x
                if expansion != 1:
                    y = self.layer(y, name, 0, y.shape[1] * expansion).clamp(0, 6)
                    start = 3
                step = stride if block == 0 else 1
                level += step - 1
                y = self.layer(y, name, start, y.shape[1], step, depthwise=True).clamp(0, 6)
                y = self.layer(y, name, start + 3, MOBILENET[outputs][self.index])
                # Whether a shortcut fits is decided for all widths at once.
                x = x + y if block > 0 else y
                number += 1
            if outputs in (24, 32, 96):
                maps[level] = x
        maps[5] = self.layer(x, "features.18", 0, 1280).clamp(0, 6)
        return maps


@pytest.fixture(scope="module", params=[pytest.param("resnet50", marks=pytest.mark.slow), "mobilenet_v2"])
def named(request: pytest.FixtureRequest) -> tuple[str, State, list[float]]:
    if request.param == "resnet50":
        return "resnet50", resnet50(), RESNET_WIDTHS
    return "mobilenet_v2", mobilenet_v2(), MOBILENET_WIDTHS


@torch.no_grad()
def test_every_width_computes_what_the_slimmable_network_computes(named: tuple[str, State, list[float]]) -> None:
    name, checkpoint, widths = named
    assert is_slimmable(checkpoint)
    # In float64: through 50 layers, the rounding of float32 would hide a small mistake.
    checkpoint = {key: each.double() for key, each in checkpoint.items()}
    pixels = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    for index, width in enumerate(widths):
        backbone = build_backbone(name, width, norm_layer("frozen")).double().eval()
        backbone.load_state_dict(to_backbone_state(checkpoint, name, width))
        maps = backbone(pixels)
        expected = getattr(Sliced(checkpoint, index), name)(pixels)
        assert list(maps) == sorted(expected)
        for level, each in maps.items():
            assert each.std() > 0.01  # the made-up weights kill nothing
            torch.testing.assert_close(each, expected[level])


def test_a_width_that_is_not_there_is_refused_with_those_that_are(named: tuple[str, State, list[float]]) -> None:
    name, checkpoint, widths = named
    listed = ", ".join(f"{each:g}" for each in widths)
    with pytest.raises(UsageError, match=f"--width 0.6: the slimmable network has the widths {listed}"):
        to_backbone_state(checkpoint, name, 0.6)


def test_another_network_is_refused(named: tuple[str, State, list[float]]) -> None:
    name, checkpoint, _ = named
    other = "mobilenet_v2" if name == "resnet50" else "resnet50"
    with pytest.raises((ModelFileError, UsageError), match="slimmable network"):
        to_backbone_state(checkpoint, other, 1.0)
    with pytest.raises(UsageError, match="resnet18: the file is a slimmable network, of which there are resnet50"):
        to_backbone_state(checkpoint, "resnet18", 1.0)
    if name == "resnet50":
        with pytest.raises(ModelFileError, match=r"not resnet101, or not whole: features\.\d+\."):
            to_backbone_state(checkpoint, "resnet101", 1.0)


def test_damaged_checkpoints_are_refused(named: tuple[str, State, list[float]]) -> None:
    name, checkpoint, _ = named
    lost = {key: each for key, each in checkpoint.items() if key != "features.2.body.4.bn.3.bias"}
    with pytest.raises(ModelFileError, match=r"features\.2\.body\.4\.bias is missing"):
        to_backbone_state(lost, name, 1.0)
    with pytest.raises(ModelFileError, match=r"features\.0\.0\.weight is \[3\]"):
        to_backbone_state({**checkpoint, "features.0.0.weight": torch.ones(3)}, name, 1.0)


def test_torchvisions_weights_are_not_slimmable() -> None:
    with torch.device("meta"):
        for name in ("resnet50", "mobilenet_v2"):
            assert not is_slimmable(build_backbone(name, 1.0, norm_layer("batch")).state_dict())


@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_a_published_file_is_a_start(tmp_path: Path, norm: Norm) -> None:
    """As their training writes it: under `model`, with the names that DataParallel gives."""
    checkpoint = mobilenet_v2()
    file = tmp_path / "s_mobilenet_v2.pt"
    torch.save({"model": {f"module.{name}": each for name, each in checkpoint.items()}}, file)
    detector = Detector(
        DetectorSpec(
            role="teacher",
            detector="fcos",
            backbone="mobilenet_v2",
            width=0.5,
            channels=64,
            head_convs=1,
            norm=norm,
            scales="aligned",
            ks=(1, 2),
            resolution=Resolution(64, 96),
            classes=(ClassName(1, "one"),),
        )
    )
    copied = init.from_file(detector, file)
    backbone = detector.core.backbone.body.state_dict()
    left = {name for name in backbone if name.endswith("num_batches_tracked")}
    assert copied.tensors == len(backbone) - len(left)
    expected = to_backbone_state(checkpoint, "mobilenet_v2", 0.5)
    views = [".k1.", ".k2."] if norm == "batch" else ["."]
    for name, each in expected.items():
        layer, part = name.rsplit(".", 1)
        own = [f"{layer}{view}{part}" for view in views]
        for found in own if own[0] in backbone else [name]:
            assert torch.equal(backbone[found], each)


def test_a_published_file_starts_both_backbones_of_a_fusion_student_at_their_widths(tmp_path: Path) -> None:
    checkpoint = mobilenet_v2()
    file = tmp_path / "s_mobilenet_v2.pt"
    torch.save(checkpoint, file)
    student = Detector(
        DetectorSpec(
            role="student",
            detector="fcos",
            backbone="mobilenet_v2",
            width=0.35,
            channels=64,
            head_convs=1,
            norm="frozen",
            scales="aligned",
            ks=(1, 2),
            resolution=Resolution(64, 96),
            classes=(ClassName(1, "one"),),
            low_backbone="mobilenet_v2",
            low_width=0.75,
        )
    )
    assert init.from_file(student, file).left == ()
    assert student.low is not None
    for backbone, width in ((student.core.backbone.body, 0.35), (student.low.body, 0.75)):
        own = backbone.state_dict()
        for name, each in to_backbone_state(checkpoint, "mobilenet_v2", width).items():
            assert torch.equal(own[name], each)
