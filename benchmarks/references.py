"""What the public code of each method computes, in our own words; ratios.py compares msad with it.

A formula has the weight of the code's configuration for the detector. It is written from the file and commit that
`REFERENCES` names, and shares nothing with msad_cli/distillation, except for what is learnt or drawn: such weights and
masks are those of msad's own distiller.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou, generalized_box_iou_loss

from msad_cli.frame import Frame
from msad_cli.models.detector import Detector

SIZES, PADDED = ((256, 384), (200, 330)), (256, 384)
CHANNELS = 64
TOWERS = ("classification", "regression")


@dataclass(frozen=True, kw_only=True)
class Case:
    """Two networks on one batch.

    Attributes:
        mine, theirs: pyramids of student and teacher, (2, 64, h, w) a level.
        targets: of each image, boxes (M, 4) in pixels of the frame, and labels.
        distiller: msad's own, for what it has learnt.
    """

    student: Detector
    teacher: Detector
    mine: list[Tensor]
    theirs: list[Tensor]
    targets: list[dict[str, Tensor]]
    views: dict[int, list[Tensor]]
    distiller: Any

    @property
    def frame(self) -> Frame:
        return Frame(SIZES, PADDED)


def msad_l1(case: Case) -> Tensor:
    """0.2 · 3² · mean |T/3 − S/3| a level."""
    return sum_of(0.2 * 9 * (t / 3 - s / 3).abs().mean() for s, t in zip(case.mine, case.theirs, strict=True))


def fgfi(case: Case, pixel: float = 1.0, activation: Callable[[Tensor], Tensor] = F.relu) -> Tensor:
    """On one map there; here all levels' cells and anchors together. Boxes hold their last pixel: the old + 1."""
    anchors, levels = anchors_of(case, case.student.core.rpn.anchor_generator)
    distance, cells = torch.zeros(()), torch.zeros(())
    grow = torch.tensor([0.0, 0.0, pixel, pixel])
    for i, target in enumerate(case.targets):
        overlap = box_iou(anchors + grow, target["boxes"] + grow)
        near = (overlap > overlap.amax(dim=0) / 2).split(levels)
        for s, t, adapt, some in zip(case.mine, case.theirs, case.distiller.adapters, near, strict=True):
            mask = some.any(dim=1).view(*s.shape[-2:], -1).any(dim=2).float()
            squares = (t[i] - activation(adapt(s[i : i + 1]))[0]) ** 2
            distance, cells = distance + (mask * squares).sum(), cells + mask.sum()
    return 0.01 * distance / (2 * cells)


def podnet(case: Case) -> Tensor:
    """POD-spatial: profiles of squares along both sides, of length 1; the layers' mean."""
    losses = []
    for pair in zip(case.mine, case.theirs, strict=True):
        sides = [torch.cat([(m**2).sum(dim=side).flatten(1) for side in (3, 2)], dim=1) for m in pair]
        a, b = (each / each.norm(dim=1, keepdim=True) for each in sides)
        losses.append(((a - b) ** 2).sum(dim=1).sqrt().mean())
    return torch.stack(losses).mean()


def skd(case: Case) -> Tensor:
    """Cosines of max-pooled nodes, lengths without gradient. There 2 × 2 nodes of one map, here to 16 × 16 a level."""
    losses = []
    for s, t in zip(case.mine, case.theirs, strict=True):
        similar = []
        for maps in (s, t):
            side = [-(-each // 16) for each in maps.shape[-2:]]
            nodes = F.max_pool2d(maps, side, side, ceil_mode=True)
            unit = nodes / ((nodes**2).sum(dim=1, keepdim=True).sqrt().detach() + 1e-8)
            similar.append(torch.einsum("nchw,ncij->nhwij", unit, unit))
        number = unit.shape[-1] * unit.shape[-2]
        losses.append(((similar[0] - similar[1]) ** 2).sum() / number**2 / len(s))
    return torch.stack(losses).sum()


def pkd(case: Case) -> Tensor:
    """Half the squared distance of maps in units of their unbiased deviation, of the four finest levels."""

    def unit(maps: Tensor) -> Tensor:
        rows = maps.transpose(0, 1).flatten(1)
        return (rows - rows.mean(dim=1, keepdim=True)) / (rows.std(dim=1, keepdim=True) + 1e-6)

    pairs = list(zip(case.mine, case.theirs, strict=True))[:4]
    weight = 10 if case.student.spec.dense else 6
    return sum_of(weight * ((unit(s) - unit(t)) ** 2).mean() / 2 for s, t in pairs)


def cwd(case: Case) -> Tensor:
    """Of all five maps, with the weight 10 and τ = 1, the divergence of channels as distributions over cells."""
    losses = []
    for s, t in zip(case.mine, case.theirs, strict=True):
        p, q = (each.flatten(2).softmax(dim=2) for each in (t, s))
        losses.append(10 * (p * (p / q).log()).sum() / (t.shape[0] * t.shape[1]))
    return torch.stack(losses).sum()


FGD = {
    "retinanet": (0.5, 1e-3, 5e-4, 5e-4, 5e-6),
    "fcos": (0.8, 1.6e-3, 8e-4, 8e-4, 8e-6),
    "maskrcnn": (0.5, 5e-5, 2.5e-5, 5e-5, 5e-7),
}
"""temp, alpha_fgd, beta_fgd, gamma_fgd, lambda_fgd of the configurations."""


def fgd(case: Case, touched: bool = False) -> Tensor:
    """Boxes are scaled by the image without its padding, and hold the row and column behind their last one.

    Args:
        touched: instead, by the padded frame, and they hold the cells that they touch.
    """
    temperature, alpha, beta, gamma, factor = FGD[case.student.spec.detector]
    own = case.distiller
    total = torch.zeros(())
    levels = zip(case.mine, case.theirs, own.student_contexts, own.teacher_contexts, strict=False)
    for s, t, *contexts in levels:
        n, c, h, w = s.shape
        spatial = [h * w * (m.abs().mean(dim=1) / temperature).flatten(1).softmax(dim=1) for m in (s, t)]
        channel = [c * (m.abs().mean(dim=(2, 3)) / temperature).softmax(dim=1) for m in (s, t)]
        inside = torch.zeros(n, h, w)
        for i, target in enumerate(case.targets):
            for box in target["boxes"]:
                height, width = PADDED if touched else SIZES[i]
                x1, y1, x2, y2 = (box / torch.tensor([width, height] * 2) * torch.tensor([w, h] * 2)).tolist()
                (left, right), (top, bottom) = ((int(a), ceil(b) + (not touched)) for a, b in ((x1, x2), (y1, y2)))
                share = 1 / (bottom - top) / (right - left)
                inside[i, top:bottom, left:right] = inside[i, top:bottom, left:right].clamp(min=share)
        outside = (inside == 0).float()
        outside = outside / outside.sum(dim=(1, 2), keepdim=True).clamp(min=1)
        squares = (s - t) ** 2 * spatial[1].view(n, 1, h, w) * channel[1][:, :, None, None]
        focal = alpha * (inside[:, None] * squares).sum() + beta * (outside[:, None] * squares).sum()
        attention = (spatial[0] - spatial[1]).abs().sum() + (channel[0] - channel[1]).abs().sum()
        related = []
        for maps, context in zip((s, t), contexts, strict=True):
            share = context.attend(maps).flatten(2).softmax(dim=2)
            related.append(maps + context.transform((maps.flatten(2) @ share.mT)[..., 0])[:, :, None, None])
        total = total + (focal + gamma * attention + factor * ((related[0] - related[1]) ** 2).sum()) / n
    return total


def mgd(case: Case) -> Tensor:
    """Each cell is hidden with probability λ: drawn as msad draws."""
    alpha, hidden = (2e-5, 0.65) if case.student.spec.dense else (5e-7, 0.45)
    total = torch.zeros(())
    for s, t, generate in zip(case.mine, case.theirs, case.distiller.generators, strict=False):
        seen = (torch.rand(len(s), 1, *s.shape[-2:]) >= hidden).float()
        total = total + alpha * ((generate(s * seen) - t) ** 2).sum() / len(s)
    return total


def isrd(case: Case) -> Tensor:
    """Without padding: the code's images have none. The weight is its η beside a classifier's loss, so 1 here."""
    convolution, shuffle, prelu = case.distiller.decoder
    first = case.student.core.backbone.body.first_convolution(case.student.pixels(case.views[2], 2))
    r = shuffle.upscale_factor
    n, _, h, w = first.shape
    pixels = (
        F.conv2d(first, convolution.weight).view(n, 3, r, r, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, 3, h * r, w * r)
    )
    pixels = torch.where(pixels > 0, pixels, prelu.weight[:, None, None] * pixels)
    wanted = case.student.pixels(case.views[1], 1)
    return torch.stack(
        [(pixels[i] - wanted[i])[:, :height, :width].abs().mean() for i, (height, width) in enumerate(SIZES)]
    ).mean()


def freekd(case: Case) -> dict[str, Tensor]:
    """1 · masked bands + 5 · squares + 1 · smooth L1 of each level's raw boxes. Both maps as they are: its 1 × 1
    convolutions are taken for the identity."""
    pairs = list(zip(case.mine, case.theirs, strict=True))
    bands = []
    for (s, t), prompts in zip(pairs, case.distiller.frozen, strict=True):
        for mine, theirs, tokens in zip(wavelets(s), wavelets(t), prompts[1:], strict=True):
            masks = torch.einsum("pc,nchw->nphw", tokens, theirs.sum(dim=2)).sigmoid()[:, :, None, None]
            bands.append((masks * mine[:, None] - masks * theirs[:, None]).abs().mean())
    boxes = []
    for pair in pairs:
        heads = [each.core.head.regression_head for each in (case.student, case.teacher)]
        raw = [head.bbox_reg(head.conv(maps)) for head, maps in zip(heads, pair, strict=True)]
        far = (raw[0] - raw[1]).abs()
        boxes.append(torch.where(far < 1, far**2 / 2, far - 0.5).mean())
    squares = sum_of(((s - t) ** 2).mean() for s, t in pairs)
    return {"bands": sum_of(bands), "features": 5 * squares, "boxes": sum_of(boxes)}


def wavelets(maps: Tensor) -> list[Tensor]:
    """Three scales of Haar bands (N, C, 3, h, w): filters of two, a zero at the end of what is odd, at each scale."""

    def split(x: Tensor, side: int) -> tuple[Tensor, Tensor]:
        if x.shape[side] % 2:
            x = torch.cat([x, torch.zeros_like(x.narrow(side, 0, 1))], dim=side)
        even, odd = x.unflatten(side, (-1, 2)).unbind(dim=side + 1)
        return (even + odd) / 2**0.5, (even - odd) / 2**0.5

    scales = []
    for _ in range(3):
        low, high = split(maps, 3)
        (maps, below), (across, both) = split(low, 2), split(high, 2)
        scales.append(torch.stack([below, across, both], dim=2))
    return scales


def crosskd_fcos(case: Case) -> Tensor:
    """0.4 · quality focal loss + 0.75 · −ln IoU, by the sum of centreness over positive points."""
    anchors, per_level = anchors_of(case, case.student.core.anchor_generator)
    kind: Any = case.student.kind
    found = kind.matches(case.targets, [anchors, anchors], per_level)
    total: Tensor = torch.zeros(())
    for target, matched in zip(case.targets, found, strict=True):
        positive = matched >= 0
        sides = case.student.core.box_coder.encode(anchors[positive], target["boxes"][matched[positive]])
        near = torch.minimum(sides[:, :2], sides[:, 2:]) / torch.maximum(sides[:, :2], sides[:, 2:])
        total = total + (near[:, 0] * near[:, 1]).sqrt().sum()
    (crossed, boxes), (theirs, wanted) = crossed_outputs(case, anchors, convs=2)
    shared = torch.minimum(boxes, wanted)[..., 2:] - torch.maximum(boxes, wanted)[..., :2]
    overlap = shared.relu().prod(dim=-1)
    area, other = ((each[..., 2:] - each[..., :2]).prod(dim=-1) for each in (boxes, wanted))
    iou = (overlap / (area + other - overlap)).clamp(min=1e-6)
    classes, weight = quality(crossed, theirs), theirs.sigmoid().amax(dim=2)
    loss: Tensor = (0.4 * classes.sum() + 0.75 * (weight * -iou.log()).sum()) / total.clamp(min=1e-6)
    return loss


def crosskd_retinanet(case: Case, everywhere: bool = False) -> Tensor:
    """Both weights 1 and GIoU. No image counts less than one positive anchor.

    Args:
        everywhere: anchors on padding and between the two thresholds count too.
    """
    anchors, per_level = anchors_of(case, case.student.core.anchor_generator)
    counted = torch.tensor(1.0) if everywhere else crosskd_counted(case, anchors, per_level)
    matcher = case.student.core.proposal_matcher
    positives = [int((matcher(box_iou(each["boxes"], anchors)) >= 0).sum()) for each in case.targets]
    (crossed, boxes), (theirs, wanted) = crossed_outputs(case, anchors, convs=3)
    classes = quality(crossed, theirs).sum(dim=2)
    apart = theirs.sigmoid().amax(dim=2) * generalized_box_iou_loss(boxes, wanted)
    loss: Tensor = (counted * (classes + apart)).sum() / sum(max(1, each) for each in positives)
    return loss


def crosskd_counted(case: Case, anchors: Tensor, per_level: Sequence[int]) -> Tensor:
    """(2, anchors): 0 between the thresholds, and at cells outside of the image, padded to a multiple of 32; else 1."""
    matcher = case.student.core.proposal_matcher
    rows = []
    for (height, width), target in zip(SIZES, case.targets, strict=True):
        valid = []
        for maps, number in zip(case.mine, per_level, strict=True):
            stride = PADDED[0] // maps.shape[-2]
            inside = torch.zeros(maps.shape[-2:])
            padded = [-(-each // 32) * 32 for each in (height, width)]
            inside[: -(-padded[0] // stride), : -(-padded[1] // stride)] = 1
            valid.append(inside.flatten().repeat_interleave(number // inside.numel()))
        between = matcher(box_iou(target["boxes"], anchors)) == matcher.BETWEEN_THRESHOLDS
        rows.append(torch.cat(valid) * ~between)
    return torch.stack(rows)


def crossed_outputs(case: Case, anchors: Tensor, convs: int) -> list[tuple[Tensor, Tensor]]:
    """Class logits and boxes of the teacher's head: of the student's maps after so many convolutions, and its own."""
    coder = case.teacher.core.box_coder
    found = []
    for logits, deltas in zip(*(crossed_tower(case, each, convs) for each in TOWERS), strict=True):
        if case.student.spec.detector == "fcos":
            boxes = [coder.decode(each.relu(), anchors) for each in deltas]
        else:
            boxes = [coder.decode_single(each, anchors) for each in deltas]
        found.append((logits, torch.stack(boxes)))
    return found


def crossed_tower(case: Case, tower: str, convs: int) -> list[Tensor]:
    """What one tower predicts, (2, anchors, …): of maps that get the teacher's means and deviations, and of its own."""
    mine, theirs = (each.core.head.get_submodule(f"{tower}_head") for each in (case.student, case.teacher))
    before, behind = cut(theirs.conv, convs)
    last, channels = (theirs.cls_logits, theirs.num_classes) if tower == "classification" else (theirs.bbox_reg, 4)
    rows: tuple[list[Tensor], list[Tensor]] = ([], [])
    for s, t in zip(case.mine, case.theirs, strict=True):
        other, own = through(cut(mine.conv, convs)[0], s), through(before, t)
        (deviation, mean), (wanted, middle) = (torch.std_mean(m, dim=(0, 2, 3), keepdim=True) for m in (other, own))
        restyled = (other - mean) / (deviation + 1e-6) * wanted + middle
        for maps, found in zip((restyled, own), rows, strict=True):
            levels = last(through(behind, maps)).unflatten(1, (-1, channels))
            found.append(levels.permute(0, 3, 4, 1, 2).flatten(1, 3))
    return [torch.cat(each, dim=1) for each in rows]


def cut(tower: nn.Module, convs: int) -> tuple[list[nn.Module], list[nn.Module]]:
    """A tower's layers before the ReLU of a convolution, and from it on."""
    layers = [each for each in tower.modules() if not list(each.children())]
    place = [i for i, each in enumerate(layers) if isinstance(each, nn.ReLU)][convs - 1]
    return layers[:place], layers[place:]


def through(layers: Sequence[nn.Module], maps: Tensor) -> Tensor:
    for each in layers:
        maps = maps.relu() if isinstance(each, nn.ReLU) else each(maps)
    return maps


def quality(student: Tensor, teacher: Tensor) -> Tensor:
    p, q = student.sigmoid(), teacher.sigmoid()
    return (p - q).abs() * -(q * F.logsigmoid(student) + (1 - q) * F.logsigmoid(-student))


def anchors_of(case: Case, generator: Any) -> tuple[Tensor, list[int]]:
    """All anchors (A, 4) of an image, and how many each level has."""
    anchors = generator(ImageList(torch.zeros(len(SIZES), 3, *PADDED), list(SIZES)), case.mine)[0]
    each = generator.num_anchors_per_location()
    return anchors, [n * m.shape[-2] * m.shape[-1] for n, m in zip(each, case.mine, strict=True)]


def sum_of(losses: Any) -> Tensor:
    return torch.stack(list(losses)).sum()


class Reference(NamedTuple):
    """A method for the detector for which its weight is published.

    Attributes:
        source, commit: of the public code that was read.
        weighted: whether the formula holds the published weight; else the formulas are compared alone.
        differs: what is as in msad and not as in the source.
        part: the only one that is compared, of those that both have; else it is the sum of all.
    """

    method: str
    detector: str
    source: str
    commit: str
    formula: Callable[[Case], Tensor | dict[str, Tensor]]
    weighted: bool = True
    differs: str = ""
    part: str = ""


MSAD = ("dvlab-research/MSAD: msad/arch_s.py", "3d8de03")
FINE = ("twangnh/Distilling-Object-Detectors: trainval_net_sup.py, lib/model/rpn/anchor_target_layer.py", "981eb8c")
POD = ("arthurdouillard/incremental_learning.pytorch: inclearn/lib/losses/distillation.py", "cfd22fc")
PAIRS = ("irfanICMLL/structure_knowledge_distillation: utils/criterion.py, utils/utils.py", "3914ec7, 5cb4e49")
PEARSON = ("open-mmlab/mmrazor: mmrazor/models/losses/pkd_loss.py", "70f03da")
CHANNEL = ("open-mmlab/mmrazor: mmrazor/models/losses/cwd.py", "09bef65")
FOCAL = ("yzd-v/FGD: mmdet/distillation/losses/fgd.py", "f1da292")
MASKED = ("yzd-v/MGD: det/mmdet/distillation/losses/mgd.py", "046aba2")
CROSS_FCOS = ("jbwang1997/CrossKD: mmdet/models/detectors/crosskd_fcos.py", "ae7fba9")
CROSS_RETINA = ("jbwang1997/CrossKD: mmdet/models/detectors/crosskd_retinanet.py", "b0c5a76")
FREE = ("Gumpest/FreeKD: mmrazor/models/losses/freekd.py", "caec644")
PIXEL = ("gyguo/PixelDistillation: lib/models/hrir.py, tools_1_ts/train_isrd_5runs.py", "1ec2ffb, 6f04c16")
FREEKD = ("", "bands", "features", "boxes")
REFERENCES = (
    Reference("l1", "fcos", *MSAD, msad_l1),
    Reference("fgfi", "maskrcnn", *FINE, fgfi),
    Reference("fgfi", "maskrcnn", *FINE, partial(fgfi, activation=nn.Identity()), differs="no ReLU"),
    Reference("fgfi", "maskrcnn", *FINE, partial(fgfi, activation=nn.Identity(), pixel=0.0), differs="no ReLU, no + 1"),
    Reference("podnet", "retinanet", *POD, podnet, weighted=False),
    Reference("skd", "retinanet", *PAIRS, skd, weighted=False, differs="nodes"),
    Reference("pkd", "retinanet", *PEARSON, pkd),
    Reference("pkd", "maskrcnn", *PEARSON, pkd),
    Reference("cwd", "retinanet", *CHANNEL, cwd),
    Reference("cwd", "maskrcnn", *CHANNEL, cwd),
    Reference("fgd", "retinanet", *FOCAL, fgd),
    Reference("fgd", "retinanet", *FOCAL, partial(fgd, touched=True), differs="boxes' cells"),
    Reference("fgd", "fcos", *FOCAL, partial(fgd, touched=True), differs="boxes' cells"),
    Reference("fgd", "maskrcnn", *FOCAL, partial(fgd, touched=True), differs="boxes' cells"),
    Reference("mgd", "retinanet", *MASKED, mgd),
    Reference("mgd", "maskrcnn", *MASKED, mgd),
    *(Reference("freekd", "retinanet", *FREE, freekd, differs="no aligners", part=part) for part in FREEKD),
    Reference("crosskd", "fcos", *CROSS_FCOS, crosskd_fcos),
    Reference("crosskd", "retinanet", *CROSS_RETINA, crosskd_retinanet),
    Reference(
        "crosskd", "retinanet", *CROSS_RETINA, partial(crosskd_retinanet, everywhere=True), differs="all anchors"
    ),
    Reference("isrd", "fcos", *PIXEL, isrd, weighted=False),
)
