"""Parameters and multiply-accumulates of a model, by part, counted by torch.utils.flop_counter on the meta device."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from msad_cli.models.detector import Detector
from msad_cli.models.spec import DetectorSpec, View
from msad_cli.structures.frame import Frame

T = TypeVar("T")

PARTS = ("backbone", "pyramid", "fusion", "head")


@dataclass(frozen=True)
class Cost:
    """What one image costs.

    Attributes:
        macs: multiply-accumulates by part; a FLOP count is twice that. Normalisation, activations, interpolation and
            post-processing are not counted: they multiply no matrices.
        parameters: by part, those that the view uses.
    """

    macs: dict[str, float]
    parameters: dict[str, int]

    @property
    def total(self) -> float:
        """MACs of all parts."""
        return sum(self.macs.values())


def relatives(spec: DetectorSpec) -> dict[str, tuple[DetectorSpec, View]]:
    """What a model's cost is compared with, by name: the stock detector, then its teacher, then the student."""
    stock = replace(spec, role="baseline", scales="single", ks=(1,))
    found: dict[str, tuple[DetectorSpec, View]] = {f"stock {spec.detector}, HR": (stock, "high")}
    if spec.scales == "aligned":
        low = max(spec.ks)
        found["teacher, fused"] = (replace(spec, role="teacher", ks=(1, low)), "fused")
        found[f"student, 1/{low}"] = (replace(spec, role="student", ks=(low,)), "low")
    return found


def count_cost(spec: DetectorSpec, view: View, frame_sizes: list[tuple[int, int]], padded: bool = True) -> Cost:
    """The mean cost of single images.

    Args:
        view: one of `spec.views`.
        frame_sizes: HR (height, width) of the images.
        padded: count the padding to 128 HR pixels too, which is what runs; without it, sides are rounded to 64.
    """
    with torch.device("meta"):
        detector = Detector(spec).eval()
    costs: dict[tuple[int, int], dict[str, float]] = {}
    sums = dict.fromkeys(PARTS, 0.0)
    for height, width in frame_sizes:
        size = Frame.around([(height, width)]).padded if padded else (_nearest(height), _nearest(width))
        if size not in costs:
            costs[size] = _macs(detector, view, size)
        for part in PARTS:
            sums[part] += costs[size][part] / len(frame_sizes)
    backbone = detector.core.backbone
    modules = {
        "backbone": backbone.body,
        "pyramid": nn.ModuleList([backbone.fpn, backbone.finer]),
        "head": detector.core.head,
    }
    parameters = {part: _parameters(module) for part, module in modules.items()}
    parameters["fusion"] = _parameters(detector.fusion) if view == "fused" and detector.fusion is not None else 0
    return Cost(sums, {part: parameters[part] for part in PARTS})


def _macs(detector: Detector, view: View, size: tuple[int, int]) -> dict[str, float]:
    spec, backbone = detector.spec, detector.core.backbone
    macs = dict.fromkeys(PARTS, 0.0)
    pyramids = []
    for k in spec.ks_of(view):
        pixels = torch.empty(1, 3, size[0] // k, size[1] // k, device="meta")
        body, _ = _counted(partial(backbone.body, pixels))
        both, pyramid = _counted(partial(backbone.pyramid, pixels, k if spec.scales == "aligned" else 1))
        macs["backbone"] += body
        macs["pyramid"] += both - body
        pyramids.append(pyramid)
    if view == "fused":
        macs["fusion"], pyramids[0] = _counted(partial(detector.fuse, pyramids))
    macs["head"], _ = _counted(partial(detector.core.head, pyramids[0]))
    return macs


@torch.no_grad()
def _counted(call: Callable[[], T]) -> tuple[float, T]:
    with FlopCounterMode(display=False) as counter:
        result = call()
    return counter.get_total_flops() / 2, result


def _nearest(side: int) -> int:
    # P5 of the half view has a whole grid at multiples of 64.
    return max(64, round(side / 64) * 64)


def _parameters(module: nn.Module) -> int:
    # A parameter that no view reaches, such as P7 of a student, is frozen when the detector is built.
    return sum(each.numel() for each in module.parameters() if each.requires_grad)
