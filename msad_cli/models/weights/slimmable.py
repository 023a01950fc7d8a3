"""Published slimmable networks (Yu et al., ICLR 2019): one checkpoint with a ResNet or MobileNetV2 of several widths.

The networks share their convolutions: the narrower one is made of the first channels of the wider. Each has batch
normalisations of its own: `….bn.i` is that of the i-th width, from narrow to wide in the published files ([0.25, 0.5,
0.75, 1.0] for ResNet, [0.35, 0.5, 0.75, 1.0] for MobileNetV2). The list of widths is not in the file; it is read off
the sizes of these layers. Weights and statistics expect RGB normalised with ImageNet's mean and standard deviation.

Names, where `norm` stands for a normalisation and `norm.bn.i.weight` for its tensors:

- stem: `features.0.0`, norm `features.0.1`;
- ResNet's block j: `features.j.body.{0,3,6}`, norms `body.{1,4,7}`; at the start of a stage `shortcut.0`, norm
  `shortcut.1`;
- MobileNetV2's block j: the same, without `body.{0,1}`'s expansion in the first, where all places are three lower;
- MobileNetV2's last convolution: `features.18.0`, whose norm `features.18.1` all widths share, without `bn.i`.

This is the layout that the code of that project writes (models/s_resnet.py, models/s_mobilenet_v2.py); no published
file was at hand. Its universally slimmable networks (`us_…`) have another one and are not read.
"""

from collections.abc import Mapping
from math import isclose

import torch
from torch import Tensor

from msad_cli.errors import ModelFileError, UsageError
from msad_cli.models.backbones.normalisation import norm_layer
from msad_cli.models.backbones.resnet import BACKBONES, build_backbone

SLIMMABLE = ("resnet50", "resnet101", "resnet152", "mobilenet_v2")
SLIMMABLE_NAMES = frozenset({"features.0.1.bn.0.weight", "features.0.0.weight"})
"""By which a slimmable network is known."""
EXPANSIONS = (1, *[6] * 16)
"""Of MobileNetV2's 17 blocks. The first, which expands nothing, lacks the convolution that would."""


def is_slimmable(state: Mapping[str, Tensor]) -> bool:
    """Whether these names are those of a slimmable network."""
    return state.keys() >= SLIMMABLE_NAMES


def to_backbone_state(checkpoint: Mapping[str, Tensor], name: str, width: float) -> dict[str, Tensor]:
    """The weights of one width, by our backbones' names; convolutions are the first channels of the shared ones.

    Args:
        checkpoint: a slimmable network's tensors, without wrappers and prefixes.
        name: the backbone's name.
        width: the backbone's width.

    Raises:
        UsageError: the checkpoint lacks this width, or there is no slimmable network of this name.
        ModelFileError: the checkpoint is of another network, or not whole.
    """
    if name not in SLIMMABLE:
        raise UsageError(
            f"--backbone {name}: the file is a slimmable network, of which there are {', '.join(SLIMMABLE)}",
            "choose one of these, or another file",
            code="slimmable-backbone-unknown",
        )
    index = _index(checkpoint, name, width)
    places = _mobilenet_places() if name == "mobilenet_v2" else _resnet_places(name)
    with torch.device("meta"):
        wanted = build_backbone(name, width, norm_layer("frozen")).state_dict()
    state = {}
    for own, target in wanted.items():
        layer, tensor = own.rsplit(".", 1)
        shared, of_width = f"{places[layer]}.{tensor}", f"{places[layer]}.bn.{index}.{tensor}"
        state[own] = _first_channels(checkpoint, of_width if of_width in checkpoint else shared, target.shape, name)
    return state


def _index(checkpoint: Mapping[str, Tensor], name: str, width: float) -> int:
    """The place of a width in the checkpoint's list.

    It is read off a layer whose channels no rounding touches: 112 of 320 are 0.35.
    """
    norm, full = ("features.17.body.7", 320) if name == "mobilenet_v2" else ("features.0.1", 64)
    widths: list[float] = []
    while (found := checkpoint.get(f"{norm}.bn.{len(widths)}.weight")) is not None:
        widths.append(found.numel() / full)
    if not widths:
        raise _of_another_network(name, f"{norm}.bn.0.weight is missing")
    for index, each in enumerate(widths):
        if isclose(each, width):
            return index
    known = ", ".join(f"{each:g}" for each in widths)
    raise UsageError(
        f"--width {width:g}: the slimmable network has the widths {known}",
        f"choose one of them, or train this width from scratch: --width {width:g} --init none",
        code="slimmable-width-unknown",
    )


def _first_channels(checkpoint: Mapping[str, Tensor], theirs: str, shape: torch.Size, name: str) -> Tensor:
    if theirs not in checkpoint:
        raise _of_another_network(name, f"{theirs} is missing")
    found = checkpoint[theirs]
    # A norm belongs to one width, so that nothing of it is cut off.
    part = found[tuple(slice(size) for size in shape)] if found.ndim == len(shape) == 4 else found
    if part.shape != shape:
        raise _of_another_network(name, f"{theirs} is {list(found.shape)}, and {list(shape)} are needed")
    # A copy: a part would keep the whole alive.
    return part.clone()


def _of_another_network(name: str, why: str) -> ModelFileError:
    return ModelFileError(
        f"a slimmable network, but not {name}, or not whole: {why}",
        "does --backbone fit the file?",
        code="slimmable-file-unfit",
    )


def _resnet_places(name: str) -> dict[str, str]:
    """Our layers -> theirs."""
    places = {"conv1": "features.0.0", "bn1": "features.0.1"}
    number = 1
    for stage, blocks in enumerate(BACKBONES[name].blocks, start=1):
        for block in range(blocks):
            ours, theirs = f"layer{stage}.{block}", f"features.{number}"
            for i in (1, 2, 3):
                places[f"{ours}.conv{i}"] = f"{theirs}.body.{3 * i - 3}"
                places[f"{ours}.bn{i}"] = f"{theirs}.body.{3 * i - 2}"
            for i in (0, 1):
                places[f"{ours}.downsample.{i}"] = f"{theirs}.shortcut.{i}"
            number += 1
    return places


def _mobilenet_places() -> dict[str, str]:
    """Our layers -> theirs. Torchvision nests every convolution but the last of a block with its norm."""
    places = {f"features.{end}.{i}": f"features.{end}.{i}" for end in (0, 18) for i in (0, 1)}
    for number, expansion in enumerate(EXPANSIONS, start=1):
        nested = 1 if expansion == 1 else 2
        ours, theirs = f"features.{number}.conv", f"features.{number}.body"
        for i in range(nested):
            places |= {f"{ours}.{i}.0": f"{theirs}.{3 * i}", f"{ours}.{i}.1": f"{theirs}.{3 * i + 1}"}
        last = 3 * nested
        places |= {f"{ours}.{nested}": f"{theirs}.{last}", f"{ours}.{nested + 1}": f"{theirs}.{last + 1}"}
    return places
