"""Single values of a COCO record, as tools of all kinds write them."""

import re
import reprlib
from typing import Any, TypeGuard

from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.problem_tally import Tally

INT64 = 2**63
EXACT = 2**53
"""Doubles hold every whole number up to here."""
LONGEST_SIDE = 2**31
LARGEST_AREA = 1e18
LONGEST_SHOWN = 120
MOST_KEYPOINTS = 1_000
"""Of one object."""
CROWD: dict[str | float, int] = {0: 0, 1: 1, "0": 0, "1": 1}
WORDS_OF_FLAGS = {"0.0": 0, "1.0": 1, "false": 0, "true": 1, "no": 0, "yes": 1, "n": 0, "y": 1, "f": 0, "t": 1}
"""What tools write for a flag; any other text, and an empty one, is none."""
WHOLE = re.compile(r"\s*[+-]?[0-9]{1,19}\s*", re.ASCII)


def shown(value: object) -> str:
    """A value in a message: quoted, cut to size however large or deep it is, safe to print."""
    return repr(value[:LONGEST_SHOWN]) if isinstance(value, str) else reprlib.repr(value)


def whole_number(value: object) -> int | None:
    """12, "12" and 12.0 as 12; None for anything else (12.5, true, NaN, texts) and for what needs more than 64 bits."""
    if isinstance(value, str):
        number = int(value) if WHOLE.fullmatch(value) else None
    elif isinstance(value, float):
        number = int(value) if value.is_integer() else None
    else:
        number = value if type(value) is int else None  # a bool is no number here
    return number if number is not None and -INT64 <= number < INT64 else None


def read_id(record: dict[str, Any], field: str, where: str, row: int, tally: Tally) -> int | None:
    """The id in a field, or None; what is odd about it is counted.

    Args:
        record, field: where the id stands.
        where, row: the list, and the record's place in it from 1, for the message.
        tally: takes the problems.
    """
    value = record.get(field)
    if type(value) is int and -EXACT <= value <= EXACT:
        return value
    number = whole_number(value)
    if number is None:
        tally.add(kinds.BAD_ID, "{}, record {}: {} {}", where, row, field, shown(value))
    elif type(value) is not int:
        tally.add(kinds.LOOSE_ID, "{}, record {}: {} {}", where, row, field, shown(value))
    if number is not None and abs(number) > EXACT:
        tally.add(kinds.LARGE_ID, "{}, record {}: {} {}", where, row, field, number)
    return number


def read_side(value: object) -> int:
    """Width or height in pixels, 0 for what is neither."""
    number = whole_number(value) if isinstance(value, int | float) else None
    return number if number is not None and 0 < number < LONGEST_SIDE else 0


def read_box(value: object) -> tuple[float, float, float, float] | None:
    """x, y, width, height; None unless these are four numbers (or texts of such). NaN and infinity are numbers here."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    try:
        x, y, w, h = map(float, value)
    except (TypeError, ValueError, OverflowError):
        return None
    return x, y, w, h


def is_area(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number of square pixels."""
    return isinstance(value, int | float) and 0 <= value <= LARGEST_AREA and not isinstance(value, bool)


def read_area(value: object, box: tuple[float, float, float, float], of: int, tally: Tally) -> float:
    """The area in square pixels; the box's where there is none, or one that is no number, of annotation `of`."""
    if is_area(value):
        return float(value)
    tally.add(kinds.NO_AREA if value is None else kinds.ODD_AREA, "annotation {}", of)
    return box[2] * box[3]


def read_crowd(record: dict[str, Any], of: int, tally: Tally) -> int:
    """1 for a region that is neither learnt nor counted, else 0.

    That is one of many objects (`iscrowd`), or one that is marked `ignore`, which pycocotools forgets.

    Args:
        record: an annotation.
        of: its id.
        tally: takes the problems.
    """
    value = record.get("iscrowd")
    crowd = read_flag(value)
    if value is None:
        tally.add(kinds.NO_CROWD, "annotation {}", of)
    elif isinstance(value, str) or not (isinstance(value, int | float) and value in CROWD):
        tally.add(kinds.ODD_CROWD, "annotation {}: {}, read as {}", of, shown(value), crowd)
    if not crowd and read_flag(record.get("ignore")):
        tally.add(kinds.IGNORED, "annotation {}: ignore {}", of, shown(record["ignore"]))
        return 1
    return crowd


def read_flag(value: object) -> int:
    """1 for what is meant as true, else 0: numbers other than 0, and texts such as "1" and "true"."""
    if isinstance(value, str):
        plain = value.strip().casefold()
        return CROWD.get(plain, WORDS_OF_FLAGS.get(plain, 0))
    return int(bool(value))
