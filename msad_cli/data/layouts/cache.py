"""Sets of other layouts become COCO annotation files, made once and cached, so that all other code reads COCO's."""

import codecs
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msad_cli import __version__
from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.problem_tally import Tally
from msad_cli.data.images.decode import TOLERATED
from msad_cli.errors import DataError
from msad_cli.system.cache_folder import cache_folder, file_state, keep_text

DECIMALS = 4
"""Of pixels, in the files that are made."""
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""How texts of Windows' PowerShell and of its editor's "Unicode" begin."""


@dataclass(frozen=True)
class Converted:
    """A COCO document, and what the user has to know of how it came about."""

    document: dict[str, Any]
    notes: tuple[str, ...] = ()


def cached(
    name: str, sources: Iterable[str | Path], make: Callable[[], Converted], also: object = ()
) -> tuple[Path, tuple[str, ...]]:
    """The annotation file that was made of some sources, if none of them changed since; else made and cached now.

    Args:
        name: the beginning of the file's name.
        sources: every file that the document depends on, whether it is there or not.
        make: reads them.
        also: whatever else the document depends on, which is known by its words.

    Returns:
        The file and the notes.
    """
    digest = hashlib.blake2b(repr((__version__, name, also)).encode(), digest_size=16)
    for each in sources:
        digest.update(repr((os.path.abspath(each), file_state(each))).encode())
    file = cache_folder() / "converted" / f"{name}-{digest.hexdigest()}.json"
    notes = file.with_suffix(".notes.json")
    try:
        if file.is_file():
            return file, tuple(map(str, json.loads(notes.read_bytes())))
    except (OSError, ValueError):
        pass  # somebody cleaned up by halves
    made = make()
    keep_text(notes, json.dumps(made.notes))
    keep_text(file, json.dumps(made.document))
    return file, made.notes


def report_bad(bad: Sequence[str], total: int, tally: Tally) -> None:
    """Counts objects that cannot be read, in words, of so many: a few are left out, more are refused."""
    kind = kinds.FEW_BAD_LABELS if len(bad) <= TOLERATED * total else kinds.BAD_LABELS
    tally.add_all(kind, range(len(bad)), bad.__getitem__)


def read_text(file: Path) -> str:
    """The text of a small file of a set, in UTF-8 or with the mark of UTF-16.

    Raises:
        DataError: it is not there, no file, or no such text.
    """
    try:
        if file.exists() and not file.is_file():
            raise DataError(f"{file}: not a file", code="not-a-file")
        content = file.read_bytes()
        text = content.decode("utf-16" if content.startswith(UTF_16) else "utf-8-sig")
        return io.StringIO(text, newline=None).read()
    except FileNotFoundError:
        raise DataError(f"no such file: {file}", code="file-missing") from None
    except UnicodeDecodeError:
        raise DataError(f"{file}: not a text in UTF-8", "save it as UTF-8", code="not-utf-8") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})", code="read-refused") from None
