"""The detectors, a line each. Imports no torch: a spec is read without it.

A new detector is a file whose class answers what `base.DetectorKind` asks, and a line here.
"""

from dataclasses import dataclass
from typing import Literal

from msad_cli.models.backbones.cspnext_sizes import SIZES

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
        head_convs: convolutions of each tower of the head, as published.
        as_wide_as_c3: whether pyramid and head are published with the channels of the backbone's C3; else with 256.
        coco_norm: how the backbone is normalised in training that starts from its COCO weights.
    """

    task: Task
    family: Family
    finest_level: int
    file: str
    levels: int = 5
    head_convs: int = 4
    as_wide_as_c3: bool = False
    coco_norm: str = "frozen"


DETECTORS = {
    "fcos": Entry("boxes", "dense", 3, "msad_cli.models.detectors.fcos:FCOSKind"),
    "retinanet": Entry("boxes", "dense", 3, "msad_cli.models.detectors.retinanet:RetinaNetKind"),
    "rtmdet": Entry(
        "boxes",
        "dense",
        3,
        "msad_cli.models.detectors.rtmdet:RTMDetKind",
        levels=3,
        head_convs=2,
        as_wide_as_c3=True,
        coco_norm="batch",
    ),
    "maskrcnn": Entry("masks", "two-stage", 2, "msad_cli.models.detectors.mask_rcnn:MaskRCNNKind"),
    "keypointrcnn": Entry("keypoints", "two-stage", 2, "msad_cli.models.detectors.keypoint_rcnn:KeypointRCNNKind"),
}
"""By the name that `--detector` takes."""


WIDEST = 256
"""Channels of published pyramids and heads, and those of CSPNeXt-l at C3."""


def usual_channels(detector: str, backbone: str, width: float) -> int:
    """Channels of pyramid and head unless they are typed: 256; or as many as a CSPNeXt has at C3, rounded to a multiple
    of 32, and 128 on other backbones, as with CSPNeXt-s."""
    if detector not in DETECTORS or not DETECTORS[detector].as_wide_as_c3:
        return WIDEST
    whole = WIDEST * SIZES[backbone].width * width if backbone in SIZES else WIDEST / 2
    return max(64, round(whole / 32) * 32)


def usual_convs(detector: str) -> int:
    """Convolutions of each tower of the head unless they are typed; 4 for a name that there is not."""
    return DETECTORS[detector].head_convs if detector in DETECTORS else 4


def task_of(detector: str) -> Task:
    """What a detector finds beside boxes; boxes for a name that there is not, which the spec refuses."""
    return DETECTORS[detector].task if detector in DETECTORS else "boxes"
