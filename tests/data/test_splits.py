"""What train, val and test are read from: one rule, whatever the layout and however the splits are called."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.labelled_files import write

from msad_cli.data.annotations.records import read_records
from msad_cli.data.layouts.drawing import validation_part
from msad_cli.data.layouts.split_names import own_split, split_in, split_named
from msad_cli.data.layouts.splits import find_split
from msad_cli.errors import AbsentSplitError

WIDTH, HEIGHT = 40, 20
Make = Callable[[Path, dict[str, list[str]]], None]
"""Writes a set: names of images without suffix by what its tool calls their split."""


def draw(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (WIDTH, HEIGHT), 99).save(file)


def document(names: list[str]) -> dict[str, Any]:
    images = [{"id": i, "file_name": f"{each}.png", "width": WIDTH, "height": HEIGHT} for i, each in enumerate(names)]
    boxes = [
        {"id": i + 1, "image_id": i, "category_id": 1, "bbox": [1, 2, 10, 10], "area": 100, "iscrowd": 0}
        for i in range(len(names))
    ]
    return {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}


def coco(folder: Path, splits: dict[str, list[str]], form: str = "annotations/instances_{}.json") -> None:
    for split, names in splits.items():
        for name in names:
            draw(folder / "images" / split / f"{name}.png")
        write(folder / form.format(split), json.dumps(document(names)))


def named(folder: Path, splits: dict[str, list[str]]) -> None:
    coco(folder, splits, "{}.json")


def in_annotations(folder: Path, splits: dict[str, list[str]]) -> None:
    coco(folder, splits, "annotations/{}.json")


def in_folders(folder: Path, splits: dict[str, list[str]]) -> None:
    for split, names in splits.items():
        for name in names:
            draw(folder / split / "data" / f"{name}.png")
        write(folder / split / "labels.json", json.dumps(document(names)))


def roboflow(folder: Path, splits: dict[str, list[str]]) -> None:
    for split, names in splits.items():
        for name in names:
            draw(folder / split / f"{name}.png")
        write(folder / split / "_annotations.coco.json", json.dumps(document(names)))


def yolo(folder: Path, splits: dict[str, list[str]]) -> None:
    for split, names in splits.items():
        for name in names:
            draw(folder / "images" / split / f"{name}.png")
            write(folder / "labels" / split / f"{name}.txt", "0 0.5 0.5 0.2 0.2\n")
    write(folder / "data.yaml", "names: [cat]\n" + "".join(f"{each}: images/{each}\n" for each in splits))


def yolo_without_yaml(folder: Path, splits: dict[str, list[str]]) -> None:
    yolo(folder, splits)
    (folder / "data.yaml").unlink()
    write(folder / "classes.txt", "cat\n")


def darknet(folder: Path, splits: dict[str, list[str]]) -> None:
    fields = {}
    for split, names in splits.items():
        for name in names:
            draw(folder / "obj_data" / f"{name}.png")
            write(folder / "obj_data" / f"{name}.txt", "0 0.5 0.5 0.2 0.2\n")
        write(folder / f"{split}.txt", "".join(f"data/obj_data/{name}.png\n" for name in names))
        fields[split] = f"data/{split}.txt"
    write(folder / "obj.names", "cat\n")
    lines = ["classes = 1", *(f"{split} = {file}" for split, file in fields.items()), "names = data/obj.names"]
    write(folder / "obj.data", "\n".join(lines))


XML = (
    "<annotation><size><width>40</width><height>20</height></size><object><name>cat</name>"
    "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>11</xmax><ymax>12</ymax></bndbox></object></annotation>"
)


def voc(folder: Path, splits: dict[str, list[str]]) -> None:
    for split, names in splits.items():
        for name in names:
            draw(folder / "JPEGImages" / f"{name}.png")
            write(folder / "Annotations" / f"{name}.xml", XML)
        write(folder / f"ImageSets/Main/{split}.txt", "".join(f"{name}\n" for name in names))


def voc_in_folders(folder: Path, splits: dict[str, list[str]]) -> None:
    for split, names in splits.items():
        for name in names:
            draw(folder / split / "JPEGImages" / f"{name}.png")
            write(folder / split / "Annotations" / f"{name}.xml", XML)


def voc_beside(folder: Path, splits: dict[str, list[str]]) -> None:
    for split, names in splits.items():
        for name in names:
            draw(folder / split / f"{name}.png")
            write(folder / split / f"{name}.xml", XML)


LAYOUTS = [
    coco,
    named,
    in_annotations,
    in_folders,
    roboflow,
    yolo,
    yolo_without_yaml,
    darknet,
    voc,
    voc_beside,
    voc_in_folders,
]


def stems(folder: Path, split: str) -> list[str]:
    found = find_split(str(folder), split)
    images = json.loads(found.annotations.read_text())["images"]
    return sorted(Path(each["file_name"]).stem for each in images)


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("Train", "Validation", "Test"), ("train", "valid", "test"), ("TRAIN", "VAL", "TEST")],
)
def test_splits_are_known_whatever_they_are_called(tmp_path: Path, make: Make, train: str, val: str, test: str) -> None:
    make(tmp_path, {train: ["a", "b", "c"], val: ["d", "e"], test: ["f"]})
    assert stems(tmp_path, "train") == ["a", "b", "c"]
    assert stems(tmp_path, "val") == ["d", "e"]
    assert stems(tmp_path, "test") == ["f"]


@pytest.mark.parametrize(
    "make", [each for each in LAYOUTS if each not in (darknet, voc)], ids=lambda make: make.__name__
)
def test_splits_may_have_images_of_the_same_names(tmp_path: Path, make: Make) -> None:
    make(tmp_path, {"train": ["a", "b"], "val": ["a", "c"]})
    for split, names in (("train", ["a", "b"]), ("val", ["a", "c"])):
        assert stems(tmp_path, split) == names
        found = find_split(str(tmp_path), split)
        records = read_records(found.annotations, found.images, root=found.root)
        paths = [records.folder / str(name) for name in records.file_names.tolist()]
        assert {split in each.relative_to(tmp_path).parts for each in paths} == {True}
        assert all(each.is_file() for each in paths)
        assert records.problems == ()


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_test_is_val_where_nothing_else_is_and_that_is_said(tmp_path: Path, make: Make) -> None:
    make(tmp_path, {"train": ["a", "b", "c"], "test": ["d"]})
    assert stems(tmp_path, "train") == ["a", "b", "c"]
    assert stems(tmp_path, "val") == stems(tmp_path, "test") == ["d"]
    assert any("test" in note for note in find_split(str(tmp_path), "val").notes)
    assert find_split(str(tmp_path), "train").notes == ()


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_of_train_alone_a_tenth_is_drawn_and_that_is_said(tmp_path: Path, make: Make) -> None:
    names = [f"{letter}{letter}" for letter in "abcdefghijklmnopqrstu"]  # 21, of which round(2.1) are val
    make(tmp_path, {"train": names})
    train, val = stems(tmp_path, "train"), stems(tmp_path, "val")
    assert (len(train), len(val)) == (19, 2)
    assert sorted(train + val) == names
    assert stems(tmp_path, "val") == val
    for split in ("train", "val"):
        assert any(
            "2 of its 21 images, drawn with seed 0, are val" in n for n in find_split(str(tmp_path), split).notes
        )
    with pytest.raises(AbsentSplitError, match=r"no .*test"):
        find_split(str(tmp_path), "test")


def test_a_yolo_set_may_name_splits_that_it_does_not_have(tmp_path: Path) -> None:
    yolo(tmp_path, {"train": ["a", "b", "c", "d"]})
    text = (tmp_path / "data.yaml").read_text()
    for places in ("val: ../valid/images\ntest: ../test/images\n", "val: /content/set/images/valid\n"):
        write(tmp_path / "data.yaml", text + places)
        assert [len(stems(tmp_path, split)) for split in ("train", "val")] == [3, 1]
        notes = find_split(str(tmp_path), "train").notes
        assert any("is not there" in note for note in notes)
    # What is there, but outside of the set, is no split that is missing.
    draw(tmp_path.parent / "other/x.png")
    write(tmp_path / "data.yaml", f"{text}val: {tmp_path.parent / 'other'}\n")
    with pytest.raises(Exception, match="which leaves"):
        find_split(str(tmp_path), "val")


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("train2017", "train"),
        ("Training", "train"),
        ("VALID", "val"),
        ("validation_01", "val"),
        ("test-dev", "test"),
        ("values", None),
        ("images", None),
        ("trains", None),
    ],
)
def test_words_of_splits(word: str, split: str | None) -> None:
    assert split_named(word) == split


def test_words_in_names() -> None:
    assert split_in("instances_Validation") == "val"
    assert split_in("my-set_test-dev2017") == "test"
    assert split_in("train_and_val") is None
    assert split_in("annotations") is None


def test_a_set_without_train_has_none() -> None:
    assert own_split("val", {"val"}, "set", "x").split == "val"
    with pytest.raises(AbsentSplitError, match="set: no x"):
        own_split("train", {"val", "test"}, "set", "x")


# --- what is drawn ---


def test_frames_of_a_video_are_drawn_as_a_block() -> None:
    names = [f"frame_{i:06d}" for i in range(40)]
    chosen, note = validation_part(names, Path("set"))
    places = sorted(int(each[-6:]) for each in chosen)
    assert len(places) == 4
    assert np.diff(places).tolist() == [1, 1, 1]
    assert "neighbouring frames of a video" in note
    assert validation_part(names[::-1], Path("set")) == (chosen, note)


def test_whole_videos_are_drawn_where_there_are_several() -> None:
    names = [f"video{video}/{i:04d}" for video in "abcdefghij" for i in range(0, 60, 3)]
    chosen, note = validation_part(names, Path("set"))
    assert len(chosen) == 20
    assert len({each.split("/")[0] for each in chosen}) == 1
    assert "1 whole videos of 10" in note


@pytest.mark.parametrize(
    "form", ["frame_{:06d}", "clip/img{}", "seq 7 {:03d}", "frame_{}_jpg.rf.0a1b2c", "a video {} (copy)", "cam1/{:05d}"]
)
def test_names_tell_of_frames_in_many_ways(form: str) -> None:
    rng = np.random.default_rng(0)
    numbers = np.flatnonzero(rng.uniform(size=40) < 0.9).tolist()  # some frames were thrown away
    chosen, note = validation_part([form.format(i) for i in numbers], Path("set"))
    assert "neighbouring frames" in note
    places = sorted(numbers.index(i) for i in numbers if form.format(i) in chosen)
    assert places == list(range(places[0], places[0] + round(len(numbers) / 10)))


def test_short_videos_are_drawn_whole() -> None:
    names = [f"video{video}_frame{i}" for video in range(9) for i in range(5)]
    chosen, note = validation_part(names, Path("set"))
    assert "1 whole videos of 9" in note
    assert len({each.partition("_")[0] for each in chosen}) == 1
    assert len(chosen) == 5


def test_running_numbers_alone_are_drawn_as_ever_and_named() -> None:
    names = [f"{i:03d}" for i in range(50)]
    chosen, note = validation_part(names, Path("set"))
    places = np.random.default_rng(0).permutation(50)[:5]
    assert chosen == {names[i] for i in places.tolist()}
    assert "running numbers" in note
    _, note = validation_part([f"{i * i}" for i in range(50)], Path("set"))
    assert "running" not in note


def test_files_tell_of_videos_where_ids_do_not() -> None:
    files = {str(i): f"clip1/frame{i}.jpg" for i in range(20)}
    chosen, note = validation_part(list(files), Path("set"), files)
    assert len(chosen) == 2
    assert "video" in note
