"""Where msad keeps what it can make again: the demo set, finished checks."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$MSAD_CACHE, else $XDG_CACHE_HOME/msad, else ~/.cache/msad. It need not exist.

    Raises:
        RuntimeError: none of them is set, and the user has no home.
    """
    own = os.environ.get("MSAD_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "msad"
