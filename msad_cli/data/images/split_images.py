"""A look at the files of a split's images: are they there, how large are they, which are the same."""

import hashlib
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.problem_tally import Problem, Tally
from msad_cli.data.annotations.records import Records
from msad_cli.data.images.decode import TOLERATED, Header, read_header, read_image
from msad_cli.errors import DataError

THREADS = 8
PROBE = 2**12
"""Bytes that are compared before whole files are."""


NOTHING = Header((0, 0), 1, False)
"""Of an image that cannot be read."""


@dataclass(frozen=True)
class SplitImages:
    """What the files of the I images of a split are.

    Attributes:
        paths: of each.
        sizes: (I, 2) true height and width in pixels, turned as EXIF says; 0 where an image cannot be read.
        stated_turned: (I,) bool: EXIF swaps height and width, while the annotation file states them unswapped.
        orientations: (I,) EXIF's of each, from 1 to 8.
        deep: (I,) bool: more than 8 bits a value.
        files: (device, number, bytes) of each file; zeros where there is none.
        problems: with them.
    """

    paths: tuple[Path, ...]
    sizes: NDArray[np.int64]
    stated_turned: NDArray[np.bool_]
    orientations: NDArray[np.int64]
    deep: NDArray[np.bool_]
    files: tuple[tuple[int, int, int], ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Seen:
    """What a file is like: its header, (device, number, bytes), and why it cannot be read; empty where it can."""

    header: Header = NOTHING
    file: tuple[int, int, int] = (0, 0, 0)
    error: str = ""


class ImageFiles(Protocol):
    """The files of some images: their paths and (device, number, bytes) of each; zeros where there is none."""

    @property
    def paths(self) -> Sequence[Path]: ...

    @property
    def files(self) -> Sequence[tuple[int, int, int]]: ...


def look_at_images(records: Records, decode: bool = False) -> SplitImages:
    """Reads the headers of all images of an annotation file; with `decode`, all their pixels."""
    paths = tuple(records.folder / name for name in records.file_names.tolist())
    seen = look_at(paths, decode)
    sizes = np.array([each.header.size for each in seen], dtype=np.int64).reshape(-1, 2)
    turned = np.array([each.header.swapped for each in seen], dtype=bool)
    stated, known = (records.sizes > 0).all(axis=1), sizes[:, 0] > 0
    other = stated & known & (sizes != records.sizes).any(axis=1)
    stated_turned = other & turned & (sizes[:, ::-1] == records.sizes).all(axis=1)
    tally = Tally()
    _report_unreadable(seen, tally)

    def words(i: int) -> str:
        (height, width), (stated_height, stated_width) = sizes[i], records.sizes[i]
        return f"{records.image_words(i)}: {width}×{height}, stated {stated_width}×{stated_height}"

    tally.add_all(kinds.OTHER_SIZE, np.flatnonzero(other & ~stated_turned).tolist(), words)
    tally.add_all(kinds.TURNED, np.flatnonzero(stated_turned).tolist(), words)
    tally.add_all(kinds.PAGES, [i for i, each in enumerate(seen) if each.header.paged], records.image_words)
    unread = [i for i, each in enumerate(seen) if each.header.unread]
    tally.add_all(kinds.BANDS, unread, lambda i: f"{records.image_words(i)}: {seen[i].header.unread} of them")
    deep = np.array([each.header.deep for each in seen], dtype=bool)
    ways = np.array([each.header.orientation for each in seen], dtype=np.int64)
    files = tuple(each.file for each in seen)
    return SplitImages(paths, sizes, stated_turned, ways, deep, files, tally.problems())


def look_at(paths: Sequence[Path], decode: bool = False) -> list[Seen]:
    """Reads the headers of image files; with `decode`, all their pixels."""
    Image.init()  # Pillow loads what it knows of formats at the first image, and threads would do so all at once
    with warnings.catch_warnings(), ThreadPoolExecutor(THREADS) as pool:
        # Filters of warnings belong to the process, and each thread sets and resets them: so they are the same for all.
        warnings.simplefilter("ignore")
        return list(pool.map(lambda path: _look_at(path, decode), paths))


def same_images(one: ImageFiles, other: ImageFiles) -> list[tuple[Path, Path]]:
    """Pairs of an image of each that are one file, or files of the same bytes under any names."""
    first: dict[Hashable, int] = {file[:2]: i for i, file in enumerate(one.files) if file[2]}
    pairs = {j: first[file[:2]] for j, file in enumerate(other.files) if file[:2] in first}
    # Files of one length are few, those that agree in a part of it fewer: hardly a file is read that has no twin.
    left = [i for i, file in enumerate(one.files) if file[2]]
    right = [j for j, file in enumerate(other.files) if file[2] and j not in pairs]
    groups = _matching([(left, right)], lambda i: one.files[i][2], lambda j: other.files[j][2])
    groups = _matching(groups, lambda i: _digest_of_part(one.paths[i]), lambda j: _digest_of_part(other.paths[j]))
    groups = _matching(groups, lambda i: _digest(one.paths[i]), lambda j: _digest(other.paths[j]))
    pairs |= {j: left[0] for left, right in groups for j in right}
    return [(one.paths[i], other.paths[j]) for j, i in sorted(pairs.items())]


def _matching(
    groups: Iterable[tuple[list[int], list[int]]], left: Callable[[int], Hashable], right: Callable[[int], Hashable]
) -> list[tuple[list[int], list[int]]]:
    """Splits pairs of groups by a key, and keeps those with members on both sides."""
    finer = []
    for ones, others in groups:
        by_key: dict[Hashable, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for i in ones:
            by_key[left(i)][0].append(i)
        for j in others:
            by_key[right(j)][1].append(j)
        finer += [each for key, each in by_key.items() if key is not None and all(each)]
    return finer


def _digest_of_part(path: Path) -> bytes | None:
    """Of the middle of a file: beginnings are alike wherever one camera or program wrote them."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - PROBE) // 2)
            return hashlib.blake2b(file.read(PROBE), digest_size=16).digest()
    except OSError:
        return None


def _digest(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()
    except OSError:
        return None


def file_identity(path: Path) -> tuple[int, int, int]:
    """(device, number, bytes) of a file.

    Raises:
        OSError: there is none.
    """
    state = path.stat()
    return state.st_dev, state.st_ino, state.st_size


def _look_at(path: Path, decode: bool) -> Seen:
    try:
        file = file_identity(path)
    except OSError:
        return Seen(error=f"no such image: {path}")
    try:
        header = read_header(path)
        if decode:
            read_image(path)
    except DataError as error:
        return Seen(file=file, error=error.message)
    return Seen(header, file)


def _report_unreadable(seen: list[Seen], tally: Tally) -> None:
    errors = [each for each in seen if each.error]
    fatal = len(errors) > TOLERATED * len(seen)
    for kind, found in (
        (kinds.MISSING, [each.error for each in errors if not any(each.file)]),
        (kinds.UNREADABLE, [each.error for each in errors if any(each.file)]),
    ):
        outcome = f"refused, more than {TOLERATED:.0%} of all" if fatal else kind.outcome
        tally.add_all(replace(kind, fatal=fatal, outcome=outcome), range(len(found)), found.__getitem__)
