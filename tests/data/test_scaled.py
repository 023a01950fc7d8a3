"""Downsampled decoding: which scale, that images stay where they are, and that views do not know each other."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from msad_cli.data.annotations.split import read_split
from msad_cli.data.images import scaled
from msad_cli.data.images.decode import read_image
from msad_cli.data.images.scaled import open_image, scale_for, whole_image
from msad_cli.data.images.tones import BY_FILE, Tones
from msad_cli.data.loading.augment import ONE_SCALE
from msad_cli.data.loading.dataset import EvaluationSet, TrainingSet
from msad_cli.frame import Resolution
from msad_cli.inference.inputs import Input
from msad_cli.inference.predictor import Prediction, Wanted, predict
from msad_cli.models.detector import Detector
from msad_cli.system.device import Compute

HEIGHT, WIDTH = 485, 643


def _save(file: Path, orientation: int = 1, height: int = HEIGHT, width: int = WIDTH) -> None:
    """A JPEG, whatever its name: red rises by 200 downwards, green to the right, blue waves."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = 20 * np.sin(rows / 9) * np.sin(columns / 7)
    pixels = np.stack([rows / height * 200 + 20, columns / width * 200 + 20, 120 + waves], axis=2)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=95, subsampling=0, exif=exif)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The scales at which files are decoded from now on."""
    scales: list[int] = []

    def read(path: Path, scale: int = 1, tones: Tones = BY_FILE) -> Image.Image:
        scales.append(scale)
        return read_image(path, scale, tones)

    monkeypatch.setattr(scaled, "read_image", read)
    return scales


def test_the_scale_by_hand(tmp_path: Path) -> None:
    """The decoded sides are 485 // s and 643 // s, and have to be 1.5 times the view's or more."""
    _save(tmp_path / "a.jpg")
    image = open_image(tmp_path / "a.jpg")
    expected = {(40, 53): 8, (41, 53): 4, (40, 54): 4, (80, 106): 4, (81, 106): 2, (161, 214): 2, (162, 214): 1}
    assert {size: scale_for(image.header, size) for size in expected} == expected
    assert scale_for(image.header, (HEIGHT, WIDTH)) == 1
    read_image(tmp_path / "a.jpg").save(tmp_path / "a.png")
    assert scale_for(open_image(tmp_path / "a.png").header, (40, 53)) == 1
    (tmp_path / "a.jpg").rename(tmp_path / "b.png")  # what a file is does not depend on its name
    assert scale_for(open_image(tmp_path / "b.png").header, (40, 53)) == 8


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_smaller_image_lies_where_the_whole_one_does(tmp_path: Path, orientation: int, mirrored: bool) -> None:
    """61 × 84 pixels are decoded to 8 × 11 at 1/8, whose last row and column stand for 5/8 and 1/2 pixel, at whatever
    edge EXIF brings them to. Were they taken for whole ones, the middle of the last row of a view of four would come
    from 7/8 · (8 − 7.625) = 0.33 rows too far, where red is off by 0.33 · 8 / 61 · 200 = 8.6.
    """
    file = tmp_path / "a.jpg"
    _save(file, orientation, 61, 84)
    size = (6, 4) if orientation >= 5 else (4, 6)
    assert scale_for(open_image(file).header, size) == 8
    small = open_image(file).resized(size, mirrored).int()
    expected = whole_image(read_image(file)).resized(size, mirrored).int()
    assert (small - expected)[:2].abs().max() <= 4


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_resize_is_that_of_pillow(tmp_path: Path, orientation: int, mirrored: bool) -> None:
    """To a grey level, and on average to a tenth: of an HR size, of half of it, and of more than the file has; of
    decoded images at 1/2 too, whose last row and column stand for half a pixel."""
    _save(tmp_path / "a.jpg", orientation)
    opened = open_image(tmp_path / "a.jpg")
    height, width = opened.size
    for side in (160, 162, 324, 700):
        size = (side, side * width // height)
        scale = scale_for(opened.header, size)
        image = opened.at(scale)
        left = image.width - width / scale if orientation in scaled.FROM_RIGHT else 0
        top = image.height - height / scale if orientation in scaled.FROM_BOTTOM else 0
        box = (left, top, left + width / scale, top + height / scale)
        theirs = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR, box=box))
        expected = torch.from_numpy(theirs[:, ::-1].copy() if mirrored else theirs.copy()).permute(2, 0, 1)
        found = opened.resized(size, mirrored)
        assert (found.dtype, found.shape) == (torch.uint8, (3, *size))
        difference = (found.int() - expected.int()).abs()
        assert difference.max() <= 1
        assert difference.float().mean() <= 0.1


def test_a_view_is_the_same_alone_and_beside_others(
    coco_folder: Path, student: Detector, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training of a teacher, of a student beside it and alone, evaluation and prediction; k = 2 comes at 1/4."""
    split = read_split(coco_folder / "annotations" / "instances_train2017.json", coco_folder / "train2017")
    _save(split.path(0))
    resolution = Resolution(100, 160)  # 100 × 132 at k = 1, 50 × 66 at k = 2, 24 × 33 at k = 4
    views, scales = [], []
    plain = next(seed for seed in range(99) if random.Random(f"{seed}/0/0").random() >= 0.5)
    for ks in ((1, 2), (2,), (2, 4), (1, 2, 4)):
        views.append(TrainingSet(split, resolution, ks, seed=plain, augmentation=ONE_SCALE)[0, 0].views[2])
        scales.append(list(decoded))
        decoded.clear()
    assert scales == [[2, 4], [4], [4, 8], [2, 4, 8]]
    views.append(EvaluationSet(split, resolution, (2,))[0].views[2])
    student.spec = replace(student.spec, resolution=resolution)

    def detect(seen: Mapping[int, Sequence[Tensor]], _view: object) -> list[dict[str, Tensor]]:
        views.append(seen[2][0])
        return [{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}]

    monkeypatch.setattr(student, "detect", detect)
    cpu = Compute(torch.device("cpu"), "fp32")
    (found,) = predict(student, "low", [Input(split.path(0), Path("a.jpg"))], Wanted(0.5), cpu)
    assert decoded == [4, 4]
    assert all(torch.equal(each, views[0]) for each in views[1:])
    assert isinstance(found, Prediction)
    assert found.scaled.size == (HEIGHT, WIDTH)
    assert (found.image.width, found.image.height) == (WIDTH, HEIGHT)  # decoded now that it is asked for
    assert decoded == [4, 4, 1]


def test_jitter_changes_the_scale_with_the_size(coco_folder: Path, decoded: list[int]) -> None:
    """485 // 2 = 242 is 1.5 times 161: HR sides of up to 160 come at 1/2, of 164 and more at 1; α scales 200."""
    split = read_split(coco_folder / "annotations" / "instances_train2017.json", coco_folder / "train2017")
    _save(split.path(0))
    data = TrainingSet(split, Resolution(200, 300), (1,), seed=0)
    seen = {}
    for epoch in range(20):
        decoded.clear()
        sample = data[epoch, 0]
        assert sample.original == (HEIGHT, WIDTH)
        seen[sample.frame_size[0]] = list(decoded)
    assert seen == {160: [2], 168: [1], 176: [1], 184: [1], 192: [1], 200: [1]}
