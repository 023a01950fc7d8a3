"""What stands in an annotation, brought from the image as its file has it to the upright one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msad_cli.data.annotations.segmentation import decode, encode_mask, read_segmentation
from msad_cli.data.annotations.values import read_box

Points = NDArray[np.float64]
"""(P, 2) x, y in pixels, x right, y down."""

POINTS: Mapping[int, Callable[[Points, float, float], Points]] = {
    2: lambda of, width, _: np.stack([width - of[:, 0], of[:, 1]], axis=1),
    3: lambda of, width, height: np.stack([width - of[:, 0], height - of[:, 1]], axis=1),
    4: lambda of, _, height: np.stack([of[:, 0], height - of[:, 1]], axis=1),
    5: lambda of, _, __: of[:, ::-1],
    6: lambda of, _, height: np.stack([height - of[:, 1], of[:, 0]], axis=1),
    7: lambda of, width, height: np.stack([height - of[:, 1], width - of[:, 0]], axis=1),
    8: lambda of, width, _: np.stack([of[:, 1], width - of[:, 0]], axis=1),
}
"""Where points of a file's image of (width, height) pixels lie in the upright one, by EXIF orientation."""
MASKS: Mapping[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    2: lambda of: of[:, ::-1],
    3: lambda of: of[::-1, ::-1],
    4: lambda of: of[::-1],
    5: lambda of: of.T,
    6: lambda of: of[::-1].T,
    7: lambda of: of[::-1, ::-1].T,
    8: lambda of: of.T[::-1],
}
"""The same of pixels (H, W)."""
MIRRORS = (2, 4, 5, 7)
"""Orientations of which an upright image is the mirror of its file's."""


@dataclass(frozen=True)
class Turn:
    """The way from an image as its file has it to the upright one.

    Attributes:
        orientation: EXIF's, from 2 to 8.
        size: (height, width) in pixels as the file has it, of which labels are.
        scale: what x and y are multiplied by to be pixels of that; other than 1 where they were shares of an image, and
            somebody took them for shares of the upright one.
    """

    orientation: int
    size: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)

    def points(self, points: Points) -> Points:
        """Points in pixels of the upright image."""
        height, width = self.size
        return POINTS[self.orientation](points * self.scale, width, height)

    def annotation(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A record of COCO's list `annotations` with all its coordinates; what is malformed stays as it is."""
        turned = dict(record)
        box = read_box(record.get("bbox"))
        if box is not None and min(box[2:]) >= 0 and any(box):
            ends = self.points(np.array([box[:2], (box[0] + box[2], box[1] + box[3])]))
            turned["bbox"] = [*ends.min(axis=0).tolist(), *np.abs(ends[1] - ends[0]).tolist()]
        segmentation = record.get("segmentation")
        if isinstance(segmentation, list):
            turned["segmentation"] = [self._ring(each) for each in segmentation]
        elif isinstance(segmentation, dict):
            turned["segmentation"] = self._mask(segmentation)
        if isinstance(record.get("keypoints"), list):
            turned["keypoints"] = self._keypoints(record["keypoints"])
        attributes = record.get("attributes")
        if isinstance(attributes, dict) and _is_number(attributes.get("rotation")) and self.orientation in MIRRORS:
            turned["attributes"] = {**attributes, "rotation": -attributes["rotation"]}
        return turned

    def _ring(self, ring: Any) -> Any:
        if not isinstance(ring, list) or len(ring) % 2 or not all(map(_is_number, ring)):
            return ring
        return self.points(np.array(ring, dtype=np.float64).reshape(-1, 2)).ravel().tolist()

    def _mask(self, value: dict[str, Any]) -> dict[str, Any]:
        read = read_segmentation(value)
        if not isinstance(read, dict) or tuple(read["size"]) != self.size:
            return value
        encoded = encode_mask(np.asfortranarray(MASKS[self.orientation](decode(read))))
        return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}

    def _keypoints(self, values: list[Any]) -> list[Any]:
        if len(values) % 3 or not all(_is_number(each) for each in values):
            return values
        triples = np.array(values, dtype=np.float64).reshape(-1, 3)
        labelled = triples[:, 2] > 0
        triples[labelled, :2] = self.points(triples[labelled, :2])
        return [int(each) if i % 3 == 2 else each for i, each in enumerate(triples.ravel().tolist())]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
