"""Where tests find what is not theirs: the tree they test, and files that no clone has."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("MSAD_SHARED") or ROOT.parent / "shared" / "data")
"""Larger sets and reference values; tests that look at them are marked `shared` with what they need of it."""
