"""`msad data convert` loses nothing in silence: what a layout cannot hold is counted, what check says is said."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.drawn_sets import POINTS, Document, drawn_set

from msad_cli.cli.app import run
from msad_cli.data.layouts.splits import find_split

SKELETON = [[1, 2], [2, 3], [1, 4]]


def coco(folder: Path, seed: int, outlines: str = "", kind: str = "instances", **category: object) -> Path:
    """A COCO folder of two drawn splits."""
    for split, more in (("train", 0), ("val", 50)):
        drawn = drawn_set(folder / f"{split}2017", seed + more, outlines)
        drawn.document["categories"][0] |= category
        if kind == "instances":
            drawn.document["categories"][0].pop("keypoints")
        drawn.file.unlink()
        file = folder / "annotations" / f"{kind}_{split}2017.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(drawn.document))
    return folder


def document(folder: Path, split: str, task: str = "boxes") -> Document:
    read: Document = json.loads(find_split(str(folder), split, task=task).annotations.read_text())
    return read


def change(folder: Path, how: object, split: str = "train", kind: str = "instances") -> None:
    file = folder / "annotations" / f"{kind}_{split}2017.json"
    changed = json.loads(file.read_text())
    how(changed)  # type: ignore[operator]
    file.write_text(json.dumps(changed))


@pytest.mark.parametrize("seed", [1, 2])
def test_areas_and_skeletons_are_kept_or_counted(tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    source = coco(tmp_path / "coco", seed, kind="person_keypoints", skeleton=SKELETON)

    def other_areas(changed: Document) -> None:
        for each in changed["annotations"][:7]:
            each["area"] *= 0.6

    change(source, other_areas, kind="person_keypoints")
    assert run(["data", "convert", str(source), "-o", str(tmp_path / "yolo"), "--to", "yolo"]) == 0
    shown = capsys.readouterr().err
    assert "7 areas, which YOLO cannot hold (width × height is taken)" in shown
    assert "1 skeleton, kept in data.yaml" in shown
    assert run(["data", "convert", str(tmp_path / "yolo"), "-o", str(tmp_path / "back"), "--to", "coco", "-q"]) == 0
    category = document(tmp_path / "back", "train", "keypoints")["categories"][0]
    assert category["skeleton"] == SKELETON
    assert category["keypoints"] == list(POINTS)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_boxes_go_through_voc_and_back(tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    """To 1e-4 pixels: the corners are written with four decimals. Both splits have images called 1.png, …"""
    source = coco(tmp_path / "coco", seed, name="R & D <1>")
    rng = np.random.default_rng(seed)

    def fractions(changed: Document) -> None:
        for each in changed["annotations"]:
            x, y, w, h = each["bbox"]
            each["bbox"] = [*(np.array([x, y]) + rng.uniform(0, 1, 2)).tolist(), w - 1.5, h - 1.5]
        changed["annotations"][3]["iscrowd"] = 1

    for split in ("train", "val"):
        change(source, fractions, split)
    voc = tmp_path / "voc"
    assert run(["data", "convert", str(source), "-o", str(voc), "--to", "voc"]) == 0
    assert "2 crowd regions, written as difficult" in capsys.readouterr().err
    assert len(list((voc / "JPEGImages").rglob("*.png"))) == 8
    for split in ("train", "val"):
        before, after = document(source, split), document(voc, split)
        assert [each["name"] for each in after["categories"]] == ["R & D <1>"]
        assert [each["iscrowd"] for each in after["annotations"]] == [each["iscrowd"] for each in before["annotations"]]
        boxes = [[each["bbox"] for each in of["annotations"]] for of in (before, after)]
        np.testing.assert_allclose(boxes[1], boxes[0], atol=2.1e-4)
        assert [(each["width"], each["height"]) for each in after["images"]] == [
            (each["width"], each["height"]) for each in before["images"]
        ]
    assert run(["data", "check", str(voc)]) == 0


def test_what_voc_cannot_hold_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = coco(tmp_path / "coco", 4, "polygon", "person_keypoints")

    def more(changed: Document) -> None:
        changed["categories"].append({"id": 9, "name": "unused", "keypoints": list(POINTS)})
        changed["annotations"][0]["bbox"][2] = 0
        changed["annotations"][0].pop("segmentation")

    change(source, more, kind="person_keypoints")
    assert run(["data", "convert", str(source), "-o", str(tmp_path / "voc"), "--to", "voc"]) == 0
    shown = capsys.readouterr().err
    # 20 objects a split, one of train without width.
    for line in (
        "39 segmentations, which VOC cannot hold",
        "39 lists of keypoints, which VOC cannot hold",
        "1 classes without objects, which VOC cannot hold",
        "1 boxes that are none, outside or repeated, left out",
        "train: 1 boxes without width or height: dropped",
        " of val, boxes; msad data check",
    ):
        assert line in shown


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
def test_convert_says_what_check_says_and_refuses_what_it_refuses(
    tmp_path: Path, to: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = coco(tmp_path / "coco", 5, "polygon")

    def centres(changed: Document, most: int) -> None:
        for each in changed["annotations"][:most]:
            x, y, w, h = each["bbox"]
            each["bbox"] = [x + w / 2, y + h / 2, w, h]

    convert = ["data", "convert", str(source), "-o", str(tmp_path / "new"), "--to", to]
    change(source, lambda changed: centres(changed, 1))
    assert run(convert) == 0
    assert "train: 1 boxes that are not those of their outlines" in capsys.readouterr().err
    change(source, lambda changed: centres(changed, 20))
    assert run([*convert[:4], str(tmp_path / "other"), *convert[5:]]) == 3
    assert "they look like centre x, centre y, width, height" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_set_without_an_object_is_converted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = coco(tmp_path / "coco", 6)
    change(source, lambda changed: changed["annotations"].clear())
    assert run(["data", "convert", str(source), "-o", str(tmp_path / "new"), "--to", "yolo"]) == 0
    assert "train: 1 no boxes to learn from" in capsys.readouterr().err
