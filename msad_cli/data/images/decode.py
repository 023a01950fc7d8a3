"""Decoding images with Pillow: whatever the file holds, upright 8-bit RGB comes out."""

import math
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError, features
from PIL.JpegImagePlugin import JpegImageFile

from msad_cli.data.images.contents import (
    GREY_ALPHA,
    OTHER_BYTE,
    decode_as,
    eight_bits,
    is_deep,
    is_grey_and_deep,
    more_pages,
    raw_mode,
    unread_bands,
)
from msad_cli.data.images.tones import BY_FILE, Tones
from msad_cli.errors import DataError

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k"),
}
OPTIONAL = {"AVIF": "avif", "JPEG2000": "jpg_2000"}
"""Formats that not every Pillow was built with."""
FORMATS = tuple(each for each in SUFFIXES if each not in OPTIONAL or features.check(OPTIONAL[each]))
"""What is tried on a file, whatever its name is. Pillow knows more, some of which it hands to Ghostscript."""
IMAGE_SUFFIXES = frozenset(suffix for each in FORMATS for suffix in SUFFIXES[each])

WIDTH, HEIGHT, TILE_WIDTH, TILE_LENGTH = 256, 257, 322, 323
"""Tags of TIFF."""

TURNS: dict[Any, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings an image upright, by EXIF orientation. ImageOps.exif_transpose writes EXIF anew, which may fail."""
QUARTER_TURNS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
MOST_PIXELS = 178_956_970
"""Of an image unless somebody says otherwise: as Pillow itself has it."""
LONGEST_EXIF = 2**16
"""Bytes, JPEG's limit."""

TOLERATED = 0.01
"""The share of a split's images that may be unreadable."""
REPLACE = "replace the file, or take it out of the set"


def limit_pixels(most: int, _worker: int = 0) -> None:
    """Has this process refuse images of more pixels than `most`, before any memory is taken for them.

    `functools.partial(limit_pixels, most_pixels())` as a loader's `worker_init_fn` hands the limit on to its workers.
    """
    scoped.most = most


def most_pixels() -> int:
    """Pixels of the largest image that this process reads; what Pillow takes unless `limit_pixels` was called."""
    return scoped.most


def read_image(path: Path, scale: int = 1, tones: Tones = BY_FILE) -> Image.Image:
    """The image as RGB, turned as its EXIF orientation says; the first frame of an animation.

    Args:
        scale: 2, 4 or 8 has a JPEG decoded at 1/scale of its size, sides being rounded up; see `Header.scalable`.
        tones: by which one of more than 8 bits becomes one of 8.

    Raises:
        DataError: the file is missing, empty, no image, truncated, or its header claims too many pixels.
    """
    if tones.are_set and (deep := read_values(path)) is not None:
        return eight_bits(*deep, tones.black, tones.white)
    with _opened(path) as image:
        if scale > 1:
            image.draft(None, (max(1, image.width // scale), max(1, image.height // scale)))
        upright = eight_bit_rgb(_upright(image))
    # What the file said of itself (compression, profile) would be written with a copy, where it may not fit.
    upright.info = {}
    return upright


def read_values(path: Path) -> tuple[NDArray[Any], str] | None:
    """The values of an image of more than 8 bits, upright, (H, W) or (H, W, bands), and Pillow's mode of the bands.

    None for an image of 8 bits.

    Raises:
        DataError: as `read_image`.
    """
    with _opened(path) as image:
        if is_grey_and_deep(image):
            return np.asarray(_upright(image)), "L"
        if not is_deep(image):
            return None
        mode, raw = image.mode, raw_mode(image)
        if raw == GREY_ALPHA:
            decode_as(image, "RGBA")
            four = np.asarray(_upright(image)).astype(np.uint16)
            return four[..., ::2] << 8 | four[..., 1::2], mode
        decode_as(image, raw)
        high = np.asarray(_upright(image)).astype(np.uint16)
    with _opened(path) as image:
        decode_as(image, OTHER_BYTE[raw])
        return high << 8 | np.asarray(_upright(image)), mode


def _upright(image: Image.Image) -> Image.Image:
    """An open image with its pixels, turned as EXIF says."""
    image.load()
    turn = TURNS.get(_orientation(image.getexif))
    return image if turn is None else image.transpose(turn)


@dataclass(frozen=True)
class Header:
    """What an image's file says of itself.

    Attributes:
        size: height and width in pixels of the image that `read_image` gives.
        orientation: EXIF's, by which that is turned already; 1 where it is upright in the file.
        scalable: whether `read_image` can decode it downsampled: it is a JPEG.
        deep: whether it has more than 8 bits a value.
        paged: whether it holds more images, of which the first is read.
        unread: how many of its bands are neither read nor alpha.
    """

    size: tuple[int, int]
    orientation: int
    scalable: bool
    deep: bool = False
    paged: bool = False
    unread: int = 0

    @property
    def swapped(self) -> bool:
        """Whether EXIF swaps the sides that the file states."""
        return self.orientation in QUARTER_TURNS


def read_header(path: Path) -> Header:
    """The header of an image's file, whose pixels are not read.

    Raises:
        DataError: the file is missing, empty, no image, or its header claims too many pixels.
    """
    with _opened(path) as image:
        # Of a TIFF, Pillow has turned the size already.
        tags = getattr(image, "tag_v2", {})
        width, height = tags.get(WIDTH, image.width), tags.get(HEIGHT, image.height)
        # Pillow decodes a PNG to look for EXIF behind its pixels, where few programs write it.
        early = image.format == "PNG" and not any(name in _end(path) for name in (b"eXIf", b"iTXt", b"zTXt", b"tEXt"))
        found = _orientation(partial(Image.Image.getexif, image) if early else image.getexif)
        orientation = next((each for each in TURNS if each == found), 1)
        scalable, deep = isinstance(image, JpegImageFile), is_deep(image)
        unread, paged = unread_bands(image), more_pages(image)
    size = (width, height) if orientation in QUARTER_TURNS else (height, width)
    return Header(size, orientation, scalable, deep, paged, unread)


def _orientation(read: Callable[[], Image.Exif]) -> Any:
    """EXIF's tag 274, whatever it holds."""
    try:
        return read().get(ExifTags.Base.Orientation, 1)
    except Exception:
        # Pillow raises, for damaged EXIF, errors of almost any class. It says nothing of the pixels.
        return 1


def _end(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LONGEST_EXIF))
        return file.read()


class PillowScope:
    """Pillow with msad's limit of pixels and without warnings, as long as any thread is inside; as it was afterwards.

    What Pillow only warns of does not matter, such as damaged metadata. Its limit and the filters of warnings belong to
    the process: a program that imports msad finds its own again. Threads that each set and restored them would undo
    each other's, so they are counted.

    Attributes:
        most: pixels of the largest image that is read.
    """

    def __init__(self) -> None:
        self.most = MOST_PIXELS
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._outside = warnings.catch_warnings()
                self._outside.__enter__()
                warnings.simplefilter("ignore")
                self._limit = Image.MAX_IMAGE_PIXELS
                # Pillow refuses more than twice as many.
                Image.MAX_IMAGE_PIXELS = (self.most + 1) // 2
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                Image.MAX_IMAGE_PIXELS = self._limit
                self._outside.__exit__(None, None, None)


scoped = PillowScope()


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The open file, for as long as the context lives; what Pillow says of damaged ones becomes a `DataError`."""
    try:
        # Opening a pipe would wait for a writer.
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: not a file", REPLACE, code="not-a-file")
        with scoped, Image.open(path, formats=FORMATS) as image:
            _refuse_vast(image)
            yield image
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"no such image: {path}", code="image-missing") from None
    except UnidentifiedImageError:
        found = f"no image that msad knows ({', '.join(FORMATS)})" if path.stat().st_size else "an empty file"
        raise DataError(f"{path}: {found}", REPLACE, code="image-unreadable") from None
    except Image.DecompressionBombError as error:
        claim = str(error).split(",")[0]
        raise DataError(
            f"{path}: {claim}; --max-pixels raises the limit",
            "take it out of the set, or store it smaller",
            code="image-too-large",
        ) from None
    except Exception as error:
        # Pillow's decoders raise, for damaged data, errors of almost any class.
        raise DataError(
            f"{path}: cannot be decoded ({error or type(error).__name__})", REPLACE, code="image-unreadable"
        ) from error


def _refuse_vast(image: Image.Image) -> None:
    # Pillow's own check of an image's size knows even limits alone. And libtiff takes memory for whole tiles, which may
    # be larger than the image.
    tags = getattr(image, "tag_v2", {})
    sides = [tags.get(tag, 1) for tag in (TILE_WIDTH, TILE_LENGTH)]
    if not all(isinstance(each, int) for each in sides):
        raise ValueError("its tiles have no size")
    for what, pixels in (("Image", math.prod(image.size)), ("Tile", math.prod(sides))):
        if pixels > most_pixels():
            raise Image.DecompressionBombError(f"{what} size ({pixels} pixels) exceeds limit of {most_pixels()} pixels")


def _white(largest: float, mode: str) -> float:
    """The grey value that stands for white in an image with this largest one."""
    if mode == "F" and largest <= 1:
        return 1.0  # the usual range of floats
    return 255.0 if largest <= 255 else max(65535.0, largest)


def eight_bit_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB: 16 bits scaled to 8, what is transparent on white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        # convert("RGB") clips these at 255, which turns a 16-bit image white.
        values = np.asarray(image).astype(np.float32)
        np.nan_to_num(values, copy=False, posinf=0.0, neginf=0.0)
        values *= 255.0 / _white(float(values.max(initial=0)), image.mode)
        image = Image.fromarray(values.clip(0, 255, out=values).round(out=values).astype(np.uint8))
    if image.has_transparency_data:
        # What is transparent is shown on white, as viewers do; plain conversion would uncover arbitrary colours.
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
