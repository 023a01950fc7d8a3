"""Decoding pictures with Pillow: whatever the file holds, upright 8-bit RGB comes out."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from msad_cli.structures.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})


def read_image(path: Path) -> Image.Image:
    """The picture as RGB, turned as its EXIF orientation says; the first frame of an animation.

    Raises:
        DataError: the file is missing, empty, no image, truncated, or its header claims too many pixels.
    """
    try:
        with warnings.catch_warnings():
            # What Pillow only warns of does not matter: damaged metadata, and sizes that still fit in memory.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                picture = _eight_bit_rgb(ImageOps.exif_transpose(image))
        # What the file said of itself (compression, profile) would be written with a copy, where it may not fit.
        picture.info = {}
        return picture
    except FileNotFoundError:
        raise DataError(f"no such image: {path}") from None
    except UnidentifiedImageError:
        found = "an empty file" if path.stat().st_size == 0 else "no image format that Pillow knows"
        raise DataError(f"{path}: {found}", "replace the file, or take it out of the set") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: {error}", "take it out of the set, or store it smaller") from None
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        # Pillow's decoders answer damaged data with any of these.
        raise DataError(f"{path}: cannot be decoded ({error})", "replace the file, or take it out of the set") from None


def _white(largest: float, mode: str) -> float:
    """The grey value that stands for white in a picture with this largest one."""
    if mode == "F" and largest <= 1:
        return 1.0  # the usual range of floats
    return 255.0 if largest <= 255 else max(65535.0, largest)


def _eight_bit_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        # convert("RGB") clips these at 255, which turns a 16-bit picture white.
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
        scale = 255.0 / _white(float(values.max(initial=0)), image.mode)
        image = Image.fromarray((values.clip(min=0) * scale).round().astype(np.uint8))
    if image.has_transparency_data:
        # What is transparent is shown on white, as viewers do; plain conversion would uncover arbitrary colours.
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
