"""A record agrees with itself: what contradicts itself is named with its count, and repaired where it is known how."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.drawn_sets import Document, Drawn, drawn_set

from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.check import check
from msad_cli.data.annotations.problem_tally import Problem
from msad_cli.data.annotations.problems import READ_OTHERWISE
from msad_cli.data.annotations.records import read_document
from msad_cli.data.annotations.repair import repair
from msad_cli.errors import DataError
from msad_cli.evaluation.evaluate import contradictions_in_words
from msad_cli.frame import Resolution

RESOLUTION = Resolution(64, 96)
SEEDS = (1, 2, 3)
Box = tuple[float, float, float, float]


def said(drawn: Drawn, task: str = "boxes") -> dict[str, Problem]:
    """By code, what the check says against the annotations."""
    report = check({"train": drawn.records(task)}, RESOLUTION, ())
    return {each.code: each for _, each in report.problems if each.code in READ_OTHERWISE}


def repaired(drawn: Drawn) -> Document:
    return repair(read_document(drawn.file), drawn.file, drawn.folder).document


def boxed(how: Callable[[Box, float, float], list[float]]) -> Callable[[Document, Document], None]:
    """A fault of boxes: from x, y, width, height and the image's width and height."""

    def fault(each: Document, image: Document) -> None:
        each["bbox"] = how(each["bbox"], image["width"], image["height"])

    return fault


BOXES = {
    "corners x0, y0, x1, y1": boxed(lambda b, w, h: [b[0], b[1], b[0] + b[2], b[1] + b[3]]),
    "centre x, centre y, width, height": boxed(lambda b, w, h: [b[0] + b[2] / 2, b[1] + b[3] / 2, b[2], b[3]]),
    "shares (0 … 1) of the image's sides": boxed(lambda b, w, h: [b[0] / w, b[1] / h, b[2] / w, b[3] / h]),
    "percent of the image's sides": boxed(
        lambda b, w, h: [100 * b[0] / w, 100 * b[1] / h, 100 * b[2] / w, 100 * b[3] / h]
    ),
    "y, x, height, width": boxed(lambda b, w, h: [b[1], b[0], b[3], b[2]]),
    "corners y0, x0, y1, x1": boxed(lambda b, w, h: [b[1], b[0], b[1] + b[3], b[0] + b[2]]),
    "centre x, y, width, height in shares": boxed(
        lambda b, w, h: [(b[0] + b[2] / 2) / w, (b[1] + b[3] / 2) / h, b[2] / w, b[3] / h]
    ),
}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("outlines", ["", "polygon", "rle"])
def test_honest_sets_are_not_warned_about(tmp_path: Path, seed: int, outlines: str) -> None:
    """In all sizes and counts, boxes a few pixels loose among them."""
    rng = np.random.default_rng(seed)
    drawn = drawn_set(tmp_path, seed, outlines, int(rng.integers(1, 6)), int(rng.integers(1, 7)))
    for task in ("boxes", "masks", "keypoints"):
        assert said(drawn, task) == {}
    drawn.changed(boxed(lambda b, w, h: (np.array(b) + rng.uniform(-1.4, 1.4, 4)).tolist()))
    for task in ("boxes", "masks", "keypoints"):
        assert {code for code in said(drawn, task) if code != kinds.AREA_ABOVE_BOX.code} == set()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("words", BOXES)
@pytest.mark.parametrize("outlines", ["polygon", "rle"])
def test_boxes_are_compared_with_their_outlines(tmp_path: Path, words: str, outlines: str, seed: int) -> None:
    drawn = drawn_set(tmp_path, seed, outlines)
    count = drawn.changed(BOXES[words])
    (problem,) = said(drawn).values()
    assert (problem.code, problem.fatal) == (kinds.BOX_OFF_OUTLINE.code, True)
    assert words in problem.what
    assert count - 2 <= problem.count <= count  # a box whose x and y are alike stays what it is
    boxes = [each["bbox"] for each in repaired(drawn)["annotations"]]
    np.testing.assert_allclose(boxes, drawn.boxes, atol=3.1)  # what is no further off counts as rounded
    with pytest.raises(DataError, match="not those of their outlines"):
        contradictions_in_words(drawn.records(), "val", RESOLUTION)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_part_of_the_annotations_is_counted(tmp_path: Path, seed: int) -> None:
    drawn = drawn_set(tmp_path, seed, "polygon")
    count = drawn.changed(BOXES["centre x, centre y, width, height"], 0.3)
    assert said(drawn)[kinds.BOX_OFF_OUTLINE.code].count == count == 6
    count = drawn.changed(BOXES["centre x, centre y, width, height"], 0.05)
    problem = said(drawn)[kinds.BOX_OFF_OUTLINE.code]
    assert (problem.count, problem.fatal) == (count, False) == (1, False)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "words", ["corners x0, y0, x1, y1", "shares (0 … 1) of the image's sides", "centre x, y, width, height in shares"]
)
def test_boxes_alone_are_compared_with_their_images(tmp_path: Path, words: str, seed: int) -> None:
    drawn = drawn_set(tmp_path, seed)

    def fault(each: Document, image: Document) -> None:
        BOXES[words](each, image)
        each["area"] = each["bbox"][2] * each["bbox"][3]

    count = drawn.changed(fault)
    problem = said(drawn)[kinds.BOX_FORM.code]
    assert (problem.count, problem.fatal) == (count, True)
    assert words in problem.what
    boxes = [each["bbox"] for each in repaired(drawn)["annotations"]]
    np.testing.assert_allclose(boxes, drawn.boxes, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("words", ["percent of the image's sides", "shares (0 … 1) of the image's sides"])
def test_no_object_is_larger_than_its_box(tmp_path: Path, words: str, seed: int) -> None:
    drawn = drawn_set(tmp_path, seed)
    count = drawn.changed(BOXES[words])
    problem = said(drawn)[kinds.AREA_ABOVE_BOX.code]
    assert problem.fatal
    assert words in problem.what
    # Images of less than 100 pixels a side have areas that do not exceed those of percent.
    large = [each for each in drawn.document["images"] if each["width"] * each["height"] > 1.5 * 100**2]
    assert problem.count >= 5 * len(large)
    assert problem.count <= count
    boxes = np.array([each["bbox"] for each in repaired(drawn)["annotations"]])
    if problem.count == count:
        np.testing.assert_allclose(boxes, drawn.boxes, atol=1e-6)


def ring_times(*factors: float) -> Callable[[Document, Document], None]:
    def fault(each: Document, image: Document) -> None:
        each["segmentation"] = [(np.array(each["segmentation"][0]).reshape(-1, 2) * factors).ravel().tolist()]

    return fault


def ring_in_shares(each: Document, image: Document) -> None:
    ring_times(1 / image["width"], 1 / image["height"])(each, image)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("fault", "words"),
    [(ring_times(2, 2), "2 times the size"), (ring_times(0.5, 0.5), "0.5 times"), (ring_in_shares, "shares (0 … 1)")],
)
def test_outlines_at_another_scale(tmp_path: Path, fault: Any, words: str, seed: int) -> None:
    drawn = drawn_set(tmp_path, seed, "polygon")
    count = drawn.changed(fault)
    problem = said(drawn, "masks")[kinds.OUTLINE_OFF_BOX.code]
    assert problem.fatal
    assert words in problem.what
    assert count - 3 <= problem.count <= count  # near the corner of the image everything agrees
    after = repaired(drawn)["annotations"]
    np.testing.assert_allclose([each["bbox"] for each in after], drawn.boxes, atol=1e-6)
    rings = np.array([each["segmentation"][0] for each in after])
    wanted = np.array([each["segmentation"][0] for each in drawn.document["annotations"]])
    assert (np.abs(rings - wanted).max(axis=1) < 1e-6).sum() == problem.count


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("stated", [True, False])
def test_the_sides_of_an_rle_that_are_exchanged(tmp_path: Path, stated: bool, seed: int) -> None:
    """Read as they are meant where the image's size is stated; else named, and refused where masks are learnt."""
    drawn = drawn_set(tmp_path, seed, "rle")
    wanted = drawn.records("masks").annotations.masks

    def fault(each: Document, image: Document) -> None:
        each["segmentation"]["size"].reverse()

    if not stated:
        for image in drawn.document["images"]:
            image.pop("width")
            image.pop("height")
    count = drawn.changed(fault)
    if stated:
        assert {code: each.count for code, each in said(drawn, "masks").items()} == {kinds.SIDES_EXCHANGED.code: count}
        masks = drawn.records("masks").annotations.masks
        assert (masks.sizes == wanted.sizes).all()
        assert (masks.data == wanted.data).all()
        assert said(Drawn(drawn.folder, repaired(drawn)), "masks")  # the same document, until it is written
        drawn.file.write_text(json.dumps(repaired(drawn)))
        assert said(drawn, "masks") == {}
    else:
        (problem,) = said(drawn, "masks").values()
        assert (problem.code, problem.fatal) == (kinds.RLE_SIZE.code, True)
        assert count - 3 <= problem.count <= count


def pointed(how: Callable[[Any, Document, Document], Any]) -> Callable[[Document, Document], None]:
    """A fault of keypoints: from x, y (K, 2), the annotation and the image."""

    def fault(each: Document, image: Document) -> None:
        table = np.array(each["keypoints"]).reshape(-1, 3)
        table[:, :2] = how(table[:, :2], each, image)
        each["keypoints"] = table.ravel().tolist()

    return fault


POINTS = {
    "shares (0 … 1) of the image's sides": pointed(lambda p, each, image: p / (image["width"], image["height"])),
    "percent of the image's sides": pointed(lambda p, each, image: 100 * p / (image["width"], image["height"])),
    "y, x: the axes exchanged": pointed(lambda p, each, image: p[:, ::-1]),
    "pixels from the corner of their box": pointed(lambda p, each, image: p - each["bbox"][:2]),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("words", POINTS)
def test_keypoints_are_compared_with_their_boxes(tmp_path: Path, words: str, seed: int) -> None:
    drawn = drawn_set(tmp_path, seed)
    count = drawn.changed(POINTS[words])
    (problem,) = said(drawn, "keypoints").values()
    assert (problem.code, problem.fatal) == (kinds.POINTS_OFF_BOX.code, True)
    assert words in problem.what
    assert count - 5 <= problem.count <= count  # some lie in their box, read so or so
    found = np.array([each["keypoints"] for each in repaired(drawn)["annotations"]])
    wanted = np.array([each["keypoints"] for each in drawn.document["annotations"]])
    assert (np.abs(found - wanted).max(axis=1) < 1e-6).sum() >= problem.count


@pytest.mark.parametrize("seed", SEEDS)
def test_keypoints_of_another_scale_are_named_and_left(tmp_path: Path, seed: int) -> None:
    """How much larger is only known about: 2 from the middle of boxes, in which points lie anywhere."""
    drawn = drawn_set(tmp_path, seed)
    drawn.changed(pointed(lambda p, each, image: 2 * p))
    problem = said(drawn, "keypoints")[kinds.POINTS_OFF_BOX.code]
    assert problem.fatal
    assert re.search(r"pixels of an image of about (1\.9|2|2\.1) times the size", problem.what)
    found = [each["keypoints"] for each in repaired(drawn)["annotations"]]
    assert found == [each["keypoints"] for each in json.loads(drawn.file.read_text())["annotations"]]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("factors", [(2.0, 2.0), (0.5, 0.5), (1.6, 2.5)])
def test_images_that_were_resized_after_labelling(tmp_path: Path, factors: tuple[float, float], seed: int) -> None:
    """The boxes lie in the raster that is stated; the files have `factors` times its sides."""
    drawn = drawn_set(tmp_path, seed, "polygon")
    sizes = []
    for each in drawn.document["images"]:
        sizes.append((round(each["width"] * factors[0]), round(each["height"] * factors[1])))
        Image.new("L", sizes[-1]).save(tmp_path / each["file_name"])
    report = check({"train": drawn.records()}, RESOLUTION, ())
    (problem,) = (each for _, each in report.problems)
    assert (problem.code, problem.count, problem.fatal) == (kinds.RESIZED.code, 4, True)
    assert report.splits[0].counts["boxes to learn from"] == 20
    after = repaired(drawn)
    assert [(each["width"], each["height"]) for each in after["images"]] == sizes
    found = np.array([each["bbox"] for each in after["annotations"]])
    of = np.array([sizes[each["image_id"] - 1] for each in after["annotations"]])
    stated = np.array([(drawn.document["images"][i // 5][side]) for i in range(20) for side in ("width", "height")])
    np.testing.assert_allclose(found, drawn.boxes * np.tile(of / stated.reshape(-1, 2), 2), atol=1e-6)
    drawn.file.write_text(json.dumps(after))
    assert check({"train": drawn.records("keypoints")}, RESOLUTION, ()).problems == []


def test_stated_sizes_that_are_wrong_are_not_a_resize(tmp_path: Path) -> None:
    """The boxes lie in the files: the stated size is passed over, as ever."""
    drawn = drawn_set(tmp_path, 1)
    for each in drawn.document["images"]:
        each |= {"width": each["width"] // 2, "height": each["height"] // 2}
    drawn.changed(lambda annotation, image: None)
    report = check({"train": drawn.records()}, RESOLUTION, ())
    assert [(each.code, each.count) for _, each in report.problems] == [(kinds.OTHER_SIZE.code, 4)]
