"""Which images and videos a list of files, folders and patterns means, and where each one's output goes."""

import glob
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from msad_cli.data.images.decode import IMAGE_SUFFIXES
from msad_cli.errors import UsageError

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv"})

BESIDE = "._"
"""With this macOS begins the name of what it keeps of a file on disks of other systems: `._x.jpg` is no image."""


@dataclass(frozen=True)
class Input:
    """An image or video, and its path relative to the folder that was named: outputs keep that tree.

    An image that is no file has its upright RGB pixels in `image`, and a name for a path. What is read from a camera or
    a host has its number or address in `stream`.
    """

    path: Path
    relative: Path
    image: Image.Image | None = None
    stream: str = ""

    @property
    def is_video(self) -> bool:
        """By its name: a GIF is an image, its first."""
        return bool(self.stream) or self.path.suffix.lower() in VIDEO_SUFFIXES


def find_inputs(names: Sequence[str], results: Sequence[Path] = ()) -> list[Input]:
    """What files, folders (searched to the bottom) and glob patterns mean, each once, in order.

    Args:
        names: of files, folders, and patterns.
        results: folders of results. What lies in them is no input of a folder or a pattern that starts above them.

    Raises:
        UsageError: a name matches nothing, or cannot be looked for.
    """
    found: dict[Path, Input] = {}
    for name in names:
        try:
            inputs = _matches(name, results)
        except OSError as error:
            raise UsageError(f"{name}: cannot be read ({error.strerror})", code="read-refused") from None
        except ValueError:  # a null character, which a list of names can hold
            raise UsageError(f"{name}: no name of a file", "give one path a line", code="file-name-malformed") from None
        if not inputs:
            kind = "a folder without images" if Path(name).is_dir() else "no such file, folder or pattern"
            known = f"images end in {', '.join(sorted(IMAGE_SUFFIXES))}, videos in {', '.join(sorted(VIDEO_SUFFIXES))}"
            raise UsageError(f"{name}: {kind}", known, code="no-images-given")
        for each in inputs:
            found.setdefault(resolved(each.path), each)
    return distinct(list(found.values()))


def _matches(name: str, results: Sequence[Path]) -> list[Input]:
    path = Path(name)
    if path.is_dir():
        found = [each for each in sorted(path.rglob("*")) if each.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES]
        inputs = [Input(each, each.relative_to(path)) for each in found]
    elif path.exists():
        return [Input(path, Path(path.name))]
    else:
        # A shell expands patterns before we see them, unless they are quoted or too many.
        inputs = [Input(Path(each), Path(Path(each).name)) for each in sorted(glob.glob(name, recursive=True))]
        path = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
    passed_over = [folder for folder in results if _below(path, folder)]
    inputs = [each for each in inputs if not any(_below(folder, each.path) for folder in passed_over)]
    return [each for each in inputs if each.path.is_file() and not each.path.name.startswith(BESIDE)]


def _below(folder: Path, path: Path) -> bool:
    return resolved(folder) in resolved(path).parents


def resolved(path: Path) -> Path:
    """The path without links, as far as they lead: `Path.resolve` raises at a link to itself before Python 3.13."""
    return Path(os.path.realpath(path))


def distinct(inputs: Sequence[Input]) -> list[Input]:
    """Two images of one name from different folders get numbered outputs instead of one overwriting the other."""
    taken: set[Path] = set()
    named = []
    for each in inputs:
        relative, number = each.relative, 2
        while relative in taken:
            relative = each.relative.with_name(f"{each.relative.stem}-{number}{each.relative.suffix}")
            number += 1
        taken.add(relative)
        named.append(replace(each, relative=relative))
    return named
