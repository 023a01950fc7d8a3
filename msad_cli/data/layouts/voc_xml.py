"""The XML files of Pascal VOC's kind: their texts in any encoding, their elements with lines, their objects' boxes."""

import codecs
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from msad_cli.data.annotations.values import shown
from msad_cli.data.layouts.cache import DECIMALS
from msad_cli.errors import DataError

DEEPEST = 50
"""Elements within each other."""
CORNERS = ("xmin", "ymin", "xmax", "ymax")
DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
UNMARKED = {b"<\0": "utf-16-le", b"\0<": "utf-16-be"}
"""How UTF-16 begins without a mark."""
WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "iso8859-1": "cp1252", "ascii": "utf-8"}
"""What programs write who declare less."""
BEGINNING = 4096
"""Bytes that tell of what kind an XML file is."""
ANNOTATION = re.compile(r"<annotation[\s>]")
OTHERS = {
    "CVAT (CVAT for images)": re.compile(r"<annotations[\s>]"),
    "dlib's imglab": re.compile(r"<dataset[\s>].*<images[\s>]", re.DOTALL),
}
"""Who writes the images of a set into one XML file, and how that begins."""


@dataclass
class Element:
    """An element with its line and what is in it."""

    tag: str
    line: int
    text: str = ""
    children: "list[Element]" = field(default_factory=list)

    def all(self, tag: str) -> Iterator["Element"]:
        """Children of that name."""
        return (each for each in self.children if each.tag == tag)

    def text_of(self, tag: str) -> str:
        """Of the first child of that name; empty without one."""
        return next((each.text.strip() for each in self.all(tag)), "")


def is_annotation(file: Path) -> bool:
    """Whether an XML file begins as the annotation of one image."""
    return ANNOTATION.search(_beginning(file)) is not None


def refuse_other_tool(file: Path) -> None:
    """Says whose an XML file is that holds all images of a set.

    Raises:
        DataError: it is one.
    """
    beginning = _beginning(file)
    for name, begins in OTHERS.items():
        if begins.search(beginning):
            raise DataError(
                f"{file}: written by {name}, one XML file for all images",
                "export the set as COCO there, or as YOLO or Pascal VOC",
                code="xml-of-another-tool",
            )


def _beginning(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            beginning = opened.read(BEGINNING)
        return beginning.decode(_encoding(beginning), errors="ignore")
    except (OSError, LookupError):
        return ""


def parse(file: Path) -> Element:
    """The elements of an XML file with their lines, below its outermost one.

    Raises:
        DataError: it cannot be read, or is no XML that an annotation needs.
    """
    parser = expat.ParserCreate()
    above = [Element("", 0)]

    def start(tag: str, _: object) -> None:
        if len(above) > DEEPEST:
            raise ValueError("elements lie too deep")
        above[-1].children.append(Element(tag, parser.CurrentLineNumber))
        above.append(above[-1].children[-1])

    def take(text: str) -> None:
        above[-1].text += text

    def refuse(*_: object) -> None:
        raise ValueError("declares entities, which no annotation needs")

    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: above.pop()
    parser.CharacterDataHandler = take
    parser.EntityDeclHandler = refuse  # a few of them can stand for gigabytes, or for another file
    try:
        parser.Parse(_text(file), True)
    except expat.ExpatError as error:
        what = expat.ErrorString(error.code)
        raise DataError(
            f"{file}: broken XML at line {error.lineno}, column {error.offset + 1}: {what}", code="xml-broken"
        ) from None
    except ValueError as error:
        raise DataError(f"{file}, line {parser.CurrentLineNumber}: {error}", code="xml-refused") from None
    return above[0].children[0]


def _encoding(beginning: bytes) -> str:
    """By a mark, else as declared, else UTF-8."""
    for mark, name in (MARKS | UNMARKED).items():
        if beginning.startswith(mark):
            return name
    declared = DECLARED.match(beginning)
    name = codecs.lookup(declared[1].decode("ascii")).name if declared else "utf-8"
    return WIDER.get(name, "utf-8" if name.startswith("utf-16") else name)


def _text(file: Path) -> str:
    try:
        if file.exists() and not file.is_file():
            raise DataError(f"{file}: not a file", code="not-a-file")
        content = file.read_bytes()
        name = "UTF-8"
        name = _encoding(content[:BEGINNING])
        return content.decode(name)
    except (LookupError, UnicodeDecodeError):
        raise DataError(
            f"{file}: not a text in {name}, the encoding that it declares",
            "save it as UTF-8",
            code="xml-encoding",
        ) from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})", code="read-refused") from None


def number(text: str) -> float | None:
    """A finite number; None for any other text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


@dataclass(frozen=True)
class Corners:
    """Where an object is.

    Attributes:
        ends: x0, y0, x1, y1 as its file has them.
        counted: they number pixels, from 1 or from 0; else they are places between pixels, from 0.
    """

    ends: tuple[float, float, float, float]
    counted: bool

    def box(self, first: int) -> list[float]:
        """x, y, width, height; `first` is the number of the first pixel, and from 1 on the last one is inside."""
        shift = first if self.counted else 0
        left, top, right, bottom = self.ends
        values = (left - shift, top - shift, right - left + shift, bottom - top + shift)
        return [round(each, DECIMALS) for each in values]


def read_corners(element: Element) -> Corners:
    """The corners of an object: of its `bndbox`, else of what encloses its `robndbox` or `polygon`.

    Raises:
        ValueError: it has none of them, or one that cannot be read; or it is several objects in one.
    """
    for tag in ("name", "bndbox"):
        if (count := sum(1 for _ in element.all(tag))) > 1:
            raise ValueError(f"an object with {count} times {tag}; each object is an element of its own")
    if (box := next(element.all("bndbox"), None)) is not None:
        values = []
        for corner in CORNERS:
            value = number(box.text_of(corner))
            if value is None:
                raise ValueError(f"{corner} {shown(box.text_of(corner))} is no number")
            values.append(value)
        left, top, right, bottom = values
        return Corners((left, top, right, bottom), counted=True)
    if (turned := next(element.all("robndbox"), None)) is not None:
        return Corners(_turned(turned), counted=False)
    if (polygon := next(element.all("polygon"), None)) is not None:
        return Corners(_extent(polygon), counted=False)
    raise ValueError("an object without a bndbox")


def _turned(element: Element) -> tuple[float, float, float, float]:
    """What encloses roLabelImg's centre, sides, and angle in radians."""
    values = {tag: number(element.text_of(tag)) for tag in ("cx", "cy", "w", "h", "angle")}
    for tag, value in values.items():
        if value is None:
            raise ValueError(f"{tag} {shown(element.text_of(tag))} of a robndbox is no number")
    x, y, width, height, angle = (value or 0.0 for value in values.values())
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    half = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
    return x - half[0], y - half[1], x + half[0], y + half[1]


def _extent(element: Element) -> tuple[float, float, float, float]:
    """What encloses a polygon: LabelMe's `pt` with `x` and `y`, or `x1`, `y1`, `x2`, `y2`, …"""
    numbers: dict[str, list[float]] = {"x": [], "y": []}
    for each in (*element.children, *(child for point in element.all("pt") for child in point.children)):
        if re.fullmatch(r"[xy]\d*", each.tag) and (value := number(each.text)) is not None:
            numbers[each.tag[0]].append(value)
    if len(numbers["x"]) < 3 or len(numbers["x"]) != len(numbers["y"]):
        raise ValueError("a polygon without three points")
    return min(numbers["x"]), min(numbers["y"]), max(numbers["x"]), max(numbers["y"])
