import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from msad_cli.data.layouts.demo import demo_folder, draw_demo
from msad_cli.data.layouts.demo_scenes import CATEGORY_IDS, KEYPOINTS
from msad_cli.errors import OutputError

# pycocotools 2.0.11 lacks the copy argument that NumPy 2 asks of __array__, which is for pycocotools to mend.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

# About seven objects an image, a dozen of them figures.
TRAIN, VAL = 8, 4
SIZE = (256, 256)  # the default of draw_demo
FILES = [f"{kind}_{split}2017.json" for kind in ("instances", "person_keypoints") for split in ("train", "val")]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    draw_demo(folder, train=TRAIN, val=VAL)
    return folder


def _content(folder: Path, file: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "annotations" / file).read_text())
    return content


def _contents(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [_content(folder, file) for file in FILES if file.startswith(kind)]


def _annotations(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [annotation for content in _contents(folder, kind) for annotation in content["annotations"]]


def _pixels(folder: Path) -> dict[str, bytes]:
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in folder.glob("*/*.jpg")}


def test_layout_is_that_of_coco(demo: Path) -> None:
    assert sorted(path.name for path in (demo / "annotations").iterdir()) == sorted(FILES)
    for split, count in (("train2017", TRAIN), ("val2017", VAL)):
        assert sorted(path.name for path in (demo / split).iterdir()) == [f"{i + 1:012d}.jpg" for i in range(count)]
        for image in _content(demo, f"instances_{split}.json")["images"]:
            with Image.open(demo / split / image["file_name"]) as opened:
                assert opened.size == (image["width"], image["height"]) == SIZE


@pytest.mark.parametrize("file", FILES)
def test_pycocotools_reads_the_annotations(demo: Path, file: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(demo / "annotations" / file))
    assert len(coco.getImgIds()) == (TRAIN if "train" in file else VAL)
    annotations = coco.loadAnns(coco.getAnnIds())
    assert annotations
    assert all(coco.annToMask(annotation).sum() == annotation["area"] for annotation in annotations)


def test_category_ids_have_gaps(demo: Path) -> None:
    # The ids were chosen with gaps, so that ids and positions cannot be mistaken for each other.
    expected = {"disc": 1, "triangle": 4, "figure": 17}
    for content in _contents(demo, "instances"):
        assert {category["name"]: category["id"] for category in content["categories"]} == expected
    assert {annotation["category_id"] for annotation in _annotations(demo, "instances")} == set(expected.values())


def test_boxes_are_tight_around_what_is_visible(demo: Path) -> None:
    for annotation in _annotations(demo, "instances"):
        mask = rle.decode(annotation["segmentation"])
        assert mask.shape == SIZE[::-1]
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        x, y, width, height = annotation["bbox"]
        # A box ends where its last pixel ends, one after the pixel's index. Inside the image follows from the mask.
        assert (x, x + width) == (columns[0], columns[-1] + 1)
        assert (y, y + height) == (rows[0], rows[-1] + 1)
        assert annotation["area"] == mask.sum() >= 20  # LEAST_AREA: smaller remains are not to be labelled
        assert annotation["iscrowd"] == 0


def test_masks_of_an_image_do_not_overlap(demo: Path) -> None:
    for content in _contents(demo, "instances"):
        for image in content["images"]:
            masks = [rle.decode(a["segmentation"]) for a in content["annotations"] if a["image_id"] == image["id"]]
            assert np.sum(masks, axis=0).max(initial=0) <= 1  # a pixel shows one object at most


def test_objects_stand_out_from_their_surroundings(demo: Path) -> None:
    contrasts = []
    for annotation in _content(demo, "instances_train2017.json")["annotations"]:
        with Image.open(demo / "train2017" / f"{annotation['image_id']:012d}.jpg") as opened:
            pixels = np.asarray(opened, dtype=float)
        x, y, width, height = (int(value) for value in annotation["bbox"])
        mask = rle.decode(annotation["segmentation"])[y : y + height, x : x + width].astype(bool)
        patch = pixels[y : y + height, x : x + width]
        if not mask.all():
            contrasts.append(np.linalg.norm(patch[mask].mean(axis=0) - patch[~mask].mean(axis=0)))
    # LEAST_CONTRAST is 100; two-coloured fills, blur, noise and neighbours in the box take some of it.
    assert np.median(contrasts) > 50


def test_keypoints_lie_in_the_image_or_are_zero(demo: Path) -> None:
    flags = set()
    for annotation in _annotations(demo, "person_keypoints"):
        points = np.array(annotation["keypoints"]).reshape(-1, 3)  # x, y, flag
        assert len(points) == 7  # head, neck, hip, two hands, two feet
        absent = points[:, 2] == 0
        assert (points[absent] == 0).all()
        assert (points[~absent, :2] >= 0).all()
        assert (points[~absent, :2] < SIZE).all()
        assert annotation["num_keypoints"] == (~absent).sum()
        flags |= set(points[:, 2].tolist())
    assert flags <= {0, 1, 2}  # the flags of COCO: not labelled, hidden, visible


def test_visible_keypoints_lie_on_their_figure_and_hidden_ones_do_not(demo: Path) -> None:
    for annotation in _annotations(demo, "person_keypoints"):
        mask = rle.decode(annotation["segmentation"])
        points = np.array(annotation["keypoints"]).reshape(-1, 3)
        on_figure = mask[points[:, 1].astype(int), points[:, 0].astype(int)].astype(bool)
        assert not on_figure[points[:, 2] == 1].any()
        if annotation["bbox"][3] >= 48:  # as high, the thinnest limb (radius 0.046 of the height) is 4 pixels thick
            assert on_figure[points[:, 2] == 2].all()


def test_keypoint_files_hold_the_figures_only(demo: Path) -> None:
    for boxes, keypoints in zip(_contents(demo, "instances"), _contents(demo, "person_keypoints"), strict=True):
        assert keypoints["images"] == boxes["images"]
        (category,) = keypoints["categories"]
        assert category["id"] == CATEGORY_IDS["figure"]
        assert category["keypoints"] == list(KEYPOINTS)
        named = {frozenset(KEYPOINTS[end - 1] for end in bone) for bone in category["skeleton"]}  # ends count from 1
        assert len(named) == 6  # a tree over 7 points
        assert frozenset({"neck", "left_hand"}) in named
        without = [{k: v for k, v in a.items() if not k.endswith("keypoints")} for a in keypoints["annotations"]]
        assert without == [a for a in boxes["annotations"] if a["category_id"] == category["id"]]
        assert not any("keypoints" in annotation for annotation in boxes["annotations"])


def test_same_seed_draws_the_same(demo: Path, tmp_path: Path) -> None:
    draw_demo(tmp_path, train=TRAIN, val=VAL)
    for file in FILES:
        assert (tmp_path / "annotations" / file).read_bytes() == (demo / "annotations" / file).read_bytes()
    assert _pixels(tmp_path) == _pixels(demo)


def test_smaller_set_is_the_beginning_of_a_larger_one(demo: Path, tmp_path: Path) -> None:
    draw_demo(tmp_path, train=3, val=0)  # 3 of the 8 in `demo`
    few, many = (_content(folder, "instances_train2017.json") for folder in (tmp_path, demo))
    assert few["images"] == many["images"][:3]
    assert few["annotations"] == [a for a in many["annotations"] if a["image_id"] <= 3]
    assert _pixels(tmp_path).items() <= _pixels(demo).items()


def test_seeds_and_splits_differ(demo: Path, tmp_path: Path) -> None:
    draw_demo(tmp_path, train=1, val=1, seed=1)
    first = [(folder / split / "000000000001.jpg") for folder in (demo, tmp_path) for split in ("train2017", "val2017")]
    assert len({path.read_bytes() for path in first}) == 4  # 2 seeds times 2 splits


def test_size_is_respected_and_must_not_be_tiny(tmp_path: Path) -> None:
    draw_demo(tmp_path, train=2, val=0, size=(96, 64))  # any size smaller than the longest object, 140
    with Image.open(tmp_path / "train2017" / "000000000002.jpg") as opened:
        assert opened.size == (96, 64)
    with pytest.raises(ValueError, match="at least 32 pixels"):
        draw_demo(tmp_path, size=(320, 31))  # one below the limit


def test_cache_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = demo_folder(train=1, val=1, cache=tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    monkeypatch.setenv("MSAD_CACHE", str(tmp_path))
    assert demo_folder(train=1, val=1) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert demo_folder(train=2, val=1) != folder
    assert all(path.name.startswith("demo-") for path in tmp_path.iterdir())  # nothing temporary remains


def test_cache_lies_under_the_usual_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MSAD_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert demo_folder(train=0, val=0).parent == tmp_path / "msad"


def test_failed_drawing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OutputError, match="disk full"):
        demo_folder(train=1, val=1, cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_slower_process_takes_the_folder_of_the_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overtaken(folder: Path, **options: Any) -> None:
        finished = tmp_path / folder.name
        draw_demo(finished, **options)
        (finished / "by the faster").touch()
        draw_demo(folder, **options)

    monkeypatch.setattr("msad_cli.data.layouts.demo.draw_demo", overtaken)
    assert (demo_folder(train=1, val=0, cache=tmp_path) / "by the faster").exists()
    assert len(list(tmp_path.iterdir())) == 1  # the finished folder alone
