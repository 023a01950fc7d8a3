"""Fine-grained feature imitation (Wang et al., "Distilling Object Detectors with Fine-grained Feature Imitation", CVPR
2019, sections 3.1 and 3.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.models.detectors.base import Target
from msad_cli.models.spec import DetectorSpec
from msad_cli.models.whole_batch import batch_divisor

NEAR = 0.5
"""ψ: a cell is near an object from this share of the best overlap on."""


class FGFI(nn.Module):
    """Squared distance of maps (N, C, h, w) where anchors overlap objects:

        L = 1/(2·N_p) · Σ over levels, images and cells of I_ij · Σ_c (f(S) − T)²,    N_p = max(1, Σ I)

    I_ij = 1 where an anchor of the cell overlaps some object by more than half as much as the object's best anchor, of
    all levels, does. f, a 3×3 convolution a level, is trained with the student and no part of it. 0 without objects.

    The mask and the loss are the paper's. Reconstruction: levels share N_p and the best overlap, as the paper has a
    single map; FCOS, which has no anchors, borrows RetinaNet's.
    """

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(
            nn.Conv2d(student.channels, teacher.channels, kernel_size=3, padding=1) for _ in student.levels
        )

    def forward(self, student: Knowledge, teacher: Knowledge, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The distance near the objects, of targets in the student's frame."""
        anchors = student.detector.kind.object_anchors(student.pyramid, student.frame)
        masks = [imitation_masks(anchors, target["boxes"]) for target in targets]
        distances, cells = [], []
        for level, (adapt, s, t) in enumerate(zip(self.adapters, student.pyramid, teacher.pyramid, strict=True)):
            mask = torch.stack([each[level] for each in masks])
            squares = (adapt(s).float() - t.float()).square().sum(dim=1).flatten(1)
            distances.append((squares * mask).sum())
            cells.append(mask.sum())
        return {"pyramid": torch.stack(distances).sum() / (2 * batch_divisor(torch.stack(cells).sum()))}


def imitation_masks(anchors: Sequence[Tensor], boxes: Tensor) -> list[Tensor]:
    """Which cells are near some object.

    Args:
        anchors: of each level, (h·w, A, 4).
        boxes: (M, 4) in the same frame; M may be 0.

    Returns:
        Of each level, (h·w,) bool.
    """
    # Of each cell and object, the overlap of the cell's best anchor: (h·w, M).
    overlaps = [box_iou(each.flatten(0, 1), boxes).unflatten(0, each.shape[:2]).amax(dim=1) for each in anchors]
    best = torch.cat(overlaps).amax(dim=0)
    return [(each > NEAR * best).any(dim=1) for each in overlaps]
