"""The check of a data set: every kind of problem, what is kept of it, and the repair that leaves none."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from msad_cli.cli.app import run
from msad_cli.data.annotations import check_cache as checking
from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.boxes import judge_boxes
from msad_cli.data.annotations.check import Report, check
from msad_cli.data.annotations.objects import segmentation_kind
from msad_cli.data.annotations.problem_tally import EXAMPLES, Problem, Tally
from msad_cli.data.annotations.records import read_records
from msad_cli.data.annotations.split import read_split
from msad_cli.data.annotations.values import whole_number
from msad_cli.data.images.decode import Header
from msad_cli.errors import DataError
from msad_cli.evaluation.ground_truth import ground_truth
from msad_cli.evaluation.metrics import score
from msad_cli.frame import Resolution

Document = dict[str, Any]
Change = Callable[[Document], Any]

RESOLUTION = Resolution(64, 96)
SIZES = ["--size", "64,96"]


@pytest.fixture
def clean(coco_folder: Path) -> Path:
    """The folder of conftest.py without its one problem, the box without width; its image d.png has one box left."""
    change(coco_folder, lambda document: document["annotations"].pop(3))
    return coco_folder


def annotation_file(folder: Path, split: str = "train") -> Path:
    return folder / "annotations" / f"instances_{split}2017.json"


def change(folder: Path, how: Change, split: str = "train") -> None:
    file = annotation_file(folder, split)
    document = json.loads(file.read_text())
    how(document)
    file.write_text(json.dumps(document))


def check_folder(folder: Path, ks: tuple[int, ...] = (1, 2), *, decode: bool = False) -> Report:
    train = read_records(annotation_file(folder), folder / "train2017")
    val = read_records(annotation_file(folder, "val"), folder / "val2017", train.categories)
    return check({"train": train, "val": val}, RESOLUTION, ks, decode)


def found(report: Report) -> dict[tuple[str, str], int]:
    return {(name, each.code): each.count for name, each in report.problems}


def count_headers(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The images whose headers are read from now on; each is said to have 64×48 pixels."""
    read: list[Path] = []

    def read_header(path: Path) -> Header:
        read.append(path)
        return Header((48, 64), orientation=1, scalable=False)

    monkeypatch.setattr("msad_cli.data.images.split_images.read_header", read_header)
    return read


def set_in(list_: str, place: int, /, **fields: Any) -> Change:
    return lambda document: document[list_][place].update(fields)


def add(name: str, *records: Any) -> Change:
    return lambda document: document[name].extend(records)


def both(*changes: Change) -> Change:
    return lambda document: [each(document) for each in changes]


def box(*sides: float, **fields: Any) -> Document:
    """An annotation of image 30 and class 7 that lacks nothing."""
    return {"id": 90, "image_id": 30, "category_id": 7, "bbox": list(sides), "area": 1, "iscrowd": 0, **fields}


# --- what a clean set is like ---


def test_a_clean_set_has_counts_and_sizes_and_no_problems(clean: Path) -> None:
    report = check_folder(clean)
    assert report.problems == []
    train, val = report.splits
    # From the tables of conftest.py: 6 annotations less the one taken out, one of them a crowd region; image 20 has
    # none, and image 10 one box.
    assert train.counts == {
        "images": 4,
        "images without boxes": 1,
        "annotations": 5,
        "boxes to learn from": 4,
        "crowd regions": 1,
        "classes": 2,
        "classes without boxes": 0,
        "segmentations: none": 5,
    }
    assert train.classes == ((7, "red", 3), (90, "blue", 1))
    assert val.classes == ((7, "red", 2), (90, "blue", 2))
    # HR frames have 84 × 64 pixels for 64 × 48. Boxes of 20×16, 16×20, 16×12 and 14×18 pixels: the median of their
    # √area, 17.89 · 1.3229 = 23.66 twice, 13.86 · 1.3229 = 18.33 and 15.87 · 1.3229 = 21.00, lies between 21 and 23.66.
    assert [each.k for each in train.sizes] == [1, 2]
    assert train.sizes[0].quantiles[1] == pytest.approx((21.0 + 23.66) / 2, abs=0.01)
    assert train.sizes[1].quantiles[1] == pytest.approx(train.sizes[0].quantiles[1] / 2, abs=0.01)
    assert train.sizes[0].small_share == 0


def test_a_report_survives_json(coco_folder: Path) -> None:
    report = check_folder(coco_folder)
    assert report.problems
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


# --- every kind of problem ---

# What is changed in the training split, the problem that has to be found there, and how often.
PROBLEMS: list[tuple[Change, Problem, int]] = [
    (lambda document: document["images"].clear(), kinds.NO_IMAGES, 1),
    (add("annotations", None, "text", box(1, 2, 3)), kinds.MALFORMED, 3),
    (set_in("images", 1, id=12.5), kinds.BAD_ID, 1),
    (add("annotations", box(1, 2, 3, 4, image_id=[]), box(1, 2, 3, 4, category_id="x")), kinds.BAD_ID, 2),
    (set_in("categories", 0, id=7), kinds.REPEATED_ID, 1),
    (set_in("images", 0, id=10.0), kinds.REPEATED_ID, 1),
    (add("annotations", box(1, 2, 3, 4, image_id=31)), kinds.UNLISTED_IMAGE, 1),
    (add("annotations", box(1, 2, 3, 4, category_id=8)), kinds.UNKNOWN_CATEGORY, 1),
    (set_in("images", 2, file_name="../nowhere.png"), kinds.BAD_NAME, 1),
    (lambda document: document["annotations"].clear(), kinds.NO_BOXES, 1),
    (lambda document: [each.update(iscrowd=1) for each in document["annotations"]], kinds.NO_BOXES, 1),
    (add("annotations", box(1, 2, 3, 4, image_id="30", category_id=7.0)), kinds.LOOSE_ID, 2),
    (both(set_in("images", 2, id=2**53 + 1)), kinds.LARGE_ID, 1),
    (add("annotations", *(box(1, 2, 9, 9 + i, id=of) for i, of in enumerate([None, 1, 2**70]))), kinds.UNNUMBERED, 3),
    (add("categories", {"id": 8, "name": "red"}), kinds.SHARED_NAME, 1),
    (add("images", {"id": 8, "file_name": "a.png", "width": 64, "height": 48}), kinds.SHARED_FILE, 1),
    (both(set_in("images", 0, width=None), set_in("images", 1, height="48")), kinds.NO_SIZE, 2),
    (lambda document: [each.pop("iscrowd") for each in document["annotations"]], kinds.NO_CROWD, 5),
    (both(set_in("annotations", 0, iscrowd="1"), set_in("annotations", 3, iscrowd=[])), kinds.ODD_CROWD, 2),
    (lambda document: [each.pop("area") for each in document["annotations"]], kinds.NO_AREA, 5),
    (both(*(set_in("annotations", i, area=each) for i, each in enumerate(["9", -1, np.nan]))), kinds.ODD_AREA, 3),
    (both(set_in("annotations", 0, segmentation=[[1, 2, 3, 4]])), kinds.ODD_SEGMENTATION, 1),
    (add("annotations", box(1, 2, 0, 4), box(1, 2, 1e-300, 4), box(5, 5, 0, 0, iscrowd=1)), kinds.NO_EXTENT, 3),
    (add("annotations", box(np.nan, 2, 3, 4), box(1, 2, np.inf, 4)), kinds.NOT_FINITE, 2),
    (add("annotations", box(1, 2, 3, 1e9), box(-1e300, 2, 3, 4)), kinds.TOO_FAR, 2),
    (add("annotations", box(64, 2, 3, 4), box(1, 48, 3, 4), box(-3, 2, 3, 4), box(1, -9, 3, 4)), kinds.OUTSIDE, 4),
    (add("annotations", box(60, 2, 5.1, 4), box(-1.1, 2, 9, 4), box(60, 8, 5, 4)), kinds.CUT, 2),
    (add("annotations", box(8, 8, 16, 12), box(8.0, 8, 16, 12.0), box(8, 8, 16, 13)), kinds.REPEATED_BOX, 2),
    (both(set_in("images", 0, width=65), set_in("images", 1, width=48, height=64)), kinds.OTHER_SIZE, 2),
    (add("images", *({"id": i, "file_name": "x", "width": 9, "height": 9} for i in (1, 2))), kinds.MISSING, 2),
]


@pytest.mark.parametrize(
    ("how", "kind", "count"), PROBLEMS, ids=[f"{kind.code}-{count}" for _, kind, count in PROBLEMS]
)
def test_problems_are_found_and_counted(clean: Path, how: Change, kind: Problem, count: int) -> None:
    change(clean, how)
    report = check_folder(clean)
    assert found(report)["train", kind.code] == count
    (problem,) = (each for name, each in report.problems if (name, each.code) == ("train", kind.code))
    assert len(problem.examples) == min(count, EXAMPLES)
    # Missing images are fatal past 1%: here they are 2 of 6.
    assert problem.fatal is (kind.fatal or kind == kinds.MISSING)


@pytest.mark.parametrize(("how", "kind"), [each[:2] for each in PROBLEMS], ids=[each[1].what for each in PROBLEMS])
def test_reader_and_check_agree(clean: Path, how: Change, kind: Problem) -> None:
    # What the reader refuses is fatal in the check; what it takes is not, but for what needs a look at the images.
    change(clean, how)
    file, folder = annotation_file(clean), clean / "train2017"
    if kind.fatal and kind != kinds.NO_BOXES:
        with pytest.raises(DataError) as caught:
            read_split(file, folder)
        assert kind.what in caught.value.message
        return
    split = read_split(file, folder)
    usable = judge_boxes(read_records(file, folder)).usable
    assert len(split.boxes) == usable.sum() == len(usable) - split.crowds - split.dropped
    # COCOeval, too, takes whatever the reader takes.
    score(ground_truth(split), [])


def test_bad_boxes_leave_the_others_alone(clean: Path) -> None:
    expected = read_split(annotation_file(clean), clean / "train2017")
    bad = [box(np.nan, 2, 3, 4), box(1, 2, 0, 4), box(1, 2, 3, 1e9), box(-9, 2, 3, 4), box(8, 8, 16, 12)]
    change(clean, lambda document: document["annotations"].__setitem__(slice(0, 0), bad))
    split = read_split(annotation_file(clean), clean / "train2017")
    # The last of the bad ones comes first in the file now: of two equal boxes the first stays.
    assert split.dropped == len(bad)
    assert sorted(split.boxes.tolist()) == sorted(expected.boxes.tolist())
    assert split.starts.tolist() == expected.starts.tolist()


@pytest.mark.filterwarnings("error")
def test_boxes_without_an_end_are_told_without_a_warning(clean: Path) -> None:
    """Their ends are inf − inf or nan where the forms of boxes are compared: found by the fuzz test of documents."""
    change(clean, both(add("annotations", box(math.inf, 0, -math.inf, 0)), add("annotations", box(0, 0, 0, 0))))
    told = found(check_folder(clean))
    assert told["train", kinds.NOT_FINITE.code] == 1


def test_ground_truth_survives_what_the_reader_survives(clean: Path) -> None:
    odd: list[Document] = [
        {"area": "9", "iscrowd": "0"},
        {"area": np.nan, "iscrowd": None},
        {"area": -4, "segmentation": {"counts": 3}},
        {"area": [], "segmentation": "none"},
    ]

    def make_odd(document: Document) -> None:
        for each, fields in zip(document["annotations"], odd, strict=True):
            each |= {**fields, "image_id": str(each["image_id"]), "category_id": float(each["category_id"])}
        document["categories"].append({"id": "8", "name": "none of these"})

    change(clean, make_odd, "val")
    truth = ground_truth(read_split(annotation_file(clean, "val"), clean / "val2017"))
    # Areas are the boxes' of conftest.py.
    assert [each["area"] for each in truth["annotations"]] == [24 * 24, 20 * 30, 12 * 40, 64 * 20]
    assert [each["iscrowd"] for each in truth["annotations"]] == [0, 0, 0, 0]
    results = [{**each, "score": 0.9} for each in truth["annotations"]]
    assert score(truth, results).numbers["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "none"),
        ([], "none"),
        ({}, "none"),
        ([[0, 0, 4, 0, 4, 4.5]], "polygon"),
        ([[0, 0, 4, 0, 4]], "malformed"),
        ([[0, 0, 4, 0]], "malformed"),
        ([0, 0, 4, 0, 4, 4], "malformed"),
        ([["0", 0, 4, 0, 4, 4]], "malformed"),
        ({"size": [4, 4], "counts": "06R4"}, "RLE"),
        ({"size": [4, 4], "counts": [3, 13]}, "uncompressed RLE"),
        ({"size": [4], "counts": "06R4"}, "malformed"),
        ({"size": [4, 4]}, "malformed"),
        ("text", "malformed"),
        (5, "malformed"),
    ],
)
def test_kinds_of_segmentation(value: object, kind: str) -> None:
    assert segmentation_kind(value) == kind


def test_whole_numbers() -> None:
    assert [whole_number(value) for value in (12, "12", " -3 ", 12.0)] == [12, 12, -3, 12]
    assert [whole_number(value) for value in (2**63 - 1, -(2**63))] == [2**63 - 1, -(2**63)]
    no_number: tuple[object, ...] = (True, "abc", "1_0", "١", "", None, [], {})
    others = (*no_number, 12.5, np.nan, np.inf, 1e300, 2**63, str(2**63), "9" * 5000)
    assert [value for value in others if whole_number(value) is not None] == []


def test_a_million_equal_problems_are_put_into_words_five_times() -> None:
    tally, worded = Tally(), iter("abcde")  # a sixth would end in an error
    tally.add_all(kinds.CUT, range(1_000_000), lambda _: next(worded))
    (problem,) = tally.problems()
    assert (problem.count, problem.examples) == (1_000_000, ("a", "b", "c", "d", "e"))


# --- names and links ---


@pytest.mark.parametrize(
    "name",
    [
        "../a.png",
        "sub/../../a.png",
        "..",
        "sub/..",
        "/etc/a.png",
        "..\\a.png",
        "sub\\..\\..\\a.png",
        "C:\\a.png",
        "c:/a.png",
        "\\\\server\\a.png",
        "",
        "a\0.png",
        "\ud800.png",
        "a" * 4097,
        None,
        5,
        ["a.png"],
        {"a": 1},
    ],
)
def test_file_names_that_leave_the_folder_are_refused_and_never_opened(
    clean: Path, name: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change(clean, set_in("images", 2, file_name=name))
    seen = count_headers(monkeypatch)
    report = check_folder(clean)
    assert found(report)["train", kinds.BAD_NAME.code] == 1
    assert sorted(path.name for path in seen if "train2017" in str(path)) == ["a.png", "b.png", "d.png"]
    with pytest.raises(DataError, match="image 20: file_name"):
        read_split(annotation_file(clean), clean / "train2017")
    assert run(["data", "check", str(clean), *SIZES]) == 3
    assert capsys.readouterr().err.isprintable() is False  # it was printed at all: no character was refused


@pytest.mark.parametrize("name", ["a..png", "..a/b.png", "sub/./d.png", "a b.png", "1:2.png", "a\\b.png"])
def test_odd_file_names_are_fine(clean: Path, name: str) -> None:
    change(clean, set_in("images", 2, file_name=name))
    assert name in read_split(annotation_file(clean), clean / "train2017").file_names.tolist()


def test_links_may_not_lead_outside(clean: Path, tmp_path: Path) -> None:
    folder, file, elsewhere = clean / "train2017", annotation_file(clean), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "c.png").rename(elsewhere / "c.png")
    (folder / "c.png").symlink_to("b.png")  # inside
    assert len(read_split(file, folder)) == 4
    (folder / "c.png").unlink()
    (folder / "c.png").symlink_to(elsewhere / "c.png")
    with pytest.raises(DataError, match=r"image 20: 'c\.png' leads to .*elsewhere/c\.png") as caught:
        read_split(file, folder)
    assert "hard links" in caught.value.hint
    (folder / "c.png").unlink()
    (folder / "c.png").symlink_to(elsewhere / "nothing.png")  # where nothing is yet, something may be later
    assert found(check_folder(clean))["train", kinds.OUTWARD_LINK.code] == 1
    (folder / "c.png").unlink()
    (elsewhere / "c.png").rename(folder / "c.png")
    # A folder on the way: `sub` of sub/d.png.
    (folder / "sub").rename(elsewhere / "sub")
    (folder / "sub").symlink_to(elsewhere / "sub")
    with pytest.raises(DataError, match=r"image 40: 'sub/d\.png' leads to"):
        read_split(file, folder)
    (folder / "sub").unlink()
    (elsewhere / "sub").rename(folder / "inner")
    (folder / "sub").symlink_to("inner")
    assert len(read_split(file, folder)) == 4


def test_the_folder_itself_may_be_a_link(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(clean / "train2017")
    assert len(read_split(annotation_file(clean), tmp_path / "link")) == 4


def test_a_loop_of_links_is_a_missing_image(clean: Path) -> None:
    (clean / "train2017" / "c.png").unlink()
    (clean / "train2017" / "c.png").symlink_to("c.png")
    assert found(check_folder(clean))["train", kinds.MISSING.code] == 1


# --- images ---


def test_unreadable_images_are_fatal_past_one_percent(clean: Path) -> None:
    (clean / "train2017" / "c.png").write_text("no image")
    (clean / "val2017" / "f.png").write_bytes(b"")
    (clean / "train2017" / "b.png").unlink()
    problems = {(name, each.code): each for name, each in check_folder(clean).problems}
    assert problems.keys() == {
        ("train", kinds.MISSING.code),
        ("train", kinds.UNREADABLE.code),
        ("val", kinds.UNREADABLE.code),
    }
    assert all(each.fatal for each in problems.values())

    # One of 101 is below 1%: the 4 images and 97 more.
    more = [{"id": 100 + i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in range(97)]
    for each in more:
        os.link(clean / "train2017" / "a.png", clean / "train2017" / str(each["file_name"]))
    Image.new("RGB", (64, 48)).save(clean / "train2017" / "b.png")
    change(clean, add("images", *more))
    (problem,) = (each for name, each in check_folder(clean).problems if name == "train")
    assert (problem.code, problem.count, problem.fatal) == (kinds.UNREADABLE.code, 1, False)
    assert str(clean / "train2017" / "c.png") in problem.examples[0]


def test_truncated_images_are_found_by_decoding(clean: Path) -> None:
    file = clean / "train2017" / "c.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:4000])  # of about 9 kB: the header is whole
    assert check_folder(clean).problems == []
    assert found(check_folder(clean, decode=True)) == {("train", kinds.UNREADABLE.code): 1}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_sizes_are_those_of_upright_images(clean: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by a quarter
    Image.new("RGB", (64, 48)).save(clean / "train2017" / f"turned.{suffix}", exif=exif)
    change(clean, set_in("images", 2, file_name=f"turned.{suffix}"))
    assert found(check_folder(clean)) == {("train", kinds.TURNED.code): 1}
    change(clean, set_in("images", 2, width=48, height=64))
    assert check_folder(clean).problems == []


def test_exif_behind_the_pixels_of_a_png_counts(clean: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    file = clean / "train2017" / "c.png"
    Image.new("RGB", (64, 48)).save(file, exif=exif)
    content = file.read_bytes()
    # A chunk is length, name, content and checksum; IEND, the last one, has 12 bytes.
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    file.write_bytes(content[:start] + content[end:-12] + content[start:end] + content[-12:])
    assert found(check_folder(clean)) == {("train", kinds.TURNED.code): 1}


def test_boxes_are_judged_by_the_true_size_of_an_image(clean: Path) -> None:
    # The file has 64×48 pixels, the annotations say 32×24: the boxes beyond 32×24 are fine all the same.
    change(clean, lambda document: [each.update(width=32, height=24) for each in document["images"]])
    report = check_folder(clean)
    assert found(report) == {("train", kinds.OTHER_SIZE.code): 4}
    assert report.splits[0].counts["boxes to learn from"] == 4


# --- sizes ---


def test_small_objects_are_told(clean: Path) -> None:
    # A class of 1 × 1 to be found at 64,96: √area is 1.32 at HR. 3 of 7 boxes are 43%, 2 of 6 are 33%.
    small = [box(i, 40, 1, 1, id=200 + i) for i in (20, 30, 40)]
    change(clean, add("annotations", *small[:2]))
    assert check_folder(clean).problems == []
    change(clean, add("annotations", small[2]))
    (entry,) = check_folder(clean).problems
    assert (entry[1].code, entry[1].count, entry[1].fatal) == (kinds.SMALL.code, 3, False)
    assert entry[1].examples == ("43% of all at 1/2 of 64,96",)
    assert "--size" in entry[1].advice
    assert check_folder(clean, ks=(1,)).problems == []  # nothing is downsampled


# --- train against val ---


def test_images_in_both_splits_are_told(clean: Path) -> None:
    train, val = clean / "train2017", clean / "val2017"
    assert (train / "a.png").read_bytes() != (val / "a.png").read_bytes()  # one name, two images: no problem
    (val / "e.png").write_bytes((train / "b.png").read_bytes())  # one image under two names
    (val / "f.png").unlink()
    os.link(train / "c.png", val / "f.png")
    (entry,) = check_folder(clean).problems
    assert (entry[0], entry[1].code, entry[1].count) == ("train and val", kinds.SEEN_TWICE.code, 2)
    assert entry[1].examples[0] == f"{val / 'e.png'} is {train / 'b.png'}"
    # Images of equal length and of other bytes are no problem.
    for place, file in enumerate([train / "b.png", val / "e.png"]):
        file.write_bytes(file.read_bytes() + bytes([place]))
    assert found(check_folder(clean)) == {("train and val", kinds.SEEN_TWICE.code): 1}


def test_categories_of_val_have_to_be_those_of_train(clean: Path) -> None:
    change(clean, set_in("categories", 0, name="violet"), "val")
    (entry,) = check_folder(clean).problems
    assert (entry[0], entry[1].code) == ("val", kinds.RENAMED_CATEGORY.code)
    assert entry[1].examples == ("category 90 is 'violet' here, but 'blue' where it was learnt",)
    change(clean, both(set_in("categories", 0, name=" BLUE"), add("categories", {"id": 5, "name": "new"})), "val")
    assert check_folder(clean).problems == []  # nothing is of the new class
    change(clean, set_in("annotations", 0, category_id=5), "val")
    assert found(check_folder(clean)) == {("val", kinds.UNKNOWN_CATEGORY.code): 1}


def test_val_may_be_empty_but_not_train(clean: Path) -> None:
    change(clean, lambda document: document["annotations"].clear(), "val")
    (entry,) = check_folder(clean).problems
    assert (entry[1].code, entry[1].fatal) == (kinds.VAL_EMPTY.code, False)


# --- the command ---


def test_the_command_tells_all_and_its_exit_code_says_whether_the_set_is_usable(
    coco_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "check", str(coco_folder), *SIZES]) == 0
    printed = capsys.readouterr()
    for text in ("boxes to learn from", "boxes without width or height", "dropped", "7 red", "at 1/2", "usable"):
        assert text in printed.out
    assert run(["data", "check", str(coco_folder), *SIZES, "--strict"]) == 3
    message = capsys.readouterr().err.split("error: ")[1]
    assert message.startswith(
        f"{annotation_file(coco_folder)}: boxes without width or height: annotation 4 of image 40"
    )

    change(
        coco_folder,
        both(set_in("images", 0, file_name="/nowhere"), add("annotations", None, box(1, 2, 3, 4, image_id=77))),
    )
    assert run(["data", "check", str(coco_folder), *SIZES]) == 3
    printed = capsys.readouterr()
    assert "usable" not in printed.out
    for kind in (kinds.BAD_NAME, kinds.MALFORMED, kinds.UNLISTED_IMAGE, kinds.NO_EXTENT):
        assert kind.what in printed.out
    assert "3 fatal problems in all" in printed.err
    assert f"hint: {kinds.BAD_NAME.advice}; " in printed.err


def test_the_command_prints_json(coco_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", str(coco_folder), *SIZES, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert Report.from_json(value) == check_folder(coco_folder, ks=(2,))
    assert value["splits"][0]["problems"][0]["code"] == kinds.NO_EXTENT.code


def test_the_command_does_without_torch(coco_folder: Path) -> None:
    for arguments in (["data", "check", "--help"], ["data", "check", str(coco_folder), *SIZES]):
        code = f"import sys; from msad_cli.cli.app import run; assert run({arguments!r}) == 0"
        code += "; assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_splits_and_single_files(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def names(*arguments: str) -> list[str]:
        assert run(["data", "check", *arguments, *SIZES, "--json"]) == 0
        return [each["name"] for each in json.loads(capsys.readouterr().out)["splits"]]

    assert names(str(clean)) == ["train", "val"]
    assert names(str(clean), "--split", "val") == ["val"]
    assert names(str(annotation_file(clean))) == ["train"]
    assert names(str(annotation_file(clean, "val"))) == ["val"]
    assert names(str(annotation_file(clean, "val")), "--split", "train") == ["train"]
    elsewhere = (clean / "train2017").rename(clean.parent / "elsewhere")
    assert run(["data", "check", str(annotation_file(clean)), *SIZES]) == 3
    assert "--images" in capsys.readouterr().err
    assert names(str(annotation_file(clean)), "--images", str(elsewhere)) == ["train"]
    elsewhere.rename(clean / "elsewhere")  # in the set it is found, and that is said
    assert run(["data", "check", str(annotation_file(clean)), *SIZES]) == 0
    assert f"its images are those in {clean / 'elsewhere'}" in capsys.readouterr().err
    (clean / "elsewhere").rename(clean / "train2017")
    annotation_file(clean).unlink()
    assert run(["data", "check", str(clean), *SIZES, "--json"]) == 0
    printed = capsys.readouterr()
    assert [each["name"] for each in json.loads(printed.out)["splits"]] == ["val"]
    assert "no train split: " in printed.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 3, "nowhere"),
        (["{}", "--split", "dev"], 2, "--split dev"),
        (["{}", "--k", "3"], 2, "--k 3"),
        (["{}", "--k", ""], 2, "--k"),
        (["{}", "--size", "9"], 2, "--size 9"),
        (["{}", "--images", "x"], 2, "--split"),
        (["{}", "--fix"], 2, "--out"),
        (["{}", "--out", "new.json"], 2, "--fix"),
        (["{}", "--fix", "--out", "new.json"], 2, "one split at a time"),
        (["{}", "--fix", "--split", "train", "--out", "old.json"], 2, "old.json exists"),
    ],
)
def test_wrong_usage(
    clean: Path,
    arguments: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.json").touch()
    assert run(["data", "check", *(each.format(clean) for each in arguments)]) == code
    printed = capsys.readouterr().err
    assert message in printed
    assert "\nhint: " in printed
    assert not Path("new.json").exists()


def test_broken_json_is_refused(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotation_file(clean).write_text("[" * 100_000)
    assert run(["data", "check", str(clean)]) == 3
    assert "not a JSON text" in capsys.readouterr().err
    # As deep as a document can be read, in every place where a record can hold it.
    deep = "[" * 400 + "]" * 400
    annotation_file(clean).write_text(
        f'{{"images": [{{"id": {deep}, "file_name": {deep}}}, {deep}],'
        f'"categories": [{deep}, {{"id": {deep}, "name": "a"}}],'
        f'"annotations": [{{"image_id": {deep}, "bbox": {deep}, "segmentation": {deep}, "id": {deep}}}, {deep}]}}'
    )
    assert run(["data", "check", str(clean)]) == 3
    assert "malformed" in capsys.readouterr().err


# --- the kept report ---


def trained(folder: Path, tmp_path: Path, *more: str) -> int:
    command = ["teacher", "--data", str(folder), *SIZES, "--out", str(tmp_path / "t.safetensors"), "--dry-run", *more]
    return run([*command, "--epochs=1"])  # too short a run to be timed


def test_training_checks_first_and_only_once(
    coco_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MSAD_CACHE", str(tmp_path / "cache"))
    line = "train: 1 boxes without width or height: dropped, such as annotation 4 of image 40"
    assert trained(coco_folder, tmp_path) == 0
    printed = capsys.readouterr().err
    assert "checking 4 + 3 images" in printed
    assert line in printed

    opened = count_headers(monkeypatch)
    assert trained(coco_folder, tmp_path) == 0
    printed = capsys.readouterr().err
    assert opened == []
    assert "checking" not in printed
    assert line in printed
    assert trained(coco_folder, tmp_path, "--quiet") == 0
    assert capsys.readouterr().err == ""

    # Another size, other images, other annotations: another check.
    assert trained(coco_folder, tmp_path, "--size", "96,128") == 0
    assert len(opened) == 7
    (coco_folder / "val2017" / "a.png").touch()
    assert trained(coco_folder, tmp_path) == 0
    assert len(opened) == 7 + 3 + 7  # the three of val once more, for what EXIF says of them
    change(coco_folder, set_in("images", 0, license=1), "val")
    assert trained(coco_folder, tmp_path) == 0
    assert len(opened) == 17 + 3 + 7
    # `data check` always looks, whatever was kept.
    assert run(["data", "check", str(coco_folder), *SIZES]) == 0
    assert len(opened) == 27 + 7


def test_a_fatal_problem_ends_a_training_before_it_starts(
    coco_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (coco_folder / "train2017" / "a.png").unlink()
    assert trained(coco_folder, tmp_path) == 3
    printed = capsys.readouterr().err
    assert f"error: {annotation_file(coco_folder)}: images that are missing: no such image: " in printed
    assert f"msad data check {coco_folder}" in printed
    change(coco_folder, lambda document: document["annotations"].clear())
    (coco_folder / "train2017" / "a.png").write_bytes((coco_folder / "train2017" / "b.png").read_bytes())
    assert trained(coco_folder, tmp_path) == 3
    assert "no boxes to learn from" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"splits": [{}], "shared": []}', b"\xff", b"[" * 100_000, None]
)
def test_a_damaged_cache_is_made_anew(
    coco_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    monkeypatch.setenv("MSAD_CACHE", str(tmp_path / "cache"))
    assert trained(coco_folder, tmp_path) == 0
    (kept,) = (tmp_path / "cache" / "checks").iterdir()
    before = kept.read_bytes()
    kept.unlink()
    if content is None:
        kept.mkdir()
    else:
        kept.write_bytes(content)
    assert trained(coco_folder, tmp_path) == 0
    assert content is None or kept.read_bytes() == before


def test_no_cache_ends_no_run(coco_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MSAD_CACHE", str(tmp_path / "file"))
    assert trained(coco_folder, tmp_path) == 0

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(checking, "cache_folder", homeless)
    assert trained(coco_folder, tmp_path) == 0


# --- repair ---


def repaired(folder: Path, out: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[Document, str]:
    out.unlink(missing_ok=True)
    assert run(["data", "check", str(folder), "--split", "train", "--fix", "--out", str(out), *flags]) == 0
    return json.loads(out.read_text()), "".join(capsys.readouterr())


LEFT = {kinds.NO_IMAGES.code, kinds.NO_BOXES.code, *kinds.BEYOND_REPAIR}
REPAIRABLE = [each for each in PROBLEMS if each[1].code not in LEFT]


@pytest.mark.parametrize(("how", "kind"), [each[:2] for each in REPAIRABLE], ids=[each[1].what for each in REPAIRABLE])
def test_a_repaired_file_has_no_problems(
    clean: Path, tmp_path: Path, how: Change, kind: Problem, capsys: pytest.CaptureFixture[str]
) -> None:
    change(clean, how)
    out = tmp_path / "repaired.json"
    if _has_two_names(clean):
        # One id, two names: only its owner knows which boxes are of which class.
        assert run(["data", "check", str(clean), "--split", "train", "--fix", "--out", str(out)]) == 3
        assert "is called 'blue' and 'red'" in capsys.readouterr().err
        return
    _, printed = repaired(clean, out, capsys)
    assert "nothing to repair" not in printed
    # At 800,1333 a pixel is 17, so that no object is small.
    assert run(["data", "check", str(out), "--images", str(clean / "train2017"), "--strict"]) == 0
    again, printed = repaired_file(out, clean, tmp_path, capsys)
    assert "nothing to repair" in printed
    assert again == json.loads(out.read_text())


def _has_two_names(folder: Path) -> bool:
    categories = json.loads(annotation_file(folder).read_text())["categories"]
    return len({each["id"] for each in categories}) < len(categories)


def repaired_file(file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Document, str]:
    capsys.readouterr()
    out = tmp_path / "again.json"
    assert run(["data", "check", str(file), "--images", str(folder / "train2017"), "--fix", "-o", str(out)]) == 0
    return json.loads(out.read_text()), "".join(capsys.readouterr())


def test_a_clean_file_stays_as_it_is(clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extra = {"info": {"year": 2017, "odd": [None]}, "licenses": []}
    change(clean, lambda document: document.update(extra))
    change(clean, set_in("annotations", 0, segmentation={"size": [48, 64], "counts": [3, 3069]}, score=0.5))
    document, printed = repaired(clean, tmp_path / "r.json", capsys)
    assert document == json.loads(annotation_file(clean).read_text())
    assert "nothing to repair" in printed


def test_what_a_repair_does(clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def spoil(document: Document) -> None:
        document["categories"] += [
            {"id": "cat", "name": "cat"},
            {"id": "ant", "name": "ant"},
            {"id": "7", "name": "red"},
        ]
        document["images"] += [
            {"id": "x", "file_name": "missing.png"},
            {"id": 2**60, "file_name": "a.png"},
            {"id": 50, "file_name": "../a"},
        ]
        document["images"][0] |= {"id": "30", "width": 1}
        document["annotations"] = [
            box(-4, -2, 14, 12, id=3, area=168),  # 10 × 10 of it lie in the image
            box(-4, -2, 14, 12, id=3, area=60),  # the same one again
            box(-9, -9, 19, 19, id=None, category_id="ant", image_id=2**60),  # not the same class and image
            box(1, 1, 5, 5, id=4, image_id="x"),
            box(1, 1, 5, 5, id=5, image_id=50),
            box(1, 1, 5, 5, id=6, image_id=51),
            box(60, 40, 9, 9, id=7, iscrowd="1", area=None),
        ]

    change(clean, spoil)
    document, printed = repaired(clean, tmp_path / "r.json", capsys)
    # Texts get the numbers behind the largest category, 90, in the order of the alphabet.
    assert document["categories"] == [
        {"id": 90, "name": "blue"},
        {"id": 7, "name": "red"},
        {"id": 92, "name": "cat"},
        {"id": 91, "name": "ant"},
    ]
    size = {"width": 64, "height": 48}
    # Of the ids that are renumbered, numbers come before texts: 2^60 is 51, behind 50, and "x" 52, which has no file.
    assert [(each["id"], each["file_name"]) for each in document["images"]] == [
        (30, "a.png"),
        (10, "b.png"),
        (20, "c.png"),
        (40, "sub/d.png"),
        (51, "a.png"),
    ]
    assert all(size.items() <= each.items() for each in document["images"])
    kept = {"iscrowd": 0, "image_id": 30, "category_id": 7}
    assert document["annotations"] == [
        {**kept, "id": 3, "bbox": [0, 0, 10, 10], "area": 100},
        {**kept, "id": 9, "bbox": [0, 0, 10, 10], "area": 1, "category_id": 91, "image_id": 51},
        {**kept, "id": 7, "bbox": [60, 40, 4, 8], "area": 32, "iscrowd": 1},
    ]
    for text in (
        "3 boxes clipped",
        "1 boxes that are none, outside or repeated",
        "2 annotations of images that were taken",
    ):
        assert text in printed
    assert f"{tmp_path / 'r.json'} written" in printed


def test_images_under_one_id_are_taken_out_unless_they_are_one(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(clean, lambda document: document["images"].append(dict(document["images"][0])))
    document, _ = repaired(clean, tmp_path / "r.json", capsys)
    assert [each["id"] for each in document["images"]] == [30, 10, 20, 40]
    change(clean, set_in("images", 4, file_name="b.png"))
    document, printed = repaired(clean, tmp_path / "r.json", capsys)
    assert [each["id"] for each in document["images"]] == [10, 20, 40]
    assert {each["image_id"] for each in document["annotations"]} == {10, 40}
    assert "2 images of an id that other files have too" in printed


def test_boxes_of_a_turned_image_are_turned_with_it_or_stay_by_a_word(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(clean / "train2017" / "a.png", exif=exif)
    plain = json.loads(annotation_file(clean).read_text())
    document, _ = repaired(clean, tmp_path / "r.json", capsys, "--exif", "keep")
    assert document == plain
    document, _ = repaired(clean, tmp_path / "r.json", capsys)
    before, after = ([each["bbox"] for each in of["annotations"] if each["image_id"] == 30] for of in (plain, document))
    # x, y, width, height of 64 × 48 pixels: turned by a quarter, y becomes 48 - y - height, from the left.
    assert after == [[48 - y - height, x, height, width] for x, y, width, height in before]


def test_a_repair_leaves_boxes_to_learn_from_or_writes_nothing(clean: Path, tmp_path: Path) -> None:
    # Only a crowd region, and a box that lies outside the image as EXIF turns it: 48×64 instead of 64×48.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(clean / "train2017" / "a.png", exif=exif)
    left = [box(1, 1, 9, 9, iscrowd=1, image_id=10), box(50, 1, 9, 9, id=91)]
    change(clean, lambda document: document.update(annotations=left))
    out = tmp_path / "r.json"
    assert run(["data", "check", str(clean), "--split", "train", "--exif", "keep", "--fix", "--out", str(out)]) == 3
    assert not out.exists()


def test_a_repair_that_would_leave_nothing_writes_nothing(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (clean / "train2017").rglob("*.png"):
        file.unlink()
    out = tmp_path / "r.json"
    assert run(["data", "check", str(clean), "--split", "train", "--fix", "--out", str(out)]) == 3
    assert "no images would be left" in capsys.readouterr().err
    assert not out.exists()
