"""Boxes and labels, masks and keypoints on images."""

import colorsys
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

GOLDEN_ANGLE = 0.618034
"""Hues spaced by the golden ratio stay apart however many classes there are."""

Colour = tuple[int, int, int]

TINT = 0.4
"""The share of a mask's colour in its pixels."""


def class_colour(label: int) -> Colour:
    """A colour for a class, the same in every image."""
    red, green, blue = colorsys.hsv_to_rgb(label * GOLDEN_ANGLE % 1.0, 0.75, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def line_width(size: tuple[int, int]) -> int:
    """Pixels of a line in an image of (width, height)."""
    return max(1, round(min(size) / 200))


def draw_objects(
    image: Image.Image,
    boxes: Sequence[Sequence[float]],
    labels: Sequence[int],
    texts: Sequence[str],
    masks: Iterable[NDArray[np.uint8]] | None = None,
    keypoints: Sequence[Sequence[Sequence[float]]] | None = None,
    skeleton: Sequence[tuple[int, int]] = (),
) -> Image.Image:
    """A copy of an RGB image with what is in it, best first: masks below boxes, keypoints above them.

    Args:
        image, boxes, labels, texts: as `draw_boxes` takes them.
        masks: as `draw_masks` takes them, if there are any.
        keypoints, skeleton: as `draw_keypoints` takes them, if there are any.
    """
    image = image if masks is None else draw_masks(image, masks, boxes, labels)
    image = draw_boxes(image, boxes, labels, texts)
    return image if keypoints is None else draw_keypoints(image, keypoints, labels, skeleton)


def draw_masks(
    image: Image.Image, masks: Iterable[NDArray[np.uint8]], boxes: Sequence[Sequence[float]], labels: Sequence[int]
) -> Image.Image:
    """A copy of an RGB image with masks in translucent colours and their segmentations.

    Args:
        masks: (height, width) of `image`, 1 inside; one at a time, so that a hundred take no more memory than one.
        boxes: corners in pixels of `image`: nothing outside of its box is drawn of a mask.
        labels: classes, which choose the colours.
    """
    canvas = image.copy()
    line = line_width(image.size)
    for mask, (x0, y0, x1, y1), label in zip(masks, boxes, labels, strict=True):
        left, top = math.floor(max(0, x0 - 1)), math.floor(max(0, y0 - 1))
        right, bottom = math.ceil(min(image.width, x1 + 1)), math.ceil(min(image.height, y1 + 1))
        if right <= left or bottom <= top:
            continue
        inside = mask[top:bottom, left:right].astype(bool)
        colour = class_colour(label)
        canvas.paste(colour, (left, top), Image.fromarray(inside * np.uint8(round(255 * TINT))))
        canvas.paste(colour, (left, top), Image.fromarray((inside & ~_core(inside, line)) * np.uint8(255)))
    return canvas


def _core(inside: NDArray[np.bool_], line: int) -> NDArray[np.bool_]:
    """The pixels (height, width) around which all others, as far as `line` down and across, are inside too."""
    # Sums over squares, from sums over all that lies above and left: as fast for a broad line as for a thin one.
    side = 2 * line + 1
    total = np.pad(np.pad(inside, line).cumsum(axis=0, dtype=np.int64).cumsum(axis=1), ((1, 0), (1, 0)))
    sums = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    return np.asarray(sums == side**2)


def draw_keypoints(
    image: Image.Image,
    keypoints: Sequence[Sequence[Sequence[float]]],
    labels: Sequence[int],
    skeleton: Sequence[tuple[int, int]],
) -> Image.Image:
    """A copy of an RGB image with keypoints as dots, and lines between them.

    Args:
        keypoints: x, y and visibility of K points for each of the detections, in pixels of `image`; those of
            visibility 0 are left out.
        labels: classes, which choose the colours of the lines.
        skeleton: pairs of places among the K, from 0.
    """
    canvas = image.copy()
    pen = ImageDraw.Draw(canvas)
    line = line_width(image.size)
    radius = 1.5 * line + 1
    for points, label in zip(keypoints, labels, strict=True):
        for start, end in skeleton:
            if points[start][2] > 0 and points[end][2] > 0:
                pen.line((*points[start][:2], *points[end][:2]), fill=class_colour(label), width=line)
        for place, (x, y, visibility) in enumerate(points):
            if visibility > 0:
                # One colour a keypoint: left and right are told apart in every image.
                around = (x - radius, y - radius, x + radius, y + radius)
                pen.ellipse(around, fill=class_colour(place), outline="white", width=max(1, line // 2))
    return canvas


def draw_boxes(
    image: Image.Image, boxes: Sequence[Sequence[float]], labels: Sequence[int], texts: Sequence[str]
) -> Image.Image:
    """A copy of an RGB image with boxes and their texts; a text that would cover a better box's is left out.

    Args:
        boxes: corners x0, y0, x1, y1 in pixels of `image`, best first; the best is drawn last, on top.
        labels: classes, which choose the colours.
        texts: what to write at each box; may be empty.
    """
    canvas = image.copy()
    pen = ImageDraw.Draw(canvas)
    side = min(canvas.size)
    line = line_width(canvas.size)
    font = ImageFont.load_default(size=max(10, round(side / 32)))
    rows = list(zip(boxes, labels, texts, strict=True))
    for (x0, y0, x1, y1), label, _ in reversed(rows):
        # Corners lie between pixels: the last pixel of a box ends where the box does.
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=class_colour(label), width=line)
    written: list[tuple[float, float, float, float]] = []
    for box, label, text in rows:
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        plate = _plate(canvas.size, box, right - left + 4, bottom - top + 4)
        if not text or any(_overlap(plate, other) for other in written):
            continue
        written.append(plate)
        colour = class_colour(label)
        pen.rectangle(plate, fill=colour)
        bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
        pen.text((plate[0] + 2 - left, plate[1] + 2 - top), text, fill="black" if bright else "white", font=font)
    return canvas


def _plate(
    size: tuple[int, int], box: Sequence[float], width: float, height: float
) -> tuple[float, float, float, float]:
    """Where a text goes: above its box or, at the top edge, below it; corners, in an image of (width, height)."""
    x = max(0.0, min(box[0], size[0] - width))
    y = box[1] - height
    if y < 0:
        # No room above: below the box, which leaves a small object in view; a box that fills the height has it inside.
        y = box[3] if box[3] + height <= size[1] else max(0.0, box[1])
    return x, y, x + width, y + height


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
