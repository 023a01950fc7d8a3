"""Images that are decoded no larger than their views need."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from msad_cli.data.images.decode import Header, read_header, read_image
from msad_cli.data.images.tones import BY_FILE, Tones

SCALES = (8, 4, 2)
"""A JPEG can be decoded at 1/s of its size, which costs less the smaller it is: its DCT is transformed back in part."""

MARGIN = 1.5
"""How many times a view's sides those of the decoded image are at least. A DCT that is cut off blurs and rings at its
finest, which the resize takes away where there are pixels left to filter. Of images of 960 × 540 pixels, views of
228 × 128 differ from those of the whole image by 1.5 of 255 on average if they come from 1/4 of its size, by 0.4 if
they come from 1/2 (benchmarks/decode.py, with --margin 1 and without)."""

FROM_RIGHT, FROM_BOTTOM = (2, 3, 6, 7), (3, 4, 7, 8)
"""EXIF orientations that bring the file's right or bottom edge to the upright image's left, and to its top."""


def scale_for(header: Header, size: tuple[int, int]) -> int:
    """The scale, 1/s, at which an image is decoded for a view of `size` (height, width): s."""
    sides = list(zip(header.size, size, strict=True))
    fit = (s for s in SCALES if all(whole // s >= MARGIN * side for whole, side in sides))
    return next(fit, 1) if header.scalable else 1


class ScaledImage:
    """An image whose pixels are decoded when a view asks for them, once at each scale.

    What a view gets depends on the file and on the view's size, and on no other view: a student sees in training,
    alone or beside its teacher, what it will see in prediction.

    Args:
        header: of its file.
        read: gives the upright RGB image at 1/s of its size, sides rounded up; 1 unless the file is scalable.
    """

    def __init__(self, header: Header, read: Callable[[int], Image.Image]) -> None:
        self.header = header
        self.size = header.size
        self._read = read
        self._decoded: dict[int, Image.Image] = {}

    def at(self, scale: int) -> Image.Image:
        """The image at 1/scale of its size."""
        if scale not in self._decoded:
            self._decoded[scale] = self._read(scale)
        return self._decoded[scale]

    def resized(self, size: tuple[int, int], mirrored: bool = False, shift: tuple[float, float] = (0.0, 0.0)) -> Tensor:
        """The image, mirrored or not, by an antialiased bilinear resize to `size` (height, width): uint8 (3, *size).

        Torch computes it in integers, alike with and without vector instructions; of Pillow's it differs by 1 at most.
        Torch's knows no shift: then it is Pillow's, in integers too.

        Args:
            shift: by how many pixels of the result what it shows is moved, down and across. What comes in at the other
                side repeats the image's edge.
        """
        if any(shift):
            return self._moved(size, mirrored, shift)
        scale = scale_for(self.header, size)
        pixels = torch.from_numpy(np.array(self.at(scale))).unsqueeze(0).permute(0, 3, 1, 2)
        # The file's last row and column may stand for less than a whole one: they are brought to the end, where a
        # resize by a factor leaves out the rest of them.
        turned = {axis for axis, ends in ((2, FROM_BOTTOM), (3, FROM_RIGHT)) if self.header.orientation in ends}
        turned = turned if scale > 1 else set()
        # Rounded up: the product of side and factor is rounded down.
        factors = [math.nextafter(scale * side / whole, math.inf) for side, whole in zip(size, self.size, strict=True)]
        found = F.interpolate(_flipped(pixels, turned), scale_factor=factors, mode="bilinear", antialias=True)
        return _flipped(found[..., : size[0], : size[1]], turned ^ {3} if mirrored else turned)[0]

    def _moved(self, size: tuple[int, int], mirrored: bool, shift: tuple[float, float]) -> Tensor:
        scale = scale_for(self.header, size)
        image = self.at(scale)
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image
        # As Pillow has it: across, then down.
        starts, ends, before, after = [], [], [], []
        for axis, turned in ((1, FROM_RIGHT), (0, FROM_BOTTOM)):
            whole, there = self.size[axis] / scale, image.size[1 - axis]
            # A row or column that stands for less than a whole one may lie first: its rest is outside of the image.
            first = (self.header.orientation in turned) != (mirrored and axis == 1)
            start = (there - whole if first else 0.0) - shift[axis] * whole / size[axis]
            before.append(max(0, math.ceil(-start)))
            after.append(max(0, math.ceil(start + whole - there)))
            starts.append(start + before[-1])
            ends.append(starts[-1] + whole)
        padded = _padded(image, before, after)
        found = padded.resize(size[::-1], Image.Resampling.BILINEAR, box=(starts[0], starts[1], ends[0], ends[1]))
        return torch.from_numpy(np.array(found)).permute(2, 0, 1)


def _padded(image: Image.Image, before: Sequence[int], after: Sequence[int]) -> Image.Image:
    """An image with so many columns and rows more at its left and top, and at its right and bottom: its edges'."""
    (left, top), (right, bottom), (width, height) = before, after, image.size
    whole = Image.new("RGB", (left + width + right, top + height + bottom))
    whole.paste(image, (left, top))
    for first, count, edge in ((0, left, left), (left + width, right, left + width - 1)):
        if count:
            column = whole.crop((edge, 0, edge + 1, whole.height))
            whole.paste(column.resize((count, whole.height)), (first, 0))
    for first, count, edge in ((0, top, top), (top + height, bottom, top + height - 1)):
        if count:
            row = whole.crop((0, edge, whole.width, edge + 1))
            whole.paste(row.resize((whole.width, count)), (0, first))
    return whole


def _flipped(pixels: Tensor, axes: set[int]) -> Tensor:
    return pixels.flip(tuple(axes)) if axes else pixels


def open_image(path: Path, tones: Tones = BY_FILE) -> ScaledImage:
    """The image of a file, of which the header is read so far.

    Args:
        tones: by which one of more than 8 bits becomes one of 8.

    Raises:
        DataError: as `read_image`, which may find more that is wrong when pixels are asked for.
    """
    header = read_header(path)
    if header.scalable:
        return ScaledImage(header, lambda scale: read_image(path, scale))
    return whole_image(read_image(path, tones=tones))


def whole_image(image: Image.Image) -> ScaledImage:
    """The image that an upright RGB image is."""
    return ScaledImage(Header((image.height, image.width), 1, False), lambda _: image)
