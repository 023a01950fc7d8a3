"""How torchvision's published COCO weights are made to fit: their names, their classes, their normalisation."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torchvision.models import get_model_weights

from msad_cli.models.backbones.normalisation import stock_name
from msad_cli.models.detectors.base import DetectorKind
from msad_cli.models.weights.class_rows import BACKGROUND, with_own_rows

BODY = "backbone.body."
UNUSED = "N/A"
"""What torchvision calls the ids that COCO leaves out."""
EPSILON = 1e-5
"""What normalisation adds to a variance."""


def current_names(state: Mapping[str, Tensor], old_names: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors of a published file under the names that they have today; other names stay.

    Args:
        old_names: see `PublishedWeights`.
    """
    renamed = {}
    for name, each in state.items():
        for pattern, current in old_names.items():
            name = re.sub(f"^{pattern}$", current, name)  # noqa: PLW2901
        renamed[name] = each
    return renamed


def fitted(kind: DetectorKind, state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> dict[str, Tensor]:
    """Published weights as a detector of other classes and keypoints takes them.

    Args:
        kind: the detector, of which there are published weights. Its own rows stay for classes and keypoints whose
            names are not in `meta`.
        state: the published tensors.
        meta: torchvision's description of them, `categories` (the first is background) and `keypoint_names`.
    """
    published = kind.published
    assert published is not None, f"{kind.spec.detector}: no published weights"
    fit = current_names(state, published.old_names)
    if published.without_epsilon:
        fit = {name: each - EPSILON if name.endswith("running_var") else each for name, each in fit.items()}
    return with_own_rows(kind, fit, class_names(meta), meta.get("keypoint_names", ()))


def class_names(meta: Mapping[str, Any]) -> list[str]:
    """Those of published weights that are classes: all but the background."""
    return [each for each in meta["categories"] if each != BACKGROUND]


def description(kind: DetectorKind) -> Mapping[str, Any]:
    """What is said of the COCO weights of a detector: `categories`, and perhaps `keypoint_names`."""
    assert kind.published is not None, f"{kind.spec.detector}: no published weights"
    meta: Mapping[str, Any] = get_model_weights(kind.published.name)["DEFAULT"].meta
    if kind.rows.background:
        return meta
    # OpenMMLab's heads have a row for each of COCO's 80 classes, in the order of their ids, and no others.
    return {"categories": [each for each in meta["categories"] if each not in (BACKGROUND, UNUSED)]}


def is_published(kind: DetectorKind, state: Mapping[str, Tensor]) -> bool:
    """Whether a state is the COCO weights of this detector: behind the backbone all of its tensors have names
    that the detector knows, and its head has rows for as many classes and keypoints as the published one.

    Args:
        state: under the names of today.
    """
    published = kind.published
    behind = {name for name in state if not name.startswith(BODY)}
    # A detector that keeps its views apart has the published norms once for each.
    known = {each for name in kind.core.state_dict() for each in (name, stock_name(name))}
    if published is None or not behind <= known:
        return False
    meta = description(kind)
    layer, repeats = next(iter(kind.rows.classes.items()))
    wanted = {f"{layer}.bias": repeats * len(meta["categories"])}
    if kind.rows.keypoints:
        wanted[f"{kind.rows.keypoints}.bias"] = len(meta["keypoint_names"])
    return all(name in state and len(state[name]) == rows for name, rows in wanted.items())
