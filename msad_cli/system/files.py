"""Files that are either whole or absent."""

import errno
import glob
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msad_cli.errors import OutputError

LONGEST_PREFIX = 40
"""Characters of a file's name in its temporary file's, whose name would be too long with all of them."""
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Writes a file, all of it or nothing.

    Raises:
        OutputError: the operating system refuses: no right, no such folder, no space (with the bytes that it took).
    """
    with replacing(path) as temporary, explained(path, len(data)):
        temporary.write_bytes(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which takes its place, synced to disk, when the context ends without an error.

    Raises:
        OutputError: as `write_bytes`.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _new_file(path)
    try:
        yield temporary
        with explained(path, temporary.stat().st_size):
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _new_file(path: Path) -> Path:
    """An empty file beside `path` that nobody else has, with the rights of an ordinary new file.

    tempfile's files are private, and the rights that an ordinary one gets can only be read by changing them for a
    moment, for all threads. So the system gives them here, when it makes the file.
    """
    while True:
        temporary = path.with_name(f".{path.name[:LONGEST_PREFIX]}.{secrets.token_hex(4)}")
        try:
            temporary.touch(exist_ok=False)
        except FileExistsError:
            continue
        return temporary


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text, all of it or nothing.

    Raises:
        OutputError: as `write_bytes`.
    """
    write_bytes(path, text.encode("utf-8"))


def refuse_unwritable(path: Path) -> None:
    """Does nothing where a file can be written.

    Raises:
        OutputError: it cannot; said before the work whose result would be lost.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def fingerprint(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def append_line(path: Path, line: str) -> None:
    """Appends a line of UTF-8 text.

    Raises:
        OutputError: as `write_bytes`.
    """
    with explained(path, len(line)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def remove(path: Path) -> None:
    """Deletes a file if it is there.

    Raises:
        OutputError: the operating system refuses.
    """
    with explained(path):
        path.unlink(missing_ok=True)


def remove_unfinished(folder: Path, name: str = "*") -> None:
    """Deletes the temporary files of `name` that killed processes left in a folder; nobody else may be writing it."""
    pattern = name if name == "*" else glob.escape(name[:LONGEST_PREFIX])
    for each in folder.glob(f".{pattern}.????????"):
        remove(each)


@contextmanager
def explained(path: Path, size: int = 0) -> Iterator[None]:
    """Turns the operating system's refusal to write `size` bytes to `path` into an `OutputError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            # Of a file in a folder's place the system says only "File exists" or "Not a directory".
            there = next((each for each in path.parents if os.path.isfile(each)), None)
            reason = error.strerror or str(error) if there is None else f"{there} is a file, not a folder"
            raise OutputError(
                f"cannot write {path}: {reason}", "choose another place, or see to its rights", code="write-refused"
            ) from error
        raise OutputError(
            f"cannot write {path}: {error.strerror}; it takes {size:,} bytes, {_free(path):,} are free",
            "free space",
            code="disk-full",
        ) from error


def _free(path: Path) -> int:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:
        return 0
