"""What a distiller may look at of one network: its pyramid, its head's outputs on demand, the batch's pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from msad_cli.distillation.baselines import downsampled_target
from msad_cli.frame import Frame
from msad_cli.models.detector import Detector, Views
from msad_cli.models.detectors.base import Target
from msad_cli.models.spec import View


@dataclass(frozen=True)
class Inside:
    """Where the maps of a batch say something, if not everywhere.

    Attributes:
        maps: of each level, (N, 1, h, w), 1 where something is known and 0 elsewhere.
        whole: of each image, whether everything is known.
    """

    maps: Sequence[Tensor]
    whole: Sequence[bool]


@dataclass(frozen=True)
class Knowledge:
    """One network on one batch.

    Attributes:
        pyramid: maps (N, C, h, w), finest first. The grids of student and teacher are the same.
        frame: in which anchors and targets live: the HR frame, or for a student that is not aligned, that of its own
            small image.
        views: the images at every k that was rendered, those that this network did not see included.
        inside: where something is known; None where everything is.
    """

    detector: Detector
    pyramid: Sequence[Tensor]
    frame: Frame
    views: Views
    inside: Inside | None = None

    def where(self, known: Inside | None) -> "Knowledge":
        """What is to be compared with a network that knows only this part of the maps: zero in the rest of them."""
        if known is None:
            return self
        pyramid = [each * part for each, part in zip(self.pyramid, known.maps, strict=True)]
        return _Partial(self.detector, pyramid, self.frame, self.views, whole=self, known=known)

    @cached_property
    def outputs(self) -> dict[str, Tensor]:
        """The head's raw outputs, (N, anchors, …) each; computed once, at the first call."""
        return self.detector.outputs(self.pyramid)

    def losses(self, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Named detection losses against targets in the frame."""
        return self.detector.losses(self.pyramid, self.frame, targets, self.outputs)

    def of(self, images: Sequence[int]) -> "Knowledge":
        """What it knows of some images of the batch, by their places; in the frame of all."""
        rows = list(images)
        frame = Frame(tuple(self.frame.image_sizes[row] for row in rows), self.frame.padded)
        views = {k: [each[row] for row in rows] for k, each in self.views.items()}
        return _Some(self.detector, [each[rows] for each in self.pyramid], frame, views, whole=self, rows=rows)


@dataclass(frozen=True, kw_only=True)
class _Some(Knowledge):
    whole: Knowledge
    rows: list[int]

    @cached_property
    def outputs(self) -> dict[str, Tensor]:
        """Those of all images, of which some are taken: the head costs most."""
        return {name: each[self.rows] for name, each in self.whole.outputs.items()}


@dataclass(frozen=True, kw_only=True)
class _Partial(Knowledge):
    whole: Knowledge
    known: Inside

    @cached_property
    def outputs(self) -> dict[str, Tensor]:
        """As of any pyramid. Those of images that are known as a whole are there already, and the head costs most."""
        partial = [image for image, whole in enumerate(self.known.whole) if not whole]
        found = self.detector.outputs([each[partial] for each in self.pyramid])
        rows = {image: row for row, image in enumerate(partial)}
        return {
            name: torch.stack([found[name][rows[i]] if i in rows else each[i] for i in range(len(each))])
            for name, each in self.whole.outputs.items()
        }


def best_view(detector: Detector, views: Views, divisor: int | None = None, view: View | None = None) -> Knowledge:
    """A network in the HR frame: a fused teacher or student, a student's only view, or a baseline's large image.

    Args:
        divisor: to a multiple of so many HR pixels the images are padded; the detector's own unless given.
        view: another than the model's own best, of an aligned one.
    """
    view = view or detector.spec.views[0]
    ks = detector.spec.ks_of(view)
    pyramids = [detector.pyramid(views[k], k, divisor) for k in ks]
    pyramid = detector.fuse(pyramids) if view == "fused" else pyramids[0]
    return Knowledge(detector, pyramid, detector.frame(views[ks[0]], ks[0], divisor), views)


def student_view(student: Detector, views: Views, targets: Sequence[Target]) -> tuple[Knowledge, Sequence[Target]]:
    """What a student knows, and the targets (given in HR pixels) in the frame that it has.

    An aligned student shares the HR frame; another takes its small image for an ordinary one.
    """
    if student.spec.scales == "aligned":
        return best_view(student, views), targets
    k = student.spec.ks[-1]
    own = Knowledge(student, student.pyramid(views[k], 1), student.frame(views[k], 1), views)
    return own, [downsampled_target(target, k) for target in targets]
