"""Files deeper than 8 bits, of more bands and of more pages, drawn byte by byte: Pillow writes hardly any of them."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint16] | NDArray[np.uint8] | NDArray[np.float32] | NDArray[np.int16]


def write_png(file: Path, pixels: NDArray[np.uint16]) -> None:
    """A PNG of 16 bits: (H, W) is grey, (H, W, bands) grey and alpha, RGB, or RGB and alpha."""
    bands = 1 if pixels.ndim == 2 else pixels.shape[2]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[bands]
    height, width = pixels.shape[:2]
    rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    filtered = np.hstack([np.zeros((height, 1), np.uint8), rows]).tobytes()

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(filtered)), (b"IEND", b"")]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in parts))


def write_tiff(
    file: Path,
    pages: Sequence[Pixels],
    extra: Sequence[int] = (),
    order: str = "<",
    subfiles: Sequence[int] = (),
    orientation: int = 1,
) -> None:
    """An uncompressed TIFF: (H, W) is grey, (H, W, bands) RGB with bands beyond.

    Args:
        extra: what the bands beyond are: 0 for nothing that is said, 2 for alpha.
        order: `<` or `>`, of bytes.
        subfiles: of each page, bits of what it is; 1 for a thumbnail.
    """
    data = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    for number, pixels in enumerate(pages):
        height, width = pixels.shape[:2]
        bands = 1 if pixels.ndim == 2 else pixels.shape[2]
        size = pixels.dtype.itemsize
        content = pixels.astype(pixels.dtype.newbyteorder("<" if order == "<" else ">")).tobytes()
        kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
        tags: list[tuple[int, int, Sequence[int]]] = [
            (254, 4, [subfiles[number] if subfiles else 0]),
            (256, 4, [width]),
            (257, 4, [height]),
            (258, 3, [8 * size] * bands),
            (259, 3, [1]),
            (262, 3, [1 if bands == 1 else 2]),
            (273, 4, [0]),
            (274, 3, [orientation]),
            (277, 3, [bands]),
            (278, 4, [height]),
            (279, 4, [len(content)]),
            *([(338, 3, list(extra))] if extra else []),
            (339, 3, [kind] * bands),
        ]
        start = len(data)
        beyond = start + 2 + 12 * len(tags) + 4
        entries, values = b"", b""
        for tag, form, numbers in tags:
            if tag == 273:
                numbers = [0]  # noqa: PLW2901  # filled in below, when it is known
            packed = struct.pack(f"{order}{len(numbers)}{'I' if form == 4 else 'H'}", *numbers)
            if len(packed) > 4:
                entries += struct.pack(order + "HHII", tag, form, len(numbers), beyond + len(values))
                values += packed + b"\0" * (len(packed) % 2)
            else:
                entries += struct.pack(order + "HHI", tag, form, len(numbers)) + packed.ljust(4, b"\0")
        at = beyond + len(values)
        place = 12 * [tag for tag, _, _ in tags].index(273) + 8
        entries = entries[:place] + struct.pack(order + "I", at) + entries[place + 4 :]
        after = at + len(content) + len(content) % 2
        following = after if number + 1 < len(pages) else 0
        data += struct.pack(order + "H", len(tags)) + entries + struct.pack(order + "I", following)
        data += values + content + b"\0" * (len(content) % 2)
    file.write_bytes(data)


def write_ppm(file: Path, pixels: NDArray[np.uint16]) -> None:
    """A PPM (H, W, 3) or PGM (H, W) of 16 bits."""
    height, width = pixels.shape[:2]
    kind = "P5" if pixels.ndim == 2 else "P6"
    file.write_bytes(f"{kind} {width} {height} 65535\n".encode() + pixels.astype(">u2").tobytes())
