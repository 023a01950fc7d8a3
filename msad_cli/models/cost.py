"""Parameters and multiply-accumulates of a model, by part, counted by torch.utils.flop_counter on the meta device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from msad_cli.frame import DIVISOR, Frame
from msad_cli.models.detector import Detector
from msad_cli.models.spec import DetectorSpec, View

T = TypeVar("T")

SHARED = ("backbone", "pyramid", "fusion")
"""The parts that every detector has before its own."""
OF_THE_DETECTOR = ("detector", "keypoints", "flip_pairs", "skeleton", "measuring")
"""Fields of a spec in which a student of another detector differs from its teacher."""


@dataclass(frozen=True)
class Cost:
    """What one image costs.

    Attributes:
        macs: multiply-accumulates by part; a FLOP count is twice that. Normalisation, activations, interpolation,
            RoIAlign and post-processing are not counted: they multiply no matrices. A deformable convolution counts as
            an ordinary one.
        parameters: by part, those that the view uses.
    """

    macs: dict[str, float]
    parameters: dict[str, int]

    @property
    def total(self) -> float:
        """MACs of all parts."""
        return sum(self.macs.values())


def relatives(spec: DetectorSpec, teacher: DetectorSpec | None = None) -> dict[str, tuple[DetectorSpec, View]]:
    """What a model's cost is compared with, by name: the stock detector, then its teacher, then the student.

    A teacher has a student for each of its reductions.

    Args:
        teacher: a student's own one, whose backbone and size of the head the stock detector then has. Without it, a
            teacher that is built like the student, with the two or three views that follow from it.
    """
    one_backbone = replace(spec, low_backbone="", low_width=1.0)
    like = teacher or one_backbone
    own = {name: getattr(spec, name) for name in OF_THE_DETECTOR}
    stock = replace(like, role="baseline", scales="single", ks=(1,), divisor=DIVISOR, head_depthwise=False, **own)
    found: dict[str, tuple[DetectorSpec, View]] = {f"stock {spec.detector}, HR": (stock, "high")}
    low = max(spec.ks)
    if teacher is None and spec.scales == "aligned":
        ks = spec.ks if len(spec.ks) > 1 else (1, max(low, 2))
        teacher = replace(one_backbone, role="teacher", ks=ks)
    if teacher is not None:
        found[f"teacher, {teacher.views[0]}"] = (teacher, teacher.views[0])
    if spec.role == "student" and (spec.fuses or low == 1):
        found["student, fused" if spec.fuses else "student, HR"] = (spec, spec.views[0])
    elif spec.role == "student":
        grid = "" if spec.scales == "aligned" else ", unaligned"
        found[f"student, 1/{low}{grid}"] = (spec, "low")
    elif spec.role == "teacher":
        found |= {f"student, 1/{k}": (replace(spec, role="student", ks=(k,)), "low") for k in spec.ks[1:]}
    return found


def count_cost(spec: DetectorSpec, view: View, frame_sizes: list[tuple[int, int]], padded: bool = True) -> Cost:
    """The mean cost of single images.

    Parts are backbone, pyramid, fusion and those that the detector names: a head, or of two-stage detectors `rpn` and
    `roi`. `roi` is the box head for 1000 proposals, and the mask or keypoint head for as many RoIs as
    `spec.detections_per_image`, 100 by default; how many there are in an image depends on the image.

    Args:
        view: one of `spec.views`.
        frame_sizes: HR (height, width) of the images.
        padded: count the padding too, which is what runs; without it, what grows with the image's area
            (all but `roi`) is counted by the image's share of the padded area.
    """
    detector = _on_meta(spec)
    heads = detector.kind.parts()
    sums = dict.fromkeys((*SHARED, *heads), 0.0)
    for height, width in frame_sizes:
        size = Frame.around([(height, width)], divisor=spec.divisor).padded
        share = 1.0 if padded else height * width / (size[0] * size[1])
        for part, macs in _macs(spec, view, size).items():
            of_area = part not in heads or heads[part].of_area
            sums[part] += macs * (share if of_area else 1.0) / len(frame_sizes)
    return Cost(sums, _parameters(detector, view))


@lru_cache(maxsize=8)
def _on_meta(spec: DetectorSpec) -> Detector:
    with torch.device("meta"):
        return Detector(spec).eval()


@lru_cache(maxsize=1024)
def _macs(spec: DetectorSpec, view: View, size: tuple[int, int]) -> dict[str, float]:
    """MACs by part of one image, padded to (height, width) HR pixels; whoever compares models asks for some twice."""
    detector = _on_meta(spec)
    macs = dict.fromkeys(SHARED, 0.0)
    pyramids = []
    for k in spec.ks_of(view):
        shown = k if spec.scales == "aligned" else 1
        backbone = detector.backbone(shown)
        pixels = torch.empty(1, 3, size[0] // k, size[1] // k, device="meta")
        own, _ = _counted(partial(backbone.body, pixels))
        both, pyramid = _counted(partial(backbone.pyramid, pixels, shown))
        macs["backbone"] += own
        macs["pyramid"] += both - own
        pyramids.append(pyramid)
    if view == "fused":
        macs["fusion"], pyramids[0] = _counted(partial(detector.fuse, pyramids))
    for name, part in detector.kind.parts().items():
        macs[name], _ = _counted(partial(part.run, pyramids[0]))
    return macs


def _of_deformable(x: torch.Size, weight: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
    """FLOPs of a deformable convolution, of which torch has no formula: those of an ordinary one."""
    return conv_flop_count(list(x), list(weight), list(out_shape))


COUNTED_HERE = {torch.ops.torchvision.deform_conv2d: _of_deformable}


@torch.no_grad()
def _counted(call: Callable[[], T]) -> tuple[float, T]:
    with FlopCounterMode(display=False, custom_mapping=COUNTED_HERE) as counter:
        result = call()
    return counter.get_total_flops() / 2, result


def _parameters(detector: Detector, view: View) -> dict[str, int]:
    spec = detector.spec
    backbones = {detector.backbone(k if spec.scales == "aligned" else 1) for k in spec.ks_of(view)}
    modules: dict[str, Sequence[nn.Module]] = {
        "backbone": [each.body for each in backbones],
        "pyramid": [part for each in backbones for part in (each.fpn, each.finer)],
        "fusion": [detector.fusion] if view == "fused" and detector.fusion is not None else [],
        **{name: part.modules for name, part in detector.kind.parts().items()},
    }
    # A parameter that no view reaches, such as P7 of a student, is frozen when the detector is built.
    return {
        part: sum(each.numel() for module in of for each in module.parameters() if each.requires_grad)
        for part, of in modules.items()
    }
