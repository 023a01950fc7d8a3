"""A tiny COCO folder and tiny models."""

import copy
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from support.places import SHARED

from msad_cli.data.layouts.demo import demo_folder, draw_demo
from msad_cli.frame import Resolution
from msad_cli.models.detector import Detector
from msad_cli.models.spec import ClassName, DetectorSpec
from msad_cli.runs import report

# One thread a process: tiny models gain nothing by more, and two workers of pytest-xdist share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What is printed is as wide as in a pipe; workers of pytest-xdist have 80 columns.
os.environ.pop("COLUMNS", None)
torch.set_num_threads(1)

WIDTH, HEIGHT = 64, 48
COLOURS = {7: (230, 30, 30), 90: (30, 30, 230)}
# Ids with gaps and out of order, so that neither an id nor a line can be mistaken for a place.
CATEGORIES = [{"id": 90, "name": "blue"}, {"id": 7, "name": "red"}]
IMAGES = {
    "train2017": {30: "a.png", 10: "b.png", 20: "c.png", 40: "sub/d.png"},
    "val2017": {3: "a.png", 1: "e.png", 2: "f.png"},
}
# (image, category, box as x, y, width, height, crowd); image 20 has no object.
OBJECTS = {
    "train2017": [
        (10, 7, (0, 0, 20, 16), 0),
        (30, 90, (40, 20, 16, 20), 0),
        (10, 90, (30, 10, 30, 30), 1),
        (40, 90, (20, 20, 0, 10), 0),
        (30, 7, (8, 8, 16, 12), 0),
        (40, 7, (50, 30, 14, 18), 0),
    ],
    "val2017": [
        (2, 90, (4, 4, 24, 24), 0),
        (3, 7, (30, 12, 20, 30), 0),
        (3, 90, (2, 2, 12, 40), 0),
        (1, 7, (0, 28, 64, 20), 0),
    ],
}


def _draw(file: Path, objects: list[tuple[int, tuple[int, int, int, int]]]) -> None:
    image = Image.new("RGB", (WIDTH, HEIGHT), "grey")
    pen = ImageDraw.Draw(image)
    for category, (x, y, width, height) in objects:
        if width:
            pen.rectangle((x, y, x + width - 1, y + height - 1), fill=COLOURS[category])
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)


def _document(split: str) -> dict[str, Any]:
    images = [
        {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT} for number, name in IMAGES[split].items()
    ]
    annotations = [
        {"id": number, "image_id": image, "category_id": category, "bbox": list(box), "iscrowd": crowd}
        | {"area": box[2] * box[3]}
        for number, (image, category, box, crowd) in enumerate(OBJECTS[split], start=1)
    ]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSAD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _small_demo() -> Iterator[None]:
    """The word `demo` stands for a set of 8 + 4 images: all 500 take longer to draw than any test to run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_folder, "__kwdefaults__", {**(demo_folder.__kwdefaults__ or {}), "train": 8, "val": 4})
        yield


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """What a shell starts in the background ignores SIGINT from the first."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def _plots_where_they_are_looked_at(request: pytest.FixtureRequest) -> Iterator[None]:
    """Plots are most of the time of a tiny training. Only modules marked `plots` have their trainings draw them."""
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("plots") is None:
            patch.setattr(report, "plot_epochs", lambda *of: [])
            patch.setattr(report, "drawings", lambda curves: {})
            patch.setattr(report, "table_rows", lambda *of: {})
            patch.setattr("msad_cli.cli.progress.ConsoleObserver.latencies", lambda *of: ({}, ""))
            patch.setattr(report, "write_run_page", lambda model: model)
        yield


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Checks on files that no clone has say so where those are not there."""
    for marker in item.iter_markers("shared"):
        place = SHARED / str(marker.args[0])
        if not place.exists():
            pytest.skip(f"{place} is not there; MSAD_SHARED names the folder of {marker.args[0]}")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn set of 6 + 3 images of 128 × 96, for whole trainings."""
    folder = tmp_path_factory.mktemp("data") / "demo"
    draw_demo(folder, train=6, val=3, seed=1, size=(128, 96))
    return folder


@pytest.fixture
def coco_folder(tmp_path: Path) -> Path:
    """A COCO folder: 4 + 3 images of 64×48 with rectangles, a crowd region and a box without width among them."""
    folder = tmp_path / "coco"
    (folder / "annotations").mkdir(parents=True)
    for split, images in IMAGES.items():
        for number, name in images.items():
            _draw(folder / split / name, [(each[1], each[2]) for each in OBJECTS[split] if each[0] == number])
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(_document(split)))
    return folder


@pytest.fixture
def student_spec() -> DetectorSpec:
    """The smallest student; HR frames have 64 pixels on the short side and at most 96 on the long one."""
    return DetectorSpec(
        role="student",
        detector="fcos",
        backbone="resnet18",
        width=0.25,
        channels=64,
        head_convs=1,
        norm="group",
        scales="aligned",
        ks=(2,),
        resolution=Resolution(64, 96),
        classes=(ClassName(7, "red"), ClassName(90, "blue")),
    )


@pytest.fixture
def teacher_spec(student_spec: DetectorSpec) -> DetectorSpec:
    """A teacher for that student."""
    return DetectorSpec(**{**vars(student_spec), "role": "teacher", "ks": (1, 2)})


MADE: dict[str, Detector] = {}
"""Drawing the first weights takes ten times as long as copying them."""


def _build(spec: DetectorSpec) -> Detector:
    if repr(spec) not in MADE:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            MADE[repr(spec)] = Detector(spec).eval()
    return copy.deepcopy(MADE[repr(spec)])


@pytest.fixture
def student(student_spec: DetectorSpec) -> Detector:
    """An untrained student; its scores are about 0.08, above the threshold of 0.05."""
    return _build(student_spec)


@pytest.fixture
def teacher(teacher_spec: DetectorSpec) -> Detector:
    """An untrained teacher."""
    return _build(teacher_spec)
