"""`--augment`: boxes, masks and keypoints lie on their pixels whatever is drawn, and all views show the same."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms import v2

from msad_cli.data.annotations.segmentation import decode, encode
from msad_cli.data.annotations.split import CocoSplit, read_split
from msad_cli.data.images.scaled import open_image, whole_image
from msad_cli.data.loading.augment import JITTER, LEVELS, Augmentation, Photo, tiles
from msad_cli.data.loading.dataset import Fetched, Sample, TrainingSet, Unreadable, training_loader
from msad_cli.data.loading.pieces import GREY
from msad_cli.data.loading.transforms import Placement
from msad_cli.frame import Phase, Resolution, view_shift

# Python 3.12 and 3.13 warn of every fork beside a thread. Torch has threads, and forks its loader workers all the same.
forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

RESOLUTION = Resolution(96, 160)
KS = (1, 2, 4)
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255), (255, 255, 255)]
"""One a class; a pixel is of the class whose channels are on the same side of 128. Grey and black are of none."""
SIZES = [(64, 48), (48, 64), (96, 64), (60, 60), (50, 80), (64, 64), (120, 64)]
"""Width and height of each image, in pixels."""
BOXES = [
    (8, 10, 20, 24),
    (20, 4, 26, 12),
    (30, 30, 30, 20),
    (2, 2, 30, 10),
    (20, 40, 20, 30),
    (40, 10, 20, 40),
    (60, 8, 50, 30),
]
"""x, y, width and height of the one rectangle that each has."""
NAMES = ["left_hand", "right_hand", "head"]
PARTS = {
    "fliplr": Augmentation(jitter=False, fliplr=1.0),
    "flipud": Augmentation(jitter=False, fliplr=0.0, flipud=1.0),
    "turn": Augmentation(jitter=False, fliplr=0.0, turn=1.0),
    "crop": Augmentation(jitter=False, fliplr=0.0, zoom=(1.2, 2.0)),
    "pad": Augmentation(jitter=False, fliplr=0.0, zoom=(0.4, 0.9)),
    "mosaic": Augmentation(jitter=False, fliplr=0.0, mosaic=1.0),
    "all": Augmentation(flipud=0.5, turn=0.5, zoom=(0.4, 2.0), mosaic=0.5),
}
PLAIN_MIXUP = Augmentation(jitter=False, fliplr=0.0, mixup=1.0)
STRONG = replace(LEVELS["strong"], flipud=0.5, turn=0.5)
SEEDS = range(20)


def drawn(folder: Path, task: str = "boxes") -> CocoSplit:
    """Seven images of one rectangle each, by class, or of an L (masks), or of three dots (keypoints)."""
    images, annotations = [], []
    for i, (width, height) in enumerate(SIZES):
        x, y, w, h = (1, 1, width - 2, height - 2) if task == "keypoints" else BOXES[i]
        image = Image.new("RGB", (width, height))
        pen = ImageDraw.Draw(image)
        ring = [x, y, x + w, y, x + w, y + h // 2, x + w // 2, y + h // 2, x + w // 2, y + h, x, y + h]
        dots = [(width // 4, height // 3), (3 * width // 4, height // 3), (width // 2, 2 * height // 3)]
        if task == "boxes":
            pen.rectangle((x, y, x + w - 1, y + h - 1), fill=COLOURS[i])
        elif task == "masks":
            pen.rectangle((x, y, x + w - 1, y + h // 2 - 1), fill=COLOURS[i])
            pen.rectangle((x, y, x + w // 2 - 1, y + h - 1), fill=COLOURS[i])
        else:
            for (a, b), colour in zip(dots, COLOURS, strict=False):
                pen.rectangle((a - 3, b - 3, a + 2, b + 2), fill=colour)
        image.save(folder / f"{i}.png")
        images.append({"id": i + 1, "file_name": f"{i}.png", "width": width, "height": height})
        annotations.append(
            {"id": i + 1, "image_id": i + 1, "category_id": i + 1, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
            | {"segmentation": [ring], "keypoints": [n for a, b in dots for n in (a, b, 2)], "num_keypoints": 3}
        )
    categories = [{"id": i + 1, "name": f"class {i}", "keypoints": NAMES} for i in range(len(SIZES))]
    file = folder / f"{task}.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return read_split(file, folder, task=task)


def samples(split: CocoSplit, augmentation: Augmentation, count: int = len(SEEDS)) -> Iterator[Sample]:
    data = TrainingSet(split, RESOLUTION, KS, 5, augmentation)
    yield from (data[epoch, epoch % len(split)] for epoch in range(count))


def of_class(view: Tensor, label: int) -> Tensor:
    """(h, w) bool: where a view has the colour of a class."""
    wanted = torch.tensor(COLOURS[label - 1])[:, None, None] > 0
    return ((view >= 128) == wanted).all(dim=0)


def extent(found: Tensor) -> list[int]:
    rows, columns = found.nonzero().unbind(1)
    return [int(n) for n in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


# --- where things lie ---


@pytest.mark.parametrize("part", PARTS)
def test_boxes_lie_on_their_pixels_in_every_view(tmp_path: Path, part: str) -> None:
    """The rectangle of a class is found by its colour. A box is there if a tenth of the rectangle is."""
    split, seen, gone = drawn(tmp_path), 0, 0
    for sample in samples(split, PARTS[part]):
        shown = [sample.index, *sample.others]
        boxes = dict(zip(sample.target["labels"].tolist(), sample.target["boxes"].tolist(), strict=True))
        assert {label - 1 for label in boxes} <= set(shown)
        for index in set(shown):
            if shown.count(index) > 1:
                continue  # two rectangles of one colour
            found = of_class(sample.views[1], index + 1)
            if index + 1 not in boxes:
                gone += 1
                # At 0.4 of the size no rectangle has less than 200 HR pixels; a tenth of the largest has 600.
                assert int(found.sum()) < 600
                continue
            seen += 1
            for k, view in sample.views.items():
                assert tuple(view.shape) == (3, sample.frame_size[0] // k, sample.frame_size[1] // k)
                inside = of_class(view, index + 1)
                box = [side / k for side in boxes[index + 1]]
                if min(box[2] - box[0], box[3] - box[1]) >= 2:  # a pixel that is half covered is of neither colour
                    assert extent(inside) == pytest.approx(box, abs=1.0)
    assert seen >= 18
    # Of an image of its own size a tile shows a quarter, half its sides being the frame's.
    assert gone <= (seen if part == "mosaic" else seen / 3)
    if part in ("crop", "mosaic", "all"):
        assert gone > 0


def test_boxes_by_hand() -> None:
    """An image of 40 × 60 pixels (height, width) with a box from (5, 10) to (25, 16)."""
    box = torch.tensor([[5.0, 10, 25, 16]])

    def placed(**changes: Any) -> list[float]:
        way = replace(Placement.filling((40, 60), (40, 60)), **changes)
        return [float(n) for n in way.boxes(box)[0].flatten()]

    assert placed() == [5, 10, 25, 16]
    assert placed(mirrored=True) == [60 - 25, 10, 60 - 5, 16]
    assert placed(upended=True) == [5, 40 - 16, 25, 40 - 10]
    on_its_side: dict[str, Any] = {"frame_size": (60, 40), "size": (60, 40), "tile": (0, 0, 60, 40)}
    assert placed(turns=1, **on_its_side) == [10, 60 - 25, 16, 60 - 5]  # to the left: its top is on the left
    assert placed(turns=2) == [60 - 25, 40 - 16, 60 - 5, 40 - 10]
    assert placed(turns=3, **on_its_side) == [40 - 16, 5, 40 - 10, 25]
    # Twice as large, its corner 12 above and 20 left of the frame's, of which columns 8 to 60 are left to it.
    large: dict[str, Any] = {"size": (80, 120), "corner": (-12, -20)}
    assert placed(**large) == [0, 8, 30, 20]  # from -10 to 30
    assert placed(**large, tile=(0, 8, 40, 60)) == [8, 8, 30, 20]
    # Of its width of 40, 4 are a tenth; a column less is too little.
    assert placed(**large, tile=(0, 26, 40, 60)) == [26, 8, 30, 20]
    assert placed(**large, tile=(0, 27, 40, 60)) == []
    # All of an image is shown: nothing is clipped, not even what float32 makes of 360 · (216 / 360).
    edge = Placement.filling((360, 360), (216, 216)).boxes(torch.tensor([[0.0, 300, 360, 360]]))[0]
    assert 216 < edge[0, 2] < 216.0001


@pytest.mark.parametrize("part", PARTS)
def test_masks_lie_on_their_pixels(tmp_path: Path, part: str) -> None:
    split, seen = drawn(tmp_path, "masks"), 0
    for sample in samples(split, PARTS[part]):
        target = sample.target
        assert tuple(target["masks"].shape[1:]) == sample.frame_size
        shown = [sample.index, *sample.others]
        for label, box, mask in zip(target["labels"].tolist(), target["boxes"], target["masks"], strict=True):
            if shown.count(label - 1) > 1:
                continue
            seen += 1
            pixels = of_class(sample.views[1], label)
            # Along an edge a pixel may be of either; around an L there are as many as around its box.
            assert (pixels != (mask > 0)).sum() <= 2 * float(box[2] - box[0] + box[3] - box[1]) + 8
            assert extent(mask) == pytest.approx(box.tolist(), abs=1.5)
    assert seen >= 15


@pytest.mark.parametrize("part", PARTS)
def test_keypoints_lie_on_their_dots_and_keep_their_names(tmp_path: Path, part: str) -> None:
    """The left hand is red and the right hand green, until a mirror makes each of them the other."""
    split, seen, hidden = drawn(tmp_path, "keypoints"), 0, 0
    data = TrainingSet(split, RESOLUTION, KS, 5, PARTS[part])
    for epoch in SEEDS:
        sample = data[epoch, epoch % len(split)]
        if sample.others:
            continue  # which of them is mirrored is not known here
        way = PARTS[part].whole(sample.original, RESOLUTION, random.Random(f"5/{epoch}/{sample.index}"))
        order = [1, 0, 2] if way.mirrored != way.upended else [0, 1, 2]
        for points in sample.target["keypoints"]:
            for place, (x, y, visibility) in zip(order, points.tolist(), strict=True):
                if not visibility:
                    hidden += 1
                    assert (x, y) == (0, 0)
                    continue
                seen += 1
                for k in (1, 2):
                    height, width = sample.views[k].shape[1:]
                    row, column = min(int(y / k), height - 1), min(int(x / k), width - 1)
                    assert of_class(sample.views[k], place + 1)[row, column]
    if part != "mosaic":
        assert seen >= 20
    if part == "crop":
        assert hidden >= 5


def test_keypoints_by_hand() -> None:
    """An image of 20 × 30 pixels, shown in rows 4 to 14 and columns 8 to 28 of a frame, at its own size.

    The second keypoint comes to column 29, the third one to row 22.
    """
    points = torch.tensor([[[5.0, 6, 2], [21, 6, 2], [12, 18, 1], [0, 0, 0]]])
    way = replace(Placement.filling((20, 30), (20, 30)), corner=(4, 8), tile=(4, 8, 14, 28))
    partners = [1, 0, 2, 3]
    assert way.keypoints(points, partners)[0].tolist() == [[13, 10, 2], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    turned = replace(Placement.filling((20, 30), (30, 20), turns=1))
    assert turned.keypoints(points, partners)[0].tolist() == [[6, 25, 2], [6, 9, 2], [18, 18, 1], [0, 0, 0]]
    upended = Placement.filling((20, 30), (20, 30), upended=True).keypoints(points, partners)[0]
    assert upended.tolist() == [[21, 14, 2], [5, 14, 2], [12, 2, 1], [0, 0, 0]]
    half_a_turn = Placement.filling((20, 30), (20, 30), mirrored=True, upended=True).keypoints(points, partners)
    assert torch.equal(half_a_turn, Placement.filling((20, 30), (20, 30), turns=2).keypoints(points, partners))


# --- pixels ---


@pytest.mark.parametrize("phase", get_args(Phase))
def test_light_is_what_it_was_to_the_last_bit(tmp_path: Path, phase: Phase) -> None:
    """Computed here as it was before there were others: the first draw mirrors, the second one scales."""
    for task in ("boxes", "masks", "keypoints"):
        split = drawn(tmp_path, task)
        data = TrainingSet(split, RESOLUTION, KS, 3, phase=phase)
        for epoch in range(6):
            index = epoch % len(split)
            sample, image = data[epoch, index], open_image(split.path(index))
            draw = random.Random(f"3/{epoch}/{index}")
            mirrored, (height, width) = draw.random() < 0.5, image.size
            frame = RESOLUTION.frame_size(height, width, scale=draw.choice(JITTER))
            assert sample.frame_size == frame
            for k in KS:
                shift = view_shift(k, phase)
                expected = image.resized((frame[0] // k, frame[1] // k), mirrored, (shift, shift))
                assert torch.equal(sample.views[k], expected)
            box = torch.from_numpy(split.boxes[index : index + 1]).clone()
            if mirrored:
                box[:, [0, 2]] = width - box[:, [2, 0]]
            down, across = frame[0] / height, frame[1] / width
            assert torch.equal(sample.target["boxes"], box * torch.tensor([across, down, across, down]))
            assert sample.target["image"].tolist() == [index, int(mirrored)]
            if task == "masks":
                mask = decode(encode(split.masks.segmentation(index), frame, (down, across)))
                assert np.array_equal(sample.target["masks"][0].numpy(), mask[:, ::-1] if mirrored else mask)
            if task == "keypoints":
                points = torch.from_numpy(split.keypoints[index]).clone()
                if mirrored:
                    points = points[[1, 0, 2]] * torch.tensor([-1, 1, 1]) + torch.tensor([width, 0, 0])
                assert torch.equal(sample.target["keypoints"][0], points * torch.tensor([across, down, 1]))


def smooth(height: int, width: int) -> Image.Image:
    """Blurred noise: an image whose low views have something to show."""
    noise = np.random.default_rng(height).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("phase", get_args(Phase))
@pytest.mark.parametrize("way", [(m, u, t) for m in (False, True) for u in (False, True) for t in range(4)])
def test_a_turned_view_is_the_view_of_the_turned_image(phase: Phase, way: tuple[bool, bool, int]) -> None:
    """To a rounding; what a view is shifted by the phase is shifted after the turn."""
    mirrored, upended, turns = way
    image = smooth(48, 80)
    other = image
    for wanted, step in ((mirrored, Image.Transpose.FLIP_LEFT_RIGHT), (upended, Image.Transpose.FLIP_TOP_BOTTOM)):
        other = other.transpose(step) if wanted else other
    other = other.rotate(90 * turns, expand=True)  # to the left, in Pillow
    frame = (96, 160) if turns % 2 == 0 else (160, 96)
    for k in KS:
        found = Placement.filling((48, 80), frame, mirrored, upended, turns).view(whole_image(image), k, phase)
        expected = Placement.filling((other.height, other.width), frame).view(whole_image(other), k, phase)
        assert (found.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("phase", get_args(Phase))
@pytest.mark.parametrize("photo", [0.0, 1.0])
def test_all_views_of_a_sample_show_the_same(tmp_path: Path, phase: Phase, photo: float) -> None:
    """A teacher's large view, shrunk, is its student's."""
    split = drawn(tmp_path)
    for index, (width, height) in enumerate(SIZES):
        smooth(height, width).save(split.path(index))
    strong = replace(STRONG, zoom=(0.5, 2.0), photo=photo)
    # A view that the phase moves has its own edges of tiles, half a pixel from those of the large one.
    augmentation = strong if phase == "centre" else replace(strong, zoom=(1.0, 2.0), mosaic=0.0)
    data = TrainingSet(split, RESOLUTION, KS, 0, augmentation, phase)
    mosaics = 0
    for epoch in range(12):
        sample = data[epoch, epoch % len(split)]
        mosaics += bool(sample.others)
        for k in KS[1:]:
            # Of the phase `grid`: centred on the first pixel of each block, and so on the mean of those around it.
            before = k // 2 if phase == "grid" else 0
            large = F.pad(sample.views[1].float(), (before, 0, before, 0), mode="replicate")
            low = sample.views[k].float()
            shrunk = F.avg_pool2d(large, k)[:, : low.shape[1], : low.shape[2]]
            assert torch.corrcoef(torch.stack([shrunk.flatten(), low.flatten()]))[0, 1] > 0.99
    assert 2 <= mosaics <= 10 if phase == "centre" else mosaics == 0


def test_around_a_small_image_is_grey(tmp_path: Path) -> None:
    split = drawn(tmp_path)
    for sample in samples(split, Augmentation(jitter=False, zoom=(0.5, 0.5)), 4):
        height, width = sample.frame_size
        for k, view in sample.views.items():
            grey = (view == torch.tensor(GREY)[:, None, None]).all(dim=0)
            assert int(grey.sum()) == (height * width - (height // 2 // 4 * 4) * (width // 2 // 4 * 4)) // k**2
    mean = torch.tensor([0.485, 0.456, 0.406])
    assert (torch.tensor(GREY) / 255 - mean).abs().max() < 0.5 / 255 + 1e-6


@pytest.mark.parametrize("contrast_first", [False, True])
def test_a_photometric_distortion_is_torchvisions(contrast_first: bool) -> None:
    pixels = torch.from_numpy(np.array(smooth(48, 64))).permute(2, 0, 1)
    photo = Photo(1.1, 0.7, 1.3, 0.04, contrast_first)
    parameters = {
        "brightness_factor": 1.1,
        "contrast_factor": 0.7,
        "saturation_factor": 1.3,
        "hue_factor": 0.04,
        "contrast_before": contrast_first,
        "channel_permutation": None,
    }
    expected = v2.RandomPhotometricDistort().transform(pixels, parameters)
    assert torch.equal(photo(pixels), expected)
    assert not torch.equal(expected, pixels)
    assert Photo()(pixels) is pixels


def test_colours_of_every_view_are_distorted_alike_and_the_grey_is_not(tmp_path: Path) -> None:
    split = drawn(tmp_path)
    for index, (width, height) in enumerate(SIZES):
        smooth(height, width).save(split.path(index))
    plain = Augmentation(zoom=(0.5, 0.5))
    distorted, changed = replace(plain, photo=1.0), 0
    for epoch in range(6):
        draw = random.Random(f"5/{epoch}/0")
        way = distorted.whole((48, 64), RESOLUTION, draw)
        distorted.draw_mosaic(epoch, draw)
        photo = distorted.draw_photo(draw)
        sample = TrainingSet(split, RESOLUTION, KS, 5, distorted)[epoch, 0]
        changed += photo != Photo()
        top, left, bottom, right = way.shown
        for k, view in TrainingSet(split, RESOLUTION, KS, 5, plain)[epoch, 0].views.items():
            own = (..., slice(top // k, bottom // k), slice(left // k, right // k))
            view[own] = photo(view[own])
            assert torch.equal(sample.views[k], view)
    assert changed >= 3


def test_so_are_those_of_a_mosaic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    views = []
    for photo in (Photo(), Photo(brightness=0.5)):
        monkeypatch.setattr(Augmentation, "draw_photo", lambda self, draw, photo=photo: photo)
        views.append(TrainingSet(drawn(tmp_path), RESOLUTION, KS, 5, PARTS["mosaic"])[0, 0].views)
    for k in KS:
        plain, dark = views[0][k], views[1][k]
        grey = (plain == torch.tensor(GREY)[:, None, None]).all(dim=0)
        assert 0 < grey.sum() < grey.numel()
        assert torch.equal(dark[:, ~grey], Photo(brightness=0.5)(plain)[:, ~grey])
        assert torch.equal(dark[:, grey], plain[:, grey])


def test_how_often_and_how_much_is_drawn() -> None:
    """Of 4000: standard deviations of a share are below 0.008."""
    draw, wish = random.Random(0), Augmentation(flipud=0.3, turn=0.6, zoom=(0.1, 2.0), photo=0.4)
    ways = [wish.whole((48, 64), RESOLUTION, draw) for _ in range(4000)]
    assert np.mean([way.mirrored for way in ways]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([way.upended for way in ways]) == pytest.approx(0.3, abs=0.03)
    for turns in (1, 2, 3):
        assert np.mean([way.turns == turns for way in ways]) == pytest.approx(0.2, abs=0.03)
    assert wish.zooms[0] == 0.1
    assert wish.zooms[-1] == pytest.approx(2.0)
    assert np.diff(wish.zooms) == pytest.approx([0.1] * 19)
    assert np.mean([way.size[0] / way.frame_size[0] for way in ways]) == pytest.approx(1.05, abs=0.03)
    photos = [wish.draw_photo(draw) for _ in range(4000)]
    assert np.mean([photo != Photo() for photo in photos]) == pytest.approx(0.4 * (1 - 0.5**4), abs=0.03)
    assert {0.5 <= photo.contrast <= 1.5 and abs(photo.hue) <= 0.05 for photo in photos} == {True}


@pytest.mark.parametrize("frame", [(96, 128), (4, 64), (8, 8), (100, 60)])
def test_tiles_cover_the_frame_once(frame: tuple[int, int]) -> None:
    draw = random.Random(0)
    for _ in range(20):
        cells = torch.zeros(frame, dtype=torch.int64)
        for top, left, bottom, right in tiles(frame, draw):
            assert {top % 4, left % 4, bottom % 4, right % 4} == {0}
            cells[top:bottom, left:right] += 1
        assert (cells == 1).all()


# --- samples ---


def assert_same(one: Sample, other: Sample) -> None:
    assert (one.index, one.frame_size, one.others) == (other.index, other.frame_size, other.others)
    assert all(torch.equal(one.views[k], other.views[k]) for k in KS)
    assert one.target.keys() == other.target.keys()
    assert all(torch.equal(one.target[name], other.target[name]) for name in one.target)


@forks
def test_a_sample_depends_on_its_key_and_the_seed_alone(tmp_path: Path) -> None:
    data = TrainingSet(drawn(tmp_path), RESOLUTION, KS, 5, STRONG)
    keys = [(epoch, index) for epoch in range(3) for index in range(7)]
    there = {key: data[key] for key in keys}
    torch.manual_seed(99)
    random.seed(99)
    before = torch.get_rng_state()
    for key in reversed(keys):
        assert_same(data[key], there[key])
    assert torch.equal(torch.get_rng_state(), before)  # nor does it move what others draw
    helped = [sample for batch in training_loader(data, 7, 2, 0, 3) for sample in batch.samples]
    epochs = [number // 7 for number in range(21)]
    for epoch, sample in zip(epochs, helped, strict=True):
        assert_same(sample, there[epoch, sample.index])
    assert {bool(sample.others) for sample in helped} == {False, True}


def test_mirror_and_jitter_are_the_same_whatever_else_is_drawn(tmp_path: Path) -> None:
    split = drawn(tmp_path)
    light = list(samples(split, LEVELS["light"]))
    more = list(samples(split, replace(LEVELS["light"], flipud=1.0, photo=1.0)))
    assert [each.frame_size for each in light] == [each.frame_size for each in more]
    assert [each.target["image"][1] for each in light] == [each.target["image"][1] for each in more]


@pytest.mark.parametrize(("part", "others"), [("mosaic", 3), ("mixup", 1)])
@pytest.mark.parametrize(("epochs", "first"), [(1, 0), (2, 1), (10, 7), (11, 8), (20, 15), (150, 112)])
def test_mosaics_and_blends_are_closed_for_the_last_quarter_of_a_run(
    tmp_path: Path, epochs: int, first: int, part: str, others: int
) -> None:
    augmentation = PLAIN_MIXUP.for_run(epochs) if part == "mixup" else PARTS[part].for_run(epochs)
    assert augmentation.mixed_epochs == first
    data = TrainingSet(drawn(tmp_path), RESOLUTION, (4,), 0, augmentation)
    for epoch in {0, first - 1, first, epochs - 1} - {-1}:
        sample = data[epoch, 0]
        assert len(sample.others) == (others if epoch < first else 0)


def test_a_mosaic_shows_its_own_image_and_three_of_the_set(tmp_path: Path) -> None:
    data = TrainingSet(drawn(tmp_path), RESOLUTION, (2,), 0, PARTS["mosaic"])
    mosaics = [data[epoch, 3] for epoch in range(40)]
    assert {sample.frame_size for sample in mosaics} == {(96, 96)}  # of image 3, which is square
    assert {int(sample.target["image"][0]) for sample in mosaics} == {3}
    assert {other for sample in mosaics for other in sample.others} == set(range(7))


def test_a_blend_is_the_mean_of_two_frames_with_the_objects_of_both(tmp_path: Path) -> None:
    """Each image has one rectangle of its class. Twice the blend less the frame itself is what was blended in, rounded
    down by a level at most."""
    split = drawn(tmp_path)
    mixed, alone = (TrainingSet(split, RESOLUTION, KS, 0, replace(PLAIN_MIXUP, mixup=share)) for share in (1.0, 0.0))
    places = set()
    for epoch, index in product(range(6), range(7)):
        both, first = mixed[epoch, index], alone[epoch, index]
        (place,) = both.others
        places.add(place)
        assert both.frame_size == first.frame_size
        assert both.target["boxes"][:1].equal(first.target["boxes"])
        assert both.target["labels"].tolist()[:1] == [index + 1]
        assert set(both.target["labels"].tolist()[1:]) <= {place + 1}
        for k in KS:
            over = 2 * both.views[k].int() - first.views[k]
            assert int(over.min()) >= -1
            assert int(over.max()) <= 255
            blank = (over - torch.tensor(GREY)[:, None, None]).abs().amax(dim=0) <= 1
            if len(both.target["labels"]) == 2:
                inside = (both.target["boxes"][1] / k).round().int().tolist()
                assert not blank[inside[1] : inside[3], inside[0] : inside[2]].all()
    assert places == set(range(7))


def test_an_image_that_cannot_be_read_is_blended_into_none(tmp_path: Path) -> None:
    split = drawn(tmp_path)
    split.path(2).write_bytes(split.path(2).read_bytes()[:60])
    data = TrainingSet(split, RESOLUTION, KS, 0, PLAIN_MIXUP)
    others = [data[epoch, 3].others for epoch in range(20)]
    assert () in others
    assert {place for each in others for place in each} <= set(range(7)) - {2}


def test_an_image_that_cannot_be_read_spoils_no_other_sample(tmp_path: Path) -> None:
    split = drawn(tmp_path)
    split.path(2).write_bytes(split.path(2).read_bytes()[:60])
    data = Fetched(TrainingSet(split, RESOLUTION, KS, 0, PARTS["mosaic"]))
    fetched = [data[epoch, index] for epoch in range(6) for index in range(7)]
    assert {each.index for each in fetched if isinstance(each, Unreadable)} == {2}
    others = [len(each.others) for each in fetched if isinstance(each, Sample)]
    assert len(others) == 36
    assert set(others) == {1, 2, 3} or set(others) == {2, 3}


@pytest.mark.parametrize("level", LEVELS)
def test_decoded_images_are_kept_at_every_scale_that_can_be_asked_for(tmp_path: Path, level: str) -> None:
    """Of JPEGs, which can be decoded smaller."""
    split = drawn(tmp_path)
    for index in range(len(split)):
        smooth(600 + 40 * index, 800).save(split.path(index), "JPEG")
    augmentation = replace(LEVELS[level], turn=0.5, flipud=0.5)
    plain, cached = (TrainingSet(split, RESOLUTION, KS, 1, augmentation) for _ in range(2))
    assert cached.keep_decoded() > 0
    kept = cached.kept
    assert kept is not None
    kept.allocate(shared=False)
    for epoch in range(3):
        for index in range(7):
            assert_same(cached[epoch, index], plain[epoch, index])
