"""The towers of torchvision's dense heads, cut in two: the first convolutions of one network, the rest of another.

A convolution of a tower is a group: 3×3, or depthwise and 1×1, then the normalisation if there is one, then ReLU. The
cut is before the ReLU, where maps still have both signs (CrossKD, section 3.2, cuts there in its official code).
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.ops import Conv2dNormActivation

Tower = Literal["classification", "regression"]


def tower_start(detector: FCOS | RetinaNet, tower: Tower, pyramid: Sequence[Tensor], convs: int) -> list[Tensor]:
    """What a tower makes of a pyramid by its first convolutions, before the last one's ReLU.

    Args:
        pyramid: maps (N, channels, h, w).
        convs: how many, 0 for the pyramid itself.

    Returns:
        Maps of the same shapes.
    """
    groups = _groups(detector, tower)[:convs]
    if not groups:
        return list(pyramid)
    layers = [layer for group in groups for layer in group][:-1]
    return [nn.Sequential(*layers)(each) for each in pyramid]


def tower_answers(detector: FCOS | RetinaNet, tower: Tower, maps: Sequence[Tensor], convs: int) -> dict[str, Tensor]:
    """What the head answers when its tower goes on from maps that `tower_start` would give.

    Args:
        maps: (N, channels, h, w) a level, before the ReLU of convolution `convs`.
        convs: how many convolutions lie behind the maps, 0 for a pyramid.

    Returns:
        By the head's own names, (N, anchors of all levels, …) as float32: `cls_logits` of the classification tower,
        `bbox_regression`, and of FCOS `bbox_ctrness`, of the regression tower.
    """
    # A new tensor, as the towers' own ReLUs may write into what they are given.
    entered = [F.relu(each) for each in maps] if convs else maps
    layers = [layer for group in _groups(detector, tower)[convs:] for layer in group]
    features = [nn.Sequential(*layers)(each) for each in entered]
    head = detector.head
    if tower == "classification":
        classes = head.classification_head
        return {"cls_logits": _by_anchor([classes.cls_logits(each) for each in features], classes.num_classes)}
    boxes = [head.regression_head.bbox_reg(each) for each in features]
    if isinstance(detector, RetinaNet):
        return {"bbox_regression": _by_anchor(boxes, 4)}
    centreness = [head.regression_head.bbox_ctrness(each) for each in features]
    # FCOS's distances to a box's sides are never negative.
    return {
        "bbox_regression": _by_anchor([F.relu(each) for each in boxes], 4),
        "bbox_ctrness": _by_anchor(centreness, 1),
    }


def _groups(detector: FCOS | RetinaNet, tower: Tower) -> list[list[nn.Module]]:
    """A tower's layers, a list a convolution, each ending with its ReLU."""
    head = detector.head.classification_head if tower == "classification" else detector.head.regression_head
    groups: list[list[nn.Module]] = [[]]
    for module in head.conv:
        for layer in module if isinstance(module, Conv2dNormActivation) else [module]:
            groups[-1].append(layer)
            if isinstance(layer, nn.ReLU):
                groups.append([])
    return groups[:-1]


def _by_anchor(answers: Sequence[Tensor], values: int) -> Tensor:
    """Maps (N, A·values, h, w) a level -> (N, h·w·A of all levels, values), float32, ordered as torchvision's heads."""
    levels = [each.unflatten(1, (-1, values)).permute(0, 3, 4, 1, 2).flatten(1, 3) for each in answers]
    return torch.cat(levels, dim=1).float()
