"""Masks and keypoints of a set: what is read of them, what is refused, and where they lie in every view."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from pycocotools import mask as rle
from support.places import SHARED

from msad_cli.cli.app import run
from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.check import check
from msad_cli.data.annotations.keypoint_scheme import KeypointScheme, derived_pairs, read_keypoints, read_scheme
from msad_cli.data.annotations.problem_tally import Problem, Tally
from msad_cli.data.annotations.records import read_records
from msad_cli.data.annotations.segmentation import (
    SegmentationsBuilder,
    decode,
    encode,
    encode_mask,
    pixels_inside,
    read_segmentation,
)
from msad_cli.data.annotations.split import CocoSplit, read_split
from msad_cli.data.images.decode import limit_pixels, most_pixels
from msad_cli.data.layouts.demo import draw_demo
from msad_cli.data.layouts.demo_scenes import CATEGORY_IDS, KEYPOINTS, SKELETON
from msad_cli.data.layouts.splits import find_split
from msad_cli.data.loading.augment import ONE_SCALE
from msad_cli.data.loading.dataset import TrainingSet
from msad_cli.data.loading.transforms import Placement
from msad_cli.errors import DataError
from msad_cli.frame import Resolution

# pycocotools 2.0.11 lacks the copy argument that NumPy 2 asks of __array__, which is for pycocotools to mend.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

RESOLUTION = Resolution(96, 128)
WIDTH, HEIGHT = 64, 48

# A red L of 32 × 8 and 8 × 24 pixels; a keypoint lies in the middle of a white dot of 4 × 4 pixels.
POLYGONS = [[8, 6, 40, 6, 40, 14, 16, 14, 16, 38, 8, 38]]
AREA, AROUND = 32 * 8 + 8 * 24, 2 * (32 + 32)
DOTS = {"left_hand": (50, 12), "right_hand": (54, 40), "head": (20, 42)}
CATEGORY = {"id": 7, "name": "figure", "keypoints": list(DOTS), "skeleton": [[3, 1], [3, 2]]}


def _annotation(**fields: Any) -> dict[str, Any]:
    points = [value for x, y in DOTS.values() for value in (x, y, 2)]
    plain = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [8, 6, 32, 32], "area": AREA, "iscrowd": 0}
    return {**plain, "segmentation": POLYGONS, "keypoints": points, "num_keypoints": 3, **fields}


def _write(folder: Path, *annotations: dict[str, Any], categories: list[Any] | None = None) -> Path:
    image = Image.new("RGB", (WIDTH, HEIGHT))
    pen = ImageDraw.Draw(image)
    pen.rectangle((8, 6, 39, 13), fill="red")
    pen.rectangle((8, 14, 15, 37), fill="red")
    for x, y in DOTS.values():
        pen.rectangle((x - 2, y - 2, x + 1, y + 1), fill="white")
    image.save(folder / "a.png")
    images = [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}]
    file = folder / "train.json"
    document = {"images": images, "annotations": annotations, "categories": categories or [CATEGORY]}
    file.write_text(json.dumps(document))
    return file


def _split(folder: Path, task: str, *annotations: dict[str, Any], categories: list[Any] | None = None) -> CocoSplit:
    return read_split(_write(folder, *annotations, categories=categories), folder, task=task)


def _problems(file: Path, task: str) -> dict[Problem, int]:
    found = read_records(file, file.parent, task=task).problems
    return {replace(each, count=0, examples=()): each.count for each in found}


# --- segmentations ---


def _mask(*, seed: int = 0, size: tuple[int, int] = (20, 31)) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return (np.random.default_rng(seed).random(size) < 0.4).astype(np.uint8)


def _compressed(mask: np.ndarray[Any, np.dtype[np.uint8]]) -> dict[str, Any]:
    encoded = rle.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def _uncompressed(mask: np.ndarray[Any, np.dtype[np.uint8]]) -> dict[str, Any]:
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, len(flat)]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


@pytest.mark.parametrize("write", [_compressed, _uncompressed])
@pytest.mark.parametrize("seed", range(4))
def test_rles_are_read_as_pycocotools_wrote_them(write: Callable[..., dict[str, Any]], seed: int) -> None:
    mask = _mask(seed=seed)
    segmentation = read_segmentation(write(mask))
    assert isinstance(segmentation, dict)
    assert np.array_equal(decode(segmentation), mask)
    assert pixels_inside(segmentation) == mask.sum()
    assert segmentation["counts"].decode() == _compressed(mask)["counts"]
    assert np.array_equal(decode(encode(segmentation, (20, 31))), mask)


def test_large_rles() -> None:
    # Numbers of several groups of five bits, and negative differences: 1,200,000 pixels, of which one is inside.
    mask = np.zeros((1000, 1200), dtype=np.uint8)
    mask[500, 700] = mask[999, 1199] = 1
    segmentation = read_segmentation(_compressed(mask))
    assert isinstance(segmentation, dict)
    assert np.array_equal(decode(segmentation), mask)


def test_polygons_are_drawn_as_pycocotools_draws_them() -> None:
    parts = [[3.2, 4.1, 20.7, 5.0, 11.0, 15.5], [22, 2, 30, 2, 30, 9, 22, 9]]
    segmentation = read_segmentation(parts)
    assert segmentation is not None
    expected = rle.merge(rle.frPyObjects(parts, 20, 31))
    assert encode(segmentation, (20, 31)) == expected
    # At twice the size the same shape has four times the pixels, less what rounding takes along its edges.
    double = pixels_inside(encode(segmentation, (40, 62), (2.0, 2.0)))
    assert double == pytest.approx(4 * pixels_inside(expected), rel=0.05)


def test_rles_scale_with_the_image() -> None:
    mask = np.zeros((20, 40), dtype=np.uint8)
    mask[4:12, 10:20] = 1
    segmentation = read_segmentation(_compressed(mask))
    assert segmentation is not None
    larger = decode(encode(segmentation, (40, 80)))
    assert np.array_equal(larger, np.kron(mask, np.ones((2, 2), dtype=np.uint8)))
    smaller = decode(encode(segmentation, (10, 20)))
    assert np.array_equal(smaller, mask[::2, ::2])


def test_an_object_thinner_than_a_pixel_does_not_vanish() -> None:
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[:, 20] = 1
    segmentation = read_segmentation(_compressed(mask))
    assert segmentation is not None
    shrunk = decode(encode(segmentation, (8, 8)))
    assert shrunk[:, 2].all()  # column 20 of 64 is in column 2 of 8
    assert shrunk.sum() == 8


BAD: list[object] = [
    None,
    [],
    {},
    "text",
    5,
    [[1, 2, 3, 4]],
    [[1, 2, 3, 4, 5]],
    [1, 2, 3, 4, 5, 6],
    [["1", 2, 3, 4, 5, 6]],
    [[1, 2, 3, 4, float("nan"), 6]],
    [[1, 2, 3, 4, 5, 10**400]],
    [[1, 2, 3, 4, 5, 1e7]],
    [[True, 2, 3, 4, 5, 6]],
    [[0, 0, 900_000, 0, 0, 1]],  # more than a million pixels around
    {"size": [4, 4]},
    {"size": [4], "counts": [16]},
    {"size": [4, 4], "counts": [16]},  # nothing inside
    {"size": [4, 4], "counts": [3, 12]},
    {"size": [4, 4], "counts": [3, 14]},
    {"size": [4, 4], "counts": [-3, 19]},
    {"size": [4, 4], "counts": [3.0, 13]},
    {"size": [4, 4], "counts": [3, 13, "x"]},
    {"size": [4, 4], "counts": 5},
    {"size": [4, 4], "counts": [True, 15]},
    {"size": [4.0, 4], "counts": [3, 13]},
    {"size": [-4, -4], "counts": [3, 13]},
    {"size": [4, 4], "counts": [2**70, 13]},
    {"size": [10**6, 10**6], "counts": [1, 10**12 - 1]},
    {"size": [4, 4], "counts": ""},
    {"size": [4, 4], "counts": "P"},  # ends where more should follow
    {"size": [4, 4], "counts": "3"},
    {"size": [4, 4], "counts": "3\x7f"},
    {"size": [4, 4], "counts": "3 "},
    {"size": [4, 4], "counts": "3é"},
    {"size": [4, 4], "counts": "oooooooooooooo1"},
    {"size": [4, 4], "counts": "O1"},
]


@pytest.mark.parametrize("value", BAD, ids=lambda value: repr(value)[:40])
def test_what_is_no_segmentation(value: object) -> None:
    assert read_segmentation(value) is None


def test_of_several_polygons_the_good_ones_are_taken() -> None:
    segmentation = read_segmentation([[1, 2, 3, 4], POLYGONS[0], "x", [5, 5, 5]])
    assert isinstance(segmentation, list)
    assert [ring.ravel().tolist() for ring in segmentation] == POLYGONS


def test_a_grid_larger_than_any_image_is_refused() -> None:
    before = most_pixels()
    limit_pixels(1000)
    try:
        assert read_segmentation({"size": [40, 40], "counts": [1, 1599]}) is None
        assert read_segmentation({"size": [20, 40], "counts": [1, 799]}) is not None
    finally:
        limit_pixels(before)


def test_flat_memory_gives_back_what_went_in() -> None:
    rings = [np.array([[1.0, 2.5], [3, 4], [5, 6]]), np.array([[7.0, 8], [9, 10], [11, 12], [13, 14]])]
    runs = read_segmentation(_compressed(_mask()))
    assert isinstance(runs, dict)
    builder = SegmentationsBuilder()
    for each in (rings, None, runs, rings[:1]):
        builder.add(each)
    segmentations = builder.built()
    assert len(segmentations) == 4
    assert segmentations.usable.tolist() == [True, False, True, True]
    taken = segmentations.take(np.array([3, 2, 0, 0]))
    for one, other in ((segmentations, 0), (taken, 2), (taken, 3)):
        found = one.segmentation(other)
        assert isinstance(found, list)
        assert [each.tolist() for each in found] == [each.tolist() for each in rings]
    assert taken.segmentation(1) == runs == segmentations.segmentation(2)
    assert segmentations.segmentation(1) == []
    assert taken.sizes.tolist() == [[0, 0], [20, 31], [0, 0], [0, 0]]
    assert segmentations.data.dtype == np.uint8
    # 7 points of 8 bytes, one pair of NaN, once more the first 3, and the text.
    assert segmentations.data.nbytes == 8 * (7 + 1 + 3) + len(runs["counts"])


def test_annotations_without_a_mask_are_dropped_and_counted(tmp_path: Path) -> None:
    good = _annotation()
    bad = [_annotation(segmentation=None, bbox=[1, 1, 9, 9]), _annotation(segmentation=[[1, 2]], bbox=[2, 2, 9, 9])]
    crowd = _annotation(segmentation=None, iscrowd=1)
    split = _split(tmp_path, "masks", *bad, crowd, good)
    assert (len(split.boxes), split.dropped, split.crowds) == (1, 2, 1)
    segmentation = split.masks.segmentation(0)
    assert isinstance(segmentation, list)
    assert [ring.ravel().tolist() for ring in segmentation] == POLYGONS
    assert _problems(split.file, "masks")[kinds.NO_SEGMENTATION] == 2
    # Where boxes are the task nothing is dropped, and only what is malformed is a problem.
    assert len(_split(tmp_path, "boxes", *bad, good).boxes) == 3
    problems = _problems(split.file, "boxes")
    assert kinds.NO_SEGMENTATION not in problems
    assert problems[kinds.ODD_SEGMENTATION] == 1


# --- keypoints ---


def test_keypoints_are_read_in_original_pixels(tmp_path: Path) -> None:
    split = _split(tmp_path, "keypoints", _annotation())
    assert split.keypoints.tolist() == [[[50, 12, 2], [54, 40, 2], [20, 42, 2]]]
    assert split.keypoints.dtype == np.float32
    # Skeletons count from 1 in the file, from 0 here.
    assert split.scheme == KeypointScheme(("left_hand", "right_hand", "head"), ((0, 1),), ((2, 0), (2, 1)), True)
    assert split.scheme.mirrored == [1, 0, 2]
    other = _split(tmp_path, "boxes", _annotation())
    assert (other.keypoints.shape, other.scheme) == ((1, 0, 3), KeypointScheme())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"keypoints": [1, 2, 2, 3, 4, 1]}, [[1, 2, 2], [3, 4, 1]]),
        ({"keypoints": [1, 2, 0, 3, 4, -1]}, [[0, 0, 0], [0, 0, 0]]),  # without a label a place says nothing
        ({"keypoints": [1, 2, 9, 3, 4, 0.2]}, [[1, 2, 2], [3, 4, 1]]),
        ({"keypoints": [float("nan"), 2, 2, 3, 1e10, 2]}, [[0, 0, 0], [0, 0, 0]]),
        ({"num_keypoints": 0}, [[0, 0, 0], [0, 0, 0]]),
        ({"keypoints": None, "num_keypoints": 0}, [[0, 0, 0], [0, 0, 0]]),
        ({}, None),
        ({"keypoints": [1, 2, 2]}, None),
        ({"keypoints": [1, 2, 2, 3, 4, "1"]}, None),
        ({"keypoints": [1, 2, 2, 3, 4, 10**400]}, None),
        ({"keypoints": "text"}, None),
    ],
)
def test_lists_of_keypoints(fields: dict[str, Any], expected: list[list[float]] | None) -> None:
    found = read_keypoints(fields, 2)
    assert (None if found is None else found.tolist()) == expected


@pytest.mark.parametrize(
    ("names", "pairs", "flips"),
    [
        (["nose", "left_eye", "right_eye"], [(1, 2)], True),
        (["Left Eye", "Right Eye"], [(0, 1)], True),
        (["lEye", "rEye", "eyeL", "eyeR"], [(0, 1), (2, 3)], True),
        (["L_hip", "R_hip"], [(0, 1)], True),
        (["hip-l", "hip-r"], [(0, 1)], True),
        (["lefteye", "righteye", "lhip", "rhip"], [(0, 1), (2, 3)], True),
        (["left1", "left2", "right1", "right2"], [(0, 2), (1, 3)], True),
        (["tl", "tr", "br", "bl"], [(0, 1), (2, 3)], True),
        (["head", "tail"], [], True),
        (["bright", "upright"], [], True),  # no sides
        (["left_eye", "nose"], [], False),  # its partner is missing
        (["1", "2", "3"], [], False),
        (["kp1", "kp2"], [], False),
        (["point_0"], [], True),  # one alone stays
        (["a", "a"], [], False),
        (["голова", "хвост"], [], False),
    ],
)
def test_pairs_are_told_by_names(names: list[str], pairs: list[tuple[int, int]], flips: bool) -> None:
    assert derived_pairs(names) == (tuple(pairs), flips)


@pytest.mark.parametrize(
    ("fields", "pairs", "flips"),
    [
        ({"flip_pairs": [[0, 2]]}, ((0, 2),), True),  # places from 0
        ({"flip_pairs": []}, (), True),  # said: a mirror swaps nothing
        ({"keypoint_flip_map": [["1", "3"]]}, ((0, 2),), True),
        ({"flip_idx": [2, 1, 0]}, ((0, 2),), True),
        ({"flip_idx": [1, 2, 0]}, (), False),  # no mirror does that
        ({"flip_idx": [0, 1]}, (), False),
        ({"flip_pairs": [[0, 3]]}, (), False),
        ({"flip_pairs": [[0, 0]]}, (), False),
        ({"flip_pairs": [[0, 1], [1, 2]]}, (), False),
        ({"flip_pairs": 5}, (), False),
        ({"keypoint_flip_map": [["1", "x"]]}, (), False),
    ],
)
def test_pairs_that_a_file_states(fields: dict[str, Any], pairs: tuple[tuple[int, int], ...], flips: bool) -> None:
    tally = Tally()
    scheme = read_scheme([{"id": 1, "name": "a", "keypoints": ["1", "2", "3"], **fields}], {1}, (), tally)
    assert (scheme.flip_pairs, scheme.flips) == (pairs, flips)
    assert len(tally.problems()) == (0 if flips else 1)


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([{"id": 7, "name": "figure"}], "no class with keypoints"),
        ([{**CATEGORY, "keypoints": [1, 2, 3]}], "malformed records: category 7: keypoints"),
        ([{**CATEGORY, "keypoints": ["k"] * 1001}], "malformed records: category 7: keypoints"),
        (
            [CATEGORY, {"id": 8, "name": "dog", "keypoints": ["nose"]}],
            "other keypoints than the first one's: 'figure' and",
        ),
    ],
)
def test_sets_whose_keypoints_cannot_be_used(tmp_path: Path, categories: list[Any], message: str) -> None:
    file = _write(tmp_path, _annotation(), categories=categories)
    with pytest.raises(DataError) as caught:
        read_split(file, tmp_path, task="keypoints")
    assert message in caught.value.message
    assert len(read_split(file, tmp_path).boxes) == 1  # boxes are the same everywhere


def test_keypoints_have_to_be_those_of_the_model(tmp_path: Path) -> None:
    file = _write(tmp_path, _annotation())
    names = ["Left_Hand", "right_hand ", "head"]  # names may differ in case and space
    assert len(read_split(file, tmp_path, [(7, "figure")], "keypoints", names).boxes) == 1
    with pytest.raises(DataError, match=r"keypoints of other names than those learnt: .*head.* here, but .*tail"):
        read_split(file, tmp_path, [(7, "figure")], "keypoints", [*names[:2], "tail"])


def test_annotations_without_keypoints_are_dropped_and_those_without_labels_kept(tmp_path: Path) -> None:
    none = [_annotation(keypoints=None, bbox=[1, 1, 9, 9]), _annotation(keypoints=[1, 2], bbox=[2, 2, 9, 9])]
    unlabelled = _annotation(keypoints=[0] * 9, num_keypoints=0, bbox=[3, 3, 9, 9])
    split = _split(tmp_path, "keypoints", *none, _annotation(), unlabelled)
    assert (len(split.boxes), split.dropped) == (2, 2)
    assert split.keypoints[:, :, 2].tolist() == [[2, 2, 2], [0, 0, 0]]
    assert _problems(split.file, "keypoints") == {kinds.NO_POINTS: 2, kinds.UNNUMBERED: 3}


def test_classes_without_keypoints_are_left_out(tmp_path: Path) -> None:
    categories = [{"id": 3, "name": "disc"}, CATEGORY, {"id": 9, "name": "box", "keypoints": []}]
    others = [_annotation(id=2, category_id=3), _annotation(id=3, category_id=9)]
    split = _split(tmp_path, "keypoints", *others, _annotation(), categories=categories)
    assert split.categories == ((7, "figure"),)
    assert split.labels.tolist() == [1]
    assert _problems(split.file, "keypoints") == {kinds.KEYLESS: 2}


# --- in every view ---


@pytest.mark.parametrize("write", ["polygon", "RLE"])
@pytest.mark.parametrize("epoch", range(6))
def test_masks_and_keypoints_lie_on_their_pixels_in_every_view(tmp_path: Path, write: str, epoch: int) -> None:
    drawn = rle.merge(rle.frPyObjects(POLYGONS, HEIGHT, WIDTH))
    segmentation = POLYGONS if write == "polygon" else {**drawn, "counts": drawn["counts"].decode()}
    samples = []
    for task in ("masks", "keypoints"):
        split = _split(tmp_path, task, _annotation(segmentation=segmentation))
        samples.append(TrainingSet(split, RESOLUTION, (1, 2, 4), seed=1)[epoch, 0])
    masks, keypoints = samples
    height, width = masks.frame_size
    mask = masks.target["masks"]
    assert (tuple(mask.shape), mask.dtype) == ((1, height, width), torch.uint8)
    ratio = height * width / (HEIGHT * WIDTH)
    assert int(mask.sum()) == pytest.approx(AREA * ratio, rel=0.05)
    rows, columns = np.nonzero(mask[0].numpy())
    tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    # RLE masks that are enlarged lose the tips of their corners, a pixel of the original.
    assert tight == pytest.approx(masks.target["boxes"][0].tolist(), abs=1.5 if write == "polygon" else 2.5)
    for k, view in masks.views.items():
        pixels = view.float().numpy()
        red = (pixels[0] >= 128) & (pixels[1] < 64)
        shrunk = torch.nn.functional.avg_pool2d(mask.float(), k)[0].numpy() > 0.5
        # An edge in the middle of a row of pixels may take it in or leave it: a pixel along the segmentation at most.
        assert (red != shrunk).sum() <= AROUND * ratio**0.5 / k
    points = keypoints.target["keypoints"]
    assert (tuple(points.shape), points.dtype) == ((1, 3, 3), torch.float32)
    assert points[0, :, 2].tolist() == [2, 2, 2]
    for k, view in keypoints.views.items():
        for x, y, _ in points[0].tolist():
            assert view[:, int(y / k), int(x / k)].min() >= 128  # white, the middle of its dot
    left, right, head = (points[0, i, 0] / width for i in range(3))
    mirrored = float(head) > 0.5  # at 20 of 64 it is on the left
    # In a mirror the left hand is what was the right one: at 54 of 64, then at 10 of 64.
    assert [float(left), float(right)] == pytest.approx([10 / 64, 14 / 64] if mirrored else [50 / 64, 54 / 64])


def test_seeds_of_the_test_above_cover_both_directions() -> None:
    assert {random.Random(f"1/{epoch}/0").random() < 0.5 for epoch in range(6)} == {True, False}


def test_a_mirror_of_a_mirror_is_the_image() -> None:
    segmentation = read_segmentation([[3.3, 4.1, 20.7, 5.0, 11.0, 15.5]])
    assert segmentation is not None
    plain, mirrored = (Placement.filling((20, 31), (40, 64), each) for each in (False, True))
    assert torch.equal(mirrored.masks([segmentation]).flip(2), plain.masks([segmentation]))
    points = torch.tensor([[[3.25, 4.0, 2.0], [30.5, 19.0, 1.0], [0.0, 0.0, 0.0]]])
    there = Placement.filling((20, 31), (20, 31), True)
    assert torch.equal(there.keypoints(there.keypoints(points, [1, 0, 2]), [1, 0, 2]), points)
    assert there.keypoints(points, [1, 0, 2])[0].tolist() == [[0.5, 19, 1], [27.75, 4, 2], [0, 0, 0]]
    assert plain.masks([]).shape == (0, 40, 64)


def test_keypoints_outside_the_image_are_not_seen() -> None:
    points = torch.tensor([[[-1.0, 4, 2], [32, 4, 2], [4, -0.5, 2], [4, 20.5, 2], [31, 20, 1], [0, 0, 2]]])
    for mirrored in (False, True):
        found = Placement.filling((20, 31), (40, 62), mirrored).keypoints(points, range(6))[0]
        assert found[:, 2].tolist() == [0, 0, 0, 0, 1, 2]  # the edge belongs to the image
        assert (found[:4] == 0).all()


def test_a_mask_that_covers_nothing_goes_with_its_box(tmp_path: Path) -> None:
    thin = _annotation(segmentation=[[2, 2, 30, 2.01, 30, 2]], bbox=[2, 2, 28, 5])
    split = _split(tmp_path, "masks", thin, _annotation(id=2))
    target = TrainingSet(split, Resolution(48, 64), (1,), seed=0, augmentation=ONE_SCALE)[0, 0].target
    assert len(split.boxes) == 2
    assert [len(target[name]) for name in ("boxes", "labels", "masks")] == [1, 1, 1]


def test_images_are_not_mirrored_where_sides_are_unknown(tmp_path: Path) -> None:
    unnamed = [{**CATEGORY, "keypoints": ["1", "2", "3"]}]
    split = _split(tmp_path, "keypoints", _annotation(), categories=unnamed)
    assert not split.scheme.flips
    data = TrainingSet(split, RESOLUTION, (1,), seed=1, augmentation=ONE_SCALE)
    x = {float(data[epoch, 0].target["keypoints"][0, 2, 0]) for epoch in range(6)}
    assert x == {20 * 128 / 64}


# --- the check ---


def test_the_check_knows_the_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _write(
        tmp_path, _annotation(), _annotation(id=2, segmentation=None, keypoints=[0] * 9, bbox=[1, 1, 9, 9], area=81)
    )
    kept = {
        task: check({"train": read_records(file, tmp_path, task=task)}, RESOLUTION, (1, 2)).splits[0].counts
        for task in ("boxes", "masks", "keypoints")
    }
    assert [each["boxes to learn from"] for each in kept.values()] == [2, 1, 2]
    assert kept["keypoints"]["keypoints of an object"] == 3
    assert kept["keypoints"]["keypoints with a label"] == 3
    assert kept["keypoints"]["objects without a labelled keypoint"] == 1
    command = ["data", "check", str(file), "--images", str(tmp_path), "--size", "96,128", "--k", "1", "--strict"]
    assert run(command) == 0
    assert run([*command, "--task", "keypoints"]) == 0
    assert run([*command, "--task", "masks"]) == 3
    assert "annotations without a usable segmentation" in capsys.readouterr().err
    assert run([*command, "--task", "dots"]) == 2


def test_the_demo_set_serves_all_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_demo(tmp_path / "demo", train=6, val=2)
    monkeypatch.setattr("msad_cli.data.layouts.demo.demo_folder", lambda: tmp_path / "demo")
    for task, name in (("boxes", "instances"), ("masks", "instances"), ("keypoints", "person_keypoints")):
        files = find_split("demo", "train", task=task)
        assert files.annotations.name == f"{name}_train2017.json"
        records = read_records(files.annotations, files.images, task=task)
        assert not records.problems
        split = read_split(files.annotations, files.images, task=task)
        target = TrainingSet(split, RESOLUTION, (1, 2), seed=0)[0, 0].target
        of_objects = {"boxes", "labels", task}
        assert set(target) == {*of_objects, "image"}
        assert len({len(target[name]) for name in of_objects}) == 1
    assert split.categories == ((CATEGORY_IDS["figure"], "figure"),)
    assert split.scheme.names == KEYPOINTS
    assert split.scheme.flip_pairs == ((1, 2), (3, 4))  # hands and feet
    assert split.scheme.skeleton == tuple((start - 1, end - 1) for start, end in SKELETON)


@pytest.mark.parametrize(
    ("folder", "task", "objects"),
    [
        pytest.param(*each, marks=pytest.mark.shared(each[0]))
        for each in (
            ("nuclei_dsb2018_coco", "masks", 13532),
            ("coco_slice", "masks", 368),
            ("glue_tubes_keypoints_coco", "keypoints", 185),
        )
    ],
)
def test_real_sets_are_read(folder: str, task: str, objects: int) -> None:
    """Objects as the README beside these sets counts them."""
    files = find_split(str(SHARED / folder), "train", task=task)
    split = read_split(files.annotations, files.images, task=task)
    assert (len(split.boxes), split.dropped) == (objects, 0)
    data = TrainingSet(split, Resolution(320, 480), (2,), seed=0, augmentation=ONE_SCALE)
    off = []
    for index in range(8):
        sample = data[0, index]
        boxes = sample.target["boxes"]
        owned = split.starts[index + 1] - split.starts[index]
        assert len(boxes) == owned
        if task == "keypoints":
            points = sample.target["keypoints"]
            assert (points[..., 2] == 2).all()
            low, high = points[..., :2] - boxes[:, None, :2], boxes[:, None, 2:] - points[..., :2]
            assert min(float(low.min()), float(high.min())) >= -2  # they lie in their boxes
            continue
        for box, mask in zip(boxes, sample.target["masks"], strict=True):
            rows, columns = mask.nonzero().unbind(1)
            tight = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            off.append(float((tight - box).abs().max()))
    # HR pixels. Some boxes of COCO are more than 3 pixels off their own masks, and corners of enlarged masks by one.
    assert np.median(off or [0]) <= 1.5


def test_masks_of_images_are_encoded_as_pycocotools_does() -> None:
    mask = _mask()
    assert encode_mask(mask) == rle.encode(np.asfortranarray(mask))


def test_damaged_rles_never_reach_pycocotools() -> None:
    # pycocotools reads past the end of a text that stops in the middle of a number, and writes what any text says.
    draw, mask = random.Random(0), _mask()
    good = _compressed(mask)["counts"]
    taken = 0
    for _ in range(3000):
        damaged = list(good)
        for _ in range(draw.randint(1, 3)):
            damaged[draw.randrange(len(damaged))] = chr(draw.randint(40, 120))
        text = "".join(damaged)[: draw.choice([None, draw.randint(0, len(good))])]
        segmentation = read_segmentation({"size": list(mask.shape), "counts": text})
        if isinstance(segmentation, dict):
            taken += 1
            assert decode(segmentation).shape == mask.shape
            assert np.array_equal(rle.decode({"size": list(mask.shape), "counts": text.encode()}), decode(segmentation))
    assert 0 < taken < 300  # a few changes cancel each other, or change nothing


@pytest.mark.parametrize(
    ("masks", "points", "task", "expected"),
    [
        (2, [], "boxes", "msad teacher --detector maskrcnn"),  # of three objects; msad fit refuses that flag
        (1, [], "boxes", ""),
        (2, ["nose"], "boxes", "msad teacher --detector keypointrcnn"),
        (3, [], "masks", ""),
    ],
)
def test_what_a_detector_leaves_unread_is_named(
    masks: int, points: list[str], task: str, expected: str, tmp_path: Path
) -> None:
    polygon = [[10, 10, 30, 10, 20, 30]]
    objects = [
        {
            "id": i,
            "image_id": 1,
            "category_id": 1,
            "bbox": [10, 10, 20, 20],
            "segmentation": polygon if i < masks else [],
        }
        for i in range(3)
    ]
    image = {"id": 1, "file_name": "a.png", "width": 64, "height": 48}
    document = {
        "images": [image],
        "annotations": objects,
        "categories": [{"id": 1, "name": "red", **({"keypoints": points} if points else {})}],
    }
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(document))
    said = read_records(file, tmp_path, task=task).unused()
    assert expected in said
    assert bool(said) is bool(expected)
