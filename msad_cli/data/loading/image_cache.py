"""Decoded images cached in memory between epochs."""

import functools
import math
import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from msad_cli.data.annotations.split import CocoSplit
from msad_cli.data.images.decode import Header, read_header, read_image
from msad_cli.data.images.scaled import SCALES, ScaledImage, open_image, scale_for
from msad_cli.data.images.split_images import THREADS
from msad_cli.errors import DataError, TrainingError

COLUMNS = {scale: column for column, scale in enumerate((1, *sorted(SCALES)))}
"""Of the table of places, by scale."""


class CachedImages:
    """The images of a split, each decoded once at each scale, by whichever process first asks for it.

    They lie in one block of bytes, in which every image has its place for every scale that its views can ask for. So
    its size is known before the run; it can be shared with loader workers, forked or spawned; and it is taken whole at
    the start, so that it does not run out in mid-run. A mark says that a place is filled. It is set and read under a
    lock: without one, a processor may show another process the mark before the pixels. Before memory is taken, as when
    the first steps are timed for the plan, images come from their files.

    Args:
        split: whose images; their headers are read.
        view_sizes: from height and width of an image to those of all views that it will be asked for.

    Attributes:
        size: bytes of the block.
    """

    def __init__(self, split: CocoSplit, view_sizes: Callable[[int, int], Iterable[tuple[int, int]]]) -> None:
        self._split = split
        with ThreadPoolExecutor(THREADS) as pool:
            headers = list(pool.map(_header, (split.path(index) for index in range(len(split)))))

        @functools.cache
        def scales(header: Header) -> set[int]:
            return {scale_for(header, size) for size in view_sizes(*header.size)}

        # Flat arrays, as the split has them: memory does not grow in loader workers.
        self._sizes = np.array([header.size for header in headers], dtype=np.int64)
        self._orientations = np.array([header.orientation for header in headers], dtype=np.int8)
        self._scalable = np.array([header.scalable for header in headers], dtype=bool)
        lengths = np.zeros((len(headers), len(COLUMNS)), dtype=np.int64)
        for index, header in enumerate(headers):
            for scale in scales(header) if all(header.size) else ():
                lengths[index, COLUMNS[scale]] = _length(_shape(header.size, scale))
        ends = lengths.cumsum().reshape(lengths.shape)
        self._starts = ends - lengths
        self.size = int(ends[-1, -1])
        self._allocated = False

    def allocate(self, shared: bool) -> None:
        """Takes the memory; `shared` if other processes are to read and fill it.

        Raises:
            TrainingError: there is not so much.
        """
        try:
            self._bytes = torch.zeros(self.size, dtype=torch.uint8)
            self._filled = torch.zeros(self._starts.shape, dtype=torch.bool)
            if shared:
                self._bytes.share_memory_()
                self._filled.share_memory_()
        except (RuntimeError, MemoryError, OSError) as error:
            raise TrainingError(
                f"--cache ram: no room for {self.size / 2**30:.1f} GiB of decoded images ({error})",
                "leave --cache away; loader processes share memory, of which a container gets more with --shm-size",
                code="image-cache-too-large",
            ) from None
        self._lock = multiprocessing.Lock()
        self._allocated = True

    def open(self, index: int) -> ScaledImage:
        """The image of this place in the split.

        Raises:
            DataError: as `open_image`.
        """
        height, width = self._sizes[index].tolist()
        if not height or not self._allocated:
            return open_image(self._split.path(index), self._split.tones)
        header = Header((height, width), int(self._orientations[index]), bool(self._scalable[index]))
        return ScaledImage(header, functools.partial(self._read, index, header.size))

    def _read(self, index: int, size: tuple[int, int], scale: int) -> Image.Image:
        place, shape = (index, COLUMNS[scale]), _shape(size, scale)
        start = int(self._starts[place])
        pixels = self._bytes[start : start + _length(shape)].numpy().reshape(shape)
        with self._lock:
            filled = bool(self._filled[place])
        if filled:
            return Image.fromarray(pixels)
        path = self._split.path(index)
        image = read_image(path, scale, self._split.tones)
        if (image.height, image.width) != shape[:2]:
            raise DataError(f"{path}: another image than when the run began", code="image-changed")
        pixels[:] = np.asarray(image)
        with self._lock:
            self._filled[place] = True
        return image


def _header(path: Path) -> Header:
    """Of an image that cannot be read, one without a size: there is nothing to cache."""
    try:
        return read_header(path)
    except DataError:
        return Header((0, 0), 1, False)


def _shape(size: tuple[int, int], scale: int) -> tuple[int, int, int]:
    """Of the pixels of an image of (height, width) at 1/scale of its size."""
    return math.ceil(size[0] / scale), math.ceil(size[1] / scale), 3


def _length(shape: tuple[int, int, int]) -> int:
    return shape[0] * shape[1] * shape[2]
