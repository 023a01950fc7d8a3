"""Where msad caches what it can make again: the demo set, finished checks, sets of other layouts as COCO's."""

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """$MSAD_CACHE, else $XDG_CACHE_HOME/msad, else ~/.cache/msad. It need not exist.

    Raises:
        RuntimeError: none of them is set, and the user has no home.
    """
    own = os.environ.get("MSAD_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "msad"


def keep_text(path: Path, text: str) -> None:
    """Writes a file of the cache; whoever looks finds all of it or nothing.

    Raises:
        OSError: the system refuses.
    """
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
