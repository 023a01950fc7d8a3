"""Texts for people: fit for a terminal, and which of the known names somebody may have meant."""

import difflib
from collections.abc import Iterable

LONGEST = 100
"""Characters of what was typed that are compared: a model file's metadata may claim names of megabytes."""


def meant(typed: object, known: Iterable[str]) -> str:
    """`; did you mean resnet18?` for the end of a message, or nothing where no known name is like what was typed."""
    # Swapped letters and a missing hyphen are near enough, another word of the same kind is not.
    near = nearest(typed, known, 0.7)
    return f"; did you mean {near}?" if near else ""


def nearest(typed: object, known: Iterable[str], likeness: float) -> str:
    """The known name that is most like what was typed, in any case; empty where none is so like it, from 0 to 1."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(str(typed)[:LONGEST].lower(), by_lower, n=1, cutoff=likeness)
    return by_lower[near[0]] if near else ""


def printable(text: str) -> str:
    """The text with escapes in place of what a terminal would obey or cannot show: control characters, such as those
    that start a colour or move the cursor, marks that turn the direction of reading, and halves of surrogate pairs.

    Lines and tabs stay.
    """
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode("ascii") for each in text
    )
