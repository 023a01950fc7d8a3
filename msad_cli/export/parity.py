"""Whether two models find the same in the same images."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from msad_cli.export.runtime import ExportedModel, Model
from msad_cli.models.decode.limits import SCORE_THRESHOLD
from msad_cli.models.decode.nms import one_class_a_box
from msad_cli.models.detectors.base import Detection
from msad_cli.models.spec import View

TOLERANCES = {"scores": 0.01, "boxes": 0.5, "masks": 0.05, "keypoints": 1.0}
"""The largest difference of two detections that are the same: boxes and keypoints in HR pixels."""
MOST_UNMATCHED = 0.01
"""The share of detections without a partner: rounding lets suppression take the other one of two like boxes."""

COMPARED, SEARCHED = 16, 200
"""Images that are compared; and how many are looked at before it is given up to find something in any of them."""


@dataclass
class Parity:
    """What a comparison found.

    Attributes:
        images: in which detections were compared.
        detections: of both models, in all images.
        unmatched: of them, without a partner in the other model.
        differences: the largest ones between partners, by name.
    """

    images: int
    detections: int
    unmatched: int
    differences: dict[str, float]

    @property
    def holds(self) -> bool:
        """Whether as many detections as have to be have partners. Where nothing was found, nothing is proved."""
        return self.detections > 0 and self.unmatched <= MOST_UNMATCHED * self.detections


def compare_models(
    detector: Model,
    view: View,
    graph: ExportedModel,
    images: Iterable[Tensor],
    overlap: float | None = None,
    lowest: float = SCORE_THRESHOLD,
) -> Parity:
    """The detections of a model and of its graph, in the first images and, while there are none, in more of them.

    Args:
        detector: on the CPU, in eval mode.
        view: of the detector, that was exported.
        images: as the graph takes them, uint8 (3, h, w).
        overlap: IoU above which the graph leaves out boxes of other classes, or None.
        lowest: the score under which both find nothing.
    """
    (k,), (exported,) = graph.spec.ks, graph.spec.views
    expected: list[Detection] = []
    found: list[Detection] = []
    with torch.inference_mode():
        for image in itertools.islice(images, SEARCHED):
            expected += [one_class_a_box(each, overlap) for each in detector.detect({k: [image]}, view)]
            found += graph.detect({k: [image]}, exported)
            if len(found) >= COMPARED and any(len(each["scores"]) for each in (*expected, *found)):
                break
    return compare(expected, found, lowest, graph.spec.detections_per_image)


def compare(expected: Sequence[Detection], found: Sequence[Detection], lowest: float, most: int) -> Parity:
    """Detections of the same images by two models, matched one to one.

    Args:
        expected, found: one dict an image, in HR pixels.
        lowest: the score under which nothing is found; what stands next to it may be missing.
        most: how many detections an image has at most; what stands next to the last of so many may be missing.
    """
    parity = Parity(len(expected), 0, 0, {})
    for one, other in zip(expected, found, strict=True):
        pairs = _pairs(one, other)
        parity.detections += len(one["scores"]) + len(other["scores"])
        for each, partners in ((one, pairs[:, 0]), (other, pairs[:, 1])):
            alone = torch.ones(len(each["scores"]), dtype=torch.bool)
            alone[partners] = False
            floor = float(each["scores"][-1]) if len(each["scores"]) == most else lowest
            parity.unmatched += int((alone & (each["scores"] > floor + TOLERANCES["scores"])).sum())
        for name in TOLERANCES.keys() & one.keys():
            apart = _apart(one, other, name, pairs)
            parity.differences[name] = max([parity.differences.get(name, 0.0), *apart.tolist()])
    return parity


def _pairs(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Tensor:
    """Places (P, 2) of the detections that are the same; of several possible partners the best-scored one is taken."""
    boxes = (one["boxes"][:, None] - other["boxes"]).abs().amax(dim=2)
    scores = (one["scores"][:, None] - other["scores"]).abs()
    alike = (one["labels"][:, None] == other["labels"]) & (boxes <= TOLERANCES["boxes"])
    alike &= scores <= TOLERANCES["scores"]
    pairs = []
    for i, row in enumerate(alike):
        for j in row.nonzero()[:1, 0].tolist():
            pairs.append((i, j))
            alike[:, j] = False
    found = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    for name in TOLERANCES.keys() & one.keys():
        found = found[_apart(one, other, name, found) <= TOLERANCES[name]]
    return found


def _apart(one: Mapping[str, Tensor], other: Mapping[str, Tensor], name: str, pairs: Tensor) -> Tensor:
    """The largest difference of each pair's values of this name, (P,)."""
    differences: Tensor = (one[name][pairs[:, 0]] - other[name][pairs[:, 1]]).abs()
    return differences.reshape(len(pairs), -1).amax(dim=1) if len(pairs) else differences.reshape(0)
