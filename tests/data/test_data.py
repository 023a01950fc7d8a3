"""From annotation files to batches: what is read, where boxes lie in every view, and that batches can be repeated."""

import json
import multiprocessing
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps
from support.places import SHARED
from torch.utils.data import DataLoader

from msad_cli.data.annotations.split import CocoSplit, read_split
from msad_cli.data.images.scaled import ScaledImage, whole_image
from msad_cli.data.layouts.base import Files
from msad_cli.data.layouts.splits import find_split
from msad_cli.data.loading.augment import JITTER, ONE_SCALE, Augmentation
from msad_cli.data.loading.dataset import (
    Batch,
    EvaluationSet,
    Sample,
    TrainingSet,
    evaluation_loader,
    tolerate,
    training_loader,
)
from msad_cli.data.loading.sampler import StepSampler, same_place
from msad_cli.data.loading.transforms import Placement, from_frame, render, to_frame
from msad_cli.errors import DataError, TrainingError, UsageError
from msad_cli.frame import Resolution

RESOLUTION = Resolution(64, 96)

ROBUSTNESS = SHARED / "robustness_images"

# Python 3.12 and 3.13 warn of every fork beside a thread. Torch has threads, and forks its loader workers all the same.
forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def train_file(coco_folder: Path) -> Path:
    return coco_folder / "annotations" / "instances_train2017.json"


@pytest.fixture
def train(coco_folder: Path, train_file: Path) -> CocoSplit:
    return read_split(train_file, coco_folder / "train2017")


# --- reading ---


def test_read_split_keeps_ids_outside_and_places_inside(train: CocoSplit) -> None:
    # From the tables of conftest.py: images in the order of the file, each with its boxes in the order of the file;
    # classes by ascending id, 7 before 90, whatever their order in the file. Corners are x, y, x + w, y + h.
    assert len(train) == 4
    assert train.image_ids.tolist() == [30, 10, 20, 40]
    assert train.file_names.tolist() == ["a.png", "b.png", "c.png", "sub/d.png"]
    assert train.categories == ((7, "red"), (90, "blue"))
    assert train.boxes.tolist() == [[40, 20, 56, 40], [8, 8, 24, 20], [0, 0, 20, 16], [50, 30, 64, 48]]
    assert train.labels.tolist() == [2, 1, 1, 1]
    assert train.starts.tolist() == [0, 2, 3, 3, 4]  # the third image has none
    assert (train.crowds, train.dropped) == (1, 1)  # the crowd region of image 10, the box without width of image 40
    assert [each.dtype.name for each in (train.boxes, train.labels, train.starts)] == ["float32", "int64", "int64"]


def test_labels_follow_the_classes_of_an_existing_model(coco_folder: Path, train_file: Path) -> None:
    classes = [(90, "Blue "), (5, "other"), (7, "red")]  # names may differ in case and space
    split = read_split(train_file, coco_folder / "train2017", classes)
    assert split.categories == tuple(classes)
    assert split.labels.tolist() == [1, 3, 3, 3]  # 90 is the model's first class, 7 its third
    with pytest.raises(DataError, match=r"that are not known: annotation 2 has category 90 \(one of 3\)") as caught:
        read_split(train_file, coco_folder / "train2017", [(7, "red")])
    assert caught.value.hint == "known are 7 (red)"
    with pytest.raises(DataError, match="category 90 is 'blue' here, but 'azure' where it was learnt"):
        read_split(train_file, coco_folder / "train2017", [(7, "red"), (90, "azure")])


def test_file_names_take_no_more_memory_than_their_letters(train_file: Path, tmp_path: Path) -> None:
    document = json.loads(train_file.read_text())
    document["images"][1]["file_name"] = "b" * 4096
    train_file.write_text(json.dumps(document))
    (tmp_path / "empty").mkdir()
    names = read_split(train_file, tmp_path / "empty").file_names
    assert names.itemsize == 16  # of a StringDType, whatever the longest name is; 4 × 4096 as fixed-width text
    assert names.tolist() == ["a.png", "b" * 4096, "c.png", "sub/d.png"]


def test_boxes_that_are_not_finite_are_dropped_and_counted(train_file: Path) -> None:
    document = json.loads(train_file.read_text())
    bad = ([np.nan, 0, 5, 5], [0, 0, np.inf, 5], [0, 1e300, 5, 5], [0, 0, 5, -5])
    document["annotations"] += [{"id": 9, "image_id": 30, "category_id": 7, "bbox": box} for box in bad]
    train_file.write_text(json.dumps(document))
    split = read_split(train_file, train_file.parent)
    assert split.dropped == 1 + len(bad)
    assert len(split.boxes) == 4


def _set(name: str, place: int, **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document[name][place].update(fields)


def _delete(name: str, place: int, field: str) -> Callable[[dict[str, Any]], None]:
    return lambda document: document[name][place].pop(field)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("annotations", 4, category_id=8), "not known: annotation 5 has category 8"),
        (_set("annotations", 4, image_id=99), "not listed: annotation 5 is of image 99"),
        (_delete("annotations", 4, "bbox"), "annotations, record 5, id 5: bbox None"),
        (_set("annotations", 4, bbox=[1, 2, 3]), "annotations, record 5, id 5: bbox [1, 2, 3]"),
        (_set("annotations", 4, bbox=["a", 2, 3, 4]), "annotations, record 5, id 5: bbox ['a', 2, 3, 4]"),
        (_set("annotations", 4, bbox="1234"), "annotations, record 5, id 5: bbox '1234'"),
        (_set("annotations", 4, bbox=[10**400, 2, 3, 4]), "annotations, record 5, id 5: bbox ["),
        (_set("annotations", 4, image_id=None), "annotations, record 5: image_id None"),
        (lambda document: document["annotations"].append([]), "annotations, record 7: not an object: []"),
        (lambda document: document["images"].append(5), "images, record 5: not an object: 5"),
        (_delete("images", 1, "file_name"), "image 10: file_name None is no text"),
        (_set("images", 1, id=10**30), "annotation 1 is of image 10"),
        (_set("images", 1, id=2**63), "annotation 1 is of image 10"),
        (_set("images", 1, id=12.5), "images, record 2: id 12.5"),
        (_set("images", 1, id=True), "images, record 2: id True"),
        (_set("images", 1, id="abc"), "annotation 1 is of image 10"),
        (_set("images", 1, id=float("nan")), "images, record 2: id nan"),
        (_set("images", 1, id=30), "images: id 30 stands 2 times"),
        (_set("images", 1, id="30"), "images: id 30 stands 2 times"),
        (_set("categories", 0, id=7), "categories: id 7 stands 2 times"),
        (_delete("categories", 0, "name"), "categories, record 1: no name: {'id': 90}"),
        (lambda document: document["images"].clear(), "no images"),
        (lambda document: document.pop("annotations"), "no list 'annotations'"),
        (lambda document: document.update(categories={"id": 1}), "no list 'categories'"),
    ],
)
def test_malformed_records_are_named(train_file: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    document = json.loads(train_file.read_text())
    change(document)
    train_file.write_text(json.dumps(document))
    with pytest.raises(DataError) as caught:
        read_split(train_file, train_file.parent)
    assert caught.value.message.startswith(f"{train_file}: ")
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # The brace stands where a value or the end of the list should: 17 characters of line 2 precede it.
        (b'{"images": [],\n "annotations": [}', "broken JSON at line 2, column 18"),
        (b"", "broken JSON at line 1, column 1"),
        (b"\xff\xfe\xfd", "not a JSON text"),
        (b'{"images": ' + b"9" * 5000 + b"}", "not a JSON text"),  # beyond Python's limit of digits
        (b"[" * 100_000, "not a JSON text"),
        (b"[]", "no list 'images'"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "instances.json"
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_split(file, tmp_path)
    assert caught.value.message.startswith(f"{file}: ")
    assert message in caught.value.message


def test_files_that_cannot_be_opened_are_named(tmp_path: Path, train_file: Path) -> None:
    with pytest.raises(DataError, match=r"no such annotation file: .*nothing\.json"):
        read_split(tmp_path / "nothing.json", tmp_path)
    with pytest.raises(DataError, match="a folder where an annotation file was expected"):
        read_split(tmp_path, tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        read_split(train_file / "below-a-file.json", tmp_path)


# --- layouts ---


def test_coco_folder_is_recognised(coco_folder: Path) -> None:
    for split in ("train", "val"):
        name = f"instances_{split}2017.json"
        expected = Files(
            coco_folder / "annotations" / name, coco_folder / f"{split}2017", f"COCO folder ({name})", root=coco_folder
        )
        assert find_split(str(coco_folder), split) == expected


def test_images_may_lie_under_images_and_annotations_be_of_keypoints(coco_folder: Path) -> None:
    (coco_folder / "images").mkdir()
    (coco_folder / "train2017").rename(coco_folder / "images" / "train2017")
    annotations = coco_folder / "annotations"
    (annotations / "instances_train2017.json").rename(annotations / "person_keypoints_train2017.json")
    found = find_split(str(coco_folder), "train")
    assert found.annotations == annotations / "person_keypoints_train2017.json"
    assert found.images == coco_folder / "images" / "train2017"


def test_the_word_demo_is_the_built_in_set(coco_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msad_cli.data.layouts.demo.demo_folder", lambda: coco_folder)
    found = find_split("demo", "train")
    assert found.recognised == "the built-in demo set"
    assert found.images == coco_folder / "train2017"


def test_paths_take_the_place_of_what_is_found(coco_folder: Path, tmp_path: Path) -> None:
    assert find_split(None, "val", tmp_path / "a.json", tmp_path).annotations == tmp_path / "a.json"
    assert find_split(str(coco_folder), "val", tmp_path / "a.json").images == coco_folder / "val2017"
    with pytest.raises(UsageError, match="no data given"):
        find_split(None, "val", tmp_path / "a.json")
    # As the hints of the errors say, they help where nothing or too much is found.
    (coco_folder / "val2017").rename(coco_folder / "elsewhere")
    found = find_split(str(coco_folder), "val", images=coco_folder / "elsewhere")
    assert found.annotations.name == "instances_val2017.json"
    (coco_folder / "annotations" / "instances_train2018.json").touch()
    own = coco_folder / "annotations" / "instances_train2017.json"
    assert find_split(str(coco_folder), "train", own).images == coco_folder / "train2017"


def test_what_is_no_set_is_named(coco_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        find_split(str(tmp_path / "nowhere"), "train")
    with pytest.raises(DataError, match="a file, not a folder"):
        find_split(str(coco_folder / "train2017" / "a.png"), "train")
    with pytest.raises(DataError, match="no annotations/instances_train"):
        find_split(str(coco_folder / "train2017"), "train")
    (coco_folder / "val2017").rename(tmp_path / "elsewhere")
    assert find_split(str(coco_folder), "train").images.is_dir()  # a split does not need the other one
    with pytest.raises(DataError, match="no folder val2017/"):
        find_split(str(coco_folder), "val")
    (coco_folder / "annotations" / "instances_train2018.json").touch()
    with pytest.raises(DataError, match=r"for train: instances_train2017\.json, instances_train2018\.json"):
        find_split(str(coco_folder), "train")


# --- frames and views ---


@pytest.mark.parametrize(
    ("original", "scale", "expected"),
    [
        # (height, width); the short side decides: 800 × 1066.7, whose width is rounded to a multiple of 4.
        ((480, 640), 1.0, (800, 1068)),
        ((640, 480), 1.0, (1068, 800)),
        # The long side would be 1422: 1333 / 1920 = 0.694 decides, 749.8 × 1333.
        ((1080, 1920), 1.0, (748, 1332)),
        # Jitter shrinks the short side's target: 640 × 853.3.
        ((480, 640), 0.8, (640, 852)),
        # A panorama: 66.65 × 1333, where jitter changes nothing.
        ((200, 4000), 0.8, (68, 1332)),
        ((1, 1), 1.0, (800, 800)),
        # 0.07 × 1333: no side vanishes.
        ((1, 20000), 1.0, (4, 1332)),
    ],
)
def test_frame_sizes(original: tuple[int, int], scale: float, expected: tuple[int, int]) -> None:
    assert Resolution(800, 1333).frame_size(*original, scale=scale) == expected


def test_frames_are_multiples_of_4_within_their_limits() -> None:
    draw = random.Random(0)
    for _ in range(500):
        height, width = draw.randint(1, 3000), draw.randint(1, 3000)
        size = RESOLUTION.frame_size(height, width, scale=draw.choice(JITTER))
        assert all(side % 4 == 0 and side >= 4 for side in size)
        # Rounding to a multiple of 4 moves a side by 2 at most.
        assert min(size) <= RESOLUTION.short_side + 2
        assert max(size) <= RESOLUTION.long_side + 2


def test_boxes_return_from_the_frame() -> None:
    boxes = torch.tensor([[1.0, 2.0, 30.5, 40.0], [0.0, 0.0, 50.0, 37.0]])
    original, frame_size = (37, 50), (64, 88)
    framed = to_frame(boxes, original, frame_size)
    assert framed[1].tolist() == pytest.approx([0, 0, 88, 64])  # the whole image is the whole frame: x wide, y high
    torch.testing.assert_close(from_frame(framed, original, frame_size), boxes)


Shown = tuple[dict[int, torch.Tensor], torch.Tensor, torch.Tensor, Placement]


def training_views(
    image: ScaledImage,
    boxes: torch.Tensor,
    resolution: Resolution,
    ks: Sequence[int],
    jitter: bool,
    draw: random.Random,
) -> Shown:
    """Views, boxes, which boxes are kept, and the way of an image in training."""
    way = Augmentation(jitter=jitter).whole(image.size, resolution, draw)
    framed, kept, _ = way.boxes(boxes)
    return {k: way.view(image, k, "centre") for k in ks}, framed, kept, way


def _draws(flip: bool) -> random.Random:
    """A source whose first draw, which decides on the flip, is as asked."""
    seed = next(seed for seed in range(100) if (random.Random(seed).random() < 0.5) is flip)
    return random.Random(seed)


def _noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_flipping_twice_changes_nothing() -> None:
    image, boxes = _noise(50, 37), torch.tensor([[3.0, 4.0, 20.0, 30.0], [25.0, 0.0, 50.0, 9.0]])
    mirrored = boxes.clone()
    mirrored[:, [0, 2]] = 50 - boxes[:, [2, 0]]
    plain_scaled, mirror = whole_image(image), whole_image(ImageOps.mirror(image))
    plain = training_views(plain_scaled, boxes, RESOLUTION, (1, 2), False, _draws(flip=False))
    twice = training_views(mirror, mirrored, RESOLUTION, (1, 2), False, _draws(flip=True))
    assert torch.equal(plain[1], twice[1])
    assert all(torch.equal(plain[0][k], twice[0][k]) for k in (1, 2))
    flipped = training_views(plain_scaled, boxes, RESOLUTION, (1,), False, _draws(flip=True))
    assert not torch.equal(plain[1], flipped[1])


@pytest.mark.parametrize("seed", range(8))
def test_boxes_lie_on_their_pixels_in_every_view(seed: int) -> None:
    # One white rectangle, off centre, in a black image of 64×48. In a view downsampled by k its white pixels have to
    # span the box / k; an edge between two pixels may fall on either side, hence one pixel of tolerance.
    image = Image.new("RGB", (64, 48))
    ImageDraw.Draw(image).rectangle((6, 10, 29, 33), fill="white")
    boxes = torch.tensor([[6.0, 10.0, 30.0, 34.0]])
    views, framed, kept, way = training_views(
        whole_image(image), boxes, Resolution(96, 128), (1, 2, 4), True, random.Random(seed)
    )
    assert kept.tolist() == [True]
    for k, view in views.items():
        assert tuple(view.shape) == (3, way.frame_size[0] // k, way.frame_size[1] // k)
        assert view.dtype == torch.uint8
        rows, columns = np.nonzero(view.numpy().mean(axis=0) >= 128)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert found == pytest.approx((framed[0] / k).tolist(), abs=1.0)


def test_seeds_of_the_test_above_cover_both_directions_and_several_sizes() -> None:
    draws = [random.Random(seed) for seed in range(8)]
    assert {draw.random() < 0.5 for draw in draws} == {True, False}
    assert len({draw.choice(JITTER) for draw in draws}) >= 3


def test_boxes_are_clipped_and_slivers_left_out() -> None:
    # Resolution 64 on an image of 64×64: one HR pixel is one pixel.
    boxes = torch.tensor([[-9.0, -9, 20, 20], [63.5, 0, 90, 9], [70, 0, 90, 9], [1, 1, 2, 2]])
    image = whole_image(Image.new("RGB", (64, 64)))
    views = training_views(image, boxes, RESOLUTION, (2,), False, _draws(flip=False))
    assert views[1].tolist() == [[0, 0, 20, 20], [1, 1, 2, 2]]
    assert views[2].tolist() == [True, False, False, True]
    assert boxes[0].tolist() == [-9, -9, 20, 20]  # the caller's boxes stay as they were


def test_training_and_evaluation_see_the_same_low_pixels(train: CocoSplit) -> None:
    _noise(50, 37).save(train.folder / "a.png")
    image = _noise(50, 37)
    seen = training_views(whole_image(image), torch.zeros(0, 4), RESOLUTION, (1, 2), False, _draws(flip=False))[0][2]
    sample = EvaluationSet(train, RESOLUTION, (2,))[0]
    assert sample.frame_size == (64, 88)  # 37 × 50 enlarged by 64 / 37: 64 × 86.5
    assert tuple(seen.shape) == (3, 32, 44)
    assert torch.equal(seen, sample.views[2])
    assert torch.equal(seen, render(whole_image(image), (64, 88), 2))


# --- samples and batches ---


def test_steps_are_permutations_without_the_remainder() -> None:
    # 10 images in batches of 3: 3 steps an epoch, one image left over.
    steps = list(StepSampler(10, 3, seed=1, first_step=0, last_step=12))
    assert len(steps) == 12
    epochs = [[key for step in steps[i : i + 3] for key in step] for i in range(0, 12, 3)]
    for number, keys in enumerate(epochs):
        assert {epoch for epoch, _ in keys} == {number}
        places = [place for _, place in keys]
        assert len(set(places)) == 9
        assert set(places) <= set(range(10))
    assert len({tuple(place for _, place in keys) for keys in epochs}) == 4  # no two epochs alike
    assert list(StepSampler(10, 3, seed=2, first_step=0, last_step=12)) != steps


@pytest.mark.parametrize("first", [1, 3, 5, 11, 12])
def test_starting_later_gives_the_tail(first: int) -> None:
    whole = list(StepSampler(10, 3, seed=1, first_step=0, last_step=12))
    later = StepSampler(10, 3, seed=1, first_step=first, last_step=12)
    assert list(later) == whole[first:]
    assert len(later) == 12 - first


def _assert_same(left: Sample, right: Sample) -> None:
    assert (left.index, left.original, left.frame_size) == (right.index, right.original, right.frame_size)
    assert left.views.keys() == right.views.keys()
    assert left.target.keys() == right.target.keys()
    assert all(torch.equal(left.views[k], right.views[k]) for k in left.views)
    assert all(torch.equal(left.target[name], right.target[name]) for name in left.target)


def test_a_sample_depends_on_its_key_and_the_seed_alone(train: CocoSplit) -> None:
    data = TrainingSet(train, RESOLUTION, (1, 2), seed=3)
    keys = [(epoch, index) for epoch in range(6) for index in range(4)]
    there = {key: data[key] for key in keys}
    random.seed(99)
    torch.manual_seed(99)
    for key in reversed(keys):
        _assert_same(data[key], there[key])
    assert len({there[epoch, 0].frame_size for epoch in range(6)}) > 1  # jitter draws anew each epoch
    other = TrainingSet(train, RESOLUTION, (1, 2), seed=4)
    assert [other[key].frame_size for key in keys] != [there[key].frame_size for key in keys]


def test_training_leaves_the_split_as_it_was(train: CocoSplit) -> None:
    before = train.boxes.copy()
    data = TrainingSet(train, RESOLUTION, (1, 2), seed=0)
    for epoch in range(4):
        assert len(data[epoch, 0].target["boxes"]) == 2
    assert np.array_equal(train.boxes, before)


def test_labels_stay_with_their_boxes(train: CocoSplit) -> None:
    # The first box of the first image, the blue one, is pushed out of it: the red one has to keep its label.
    # HR frames of these images have 84 × 64 pixels, as below.
    train.boxes[0] += 1000
    target = TrainingSet(train, RESOLUTION, (2,), seed=0, augmentation=ONE_SCALE)[0, 0].target
    assert target["labels"].tolist() == [1]
    assert (target["boxes"][0, 2:] - target["boxes"][0, :2]).tolist() == pytest.approx([16 * 84 / 64, 12 * 64 / 48])


def test_a_batch_holds_views_by_reduction(train: CocoSplit) -> None:
    data = TrainingSet(train, RESOLUTION, (1, 2), seed=0, augmentation=ONE_SCALE)
    batch = Batch((data[0, 1], data[0, 2]))
    assert batch.indices == (1, 2)
    # 48 × 64 enlarged by 64 / 48: 64 × 85.3
    assert {k: [tuple(view.shape) for view in views] for k, views in batch.views.items()} == {
        1: [(3, 64, 84), (3, 64, 84)],
        2: [(3, 32, 42), (3, 32, 42)],
    }
    assert [len(target["labels"]) for target in batch.targets] == [1, 0]


@forks
def test_workers_change_nothing(train: CocoSplit) -> None:
    data = TrainingSet(train, RESOLUTION, (1, 2), seed=5)
    alone, helped = (list(training_loader(data, 2, workers, 1, 5)) for workers in (0, 1))
    assert len(alone) == len(helped) == 4
    for left, right in zip(alone, helped, strict=True):
        for mine, other in zip(left.samples, right.samples, strict=True):
            _assert_same(mine, other)


def test_a_pinned_batch_is_the_same_in_other_memory(train: CocoSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only with a GPU is there page-locked memory; two views, boxes, labels and the place of two images go there."""
    pinned: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    (batch,) = training_loader(TrainingSet(train, RESOLUTION, (1, 2), seed=0, augmentation=ONE_SCALE), 2, 0, 0, 1)
    moved = Batch(batch.samples, {9: "torn"}).pin_memory()
    assert len(pinned) == 2 * 5
    assert moved.unreadable == {9: "torn"}
    for mine, other in zip(moved.samples, batch.samples, strict=True):
        _assert_same(mine, other)
        held = {id(each) for each in pinned}
        assert {id(each) for each in (*mine.views.values(), *mine.target.values())} <= held


def test_evaluation_goes_through_the_split_in_order(train: CocoSplit) -> None:
    batches = list(evaluation_loader(EvaluationSet(train, RESOLUTION, (2,)), batch=3, workers=0))
    assert [[sample.index for sample in batch.samples] for batch in batches] == [[0, 1, 2], [3]]
    assert all(sample.target == {} for batch in batches for sample in batch.samples)


@forks
@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named_by_any_worker(train: CocoSplit, workers: int) -> None:
    broken = train.folder / "b.png"
    broken.write_text("no image")
    loaders: list[Iterator[Batch]] = [
        training_loader(TrainingSet(train, RESOLUTION, (2,), seed=0, augmentation=ONE_SCALE), 4, workers, 0, 1),
        evaluation_loader(EvaluationSet(train, RESOLUTION, (2,)), 4, workers),
    ]
    for loader in loaders:
        batch = next(loader)
        assert sorted(batch.indices) == [0, 2, 3]
        assert list(batch.unreadable) == [1]
        assert str(broken) in batch.unreadable[1]


def test_one_percent_of_unreadable_images_is_passed_over(train: CocoSplit) -> None:
    many = replace(train, image_ids=np.arange(200))  # only its length counts
    tolerate({}, train)
    tolerate({3: "torn", 5: "empty"}, many)
    with pytest.raises(DataError, match=r"3 of 200 images of .* cannot be read, the last: no image"):
        tolerate({3: "torn", 5: "empty", 9: "no image"}, many)


@pytest.mark.parametrize(
    ("step", "before", "now", "expected"),
    [
        (0, 4, 2, 0),
        (7, 4, 4, 7),
        (7, 4, 2, 14),  # 25 images: 6 steps an epoch of 4, 12 of 2. One epoch and 4 images: 12 + 2
        (7, 4, 3, 9),  # 8 steps an epoch of 3: 8 + 4 // 3, so that one image is seen twice
        (12, 4, 2, 24),  # the end of an epoch stays one
        (11, 4, 25, 1),  # 20 images of the second epoch, which has a single step now
    ],
)
def test_another_batch_goes_on_at_the_same_images(step: int, before: int, now: int, expected: int) -> None:
    assert same_place(step, 25, before, now) == expected


@forks
def test_a_killed_worker_is_named(train: CocoSplit) -> None:
    loader = training_loader(TrainingSet(train, RESOLUTION, (2,), seed=0, augmentation=ONE_SCALE), 2, 1, 0, 1000)
    next(loader)
    (worker,) = multiprocessing.active_children()
    worker.kill()
    with pytest.raises(TrainingError, match="a loader process died") as caught:
        list(loader)
    assert "--workers 0" in caught.value.hint


@pytest.mark.shared("robustness_images")
def test_odd_images_are_left_out_of_their_batches(train: CocoSplit) -> None:
    """Torn, empty, huge and strange files: all that can be read arrives, for the rest there is a reason."""
    entries = {Path(entry["file"]).name: entry for entry in json.loads((ROBUSTNESS / "manifest.json").read_text())}
    names = np.array(list(entries), dtype=train.file_names.dtype)
    starts = np.zeros(len(names) + 1, dtype=np.int64)
    odd = replace(train, folder=ROBUSTNESS, file_names=names, image_ids=np.arange(len(names)), starts=starts)
    batches = list(training_loader(TrainingSet(odd, RESOLUTION, (1, 2), seed=0, augmentation=ONE_SCALE), 6, 0, 0, 11))
    read = {str(names[i]) for batch in batches for i in batch.indices}
    unreadable = {str(names[i]) for batch in batches for i in batch.unreadable}
    assert read | unreadable == entries.keys()
    assert {name for name, entry in entries.items() if entry["expect"] == "must load"} <= read
    assert {name for name, entry in entries.items() if "must be reported" in entry["expect"]} <= unreadable


def test_loaders_leave_the_global_random_numbers_alone(train: CocoSplit) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    list(evaluation_loader(EvaluationSet(train, RESOLUTION, (2,)), batch=3, workers=0))
    assert torch.rand(1) == expected


def test_a_signal_waits_until_the_loader_stands(train: CocoSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    stands = []

    def interrupted(_: DataLoader[Any]) -> Iterator[Any]:
        signal.raise_signal(signal.SIGINT)
        stands.append(True)
        return iter(())

    monkeypatch.setattr(DataLoader, "__iter__", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        list(evaluation_loader(EvaluationSet(train, RESOLUTION, (2,)), batch=3, workers=0))
    assert stands == [True]
    assert signal.getsignal(signal.SIGINT) is before
