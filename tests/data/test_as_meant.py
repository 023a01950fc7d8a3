"""What tools write otherwise than COCO is read as it is meant, and counted; what is left open, the user decides."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.drawn_sets import Document, Drawn, drawn_set

from msad_cli.cli.app import run
from msad_cli.data.agreement.as_meant import as_meant
from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.check import check
from msad_cli.data.annotations.problem_tally import Tally
from msad_cli.data.annotations.records import read_document
from msad_cli.data.annotations.split import read_split
from msad_cli.data.annotations.values import read_flag
from msad_cli.data.layouts.splits import find_split
from msad_cli.errors import DataError
from msad_cli.evaluation.ground_truth import ground_truth
from msad_cli.frame import Resolution

RESOLUTION = Resolution(64, 96)
SEEDS = (1, 2, 3)


def counts(drawn: Drawn, task: str = "boxes") -> dict[str, int]:
    return {each.code: each.count for each in drawn.records(task).problems}


def truth(drawn: Drawn) -> list[Document]:
    """What evaluation makes of the annotations."""
    return list(ground_truth(read_split(drawn.file, drawn.folder))["annotations"])


# --- rectangles that CVAT turned ---


@pytest.mark.parametrize("seed", SEEDS)
def test_turned_rectangles_are_read_as_the_boxes_around_them(tmp_path: Path, seed: int) -> None:
    drawn = drawn_set(tmp_path, seed)
    degrees = np.random.default_rng(seed).uniform(-720, 720, 20).round(1)
    degrees[:6] = (0, 0.9, 180.5, -359.5, 90, 1.5)  # the first four are upright

    def turn(each: Document, image: Document) -> None:
        each["attributes"] = {"occluded": False, "rotation": float(degrees[each["id"] - 1])}

    drawn.changed(turn)
    upright = [min(each % 180, 180 - each % 180) <= 1 for each in degrees]
    assert counts(drawn) == {kinds.TURNED_BOX.code: upright.count(False)}
    boxes = drawn.records().annotations.boxes
    for box, meant, angle, as_it_is in zip(drawn.boxes, boxes, degrees, upright, strict=True):
        x, y, w, h = box
        # The corners of the rectangle, turned about its centre one by one.
        turned = [
            complex(x + w / 2, y + h / 2) + complex(dx * w / 2, dy * h / 2) * np.exp(1j * math.radians(angle))
            for dx in (-1, 1)
            for dy in (-1, 1)
        ]
        xs, ys = np.real(turned), np.imag(turned)
        wanted = box if as_it_is else (xs.min(), ys.min(), np.ptp(xs), np.ptp(ys))
        np.testing.assert_allclose(meant, wanted, atol=1e-9)
    np.testing.assert_allclose([each["bbox"] for each in truth(drawn)], boxes, atol=1e-9)
    # Read once more, nothing is turned again.
    document = as_meant(read_document(drawn.file), Tally())
    tally = Tally()
    assert as_meant(document, tally) == document
    assert tally.problems() == ()


def test_a_rotation_beside_an_outline_that_fits_its_box_is_only_told(tmp_path: Path) -> None:
    drawn = drawn_set(tmp_path, 1, "polygon")
    drawn.changed(lambda each, image: each.update(attributes={"rotation": 30.0}))
    assert counts(drawn) == {}
    np.testing.assert_array_equal(drawn.records().annotations.boxes, drawn.boxes)


def test_an_outline_that_is_the_rectangle_is_turned_with_it(tmp_path: Path) -> None:
    drawn = drawn_set(tmp_path, 1)

    def turn(each: Document, image: Document) -> None:
        x, y, w, h = each["bbox"]
        each |= {"attributes": {"rotation": 90}, "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}

    drawn.changed(turn)
    of = drawn.records("masks").annotations
    middle = drawn.boxes[:, :2] + drawn.boxes[:, 2:] / 2
    wanted = np.concatenate([middle - drawn.boxes[:, :1:-1] / 2, drawn.boxes[:, :1:-1]], axis=1)
    np.testing.assert_allclose(of.boxes, wanted, atol=1e-9)
    np.testing.assert_allclose(of.outlines[:, 2:] - of.outlines[:, :2], wanted[:, 2:], atol=1e-9)


def test_rectangles_of_voc_are_turned_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CVAT writes the rotation beside the corners: 60 × 20 pixels about (70, 50), turned by 90°, are 20 × 60."""
    for place in ("Annotations", "JPEGImages"):
        (tmp_path / place).mkdir()
    rotation = "<attributes><attribute><name>rotation</name><value>90.0</value></attribute></attributes>"
    box = "<bndbox><xmin>41</xmin><ymin>41</ymin><xmax>100</xmax><ymax>60</ymax></bndbox>"
    for name in "abc":
        Image.new("L", (200, 120)).save(tmp_path / "JPEGImages" / f"{name}.png")
        text = f"<annotation><object><name>ship</name>{box}{rotation}</object></annotation>"
        (tmp_path / "Annotations" / f"{name}.xml").write_text(text)
    assert run(["data", "convert", str(tmp_path), "-o", str(tmp_path / "new"), "--to", "yolo"]) == 0
    assert "2 boxes of rectangles that are turned" in capsys.readouterr().err
    # Centre and sides as shares of 200 × 120 pixels.
    wanted = [0, 70 / 200, 50 / 120, 20 / 200, 60 / 120]
    for label in (tmp_path / "new" / "labels").rglob("*.txt"):
        np.testing.assert_allclose([float(value) for value in label.read_text().split()], wanted, atol=1e-6)


# --- boxes and ids ---


@pytest.mark.parametrize("missing", [None, [], [0, 0, 0, 0], "absent"])
@pytest.mark.parametrize("outlines", ["polygon", "rle"])
def test_a_box_that_is_missing_is_that_of_its_outline(tmp_path: Path, missing: Any, outlines: str) -> None:
    drawn = drawn_set(tmp_path, 2, outlines)

    def take(each: Document, image: Document) -> None:
        each.pop("bbox") if missing == "absent" else each.update(bbox=missing)

    count = drawn.changed(take, 0.4)
    assert counts(drawn) == {kinds.BOX_OF_OUTLINE.code: count}
    np.testing.assert_allclose(drawn.records().annotations.boxes, drawn.boxes, atol=1e-9)
    assert len(truth(drawn)) == 20


def test_neither_box_nor_outline_is_refused(tmp_path: Path) -> None:
    drawn = drawn_set(tmp_path, 2)
    drawn.changed(lambda each, image: each.update(bbox=[]), 0.1)
    with pytest.raises(DataError, match="malformed records"):
        read_split(drawn.file, drawn.folder)


@pytest.mark.parametrize("form", ["img_{}", "{}-a", "1234567890123456789{}", 10**20])
def test_ids_that_no_number_holds_are_numbered(tmp_path: Path, form: str | int) -> None:
    drawn = drawn_set(tmp_path, 3)

    def own(number: int) -> str | int:
        return form + number if isinstance(form, int) else form.format(10 + number)

    for image in drawn.document["images"]:
        image["id"] = own(image["id"])
    for each in drawn.document["annotations"]:
        each["image_id"] = own(each["image_id"])
    drawn.changed(lambda each, image: None)
    assert counts(drawn) == {kinds.RENUMBERED.code: 4}
    records = drawn.records()
    assert records.annotations.images.tolist() == [i // 5 for i in range(20)]
    assert {each["image_id"] for each in truth(drawn)} == set(records.image_ids.tolist())
    # One file is split by these ids, too: a tenth, one image of four.
    found = tmp_path / "new"
    assert run(["data", "convert", str(drawn.file), "-o", str(found), "--to", "yolo", "-q"]) == 0
    assert [len(list((found / "images" / split).iterdir())) for split in ("train", "val")] == [3, 1]


def test_images_named_by_their_address_alone(tmp_path: Path) -> None:
    drawn = drawn_set(tmp_path, 4)
    for image in drawn.document["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{image.pop('file_name')}?x=1"
    drawn.changed(lambda each, image: None)
    assert counts(drawn) == {kinds.NAME_OF_URL.code: 4}
    assert drawn.records().file_names.tolist() == [f"{number}.png" for number in range(1, 5)]


def test_keypoints_of_null_have_no_label(tmp_path: Path) -> None:
    drawn = drawn_set(tmp_path, 4)

    def take(each: Document, image: Document) -> None:
        each["keypoints"][3:6] = [None, None, 0]

    drawn.changed(take)
    assert counts(drawn, "keypoints") == {}
    points = drawn.records("keypoints").annotations.keypoints
    assert (points[:, 1] == 0).all()
    assert (points[:, [0, 2, 3], 2] == 2).all()


# --- flags ---


@pytest.mark.parametrize(
    ("value", "flag"),
    [
        *((0, 0), (1, 1), (0.0, 0), (True, 1), (False, 0), ("0", 0), ("1", 1), (" False ", 0), ("TRUE", 1), ("no", 0)),
        *(("yes", 1), ("", 0), ("maybe", 0), (None, 0), (2, 1), ([], 0)),
    ],
)
def test_flags_are_read_as_they_are_meant(value: Any, flag: int) -> None:
    assert read_flag(value) == flag


@pytest.mark.parametrize("value", [1, "1", True, "true"])
def test_what_is_to_be_ignored_is_left_out_and_counted(tmp_path: Path, value: Any) -> None:
    drawn = drawn_set(tmp_path, 5)
    drawn.changed(lambda each, image: each.update(ignore=value), 0.45)
    assert counts(drawn) == {kinds.IGNORED.code: 9}
    assert len(read_split(drawn.file, drawn.folder).boxes) == 11
    assert [each["iscrowd"] for each in truth(drawn)] == [1] * 9 + [0] * 11
    drawn.changed(lambda each, image: each.update(ignore="false"))
    assert counts(drawn) == {}


@pytest.mark.parametrize(("share", "outlines"), [(0.15, "rle"), (0.5, "rle"), (1.0, "rle"), (0.6, "")])
def test_many_crowds_are_a_question(
    tmp_path: Path, share: float, outlines: str, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = drawn_set(tmp_path, 6, outlines)
    count = drawn.changed(lambda each, image: each.update(iscrowd=1), share)
    report = check({"train": drawn.records()}, RESOLUTION, ())
    found = {each.code: each for _, each in report.problems}
    assert found[kinds.MANY_CROWDS.code].count == count
    assert (kinds.NO_BOXES.code in found) == (share == 1)
    if share == 1:
        assert "20 crowd regions" in found[kinds.NO_BOXES.code].examples[0]
        assert "--crowd-as-objects" in found[kinds.NO_BOXES.code].advice
    before = drawn.file.read_text()
    command = ["data", "check", str(drawn.file), "--images", str(drawn.folder), "--crowd-as-objects", "--json"]
    assert run(command) == 0
    shown = capsys.readouterr()
    (split,) = json.loads(shown.out)["splits"]
    assert (split["counts"]["boxes to learn from"], split["problems"]) == (20, [])
    assert f"{count} crowd regions are read as objects" in shown.err
    assert drawn.file.read_text() == before


def test_few_crowds_are_not(tmp_path: Path) -> None:
    drawn = drawn_set(tmp_path, 6, "rle")
    drawn.changed(lambda each, image: each.update(iscrowd=1), 0.05)
    assert counts(drawn) == {}


# --- names ---


def test_names_that_differ_in_case_or_blanks_are_one_class_if_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("Cat", "cat", "dog", "cat ", "Dog", "cow")
    folder = tmp_path / "coco"
    for split, seed in (("train", 7), ("val", 8)):
        drawn = drawn_set(folder / f"{split}2017", seed)
        # val does not list the first class: its "cat" is category 2 alone.
        listed = [
            {"id": number, "name": name} for number, name in enumerate(names, start=1) if split == "train" or number > 1
        ]
        for each in drawn.document["annotations"]:
            each["category_id"] = listed[each["id"] % len(listed)]["id"]
        document = {**drawn.document, "categories": listed}
        file = folder / "annotations" / f"instances_{split}2017.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(document))
    assert run(["data", "check", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "'Cat', 'cat' and 'cat ' are category 1, 2 and 4" in shown
    assert "'dog' and 'Dog' are category 3 and 5" in shown
    assert run(["data", "check", str(folder), "--join-classes", "--json"]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert [[each[:2] for each in split["classes"]] for split in report["splits"]] == [
        [[1, "Cat"], [3, "dog"], [6, "cow"]]
    ] * 2
    assert [sum(each[2] for each in split["classes"]) for split in report["splits"]] == [20, 20]
    assert [problem for split in report["splits"] for problem in split["problems"]] == []
    assert "train: 'cat' is read as 'Cat', 'cat ' is read as 'Cat', 'Dog' is read as 'dog'" in printed.err
    assert run(["data", "convert", str(folder), "-o", str(tmp_path / "new"), "--to", "yolo", "--join-classes"]) == 0
    assert "names: {0: Cat, 1: dog, 2: cow}" in (tmp_path / "new" / "data.yaml").read_text()


@pytest.mark.parametrize("fields", [("image_id",), ("category_id",), ("image_id", "category_id")])
def test_images_and_categories_may_be_referred_to_by_their_names(tmp_path: Path, fields: tuple[str, ...]) -> None:
    drawn = drawn_set(tmp_path, 11)
    plain = truth(drawn)

    def name(each: Document, image: Document) -> None:
        own = {"image_id": image["file_name"], "category_id": "cat"}
        each.update({field: own[field] for field in fields})

    drawn.changed(name)
    names = {"image_id": len(drawn.document["images"]), "category_id": 1}
    assert counts(drawn) == {kinds.RENUMBERED.code: sum(names[field] for field in fields)}
    assert truth(drawn) == plain
    # A part of the file is val, with the objects of its images alone.
    parts = [find_split(str(drawn.file), split) for split in ("train", "val")]
    objects = [len(read_split(of.annotations, of.images).boxes) for of in parts]
    assert objects == [15, 5]  # of 4 images with 5 objects, a tenth is 1
    assert run(["data", "check", str(drawn.file), "--split", "train", "--fix", "-o", str(tmp_path / "new.json")]) == 0
    repaired = json.loads((tmp_path / "new.json").read_text())["annotations"]
    assert [each["image_id"] for each in repaired] == [each["image_id"] for each in drawn.document["annotations"]]


def test_a_name_of_two_images_is_no_reference(tmp_path: Path) -> None:
    drawn = drawn_set(tmp_path, 12)
    drawn.document["images"][1]["file_name"] = "1.png"
    count = drawn.changed(lambda each, image: each.update(image_id=image["file_name"]))
    found = counts(drawn)
    assert found[kinds.BAD_ID.code] == count // 2  # two of the four images
    assert found[kinds.RENUMBERED.code] == 2


# --- JSON of other tools ---


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"a.png1": {"filename": "a.png", "regions": []}}, "VIA"),
        ({"_via_settings": {}, "_via_img_metadata": {}}, "VIA"),
        ({"version": "5.0", "shapes": [], "imagePath": "a.png"}, "labelme"),
        ([{"id": 1, "data": {"image": "/a.png"}, "annotations": []}], "Label Studio"),
        ([{"id": 1, "image": "/a.png", "label": [], "annotator": 1, "annotation_id": 2}], "Label Studio"),
        ({"classes": [{"title": "cat"}], "tags": []}, "Supervisely"),
        ([{"image": "a.png", "annotations": [{"label": "cat", "coordinates": {}}]}], "CreateML"),
        ([{"image_id": 1, "category_id": 1, "bbox": [1, 1, 1, 1], "score": 0.5}], "results"),
        ([{"name": "a.jpg", "labels": []}], "Scalabel"),
        ({"info": {}, "categories": {"label": {}}, "items": []}, "datumaro"),
        ({"type": "FeatureCollection", "features": []}, "GeoJSON"),
    ],
)
def test_json_of_another_tool_is_named(
    tmp_path: Path, document: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = drawn_set(tmp_path, 9)
    drawn.file.write_text(json.dumps(document))
    assert run(["data", "check", str(tmp_path)]) == 3
    shown = capsys.readouterr().err
    assert words in shown
    assert "hint: " in shown
    # A file for each image, as labelme and others write them.
    (tmp_path / "b.json").write_text(json.dumps(document))
    assert run(["data", "check", str(tmp_path)]) == 3
    assert words in capsys.readouterr().err


def test_a_json_finds_its_images_where_its_folder_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("set", "set/images"):
        drawn = drawn_set(tmp_path / place, 10)
        file = drawn.file.rename(tmp_path / "set" / "a.json")
        for named in (file, tmp_path / "set"):
            assert run(["data", "check", str(named), "--json"]) == 0
            found = json.loads(capsys.readouterr().out)["splits"]
            assert {each["folder"] for each in found} == {str(tmp_path / place)}
        for image in (tmp_path / "set").glob("*.png"):
            image.unlink()
