"""Pair-wise distillation (Liu et al., "Structured Knowledge Distillation for Dense Prediction", TPAMI 2020)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.models.detectors.base import Target
from msad_cli.models.spec import DetectorSpec

NODES = 16
"""A map is pooled to at most so many nodes a side."""
EPSILON = 1e-8


class SKD(nn.Module):
    """Distance of how alike any two places of a map (N, C, h, w) are:

        a_ij = f_i·f_j / (|f_i|·|f_j|) of n max-pooled nodes,    L = Σ over levels of Σ_ij (a^T_ij − a^S_ij)² / n² / N

    No gradient passes the lengths |f|, as in the official code. Maps of any channels compare, so nothing is trained.
    Reconstruction: the official code pools to 2×2 nodes; 16×16 keep objects apart.
    """

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec) -> None:
        super().__init__()

    def forward(self, student: Knowledge, teacher: Knowledge, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The distance of the affinities in a student's pyramid from those in a teacher's."""
        pairs = zip(student.pyramid, teacher.pyramid, strict=True)
        return {"affinity": torch.stack([F.mse_loss(_affinity(s), _affinity(t)) for s, t in pairs]).sum()}


def _affinity(maps: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, n, n), n ≤ 256."""
    patch = [math.ceil(side / NODES) for side in maps.shape[-2:]]
    nodes = F.max_pool2d(maps.float(), patch, stride=patch, ceil_mode=True).flatten(2)
    nodes = nodes / (nodes.detach().norm(dim=1, keepdim=True) + EPSILON)
    # Autocast would multiply in half precision, whose error is as large as the differences.
    with torch.autocast(nodes.device.type, enabled=False):
        return torch.bmm(nodes.mT, nodes)
