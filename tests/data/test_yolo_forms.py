"""YOLO sets as tools write them: tracks and scores behind rows, names with keys as texts, paths of other machines, …"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.labelled_files import draw_grey, write

from msad_cli.cli.app import run
from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.problem_tally import Problem
from msad_cli.data.annotations.records import Records
from msad_cli.data.annotations.split import read_split
from msad_cli.data.layouts.splits import find_split, records_of
from msad_cli.errors import DataError

WIDTH, HEIGHT = 80, 40
SIZES = ("--size", "64,96")

draw = partial(draw_grey, size=(WIDTH, HEIGHT))


def row(rng: np.random.Generator, kind: str) -> str:
    """A box, a polygon of 4 points, or a pose of 3 keypoints, without its class."""
    box = [0.5, 0.5, *rng.uniform(0.1, 0.4, 2).round(4)]
    ring = rng.uniform(0.1, 0.9, 8).round(4).tolist()
    pose = [value for each in (2, 0, 1) for value in (*rng.uniform(0.1, 0.9, 2).round(4), each)]
    return " ".join(map(str, {"box": box, "ring": ring, "pose": [*box, *pose]}[kind]))


def yolo(folder: Path, rows: list[str], more: str = "") -> Path:
    """As many images of train as rows, of val one."""
    for i, each in enumerate(rows):
        draw(folder / f"images/train/{i}.png")
        write(folder / f"labels/train/{i}.txt", f"{each}\n")
    draw(folder / "images/val/v.png")
    write(folder / "labels/val/v.txt", f"{rows[0]}\n")
    write(folder / "data.yaml", f"train: images/train\nval: images/val\nnames: [cat, dog]\n{more}")
    return folder


def document(folder: Path, split: str = "train") -> dict[str, Any]:
    read: dict[str, Any] = json.loads(find_split(str(folder), split).annotations.read_text())
    return read


def objects(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    return list(document(folder, split)["annotations"])


def records(folder: Path, split: str = "train") -> Records:
    return records_of({split: find_split(str(folder), split)}, "boxes")[split]


def counts(folder: Path, split: str = "train") -> dict[str, int]:
    return {each.code: each.count for each in records(folder, split).problems}


def only(kind: Problem, count: int) -> dict[str, int]:
    return {kind.code: count}


@pytest.mark.parametrize("kind", ["box", "ring", "pose"])
@pytest.mark.parametrize("seed", [0, 1])
def test_whole_numbers_behind_rows_are_tracks(tmp_path: Path, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    more = "kpt_shape: [3, 3]\n" if kind == "pose" else ""
    rows = [f"{int(rng.integers(2))} {row(rng, kind)}" for _ in range(5)]
    plain = objects(yolo(tmp_path / "plain", rows, more))
    tracked = [f"{each} {int(rng.integers(3, 99))}" if i in (1, 3) else each for i, each in enumerate(rows)]
    folder = yolo(tmp_path / "tracked", tracked, more)
    assert objects(folder) == plain
    assert counts(folder) == {}
    notes = find_split(str(folder), "train").notes
    assert any("2 rows have a whole number in a last column of their own: track ids" in note for note in notes)
    assert run(["data", "check", str(folder), "--task", {"pose": "keypoints"}.get(kind, "boxes"), *SIZES]) == 0


@pytest.mark.parametrize("kind", ["box", "ring"])
def test_fractions_behind_rows_are_scores_and_refused(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    rows = [f"0 {row(rng, kind)} {score}" for score in (0.5, 1, 0.25)]
    folder = yolo(tmp_path, rows)
    # A whole number among scores is one too.
    assert counts(folder) == only(kinds.BAD_LABELS, 3)
    assert "looks like a score" in records(folder).problems[0].examples[0]


@pytest.mark.parametrize("keypoints", [1, 3, 4, 17])  # of 2, a polygon may have as many by chance
def test_poses_without_a_shape_are_no_polygons(tmp_path: Path, keypoints: int) -> None:
    rng = np.random.default_rng(keypoints)
    pose = " ".join(
        f"{x:.3f} {y:.3f} {v}" for x, y, v in zip(*rng.uniform(0, 1, (2, keypoints)), [2, 1, 0, 1] * 5, strict=False)
    )
    folder = yolo(tmp_path, [f"0 0.5 0.5 0.2 0.2 {pose}"] * 4)
    assert counts(folder) == only(kinds.BAD_LABELS, 4)
    assert "data.yaml has no kpt_shape" in records(folder).problems[0].examples[0]


def test_one_bad_row_does_not_stop_the_set_but_a_percent_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    rows = [f"0 {row(rng, 'box')}" for _ in range(5)]
    many = "\n".join(f"1 {row(rng, 'box')}" for _ in range(200))
    folder = yolo(tmp_path / "few", [*rows, many, f"7 {row(rng, 'box')}\n0 nan 1 1 1"])
    assert counts(folder) == only(kinds.FEW_BAD_LABELS, 2)
    assert len(objects(folder)) == 205
    assert [each.rpartition("/")[2] for each in records(folder).problems[0].examples] == [
        "6.txt, line 1: class '7', known are 0, 1",
        "6.txt, line 2: 'nan' is no number",
    ]
    assert run(["data", "check", str(folder), *SIZES]) == 0
    # All are listed at once, beside whatever else is wrong, and training is refused.
    folder = yolo(tmp_path / "many", [*rows, *(f"{i} {row(rng, 'box')}" for i in range(2, 6)), "0 0.5 0.5 0 0.1"])
    assert counts(folder) == only(kinds.BAD_LABELS, 4)
    assert run(["data", "check", str(folder), *SIZES]) == 3
    with pytest.raises(DataError, match=r"class '2', known are 0, 1 \(one of 4\)"):
        read_split(find_split(str(folder), "train").annotations, folder)
    assert run(["data", "convert", str(folder), "--to", "coco", "-o", str(tmp_path / "new")]) == 3
    # A repaired file has the others, and nothing to be said of these.
    out = tmp_path / "fixed.json"
    assert run(["data", "check", str(folder), "--split", "train", "--fix", "-o", str(out)]) == 0
    assert "4 objects in label files that cannot be read, left out" in capsys.readouterr().out
    assert len(json.loads(out.read_text())["annotations"]) == 5
    assert run(["data", "check", str(out), "--images", str(folder), *SIZES]) == 0


@pytest.mark.parametrize(
    "names", ["{'0': cat, '1': dog}", '{"0": cat, 1: dog}', "[cat, dog]", "{0: cat, 1: dog}", "{' 1 ': dog, '0': cat}"]
)
def test_keys_of_names_may_be_texts(tmp_path: Path, names: str) -> None:
    folder = yolo(tmp_path, ["1 0.5 0.5 0.2 0.2"])
    write(folder / "data.yaml", f"train: images/train\nval: images/val\nnames: {names}\n")
    found = {each["id"]: each["name"] for each in document(folder)["categories"]}
    assert found == {0: "cat", 1: "dog"}


@pytest.mark.parametrize(
    "line",
    [
        r".\images\train\{}.png",
        "/content/set/images/train/{}.png",
        "data/images/train/{}.png",
        r"D:\work\set\images\train\{}.png",
        "../set/images/train/{}.png",
        "images/train/{}.PNG",
        "IMAGES/Train/{}.png",
        "{}.png",
        "images%2Ftrain%2F{}.png",
    ],
)
def test_lists_of_other_machines_are_read_and_counted(tmp_path: Path, line: str) -> None:
    rng = np.random.default_rng(0)
    folder = yolo(tmp_path, [f"0 {row(rng, 'box')}" for _ in range(4)])
    expected = objects(folder)
    write(folder / "train.txt", "".join(f"{line.format(i)}\n" for i in range(4)))
    write(folder / "data.yaml", "train: train.txt\nval: images/val\nnames: [cat, dog]\n")
    assert objects(folder) == expected
    assert counts(folder) == only(kinds.ELSEWHERE, 4)


def test_what_lies_elsewhere_is_counted_in_its_own_split(tmp_path: Path) -> None:
    folder = yolo(tmp_path, ["0 0.5 0.5 0.2 0.2"] * 20)
    write(folder / "train.txt", "".join(f"/far/train/{i}.png\n" for i in range(20)))
    write(folder / "data.yaml", "train: train.txt\nnames: [cat, dog]\n")
    assert [counts(folder, split) for split in ("train", "val")] == [only(kinds.ELSEWHERE, n) for n in (18, 2)]


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (r"C:\Users\me\set", r"images\{}"),
        ("", "/content/set/images/{}"),
        ("../datasets/set", "images/{}"),
        (".", "../images/{}"),
        (".", r"..\images\{}"),
    ],
)
def test_folders_of_other_machines_are_read(tmp_path: Path, path: str, place: str) -> None:
    rng = np.random.default_rng(0)
    folder = yolo(tmp_path, [f"0 {row(rng, 'box')}" for _ in range(3)])
    lines = [f"path: '{path}'" if path else "", *(f"{split}: '{place.format(split)}'" for split in ("train", "val"))]
    write(folder / "data.yaml", "\n".join([*lines, "names: [cat, dog]\n"]))
    assert [len(objects(folder, split)) for split in ("train", "val")] == [3, 1]


def test_a_file_that_names_classes_is_known_among_others(tmp_path: Path) -> None:
    folder = yolo(tmp_path, ["0 0.5 0.5 0.2 0.2"])
    (folder / "data.yaml").rename(folder / "cats.yml")
    write(folder / "hyp.yaml", "lr0: 0.01\n")
    write(folder / "args.yaml", "task: detect\n")
    assert len(objects(folder)) == 1
    write(folder / "data.yaml", "path: .\n")  # one without names is none
    assert len(objects(folder)) == 1


@pytest.mark.parametrize(
    ("image", "label"),
    [("images/{}.png", "labels/{}.TXT"), ("Images/{}.PNG", "Labels/{}.txt"), ("images/{}.jfif", "labels/{}.txt")],
)
def test_labels_and_images_are_known_in_any_case(tmp_path: Path, image: str, label: str) -> None:
    for split in ("train", "val"):
        for i in range(3):
            draw(tmp_path / image.format(f"{split}/{i}"))
            write(tmp_path / label.format(f"{split}/{i}"), "0 0.5 0.5 0.2 0.2\n")
    top = image.partition("/")[0]
    write(tmp_path / "data.yaml", f"train: {top}/train\nval: {top}/val\nnames: [cat]\n")
    assert len(objects(tmp_path)) == 3
    assert counts(tmp_path) == {}


@pytest.mark.parametrize("listed", [False, True])
def test_what_has_labels_and_is_not_read_is_counted(tmp_path: Path, listed: bool) -> None:
    folder = yolo(tmp_path, ["0 0.5 0.5 0.2 0.2"] * 4)
    for name in ("x", "y"):
        write(folder / f"images/train/{name}.heic", "no image")
        write(folder / f"labels/train/{name}.txt", "0 0.5 0.5 0.2 0.2\n")
    write(folder / "labels/train/gone.txt", "0 0.5 0.5 0.2 0.2\n")
    write(folder / "labels/train/classes.txt", "cat\ndog\n")
    if listed:
        write(folder / "train.txt", "".join(f"images/train/{i}.png\n" for i in range(4)))
        write(folder / "data.yaml", "train: train.txt\nval: images/val\nnames: [cat, dog]\n")
    assert counts(folder) == {kinds.UNREAD_IMAGES.code: 2, kinds.UNUSED_LABELS.code: 1}
    assert counts(folder, "val") == {}


def test_images_that_share_a_label_file_are_counted(tmp_path: Path) -> None:
    folder = yolo(tmp_path, ["0 0.5 0.5 0.2 0.2"] * 4)
    for i in (0, 2):
        draw(folder / f"images/train/{i}.jpg")
    assert counts(folder) == only(kinds.SHARED_LABELS, 2)
    assert len(objects(folder)) == 6


@pytest.mark.parametrize("place", ["annotations_txt/{}", "yolo/{}", "{}/txt"])
def test_labels_that_lie_nowhere_are_looked_for(tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = yolo(tmp_path, ["0 0.5 0.5 0.2 0.2"] * 3)
    for split in ("train", "val"):
        (folder / place.format(split)).parent.mkdir(parents=True, exist_ok=True)
        (folder / "labels" / split).rename(folder / place.format(split))
    (folder / "labels").rmdir()
    assert counts(folder) == only(kinds.LOST_LABELS, 3)
    assert run(["data", "check", str(folder), *SIZES]) == 3
    printed = " ".join(capsys.readouterr().err.split())
    assert f"has no labels/train/0.txt; {place.format('train')}/ holds 3 files of their names" in printed
    assert "Mask R-CNN" not in printed
    assert run(["data", "convert", str(folder), "--to", "coco", "-o", str(tmp_path / "new")]) == 3


def test_linked_folders_are_followed_inside_the_set_alone(tmp_path: Path) -> None:
    folder = yolo(tmp_path / "set", ["0 0.5 0.5 0.2 0.2"] * 3)
    (folder / "pool").mkdir()
    for kind in ("images", "labels"):
        (folder / kind / "train").rename(folder / "pool" / kind)
        (folder / kind / "train").mkdir()
        (folder / kind / "train/part").symlink_to(folder / "pool" / kind)
        (folder / kind / "train/loop").symlink_to(folder / kind / "train")
    draw(tmp_path / "outside/x.png")
    (folder / "images/train/away").symlink_to(tmp_path / "outside")
    assert [each["file_name"] for each in document(folder)["images"]] == [
        f"images/train/part/{i}.png" for i in range(3)
    ]
    assert len(objects(folder)) == 3


# --- without a data.yaml ---


def test_images_and_labels_need_no_more(tmp_path: Path) -> None:
    folder = yolo(tmp_path, ["0 0.5 0.5 0.2 0.2", "3 0.5 0.5 0.2 0.2"])
    (folder / "data.yaml").unlink()
    found = find_split(str(folder), "train")
    assert document(folder)["categories"] == [{"id": 0, "name": "class 0"}, {"id": 3, "name": "class 3"}]
    assert "classes are called by their numbers" in found.notes[0]
    write(folder / "classes.txt", "cat\ndog\n\nbird\n\n")
    assert [each["name"] for each in document(folder)["categories"]] == ["cat", "dog", "bird"]
    assert len(objects(folder)) == 2


@pytest.mark.parametrize("classes", ["classes.txt", "obj.names", "train/_darknet.labels", "cats.names"])
def test_labels_may_lie_beside_images(tmp_path: Path, classes: str) -> None:
    for split, count in (("train", 3), ("valid", 2)):
        for i in range(count):
            draw(tmp_path / f"{split}/{i}.png")
            write(tmp_path / f"{split}/{i}.txt", "1 0.5 0.5 0.2 0.2\n")
    write(tmp_path / classes, "cat\ndog\n")
    assert [len(objects(tmp_path, split)) for split in ("train", "val")] == [3, 2]
    assert [each["name"] for each in document(tmp_path)["categories"]] == ["cat", "dog"]
    assert counts(tmp_path) == {}


def test_a_coco_file_goes_before_loose_labels(tmp_path: Path) -> None:
    folder = yolo(tmp_path, ["0 0.5 0.5 0.2 0.2"])
    (folder / "data.yaml").unlink()
    write(folder / "all.json", json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(DataError, match=r"all\.json: 0 images cannot be split"):
        find_split(str(folder), "train")
