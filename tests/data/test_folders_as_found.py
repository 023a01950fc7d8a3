"""Folders as people have them: files of several tools side by side, sets in sets, texts of other systems.

Of each form the rows of an honest set are known; what is read has to be these, or the set has to say what is not.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.labelled_files import draw_grey, write

from msad_cli.cli.app import run
from msad_cli.data.annotations import problems as kinds
from msad_cli.data.layouts.base import Files
from msad_cli.data.layouts.splits import find_split, records_of
from msad_cli.errors import DataError

WIDTH, HEIGHT = 80, 40
SPLITS = {"train": 4, "val": 2}
YAML = "train: images/train\nval: images/val\nnames: [cat, dog]\n"

draw = partial(draw_grey, size=(WIDTH, HEIGHT))


def row(category: int) -> str:
    """The box of x 20 to 40, y 10 to 30."""
    return f"{category} 0.375 0.5 0.25 0.5\n"


BOX = [20.0, 10.0, 20.0, 20.0]


def xml(*corners: int, more: str = "") -> str:
    values = zip(("xmin", "ymin", "xmax", "ymax"), corners or (21, 11, 40, 30), strict=True)  # from 1, the last inside
    box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in values)
    return f"<annotation><object><name>cat</name>{more}<bndbox>{box}</bndbox></object></annotation>"


def yolo(folder: Path, images: str, labels: str, encoding: str = "utf-8") -> Path:
    """A set of one cat an image, `{}` standing for the split."""
    for split, count in SPLITS.items():
        for i in range(count):
            draw(folder / images.format(split) / f"{split}{i}.png")
            write(folder / labels.format(split) / f"{split}{i}.txt", row(0), encoding)
    return folder


def coco(images: list[str], keypoints: tuple[int, ...] = ()) -> str:
    """A COCO file of one cat an image, by their names."""
    own = {"category_id": 1, "bbox": BOX, **({"keypoints": keypoints} if keypoints else {})}
    document = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(images)],
        "annotations": [{"id": i, "image_id": i, **own} for i in range(len(images))],
        "categories": [{"id": 1, "name": "cat", **({"keypoints": ["nose", "tail"]} if keypoints else {})}],
    }
    return json.dumps(document)


def read(folder: Path, split: str = "train") -> tuple[Files, dict[str, Any]]:
    found = find_split(str(folder), split)
    document: dict[str, Any] = json.loads(found.annotations.read_text())
    return found, document


def boxes(folder: Path, split: str = "train") -> list[list[float]]:
    return [each["bbox"] for each in read(folder, split)[1]["annotations"]]


def counts(folder: Path, split: str = "train") -> dict[str, int]:
    found = {split: find_split(str(folder), split)}
    return {each.code: each.count for each in records_of(found, "boxes")[split].problems}


# --- files that name the classes ---


@pytest.mark.parametrize(("images", "labels"), [("{}", "{}"), ("images/{}", "labels/{}")])
def test_folders_that_number_the_classes_otherwise_are_refused(tmp_path: Path, images: str, labels: str) -> None:
    folder = yolo(tmp_path, images, labels)
    write(folder / labels.format("train") / "classes.txt", "cat\ndog\n")
    write(folder / labels.format("val") / "classes.txt", "dog\ncat\n")
    with pytest.raises(DataError, match=r"class 0 is 'dog', but in .* it is 'cat'") as caught:
        find_split(str(folder), "train")
    assert caught.value.code == "class-files-differ"
    # labelImg's list of a folder that lacks the last class says nothing else.
    write(folder / labels.format("val") / "classes.txt", "cat\n")
    for split, count in SPLITS.items():
        assert [each["name"] for each in read(folder, split)[1]["categories"]] == ["cat", "dog"]
        assert boxes(folder, split) == [BOX] * count


def test_what_labelimg_offers_is_not_what_it_numbered(tmp_path: Path) -> None:
    folder = yolo(tmp_path, "images/{}", "labels/{}")
    write(folder / "predefined_classes.txt", "person\ncar\n")
    assert [each["name"] for each in read(folder)[1]["categories"]] == ["person", "car"]
    write(folder / "labels/train/classes.txt", "cat\ndog\n")
    assert [each["name"] for each in read(folder)[1]["categories"]] == ["cat", "dog"]


@pytest.mark.parametrize("place", [".", "labels/train"])
@pytest.mark.parametrize(("names", "count"), [("dog\ncat\n", 2), ("cat\ncow\n", 1), ("Cat\ndog\n", 0), ("cat\n", 0)])
def test_a_classes_txt_that_contradicts_data_yaml_is_counted(
    tmp_path: Path, place: str, names: str, count: int
) -> None:
    folder = yolo(tmp_path, "images/{}", "labels/{}")
    write(folder / "data.yaml", YAML)
    write(folder / place / "classes.txt", names)
    assert counts(folder) == ({kinds.OTHER_NAMES.code: count} if count else {})
    assert [each["name"] for each in read(folder)[1]["categories"]] == ["cat", "dog"]
    # A file that is corrected later is read again.
    write(folder / place / "classes.txt", "cat\ndog\n")
    assert counts(folder) == {}


# --- labels of several tools ---


@pytest.mark.parametrize("suffix", [".xml", ".json", ".XML"])
@pytest.mark.parametrize("beside", ["images/train", "labels/train"])
def test_labels_of_another_tool_beside_an_image_are_counted(tmp_path: Path, beside: str, suffix: str) -> None:
    folder = yolo(tmp_path, "images/{}", "labels/{}")
    write(folder / "data.yaml", YAML)
    for i in range(SPLITS["train"]):
        write(folder / beside / f"train{i}{suffix}", "{}")
    assert counts(folder) == {}  # all of these images have a label file of their own
    for i in (1, 2):
        (folder / f"labels/train/train{i}.txt").unlink()
    assert counts(folder) == {kinds.OTHER_LABELS.code: 2}


def test_images_without_an_xml_file_are_counted(tmp_path: Path) -> None:
    for i in range(6):
        draw(tmp_path / f"{i}.png")
        write(tmp_path / (f"{i}.xml" if i < 4 else f"{i}.md"), xml())
    found, _ = read(tmp_path)
    assert f"{tmp_path}: 2 images have no XML file, and are left out" in found.notes
    write(tmp_path / "train.txt", "\n".join(map(str, range(3))))
    write(tmp_path / "val.txt", "3")
    assert read(tmp_path)[0].notes == ()  # lists say which are meant


def test_labelled_images_in_no_splits_folder_are_counted(tmp_path: Path) -> None:
    folder = yolo(tmp_path, "images/{}", "labels/{}")
    write(folder / "classes.txt", "cat\ndog\n")
    draw(folder / "images/unlabelled.png")
    assert read(folder)[0].notes == ()
    for i in range(3):
        draw(folder / f"images/{i}.png")
        write(folder / f"labels/{i}.txt", row(1))
    assert read(folder)[0].notes == (f"{folder}: 3 images with labels lie in no split's folder, and are left out",)


# --- rows and objects that are several things ---


def test_a_box_before_its_polygon_is_no_polygon(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = yolo(tmp_path, "images/{}", "labels/{}")
    write(folder / "data.yaml", YAML)
    rows = []
    for _ in range(5):
        ring = rng.uniform(0.1, 0.9, (6, 2)).round(4)
        low, high = ring.min(axis=0), ring.max(axis=0)
        rows.append(" ".join(map(str, [0, *((low + high) / 2), *(high - low), *ring.ravel()])))
    write(folder / "labels/train/train0.txt", "\n".join(rows))
    assert counts(folder) == {kinds.BAD_LABELS.code: 5}
    plain = [" ".join([each.split()[0], *each.split()[5:]]) for each in rows]
    write(folder / "labels/train/train0.txt", "\n".join(plain))
    assert counts(folder) == {}
    assert len(boxes(folder)) == 5 + 3


def test_two_keypoints_without_a_shape_are_no_polygon(tmp_path: Path) -> None:
    folder = yolo(tmp_path, "images/{}", "labels/{}")
    write(folder / "data.yaml", YAML)
    write(folder / "labels/train/train0.txt", f"{row(0).strip()} 0.3 0.4 2 0.4 0.6 1\n" * 2)
    assert counts(folder) == {kinds.BAD_LABELS.code: 2}


@pytest.mark.parametrize(
    "more", ["<name>dog</name>", "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"]
)
def test_an_object_of_several_boxes_is_named(tmp_path: Path, more: str) -> None:
    for i in range(4):
        draw(tmp_path / f"{i}.png")
        write(tmp_path / f"{i}.xml", xml(more=more if i == 2 else ""))
    write(tmp_path / "train.txt", "0\n1\n2\n")
    write(tmp_path / "val.txt", "3\n")
    assert counts(tmp_path) == {kinds.BAD_LABELS.code: 1, kinds.NO_SIZE.code: 3}
    # A part has a name and a box of its own.
    write(tmp_path / "2.xml", xml(more=f"<part>{more}</part>"))
    assert boxes(tmp_path) == [BOX] * 3


@pytest.mark.parametrize(("word", "crowd"), [("true", 1), ("1.0", 1), ("Unspecified", 0), ("false", 0)])
def test_difficult_may_be_a_word(tmp_path: Path, word: str, crowd: int) -> None:
    for i in range(2):
        draw(tmp_path / f"{i}.png")
        write(tmp_path / f"{i}.xml", xml(more=f"<difficult>{word}</difficult>"))
    assert [each["iscrowd"] for each in read(tmp_path)[1]["annotations"]] == [crowd]


def test_a_set_of_difficult_objects_is_not_taken_for_cvats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(2):
        draw(tmp_path / f"{i}.png")
        write(tmp_path / f"{i}.xml", xml(more="<difficult>1</difficult>"))
    assert run(["data", "check", str(tmp_path)]) == 3
    assert "--crowd-as-objects" not in capsys.readouterr().err


# --- texts of other systems ---


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_texts_with_a_mark_are_read(tmp_path: Path, encoding: str) -> None:
    folder = yolo(tmp_path, "images/{}", "labels/{}", encoding)
    for split, count in SPLITS.items():
        listed = "\r\n".join(f"images/{split}/{split}{i}.png" for i in range(count))
        write(folder / f"{split}.txt", listed, encoding)
    write(folder / "data.yaml", "train: train.txt\r\nval: val.txt\r\nnames: [cat, d\u00f6g]\r\n", encoding)
    _, document = read(folder)
    assert [each["bbox"] for each in document["annotations"]] == [BOX] * SPLITS["train"]
    assert [each["name"] for each in document["categories"]] == ["cat", "d\u00f6g"]


def test_what_macos_leaves_is_no_annotation_file(tmp_path: Path) -> None:
    for names in (("a.json",), ("train.json", "val.json")):
        folder = tmp_path / names[0]
        for i in range(4):
            draw(folder / f"{i}.png")
        for name in names:
            write(folder / name, coco([f"{i}.png" for i in range(4)]))
            (folder / f"._{name}").write_bytes(b"\0\5\x16\7\0\2")  # how AppleDouble begins
        assert len(boxes(folder)) == (3 if len(names) == 1 else 4)  # of one file, a tenth is val: one of four


# --- sets in sets, and what is none ---


@pytest.mark.parametrize("above", ["", "VOCdevkit/"])
def test_years_of_voc_are_read_by_their_own_lists(tmp_path: Path, above: str) -> None:
    """Both years have an image 0, and only one of them has a test split."""
    lists = {"2007": {"train": [0, 1], "val": [2], "test": [3]}, "2012": {"train": [0], "val": [1]}}
    for year, splits in lists.items():
        home = tmp_path / f"{above}VOC{year}"
        for split, numbers in splits.items():
            write(home / f"ImageSets/Main/{split}.txt", "".join(f"{number}\n" for number in numbers))
            for number in numbers:
                draw(home / f"JPEGImages/{number}.jpg")
                low = 1 + number + (30 if year == "2012" else 0)
                write(home / f"Annotations/{number}.xml", xml(low, 1, low + 9, 10))
    for split in ("train", "val", "test"):
        found, document = read(tmp_path, split)
        names = {each["id"]: each["file_name"] for each in document["images"]}
        wanted = [
            (f"{above}VOC{year}/JPEGImages/{number}.jpg", [number + (30 if year == "2012" else 0), 0, 10, 10])
            for year, splits in lists.items()
            for number in splits.get(split, [])
        ]
        assert [(names[each["image_id"]], each["bbox"]) for each in document["annotations"]] == wanted
        assert found.notes == ()


def test_a_set_in_a_folder_is_pointed_at(tmp_path: Path) -> None:
    write(yolo(tmp_path / "my set", "images/{}", "labels/{}") / "data.yaml", YAML)
    with pytest.raises(DataError, match="no set that msad knows") as caught:
        find_split(str(tmp_path), "train")
    assert str(tmp_path / "my set") in caught.value.hint


@pytest.mark.parametrize(
    ("text", "whose"),
    [
        (
            '<?xml version="1.0"?>\n<annotations><version>1.1</version><image id="0" name="a.png"/></annotations>',
            "CVAT",
        ),
        ("<dataset><name>x</name><images><image file='a.png'/></images></dataset>", "imglab"),
    ],
)
@pytest.mark.parametrize("place", ["annotations.xml", "annotations/annotations.xml"])
def test_one_xml_file_for_all_images_is_named(tmp_path: Path, text: str, whose: str, place: str) -> None:
    draw(tmp_path / "images/a.png")
    write(tmp_path / place, text)
    with pytest.raises(DataError, match=f"written by .*{whose}") as caught:
        find_split(str(tmp_path), "train")
    assert "COCO" in caught.value.hint


def test_files_of_labelme_in_splits_are_named(tmp_path: Path) -> None:
    for split, count in SPLITS.items():
        for i in range(count):
            write(tmp_path / split / f"{i}.json", json.dumps({"shapes": [], "imagePath": f"{i}.png"}))
    with pytest.raises(DataError, match="written by labelme"):
        find_split(str(tmp_path), "train")


@pytest.mark.parametrize("name", ["set.zip", "set.csv"])
def test_a_file_that_is_no_set_is_no_folder_of_images(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / name, "PK\3\4")
    assert run(["data", "check", str(tmp_path / name)]) == 3
    assert "give the folder of a set, a .json or a data.yaml" in capsys.readouterr().err


# --- val that is drawn ---


@pytest.mark.parametrize("name", ["{}_jpg.rf.{}", "frame_{}_jpg.rf.{}", "x-{}-png.rf.{}"])
def test_versions_of_an_image_by_roboflow_stay_together(tmp_path: Path, name: str) -> None:
    images = [name.format(f"{i:04}", f"{version}{i}f") for i in range(20) for version in "abc"]
    for each in images:
        draw(tmp_path / f"train/{each}.jpg")
    write(tmp_path / "train/_annotations.coco.json", coco([f"{each}.jpg" for each in images]))
    originals = {}
    for split, count in (("train", 54), ("val", 6)):  # a tenth of 20 originals, three versions of each
        found, part = read(tmp_path, split)
        names = [each["file_name"] for each in part["images"]]
        assert len(names) == count
        originals[split] = {each.partition(".rf.")[0] for each in names}
        assert any("6 of its 60 images, " in note for note in found.notes)
    assert not originals["train"] & originals["val"]


# --- keypoints ---


@pytest.mark.parametrize(("seen", "code"), [(0, 3), (1, 0)])
def test_keypoints_of_which_none_is_labelled_are_refused(
    tmp_path: Path, seen: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(4):
        draw(tmp_path / f"{i}.png")
    write(tmp_path / "a.json", coco([f"{i}.png" for i in range(4)], (25, 15, 0, 30, 20, seen)))
    assert run(["data", "check", str(tmp_path), "--task", "keypoints"]) == code
    assert ("all have a visibility of 0" in " ".join(capsys.readouterr().err.split())) == (seen == 0)
