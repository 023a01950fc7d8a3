"""What a file holds beyond 8-bit RGB: deeper values, more pages, more bands."""

import sys
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SUBFILE, PHOTOMETRIC, SAMPLES, EXTRA_SAMPLES = 254, 262, 277, 338
"""Tags of TIFF."""
REDUCED_OR_MASK = 1 | 4
"""Bits of a page's kind: a smaller copy of another page, or which of its pixels are there."""
MOST_PAGES = 16
"""Pages that are looked through for one that is an image of its own."""
COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}
"""Bands of a colour by TIFF's photometric interpretation: grey, RGB, palette, CMYK, YCbCr, Lab."""
ALPHA = (1, 2)
"""What TIFF calls a band beyond the colours that is alpha."""
PAGED = ("TIFF", "GIF", "WEBP", "PNG", "AVIF")
LARGEST_BYTE = 255

NATIVE_OTHER = "B" if sys.byteorder == "little" else "L"
OTHER_BYTE = {f"{of};16B": f"{of};16L" for of in ("RGB", "RGBA", "RGBX", "CMYK")}
OTHER_BYTE |= {low: high for high, low in OTHER_BYTE.items()}
OTHER_BYTE |= {f"{of};16N": f"{of};16{NATIVE_OTHER}" for of in ("RGB", "RGBA", "RGBX", "CMYK")}
"""Of values of 16 bits Pillow takes the high byte. Each of its orders is here with the one that gives the low byte: B
begins with the high one, L with the low one, N is the machine's own."""
GREY_ALPHA = "LA;16B"
"""Of PNG: read as four bytes a pixel, the high and the low one of each."""


def is_grey_and_deep(image: Image.Image) -> bool:
    """Whether an image has one band of more than 8 bits, or of floating-point numbers."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def is_deep(image: Image.Image) -> bool:
    """Whether an open file has more than 8 bits a value."""
    return is_grey_and_deep(image) or raw_mode(image) in (*OTHER_BYTE, GREY_ALPHA)


def raw_mode(image: Image.Image) -> str:
    """How Pillow calls the bytes of an open file's pixels; empty where it has no word for them."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    if (tiles[0].codec_name, tiles[0].args) == ("ppm", ("RGB", 65535)):
        return "RGB;16B"
    first = tiles[0].args[0] if isinstance(tiles[0].args, tuple) and tiles[0].args else tiles[0].args
    return first if isinstance(first, str) else ""


def decode_as(image: Any, mode: str) -> None:
    """Has an open file decode its bytes as of another raw mode, which has as many of them a pixel."""
    if mode == "RGBA":
        image._mode = mode  # the only way to have Pillow decode these bytes

    def other(tile: Any) -> Any:
        codec = "raw" if tile.codec_name == "ppm" else tile.codec_name
        args = (mode, *tile.args[1:]) if isinstance(tile.args, tuple) and codec == tile.codec_name else mode
        return tile._replace(codec_name=codec, args=args)

    image.tile = [other(each) for each in image.tile]


def more_pages(image: Image.Image) -> bool:
    """Whether an open file holds more images than its first, thumbnails of it aside. It stands at another then."""
    if image.format not in PAGED:
        return False
    if image.format != "TIFF":
        return bool(getattr(image, "is_animated", False))
    with suppress(Exception):  # damaged pages: what can be read is the first
        for page in range(1, MOST_PAGES):
            image.seek(page)
            if not int(image.tag_v2.get(SUBFILE, 0)) & REDUCED_OR_MASK:  # type: ignore[attr-defined]
                return True
    return False


def unread_bands(image: Image.Image) -> int:
    """How many bands of a TIFF are neither its colours nor declared as alpha."""
    tags = getattr(image, "tag_v2", {})
    samples, kind = tags.get(SAMPLES, 1), tags.get(PHOTOMETRIC)
    extra = tags.get(EXTRA_SAMPLES, ())
    extra = extra if isinstance(extra, tuple) else (extra,)
    if kind not in COLOURS or not isinstance(samples, int):
        return 0
    return max(0, samples - COLOURS[kind] - sum(each in ALPHA for each in extra))


def eight_bits(values: NDArray[Any], mode: str, black: float, white: float) -> Image.Image:
    """Deep values as RGB: those from `black` to `white` become 0 to 255, what is transparent is shown on white.

    Args:
        values: (H, W), or (H, W, bands).
        mode: Pillow's, of the bands.
    """
    colours = values.astype(np.float32)
    np.nan_to_num(colours, copy=False, nan=black, posinf=white, neginf=black)
    colours -= black
    colours *= LARGEST_BYTE / (white - black)
    colours.clip(0, LARGEST_BYTE, out=colours)
    if mode.endswith("A"):
        alpha = values[..., -1:].astype(np.float32)
        # A camera's alpha has as many bits as its colours.
        alpha /= white if 0 < alpha.max(initial=0) <= white else 65535.0
        colours = colours[..., :-1] * alpha + LARGEST_BYTE * (1 - alpha)
    pixels = colours.round().astype(np.uint8)
    if mode == "CMYK":
        return Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes()).convert("RGB")
    return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels).convert("RGB")
