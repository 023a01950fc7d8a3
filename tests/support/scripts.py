"""Scripts that lie beside the package, as modules."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def script(monkeypatch: pytest.MonkeyPatch, path: str) -> Any:
    """One such as `benchmarks/peers.py`; for the test it imports its neighbours as it does when it is run."""
    file = ROOT / path
    monkeypatch.syspath_prepend(str(file.parent))
    return import_module(file.stem)
