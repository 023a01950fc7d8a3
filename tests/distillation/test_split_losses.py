"""The losses of a validation split, beside what is found in it."""

import math
from pathlib import Path

import pytest
import torch
from support.specs import spec

from msad_cli.data.annotations.split import CocoSplit, read_split
from msad_cli.data.layouts.demo import draw_demo
from msad_cli.data.layouts.splits import find_split
from msad_cli.data.loading.dataset import EvaluationSet
from msad_cli.data.loading.transforms import to_frame
from msad_cli.distillation.baselines import downsampled_target
from msad_cli.distillation.split_losses import SplitLosses
from msad_cli.evaluation.detect_split import view_results
from msad_cli.frame import Resolution
from msad_cli.models.detector import Detector
from msad_cli.models.spec import ClassName
from msad_cli.system.device import Compute

CPU = Compute(torch.device("cpu"), "fp32")
FRAME = (64, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("losses") / "demo"
    draw_demo(folder, train=1, val=3, seed=2, size=FRAME)
    return folder


def val(folder: Path, task: str = "boxes") -> CocoSplit:
    files = find_split(str(folder), "val", task=task)
    return read_split(files.annotations, files.images, task=task)


def model(split: CocoSplit, **changes: object) -> Detector:
    classes = tuple(ClassName(*each) for each in split.categories)
    torch.manual_seed(0)
    return Detector(spec(classes=classes, resolution=Resolution(*FRAME), **changes)).eval()


@pytest.mark.parametrize("scales", ["aligned", "single"])
def test_they_are_the_detectors_own_of_the_images_as_they_are(folder: Path, scales: str) -> None:
    """Pixels of the small image, which a detector that is not aligned takes for an ordinary one, and its boxes."""
    split = val(folder)
    detector = model(split, role="student" if scales == "aligned" else "baseline", ks=(2,), scales=scales)
    losses = SplitLosses(detector, "low")
    found = view_results(detector, split, "low", CPU, workers=0, batch=1, losses=losses)
    assert found.results == view_results(detector, split, "low", CPU, workers=0, batch=1).results

    expected = []
    images = EvaluationSet(split, detector.resolution, (2,))
    for index in range(len(split)):
        rows = slice(*split.starts[index : index + 2])
        boxes = to_frame(torch.from_numpy(split.boxes[rows]), FRAME, FRAME)
        target = {"boxes": boxes, "labels": torch.from_numpy(split.labels[rows])}
        with torch.no_grad():
            seen = detector.look({2: [images[index].views[2]]}, "low")
            small = target if scales == "aligned" else downsampled_target(target, 2)
            expected.append(float(sum(detector.losses(seen.pyramid, seen.frame, [small]).values())))
    assert losses.mean() == pytest.approx(sum(expected) / 3, rel=1e-6)
    assert losses.images == 3


def test_what_is_drawn_at_random_leaves_a_trainings_generators_alone(folder: Path) -> None:
    """A Mask R-CNN samples RoIs for its losses: the same ones every time, from a seed of their own."""
    split = val(folder, "masks")
    detector = model(split, role="student", detector="maskrcnn", ks=(1,))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    means = []
    for _ in range(2):
        losses = SplitLosses(detector, "high")
        view_results(detector, split, "high", CPU, workers=0, losses=losses)
        means.append(losses.mean())
    assert means[0] == means[1]
    assert means[0] > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_of_nothing_there_is_no_mean(folder: Path) -> None:
    assert math.isnan(SplitLosses(model(val(folder)), "fused").mean())
