"""Where low views lie: the phase of the HR grid, that of older files, and that everybody renders by the model's."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from support.dots import CENTRE, SIDE, centroid, dot, strided
from torch import Tensor

from msad_cli.data.annotations.split import read_split
from msad_cli.data.images.decode import read_image
from msad_cli.data.images.scaled import open_image, scale_for, whole_image
from msad_cli.data.loading.augment import ONE_SCALE
from msad_cli.data.loading.dataset import EvaluationSet, TrainingSet
from msad_cli.data.loading.transforms import render
from msad_cli.evaluation import latency
from msad_cli.evaluation.detect_split import view_results
from msad_cli.frame import Phase, Resolution, view_shift
from msad_cli.inference.inputs import Input
from msad_cli.inference.predictor import Wanted, predict
from msad_cli.models.detector import Detector
from msad_cli.models.spec import DetectorSpec
from msad_cli.system.device import Compute

CPU = Compute(torch.device("cpu"), "fp32")


def seen_at(k: int, phase: Phase) -> tuple[float, float]:
    """Row and column of the P3 cells (8 HR pixels each) in which a symmetric network sees the dot in a view."""
    view = render(whole_image(dot()), (SIDE, SIDE), k, phase=phase)
    return centroid(strided(view.float()[None], {1: 3, 2: 2, 4: 1}[k]))


@pytest.mark.parametrize(("k", "off"), [(2, 0.5), (4, 1.5)])
def test_cells_of_all_views_look_at_the_same_place(k: int, off: float) -> None:
    """Cell i of P3 looks at HR pixel 8 · i. By an ordinary resize, the low view's looks (k − 1) / 2 pixels further."""
    expected = [each / 8 for each in CENTRE]
    assert seen_at(1, "grid") == pytest.approx(expected, abs=0.01)
    assert seen_at(k, "grid") == pytest.approx(expected, abs=0.01)
    assert seen_at(k, "centre") == pytest.approx([each - off / 8 for each in expected], abs=0.01)
    assert view_shift(k, "grid") * k == off


@pytest.mark.parametrize("k", [2, 4])
def test_a_low_view_is_the_weighted_mean_around_every_kth_pixel(k: int) -> None:
    """Of an image that has the HR size already; the weights k − |t| over k² fall to 0 at the neighbours in the view."""
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    found = render(whole_image(Image.fromarray(pixels)), (48, 64), k, phase="grid")
    weights = (k - np.abs(np.arange(1 - k, k))) / k**2
    # Its third row and fourth column, of HR pixels 2 · k and 3 · k.
    around = pixels[2 * k - k + 1 : 2 * k + k, 3 * k - k + 1 : 3 * k + k].astype(float)
    expected = np.einsum("y,x,yxc->c", weights, weights, around)
    # Pillow rounds after the columns and after the rows.
    np.testing.assert_allclose(found[:, 2, 3].numpy(), expected, atol=1.0)


def test_mirrored_is_the_view_of_the_mirrored_image() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 50, 3), dtype=np.uint8))
    mirrored = render(whole_image(image), (64, 88), 4, mirrored=True, phase="grid")
    assert torch.equal(mirrored, render(whole_image(ImageOps.mirror(image)), (64, 88), 4, phase="grid"))
    assert not torch.equal(mirrored, render(whole_image(image), (64, 88), 4, phase="grid").flip(2))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_smaller_image_lies_where_the_whole_one_does(tmp_path: Path, orientation: int, mirrored: bool) -> None:
    """As in test_scaled.py: 8 × 11 pixels at 1/8, the last row and column of which stand for 5/8 and 1/2 pixel."""
    rows, columns = np.mgrid[0:61, 0:84]
    exif = Image.Exif()
    exif[274] = orientation
    ramps = np.stack([rows / 61 * 200 + 20, columns / 84 * 200 + 20, 0 * rows], axis=2)
    Image.fromarray(ramps.astype(np.uint8)).save(tmp_path / "a.jpg", quality=95, subsampling=0, exif=exif)
    size = (6, 4) if orientation >= 5 else (4, 6)
    frame = (size[0] * 4, size[1] * 4)
    opened = open_image(tmp_path / "a.jpg")
    assert scale_for(opened.header, size) == 8
    small = render(opened, frame, 4, mirrored, "grid").int()
    whole = render(whole_image(read_image(tmp_path / "a.jpg")), frame, 4, mirrored, "grid").int()
    assert small.shape == (3, *size)
    assert (small - whole)[:2].abs().max() <= 5


def test_a_file_without_a_phase_keeps_the_ordinary_resize(student: Detector) -> None:
    """Files of older versions have no such field."""
    old = student.spec.to_json()
    assert old.pop("phase") == "centre"
    assert DetectorSpec.from_json(old) == student.spec
    new = replace(student.spec, phase="grid")
    assert DetectorSpec.from_json(new.to_json()) == new
    with pytest.raises(ValueError, match="phase 'corner'"):
        DetectorSpec.from_json({**old, "phase": "corner"})


@pytest.mark.parametrize("phase", ["centre", "grid"])
def test_everybody_renders_by_the_models_phase(
    phase: Phase, coco_folder: Path, student: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training, evaluation, prediction and timing see the same pixels, and not those of the other phase."""
    split = read_split(coco_folder / "annotations" / "instances_train2017.json", coco_folder / "train2017")
    resolution = Resolution(100, 160)
    student.spec = replace(student.spec, resolution=resolution, phase=phase)
    plain = next(seed for seed in range(99) if random.Random(f"{seed}/0/0").random() >= 0.5)
    views = [
        TrainingSet(split, resolution, (2,), seed=plain, phase=phase, augmentation=ONE_SCALE)[0, 0].views[2],
        EvaluationSet(split, resolution, (2,), phase=phase)[0].views[2],
    ]

    def detect(seen: Mapping[int, Sequence[Tensor]], _view: object = None) -> list[dict[str, Tensor]]:
        views.append(seen[2][0])
        nothing = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
        return [nothing] * len(seen[2])

    monkeypatch.setattr(student, "detect", detect)
    monkeypatch.setattr(student, "look", detect)
    monkeypatch.setattr(student, "finish", lambda found: found)
    view_results(student, split, "low", CPU, workers=0, batch=len(split))
    list(predict(student, "low", [Input(split.path(0), Path("a.jpg"))], Wanted(0.5), CPU))
    latency.timed_parts(student, "low", [split.path(0)], CPU)
    assert len(views) == 5
    assert all(torch.equal(each, views[0]) for each in views[1:])
    other: Phase = "grid" if phase == "centre" else "centre"
    assert not torch.equal(EvaluationSet(split, resolution, (2,), phase=other)[0].views[2], views[0])
