"""A teacher for a student that is not aligned: its maps and outputs, brought to the student's coarser grid.

This is what the rivals of MSAD's table 3(a) do: levels of one name are compared, P3 with P3, and the teacher's, which
are k times as fine, are downsampled. The paper does not say how; the details are our reconstruction.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from msad_cli.distillation.knowledge import Knowledge, best_view
from msad_cli.distillation.parts.coarser import coarser
from msad_cli.frame import FRAME_DIVISOR
from msad_cli.models.detector import Detector, Views
from msad_cli.models.spec import View

COMPARABLE = ("cls_logits", "bbox_ctrness")
"""Outputs that mean the same at both sizes. Boxes do not: a level of one name finds objects of other sizes."""


def unaligned_teacher(teacher: Detector, k: int, view: View | None = None) -> Callable[[Views], Knowledge]:
    """Of a batch, what a teacher knows on the grid of an ordinary network that sees the image downsampled by k.

    Args:
        view: of the teacher, as in `best_view`.
    """

    def know(views: Views) -> Knowledge:
        # Padded so that its grids, down to the coarsest, are exactly k times as fine as those of the small image.
        whole = best_view(teacher, views, FRAME_DIVISOR * k, view)
        pyramid = [coarser(each, k) for each in whole.pyramid]
        return _Downsampled(teacher, pyramid, teacher.frame(views[k], 1, FRAME_DIVISOR), views, whole=whole, k=k)

    return know


@dataclass(frozen=True, kw_only=True)
class _Downsampled(Knowledge):
    whole: Knowledge
    k: int

    @cached_property
    def outputs(self) -> dict[str, Tensor]:
        outputs = self.whole.outputs
        return {name: self._on_the_small_grid(outputs[name]) for name in COMPARABLE if name in outputs}

    def _on_the_small_grid(self, output: Tensor) -> Tensor:
        """(N, h·w·A of all levels, K) -> the same of the small grids."""
        grids = [each.shape[-2:] for each in self.whole.pyramid]
        anchors = output.shape[1] // sum(height * width for height, width in grids)
        levels = output.split([height * width * anchors for height, width in grids], dim=1)
        smaller = []
        for level, (height, width) in zip(levels, grids, strict=True):
            cells = level.reshape(len(output), height, width, -1).permute(0, 3, 1, 2)
            smaller.append(coarser(cells, self.k).permute(0, 2, 3, 1).reshape(len(output), -1, output.shape[2]))
        return torch.cat(smaller, dim=1)
