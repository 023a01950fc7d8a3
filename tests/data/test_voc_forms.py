"""Pascal VOC as tools write it: corners from 0 or 1, encodings, turned boxes, names and folders of all kinds."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.labelled_files import draw_grey, write

from msad_cli.cli.app import run
from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.split import read_split
from msad_cli.data.layouts.base import Files
from msad_cli.data.layouts.splits import find_split, records_of
from msad_cli.errors import DataError

WIDTH, HEIGHT = 90, 50

draw = partial(draw_grey, size=(WIDTH, HEIGHT))


def thing(*corners: float, name: str = "cat") -> str:
    tags = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(tags, corners, strict=True))
    return f"<object><name>{name}</name><bndbox>{box}</bndbox></object>"


def xml(*objects: str, filename: str = "", head: str = "") -> str:
    told = f"<filename>{filename}</filename>" if filename else ""
    return f"{head}<annotation>{told}\n" + "\n".join(objects) + "</annotation>"


def made(folder: Path, split: str) -> tuple[Files, dict[str, Any]]:
    found = find_split(str(folder), split)
    document: dict[str, Any] = json.loads(found.annotations.read_text())
    return found, document


def both(folder: Path) -> tuple[list[str], list[list[float]]]:
    """Names of all images, and boxes in the order of their images' names."""
    images: dict[str, list[list[float]]] = {}
    for split in ("train", "val"):
        _, document = made(folder, split)
        for each in document["images"]:
            own = [of["bbox"] for of in document["annotations"] if of["image_id"] == each["id"]]
            images[each["file_name"]] = own
    return sorted(images), [box for name in sorted(images) for box in images[name]]


def random_corners(rng: np.random.Generator, low: int) -> list[tuple[int, int, int, int]]:
    """Two boxes an image of six, no corner of which is below `low`."""
    found = []
    for _ in range(12):
        x, y = (int(rng.integers(low, side - 20)) for side in (WIDTH, HEIGHT))
        found.append((x, y, x + int(rng.integers(2, 19)), y + int(rng.integers(2, 19))))
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("zero", [False, True])
def test_a_corner_at_0_anywhere_proves_that_all_count_from_0(tmp_path: Path, seed: int, zero: bool) -> None:
    rng = np.random.default_rng(seed)
    corners = random_corners(rng, 1)
    if zero:
        place, side = int(rng.integers(12)), int(rng.integers(2))
        corners[place] = tuple(0 if i == side else value for i, value in enumerate(corners[place]))  # type: ignore[assignment]
    for i in range(6):
        write(tmp_path / f"Annotations/{i}.xml", xml(*(thing(*each) for each in corners[2 * i : 2 * i + 2])))
        draw(tmp_path / f"JPEGImages/{i}.png")
    _, boxes = both(tmp_path)
    # From 1, the end is inside: 1, 1, 10, 10 are ten pixels. From 0 it is outside.
    shift = 0 if zero else 1
    assert boxes == [[x0 - shift, y0 - shift, x1 - x0 + shift, y1 - y0 + shift] for x0, y0, x1, y1 in corners]
    said = [note for note in find_split(str(tmp_path), "train").notes if "counted from 0" in note]
    assert [note.startswith(f"{tmp_path}: 1 objects") for note in said] == [True] * zero


def test_what_is_no_object_proves_nothing(tmp_path: Path) -> None:
    write(tmp_path / "Annotations/a.xml", xml(thing(0, 0, 0, 0), thing(11, 11, 20, 20)))
    write(tmp_path / "Annotations/b.xml", xml(thing(11, 11, 20, 20)))
    for name in "ab":
        draw(tmp_path / f"JPEGImages/{name}.png")
    assert [10, 10, 10, 10] in both(tmp_path)[1]


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("gb2312", "gb2312"),
        ("GBK", "gbk"),
        ("gb2312", "gb18030"),
        ("UTF-16", "utf-16"),
        ("utf-16", "utf-16-le"),
        ("utf-16", "utf-16-be"),
        ("big5", "big5"),
        ("Shift_JIS", "shift_jis"),
        ("utf-8", "utf-8-sig"),
        ("", "utf-8"),
    ],
)
def test_texts_are_read_in_the_encoding_that_they_declare(tmp_path: Path, declared: str, encoding: str) -> None:
    head = f'<?xml version="1.0" encoding="{declared}"?>\n' if declared else ""
    for name in "ab":
        write(tmp_path / f"Annotations/{name}.xml", xml(thing(2, 2, 9, 9, name="山"), head=head), encoding)
        draw(tmp_path / f"JPEGImages/{name}.png")
    assert made(tmp_path, "train")[1]["categories"] == [{"id": 1, "name": "山"}]


@pytest.mark.parametrize(
    ("head", "content"),
    [
        ("", "<annotation>\xe9</annotation>"),
        ('<?xml version="1.0" encoding="utf-8"?>', "<annotation>\xe9</annotation>"),
        ('<?xml version="1.0" encoding="rot13"?>', "<annotation/>"),
        ('<?xml version="1.0" encoding="klingon"?>', "<annotation/>"),
    ],
)
def test_a_text_in_another_encoding_is_named(tmp_path: Path, head: str, content: str) -> None:
    write(tmp_path / "Annotations/a.xml", head + content, "latin-1")
    write(tmp_path / "Annotations/b.xml", xml())
    with pytest.raises(DataError, match=r"a\.xml: not a text in .*, the encoding that it declares"):
        find_split(str(tmp_path), "train")


def test_turned_boxes_and_polygons_are_enclosed_and_counted(tmp_path: Path) -> None:
    values = {"cx": 40.5, "cy": 25.0, "w": 20.0, "h": 8.0, "angle": 0.7}
    turned = "<robndbox>" + "".join(f"<{tag}>{value}</{tag}>" for tag, value in values.items()) + "</robndbox>"
    points = ((10, 5), (30, 7), (22, 40))
    polygon = "<polygon>" + "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in points) + "</polygon>"
    numbered = "<polygon>" + "".join(f"<x{i}>{x}</x{i}><y{i}>{y}</y{i}>" for i, (x, y) in enumerate(points, 1))
    shapes = [f"<object><name>cat</name>{each}</object>" for each in (turned, polygon, f"{numbered}</polygon>")]
    for name in "ab":
        write(tmp_path / f"Annotations/{name}.xml", xml(thing(11, 11, 20, 20), *shapes))
        draw(tmp_path / f"JPEGImages/{name}.png")
    found, document = made(tmp_path, "train")
    boxes = np.array([each["bbox"] for each in document["annotations"]])
    # Corners of the turned rectangle, by a rotation matrix.
    turn = np.array([[math.cos(0.7), -math.sin(0.7)], [math.sin(0.7), math.cos(0.7)]])
    corners = np.array([(sx * 10, sy * 4) for sx in (-1, 1) for sy in (-1, 1)]) @ turn.T + (40.5, 25.0)
    low, high = corners.min(axis=0), corners.max(axis=0)
    expected = [[10, 10, 10, 10], [*low, *(high - low)], [10, 5, 20, 35], [10, 5, 20, 35]]
    np.testing.assert_allclose(boxes, expected, atol=1e-4)
    assert any("3 objects without a bndbox are read as the box that encloses" in note for note in found.notes)


def test_a_bad_object_stops_nothing_else(tmp_path: Path) -> None:
    """Under 1% of all objects are left out and counted; more are refused, all of them named."""
    good = [thing(11, 11, 20, 20)] * 100
    for name in "ab":
        write(tmp_path / f"Annotations/{name}.xml", xml(*good, thing(0.5, 1, 9, math.nan)))
        draw(tmp_path / f"JPEGImages/{name}.png")
    found, document = made(tmp_path, "train")
    assert len(document["annotations"]) == 100
    records = records_of({"train": found}, "boxes")["train"]
    assert {each.code: each.count for each in records.problems}[kinds.FEW_BAD_LABELS.code] == 1
    write(tmp_path / "Annotations/a.xml", xml(*good[:3], thing(1, 1, 9, math.nan), "<object><name>x</name></object>"))
    write(tmp_path / "Annotations/b.xml", xml(*good[:3], thing(1, 1, 9, math.nan), "<object><name>x</name></object>"))
    found, _ = made(tmp_path, "train")
    with pytest.raises(DataError, match=r"ymax 'nan' is no number \(one of 2\)"):
        read_split(found.annotations, found.images)
    assert run(["data", "check", str(tmp_path)]) == 3


PLACES = [
    ("Annotations/{}.xml", "JPEGImages/{}.png"),
    ("annotations/{}.xml", "images/{}.png"),
    ("ANNOTATIONS/{}.XML", "jpegimages/{}.PNG"),
    ("Annotations/{}.xml", "Images/{}.jfif"),
    ("xmls/{}.xml", "photos/{}.png"),
    ("{}.xml", "{}.png"),
    ("all/{}.xml", "all/{}.png"),
    ("Annotations/{}.xml", "{}.png"),
    ("Annotations/sub/{}.xml", "JPEGImages/sub/{}.png"),
    ("Annotations/{}.xml", "JPEGImages/deep/{}.png"),
    ("labels/{}.xml", "images/{}.png"),
]


@pytest.mark.parametrize("told", ["", "{}.png", "{}", "C:\\work\\{}.png"])
@pytest.mark.parametrize(("file", "image"), PLACES, ids=[file for file, _ in PLACES])
def test_images_are_found_wherever_they_lie(tmp_path: Path, file: str, image: str, told: str) -> None:
    for name in ("x1", "x2", "x3"):
        write(tmp_path / file.format(name), xml(thing(11, 11, 20, 20), filename=told.format(name)))
        draw(tmp_path / image.format(name))
        draw(tmp_path / f"SegmentationClass/{name}.png")
    for split in ("train", "val"):
        found, document = made(tmp_path, split)
        for each in document["images"]:
            name = Path(each["file_name"]).stem
            assert found.images / each["file_name"] == tmp_path / image.format(name)
    assert run(["data", "check", str(tmp_path), "--size", "64,96"]) == 0


def test_renamed_files_are_found_by_what_they_tell(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / f"Annotations/{i}.xml", xml(thing(11, 11, 20, 20), filename=f"IMG {i}.v2.png"))
        draw(tmp_path / f"JPEGImages/IMG {i}.v2.png")
    assert both(tmp_path)[0] == [f"IMG {i}.v2.png" for i in range(4)]


def test_one_image_is_not_taken_for_several(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"Annotations/{i}.xml", xml(thing(11, 11, 20, 20), filename="image.png"))
    draw(tmp_path / "JPEGImages/image.png")
    assert both(tmp_path)[0] == ["0.jpg", "1.jpg", "2.jpg"]
    assert run(["data", "check", str(tmp_path)]) == 3


@pytest.mark.parametrize(
    "line", ["{}.png", "{}", "JPEGImages/{}.png", "data\\{}.png", "/home/anna/voc/{}.jpg", "{}  1", '"{}"']
)
@pytest.mark.parametrize("folder", ["ImageSets/Main", "imagesets/main", "ImageSets", "."])
def test_lists_name_images_in_many_ways(tmp_path: Path, line: str, folder: str) -> None:
    for name in ("a 1", "b.c", "d"):
        write(tmp_path / f"Annotations/{name}.xml", xml(thing(11, 11, 20, 20)))
        draw(tmp_path / f"JPEGImages/{name}.png")
    write(tmp_path / folder / "Train.txt", "".join(f"{line.format(name)}\n" for name in ("a 1", "b.c")))
    write(tmp_path / folder / "validation.txt", line.format("d"))
    names = [[each["file_name"] for each in made(tmp_path, split)[1]["images"]] for split in ("train", "val")]
    assert names == [["a 1.png", "b.c.png"], ["d.png"]]


def test_files_in_no_splits_folder_are_counted(tmp_path: Path) -> None:
    for place in ("train/a", "train/b", "valid/c", "more/d"):
        write(tmp_path / f"{place}.xml", xml(thing(11, 11, 20, 20)))
        draw(tmp_path / f"{place}.png")
    found, document = made(tmp_path, "train")
    assert [each["file_name"] for each in document["images"]] == ["train/a.png", "train/b.png"]
    assert any("1 XML files lie in no split's folder, and are left out" in note for note in found.notes)


def test_one_stem_with_two_suffixes_is_counted_unless_the_file_tells_which(tmp_path: Path) -> None:
    for name, told in (("a", "a.jpg"), ("b", ""), ("c", "")):
        write(tmp_path / f"Annotations/{name}.xml", xml(thing(11, 11, 20, 20), filename=told))
        for suffix in ("jpg", "png"):
            draw(tmp_path / f"JPEGImages/{name}.{suffix}")
    write(tmp_path / "ImageSets/Main/train.txt", "a\nb\n")
    write(tmp_path / "ImageSets/Main/val.txt", "c\n")
    found, document = made(tmp_path, "train")
    assert document["images"][0]["file_name"] == "a.jpg"
    problems = records_of({"train": found}, "boxes")["train"].problems
    assert {each.code: each.count for each in problems}[kinds.SHARED_LABELS.code] == 1
