"""Files of a set that a test writes: pictures of one grey, and texts."""

from pathlib import Path

from PIL import Image


def draw_grey(file: Path, size: tuple[int, int]) -> None:
    """A picture of (width, height), a PNG by its bytes whatever its suffix."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, 200).save(file, format="PNG")


def write(file: Path, text: str, encoding: str = "utf-8") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode(encoding))
