"""File names of a data set: they come from strangers, and must not lead out of the folder of the images."""

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

LONGEST_NAME = 4096
"""Characters; Linux opens no longer path."""
# Windows' ways are refused everywhere: a set is passed on, and `..\` is nobody's file name.
UPWARDS = re.compile(r"(?:^|[\\/])\.\.(?:$|[\\/])")
ABSOLUTE = re.compile(r"[\\/]|[A-Za-z]:[\\/]")


def refused_name(name: object) -> str:
    """Why a `file_name` cannot be used, to be put behind it; empty where it can."""
    if not isinstance(name, str):
        return "is no text"
    if not name:
        return "is empty"
    if len(name) > LONGEST_NAME:
        return f"is longer than {LONGEST_NAME} characters"
    if "\0" in name or not _encodable(name):
        return "holds characters that no file name has"
    if ABSOLUTE.match(name):
        return "is absolute"
    return "leaves the folder of the images" if UPWARDS.search(name) else ""


def outward_links(folder: Path, names: Iterable[str], also: Iterable[Path] = ()) -> dict[str, Path]:
    """Names whose file, or a folder on the way to it, is a symbolic link to outside `folder`, and where they lead.

    `folder` may itself be a link, and links may stay inside. A file that is not there leads nowhere.

    Args:
        folder: that the names are relative to.
        names: of files.
        also: other folders that links may lead to, such as that of the whole set.
    """
    root = os.path.realpath(folder)
    roots = {root, *map(os.path.realpath, also)}
    inside: dict[str, bool] = {}
    outward: dict[str, Path] = {}
    for name in names:
        path = f"{root}/{name}"
        parent = path.rpartition("/")[0]
        if parent not in inside:
            inside[parent] = any(within(os.path.realpath(parent), each) for each in roots)
        if inside[parent]:
            try:
                if not stat.S_ISLNK(os.lstat(path).st_mode):
                    continue
            except OSError:
                continue
        target = os.path.realpath(path)
        if not any(within(target, each) for each in roots):
            outward[name] = Path(target)
    return outward


def within(path: str, root: str) -> bool:
    """Whether a real path is a folder or below it."""
    return path == root or path.startswith(root.rstrip("/") + "/")


def _encodable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold
        return False
    return True
