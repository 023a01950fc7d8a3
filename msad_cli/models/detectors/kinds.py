"""The detectors, a line each. Imports no torch: a spec is read without it.

A new detector is a file whose class answers what `base.DetectorKind` asks, and a line here.
"""

from dataclasses import dataclass
from typing import Literal

Task = Literal["boxes", "masks", "keypoints"]
Family = Literal["dense", "two-stage"]


@dataclass(frozen=True)
class Entry:
    """What is known of a detector before it is built.

    Attributes:
        task: what it finds beside boxes, which all find.
        family: `dense` detectors predict at every cell of the pyramid; `two-stage` ones predict proposals first, then
            classes and boxes of these.
        finest_level: l of the finest of its levels P_l of the HR view: 3 (P3–P7) or 2 (P2–P6).
        file: `module:class` of its `DetectorKind`.
        levels: how many there are.
    """

    task: Task
    family: Family
    finest_level: int
    file: str
    levels: int = 5


DETECTORS = {
    "fcos": Entry("boxes", "dense", 3, "msad_cli.models.detectors.fcos:FCOSKind"),
    "retinanet": Entry("boxes", "dense", 3, "msad_cli.models.detectors.retinanet:RetinaNetKind"),
    "rtmdet": Entry("boxes", "dense", 3, "msad_cli.models.detectors.rtmdet:RTMDetKind", levels=3),
    "maskrcnn": Entry("masks", "two-stage", 2, "msad_cli.models.detectors.mask_rcnn:MaskRCNNKind"),
    "keypointrcnn": Entry("keypoints", "two-stage", 2, "msad_cli.models.detectors.keypoint_rcnn:KeypointRCNNKind"),
}
"""By the name that `--detector` takes."""


def task_of(detector: str) -> Task:
    """What a detector finds beside boxes; boxes for a name that there is not, which the spec refuses."""
    return DETECTORS[detector].task if detector in DETECTORS else "boxes"
