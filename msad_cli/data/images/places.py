"""Which file of a set a name from elsewhere means: another machine's, another system's, an address's."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from msad_cli.data.images.decode import IMAGE_SUFFIXES
from msad_cli.data.images.names import within

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
DRIVE = re.compile(r"[a-z]:", re.IGNORECASE)
NEVER_MINE = ("__MACOSX",)
MOST_FILES = 3_000_000
"""Files that are looked through for one that is not where it should be."""


def files_below(root: Path, place: str = ".", also: Collection[str] = ()) -> Iterator[str]:
    """Names of all files in a folder and below, relative to `root`; hidden ones (macOS leaves ._a.jpg) aside.

    Links to folders are followed as far as they stay inside; each folder is visited once.

    Args:
        root: where links may lead to.
        place: the folder, relative to it.
        also: real paths of other folders that links may lead to.
    """
    roots = (os.path.realpath(root), *also)
    visited: set[str] = set()
    ahead = [os.path.normpath(place)]
    while ahead:
        folder = ahead.pop()
        real = os.path.realpath(root / folder)
        if real in visited or not any(within(real, each) for each in roots):
            continue
        visited.add(real)
        try:
            entries = sorted(os.scandir(root / folder), key=lambda each: each.name, reverse=True)
        except OSError:
            continue
        for each in entries:
            if each.name.startswith(".") or each.name in NEVER_MINE:
                continue
            name = each.name if folder == "." else f"{folder}/{each.name}"
            if each.is_dir():
                ahead.append(name)
            else:
                yield name


def alike(name: str) -> str:
    """What two spellings of a name have in common: accents composed, no case."""
    return unicodedata.normalize("NFC", name).casefold()


def parts(name: str) -> list[str]:
    """The parts of a name that may mean a place in a set: behind an address's host, a drive, and the last `..`."""
    text = urlsplit(name).path if ADDRESS.match(name) else name
    found = [each for each in text.replace("\\", "/").split("/") if each not in ("", ".")]
    if ".." in found:
        found = found[len(found) - found[::-1].index("..") :]
    return found[1:] if found and DRIVE.fullmatch(found[0]) else found


def spellings(name: str) -> list[list[str]]:
    """`parts` of a name as it stands, and with its percent signs read as an address's."""
    plain = parts(name)
    unescaped = parts(unquote(name)) if "%" in name else plain
    return [each for each in ([plain] if plain == unescaped else [plain, unescaped]) if each]


def longest_end(root: Path, name: str) -> str | None:
    """The longest end of a name that exists below a folder, relative to it."""
    for found in spellings(name):
        for start in range(len(found)):
            end = "/".join(found[start:])
            if "\0" not in end and os.path.lexists(root / end):
                return end
    return None


class Finder:
    """The files of a set, by their last parts.

    Args:
        root: of the set.
        folder: where its images should lie, in `root` or a link there.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        self.place = os.path.relpath(folder, root)
        self._above = tuple(map(alike, PurePosixPath(os.path.abspath(root)).parts[1:]))
        self._by_name: dict[str, list[str]] = defaultdict(list)
        real = os.path.realpath(folder)
        for number, name in enumerate(_once(root, self.place, real)):
            if number == MOST_FILES:
                break
            self._by_name[alike(os.path.basename(name))].append(name)

    def located(self, names: Collection[str], there: Collection[str]) -> dict[str, str]:
        """The one file that each name means, relative to the root; names that mean none or several are left out.

        Args:
            names: of no file as they stand.
            there: files, relative to the root, that other names are.
        """
        parallel = self._parallel(there)
        found = {name: file for name in dict.fromkeys(names) if (file := self._meant(name, parallel))}
        owners: dict[str, int] = defaultdict(int)
        for file in (*found.values(), *there):
            owners[file] += 1
        return {name: file for name, file in found.items() if owners[file] == 1}

    def candidates(self, name: str) -> list[str]:
        """Files whose name is the last part of a name, wherever they are."""
        return [file for found in spellings(name)[:1] for file in self._by_name.get(alike(found[-1]), ())]

    def _parallel(self, there: Collection[str]) -> set[str]:
        """Folders that hold other files of the same names, such as masks: no home for an image that is missing."""
        return {
            os.path.dirname(other)
            for file in there
            for other in self._by_name.get(alike(os.path.basename(file)), ())
            if other != file
        } - {os.path.dirname(file) for file in there}

    def _meant(self, name: str, parallel: Collection[str]) -> str | None:
        for found in spellings(name):
            home = self._home(found)
            ranked: dict[tuple[int, bool, int], list[str]] = defaultdict(list)
            key = alike(found[-1])
            for file in (*self._by_name.get(key, ()),) or self._by_stem.get(key, ()):
                inside = self._inside(file, home)
                common = self._common(file, found, whole=inside)
                if os.path.dirname(file) not in parallel and (inside or (home == self.place and common > 1)):
                    ranked[common, inside, _exactness(os.path.basename(file), found[-1])].append(file)
            if ranked:
                best = ranked[max(ranked)]
                return best[0] if len(best) == 1 else None
        return None

    @cached_property
    def _by_stem(self) -> Mapping[str, list[str]]:
        """Images by their names without suffix, as some tools leave it away."""
        found: dict[str, list[str]] = defaultdict(list)
        for name, files in self._by_name.items():
            stem, suffix = os.path.splitext(name)
            if suffix in IMAGE_SUFFIXES:
                found[stem] += files
        return found

    def _home(self, found: list[str]) -> str:
        """The folder that a name is in, if there is one; else that of the images."""
        own = os.path.normpath(os.path.join(self.place, *found[:-1]))
        return own if len(found) > 1 and os.path.isdir(self.root / own) else self.place

    def _inside(self, file: str, folder: str) -> bool:
        return folder == "." or file.startswith(f"{folder}/")

    def _common(self, file: str, found: list[str], *, whole: bool) -> int:
        """How many of the last parts agree; of those above the root only where the file is at home anyway."""
        own = [*(self._above if whole else ()), *map(alike, file.split("/"))]
        count = 1  # the name itself, by which the file was found
        for one, other in zip(own[-2::-1], found[-2::-1], strict=False):
            if one != alike(other):
                break
            count += 1
        return count


def _once(root: Path, place: str, real: str) -> Iterator[str]:
    """Files of the folder of the images, and all others."""
    first = dict.fromkeys(files_below(root, place, (real,)))
    yield from first
    yield from (name for name in files_below(root) if name not in first)


def _exactness(one: str, other: str) -> int:
    return 2 if one == other else int(unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other))
