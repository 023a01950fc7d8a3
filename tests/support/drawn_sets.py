"""COCO documents drawn from a seed: honest ones, and the same written as other tools write them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

from msad_cli.data.annotations.records import Records, read_records

Document = dict[str, Any]
Fault = Callable[[Document, Document], None]
"""Changes an annotation, of an image: both records of the document."""
POINTS = ("nose", "left_eye", "right_eye", "tail")


@dataclass(frozen=True)
class Drawn:
    """A set on the disk."""

    folder: Path
    document: Document

    @property
    def file(self) -> Path:
        return self.folder / "a.json"

    def changed(self, fault: Fault, share: float = 1.0) -> int:
        """Writes the document with a fault in the first annotations, that share of all; how many these are."""
        images = {each["id"]: each for each in self.document["images"]}
        annotations = json.loads(json.dumps(self.document["annotations"]))
        count = round(share * len(annotations))
        for each in annotations[:count]:
            fault(each, images[each["image_id"]])
        self.file.write_text(json.dumps({**self.document, "annotations": annotations}))
        return count

    def records(self, task: str = "boxes") -> Records:
        return read_records(self.file, self.folder, task=task)

    @property
    def boxes(self) -> NDArray[np.float64]:
        """(A, 4) x, y, width, height as they were drawn."""
        return np.array([each["bbox"] for each in self.document["annotations"]], dtype=np.float64)


def drawn_set(folder: Path, seed: int, outlines: str = "", images: int = 4, objects: int = 5) -> Drawn:
    """An honest set of small images of random sizes, none of them square, objects all over them.

    Args:
        folder: takes images and the document.
        seed: of everything that is drawn.
        outlines: `polygon`, `rle`, or none.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    document: Document = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 3, "name": "cat", "keypoints": POINTS}],
    }
    for number in range(1, images + 1):
        height = int(rng.integers(60, 150))
        width = int(height * rng.uniform(1.4, 2))
        Image.new("L", (width, height)).save(folder / f"{number}.png")
        document["images"].append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        for _ in range(objects):
            document["annotations"].append(_object(rng, number, (width, height), outlines))
    for number, each in enumerate(document["annotations"], start=1):
        each["id"] = number
    drawn = Drawn(folder, document)
    drawn.changed(lambda annotation, image: None)
    return drawn


def _object(rng: np.random.Generator, image: int, size: tuple[int, int], outlines: str) -> Document:
    sides = (np.array(size) * rng.uniform(0.15, 0.5, 2)).round()
    corner = (rng.uniform(0, 1, 2) * (size - sides)).round()
    (x, y), (w, h) = corner.tolist(), sides.tolist()
    # Inside the box, and away from its middle, so that no other order of x and y has them inside.
    points = corner + rng.uniform(0.1, 0.9, (len(POINTS), 2)) * sides
    table = np.concatenate([points, np.full((len(POINTS), 1), 2.0)], axis=1)
    own: Document = {"image_id": image, "category_id": 3, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
    own |= {"keypoints": table.ravel().tolist(), "num_keypoints": len(POINTS)}
    if outlines == "polygon":
        own["segmentation"] = [[x, y + h / 3, x + w / 2, y, x + w, y + h / 2, x + w / 3, y + h]]
        own["area"] = w * h / 2
    if outlines == "rle":
        inside = np.zeros(size[::-1], dtype=np.uint8, order="F")
        inside[int(y) : int(y + h), int(x) : int(x + w)] = 1
        encoded = rle.encode(inside)
        own["segmentation"] = {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}
    return own
