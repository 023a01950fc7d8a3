"""Boxes and labels on pictures."""

import colorsys
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

GOLDEN_ANGLE = 0.618034
"""Hues spaced by the golden ratio stay apart however many classes there are."""

Colour = tuple[int, int, int]


def class_colour(label: int) -> Colour:
    """A colour for a class, the same in every picture."""
    red, green, blue = colorsys.hsv_to_rgb(label * GOLDEN_ANGLE % 1.0, 0.75, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_boxes(
    image: Image.Image, boxes: Sequence[Sequence[float]], labels: Sequence[int], texts: Sequence[str]
) -> Image.Image:
    """A copy of an RGB picture with boxes and their texts.

    Args:
        boxes: corners x0, y0, x1, y1 in pixels of `image`, best first; the best is drawn last, on top.
        labels: classes, which choose the colours.
        texts: what to write at each box.
    """
    canvas = image.copy()
    pen = ImageDraw.Draw(canvas)
    side = min(canvas.size)
    line = max(1, round(side / 250))
    font = ImageFont.load_default(size=max(10, round(side / 32)))
    rows = list(zip(boxes, labels, texts, strict=True))
    for (x0, y0, x1, y1), label, _ in reversed(rows):
        # Corners lie between pixels: the last pixel of a box ends where the box does.
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=class_colour(label), width=line)
    for box, label, text in reversed(rows):
        _write(pen, canvas.size, box, class_colour(label), text, font)
    return canvas


def _write(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    box: Sequence[float],
    colour: Colour,
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """A text on a plate of the class's colour, above its box or, at the top edge, below it."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    x = max(0.0, min(box[0], size[0] - width))
    y = box[1] - height
    if y < 0:
        # No room above: below the box, which leaves a small object in view; a box that fills the height has it inside.
        y = box[3] if box[3] + height <= size[1] else max(0.0, box[1])
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
    pen.text((x + 2 - left, y + 2 - top), text, fill="black" if bright else "white", font=font)
