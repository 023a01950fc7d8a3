"""`msad data convert`: what goes through another layout and back is what it was, and what cannot is said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import toy_layout, toy_writer

from msad_cli.cli.app import run
from msad_cli.data.annotations.segmentation import decode, encode, encode_mask, read_segmentation
from msad_cli.data.layouts import table as layouts
from msad_cli.data.layouts.splits import find_split
from msad_cli.data.writers import table
from msad_cli.data.writers.tracing import one_ring, traced

NEAR = 0.01
"""Pixels."""
SIDES = ((640, 427), (4000, 3000), (61, 1999), (33, 32))
"""Width and height of the images of a random set."""
NAMES = ("left_end", "right_end", "top")


def random_set(folder: Path, rng: np.random.Generator, kind: str) -> Path:
    """A COCO folder of noughts, ids with gaps, and 30 random objects an image, of fractions of a pixel and up."""
    categories: list[dict[str, Any]] = [{"id": 7, "name": "red: #1"}, {"id": 90, "name": "blue"}]
    for split in ("train2017", "val2017"):
        (folder / split / "sub").mkdir(parents=True)
        (folder / "annotations").mkdir(exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, (width, height) in enumerate(SIDES, start=10):
            name = f"sub/{split}{number}.png" if number % 2 else f"{split}{number}.png"
            Image.new("L", (width, height)).save(folder / split / name)
            images.append({"id": number, "file_name": name, "width": width, "height": height})
            for _ in range(30):
                corners = np.sort(rng.uniform(0, (width, height), (2, 2)), axis=0)
                own = random_object(corners, (width, height), rng, kind)
                own |= {"image_id": number, "category_id": int(rng.choice([7, 90]))}
                annotations.append({"id": len(annotations) + 1, **own})
        if kind == "keypoints":
            categories = [{**each, "keypoints": NAMES} for each in categories]
        document = {"images": images, "annotations": annotations, "categories": categories}
        stem = "person_keypoints" if kind == "keypoints" else "instances"
        (folder / "annotations" / f"{stem}_{split}.json").write_text(json.dumps(document))
    return folder


def random_object(corners: Any, size: tuple[int, int], rng: np.random.Generator, kind: str) -> dict[str, Any]:
    """An object in these corners (2, 2) of its box, with what else `kind` has; values as JSON takes them."""
    own: dict[str, Any] = {"iscrowd": 0}
    if kind == "masks":
        ring = rng.uniform(corners[0], corners[1], (int(rng.integers(3, 12)), 2))
        corners = np.stack([ring.min(axis=0), ring.max(axis=0)])
        own["segmentation"] = [ring.ravel().tolist()]
    if kind == "keypoints":
        seen = rng.integers(0, 3, (3, 1))
        points = np.concatenate([rng.uniform(0, size, (3, 2)) * (seen > 0), seen], axis=1)
        own |= {"keypoints": points.ravel().tolist(), "num_keypoints": int((seen > 0).sum())}
    box = [*corners[0].tolist(), *(corners[1] - corners[0]).tolist()]
    return {**own, "bbox": box, "area": box[2] * box[3]}


Objects = dict[str, list[dict[str, Any]]]


def objects(folder: Path, split: str, kind: str = "boxes") -> Objects:
    """The objects of each image, by its name without suffix, in their order; their classes by name."""
    found = find_split(str(folder), split, task=kind)
    document = json.loads(found.annotations.read_text())
    names = {each["id"]: each["name"] for each in document["categories"]}
    of: Objects = {each["file_name"]: [] for each in document["images"]}
    files = {each["id"]: each["file_name"] for each in document["images"]}
    for each in document["annotations"]:
        of[files[each["image_id"]]].append({**each, "class": names[each["category_id"]]})
    assert all((found.images / name).is_file() for name in of)
    return {Path(name).stem: each for name, each in of.items()}


def assert_alike(one: Objects, other: Objects, fields: tuple[str, ...]) -> None:
    assert one.keys() == other.keys()
    for image, own in one.items():
        assert [each["class"] for each in own] == [each["class"] for each in other[image]]
        for before, after in zip(own, other[image], strict=True):
            for name in fields:
                np.testing.assert_allclose(after[name], before[name], rtol=0, atol=NEAR, err_msg=f"{image} {name}")


def converted(source: Path, out: Path, to: str, *more: str) -> Path:
    assert run(["data", "convert", str(source), "-o", str(out), "--to", to, *more]) == 0
    return out


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("boxes", ("bbox",)), ("masks", ("bbox", "segmentation")), ("keypoints", ("bbox", "keypoints"))],
)
def test_coco_goes_through_yolo_and_back(
    tmp_path: Path, kind: str, fields: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    source = random_set(tmp_path / "source", np.random.default_rng(3), kind)
    yolo = converted(source, tmp_path / "yolo", "yolo")
    back = converted(yolo, tmp_path / "back", "coco")
    twice = converted(back, tmp_path / "twice", "yolo")
    for split in ("train", "val"):
        before = objects(source, split, kind)
        assert len(before) == 4
        assert sum(map(len, before.values())) == 120
        assert_alike(before, objects(yolo, split), fields)
        assert_alike(before, objects(back, split, kind), fields)
        assert_alike(before, objects(twice, split), fields)
        files = sorted((yolo / "labels" / split).rglob("*.txt"))
        assert [each.relative_to(twice) for each in sorted((twice / "labels" / split).rglob("*.txt"))] == [
            each.relative_to(yolo) for each in files
        ]
    # Nothing was lost that would have to be said: how each split was read, and what was written.
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line[:1].isdigit()] == []
    assert run(["data", "check", str(yolo), "--task", kind]) == 0


def test_keypoints_keep_their_names_and_partners(tmp_path: Path) -> None:
    source = random_set(tmp_path / "source", np.random.default_rng(4), "keypoints")
    yolo = converted(source, tmp_path / "yolo", "yolo")
    back = converted(yolo, tmp_path / "back", "coco")
    for folder in (yolo, back):
        found = find_split(str(folder), "val", task="keypoints")
        (first, _) = json.loads(found.annotations.read_text())["categories"]
        assert first["keypoints"] == list(NAMES)
        assert first["flip_idx"] == [1, 0, 2]
    assert "flip_idx: [1, 0, 2]" in (yolo / "data.yaml").read_text()


def test_voc_goes_through_coco_and_yolo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(5)
    voc = tmp_path / "voc"
    for place in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (voc / place).mkdir(parents=True)
    expected: dict[str, dict[str, list[list[int]]]] = {"train": {}, "val": {}}
    for split, images in expected.items():
        for i in range(3):
            width, height = rng.integers(50, 2000, 2).tolist()
            stem = f"{split} {i}"
            Image.new("L", (width, height)).save(voc / f"JPEGImages/{stem}.png")
            low = rng.integers(1, (width, height), (20, 2))
            high = rng.integers(low, (width + 1, height + 1))
            rows = np.concatenate([low, high], axis=1).tolist()
            text = "".join(
                f"<object><name>n{x0 % 3}</name><bndbox><ymax>{y1}</ymax><xmin>{x0}</xmin><ymin>{y0}</ymin>"
                f"<xmax>{x1}</xmax></bndbox></object>"
                for x0, y0, x1, y1 in rows
            )
            (voc / f"Annotations/{stem}.xml").write_text(f"<annotation>{text}</annotation>")
            images[stem] = rows
        (voc / f"ImageSets/Main/{split}.txt").write_text("\n".join(images))
    coco = converted(voc, tmp_path / "coco", "coco")
    yolo = converted(coco, tmp_path / "yolo", "yolo")
    back = converted(yolo, tmp_path / "back", "coco")
    assert [line for line in capsys.readouterr().err.splitlines() if line[:1].isdigit()] == []
    for split, images in expected.items():
        for folder in (voc, coco, yolo, back):
            found = objects(folder, split)
            assert found.keys() == images.keys()
            for stem, rows in images.items():
                # The first pixel is 1, and the last one is inside.
                boxes = [[x0 - 1, y0 - 1, x1 - x0 + 1, y1 - y0 + 1] for x0, y0, x1, y1 in rows]
                np.testing.assert_allclose([each["bbox"] for each in found[stem]], boxes, rtol=0, atol=NEAR)
                assert [each["class"] for each in found[stem]] == [f"n{row[0] % 3}" for row in rows]


def test_an_rle_becomes_one_polygon_that_is_the_same_mask() -> None:
    rng = np.random.default_rng(6)
    for _ in range(40):
        size = (int(rng.integers(3, 40)), int(rng.integers(3, 40)))
        # Pieces, holes, pixels that touch at a corner: all that noise has.
        mask = (rng.uniform(size=size) < rng.uniform(0.1, 0.9)).astype(np.uint8)
        mask[1, 1] = 1
        ring = one_ring(encode_mask(mask))
        assert (decode(encode([ring], size)) == mask).all()
        rows, columns = np.nonzero(mask)
        assert [*ring.min(axis=0), *ring.max(axis=0)] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_a_mask_is_traced_clockwise_along_its_pixels_and_its_hole_against_the_clock() -> None:
    mask = np.ones((3, 3), dtype=np.uint8)
    mask[1, 1] = 0
    outer, hole = sorted(traced(np.pad(mask, ((2, 0), (1, 0)))), key=len)
    rings = [[tuple(point) for point in ring.tolist()] for ring in (outer, hole)]
    assert {frozenset(ring) for ring in rings} == {
        frozenset([(1, 2), (4, 2), (4, 5), (1, 5)]),
        frozenset([(2, 3), (3, 3), (3, 4), (2, 4)]),
    }

    def area(ring: Any) -> float:
        x, y = ring.T
        return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2

    # Positive where y points down and the points go clockwise.
    assert sorted(area(ring) for ring in (outer, hole)) == [-1, 9]


def test_what_yolo_cannot_hold_is_counted(
    coco_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = coco_folder / "annotations" / "instances_train2017.json"
    document = json.loads(file.read_text())
    square = [0, 0, 20, 0, 20, 16, 0, 16]
    document["annotations"][0]["segmentation"] = [square, [30, 20, 40, 20, 40, 30]]
    document["annotations"][1] |= {"bbox": [40, 20, 30, 20]}  # of an image of 64 pixels
    runs = encode([np.array([[8, 8], [24, 8], [24, 20], [8, 20.0]])], (48, 64))
    document["annotations"][4]["segmentation"] = {"size": runs["size"], "counts": runs["counts"].decode()}
    file.write_text(json.dumps(document))
    yolo = converted(coco_folder, tmp_path / "yolo", "yolo", "--task", "masks")
    said = capsys.readouterr().err
    # 4 boxes of val, and of train the one that is cut and the last one, have no segmentation.
    for line in (
        "1 crowd regions, or marked 'ignore', left out",
        "1 boxes that are none, outside or repeated, left out",
        "1 boxes cut to their image",
        "1 RLE masks, written as polygons along the sides of pixels",
        "1 segmentations of several polygons, joined into one",
        "1 boxes more than a pixel off their segmentation, which alone is written",
        "6 objects without a segmentation, written as that of their box",
    ):
        assert line in said
    found = {name: [each["bbox"] for each in of] for name, of in objects(yolo, "train").items()}
    assert found == {"a": [[40, 20, 24, 20], [8, 8, 16, 12]], "b": [[0, 0, 40, 30]], "c": [], "d": [[50, 30, 14, 18]]}
    # The joined segmentation is the union of its two pieces.
    (joined,) = objects(yolo, "train")["b"]
    pieces = [np.array(square).reshape(-1, 2), np.array([[30, 20], [40, 20], [40, 30]])]
    segmentation = read_segmentation(joined["segmentation"])
    assert segmentation is not None
    assert (decode(encode(segmentation, (48, 64))) == decode(encode([each * 1.0 for each in pieces], (48, 64)))).all()


def test_overlapping_polygons_of_an_object_do_not_cancel_out(
    coco_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = coco_folder / "annotations" / "instances_train2017.json"
    document = json.loads(file.read_text())
    rings = [
        np.array([[x, y], [x + 12.5, y], [x + 12.5, y + 10.25], [x, y + 10.25]]) for x, y in ((3.3, 4.4), (9.7, 8.6))
    ]
    document["annotations"] = [document["annotations"][4]]
    document["annotations"][0] |= {
        "bbox": [3.3, 4.4, 18.9, 14.45],
        "segmentation": [ring.ravel().tolist() for ring in rings],
    }
    file.write_text(json.dumps(document))
    (found,) = objects(converted(coco_folder, tmp_path / "yolo", "yolo"), "train")["a"]
    assert "1 of these, whose polygons overlap" in capsys.readouterr().err
    np.testing.assert_allclose(found["bbox"], [3.3, 4.4, 18.9, 14.45], rtol=0, atol=NEAR)
    segmentation = read_segmentation(found["segmentation"])
    assert segmentation is not None
    assert (decode(encode(segmentation, (48, 64))) == decode(encode(rings, (48, 64)))).all()


def test_rles_on_a_coarser_grid_are_written_at_the_size_of_the_image(coco_folder: Path, tmp_path: Path) -> None:
    file = coco_folder / "annotations" / "instances_train2017.json"
    document = json.loads(file.read_text())
    mask = np.zeros((24, 32), dtype=np.uint8)  # of an image of 48 rows and 64 columns
    mask[4:10, 4:12] = 1
    runs = encode_mask(mask)
    document["annotations"] = [document["annotations"][4]]
    document["annotations"][0]["segmentation"] = {"size": runs["size"], "counts": runs["counts"].decode()}
    file.write_text(json.dumps(document))
    (found,) = objects(converted(coco_folder, tmp_path / "yolo", "yolo"), "train")["a"]
    assert found["bbox"] == [8, 8, 16, 12]


def test_classes_without_keypoints_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = random_set(tmp_path / "source", np.random.default_rng(7), "keypoints")
    lost = 0
    for file in sorted((source / "annotations").iterdir()):
        document = json.loads(file.read_text())
        del document["categories"][1]["keypoints"]
        lost += sum(each["category_id"] == 90 for each in document["annotations"])
        file.write_text(json.dumps(document))
    yolo = converted(source, tmp_path / "yolo", "yolo")
    assert f"{lost} annotations of classes without keypoints, left out" in capsys.readouterr().err
    kept = [each["class"] for split in ("train", "val") for of in objects(yolo, split).values() for each in of]
    assert kept == ["red: #1"] * (240 - lost)


def test_a_conversion_is_whole_or_absent(coco_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    (coco_folder / "train2017" / "a.jpg").write_bytes((coco_folder / "train2017" / "a.png").read_bytes())
    file = coco_folder / "annotations" / "instances_train2017.json"
    document = json.loads(file.read_text())
    document["images"][1]["file_name"] = "a.jpg"
    file.write_text(json.dumps(document))
    before = sorted(tmp_path.iterdir())
    assert run(["data", "convert", str(coco_folder), "-o", str(out), "--to", "yolo"]) == 3
    assert "'a.jpg' and 'a.png' would share labels/train/a.txt" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
    converted(coco_folder, out, "coco")
    for arguments, words in (
        (["--to", "coco"], "exists"),
        (["--to", "xml"], "--to xml: unknown"),
        (["--to", "coco", "--task", "poses", "-o", str(tmp_path / "other")], "--task poses: unknown"),
    ):
        assert run(["data", "convert", str(coco_folder), "-o", str(out), *arguments]) == 2
        assert words in capsys.readouterr().err


def test_names_that_leave_the_folder_and_unusable_sets_are_refused(coco_folder: Path, tmp_path: Path) -> None:
    file = coco_folder / "annotations" / "instances_train2017.json"
    document = json.loads(file.read_text())
    document["images"][1]["file_name"] = "../../a.png"
    file.write_text(json.dumps(document))
    for to in ("coco", "yolo"):
        assert run(["data", "convert", str(coco_folder), "-o", str(tmp_path / "out"), "--to", to]) == 3
    assert not (tmp_path / "out").exists()


def test_coco_keeps_what_it_is_given(coco_folder: Path, tmp_path: Path) -> None:
    again = converted(coco_folder, tmp_path / "again", "coco")
    files = [folder / "annotations" / "instances_train2017.json" for folder in (coco_folder, again)]
    before, after = (json.loads(file.read_text()) for file in files)
    assert after == before
    images = [sorted(each.name for each in (folder / "train2017").rglob("*.png")) for folder in (coco_folder, again)]
    assert images[0] == images[1] == ["a.png", "b.png", "c.png", "d.png"]


def test_a_new_writer_is_a_file_and_a_line(
    coco_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    convert = ["data", "convert", str(coco_folder), "-o", str(tmp_path / "toy"), "--to", "toy"]
    assert run(convert) == 2
    assert "give coco or yolo" in capsys.readouterr().err
    monkeypatch.setitem(table.WRITERS, "toy", toy_writer.write)
    assert run(convert) == 0
    assert "names of classes, left out" in capsys.readouterr().err
    # What was written in this layout is read by it: all boxes of both splits.
    monkeypatch.setattr(layouts, "LAYOUTS", (*layouts.LAYOUTS, toy_layout.LAYOUT))
    found = find_split(str(tmp_path / "toy"), "train")
    assert found.recognised == "toy set"
    assert len(json.loads(found.annotations.read_text())["annotations"]) == 10
