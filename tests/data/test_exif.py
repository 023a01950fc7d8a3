"""Labels that were made on files as they are, while EXIF turns them: told, turned, or named."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from support.labelled_files import write

from msad_cli.cli.app import run
from msad_cli.data.annotations.check import Report, check
from msad_cli.data.annotations.records import read_document
from msad_cli.data.annotations.split import read_split
from msad_cli.data.images.decode import QUARTER_TURNS, TURNS, read_image
from msad_cli.data.layouts.base import Files
from msad_cli.data.layouts.splits import find_split, find_splits, records_of
from msad_cli.data.orientation import upright_labels
from msad_cli.data.orientation.turned_labels import MASKS, POINTS, Turn
from msad_cli.errors import UsageError
from msad_cli.evaluation.ground_truth import ground_truth
from msad_cli.frame import Resolution
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, save_model

# pycocotools 2.0.11 lacks the copy argument that NumPy 2 asks of __array__, which is for pycocotools to mend.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SIZE = (60, 40)
"""Width and height of files."""
BOXES = ((5, 4, 20, 10), (30, 18, 12, 16))
COLOURS = ((230, 30, 30), (30, 30, 230))
NAMES = ("red", "blue")
SEEN = range(2, 9)


def painted(orientation: int, boxes: Any = BOXES, size: tuple[int, int] = SIZE) -> Image.Image:
    """A file's image: each box (x, y, width, height) in a colour of its own, and what EXIF says of it."""
    image = Image.new("RGB", size, (128, 128, 128))
    for (x, y, width, height), colour in zip(boxes, COLOURS, strict=True):
        image.paste(colour, (x, y, x + width, y + height))
    return image


def save(image: Image.Image, file: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, exif=exif)


def upright_box(box: Any, orientation: int, size: tuple[int, int] = SIZE) -> list[float]:
    """Where a box of the file's pixels lies in the upright image, by Pillow."""
    mask = Image.new("L", size)
    mask.paste(255, (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    turned = mask if orientation == 1 else mask.transpose(TURNS[orientation])
    left, top, right, bottom = turned.getbbox() or (0, 0, 0, 0)
    return [left, top, right - left, bottom - top]


# --- geometry ---


@pytest.mark.parametrize("orientation", SEEN)
def test_points_and_masks_go_where_pixels_go(orientation: int) -> None:
    pixels = np.random.default_rng(orientation).integers(0, 2, (3, 5), dtype=np.uint8)
    turned = np.asarray(Image.fromarray(pixels).transpose(TURNS[orientation]))
    assert np.array_equal(MASKS[orientation](pixels), turned)
    rows, columns = np.nonzero(pixels)
    centres = POINTS[orientation](np.stack([columns + 0.5, rows + 0.5], axis=1), 5, 3)
    expected = {(x + 0.5, y + 0.5) for y, x in zip(*np.nonzero(turned), strict=True)}
    assert {tuple(each) for each in centres.tolist()} == expected


def test_what_is_malformed_stays() -> None:
    way = Turn(6, (40, 60))
    for record in (
        {},
        {"bbox": [1, 2, 3]},
        {"bbox": [1, 2, -3, 4]},
        {"bbox": None, "segmentation": "x", "keypoints": [1, 2]},
        {"segmentation": [[1, 2, "3", 4]], "keypoints": [1, None, 2]},
        {"segmentation": {"size": [1, 2], "counts": "?"}},
    ):
        assert way.annotation(record) == record


@pytest.mark.parametrize("orientation", SEEN)
def test_cvats_rotation_turns_along(orientation: int) -> None:
    """The corner of a turned rectangle is the turned corner."""
    box, degrees = (10.0, 8.0, 20.0, 6.0), 30.0

    def corners(record: Mapping[str, Any]) -> set[tuple[float, ...]]:
        x, y, width, height = record["bbox"]
        angle = np.radians(record["attributes"]["rotation"])
        across, down = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        centre = np.array([x + width / 2, y + height / 2])
        found = [centre + i * width / 2 * across + j * height / 2 * down for i in (-1, 1) for j in (-1, 1)]
        return {tuple(np.round(each, 6) + 0.0) for each in found}

    record = {"bbox": list(box), "attributes": {"rotation": degrees}}
    way = Turn(orientation, (40, 60))
    expected = way.points(np.array(sorted(corners(record))))
    assert corners(way.annotation(record)) == {tuple(np.round(each, 6) + 0.0) for each in expected}


# --- sets ---

Images = Mapping[str, tuple[int, bool]]
"""By name: EXIF's orientation, and whether labels are of the upright image."""


def sides(orientation: int, fit: bool, size: tuple[int, int] = SIZE) -> tuple[int, int]:
    return size[::-1] if fit and orientation in QUARTER_TURNS else size


def box_as_stated(box: Any, orientation: int, fit: bool, size: tuple[int, int] = SIZE) -> list[float]:
    return upright_box(box, orientation, size) if fit else list(box)


def coco_document(
    images: Images, size: tuple[int, int] = SIZE, stated: bool = True, ids: tuple[int, int] = (1, 2)
) -> dict[str, Any]:
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, (orientation, fit)) in enumerate(images.items(), start=1):
        width, height = sides(orientation, fit, size)
        listed.append({"id": number, "file_name": name} | ({"width": width, "height": height} if stated else {}))
        for category, each in zip(ids, BOXES, strict=True):
            x, y, w, h = box_as_stated(each, orientation, fit, size)
            mask = np.zeros((height, width), dtype=np.uint8)
            mask[int(y) : int(y + h), int(x) : int(x + w)] = 1
            encoded = rle.encode(np.asfortranarray(mask))
            drawn: Any = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            if category == ids[1]:
                drawn = {"size": [height, width], "counts": encoded["counts"].decode()}
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": category, "bbox": [x, y, w, h]}
                | {"area": w * h, "iscrowd": 0, "segmentation": drawn}
                | {"keypoints": [x, y, 2, 0, 0, 0, x + w, y + h, 1], "num_keypoints": 2}
            )
    points = {"keypoints": ["a", "b", "c"], "skeleton": [], "flip_pairs": []}
    categories = [{"id": i, "name": name, **points} for i, name in zip(ids, ("red", "blue"), strict=True)]
    return {"images": listed, "annotations": annotations, "categories": categories}


def draw(folder: Path, images: Images, size: tuple[int, int] = SIZE) -> None:
    for name, (orientation, _) in images.items():
        save(painted(orientation, size=size), folder / name, orientation)


def coco(folder: Path, splits: Mapping[str, Images], **how: Any) -> None:
    for split, images in splits.items():
        draw(folder / f"{split}2017", images, how.get("size", SIZE))
        write(folder / f"annotations/instances_{split}2017.json", json.dumps(coco_document(images, **how)))


def roboflow(folder: Path, splits: Mapping[str, Images]) -> None:
    for split, images in splits.items():
        place = folder / {"train": "train", "val": "valid"}[split]
        draw(place, images)
        write(place / "_annotations.coco.json", json.dumps(coco_document(images)))


def voc(folder: Path, splits: Mapping[str, Images]) -> None:
    for split, images in splits.items():
        draw(folder / "JPEGImages", images)
        write(folder / f"ImageSets/Main/{split}.txt", "\n".join(Path(each).stem for each in images))
        for name, (orientation, fit) in images.items():
            width, height = sides(orientation, fit)
            objects = ""
            for own, each in zip(NAMES, BOXES, strict=True):
                x, y, w, h = box_as_stated(each, orientation, fit)
                corners = {"xmin": x + 1, "ymin": y + 1, "xmax": x + w, "ymax": y + h}
                bounds = "".join(f"<{corner}>{value}</{corner}>" for corner, value in corners.items())
                objects += f"<object><name>{own}</name><bndbox>{bounds}</bndbox></object>"
            size = f"<size><width>{width}</width><height>{height}</height></size>"
            text = f"<annotation><filename>{name}</filename>{size}{objects}</annotation>"
            write(folder / "Annotations" / f"{Path(name).stem}.xml", text)


def yolo(folder: Path, splits: Mapping[str, Images]) -> None:
    write(folder / "data.yaml", "train: images/train\nval: images/val\nnames: [red, blue]\n")
    for split, images in splits.items():
        draw(folder / "images" / split, images)
        for name, (orientation, fit) in images.items():
            width, height = sides(orientation, fit)
            rows = ""
            for number, each in enumerate(BOXES):
                x, y, w, h = box_as_stated(each, orientation, fit)
                rows += f"{number} {(x + w / 2) / width} {(y + h / 2) / height} {w / width} {h / height}\n"
            write(folder / "labels" / split / f"{Path(name).stem}.txt", rows)


SIZED: dict[str, Callable[[Path, Mapping[str, Images]], None]] = {"coco": coco, "roboflow": roboflow, "voc": voc}


def looked_at(folder: Path, task: str = "boxes", exif: str = "auto") -> Report:
    found, _ = find_splits(str(folder), None, None, task, exif)
    return check(records_of(found, task), Resolution(64, 96), (2,))


def told(report: Report) -> dict[str, dict[str, int]]:
    """Counts of problems by code and split."""
    found: dict[str, dict[str, int]] = {}
    for split, each in report.problems:
        if each.code not in ("object-small", "image-in-both-splits", "area-missing"):
            found.setdefault(each.code, {})[split] = each.count
    return found


def on_paint(files: Files) -> list[bool]:
    """Of each box, whether it holds all of its class's colour and nothing else."""
    split = read_split(files.annotations, files.images, root=files.root)
    right = []
    for place in range(len(split)):
        pixels = np.asarray(read_image(split.path(place))).astype(int)
        owned = slice(int(split.starts[place]), int(split.starts[place + 1]))
        for (x0, y0, x1, y1), label in zip(split.boxes[owned].round().astype(int), split.labels[owned], strict=True):
            name = split.categories[label - 1][1]
            mine = np.abs(pixels - COLOURS[NAMES.index(name)]).max(axis=2) < 40
            inside = mine[y0:y1, x0:x1]
            right.append(bool(inside.all() and inside.size == mine.sum()))
    return right


@pytest.mark.parametrize("layout", SIZED)
@pytest.mark.parametrize("orientation", QUARTER_TURNS)
def test_stated_sizes_tell_and_labels_turn_along(tmp_path: Path, layout: str, orientation: int) -> None:
    train = {"a.png": (orientation, False), "b.png": (1, True), "c.png": (orientation, False)}
    SIZED[layout](tmp_path / "set", {"train": train, "val": {"d.png": (orientation, False)}})
    assert told(looked_at(tmp_path / "set")) == {"exif-labels-turned": {"train": 2, "val": 1}}
    for split, count in (("train", 6), ("val", 2)):
        files = find_split(str(tmp_path / "set"), split)
        assert on_paint(files) == [True] * count


@pytest.mark.parametrize("layout", [*SIZED, "yolo"])
def test_labels_of_upright_images_stay_and_nothing_is_said(tmp_path: Path, layout: str) -> None:
    write_set = {**SIZED, "yolo": yolo}[layout]
    # Of YOLO's shares nobody can say, so that its honest sets are those without turned images.
    turned = 1 if layout == "yolo" else 6
    train = {"a.png": (turned, True), "b.png": (1, True), "c.png": (3 if turned > 1 else 1, True)}
    write_set(tmp_path / "set", {"train": train, "val": {"d.png": (turned, True)}})
    assert told(looked_at(tmp_path / "set")) == {}
    for split in ("train", "val"):
        files = find_split(str(tmp_path / "set"), split)
        assert "upright-" not in files.annotations.name
        assert all(on_paint(files))


@pytest.mark.parametrize("task", ["boxes", "masks", "keypoints"])
@pytest.mark.parametrize("orientation", [5, 6, 8])
def test_outlines_and_keypoints_turn_along(tmp_path: Path, task: str, orientation: int) -> None:
    splits = [{"train": {"a.png": (orientation, fit)}, "val": {"b.png": (orientation, fit)}} for fit in (False, True)]
    truths = []
    for name, each in zip(("unturned", "fit"), splits, strict=True):
        coco(tmp_path / name, each)
        files = find_split(str(tmp_path / name), "train", task=task)
        split = read_split(files.annotations, files.images, task=task)
        truth = ground_truth(split)
        corners = np.sort(split.keypoints[..., 0:2].reshape(len(split.boxes), -1, 2), axis=1)
        truths.append((truth, split.boxes, corners))
    (one, boxes, points), (other, right_boxes, right_points) = truths
    assert np.array_equal(boxes, right_boxes)
    assert np.array_equal(points, right_points)
    for mine, expected in zip(one["annotations"], other["annotations"], strict=True):
        assert mine["bbox"] == expected["bbox"]
        if task == "masks":
            assert np.array_equal(rle.decode(mine["segmentation"]), rle.decode(expected["segmentation"]))


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_where_nothing_tells_it_is_said(tmp_path: Path, orientation: int) -> None:
    images = {"train": {"a.png": (orientation, True), "b.png": (1, True)}, "val": {"c.png": (orientation, True)}}
    coco(tmp_path / "set", images)
    assert told(looked_at(tmp_path / "set")) == {"exif-labels-untold": {"train": 1, "val": 1}}
    assert told(looked_at(tmp_path / "set", exif="keep")) == {}
    assert all(on_paint(find_split(str(tmp_path / "set"), "train")))
    coco(
        tmp_path / "other",
        {split: {name: (each, False) for name, (each, _) in of.items()} for split, of in images.items()},
    )
    assert told(looked_at(tmp_path / "other", exif="ignore")) == {"exif-labels-turned": {"train": 1, "val": 1}}
    assert all(on_paint(find_split(str(tmp_path / "other"), "train", exif="ignore")))


@pytest.mark.parametrize("orientation", SEEN)
def test_yolo_is_asked_about_and_turned_by_a_word(tmp_path: Path, orientation: int) -> None:
    for name, fit in (("unturned", False), ("fit", True)):
        images = {"a.png": (orientation, fit), "b.png": (1, True)}
        yolo(tmp_path / name, {"train": images, "val": {"c.png": (1, True)}})
        assert told(looked_at(tmp_path / name)) == {"exif-labels-untold": {"train": 1}}
        way = "keep" if fit else "ignore"
        assert all(on_paint(find_split(str(tmp_path / name), "train", exif=way)))
        assert set(told(looked_at(tmp_path / name, exif=way))) == (set() if fit else {"exif-labels-turned"})


def test_what_sizes_tell_of_some_holds_for_the_rest_of_the_file(tmp_path: Path) -> None:
    """The tool that did not turn the one did not turn the other; two that differ say nothing of a third."""
    images = {"a.png": (6, False), "b.png": (3, False), "c.png": (2, False)}
    coco(tmp_path / "one", {"train": images, "val": {"d.png": (1, True)}})
    assert told(looked_at(tmp_path / "one")) == {"exif-labels-turned": {"train": 3}}
    assert all(on_paint(find_split(str(tmp_path / "one"), "train")))
    images = {"a.png": (6, False), "b.png": (8, True), "c.png": (3, True)}
    coco(tmp_path / "mixed", {"train": images, "val": {"d.png": (1, True)}})
    assert told(looked_at(tmp_path / "mixed")) == {
        "exif-labels-turned": {"train": 1},
        "exif-labels-untold": {"train": 1},
    }
    assert all(on_paint(find_split(str(tmp_path / "mixed"), "train")))


def test_one_split_alone_and_square_images(tmp_path: Path) -> None:
    coco(tmp_path / "val", {"train": {"a.png": (1, True)}, "val": {"b.png": (7, False), "c.png": (1, True)}})
    assert told(looked_at(tmp_path / "val")) == {"exif-labels-turned": {"val": 1}}
    coco(tmp_path / "square", {"train": {"a.png": (6, True)}, "val": {"b.png": (1, True)}}, size=(60, 60))
    assert told(looked_at(tmp_path / "square")) == {"exif-labels-untold": {"train": 1}}


def test_boxes_tell_where_no_size_is_stated(tmp_path: Path) -> None:
    # One box ends at 50 of 60 across, where the upright image has 40.
    coco(tmp_path / "set", {"val": {"b.png": (1, True)}})
    long = {**coco_document({"a.png": (6, False)}, stated=False)}
    long["annotations"][0]["bbox"] = [30, 4, 20, 10]
    del long["annotations"][0]["segmentation"]
    draw(tmp_path / "set/train2017", {"a.png": (6, False)})
    write(tmp_path / "set/annotations/instances_train2017.json", json.dumps(long))
    files = find_split(str(tmp_path / "set"), "train")
    box = json.loads(files.annotations.read_text())["annotations"][0]["bbox"]
    assert box == upright_box((30, 4, 20, 10), 6)


def test_labels_of_a_larger_copy_turn_along(tmp_path: Path) -> None:
    """Files made smaller after labelling keep the EXIF of the larger ones: turned, and still said to be larger."""
    coco(tmp_path / "set", {"val": {"b.png": (1, True)}})
    document = coco_document({"a.png": (6, False)})
    for each in document["images"]:
        each["width"], each["height"] = 2 * each["width"], 2 * each["height"]
    for each in document["annotations"]:
        each["bbox"] = [2 * value for value in each["bbox"]]
    draw(tmp_path / "set/train2017", {"a.png": (6, False)})
    write(tmp_path / "set/annotations/instances_train2017.json", json.dumps(document))
    made = json.loads(find_split(str(tmp_path / "set"), "train").annotations.read_text())
    assert (made["images"][0]["width"], made["images"][0]["height"]) == (80, 120)
    assert [each["bbox"] for each in made["annotations"]] == [
        [2 * value for value in upright_box(each, 6)] for each in BOXES
    ]


# --- commands ---


def test_convert_writes_turned_labels_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco(tmp_path / "set", {"train": {"a.png": (6, False)}, "val": {"b.png": (8, False)}})
    for layout in ("yolo", "coco"):
        out = tmp_path / layout
        assert run(["data", "convert", str(tmp_path / "set"), "--to", layout, "--task", "boxes", "-o", str(out)]) == 0
        assert "train: 1 images that EXIF turns, whose labels" in " ".join(capsys.readouterr().err.split())
        assert all(on_paint(find_split(str(out), "train", exif="keep")))
    assert told(looked_at(tmp_path / "coco")) == {}  # it states what its files are
    assert "msad problems" not in (tmp_path / "coco/annotations/instances_train2017.json").read_text()


def test_a_repaired_file_needs_no_turning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco(tmp_path / "set", {"train": {"a.jpg": (6, False)}, "val": {"b.jpg": (1, True)}})
    out = tmp_path / "new.json"
    assert run(["data", "check", str(tmp_path / "set"), "--split", "train", "--fix", "-o", str(out)]) == 0
    capsys.readouterr()
    images = str(tmp_path / "set/train2017")
    assert run(["data", "check", str(out), "--images", images, "--strict", "--size", "64,96", "--k", "2"]) == 0
    assert "EXIF" not in capsys.readouterr().err


def test_eval_measures_by_turned_labels_and_remembers_the_word(
    tmp_path: Path, student: Detector, capsys: pytest.CaptureFixture[str]
) -> None:
    coco(tmp_path / "set", {"train": {"a.png": (3, False)}, "val": {"b.png": (3, False)}}, ids=(7, 90))
    command = ["eval", str(tmp_path / "m.safetensors"), "--data", str(tmp_path / "set"), "--device", "cpu"]
    said = []
    for card, typed in (("auto", []), ("ignore", []), ("auto", ["--exif", "ignore"]), ("auto", ["--exif", "keep"])):
        save_model(tmp_path / "m.safetensors", student, Card(exif=card))
        assert run([*command, "--workers", "0", *typed]) == 0
        said.append(" ".join(capsys.readouterr().err.split()))
    assert ["nothing tells" in each for each in said] == [True, False, False, False]
    assert ["turned with them" in each for each in said] == [False, True, True, False]


def test_training_checks_and_plans_with_turned_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco(tmp_path / "set", {"train": {"a.png": (6, False)}, "val": {"b.png": (6, False)}})
    command = ["teacher", "--data", str(tmp_path / "set"), "--dry-run", "--out", str(tmp_path / "t.safetensors")]
    command += ["--size", "64,96", "--init", "none", "--device", "cpu", "--workers", "0"]
    assert run(command) == 0
    said = " ".join(capsys.readouterr().err.split())

    assert "1 images that EXIF turns, whose labels were made on the unturned files" in said
    assert "22 at 1/1, 11 at 1/2" in said


@pytest.mark.parametrize("command", ["check", "stats"])
def test_no_such_way(tmp_path: Path, command: str) -> None:
    coco(tmp_path / "set", {"train": {"a.png": (6, False)}, "val": {"b.png": (1, True)}})
    assert run(["data", command, str(tmp_path / "set"), "--exif", "turn"]) == 2
    with pytest.raises(UsageError):
        find_split(str(tmp_path / "set"), "train", exif="")


@pytest.mark.parametrize("ids", [("img_b", "img_a"), ("7", 7.5), (3.0, "2")])
def test_ids_that_are_no_whole_numbers(tmp_path: Path, ids: tuple[Any, Any]) -> None:
    """What is wrong with ids is another's matter: labels are turned whatever they are."""
    images = {"a.png": (6, False), "b.png": (8, False)}
    document = coco_document(images)
    for each in document["images"]:
        each["id"] = ids[each["id"] - 1]
    for each in document["annotations"]:
        each["image_id"] = ids[each["image_id"] - 1]
    draw(tmp_path, images)
    write(tmp_path / "a.json", json.dumps(document))
    made = json.loads(upright_labels.upright(Files(tmp_path / "a.json", tmp_path, "")).annotations.read_text())
    assert [each["id"] for each in made["images"]] == list(ids)
    expected = [upright_box(box, orientation) for orientation, _ in images.values() for box in BOXES]
    assert [each["bbox"] for each in made["annotations"]] == expected


@pytest.mark.parametrize("orientation", [1, 6])
def test_an_answer_is_kept_until_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orientation: int
) -> None:
    coco(tmp_path / "set", {"train": {"a.png": (orientation, False)}, "val": {"b.png": (1, True)}})
    asked: list[Path] = []
    read = read_document

    def spied(file: Path) -> dict[str, Any]:
        asked.append(file)
        return read(file)

    monkeypatch.setattr(upright_labels, "read_document", spied)
    first = find_split(str(tmp_path / "set"), "train")
    assert find_split(str(tmp_path / "set"), "train") == first
    assert len(asked) == 1
    save(painted(8), tmp_path / "set/train2017/a.png", 8)
    again = find_split(str(tmp_path / "set"), "train")
    assert len(asked) == 2
    assert all(on_paint(again))


def test_a_turned_image_without_an_id_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is turned like any other; what is said is that its id is missing."""
    for number in (1, 2):
        save(painted(6), tmp_path / f"{number}.png", 6)
    boxes = [[float(value) for value in box] for box in BOXES]
    document = {
        "images": [
            {"id": 1, "file_name": "1.png", "width": SIZE[0], "height": SIZE[1]},
            {"file_name": "2.png", "width": SIZE[0], "height": SIZE[1]},
        ],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for i, box in enumerate(boxes, start=1)
        ],
        "categories": [{"id": 1, "name": "spot"}],
    }
    file = tmp_path / "a.json"
    file.write_text(json.dumps(document))
    assert run(["data", "check", str(file), "--images", str(tmp_path)]) == 3
    assert "images, record 2: id None" in capsys.readouterr().err
