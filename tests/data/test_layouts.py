"""Layouts other than COCO's: what is read of them, what is refused and where."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import toy_layout

from msad_cli.cli.app import run
from msad_cli.data.annotations.records import root_categories
from msad_cli.data.annotations.split import read_split
from msad_cli.data.layouts import table
from msad_cli.data.layouts.base import Files
from msad_cli.data.layouts.splits import find_split
from msad_cli.errors import AbsentSplitError, DataError

WIDTH, HEIGHT = 80, 40


def draw(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), "grey").save(file)
    return file


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def document(files: Files) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(files.annotations.read_text())
    return read


def annotations(folder: Path | str, split: str = "train") -> list[dict[str, Any]]:
    """Of a split, without what numbers them."""
    return [
        {name: value for name, value in each.items() if name not in ("id", "image_id", "iscrowd")}
        for each in document(find_split(str(folder), split))["annotations"]
    ]


# --- YOLO ---


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """Two images of train, one of them background without a file of labels, and one of val."""
    folder = tmp_path / "yolo"
    write(folder / "data.yaml", "train: images/train\nval: images/val\nnames: [cat, dog]\n")
    for name in ("train/a", "train/b", "val/c"):
        draw(folder / "images" / f"{name}.png")
    write(folder / "images/train/._a.png", "of a Mac")
    write(folder / "labels/train/a.txt", "1 0.5 0.5 0.25 0.5\n\n0 0.1 0.2 0.1 0.2\n")
    write(folder / "labels/val/c.txt", "0 0 0 1 0 1 1\n")
    return folder


def test_yolo_boxes_and_segmentations_become_pixels(yolo: Path) -> None:
    found = find_split(str(yolo), "train")
    assert (found.images, found.recognised) == (yolo, "YOLO set (data.yaml)")
    assert found.notes == (f"{yolo}/data.yaml: 1 of 2 images have no label file or an empty one, and are background",)
    split = read_split(found.annotations, found.images)
    assert split.categories == ((0, "cat"), (1, "dog"))
    assert split.file_names.tolist() == ["images/train/a.png", "images/train/b.png"]
    # By hand, of 80×40 pixels: the centre 40, 20 with the sides 20, 20; the centre 8, 8 with the sides 8, 8.
    assert split.boxes.tolist() == [[30, 10, 50, 30], [4, 4, 12, 12]]
    assert split.labels.tolist() == [2, 1]
    assert len(split) == 2
    # Half of the image: 80 × 40 / 2.
    (triangle,) = annotations(yolo, "val")
    assert triangle == {"category_id": 0, "bbox": [0, 0, 80, 40], "area": 1600, "segmentation": [[0, 0, 80, 0, 80, 40]]}


@pytest.mark.parametrize(("shape", "row"), [("[2, 3]", "0.25 0.5 2 0 0 0"), ("[2, 2]", "0.25 0.5 0 0")])
def test_yolo_poses_have_keypoints_and_their_partners(yolo: Path, shape: str, row: str) -> None:
    with (yolo / "data.yaml").open("a") as file:
        file.write(f"kpt_shape: {shape}\nflip_idx: [1, 0]\n")
    write(yolo / "labels/train/a.txt", f"0 0.5 0.5 0.25 0.5 {row}\n")
    found = find_split(str(yolo), "train")
    split = read_split(found.annotations, found.images, task="keypoints")
    assert split.keypoints.tolist() == [[[20, 20, 2], [0, 0, 0]]]
    assert (split.scheme.names, split.scheme.flip_pairs) == (("1", "2"), ((0, 1),))
    assert split.boxes.tolist() == [[30, 10, 50, 30]]


def test_yolo_names_may_be_numbered_and_images_listed(yolo: Path) -> None:
    listed = write(yolo / "lists/train.txt", "../images/train/b.png\n\nimages/train/a.png\n./../images/val/c.png\n")
    # As a set that was made elsewhere says it, and one of Roboflow's: one folder further up than it is.
    text = "path: /content/set\ntrain: lists/train.txt\nval: [../images/val, images/train]\n"
    text += "names: {3: cat, 1: dog, 0: 7}\n"
    file = write(yolo / "data.yaml", text)
    for data in (yolo, file):
        found = find_split(str(data), "train")
        split = document(found)
        assert [each["file_name"] for each in split["images"]] == [
            "images/train/b.png",
            "images/train/a.png",
            "images/val/c.png",
        ]
        assert split["categories"] == [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}, {"id": 0, "name": "7"}]
        assert "path '/content/set' is no folder below" in found.notes[0]
    names = [each["file_name"] for each in document(find_split(str(yolo), "val"))["images"]]
    assert names == ["images/val/c.png", "images/train/a.png", "images/train/b.png"]
    # What is kept is made anew when a source changed, here only the list.
    listed.write_text("../images/train/b.png\n")
    assert len(document(find_split(str(yolo), "train"))["images"]) == 1


def test_yolo_path_is_relative_to_its_file(yolo: Path) -> None:
    inner = yolo.parent / "outer" / "inner"
    inner.parent.mkdir()
    yolo.rename(inner)
    text = (inner / "data.yaml").read_text()
    (inner / "data.yaml").rename(inner.parent / "cats.yaml").write_text(f"path: inner\n{text}")
    found = find_split(str(inner.parent), "train")
    assert found.images == inner
    assert [each["bbox"] for each in annotations(inner.parent)] == [[30, 10, 20, 20], [4, 4, 8, 8]]


def test_yolo_path_is_no_way_out_of_the_folder(yolo: Path) -> None:
    outer = yolo.parent / "outer"
    outer.mkdir()
    (outer / "link").symlink_to(yolo)
    for path in ("link", "../yolo", str(yolo)):
        write(outer / "data.yaml", f"path: {path}\n{(yolo / 'data.yaml').read_text()}")
        with pytest.raises(DataError, match=r"'images/train': no such folder or file below .*outer"):
            find_split(str(outer), "train")


def test_yolo_labels_lie_beside_images_or_in_place_of_the_last_images(tmp_path: Path) -> None:
    folder = tmp_path / "yolo"
    write(folder / "data.yaml", "train: images\nval: plain\nnames: [cat]\n")
    for image, label in (("images/images/a.png", "images/labels/a.txt"), ("plain/b.c.png", "plain/b.c.txt")):
        draw(folder / image)
        write(folder / label, "0 0.5 0.5 0.5 0.5")
    assert len(annotations(folder, "train")) == len(annotations(folder, "val")) == 1


def test_yolo_changes_of_labels_are_seen_and_a_kept_file_is_taken(yolo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find_split(str(yolo), "train")
    with monkeypatch.context() as patch:
        patch.setattr("msad_cli.data.layouts.yolo.read_labels", None)  # whoever reads labels again fails
        assert find_split(str(yolo), "train") == first
    write(yolo / "labels/train/b.txt", "0 0.5 0.5 1 1\n")
    assert len(annotations(yolo)) == 3


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("0 0.5 0.5 0.5", "4 columns, a box has 5, a segmentation 7, 9, 11"),
        ("0 0.5 0.5 0.5 0.5 0.9", "6 columns, the number behind the object looks like a score"),
        ("2 0.5 0.5 0.5 0.5", "class '2', known are 0, 1"),
        ("0.5 0.5 0.5 0.5 0.5", r"class '0\.5'"),
        ("-1 0.5 0.5 0.5 0.5", "class '-1'"),
        ("cat 0.5 0.5 0.5 0.5", "class 'cat'"),
        ("0 0.5 nan 0.5 0.5", "'nan' is no number"),
        ("0 0.5 0.5 1e999 0.5", "'1e999' is no number"),
        ("0 0.5 0.5 x\x1b[31m 0.5", "is no number"),
        ("0 40 20 20 20", "40 is no share"),
    ],
)
def test_a_bad_row_is_named_with_its_file_and_line(
    yolo: Path, row: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(yolo / "labels/train/a.txt", f"0 0.5 0.5 0.5 0.5\n{row}\n")
    found = find_split(str(yolo), "train")
    with pytest.raises(DataError, match=f"{file}, line 2: .*{complaint}"):
        read_split(found.annotations, found.images)
    assert run(["data", "check", str(yolo)]) == 3
    assert "\x1b[31m" not in capsys.readouterr().err


def test_a_pose_has_all_its_numbers(yolo: Path) -> None:
    with (yolo / "data.yaml").open("a") as file:
        file.write("kpt_shape: [2, 3]\n")
    found = find_split(str(yolo), "train")
    with pytest.raises(DataError, match=r"a\.txt, line 1: 5 columns, a pose of kpt_shape \[2, 3\] has 11"):
        read_split(found.annotations, found.images)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("names: [a\ntrain: b", "broken YAML at line 2, column"),
        ("a: &a [*b]", "broken YAML at line 1, column 8"),
        ("when: 2020-99-99", "broken YAML: month"),
        ("!!python/object/apply:os.system [true]", "broken YAML at line 1"),
        ("[" * 5000, "broken YAML"),
        ("- names", "not a YOLO data.yaml"),
        ("train: images/train", "names None"),
        ("names: &a [*a]", "class 0: "),
        ("names: [no]", "class 0: False"),
        ("names: {a: b}", "class 'a': 'b'"),
        ("names: [a]\nnc: 2", "nc 2, but 1 names"),
        ("names: [a]\nkpt_shape: [2]", r"kpt_shape \[2\]"),
        ("names: [a]\nkpt_shape: [-1, 3]", "kpt_shape"),
        ("names: [cat, dog]\ntrain: images/train\nkpt_shape: [0x7fffffff, 3]", "kpt_shape"),
        ("names: [a]\npath: [a]", r"path \['a'\] is no text"),
        ("names: [a]\ntrain: 3", "train 3"),
        ("names: [a]\ntrain: nowhere", "'nowhere': no such folder or file below"),
        ("names: [a]\ntrain: ../../secret", "which leaves"),
        ("names: [a]\ntrain: /etc", "which leaves"),
        ("names: [a]\ntrain: labels", "no images in labels"),
        ("names: [a]\ntrain: list.txt", r"list\.txt, line 2: '\.\./\.\./x\.png' leaves"),
        ("names: [a]\ntrain: link", "'link': a link to .*, outside"),
    ],
)
def test_a_bad_data_yaml_is_named(yolo: Path, text: str, complaint: str) -> None:
    file = write(yolo / "data.yaml", text)
    write(yolo / "list.txt", "images/train/a.png\n../../x.png\n")
    (yolo / "link").symlink_to(yolo.parent)
    (yolo.parent / "secret").mkdir()
    with pytest.raises(DataError, match=complaint) as caught:
        find_split(str(yolo), "train")
    assert str(yolo) in str(caught.value)
    assert run(["data", "check", str(file)]) == 3


@pytest.mark.parametrize(
    "fields", ["kpt_names: [a, 2020-01-01]", "kpt_names: [a]", "flip_idx: [0]", "flip_idx: {0: 1}"]
)
def test_keypoints_of_other_kinds_are_named(yolo: Path, fields: str) -> None:
    with (yolo / "data.yaml").open("a") as file:
        file.write(f"kpt_shape: [2, 3]\n{fields}\n")
    (yolo / "labels/train/a.txt").unlink()
    with pytest.raises(DataError, match=f"{fields.partition(':')[0]} "):
        find_split(str(yolo), "train")


def test_labels_are_read_from_the_set_alone_and_images_may_be_missing(yolo: Path, tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.txt", "0 0.5 0.5 0.5 0.5")
    (yolo / "labels/train/b.txt").symlink_to(secret)
    with pytest.raises(DataError, match=r"b\.txt: a link to .*secret\.txt, outside"):
        find_split(str(yolo), "train")
    (yolo / "labels/train/b.txt").unlink()
    (yolo / "labels/train/a.txt").write_bytes(b"\xff\xff")
    with pytest.raises(DataError, match=r"a\.txt: not a text in UTF-8"):
        find_split(str(yolo), "train")
    # Of an image that cannot be read nobody knows how many pixels a share is: the check names it.
    (yolo / "images/train/a.png").write_bytes(b"")
    assert annotations(yolo) == []
    write(yolo / "data.yaml", "val: images/val\nnames: [cat]\n")
    with pytest.raises(AbsentSplitError, match="no train:"):
        find_split(str(yolo), "train")


# --- Pascal VOC ---


def voc_object(name: str = "cat", corners: str = "1 1 80 40", more: str = "") -> str:
    values = zip(("xmin", "ymin", "xmax", "ymax"), corners.split(), strict=True)
    box = "".join(f"<{corner}>{value}</{corner}>" for corner, value in values)
    return f"<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object>"


def voc_file(*objects: str) -> str:
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation>\n<filename>../other.jpg</filename>\n{size}\n" + "\n".join(objects) + "\n</annotation>\n"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Three images, two of train; classes that only one split has."""
    folder = tmp_path / "voc"
    part = "<part><name>head</name><bndbox><xmin>9</xmin></bndbox></part>"
    files = {
        "a": voc_file(voc_object(), voc_object("dog", "11 21 30 30.5", part + "<difficult>0</difficult>")),
        "b 1": voc_file(voc_object("dog", "1 1 1 1", "<difficult>1</difficult>")),
        "c": voc_file(voc_object("ant")),
    }
    for name, text in files.items():
        write(folder / "Annotations" / f"{name}.xml", text)
        draw(folder / "JPEGImages" / f"{name}.png")
    write(folder / "ImageSets/Main/train.txt", " a\n\nb 1\n")
    write(folder / "ImageSets/Main/val.txt", "c\n")
    return folder


def test_voc_corners_count_from_1_and_are_inside(voc: Path) -> None:
    found = find_split(str(voc), "train")
    assert (found.images, found.recognised) == (voc / "JPEGImages", "Pascal VOC folder")
    assert found.notes == (
        f"{voc}: 1 objects called difficult are neither learnt nor counted as missed, like COCO's crowds",
    )
    split = document(found)
    assert [each["file_name"] for each in split["images"]] == ["a.png", "b 1.png"]
    assert [(each["bbox"], each["area"], each["category_id"], each["iscrowd"]) for each in split["annotations"]] == [
        ([0, 0, 80, 40], 3200, 2, 0),
        ([10, 20, 20, 10.5], 210, 3, 0),
        ([0, 0, 1, 1], 1, 3, 1),
    ]
    # In alphabetical order, over all splits.
    val = document(find_split(str(voc), "val"))
    assert (
        split["categories"]
        == val["categories"]
        == [{"id": 1, "name": "ant"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "dog"}]
    )


def test_voc_lists_stand_in_for_each_other_or_a_tenth_is_val(voc: Path) -> None:
    lists = voc / "ImageSets/Main"
    (lists / "val.txt").rename(lists / "test.txt")
    found = find_split(str(voc), "val")
    assert [each["file_name"] for each in document(found)["images"]] == ["c.png"]
    assert found.notes == (f"val is {lists}/test.txt",)
    (lists / "train.txt").rename(lists / "gone.txt")
    with pytest.raises(AbsentSplitError, match=r"no train\.txt"):
        find_split(str(voc), "train")
    (lists / "test.txt").unlink()
    write(voc / "Annotations/._a.xml", "of a Mac")
    parts = [find_split(str(voc), split) for split in ("train", "val")]
    names = [[each["file_name"] for each in document(part)["images"]] for part in parts]
    assert [len(each) for each in names] == [2, 1]
    assert sorted(names[0] + names[1]) == ["a.png", "b 1.png", "c.png"]
    assert f"{voc} names no split: 1 of its 3 images, drawn with seed 0, are val" in parts[0].notes[0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<annotation>\n<object>", r"broken XML at line 2, column 9: no element found"),
        ("", "broken XML at line 1"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]>\n<a>&b;</a>", "line 1: declares entities"),
        ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>', "declares entities"),
        ("<a>" * 100, "elements lie too deep"),
    ],
)
def test_a_bad_xml_file_is_named_with_its_line(voc: Path, text: str, complaint: str) -> None:
    file = write(voc / "Annotations/a.xml", text)
    with pytest.raises(DataError, match=complaint) as caught:
        find_split(str(voc), "train")
    assert str(caught.value).startswith(str(file))
    assert run(["data", "check", str(voc)]) == 3


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (voc_object(name=""), "an object without a name"),
        ("<object><name>cat</name></object>", "an object without a bndbox"),
        (voc_object(corners="1 1 nan 2"), "xmax 'nan' is no number"),
        ("<object><name>cat</name><bndbox/></object>", "xmin '' is no number"),
    ],
)
def test_a_bad_object_is_named_with_its_line(voc: Path, text: str, complaint: str) -> None:
    file = write(voc / "Annotations/a.xml", voc_file(text))
    found = find_split(str(voc), "train")
    with pytest.raises(DataError, match=f"{file}, line 4: {complaint}"):
        read_split(found.annotations, found.images)
    assert run(["data", "check", str(voc)]) == 3


def test_voc_names_and_links_stay_in_the_folder(voc: Path, tmp_path: Path) -> None:
    write(voc / "ImageSets/Main/train.txt", "a\n../../d\n")
    with pytest.raises(DataError, match=r"train\.txt, line 2: '\.\./\.\./d' leaves the folder"):
        find_split(str(voc), "train")
    write(voc / "ImageSets/Main/train.txt", "a\nd\n")
    with pytest.raises(DataError, match=r"d\.xml: no such file"):
        find_split(str(voc), "train")
    (voc / "Annotations/d.xml").symlink_to(write(tmp_path / "d.xml", voc_file()))
    with pytest.raises(DataError, match=r"d\.xml: a link to .*, outside"):
        find_split(str(voc), "train")


# --- Roboflow's COCO, and a single file ---

ROOT = {"id": 0, "name": "cells", "supercategory": "none"}
RBC = {"id": 1, "name": "RBC", "supercategory": "cells"}


def coco(*categories: dict[str, Any], images: int = 1, category: int = 1) -> dict[str, Any]:
    """Images 1.png, …, each with a box."""
    numbers = range(1, images + 1)
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in numbers],
        "annotations": [
            {"id": i, "image_id": i, "category_id": category, "bbox": [i, 2, 3, 4], "area": 12, "iscrowd": 0}
            for i in numbers
        ],
        "categories": list(categories),
    }


def test_roboflows_folders_are_recognised_and_its_root_category_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "valid", "test"):
        write(tmp_path / split / "_annotations.coco.json", json.dumps(coco(ROOT, RBC)))
        draw(tmp_path / split / "1.png")
    (tmp_path / "valid/1.png").write_bytes((tmp_path / "valid/1.png").read_bytes() + b" ")
    for split, name in (("train", "train"), ("val", "valid")):
        found = find_split(str(tmp_path), split)
        assert found == Files(
            tmp_path / name / "_annotations.coco.json",
            tmp_path / name,
            f"Roboflow COCO folder ({name}/_annotations.coco.json)",
            root=tmp_path,
        )
        assert read_split(found.annotations, found.images).categories == ((1, "RBC"),)
    assert run(["data", "check", str(tmp_path), "--size", "64,96"]) == 0
    assert "category 0 ('cells')" in capsys.readouterr().out
    (tmp_path / "valid").rename(tmp_path / "elsewhere")
    assert find_split(str(tmp_path), "val").images == tmp_path / "test"
    (tmp_path / "train").rename(tmp_path / "gone")
    with pytest.raises(AbsentSplitError, match=r"no train/_annotations\.coco\.json"):
        find_split(str(tmp_path), "train")


@pytest.mark.parametrize(
    ("categories", "category"),
    [
        ((ROOT, RBC), 0),  # it has an object
        (({**ROOT, "supercategory": "thing"}, RBC), 1),
        (({**ROOT, "id": 2}, RBC), 1),
        ((ROOT, {**RBC, "supercategory": "none"}), 1),  # nothing stands below it
        ((ROOT, {**RBC, "id": 0}), 1),
    ],
)
def test_a_category_like_any_other_is_kept(tmp_path: Path, categories: tuple[dict[str, Any]], category: int) -> None:
    assert root_categories(coco(*categories, category=category)) == set()
    assert root_categories(coco(ROOT, RBC)) == {0}


@pytest.mark.parametrize(
    ("file", "images"),
    [("all.json", ""), ("all.json", "photos"), ("annotations/instances_default.json", "images/default")],
)
def test_one_file_is_split_always_alike(tmp_path: Path, file: str, images: str) -> None:
    content = coco(RBC, images=20)
    content["images"][4]["id"] = content["annotations"][4]["image_id"] = "5"  # a number all the same
    content["annotations"].append("odd")
    write(tmp_path / file, json.dumps(content))
    for i in range(1, 21):
        draw(tmp_path / images / f"{i}.png")
    train, val = (find_split(str(tmp_path), split) for split in ("train", "val"))
    assert train.images == val.images == tmp_path / images
    assert train.notes == val.notes
    assert "2 of its 20 images, drawn with seed 0, are val" in train.notes[0]
    # A tenth of 20, by the permutation that the note tells of.
    chosen = {sorted(map(str, range(1, 21)))[i] for i in np.random.default_rng(0).permutation(20)[:2].tolist()}
    parts = [document(each) for each in (train, val)]
    assert {str(each["id"]) for each in parts[1]["images"]} == chosen
    assert {str(each["image_id"]) for each in parts[1]["annotations"]} == chosen
    assert [len(each["images"]) for each in parts] == [18, 2]
    assert parts[0]["annotations"][-1] == "odd"
    assert find_split(str(tmp_path / file), "val") == val


def test_what_is_no_set_is_told_what_would_be_one(tmp_path: Path) -> None:
    write(tmp_path / "compose.yaml", "services: {}\n")
    with pytest.raises(DataError, match="no set that msad knows: no annotations/instances_train") as caught:
        find_split(str(tmp_path), "train")
    assert "docs/data.md" in caught.value.hint
    write(tmp_path / "one.json", json.dumps(coco(RBC)))
    with pytest.raises(DataError, match="1 images cannot be split"):
        find_split(str(tmp_path), "train")
    write(tmp_path / "other.json", json.dumps(coco(RBC)))
    with pytest.raises(
        DataError, match=r"several \.json files, of which none is named after a split: one\.json, other\.json"
    ):
        find_split(str(tmp_path), "train")


# --- all of them, by the commands ---


@pytest.mark.parametrize("make", ["yolo", "voc"])
def test_commands_take_every_layout(
    make: str, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = request.getfixturevalue(make)
    assert run(["data", "stats", str(folder), "--size", "40,80", "--k", "2,4", "--json"]) == 0
    train, val = json.loads(capsys.readouterr().out)["splits"]
    assert [train["counts"][name] for name in ("images", "boxes to learn from")] == [2, 2]
    # √(20 × 20) and √(8 × 8), or √(80 × 40) and √(20 × 10.5), at 1/4: their mean is the median.
    sides = {"yolo": (20, 8), "voc": (3200**0.5, 210**0.5)}[make]
    quantiles = {each["k"]: each["quantiles"][1] for each in train["sizes"]}
    assert quantiles == {k: pytest.approx(sum(sides) / 2 / k, abs=0.006) for k in (1, 2, 4)}
    assert val["counts"]["images"] == 1
    out = str(tmp_path / "t.safetensors")
    arguments = ["teacher", "--data", str(folder), "--size", "64,128", "--init", "none", "--dry-run", "-o", out]
    assert run([*arguments, "--device", "cpu"]) == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert {"yolo": "YOLO set (data.yaml)", "voc": "Pascal VOC folder"}[make] in printed
    assert {"yolo": "are background", "voc": "called difficult"}[make] in printed


def test_stats_warn_of_small_objects(yolo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "stats", str(yolo), "--size", "40,80", "--k", "2"]) == 0
    # Of the sides 20 and 8 one is under 8 pixels at 1/2 of the size that the images have.
    assert "train: 1 objects under 8 pixels in the downsampled view: kept, such as 50%" in capsys.readouterr().err
    assert run(["data", "stats", str(yolo), "--size", "80,160", "--k", "2"]) == 0
    assert "under 8 pixels" not in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_named(
    yolo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("MSAD_CACHE", str(write(tmp_path / "file", "")))
    assert run(["data", "stats", str(yolo)]) == 0
    assert f"the cache {tmp_path / 'file'} cannot be written" in capsys.readouterr().err


def test_nothing_is_left_of_a_conversion_that_fails(
    yolo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MSAD_CACHE", str(tmp_path / "cache"))
    (yolo / "labels/train/a.txt").write_bytes(b"\xff\xff")
    with pytest.raises(DataError):
        find_split(str(yolo), "train")
    assert not os.path.exists(tmp_path / "cache")


# --- a layout of one's own: a file, and a line in a table ---


def test_a_new_layout_is_a_file_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "toy"
    draw(folder / "a.png")
    write(folder / "boxes.txt", "a.png 4 4 16 16\na.png 40 8 20 20\n")
    assert run(["data", "check", str(folder)]) == 3
    assert "no set that msad knows" in capsys.readouterr().err
    monkeypatch.setattr(table, "LAYOUTS", (*table.LAYOUTS, toy_layout.LAYOUT))
    assert run(["data", "check", str(folder), "--json"]) == 0
    captured = capsys.readouterr()
    assert "train: toy set" in captured.err
    assert "no val split: " in captured.err
    (split,) = json.loads(captured.out)["splits"]
    assert split["counts"]["boxes to learn from"] == 2
    assert split["classes"] == [[1, "thing", 2]]
    # What is not recognised is said with the toy's sign too.
    assert run(["data", "check", str(draw(tmp_path / "empty" / "a.png").parent)]) == 3
    assert "nor boxes.txt" in capsys.readouterr().err
