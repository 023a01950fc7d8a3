"""RepPoints' head: nine points at each cell, first guesses and then refined ones, and a class where the first are."""

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation, DeformConv2d

from msad_cli.models.detectors.dense import weighted
from msad_cli.models.detectors.towers import GROUPS, by_anchor, depthwise_tower

POINTS = 9
"""As many as a 3 × 3 convolution reads."""
PRIOR = 0.01
"""The score of every class before anything is learnt."""
GUIDED = 0.1
"""What reaches the first points of the gradient of what is read there."""
SLOW = 0.01
"""What reaches the two scalars of the pseudo-boxes of their gradient."""


class PointsHead(nn.Module):
    """Two towers that all levels share. Points are in strides from their cell's own.

    Args:
        convs: convolutions of each tower.
        depthwise: whether these are depthwise separable.

    Attributes:
        spread: logarithms by how much wider, and higher, a box is than its points' standard deviation.
    """

    def __init__(self, channels: int, classes: int, convs: int, depthwise: bool) -> None:
        super().__init__()
        self.classes = classes
        tower = depthwise_tower if depthwise else _tower
        self.class_tower, self.point_tower = tower(channels, convs), tower(channels, convs)
        self.first_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.first_points = nn.Conv2d(channels, 2 * POINTS, 1)
        self.refine_conv, self.class_conv = (_deformable(channels) for _ in range(2))
        self.refined_points = nn.Conv2d(channels, 2 * POINTS, 1)
        self.cls_logits = nn.Conv2d(channels, classes, 1)
        self.spread = nn.Parameter(torch.zeros(2))
        for layer in (self.first_conv, self.first_points, self.refined_points, self.cls_logits):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.cls_logits.get_parameter("bias"), -math.log((1 - PRIOR) / PRIOR))

    def forward(self, pyramid: Sequence[Tensor]) -> dict[str, Tensor]:
        """Maps (N, channels, h, w) -> `cls_logits` (N, cells, classes), and distances in strides to the left, top,
        right and bottom of the refined box, `bbox_regression`, and of the first one, `bbox_first`, (N, cells, 4)."""
        levels = [self._level(each) for each in pyramid]
        logits, refined, first = zip(*levels, strict=True)
        return {
            "cls_logits": by_anchor(logits, self.classes),
            "bbox_regression": self.distances(by_anchor(refined, 2 * POINTS)),
            "bbox_first": self.distances(by_anchor(first, 2 * POINTS)),
        }

    def _level(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (N, classes, h, w), and refined and first points (N, 18, h, w), y before x."""
        of_class, of_points = self.class_tower(maps), self.point_tower(maps)
        first = self.first_points(F.relu(self.first_conv(of_points))).float()
        offsets = weighted(first, GUIDED) - _grid(first.device)[:, None, None]
        delta = self.refined_points(F.relu(_read(self.refine_conv, of_points, offsets)))
        logits = self.cls_logits(F.relu(_read(self.class_conv, of_class, offsets)))
        return logits, delta.float() + first.detach(), first

    def distances(self, points: Tensor) -> Tensor:
        """Pseudo-boxes of points (N, cells, 18): their mean ± their standard deviation times exp(spread).

        Returns:
            (N, cells, 4), how far left, top, right and bottom are from the cell's own point.
        """
        # y before x in each pair, as deformable convolutions have them.
        places = points.unflatten(2, (POINTS, 2)).flip(3)
        middle = places.mean(dim=2)
        half = places.std(dim=2) * weighted(self.spread, SLOW).exp()
        return torch.cat([half - middle, half + middle], dim=2)


def _tower(channels: int, convs: int) -> nn.Sequential:
    """3×3 convolutions with group normalisation: (N, C, h, w) -> (N, C, h, w)."""
    norm = partial(nn.GroupNorm, GROUPS)
    tower = nn.Sequential(*(Conv2dNormActivation(channels, channels, norm_layer=norm) for _ in range(convs)))
    for module in tower.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
    return tower


def _deformable(channels: int) -> DeformConv2d:
    conv = DeformConv2d(channels, channels, 3, padding=1, bias=False)
    nn.init.normal_(conv.weight, std=0.01)
    return conv


def _grid(device: torch.device) -> Tensor:
    """Where an ordinary 3×3 convolution reads, (18,): y and x of each of its places, in cells."""
    steps = torch.arange(-1.0, 2.0, device=device)
    return torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=2).flatten()


def _read(conv: DeformConv2d, maps: Tensor, offsets: Tensor) -> Tensor:
    """A deformable convolution in float32: half precision has no places between cells of a large map."""
    # Torchvision's kernel reads beyond all memory where an offset is no number, as damaged weights make them.
    offsets = torch.where(offsets.isnan(), 0.0, offsets)
    # A graph keeps the operation, which its format may have.
    if maps.device.type == "cpu" and not torch.compiler.is_exporting():
        with torch.autocast("cpu", enabled=False):
            return sampled(conv.weight, maps.float(), offsets.float())
    read: Tensor = conv(maps.float(), offsets)
    return read


def sampled(weight: Tensor, maps: Tensor, offsets: Tensor) -> Tensor:
    """What torchvision's deformable convolution computes, but for rounding, in a fraction of a CPU's time.

    Args:
        weight: (channels out, channels, 3, 3); the padding is 1.
        maps: (N, channels, h, w).
        offsets: (N, 18, h, w), y before x, in cells from where an ordinary convolution reads.

    Returns:
        (N, channels out, h, w).
    """
    height, width = maps.shape[-2:]
    steps = _grid(maps.device).view(POINTS, 2, 1, 1)
    moved = offsets.unflatten(1, (POINTS, 2)) + steps
    # Beyond one cell outside there is nothing more; infinite places would be no numbers.
    y = (moved[:, :, 0] + torch.arange(height, device=maps.device)[:, None]).clamp(-2, height + 1)
    x = (moved[:, :, 1] + torch.arange(width, device=maps.device)).clamp(-2, width + 1)
    places = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1).flatten(1, 2)
    # (N, channels, 9 · h, w) -> a column for each cell, of what its nine places hold.
    columns = F.grid_sample(maps, places, align_corners=False).reshape(len(maps), -1, height * width)
    read: Tensor = (weight.flatten(1) @ columns).unflatten(2, (height, width))
    return read
