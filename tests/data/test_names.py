"""Names of images that were written elsewhere: which file of the set each means, and which it must not mean."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from msad_cli.cli.app import run
from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.records import Records
from msad_cli.data.images.places import longest_end, parts
from msad_cli.data.layouts.splits import find_split, find_splits_or_file, records_of

SIZES = ("--size", "64,96")


def draw(folder: Path, name: str, shade: int = 128) -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (60, 40), shade).save(file, format="PNG")


def document(*names: str | None, **fields: Any) -> dict[str, Any]:
    """An image of each name, with a box at a place of its own."""
    rng = np.random.default_rng(len(names))
    images = [{"id": i, "width": 60, "height": 40} | ({"file_name": n} if n else {}) for i, n in enumerate(names, 1)]
    boxes = [[*map(float, rng.integers(0, 20, 2)), 10.0, 10.0] for _ in names]
    annotations = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": box, "area": 100.0, "iscrowd": 0}
        for i, box in enumerate(boxes, 1)
    ]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}], **fields}


def write(file: Path, content: dict[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def coco(folder: Path, content: dict[str, Any], split: str = "train") -> None:
    """A COCO folder with a val of its own, so that nothing is drawn."""
    draw(folder, "val2017/other.png", 64)
    write(folder / "annotations/instances_val2017.json", document("other.png"))
    write(folder / f"annotations/instances_{split}2017.json", content)


def read(place: Path, split: str = "train") -> Records:
    return records_of({split: find_split(str(place), split)}, "boxes")[split]


def counts(records: Records) -> dict[str, int]:
    return {each.code: each.count for each in records.problems}


def files(records: Records) -> list[Path]:
    return [records.folder / str(name) for name in records.file_names.tolist()]


COMPOSED = unicodedata.normalize("NFC", "café")
OTHERS = [
    ("{}", "train2017/x{}.png"),
    (r"images\train2017\{}", "train2017/x{}.png"),
    ("/home/anna/set/train2017/{}", "train2017/x{}.png"),
    (r"C:\Users\anna\{}", "train2017/x{}.png"),
    ("../../upload/4/{}", "train2017/x{}.png"),
    ("http://example.org/some/train2017/{}?size=2", "train2017/x{}.png"),
    ("train2017/{}", "train2017/x{}.png"),
    ("a%20{}", "train2017/a x{}.png"),
    ("A {}", "train2017/a x{}.PNG"),
    (f"{COMPOSED}{{}}", unicodedata.normalize("NFD", f"train2017/{COMPOSED}x{{}}.png")),
    ("{}", "train2017/images/x{}.png"),
    ("photos/{}", "photos/x{}.png"),
    ("bare {}", "train2017/bare x{}.png.png"),
    ("photos/{}", "train2017/deep/photos/x{}.png"),
]


@pytest.mark.parametrize(("name", "file"), OTHERS, ids=[f"{name} is {file}" for name, file in OTHERS])
@pytest.mark.parametrize("layout", ["coco", "roboflow", "json"])
def test_a_name_means_the_one_file_that_ends_like_it(tmp_path: Path, name: str, file: str, layout: str) -> None:
    names = [name.format(f"x{i}.png") for i in range(4)]
    for i in range(4):
        draw(tmp_path, file.format(i))
    if layout == "coco":
        coco(tmp_path, document(*names))
    elif layout == "roboflow":
        (tmp_path / "train2017").mkdir(exist_ok=True)
        (tmp_path / "train2017").rename(tmp_path / "train")
        draw(tmp_path, "valid/other.png")
        file = file.replace("train2017", "train", 1)
        write(tmp_path / "train/_annotations.coco.json", document(*names))
        write(tmp_path / "valid/_annotations.coco.json", document("other.png"))
    else:
        write(tmp_path / "all.json", document(*names))
    found = [read(tmp_path, split) for split in ("train", "val")]
    there = {each.resolve() for of in found for each in files(of)}
    assert there >= {(tmp_path / file.format(i)).resolve() for i in range(4)}
    assert not {kinds.MISSING.code, kinds.BAD_NAME.code} & {code for of in found for code in counts(of)}
    assert run(["data", "check", str(tmp_path), *SIZES]) == 0


def test_what_is_found_is_counted_and_where_it_is_plain_nothing_is_said(tmp_path: Path) -> None:
    for name in "abc":
        draw(tmp_path, f"train2017/{name}.png")
    coco(tmp_path, document("a.png", "/far/b.png", r".\c.png"))
    records = read(tmp_path)
    assert counts(records) == {kinds.ELSEWHERE.code: 2}
    assert sorted(files(records)) == [tmp_path / f"train2017/{name}.png" for name in "abc"]
    coco(tmp_path, document("a.png", "b.png", "c.png"))
    assert counts(read(tmp_path)) == {}


@pytest.mark.parametrize(
    "name", ["/etc/hostname", "../../secret.png", "{outside}", "..\\secret.png", "link/secret.png"]
)
def test_no_name_leads_out_of_the_set(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    draw(outside, "secret.png")
    folder = tmp_path / "set"
    draw(folder, "train2017/a.png")
    (folder / "train2017/link").symlink_to(outside)
    (folder / "other").symlink_to(outside)
    coco(folder, document("a.png", name.format(outside=outside / "secret.png")))
    assert files(read(folder)) == [folder / "train2017/a.png"]
    assert run(["data", "check", str(folder), "--split", "train", *SIZES]) == 3


def test_an_image_of_several_places_or_of_none_is_not_guessed(tmp_path: Path) -> None:
    names = ("a.png", "/far/b.png", "/far/c.png", "x/d.png", "y/d.png")
    for place in ("a.png", "one/b.png", "two/b.png", "d.png"):
        draw(tmp_path, f"train2017/{place}")
    coco(tmp_path, document(*names))
    records = read(tmp_path)
    # b is in two places, c in none; of two names for d nobody knows which one it is.
    assert counts(records) == {kinds.BAD_NAME.code: 2}
    assert records.file_names.tolist() == ["a.png", "x/d.png", "y/d.png"]


def test_where_nothing_is_found_folders_that_would_do_are_named(tmp_path: Path) -> None:
    for i in range(3):
        for place in ("one", "two"):
            draw(tmp_path, f"{place}/sub/{i}.png")
    coco(tmp_path, document("/far/0.png", "/far/1.png", "/far/2.png"))
    records = read(tmp_path)
    assert counts(records) == {kinds.SEVERAL_PLACES.code: 3, kinds.BAD_NAME.code: 3}
    assert records.problems[0].examples[0].endswith(" may be in one/sub, two/sub")


def test_a_missing_image_is_not_replaced_by_a_mask_or_another_split(tmp_path: Path) -> None:
    """Masks and the other split have files of the same names: what is deleted is missing, whatever they have."""
    for i in range(6):
        for folder in ("train2017", "train2017/masks", "val2017"):
            draw(tmp_path, f"{folder}/{i}.png")
    (tmp_path / "train2017/3.png").unlink()
    (tmp_path / "val2017/5.png").unlink()
    for split in ("train", "val"):
        coco(tmp_path, document(*(f"{i}.png" for i in range(6))), split)
        records = read(tmp_path, split)
        assert counts(records) == {}
        assert records.folder == tmp_path / f"{split}2017"
        assert sum(not each.exists() for each in files(records)) == 1


def test_a_missing_image_of_a_folder_is_looked_for_in_that_folder(tmp_path: Path) -> None:
    for place in ("b/0.png", "b/deep/2.png", "c/1.png"):
        draw(tmp_path, f"train2017/{place}")
    coco(tmp_path, document("b/0.png", "b/1.png", "b/2.png"))
    records = read(tmp_path)
    assert counts(records) == {kinds.ELSEWHERE.code: 1}
    assert records.file_names.tolist() == ["b/0.png", "b/1.png", "b/deep/2.png"]


@pytest.mark.parametrize("prefix", ["train_masks", "training-depth", "trainmasks"])
@pytest.mark.parametrize("images", ["images", "images/train", "train", "img", "shots"])
def test_images_come_before_what_only_begins_like_the_split(tmp_path: Path, prefix: str, images: str) -> None:
    for i in range(3):
        draw(tmp_path, f"{images}/{i}.png")
        draw(tmp_path, f"{prefix}/{i}.png", 255)
    write(tmp_path / "annotations/instances_train.json", document("0.png", "1.png", "2.png"))
    found = find_split(str(tmp_path), "train")
    assert found.images == tmp_path / images
    assert any(f"{prefix}/ has files of these names too" in note for note in found.notes)


def test_the_folder_is_the_one_that_has_the_files(tmp_path: Path) -> None:
    for i in range(4):
        draw(tmp_path, f"pool/{i}.png")
    draw(tmp_path, "train/preview.png")
    for split, names in (("train", ("0.png", "1.png", "2.png")), ("val", ("3.png",))):
        write(tmp_path / f"annotations/instances_{split}.json", document(*names))
    for split in ("train", "val"):
        found = find_split(str(tmp_path), split)
        assert found.images == tmp_path / "pool"
        assert "its images are those in" in found.notes[0]


def test_a_file_alone_finds_images_where_the_set_does(tmp_path: Path) -> None:
    for i in range(4):
        draw(tmp_path, f"images/{i}.png")
    file = write(tmp_path / "set.json", document(*(f"images/{i}.png" for i in range(4))))
    found, _ = find_splits_or_file(str(file), None, None, "boxes")
    assert {each.exists() for each in files(records_of(found, "boxes")["train"])} == {True}
    assert run(["data", "check", str(file), *SIZES]) == 0


def test_addresses_stand_in_for_names(tmp_path: Path) -> None:
    for i in range(3):
        draw(tmp_path, f"train2017/{i}.png")
    content = document(None, None, None)
    for i, each in enumerate(content["images"]):
        each["coco_url"] = f"http://images.example.org/train2017/{i}.png"
    coco(tmp_path, content)
    assert files(read(tmp_path)) == [tmp_path / f"train2017/{i}.png" for i in range(3)]


def test_parts_and_ends_of_names(tmp_path: Path) -> None:
    assert parts("C:\\a\\b.png") == ["a", "b.png"]
    assert parts("../x/../y/z.png") == ["y", "z.png"]
    assert parts("https://host/a/b.png?x=1#y") == ["a", "b.png"]
    draw(tmp_path, "y/z.png")
    assert longest_end(tmp_path, "/w/x/y/z.png") == "y/z.png"
    assert longest_end(tmp_path, "/w/x/q.png") is None
    assert longest_end(tmp_path, "\0") is None


def test_a_repair_keeps_images_that_lie_elsewhere(tmp_path: Path) -> None:
    for place in ("0.png", "images/1.png", "images/2.png"):
        draw(tmp_path, f"valid/{place}")
    draw(tmp_path, "train/9.png")
    write(tmp_path / "train/_annotations.coco.json", document("9.png"))
    content = document("0.png", "1.png", "2.png")
    content["annotations"].append({**content["annotations"][0], "id": 9, "bbox": [0, 0, 0, 0]})
    write(tmp_path / "valid/_annotations.coco.json", content)
    out = tmp_path / "repaired.json"
    assert run(["data", "check", str(tmp_path), "--split", "val", "--fix", "-o", str(out)]) == 0
    repaired = json.loads(out.read_text())
    assert [len(repaired[name]) for name in ("images", "annotations")] == [3, 3]


@pytest.mark.parametrize(
    "name", ["x\0.png", "a/" + "b" * 300 + "/c.png", "b" * 5000, "\ud800.png", "/", "..", "C:\\", "%", "http://", ""]
)
def test_names_that_none_can_have_are_named(tmp_path: Path, name: str) -> None:
    draw(tmp_path, "train2017/a.png")
    coco(tmp_path, document("a.png", name))
    assert files(read(tmp_path))[0] == tmp_path / "train2017/a.png"
    assert run(["data", "check", str(tmp_path), "--split", "train", *SIZES]) == 3
