"""samples/: the first training batch as the model sees it, and ground truth beside what was found."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms.v2.functional import to_pil_image

from msad_cli.data.annotations.segmentation import decode, encode
from msad_cli.data.annotations.split import CocoSplit
from msad_cli.data.images.decode import read_image
from msad_cli.data.loading.dataset import Batch, Sample
from msad_cli.errors import DataError
from msad_cli.evaluation.metrics import Result
from msad_cli.inference.draw import draw_objects
from msad_cli.models.views import view_in_full
from msad_cli.system.files import write_bytes
from msad_cli.text import printable

TILE = 480
"""Pixels of a tile's long side. Images of other sizes are scaled to it, so that boxes and texts are legible."""
GAP, LINE = 8, 20
"""Pixels between tiles, and of the line of text above each."""
COLUMNS = 4
"""Tiles beside each other, unless an image would be torn into two rows."""
MOST_TRAINED, MOST_FOUND = 4, 6
"""Images in a sample."""

NEAREST = Image.Resampling.NEAREST

Tile = tuple[str, Image.Image]
"""What is written above an image, and the image."""


@dataclass(frozen=True)
class Objects:
    """What is in an image, best first.

    Attributes:
        boxes: (M, 4) corners in pixels of `size`.
        texts: written at the boxes.
        size: (height, width) of the frame they stand in.
        masks: M of (height, width), or None.
        keypoints: (M, K, 3) x, y in pixels of `size` and visibility, or None.
    """

    boxes: NDArray[np.float64]
    labels: list[int]
    texts: list[str]
    size: tuple[int, int]
    masks: Iterable[NDArray[np.uint8]] | None
    keypoints: NDArray[np.float64] | None


def spread(split: CocoSplit, most: int) -> list[int]:
    """The places of a few images, evenly over those of a split that have objects."""
    filled = np.flatnonzero(np.diff(split.starts))
    places = filled if len(filled) else np.arange(len(split))
    return [int(each) for each in places[np.linspace(0, len(places) - 1, min(most, len(places))).astype(int)]]


def draw_training(batch: Batch, split: CocoSplit, path: Path) -> None:
    """Writes a training batch: each image's views beside each other, the smaller ones enlarged to the same size.

    Args:
        split: of which the batch is; it has the names.
    """
    _write([_views(sample, split) for sample in batch.samples], path)


def draw_found(split: CocoSplit, places: Sequence[int], results: Sequence[Result], least: float, path: Path) -> None:
    """Writes some images of a split twice: with their objects, and beside it with what was found.

    Args:
        results: of these images or more; those of a score below `least` are left out.
    """
    pairs: list[list[Tile]] = []
    for place in places:
        try:
            image = read_image(split.path(place), tones=split.tones)
        except DataError:
            continue  # the evaluation has said so
        found = [each for each in results if each["image_id"] == split.image_ids[place] and each["score"] >= least]
        true, predicted = _true_objects(split, place, image), _found_objects(split, found, image)
        name = Path(str(split.file_names[place])).name
        one = f"{name}: {_count(true)}", _drawn(image, true, split)
        other = f"found: {_count(predicted)} of score {least:.2f} and above", _drawn(image, predicted, split)
        pairs.append([one, other])
    _write(pairs, path)


def _views(sample: Sample, split: CocoSplit) -> list[Tile]:
    target = {name: each.numpy() for name, each in sample.target.items()}
    labels = target["labels"].tolist()
    masks = list(target["masks"]) if "masks" in target else None
    names = _names(split, labels)
    objects = Objects(target["boxes"], labels, names, sample.frame_size, masks, target.get("keypoints"))
    row: list[Tile] = []
    for k, pixels in sorted(sample.views.items()):
        name = Path(str(split.file_names[sample.index])).name if not row else ""
        name += f" and {len(sample.others)} others" if sample.others and not row else ""
        mirrored = ", mirrored" if target["image"][1] else ""
        size = f"{view_in_full(k, sample.views)}, {pixels.shape[2]} x {pixels.shape[1]}{mirrored}"
        row.append((f"{name}  {size}".strip(), _drawn(to_pil_image(pixels), objects, split)))
    return row


def _true_objects(split: CocoSplit, place: int, image: Image.Image) -> Objects:
    rows = range(int(split.starts[place]), int(split.starts[place + 1]))
    owned, size = slice(rows.start, rows.stop), (image.height, image.width)
    labels = split.labels[owned].tolist()
    masks = (decode(encode(split.masks.segmentation(row), size)) for row in rows) if split.task == "masks" else None
    points = split.keypoints[owned].astype(np.float64) if split.task == "keypoints" else None
    return Objects(split.boxes[owned].astype(np.float64), labels, _names(split, labels), size, masks, points)


def _found_objects(split: CocoSplit, found: Sequence[Result], image: Image.Image) -> Objects:
    found = sorted(found, key=lambda each: -each["score"])
    label = {category: place for place, (category, _) in enumerate(split.categories, start=1)}
    labels = [label[each["category_id"]] for each in found]
    names = zip(_names(split, labels), (f"{each['score']:.2f}" for each in found), strict=True)
    boxes = np.array([each["bbox"] for each in found], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = (_decoded(each["segmentation"]) for each in found) if split.task == "masks" else None
    points = None
    if split.task == "keypoints":
        listed = [each["keypoints"] for each in found]
        points = np.array(listed, dtype=np.float64).reshape(len(found), *split.keypoints.shape[1:])
    texts = [" ".join(words).strip() for words in names]
    return Objects(boxes, labels, texts, (image.height, image.width), masks, points)


def _names(split: CocoSplit, labels: Sequence[int]) -> list[str]:
    """What to write at objects; nothing where there is a single class."""
    return [split.categories[label - 1][1] if len(split.categories) > 1 else "" for label in labels]


def _decoded(segmentation: Mapping[str, Any]) -> NDArray[np.uint8]:
    return decode({"size": segmentation["size"], "counts": segmentation["counts"].encode("ascii")})


def _count(objects: Objects) -> str:
    return f"{len(objects.labels)} object{'s' * (len(objects.labels) != 1)}"


def _drawn(image: Image.Image, objects: Objects, split: CocoSplit) -> Image.Image:
    """The image at a tile's size with objects over it; it may have another size than their frame."""
    height, width = objects.size
    scale = TILE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # Enlarged pixels stay squares: that is what the model sees.
    way = NEAREST if image.width < size[0] else Image.Resampling.LANCZOS
    across, down = size[0] / width, size[1] / height
    masks, points = objects.masks, objects.keypoints
    return draw_objects(
        image.resize(size, way),
        (objects.boxes * [across, down, across, down]).tolist(),
        objects.labels,
        [printable(text) for text in objects.texts],
        None if masks is None else (np.asarray(Image.fromarray(mask).resize(size, NEAREST)) for mask in masks),
        None if points is None else (points * [across, down, 1]).tolist(),
        split.scheme.skeleton,
    )


def _write(groups: Sequence[Sequence[Tile]], path: Path) -> None:
    """Writes groups of so many tiles each as JPEG, no group being torn; nothing where there are none."""
    if not groups:
        return
    tiles = [tile for group in groups for tile in group]
    columns = max(1, COLUMNS // len(groups[0])) * len(groups[0])
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    widths = [max(row[i][1].width for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    heights = [LINE + max(tile.height for _, tile in row) for row in rows]
    sheet = Image.new("RGB", (sum(widths) + GAP * (len(widths) + 1), sum(heights) + GAP * (len(rows) + 1)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        left = GAP
        for (text, tile), width in zip(row, widths, strict=False):
            pen.text((left, top + 1), _cut(text, font, width), fill="black", font=font)
            sheet.paste(tile, (left, top + LINE))
            left += width + GAP
        top += height + GAP
    written = io.BytesIO()
    sheet.save(written, format="JPEG", quality=90)
    write_bytes(path, written.getbuffer())


def _cut(text: str, font: Any, width: int) -> str:
    """As much of the end of a text as a width in pixels has room for."""
    text = printable(text)
    endings = (f"…{text[start:]}" for start in range(1, len(text)))
    return text if font.getlength(text) <= width else next((end for end in endings if font.getlength(end) <= width), "")
