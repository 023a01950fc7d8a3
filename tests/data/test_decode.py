"""Whatever an image file holds: upright 8-bit RGB comes out, or an error that names the file."""

import functools
import io
import json
import os
import pickle
import resource
import struct
import subprocess
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps
from support.places import SHARED

from msad_cli.data.images.decode import Header, limit_pixels, most_pixels, read_header, read_image, scoped
from msad_cli.errors import DataError
from msad_cli.text import MOST_PIXELS

ROBUSTNESS = SHARED / "robustness_images"

UPRIGHT = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10  # 2 high, 3 wide, every value another
# Where a file's first row and first column lie in the upright image: EXIF 2.3, tag 274.
STORED: dict[int, NDArray[np.uint8]] = {
    1: UPRIGHT,  # top, left
    2: UPRIGHT[:, ::-1],  # top, right
    3: UPRIGHT[::-1, ::-1],  # bottom, right
    4: UPRIGHT[::-1],  # bottom, left
    5: UPRIGHT.transpose(1, 0, 2),  # left, top
    6: UPRIGHT.transpose(1, 0, 2)[::-1],  # right, top
    7: UPRIGHT.transpose(1, 0, 2)[::-1, ::-1],  # right, bottom
    8: UPRIGHT.transpose(1, 0, 2)[:, ::-1],  # left, bottom
}


def _pixels(path: Path) -> list[Any]:
    """Rows of (red, green, blue)."""
    image = read_image(path)
    assert image.mode == "RGB"
    values: list[Any] = np.asarray(image).tolist()
    return values


@pytest.mark.parametrize("orientation", STORED)
def test_images_are_turned_as_exif_says(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    file = tmp_path / "image.png"
    Image.fromarray(np.ascontiguousarray(STORED[orientation])).save(file, exif=exif)
    assert _pixels(file) == UPRIGHT.tolist()


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_the_size_is_that_of_the_upright_image(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    file = tmp_path / "image"
    Image.new("RGB", (30, 20)).save(file, kind, exif=exif)
    header = read_header(file)
    assert read_image(file).size == header.size[::-1] == ((20, 30) if orientation >= 5 else (30, 20))
    assert header.swapped == (orientation >= 5)
    assert header.scalable == (kind == "JPEG")


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0II\x01\x00\x08\0\0\0\0\0", b"Exif\0\0", b"", b"Exif\0\0MM\0*\xff\xff\xff\xff"]
)
def test_exif_that_is_none_does_not_matter(tmp_path: Path, exif: bytes) -> None:
    file = tmp_path / "image.jpg"
    Image.new("L", (2, 1), 50).save(file, exif=exif)
    assert _pixels(file) == [[[50] * 3] * 2]
    assert read_header(file) == Header((1, 2), orientation=1, scalable=True)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # 65535 is white: grey = round(value × 255 / 65535).
        (np.array([[0, 32768, 65535]], dtype=np.uint16), [0, 128, 255]),
        # 12 bits in 16 stay dark, as other viewers show them: 4095 × 255 / 65535 = 15.9.
        (np.array([[0, 2048, 4095]], dtype=np.uint16), [0, 8, 16]),
        # Nothing above 255: 8-bit values in a wider type.
        (np.array([[0, 7, 200]], dtype=np.uint16), [0, 7, 200]),
        (np.array([[-5, 0, 200]], dtype=np.int32), [0, 0, 200]),
        # Floats from 0 to 1; 0.2 × 255 = 51.
        (np.array([[0.0, 0.2, 1.0]], dtype=np.float32), [0, 51, 255]),
        (np.array([[0.0, np.nan, 255.0, np.inf]], dtype=np.float32), [0, 0, 255, 0]),
        (np.zeros((1, 2), dtype=np.float32), [0, 0]),
    ],
)
def test_wide_grey_is_scaled_and_not_clipped(tmp_path: Path, values: NDArray[Any], expected: list[int]) -> None:
    file = tmp_path / "grey.tif"
    Image.fromarray(values).save(file)
    assert _pixels(file) == [[[grey] * 3 for grey in expected]]


def test_sixteen_bit_png(tmp_path: Path) -> None:
    file = tmp_path / "grey.png"
    Image.fromarray(np.array([[257, 257 * 100]], dtype=np.uint16)).save(file)  # 257 × n is n of 8 bits
    assert _pixels(file) == [[[1] * 3, [100] * 3]]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (255, 0, 0, 255), [255, 0, 0]),
        ("RGBA", (255, 0, 0, 0), [255, 255, 255]),  # what is transparent shows the white behind it
        ("RGBA", (255, 0, 0, 51), [255, 204, 204]),  # a fifth of red before white: 255 × 0.8 = 204
        ("LA", (100, 0), [255, 255, 255]),
        ("LA", (100, 255), [100, 100, 100]),
        ("L", 77, [77, 77, 77]),
        ("1", 1, [255, 255, 255]),
        ("RGB", (1, 2, 3), [1, 2, 3]),
    ],
)
def test_modes_of_png(tmp_path: Path, mode: str, colour: Any, expected: list[int]) -> None:
    file = tmp_path / "image.png"
    Image.new(mode, (1, 1), colour).save(file)
    assert _pixels(file) == [[expected]]


@pytest.mark.parametrize(("transparent", "expected"), [(0, [255, 255, 255]), (1, [0, 200, 0]), (None, [0, 200, 0])])
def test_palette(tmp_path: Path, transparent: int | None, expected: list[int]) -> None:
    image = Image.new("P", (1, 1), 0)
    image.putpalette([0, 200, 0, 9, 9, 9])
    file = tmp_path / "image.png"
    options: dict[str, Any] = {} if transparent is None else {"transparency": transparent}
    image.save(file, **options)
    assert _pixels(file) == [[expected]]


def test_transparent_colour_of_rgb(tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    image = Image.new("RGB", (2, 1), (10, 20, 30))
    image.putpixel((1, 0), (10, 20, 31))
    image.save(file, transparency=(10, 20, 30))
    assert _pixels(file) == [[[255, 255, 255], [10, 20, 31]]]


def test_cmyk(tmp_path: Path) -> None:
    file = tmp_path / "image.jpg"
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(file, quality=100)  # no cyan, all magenta and yellow: red
    assert np.abs(np.array(_pixels(file)) - [255, 0, 0]).max() <= 3  # JPEG rounds


def test_an_animation_shows_its_first_frame(tmp_path: Path) -> None:
    file = tmp_path / "moving.gif"
    Image.new("RGB", (4, 4), (200, 0, 0)).save(file, save_all=True, append_images=[Image.new("RGB", (4, 4), "blue")])
    assert _pixels(file) == [[[200, 0, 0]] * 4] * 4


def test_names_do_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "really_png.jpg"
    Image.new("RGB", (1, 1), (1, 2, 3)).save(file, format="PNG")
    assert _pixels(file) == [[[1, 2, 3]]]


def test_nothing_of_the_file_is_handed_on(tmp_path: Path) -> None:
    # Pillow would write the file's compression with a copy, and refuses to where that takes no quality.
    file = tmp_path / "image.tif"
    Image.new("RGB", (4, 4)).save(file, compression="tiff_lzw")
    assert read_image(file).info == {}


def test_damaged_metadata_does_not_matter(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[271] = "the maker's name, which is stored behind the table"
    file = tmp_path / "image.jpg"
    Image.new("L", (2, 1), 50).save(file, exif=exif.tobytes()[:-60])
    with pytest.warns(UserWarning, match="EXIF"), Image.open(file) as image:
        ImageOps.exif_transpose(image)  # Pillow warns, which this project's tests would take for an error
    assert _pixels(file) == [[[50] * 3] * 2]


def _png(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, with no such data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def _tiff(tags: dict[int, int], data: bytes) -> bytes:
    """A TIFF of one grey image whose tags are numbers of 32 bits; the data follow them."""
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + table + bytes(4) + data


def _vast_tile() -> bytes:
    """100 × 100 pixels in one LZW tile of 40,000 × 40,000, for which libtiff would take 1.6 GB."""
    size = {256: 100, 257: 100, 258: 8, 259: 5, 262: 1, 277: 1}
    data = b"\x80\0\0" * 30
    return _tiff({**size, 322: 40_000, 323: 40_000, 324: 8 + 2 + 10 * 12 + 4, 325: len(data)}, data)


def _claiming(suffix: str, place: int, size: bytes) -> bytes:
    """An animation of 4 × 4 pixels whose header claims another canvas."""
    written = io.BytesIO()
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(written, suffix, save_all=True, append_images=frames[1:])
    return written.getvalue()[:place] + size + written.getvalue()[place + len(size) :]


def _png_of_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 4 × 4 black pixels with more chunks before its data."""
    whole = (
        (b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)),
        *chunks,
        (b"IDAT", zlib.compress(bytes(52))),
        (b"IEND", b""),
    )
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in whole
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "png header": (lambda: _png(60_000, 60_000), "3600000000 pixels"),
    "tiff tile": (_vast_tile, "1600000000 pixels"),
    "webp canvas": (lambda: _claiming("WEBP", 24, b"\xfe\x3f\0" * 2), "268402689 pixels"),
    "gif canvas": (lambda: _claiming("GIF", 6, b"\xff\xff" * 2), "4294836225 pixels"),
    "bmp": (
        lambda: b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 50_000, -50_000, 1, 24, *[0] * 6),
        "2500000000",
    ),
    "ppm": (lambda: b"P6 50000 50000 255\n", "2500000000 pixels"),
    # 100 MB of text in 100 kB, once as a profile, once as a text, and 200 texts of 1 MB.
    "png profile": (lambda: _png_of_chunks((b"iCCP", b"x\0\0" + zlib.compress(bytes(10**8)))), "too large"),
    "png text": (lambda: _png_of_chunks((b"iTXt", b"x\0\1\0\0\0" + zlib.compress(bytes(10**8)))), "too large"),
    "png texts": (
        lambda: _png_of_chunks(*[(b"zTXt", b"x\0\0" + zlib.compress(bytes(10**6)))] * 200),
        "Too much memory",
    ),
    "tiff counts": (lambda: _tiff({256: 9, 257: 9, 273: 2**32 - 1, 279: 2**32 - 1}, b""), "msad knows|cannot"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_take_memory(tmp_path: Path, name: str) -> None:
    make, message = BOMBS[name]
    file = tmp_path / "bomb.png"
    file.write_bytes(make())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=message):
        read_image(file)
    # KiB of memory at the worst moment; Pillow reads up to 64 MiB of texts.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 120 * 1024


def test_no_program_is_run_for_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Pillow hands PostScript to Ghostscript, whatever the file's name is.
    file = tmp_path / "page.jpg"
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was run"))
    with pytest.raises(DataError, match="no image that msad knows"):
        read_image(file)


def test_the_limit_of_pixels_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoped, "most", scoped.most)  # set back afterwards
    assert most_pixels() == int(MOST_PIXELS)
    file = tmp_path / "image.png"
    Image.new("RGB", (20, 10)).save(file)
    limit_pixels(200)
    assert most_pixels() == 200
    assert read_image(file).size == (20, 10)
    limit_pixels(198)
    with pytest.raises(DataError, match=r"200 pixels\) exceeds limit of 198 pixels; --max-pixels raises the limit"):
        read_image(file)


@pytest.mark.parametrize("own", [50, None, 10**9])
def test_pillows_own_limit_is_left_to_the_program_that_imports_msad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: int | None
) -> None:
    """Whatever it is, msad's holds for msad, in many threads too, and Pillow's is the program's again afterwards."""
    monkeypatch.setattr(scoped, "most", scoped.most)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", own)
    file = tmp_path / "image.png"
    Image.new("RGB", (20, 10)).save(file)
    limit_pixels(200)
    assert own == Image.MAX_IMAGE_PIXELS
    with ThreadPoolExecutor(8) as pool:
        assert {image.size for image in pool.map(read_image, [file] * 100)} == {(20, 10)}
    assert own == Image.MAX_IMAGE_PIXELS
    limit_pixels(199)
    with pytest.raises(DataError, match="exceeds limit of 199 pixels"):
        read_image(file)
    assert own == Image.MAX_IMAGE_PIXELS


def test_loader_workers_take_the_limit_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoped, "most", scoped.most)
    limit_pixels(5000)
    start = pickle.loads(pickle.dumps(functools.partial(limit_pixels, most_pixels())))  # as a spawned worker gets it
    limit_pixels(7000)
    start(3)  # torch calls it with the worker's number
    assert most_pixels() == 5000


def _cut(suffix: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        image = path.with_suffix(suffix)
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(image)
        path.write_bytes(image.read_bytes()[: image.stat().st_size // 2])

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.write_text("no image"), "no image that msad knows"),
        (lambda path: path.mkdir(), "not a file"),
        (os.mkfifo, "not a file"),
        (lambda path: path.write_bytes(_png(60_000, 60_000)), "3600000000 pixels"),
        (lambda path: path.write_bytes(_png(64, 64)), "cannot be decoded"),
        (_cut(".png"), "cannot be decoded"),
        (_cut(".jpeg"), "cannot be decoded"),
        (_cut(".webp"), "cannot be decoded"),
        (lambda path: None, "no such image"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, write: Callable[[Path], object], message: str) -> None:
    file = tmp_path / "broken.jpg"
    write(file)
    with pytest.raises(DataError, match=message) as caught:
        read_image(file)
    assert str(file) in caught.value.message
    assert caught.value.exit_code == 3


@pytest.mark.shared("robustness_images")
def test_images_from_the_world() -> None:
    """Files of Pillow's own tests and others; their manifest says what a tool should do with each."""
    for entry in json.loads((ROBUSTNESS / "manifest.json").read_text()):
        path = ROBUSTNESS / entry["file"]
        found = _image_or_error(path)
        if isinstance(found, DataError):
            assert str(path) in found.message
            assert entry["expect"] != "must load", path
        else:
            assert not entry["expect"].startswith("must be reported and skipped"), path
            assert found.mode == "RGB", path
            turned = (entry["exif_orientation"] or 1) >= 5
            assert list(found.size) == (entry["size"][::-1] if turned else entry["size"]), path


def _image_or_error(path: Path) -> Image.Image | DataError:
    try:
        return read_image(path)
    except DataError as error:
        return error


@pytest.mark.shared("robustness_images")
def test_sixteen_bit_photograph_is_not_white() -> None:
    # Its manifest says that a plain convert("RGB") clips it to white.
    grey = np.asarray(read_image(ROBUSTNESS / "grey16.png"))
    assert 50 < grey.mean() < 200
    assert len(np.unique(grey)) > 100


@pytest.mark.shared("robustness_images")
def test_one_photograph_in_all_orientations() -> None:
    # The same face, stored turned in eight ways and compressed anew each time: it comes out upright in all of them.
    expected = np.asarray(read_image(ROBUSTNESS / "hopper_orientation_2.jpg"), dtype=float)
    for orientation in range(3, 9):
        found = np.asarray(read_image(ROBUSTNESS / f"hopper_orientation_{orientation}.jpg"), dtype=float)
        assert np.abs(found - expected).mean() < 8  # JPEG's noise is 4; turned by mistake it would be about 60
