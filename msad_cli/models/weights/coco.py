"""How torchvision's published COCO weights are made to fit: their names, their classes, their normalisation."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from msad_cli.models.spec import DetectorSpec

FPN = {r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)": r"\1.0.\2"}
PROPOSALS = {r"(rpn\.head\.conv)\.(weight|bias)": r"\1.0.0.\2"}
TOWERS = {rf"(head\.\w+_head\.conv)\.{2 * i}\.(weight|bias)": rf"\1.{i}.0.\2" for i in range(4)}
MASKS = {rf"(roi_heads\.mask_head)\.mask_fcn{i + 1}\.(weight|bias)": rf"\1.{i}.0.\2" for i in range(4)}
OLD_NAMES = {
    "fcos": FPN,
    "retinanet": FPN | TOWERS,
    "maskrcnn": FPN | PROPOSALS | MASKS,
    "keypointrcnn": FPN | PROPOSALS,
}
"""By detector: names in the published files, as patterns, and what torchvision calls these tensors now."""

EPSILON = 1e-5
"""What normalisation adds to a variance."""
WITHOUT_EPSILON = ("retinanet", "maskrcnn", "keypointrcnn")
"""Detectors whose published weights were trained, and are run by torchvision, with nothing added."""

ROWS = {
    "fcos": {"head.classification_head.cls_logits": 1},
    "retinanet": {"head.classification_head.cls_logits": 9},  # of each of its 9 anchors, a row a class
    "maskrcnn": {
        "roi_heads.box_predictor.cls_score": 1,
        "roi_heads.box_predictor.bbox_pred": 1,
        "roi_heads.mask_predictor.mask_fcn_logits": 1,
    },
    "keypointrcnn": {"roi_heads.box_predictor.cls_score": 1, "roi_heads.box_predictor.bbox_pred": 1},
}
"""By detector: layers with rows for each class, and how often the classes are repeated in them."""
POINT_ROWS = "roi_heads.keypoint_predictor.kps_score_lowres"


def current_names(state: Mapping[str, Tensor], detector: str) -> dict[str, Tensor]:
    """The tensors of a published file under the names that they have today; other names stay."""
    renamed = {}
    for name, each in state.items():
        for pattern, current in OLD_NAMES[detector].items():
            name = re.sub(f"^{pattern}$", current, name)  # noqa: PLW2901
        renamed[name] = each
    return renamed


def fitted(
    state: Mapping[str, Tensor], meta: Mapping[str, Any], core: nn.Module, spec: DetectorSpec
) -> dict[str, Tensor]:
    """Published weights as a detector of these classes and keypoints takes them.

    Args:
        state: the published tensors.
        meta: torchvision's description of them, `categories` (the first is background) and `keypoint_names`.
        core: the detector. Its own rows stay for classes and keypoints whose names are not in `meta`.
        spec: its spec.
    """
    fit = current_names(state, spec.detector)
    if spec.detector in WITHOUT_EPSILON:
        fit = {name: each - EPSILON if name.endswith("running_var") else each for name, each in fit.items()}
    own = core.state_dict()
    names = ["__background__", *(each.name for each in spec.classes)]
    published = ["__background__", *meta["categories"][1:]]
    for layer, repeats in ROWS[spec.detector].items():
        for name in (f"{layer}.weight", f"{layer}.bias"):
            fit[name] = _take_rows(own[name], fit[name], names, published, repeats)
    if spec.task == "keypoints":
        weight, bias = f"{POINT_ROWS}.weight", f"{POINT_ROWS}.bias"
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
