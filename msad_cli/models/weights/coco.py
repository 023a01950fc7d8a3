"""How torchvision's published COCO weights are made to fit: their names, their classes, their normalisation."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from msad_cli.models.detectors.base import DetectorKind

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
    published, spec = kind.published, kind.spec
    assert published is not None, f"{spec.detector}: no published weights"
    fit = current_names(state, published.old_names)
    if published.without_epsilon:
        fit = {name: each - EPSILON if name.endswith("running_var") else each for name, each in fit.items()}
    own = kind.core.state_dict()
    names = ["__background__", *(each.name for each in spec.classes)]
    theirs = ["__background__", *meta["categories"][1:]]
    for layer, repeats in published.class_rows.items():
        for name in (f"{layer}.weight", f"{layer}.bias"):
            fit[name] = _take_rows(own[name], fit[name], names, theirs, repeats)
    if published.keypoint_rows:
        weight, bias = f"{published.keypoint_rows}.weight", f"{published.keypoint_rows}.bias"
        points = (spec.keypoints, meta["keypoint_names"])
        # A transposed convolution has its outputs in the second dimension.
        fit[weight] = _take_rows(own[weight].transpose(0, 1), fit[weight].transpose(0, 1), *points).transpose(0, 1)
        fit[bias] = _take_rows(own[bias], fit[bias], *points)
    return fit


def _take_rows(
    own: Tensor, published: Tensor, names: Sequence[str], published_names: Sequence[str], repeats: int = 1
) -> Tensor:
    """`own` (repeats · names · n, …) with the rows of `published` where names agree; n rows make a name's."""
    rows: Tensor = own.unflatten(0, (repeats, len(names), -1)).clone()
    source = published.unflatten(0, (repeats, len(published_names), -1))
    places = {name.lower(): place for place, name in reversed(list(enumerate(published_names)))}
    for mine, name in enumerate(names):
        if name.lower() in places:
            rows[:, mine] = source[:, places[name.lower()]]
    return rows.flatten(0, 2)
