"""Text from files, fit for a terminal."""


def printable(text: str) -> str:
    """The text with escapes in place of what a terminal would obey or cannot show: control characters, such as those
    that start a colour or move the cursor, marks that turn the direction of reading, and halves of surrogate pairs.

    Lines and tabs stay.
    """
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode("ascii") for each in text
    )
