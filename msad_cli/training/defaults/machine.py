"""Which network is trained unless somebody says: a small one without a GPU, the paper's with one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from msad_cli.data.annotations.records import Records
from msad_cli.frame import Resolution
from msad_cli.models.backbones.cspnext_sizes import SIZES
from msad_cli.models.backbones.published import PUBLISHED_WIDTH, has_imagenet_weights
from msad_cli.models.detectors.kinds import DETECTORS, is_two_stage, usual_head
from msad_cli.runs.folder import Setting
from msad_cli.text import parse_size, size_text
from msad_cli.training.config import TeacherConfig


@dataclass(frozen=True)
class Network:
    """What a teacher is built of; every field is the one of `TeacherConfig`."""

    detector: str
    backbone: str
    width: float
    head_channels: int
    head_convs: int
    rois: int
    init: str


@dataclass(frozen=True)
class Usual:
    """What is usual on a kind of machine.

    Attributes:
        detector: where neither a backbone nor weights to start from are named.
        backbone, width, head_channels, head_convs, rois: of the network.
        size: HR sides, where images are at least as large.
        batch: images a step, of dense and of two-stage detectors.
        why: what of the machine speaks for it.
    """

    detector: str
    backbone: str
    width: float
    head_channels: int
    head_convs: int
    rois: int
    size: Resolution
    batch: tuple[int, int]
    why: str


LARGE = Usual("fcos", "resnet50", 1.0, 256, 4, 512, Resolution(800, 1333), (16, 16), "the paper's, for a GPU")
SMALL = Usual("rtmdet", "resnet18", 0.5, 64, 2, 64, Resolution(320, 533), (8, 4), "no GPU: a small network")
"""The network of docs/results-paper.md, with which a step takes about a second on two cores."""
IMAGES_ON_CPU = 12_000
"""So many are shown to a model in a training without a GPU, over all epochs, unless that is less than 12 epochs."""
FROM_SCRATCH = "none"


def usual(device: torch.device) -> Usual:
    """What is usual on this device."""
    return SMALL if device.type == "cpu" else LARGE


def choose_network(config: TeacherConfig, device: torch.device) -> tuple[Network, dict[str, Setting]]:
    """The network that is trained, and for the record the choices that nobody typed."""
    # Published detectors have one architecture, whatever the machine.
    own: Usual = LARGE if config.init == "coco" else usual(device)
    settings: dict[str, Setting] = {}

    def pick(name: str, computed: Callable[[], tuple[Any, str]]) -> Any:
        typed = getattr(config, name)
        if typed is not None:
            return typed
        value, reason = computed()
        settings[name] = Setting(value, "auto", reason)
        return value

    detector = pick("detector", lambda: _detector(config, own))
    known = DETECTORS.get(detector)
    usual_one, why = own.backbone, own.why
    if known is not None and config.init == "coco":
        usual_one, why = known.coco_backbone, "as its weights are published"
    elif known is not None and known.backbones is not None:
        usual_one = known.backbones[own is LARGE]
    backbone = pick("backbone", lambda: (usual_one, why))
    # Backbones that somebody names, or whose published weights somebody wants, have the channels of those weights; a
    # CSPNeXt has its width in its name.
    whole = config.backbone is not None or config.init == "imagenet" or backbone in SIZES
    wide = pick("width", lambda: (PUBLISHED_WIDTH, f"all channels of {backbone}") if whole else (own.width, own.why))
    channels, convs = usual_head(detector, backbone, wide, (own.head_channels, own.head_convs))
    network = Network(
        detector=detector,
        backbone=backbone,
        width=wide,
        head_channels=pick("head_channels", lambda: (channels, own.why)),
        head_convs=pick("head_convs", lambda: (convs, own.why)),
        rois=pick("rois", lambda: (own.rois, own.why)),
        init=pick("init", lambda: _start(backbone, wide)),
    )
    if not is_two_stage(detector):
        settings.pop("rois", None)  # it has none
    return network, settings


def _detector(config: TeacherConfig, own: Usual) -> tuple[str, str]:
    """The one whose published weights or backbones are wanted is FCOS, whatever the machine."""
    if config.init not in (None, FROM_SCRATCH) or config.backbone not in (None, *SIZES):
        return LARGE.detector, "the paper's"
    return own.detector, "no GPU, and from scratch" if own is SMALL else own.why


def _start(backbone: str, width: float) -> tuple[str, str]:
    if backbone in SIZES:
        return FROM_SCRATCH, f"torchvision has no weights of {backbone}"
    if has_imagenet_weights(backbone, width):
        return "imagenet", "weights of this backbone are published"
    return FROM_SCRATCH, f"no weights of width {width:g} are published"


def choose_size(size: str | None, train: Records, device: torch.device) -> tuple[Resolution, Setting | None]:
    """The HR size, and the choice for the record where nobody typed it: images are not enlarged, but for those that are
    smaller than the median one.

    Raises:
        UsageError: `size` is none.
    """
    if size is not None:
        return parse_size(size), None
    own = usual(device)
    sides = train.sizes.min(axis=1)
    sides = sides[sides > 0]
    short = int(np.median(sides)) if len(sides) else own.size.short_side
    if short >= own.size.short_side:
        return own.size, Setting(
            size_text(own.size), "auto", f"{own.why}; images have {short} pixels at their short side"
        )
    short = max(32, short)
    found = Resolution(short, max(short, round(short * own.size.long_side / own.size.short_side)))
    smaller = int((sides < short).sum())
    enlarged = f"; {smaller} of {len(sides)} images are smaller and enlarged" if smaller else ""
    return found, Setting(size_text(found), "auto", f"the images' own short side, the median{enlarged}")
