"""Pictures that are decoded no larger than their views need."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from msad_cli.data.images import Header, read_header, read_image

SCALES = (8, 4, 2)
"""A JPEG can be decoded at 1/s of its size, which costs less the smaller it is: its DCT is transformed back in part."""

MARGIN = 1.5
"""How many times a view's sides those of the decoded picture are at least. A DCT that is cut off blurs and rings at its
finest, which the resize takes away where there are pixels left to filter. Of pictures of 960 × 540 pixels, views of
228 × 128 differ from those of the whole picture by 1.5 of 255 on average if they come from 1/4 of its size, by 0.4 if
they come from 1/2 (benchmarks/decode.py, with --margin 1 and without)."""

FROM_RIGHT, FROM_BOTTOM = (2, 3, 6, 7), (3, 4, 7, 8)
"""EXIF orientations that bring the file's right or bottom edge to the upright picture's left, and to its top."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def scale_for(header: Header, size: tuple[int, int]) -> int:
    """The scale, 1/s, at which a picture is decoded for a view of `size` (height, width): s."""
    sides = list(zip(header.size, size, strict=True))
    fit = (s for s in SCALES if all(whole // s >= MARGIN * side for whole, side in sides))
    return next(fit, 1) if header.scalable else 1


class Picture:
    """A picture whose pixels are decoded when a view asks for them, once at each scale.

    What a view gets depends on the file and on the view's size, and on no other view: a student sees in training,
    alone or beside its teacher, what it will see in prediction.

    Args:
        header: of its file.
        read: gives the upright RGB picture at 1/s of its size, sides rounded up; 1 unless the file is scalable.
    """

    def __init__(self, header: Header, read: Callable[[int], Image.Image]) -> None:
        self.header = header
        self.size = header.size
        self._read = read
        self._decoded: dict[int, Image.Image] = {}

    def at(self, scale: int) -> Image.Image:
        """The picture at 1/scale of its size."""
        if scale not in self._decoded:
            self._decoded[scale] = self._read(scale)
        return self._decoded[scale]

    def resized(self, size: tuple[int, int], mirrored: bool = False) -> Image.Image:
        """The picture, mirrored or not, by an antialiased bilinear resize to `size` (height, width)."""
        scale = scale_for(self.header, size)
        image, box = self.at(scale), self._box(scale)
        if mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            box = (image.width - box[2], box[1], image.width - box[0], box[3])
        return image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)

    def _box(self, scale: int) -> Box:
        """Where the picture lies in its decoded pixels: the file's last column and row may stand for less than one."""
        height, width = (side / scale for side in self.size)
        image = self.at(scale)
        left = image.width - width if self.header.orientation in FROM_RIGHT else 0
        top = image.height - height if self.header.orientation in FROM_BOTTOM else 0
        return left, top, left + width, top + height


def open_picture(path: Path) -> Picture:
    """The picture of a file, of which the header is read so far.

    Raises:
        DataError: as `read_image`, which may find more that is wrong when pixels are asked for.
    """
    header = read_header(path)
    if header.scalable:
        return Picture(header, lambda scale: read_image(path, scale))
    return whole_picture(read_image(path))


def whole_picture(image: Image.Image) -> Picture:
    """The picture that an upright RGB image is."""
    return Picture(Header((image.height, image.width), 1, False), lambda _: image)
