"""Which of the known names somebody may have meant."""

import difflib
from collections.abc import Iterable

LONGEST = 100
"""Characters of what was typed that are compared: a model file's metadata may claim names of megabytes."""


def meant(typed: object, known: Iterable[str]) -> str:
    """`; did you mean resnet18?` for the end of a message, or nothing where no known name is like what was typed."""
    # Swapped letters and a missing hyphen are near enough, another word of the same kind is not.
    nearest = difflib.get_close_matches(str(typed)[:LONGEST], known, n=1, cutoff=0.7)
    return f"; did you mean {nearest[0]}?" if nearest else ""
