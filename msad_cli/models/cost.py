"""Parameters and multiply-accumulates of a model, by part, counted by torch.utils.flop_counter on the meta device."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from msad_cli.frame import DIVISOR, Frame, Resolution
from msad_cli.models.detector import Detector
from msad_cli.models.spec import DetectorSpec, View

T = TypeVar("T")

SHARED = ("backbone", "pyramid", "fusion")
"""The parts that every detector has before its own."""
OF_THE_DETECTOR = ("detector", "keypoints", "flip_pairs", "skeleton", "measuring")
"""Fields of a spec in which a student of another detector differs from its teacher."""
ANY = Resolution(32, 32)
"""In place of a model's own: what is counted once holds for all."""
ONE_CELL = 15
"""The level whose grid is one cell in any image, as no side has more than 2¹⁴ pixels."""
SIDE = 1 << ONE_CELL
"""HR pixels of the image that is counted; every level has a whole grid there."""


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
    plain = {"scales": "single", "ks": (1,), "divisor": DIVISOR, "head_depthwise": False, "head_norm": "group"}
    stock = replace(like, role="baseline", **{**plain, **own})
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


def cost_of_set(spec: DetectorSpec, view: View, images: Sequence[tuple[int, int]], padded: bool = True) -> Cost:
    """What an image of a set costs: the one rule by which every command and page of msad counts.

    It is the mean over the set's validation images. Each counts as the model sees it by itself: brought to HR by the
    model's own rule, and padded.

    Args:
        images: (height, width) in their own pixels, by `msad_cli.export.formats.images_of`; of none, an image of the
            model's resolution counts.
        padded: as of `count_cost`.
    """
    own = spec.resolution
    sizes = images or [(own.short_side, own.long_side)]
    return count_cost(spec, view, [own.frame_size(*each) for each in sizes], padded)


def count_cost(spec: DetectorSpec, view: View, frame_sizes: Sequence[tuple[int, int]], padded: bool = True) -> Cost:
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
    counted, parameters = _counted_once(replace(spec, resolution=ANY), view)
    sums = dict.fromkeys(counted, 0.0)
    for (height, width), images in Counter(frame_sizes).items():
        frame = Frame.around([(height, width)], divisor=spec.divisor)
        share = 1.0 if padded else height * width / math.prod(frame.padded)
        for part, work in counted.items():
            macs = sum(each * math.prod(frame.grid(level)) for level, each in work.of_cells.items())
            sums[part] += macs * (share if work.of_area else 1.0) * images / len(frame_sizes)
    return Cost(sums, parameters)


@dataclass(frozen=True)
class _Work:
    """What a part multiplies.

    Attributes:
        of_cells: MACs of a cell, by the level of its grid in the HR frame.
        of_area: as of `Part`.
    """

    of_cells: Mapping[int, float]
    of_area: bool = True


@lru_cache(maxsize=256)
def _counted_once(spec: DetectorSpec, view: View) -> tuple[dict[str, _Work], dict[str, int]]:
    """The work of an image of any size, by part, and parameters. A convolution fills a grid, whose cells cost the same
    in any image, so that one image on the meta device tells of all.
    """
    with torch.device("meta"):
        detector = Detector(spec).eval()
    bodies: Counter[int] = Counter()
    both: Counter[int] = Counter()
    pyramids = []
    for k in spec.ks_of(view):
        shown = k if spec.scales == "aligned" else 1
        backbone = detector.backbone(shown)
        pixels = torch.empty(1, 3, SIDE // k, SIDE // k, device="meta")
        bodies += _by_level(partial(backbone.body, pixels))[0]
        own, pyramid = _by_level(partial(backbone.pyramid, pixels, shown))
        both += own
        pyramids.append(pyramid)
    fusion: Counter[int] = Counter()
    if view == "fused":
        fusion, pyramids[0] = _by_level(partial(detector.fuse, pyramids))
    works = {name: _work(of) for name, of in zip(SHARED, (bodies, both - bodies, fusion), strict=True)}
    for name, part in detector.kind.parts().items():
        works[name] = _work(_by_level(partial(part.run, pyramids[0]))[0], part.of_area)
    return works, _parameters(detector, view)


def _work(macs: Counter[int], of_area: bool = True) -> _Work:
    return _Work({level: each / (SIDE >> level) ** 2 for level, each in macs.items()}, of_area)


@torch.no_grad()
def _by_level(call: Callable[[], T]) -> tuple[Counter[int], T]:
    """MACs of an image of `SIDE` × `SIDE` HR pixels, by the levels whose grids convolutions fill, and what came out.

    Whatever fills none, such as layers of RoIs or of means over a map, is the same in any image: the level of one cell.
    """
    found: Counter[int] = Counter()

    def of_grid(flops: int, outputs: torch.Size) -> int:
        level = (SIDE // outputs[-1]).bit_length() - 1
        found[level if tuple(outputs[-2:]) == 2 * (SIDE >> level,) else ONE_CELL] += flops // 2
        return 0

    def convolution(x: torch.Size, weight: torch.Size, *more: Any, out_shape: torch.Size, **_: object) -> int:
        return of_grid(conv_flop_count(list(x), list(weight), list(out_shape), transposed=more[4]), out_shape)

    def deformable(x: torch.Size, weight: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
        # Torch has no formula for it.
        return of_grid(conv_flop_count(list(x), list(weight), list(out_shape)), out_shape)

    own = {torch.ops.aten.convolution: convolution, torch.ops.torchvision.deform_conv2d: deformable}
    with FlopCounterMode(display=False, custom_mapping=own) as counter:
        result = call()
    found[ONE_CELL] += counter.get_total_flops() // 2
    return found, result


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
