"""Augmentation: what is drawn at random for a sample of training. What is done with it is transforms.py's."""

import random
from dataclasses import dataclass, replace

from torch import Tensor
from torchvision.transforms.v2 import functional as v2f

from msad_cli.data.loading.mirroring import MIRRORED
from msad_cli.data.loading.transforms import Part, Placement, turned
from msad_cli.frame import SIDE_MULTIPLE, Resolution

JITTER = (0.8, 0.84, 0.88, 0.92, 0.96, 1.0)
"""Factors α on the short side: 640…800 for 800, as in the official code."""
TILE_SCALES = tuple(tenths / 10 for tenths in range(5, 16))
"""By which one is the image of a tile of a mosaic scaled, and one that is blended in. Their mean is 1: most of the
objects of training have the sizes that they have in images as they are."""
ZOOMS = 20
"""So many factors, evenly spaced, can be drawn: of numbers that are known before, decoded images can be kept."""
CLOSED = 4
"""The last of so many parts of a run, rounded up to epochs, is without mosaics and blends: it shows images as they are.
Measured, see docs/results.md."""

BRIGHTNESS, CONTRAST, SATURATION, HUE = (0.875, 1.125), (0.5, 1.5), (0.5, 1.5), (-0.05, 0.05)
"""Between which numbers are factors drawn (of the hue a summand, in turns of the colour circle), each for half of the
images that are distorted. As in torchvision's RandomPhotometricDistort (SSD, arXiv:1512.02325), which however permutes
the channels too: colours tell classes of cells, lights and signs apart."""


@dataclass(frozen=True)
class Photo:
    """A photometric distortion; the usual values change nothing."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    contrast_first: bool = True

    def __call__(self, pixels: Tensor) -> Tensor:
        """An image (3, h, w), uint8, distorted."""
        if self.brightness != 1:
            pixels = v2f.adjust_brightness(pixels, self.brightness)
        if self.contrast != 1 and self.contrast_first:
            pixels = v2f.adjust_contrast(pixels, self.contrast)
        if self.saturation != 1:
            pixels = v2f.adjust_saturation(pixels, self.saturation)
        if self.hue:
            pixels = v2f.adjust_hue(pixels, self.hue)
        if self.contrast != 1 and not self.contrast_first:
            pixels = v2f.adjust_contrast(pixels, self.contrast)
        return pixels


@dataclass(frozen=True)
class Augmentation:
    """What is drawn for a sample, and how likely.

    Everything is drawn from the sample's own source. The mirror and the jitter are drawn first, so that they are the
    same whatever else is asked for.

    Attributes:
        jitter: whether the short side of the frame is scaled by a random α.
        fliplr, flipud: how likely left and right, and top and bottom, change places.
        turn: how likely the image is turned: by 90, 180 or 270°, one as likely as another.
        zoom: least and largest factor by which the image is scaled in a frame that stays: a part of it is shown, or all
            of it with grey around. None for none.
        photo: how likely brightness, contrast, saturation and hue are changed.
        mosaic: how likely a frame shows four images, the other three drawn from the whole set.
        mixup: how likely another image, drawn from the whole set, is blended into the frame, with its objects (Zhang et
            al., arXiv:1710.09412; for detection as in YOLOX, arXiv:2107.08430).
        mixed_epochs: the first so many have mosaics and blends; None for all.
    """

    jitter: bool = True
    fliplr: float = MIRRORED
    flipud: float = 0.0
    turn: float = 0.0
    zoom: tuple[float, float] | None = None
    photo: float = 0.0
    mosaic: float = 0.0
    mixup: float = 0.0
    mixed_epochs: int | None = None

    def unmirrored(self) -> "Augmentation":
        """The same without mirrors."""
        return replace(self, fliplr=0.0, flipud=0.0)

    def for_run(self, epochs: int) -> "Augmentation":
        """The same without mosaics and blends in the last of so many epochs."""
        return replace(self, mixed_epochs=epochs - -(-epochs // CLOSED))

    @property
    def zooms(self) -> tuple[float, ...]:
        """The factors that can be drawn."""
        low, high = self.zoom or (1.0, 1.0)
        return tuple(low + (high - low) * place / (ZOOMS - 1) for place in range(ZOOMS)) if low < high else (low,)

    def whole(self, original: tuple[int, int], resolution: Resolution, draw: random.Random) -> Placement:
        """How an image of (height, width) pixels is shown in a frame of its own, of a size drawn from `resolution`."""
        mirrored = draw.random() < self.fliplr
        frame = resolution.frame_size(*original, scale=draw.choice(JITTER) if self.jitter else 1.0)
        upended, turns = draw.random() < self.flipud, self._draw_turns(draw)
        frame = turned(frame, turns)
        if self.zoom is None:
            return Placement.filling(original, frame, mirrored, upended, turns)
        size = _zoomed(frame, draw.choice(self.zooms))
        corner, tile = _corner(size, (0, 0, *frame), draw), (0, 0, *frame)
        return Placement(original, frame, mirrored, upended, turns, size, corner, tile)

    def in_tile(
        self,
        original: tuple[int, int],
        resolution: Resolution,
        frame_size: tuple[int, int],
        tile: Part,
        draw: random.Random,
    ) -> Placement:
        """How an image of (height, width) pixels is shown in a part of another's frame."""
        mirrored, upended, turns = draw.random() < self.fliplr, draw.random() < self.flipud, self._draw_turns(draw)
        size = _zoomed(turned(resolution.frame_size(*original), turns), draw.choice(TILE_SCALES))
        corner = _corner(size, tile, draw)
        return Placement(original, frame_size, mirrored, upended, turns, size, corner, tile)

    def draw_mosaic(self, epoch: int, draw: random.Random) -> bool:
        """Whether a sample of this epoch, from 0, is a mosaic."""
        return draw.random() < self.mosaic and self._mixes(epoch)

    def draw_mixup(self, epoch: int, draw: random.Random) -> bool:
        """Whether another image is blended into a sample of this epoch, from 0."""
        return draw.random() < self.mixup and self._mixes(epoch)

    def _mixes(self, epoch: int) -> bool:
        return self.mixed_epochs is None or epoch < self.mixed_epochs

    def draw_photo(self, draw: random.Random) -> Photo:
        """How a sample is distorted."""
        if draw.random() >= self.photo:
            return Photo()

        def number(span: tuple[float, float], usual: float) -> float:
            drawn = draw.uniform(*span)
            return drawn if draw.random() < 0.5 else usual

        brightness, contrast = number(BRIGHTNESS, 1.0), number(CONTRAST, 1.0)
        return Photo(brightness, contrast, number(SATURATION, 1.0), number(HUE, 0.0), draw.random() < 0.5)

    def sizes(self, height: int, width: int, resolution: Resolution) -> set[tuple[int, int]]:
        """To which (height, width) an image of so many pixels can be scaled, before it is turned; in HR pixels."""
        alphas = JITTER if self.jitter else (1.0,)
        frames = {resolution.frame_size(height, width, alpha) for alpha in alphas}
        sizes = {_zoomed(frame, factor) for frame in frames for factor in self.zooms} if self.zoom else frames
        if self.mosaic or self.mixup:
            whole = resolution.frame_size(height, width)
            sizes = sizes | {_zoomed(whole, factor) for factor in TILE_SCALES}
        return sizes

    def _draw_turns(self, draw: random.Random) -> int:
        return draw.randint(1, 3) if draw.random() < self.turn else 0


ONE_SCALE = Augmentation(jitter=False)
LEVELS = {
    "off": replace(ONE_SCALE, fliplr=0.0),
    "light": Augmentation(),
    "strong": Augmentation(jitter=False, zoom=(0.1, 2.0), photo=0.5, mosaic=0.5),
}
"""What `--augment` means. Strong's zoom is the large scale jitter of Copy-Paste (arXiv:2012.07177)."""


def tiles(frame_size: tuple[int, int], draw: random.Random) -> tuple[Part, Part, Part, Part]:
    """The four tiles of a mosaic; where they meet lies in the middle half of the frame, at multiples of 4."""
    height, width = frame_size
    y, x = (SIDE_MULTIPLE * _between(side // SIDE_MULTIPLE, draw) for side in frame_size)
    return (0, 0, y, x), (0, x, y, width), (y, 0, height, x), (y, x, height, width)


def _between(count: int, draw: random.Random) -> int:
    return draw.randint(count // 4, count - count // 4)


def _zoomed(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """(height, width) scaled, in multiples of 4."""
    height, width = (max(SIDE_MULTIPLE, round(side * factor / SIDE_MULTIPLE) * SIDE_MULTIPLE) for side in size)
    return height, width


def _corner(size: tuple[int, int], tile: Part, draw: random.Random) -> tuple[int, int]:
    """Where the corner of an image of this size comes: one smaller than its tile lies in it, a larger one fills it."""
    down, across = (
        start + SIDE_MULTIPLE * draw.randint(*sorted((0, (end - start - side) // SIDE_MULTIPLE)))
        for start, end, side in zip(tile[:2], tile[2:], size, strict=True)
    )
    return down, across
