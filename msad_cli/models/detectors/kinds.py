"""The detectors, a line each. Imports no torch: a spec is read without it.

A new detector is a file whose class answers what `base.DetectorKind` asks, and a line here.
"""

from dataclasses import dataclass
from typing import Literal

from msad_cli.models.backbones.cspnext_sizes import SIZES

Task = Literal["boxes", "masks", "keypoints"]
Family = Literal["dense", "two-stage"]


@dataclass(frozen=True)
class Recipe:
    """How a detector is trained unless somebody says; measured, see docs/results.md.

    Attributes:
        optimizer, decay: names that `--optimizer` and `--decay` take.
        norm: how its backbone is normalised where that starts at random.
        learning_rate: for a batch of 16; None for the optimiser's own.
        mosaic_from: from how many epochs on light augmentation makes mosaics of all images; None for never.
    """

    optimizer: str = "sgd"
    decay: str = "steps"
    norm: str = "group"
    learning_rate: float | None = None
    mosaic_from: int | None = None


@dataclass(frozen=True)
class Entry:
    """What is known of a detector before it is built.

    Attributes:
        task: what it finds beside boxes, which all find.
        family: `dense` detectors predict at every cell of the pyramid; `two-stage` ones predict proposals first, then
            classes and boxes of these.
        finest_level: l of the finest of its levels P_l of the HR view: 3 (P3–P7) or 2 (P2–P6).
        file: `module:class` of its `DetectorKind`.
        fast_start: whether it bears a larger learning rate where a small network starts at random, as was measured.
        levels: how many there are.
        head_convs: convolutions of each tower of its head; None for what is usual on a machine.
        head_norm: whether something else than groups may normalise its head, see `DetectorSpec.head_norm`.
        coco_backbone: which its COCO weights are of, unless another is named.
        coco_norm: how the backbone is normalised in training that starts from its COCO weights.
        backbones: which it has without a GPU and with one, unless another is named; None for what is usual there.
        recipe: how it is trained.
    """

    task: Task
    family: Family
    finest_level: int
    file: str
    fast_start: bool = True
    levels: int = 5
    head_convs: int | None = None
    head_norm: bool = False
    coco_backbone: str = "resnet50"
    coco_norm: str = "frozen"
    backbones: tuple[str, str] | None = None
    recipe: Recipe = Recipe()


DETECTORS = {
    "fcos": Entry("boxes", "dense", 3, "msad_cli.models.detectors.fcos:FCOSKind", head_norm=True),
    "retinanet": Entry(
        "boxes", "dense", 3, "msad_cli.models.detectors.retinanet:RetinaNetKind", fast_start=False, head_norm=True
    ),
    "rtmdet": Entry(
        "boxes",
        "dense",
        3,
        "msad_cli.models.detectors.rtmdet:RTMDetKind",
        fast_start=False,
        levels=3,
        head_convs=2,
        coco_backbone="cspnext_tiny",
        coco_norm="batch",
        backbones=("cspnext_nano", "cspnext_s"),
        recipe=Recipe("adamw", "flat-cosine", "batch", learning_rate=0.004, mosaic_from=36),
    ),
    "reppoints": Entry("boxes", "dense", 3, "msad_cli.models.detectors.reppoints:RepPointsKind", False, head_convs=3),
    "fasterrcnn": Entry("boxes", "two-stage", 2, "msad_cli.models.detectors.faster_rcnn:FasterRCNNKind"),
    "maskrcnn": Entry("masks", "two-stage", 2, "msad_cli.models.detectors.mask_rcnn:MaskRCNNKind"),
    "cascade_maskrcnn": Entry(
        "masks", "two-stage", 2, "msad_cli.models.detectors.cascade_mask_rcnn:CascadeMaskRCNNKind", False
    ),
    "keypointrcnn": Entry("keypoints", "two-stage", 2, "msad_cli.models.detectors.keypoint_rcnn:KeypointRCNNKind"),
}
"""By the name that `--detector` takes."""
WIDEST = 256
"""Channels of CSPNeXt-l at C3."""
PUBLISHED_HEAD = (256, 4)
"""Channels of pyramid and head, and convolutions of each tower, of torchvision's dense detectors."""


def usual_head(detector: str, backbone: str, width: float, otherwise: tuple[int, int]) -> tuple[int, int]:
    """Channels of pyramid and head and convolutions of each tower, unless they are typed.

    Some have a number of convolutions of their own, and on a CSPNeXt as many channels as that has at C3, which is
    RTMDet's published head, rounded to a multiple of 32.

    Args:
        otherwise: what is usual.
    """
    known = DETECTORS.get(detector)
    if known is None or known.head_convs is None:
        return otherwise
    own = WIDEST * SIZES[backbone].width * width if backbone in SIZES else otherwise[0]
    return max(64, round(own / 32) * 32), known.head_convs


def recipe_of(detector: str) -> Recipe:
    """How a detector is trained; the plain one for a name that there is not, which the spec refuses."""
    return DETECTORS[detector].recipe if detector in DETECTORS else Recipe()


def task_of(detector: str) -> Task:
    """What a detector finds beside boxes; boxes for a name that there is not, which the spec refuses."""
    return DETECTORS[detector].task if detector in DETECTORS else "boxes"


def is_two_stage(detector: str) -> bool:
    """Whether a detector finds proposals first; not for a name that there is not, which the spec refuses."""
    return detector in DETECTORS and DETECTORS[detector].family == "two-stage"
