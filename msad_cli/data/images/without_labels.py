"""A look at images that no annotation file lists: which of them can be learnt from."""

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msad_cli.data.images.split_images import Seen, file_identity, look_at, same_images


@dataclass(frozen=True)
class Compared:
    """Images as `same_images` compares them: their paths, and (device, number, bytes) of each."""

    paths: tuple[Path, ...]
    files: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Unlabelled:
    """Images without labels, and what was left out of those that were found.

    Attributes:
        paths: absolute.
        sizes: (I, 2) height and width in pixels, turned as EXIF says.
        fingerprint: SHA-256 of the names and lengths of their files, hexadecimal.
        unreadable: why each image that is none cannot be read.
        twins: by what they are also in (`val`, `train`), pairs of an image there and one that is left out.
    """

    paths: tuple[Path, ...]
    sizes: NDArray[np.int64]
    fingerprint: str
    unreadable: tuple[str, ...]
    twins: dict[str, list[tuple[Path, Path]]]


def look_at_unlabelled(paths: Sequence[Path], known: Mapping[str, Sequence[Path]]) -> Unlabelled:
    """Leaves out what cannot be read, and what is, byte for byte, an image that is known already.

    Args:
        paths: of images, each once.
        known: the images of splits by name. An image that several have is counted for the first.
    """
    seen = dict(zip(map(Path, map(os.path.abspath, paths)), look_at(paths), strict=True))
    unreadable = {path: each.error or _nameless(path) for path, each in seen.items()}
    left = {path: each for path, each in seen.items() if not unreadable[path]}
    twins: dict[str, list[tuple[Path, Path]]] = {}
    for name, of_split in known.items():
        twins[name] = same_images(_files(of_split), Compared(tuple(left), tuple(each.file for each in left.values())))
        for _, path in twins[name]:
            del left[path]
    sizes = np.array([each.header.size for each in left.values()], dtype=np.int64).reshape(-1, 2)
    refused = tuple(reason for reason in unreadable.values() if reason)
    return Unlabelled(tuple(left), sizes, _fingerprint(left), refused, twins)


def _nameless(path: Path) -> str:
    """Why a file's name cannot be kept among those of a split; empty where it can."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return f"{str(path)!a}: its name is no text"
    return ""


def _files(paths: Sequence[Path]) -> Compared:
    found = []
    for path in paths:
        with contextlib.suppress(OSError):  # the check of the set has said so
            found.append((path, file_identity(path)))
    return Compared(tuple(path for path, _ in found), tuple(file for _, file in found))


def _fingerprint(images: dict[Path, Seen]) -> str:
    """Of names without their folders: a set that is moved stays what it is."""
    names = sorted((path.name, seen.file[2]) for path, seen in images.items())
    return hashlib.sha256(repr(names).encode()).hexdigest()
