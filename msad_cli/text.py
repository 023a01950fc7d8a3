"""Texts for people, fit for a terminal; texts from people, and what they may have meant."""

import difflib
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msad_cli.errors import UsageError
from msad_cli.frame import Letterbox, Resolution

MOST_PIXELS = "178956970"
"""The default of --max-pixels: Pillow's own limit."""

LEAST_ZOOM, MOST_ZOOM = 0.05, 4.0
"""Factors by which an image of training may be scaled in its frame."""
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


def listed(names: Sequence[str], most: int = 5) -> str:
    """`a, b, c`, and of many the first few and how many there are beside them."""
    rest = len(names) - most
    return ", ".join(names) if rest <= 1 else f"{', '.join(names[:most])} and {rest} more"


def percent(value: float | None) -> str:
    """An AP as COCO papers print it, or `-` where nothing is known."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def folded(line: str, width: int) -> str:
    """Parts that two blanks divide in as many lines as a width needs; a part stays whole where it fits."""
    firm = "\N{NO-BREAK SPACE}"
    parts = (part.replace(" ", firm) for part in line.split("  "))
    return "\n".join(textwrap.wrap("  ".join(parts), width, break_on_hyphens=False)).replace(firm, " ")


def printable(text: str) -> str:
    """The text with escapes in place of what a terminal would obey or cannot show: control characters, such as those
    that start a colour or move the cursor, marks that turn the direction of reading, and halves of surrogate pairs.

    Lines and tabs stay.
    """
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode("ascii") for each in text
    )


def name_files(values: object, names: Iterable[str]) -> None:
    """Turns those of a frozen value's fields into paths that a caller from Python gave as texts."""
    for name in names:
        if isinstance(text := getattr(values, name, None), str):
            object.__setattr__(values, name, Path(text))


def refuse_out_of_range(values: object, limits: Mapping[str, tuple[float, float | None]]) -> None:
    """Does nothing where a configuration's numbers are within limits: by field the least, and the largest or None.

    Raises:
        UsageError: one is not.
    """
    for name, (least, most) in limits.items():
        value = getattr(values, name, None)
        if value is not None and not least <= value <= (math.inf if most is None else most):
            flag = f"--{name.rstrip('_').replace('_', '-')}"
            span = f"at least {least}" if most is None else f"from {least} to {most}"
            raise UsageError(f"{flag} {value}: not {span}", f"give {flag} a number that is", code="number-out-of-range")


def parse_ks(flag: str, text: str, known: str = "124") -> tuple[int, ...]:
    """`2,4` -> (2, 4): different reductions, ascending.

    Raises:
        UsageError: not a list of some of the known ones.
    """
    parts = text.split(",")
    if not set(parts) <= set(known) or len(set(parts)) < len(parts):
        raise UsageError(
            f"{flag} {text}: grids of two resolutions agree where one is 2 or 4 times the other (pyramid levels are "
            "powers of two apart, and P1 is the finest that a backbone gives)",
            f"{flag} 2, {flag} 4 or {flag} 2,4",
            code="k-refused",
        )
    return tuple(sorted(int(part) for part in parts))


def parse_duration(flag: str, text: str) -> float:
    """`90s`, `45m`, `2h`, `1h30m` or plain seconds, in seconds.

    Raises:
        UsageError: it is none of these.
    """
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip().lower())
    if not match or not any(match.groups()):
        raise UsageError(f"{flag} {text}: not a time", f"such as {flag} 90s, 45m, 2h or 1h30m", code="not-a-time")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(3600 * hours + 60 * minutes + seconds)


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `2 h 10 min`, `3 days 4 h`: two units at most."""
    for unit, parts, (long, short) in ((86_400, 24, ("days", "h")), (3600, 60, ("h", "min"))):
        if seconds >= unit:
            whole, rest = divmod(round(seconds * parts / unit), parts)
            return f"{whole} {'day' if (whole, long) == (1, 'days') else long}" + (f" {rest} {short}" if rest else "")
    return f"{max(1, round(seconds / 60))} min" if seconds >= 90 else f"{max(1, round(seconds))} s"


def size_text(size: Resolution) -> str:
    """A size as `parse_size` takes it."""
    return f"{size.short_side},{size.long_side}"


def parse_size(text: str) -> Resolution:
    """`800,1333` -> short side 800, long side at most 1333 (HR pixels); `800` alone limits the long side to 5/3 of it.

    `800x1333` and `1333x800` are the same: other tools write one or the other.

    Raises:
        UsageError: not one or two numbers, or out of range.
    """
    try:
        short, *long = (int(part) for part in _short_first(text).split(","))
        if len(long) > 1:
            raise ValueError("more than two numbers")
        return Resolution(short, long[0] if long else round(short * 5 / 3))
    except (ValueError, IndexError) as error:
        raise UsageError(
            f"--size {text}: {error}", "give SHORT,LONG in pixels, such as --size 800,1333", code="size-refused"
        ) from None


def _short_first(text: str) -> str:
    """`1333x800` as `800,1333`; whatever else as it is."""
    sides = re.fullmatch(r"\s*(\d{1,9})\s*[x×*]\s*(\d{1,9})\s*", text, re.IGNORECASE)
    return ",".join(sorted(sides.groups(), key=int)) if sides else text


def parse_sizes(text: str | None, k: int, own: Resolution) -> dict[int, Resolution]:
    """HR sizes by the short side of the image that a model sees, which is 1/k of them.

    `800,1333` or `800` is one HR size, as everywhere; `400,360,320`, falling, are several sizes of what the model sees,
    each with the sides' ratio of the model's own size, which nothing stands for.

    Raises:
        UsageError: it is none of these, or out of range, or the model takes one size alone.
    """
    if text and isinstance(own, Letterbox):
        raise UsageError(
            f"--size {text}: this model's sides are fixed",
            "leave it out, or export without --fixed",
            code="model-sides-fixed",
        )
    try:
        numbers = [int(part) for part in _short_first(text).split(",")] if text else []
        if len(numbers) < 2 or numbers[0] <= numbers[1]:
            one = parse_size(text) if text else own
            return {one.short_side // k: one}
        if sorted(set(numbers), reverse=True) != numbers:
            raise ValueError("several sizes fall from the first to the last")
        longer = own.long_side / own.short_side
        return {side: Resolution(side * k, round(side * k * longer)) for side in numbers}
    except ValueError as error:
        raise UsageError(
            f"--size {text}: {error}",
            "--size 800,1333 is one HR size, --size 400,360,320 are three",
            code="size-refused",
        ) from None


def parse_classes(text: str | None, categories: Sequence[tuple[int, str]]) -> set[int] | None:
    """`red,90` -> the labels (places, from 1) of the classes of these names or ids; None, for all, of None.

    Raises:
        UsageError: there is no such class.
    """
    if text is None:
        return None
    labels: set[int] = set()
    for word in text.split(","):
        own = {label for label, (_, name) in enumerate(categories, start=1) if name == word}
        # A class that is called 7 comes before the one of id 7.
        own = own or {label for label, (number, _) in enumerate(categories, start=1) if str(number) == word}
        if not own:
            names = [name for _, name in categories]
            near = nearest(word, names, 0.6)
            hint = f"did you mean {near}?" if near else f"known: {', '.join(names[:20])}{', …' * (len(names) > 20)}"
            raise UsageError(f"--classes {text}: the model has no class {word!r}", hint, code="unknown-class")
        labels |= own
    return labels


def parse_pixels(text: str) -> int:
    """`500M` -> 500,000,000 pixels; K, M and G stand for thousands, millions and thousands of millions.

    Raises:
        UsageError: no such number, or none that is positive.
    """
    match = re.fullmatch(r"(\d{1,12})([kmg]?)", text.lower(), re.ASCII)
    if match is None or int(match[1]) == 0:
        raise UsageError(
            f"--max-pixels {text}: not a number of pixels", "such as --max-pixels 500M", code="not-a-number-of-pixels"
        )
    return int(match[1]) * {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}[match[2]]


def parse_class_weights(text: str, names: Sequence[str]) -> dict[str, float]:
    """`disc=2,my class=0.5` as weights of some of these classes.

    Raises:
        UsageError: another name, or a weight that is not a positive number.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.rpartition("=")
        try:
            weights[name] = float(value)
        except ValueError:
            weights[name] = math.nan
        if name not in names or not 0 < weights[name] < math.inf:
            raise UsageError(
                f"--class-weights {part}: not CLASS=NUMBER{meant(name, names)}",
                f"auto, or some of {', '.join(names[:20])}, such as {names[0]}=2",
                code="weight-malformed",
            )
    return weights


def parse_zoom(text: str | None) -> tuple[float, float] | None:
    """`0.5,1.5` -> the least and the largest factor; None of None.

    Raises:
        UsageError: not two numbers, or out of range.
    """
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = 0.0
    if not LEAST_ZOOM <= low <= high <= MOST_ZOOM:
        raise UsageError(
            f"--zoom {text}: not LOW,HIGH from {LEAST_ZOOM:g} to {MOST_ZOOM:g}",
            "such as --zoom 0.5,1.5; 1,1 is none",
            code="zoom-malformed",
        )
    return low, high


def parse_sigmas(text: str | None, keypoints: Sequence[str]) -> tuple[float, ...]:
    """`0.05,0.1` for keypoints of these names; nothing where nothing is given.

    Raises:
        UsageError: it is not one positive number for each.
    """
    if text is None:
        return ()
    if not keypoints:
        raise UsageError("--sigmas: the model finds no keypoints", "leave it out", code="sigmas-without-keypoints")
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != len(keypoints) or not all(0 < each < math.inf for each in values):
        raise UsageError(
            f"--sigmas {text}: not {len(keypoints)} positive numbers",
            f"in the order of {', '.join(keypoints)}",
            code="sigmas-malformed",
        )
    return values
