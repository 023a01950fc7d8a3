"""Where msad caches what it can make again: the demo set, finished checks, sets of other layouts as COCO's."""

import functools
import os
import stat
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msad_cli.errors import OutputError

OTHER_FOLDER = "export MSAD_CACHE=/a/writable/folder"


class CacheWarning(UserWarning):
    """The cache is not where it usually is."""


def cache_folder() -> Path:
    """$MSAD_CACHE, else $XDG_CACHE_HOME/msad, else ~/.cache/msad. It need not exist.

    Where that cannot be written, or the user has no home, it is a folder of the user's below the system's temporary
    one, of which a `CacheWarning` tells once.

    Raises:
        OSError: there is no temporary folder either.
    """
    wanted = wanted_folder()
    return _usable(wanted, tempfile.gettempdir())


def wanted_folder() -> Path | None:
    """The cache as the environment has it, writable or not; None for a user without a home."""
    own = os.environ.get("MSAD_CACHE")
    if own:
        return Path(own)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "msad"
    except RuntimeError:
        return None


@functools.cache
def _usable(wanted: Path | None, temporary: str) -> Path:
    reason = "this user has no home" if wanted is None else unwritable(wanted)
    if wanted is not None and not reason:
        return wanted
    folder = _own_folder(Path(temporary))
    where = "the cache" if wanted is None else f"the cache {wanted}"
    warnings.warn(f"{where} cannot be written ({reason}): it is {folder} now; {OTHER_FOLDER}", CacheWarning, 1)
    return folder


def unwritable(folder: Path) -> str:
    """Why nothing can be written below a folder, which need not exist; empty where it can."""
    try:
        nearest = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    except (OSError, StopIteration) as error:
        return getattr(error, "strerror", None) or "no such folder"
    if not nearest.is_dir():
        return f"{nearest} is a file"
    return "" if os.access(nearest, os.W_OK | os.X_OK) else f"{nearest} is not writable"


def _own_folder(temporary: Path) -> Path:
    """The user's folder below a temporary one, where others must not have put theirs in its place."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = temporary / f"msad-cache-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and not (user and found.st_uid != user):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="msad-cache-", dir=temporary))


@contextmanager
def writing_cache() -> Iterator[None]:
    """A stretch that writes into the cache, where the system's refusal becomes an error that names it.

    Raises:
        OutputError: the disk is full, or the system refuses.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"the cache cannot be written: {error}", f"free space, or {OTHER_FOLDER}", code="cache-refused"
        ) from error


def keep_text(path: Path, text: str) -> None:
    """Writes a file of the cache; whoever looks finds all of it or nothing.

    Raises:
        OutputError: the system refuses.
    """
    with writing_cache():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="writing-", dir=path.parent) as temporary:
            written = Path(temporary) / path.name
            written.write_text(text, encoding="utf-8")
            written.replace(path)


def file_state(path: str | Path) -> tuple[int, int]:
    """Bytes and time of the last change, by which a changed file is known; zeros where there is none."""
    try:
        state = os.stat(path)
    except OSError:
        return 0, 0
    return state.st_size, state.st_mtime_ns
