"""Masks and keypoints measured, predicted and drawn: by hand, against plain pycocotools, and through the commands."""

import contextlib
import copy
import io
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.documents import by_view
from support.places import SHARED
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image, project_masks_on_boxes

from msad_cli.cli.app import run
from msad_cli.cli.gates import parse_gates, refuse_unknown
from msad_cli.cli.output.scores import print_scores
from msad_cli.data.annotations.split import CocoSplit, read_split
from msad_cli.data.layouts.demo import draw_demo
from msad_cli.data.layouts.demo_scenes import KEYPOINTS
from msad_cli.data.layouts.splits import find_split
from msad_cli.data.loading.dataset import EvaluationSet, evaluation_loader
from msad_cli.data.loading.transforms import Placement, to_frame
from msad_cli.errors import UsageError
from msad_cli.evaluation.coco_eval import evaluate
from msad_cli.evaluation.detect_split import coco_results, in_original, split_results
from msad_cli.evaluation.ground_truth import ground_truth
from msad_cli.evaluation.metrics import (
    KEYPOINT_NUMBERS,
    NUMBERS,
    Result,
    counted_detections,
    number_names,
    oks_sigmas,
    remarks,
    score,
)
from msad_cli.evaluation.result_files import result_files, write_results
from msad_cli.frame import Resolution
from msad_cli.inference.draw import class_colour, draw_keypoints, draw_masks
from msad_cli.models.decode.paste_masks import paste_masks
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, save_model
from msad_cli.system.device import Compute
from msad_cli.text import parse_sigmas

# pycocotools 2.0.11 lacks the copy argument that NumPy 2 asks of __array__, which is for pycocotools to mend.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

CPU = Compute(torch.device("cpu"), "fp32")
RESOLUTION = Resolution(256, 256)
COCOS_OWN = {"boxes": "bbox", "masks": "segm", "keypoints": "keypoints"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks") / "demo"
    draw_demo(folder, train=1, val=4)
    return folder


def _val(folder: Path, task: str) -> CocoSplit:
    files = find_split(str(folder), "val", task=task)
    return read_split(files.annotations, files.images, task=task)


def _answers(split: CocoSplit, index: int, frame_size: tuple[int, int]) -> dict[str, Tensor]:
    """The ground truth of an image as torchvision's detectors predict: HR pixels, masks of 28 × 28 over their boxes."""
    rows = range(int(split.starts[index]), int(split.starts[index + 1]))
    original = (256, 256)
    boxes = to_frame(torch.from_numpy(split.boxes[rows.start : rows.stop]), original, frame_size)
    found = {
        "boxes": boxes,
        "scores": torch.linspace(0.9, 0.5, len(boxes)),
        "labels": torch.from_numpy(split.labels[rows.start : rows.stop]),
    }
    if split.task == "masks":
        masks = Placement.filling(original, frame_size, False).masks([split.masks.segmentation(row) for row in rows])
        # What torchvision's Mask R-CNN learns for these boxes.
        found["masks"] = project_masks_on_boxes(masks, boxes, torch.arange(len(rows)), 28)[:, None]
    if split.task == "keypoints":
        points = torch.from_numpy(split.keypoints[rows.start : rows.stop])
        found["keypoints"] = Placement.filling(original, frame_size, False).keypoints(points, range(points.shape[1]))
        found["keypoints_scores"] = torch.zeros(points.shape[:2])
    return found


def _found(split: CocoSplit) -> list[Result]:
    images = EvaluationSet(split, RESOLUTION, (2,))
    place = iter(range(len(split)))

    def detect(views: Mapping[int, Sequence[Tensor]]) -> list[dict[str, Tensor]]:
        sizes = [(2 * view.shape[-2], 2 * view.shape[-1]) for view in views[2]]
        return [_answers(split, next(place), size) for size in sizes]

    return split_results(detect, evaluation_loader(images, 2, workers=0), split, CPU).results


def _plain(truth: dict[str, Any], results: list[Result], kind: str, sigmas: Sequence[float] = ()) -> list[float]:
    """What pycocotools says without msad."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        own = [{name: value for name, value in each.items() if name != "bbox" or kind == "bbox"} for each in results]
        evaluation = COCOeval(coco, coco.loadRes(own), kind)
        if sigmas:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [math.nan if value == -1 else float(value) for value in evaluation.stats]


def _shaken(results: list[Result]) -> list[Result]:
    """Results that are partly wrong: some left out, some moved, some of another score."""
    draw = np.random.default_rng(0)
    shaken = []
    for each in copy.deepcopy(results):
        if draw.random() < 0.2:
            continue
        each["score"] = round(float(draw.random()), 5)
        each["bbox"] = [value + float(draw.normal(0, 4)) for value in each["bbox"]]
        if "keypoints" in each:
            each["keypoints"] = [value + float(draw.normal(0, 3)) for value in each["keypoints"]]
        if "segmentation" in each:
            each["segmentation"] = copy.deepcopy(results[int(draw.integers(len(results)))]["segmentation"])
        shaken.append(each)
    return shaken


# --- scores ---


@pytest.mark.parametrize("task", ["masks", "keypoints"])
def test_the_whole_way_through_the_frame(demo: Path, task: str) -> None:
    split = _val(demo, task)
    results = _found(split)
    assert len(results) == len(split.boxes)
    numbers = score(ground_truth(split), results, task).numbers
    assert numbers["AP"] == pytest.approx(1.0)
    if task == "keypoints":
        assert numbers["keypoint_AP"] == pytest.approx(1.0)
    else:
        # A grid of 28 × 28 takes hardly anything of shapes of up to 120 pixels.
        assert [numbers["mask_AP50"], numbers["mask_AP75"]] == [1, 1]
        assert numbers["mask_AP"] >= 0.97


@pytest.mark.parametrize("task", ["boxes", "masks", "keypoints"])
def test_numbers_are_cocoevals_own(demo: Path, task: str) -> None:
    split = _val(demo, task)
    truth, results = ground_truth(split), _shaken(_found(split))
    numbers = score(truth, results, task).numbers
    boxes = dict(zip(NUMBERS, _plain(truth, results, "bbox"), strict=True))
    expected = dict(boxes)
    if task == "masks":
        values = _plain(truth, results, "segm")
        expected |= {f"mask_{name}": value for name, value in zip(NUMBERS, values, strict=True)}
    if task == "keypoints":
        values = _plain(truth, results, "keypoints", [0.05] * 7)
        expected |= {f"keypoint_{name}": value for name, value in zip(KEYPOINT_NUMBERS, values, strict=True)}
    assert list(numbers) == list(expected) == list(number_names(truth, task))
    assert numbers == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert 0 < numbers["AP"] < 1


@pytest.mark.parametrize("task", ["boxes", "masks", "keypoints"])
def test_anyones_pycocotools_gets_the_same_numbers_of_written_results(demo: Path, task: str, tmp_path: Path) -> None:
    split = _val(demo, task)
    truth, results = ground_truth(split), _shaken(_found(split))
    for each in results[::2]:  # small boxes of large masks and keypoints: beside a box, pycocotools goes by its size
        each["bbox"] = [*each["bbox"][:2], 8, 8]
    numbers = score(truth, results, task).numbers
    write_results(tmp_path / "found.json", results, task)
    for kind, file in result_files(tmp_path / "found.json", task).items():
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(split.file)
            evaluation = COCOeval(coco, coco.loadRes(str(file)), kind)
            if kind == "keypoints":
                evaluation.params.kpt_oks_sigmas = np.array([0.05] * 7)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        names = KEYPOINT_NUMBERS if kind == "keypoints" else NUMBERS
        expected = [math.nan if value == -1 else float(value) for value in evaluation.stats]
        prefix = {"bbox": "", "segm": "mask_", "keypoints": "keypoint_"}[kind]
        assert [numbers[prefix + name] for name in names] == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.shared("coco_slice")
@pytest.mark.parametrize("task", ["masks", "keypoints"])
def test_ground_truth_of_coco_is_what_pycocotools_makes_of_it(task: str) -> None:
    # Polygons, crowds as RLE, persons without keypoints: the user's own file, read by COCOeval alone.
    split = _val(SHARED / "coco_slice", task)
    truth = ground_truth(split)
    raw = json.loads(split.file.read_text())
    results = []
    for each in truth["annotations"]:
        if not each["iscrowd"] and each.get("num_keypoints", 1):
            found = {name: each[name] for name in ("image_id", "category_id", "bbox")} | {"score": 0.5}
            if task == "masks":
                counts = each["segmentation"]["counts"].decode()
                found["segmentation"] = {**each["segmentation"], "counts": counts}
            else:
                found["keypoints"] = each["keypoints"]
            results.append(found)
    shaken = _shaken(results)
    kind = COCOS_OWN[task]
    names = NUMBERS if task == "masks" else KEYPOINT_NUMBERS
    numbers = score(truth, shaken, task).numbers
    expected = dict(zip(names, _plain(raw, shaken, kind), strict=True))
    prefix = "mask_" if task == "masks" else "keypoint_"
    assert {name: numbers[prefix + name] for name in names} == pytest.approx(expected, abs=1e-12, nan_ok=True)
    perfect = score(truth, results, task).numbers
    assert perfect[prefix + "AP"] == pytest.approx(1.0)


def test_masks_are_drawn_at_the_size_of_the_image_whatever_the_file_says(demo: Path, tmp_path: Path) -> None:
    document = json.loads((demo / "annotations" / "instances_val2017.json").read_text())
    for each in document["images"]:
        each["width"], each["height"] = 3, None
    first, second, *_ = document["annotations"]
    del first["area"]
    second["segmentation"] = None
    file = tmp_path / "val.json"
    file.write_text(json.dumps(document))
    split = read_split(file, demo / "val2017", task="masks")
    truth = ground_truth(split)
    assert {(each["height"], each["width"]) for each in truth["images"]} == {(256, 256)}
    # The area that is missing is the mask's, not the box's.
    drawn = first["segmentation"]
    assert truth["annotations"][0]["area"] == rle.area({**drawn, "counts": drawn["counts"].encode()})
    assert "segmentation" not in truth["annotations"][1]
    # Nobody misses the one without a mask: it is no object of the measure of masks, and no prediction is given for it.
    assert score(truth, _found(split), "masks").numbers["mask_AR100"] > 0.6


def _crowded(objects: int) -> tuple[dict[str, Any], list[Result]]:
    """An image of so many squares of 10 × 10 pixels, all of them found, the last ones with the best scores."""
    boxes = [[20.0 * (i % 40), 20.0 * (i // 40), 10.0, 10.0] for i in range(objects)]
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 7, "name": "cell"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 7, "bbox": box, "area": 100, "iscrowd": 0}
            for i, box in enumerate(boxes, start=1)
        ],
    }
    results = [{"image_id": 1, "category_id": 7, "bbox": box, "score": 0.5 + i / 1e4} for i, box in enumerate(boxes)]
    return truth, results


def test_more_objects_than_100_are_counted() -> None:
    truth, results = _crowded(151)
    assert counted_detections(truth) == 300
    numbers = score(truth, results).numbers
    assert list(numbers) == [f"AR{300}" if name == "AR100" else name for name in NUMBERS]
    assert [numbers[name] for name in ("AP", "AP50", "AR300", "APs")] == pytest.approx([1, 1, 1, 1])
    assert numbers["AR10"] == pytest.approx(10 / 151)
    # COCO's own limit finds 100 of 151: of 101 recalls 0.00 … 1.00, 67 are at most 100/151.
    least = score(truth, results, max_detections=100).numbers
    assert tuple(least) == NUMBERS
    assert [least["AP"], least["AR100"]] == pytest.approx([67 / 101, 100 / 151])
    assert least == pytest.approx(dict(zip(NUMBERS, _plain(truth, results, "bbox"), strict=True)), nan_ok=True)


def test_how_many_detections_are_counted() -> None:
    assert [counted_detections(_crowded(count)[0]) for count in (0, 1, 100, 101, 301)] == [100, 100, 100, 300, 1000]
    assert counted_detections(_crowded(20)[0], 20) == 20
    assert counted_detections(_crowded(21)[0], 20) == 100
    truth = _crowded(150)[0]
    for each in truth["annotations"][:80]:
        each["category_id"] = 8  # COCO counts by class
    assert counted_detections(truth) == 100
    truth = _crowded(150)[0]
    for each in truth["annotations"][:50]:
        each["iscrowd"] = 1
    assert counted_detections(truth) == 100


def test_classes_have_numbers_of_every_kind(demo: Path) -> None:
    split = _val(demo, "masks")
    scores = score(ground_truth(split), _found(split), "masks")
    assert set(scores.per_class) == {"disc", "triangle", "figure"}
    small = ["AP", "AP50", "APs", "APm", "APl"]
    assert list(scores.per_class["disc"]) == [*small, *(f"mask_{name}" for name in small)]
    split = _val(demo, "keypoints")
    scores = score(ground_truth(split), _found(split), "keypoints")
    assert list(scores.per_class) == ["figure"]
    assert scores.per_class["figure"]["keypoint_AP"] == pytest.approx(1.0)
    assert "keypoint_APs" not in scores.per_class["figure"]


def test_nothing_found(demo: Path) -> None:
    for task, name in (("masks", "mask_AP"), ("keypoints", "keypoint_AP")):
        assert score(ground_truth(_val(demo, task)), [], task).numbers[name] == 0


def test_sigmas() -> None:
    assert oks_sigmas(17)[:2] == pytest.approx((0.026, 0.025))  # nose and eye, as COCO has them
    assert oks_sigmas(2) == (0.05, 0.05)
    assert oks_sigmas(2, [0.1, 0.2]) == (0.1, 0.2)


def test_oks_by_hand() -> None:
    # One object of 100 square pixels, one keypoint off by 5 pixels, the other right. OKS = (exp(−25 / (2 · 100 ·
    # (2σ)²)) + 1) / 2 with σ = 0.25: (exp(−0.5) + 1) / 2 = 0.803: right at the thresholds 0.50 … 0.80, 7 of 10.
    truth = _crowded(1)[0]
    truth["annotations"][0] |= {"keypoints": [1, 1, 2, 9, 9, 2], "num_keypoints": 2}
    results = [{"image_id": 1, "category_id": 7, "bbox": [0, 0, 10, 10], "score": 0.9, "keypoints": [6, 1, 1, 9, 9, 1]}]
    numbers = score(truth, results, "keypoints", [0.25, 0.25]).numbers
    assert numbers["keypoint_AP"] == pytest.approx(0.7)
    assert numbers["keypoint_AR"] == pytest.approx(0.7)
    assert [numbers[f"keypoint_{name}"] for name in ("AP50", "AP75", "AR50", "AR75")] == pytest.approx([1, 1, 1, 1])
    assert numbers["AP"] == pytest.approx(1.0)


# --- from the frame to the original ---


def test_keypoints_come_back_to_the_original() -> None:
    points = torch.tensor([[[8.8, 6.4, 1.0], [500.0, -3.0, 1.0]]])
    found = in_original({"boxes": torch.zeros(1, 4), "keypoints": points}, (37, 50), (64, 88))["keypoints"]
    assert found[0].tolist() == [pytest.approx([5.0, 3.7, 1.0]), [50.0, 0.0, 1.0]]


def test_masks_are_pasted_into_their_boxes() -> None:
    masks = torch.zeros(4, 1, 28, 28)
    masks[:2] = 1.0  # the whole box
    masks[2, :, :, 14:] = 0.9  # its right half; between two cells the probability goes from one to the other
    masks[3] = 0.4  # improbable everywhere
    boxes = torch.tensor([[4.0, 6, 20, 26], [-3.2, 28.4, 2.6, 35], [0, 0, 40, 30], [1, 1, 9, 9]])
    pasted = list(paste_masks(masks, boxes, (30, 40)))
    assert [(each.shape, each.dtype.name) for each in pasted] == [((30, 40), "uint8")] * 4
    expected = np.zeros((4, 30, 40), dtype=np.uint8)
    expected[0, 6:26, 4:20] = 1
    expected[1, 28:, :3] = 1  # the pixels whose middles, at 28.5 and 29.5, at 0.5 … 2.5, lie in the box
    expected[2, :, 20:] = 1
    for mask, other in zip(pasted, expected, strict=True):
        assert np.array_equal(mask, other)
    assert list(paste_masks(masks[:0], boxes[:0], (30, 40))) == []
    for odd in ([5.0, 5, 5, 5], [50, 50, 60, 60], [-9, -9, -1, -1]):
        assert not next(paste_masks(masks, torch.tensor([odd]).expand(4, 4), (30, 40)))[8:].any()


def test_large_masks_are_pasted_as_torchvision_does() -> None:
    # Torchvision rounds to whole pixels, which matters little in a box of 200 × 150.
    masks = torch.nn.functional.interpolate(
        torch.rand(3, 1, 5, 5, generator=torch.Generator().manual_seed(0)), (28, 28), mode="bicubic"
    ).clamp(0, 1)
    boxes = torch.tensor([[20.0, 30, 220, 180], [5.5, 3.5, 205.5, 153.5], [60, 10, 260, 160]])
    stock = paste_masks_in_image(masks, boxes, (200, 300))[:, 0].numpy() >= 0.5
    for mask, other in zip(paste_masks(masks, boxes, (200, 300)), stock, strict=True):
        assert (mask & other).sum() / (mask | other).sum() > 0.9


def test_results_are_json_in_cocos_form() -> None:
    found = {
        "boxes": torch.tensor([[4.0, 6.0, 20.0, 26.0]]),
        "scores": torch.tensor([0.5]),
        "labels": torch.tensor([1]),
        "masks": torch.ones(1, 1, 28, 28),
        "mask_boxes": torch.tensor([[4.0, 6.0, 20.0, 26.0]]),
        "keypoints": torch.tensor([[[5.126, 7.0, 1.0], [9.0, 11.0, 1.0]]]),
    }
    (result,) = json.loads(json.dumps(coco_results(found, 3, [7], (30, 40))))
    assert result["keypoints"] == [5.13, 7, 1, 9, 11, 1]
    assert result["segmentation"]["size"] == [30, 40]
    (mask,) = paste_masks(found["masks"], found["boxes"], (30, 40))
    assert np.array_equal(rle.decode(result["segmentation"]), mask)
    assert {"image_id", "category_id", "bbox", "score", "segmentation", "keypoints"} == set(result)


# --- drawing ---


def test_masks_are_tinted_and_outlined() -> None:
    image = Image.new("RGB", (60, 50), (200, 200, 200))
    mask = np.zeros((50, 60), dtype=np.uint8)
    mask[10:30, 20:50] = 1
    pixels = np.asarray(draw_masks(image, [mask], [(20.0, 10.0, 50.0, 30.0)], [1])).astype(int)
    colour = np.array(class_colour(1))
    assert (pixels[10, 20:50] == colour).all()  # the mask's own outermost pixels
    assert (pixels[29, 20:50] == colour).all()
    assert (pixels[10:30, [20, 49]] == colour).all()
    assert np.abs(pixels[11:29, 21:49] - (0.4 * colour + 0.6 * 200)).max() <= 2  # seen through
    assert (pixels[mask == 0] == 200).all()
    assert np.asarray(image).min() == 200  # the image itself stays as it was


def test_keypoints_are_dots_and_lines() -> None:
    image = Image.new("RGB", (60, 50))
    points = [[[10, 10, 1], [40, 10, 1], [40, 40, 0], [10, 30, 2]]]
    pixels = np.asarray(draw_keypoints(image, points, [1], [(0, 1), (1, 2)]))
    assert (pixels[10, 25] == class_colour(1)).all()  # the line from the first to the second
    assert not pixels[25, 40].any()  # none to one that is not there
    assert not pixels[40, 40].any()
    assert (pixels[30, 10] == class_colour(3)).all()  # a dot of the fourth's own colour
    assert draw_keypoints(image, [], [], [(0, 1)]).tobytes() == image.tobytes()


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (1, 50), (50, 1), (300, 200)])
def test_any_mask_and_keypoint_can_be_drawn_on_any_image(size: tuple[int, int]) -> None:
    width, height = size
    image = Image.new("RGB", size, (9, 9, 9))
    boxes = [(0.0, 0.0, float(width), float(height)), (float(width), float(height), float(width), float(height))]
    masks = [np.ones((height, width), dtype=np.uint8), np.zeros((height, width), dtype=np.uint8)]
    assert draw_masks(image, masks, boxes, [1, 2]).size == size
    points: list[list[list[float]]] = [[[0, 0, 1], [width, height, 1]], [[0.5, 0.5, 1], [0, 0, 0]]]
    assert draw_keypoints(image, points, [1, 2], [(0, 1)]).size == size


# --- the commands ---


@pytest.fixture
def model(tmp_path: Path, student: Detector) -> Path:
    """A file whose detector stands for any other: the tests below say what it predicts."""
    path = tmp_path / "student.safetensors"
    save_model(path, student, Card(score_threshold=0.1))
    return path


def _pretend(monkeypatch: pytest.MonkeyPatch, student: Detector, split: CocoSplit) -> None:
    """Has `open_model` give a detector of the split's task that knows its ground truth."""
    names = [type("Class", (), {"category_id": number, "name": name}) for number, name in split.categories]
    own = {**vars(student.spec), "task": split.task, "classes": tuple(names), "resolution": RESOLUTION}
    own |= {"keypoints": split.scheme.names, "skeleton": split.scheme.skeleton, "sigmas": ()}
    spec = type(
        "Spec", (), {**own, "categories": split.categories, "views": ("low",), "ks_of": lambda self, view: (2,)}
    )
    place = iter(range(10**6))

    def detect(views: Mapping[int, Sequence[Tensor]], _view: str) -> list[dict[str, Tensor]]:
        sizes = [(2 * view.shape[-2], 2 * view.shape[-1]) for view in views[2]]
        return [_answers(split, next(place) % len(split), size) for size in sizes]

    monkeypatch.setattr(student, "spec", spec())
    monkeypatch.setattr(student, "detect", detect)
    monkeypatch.setattr("msad_cli.export.runtime.load_model", lambda path: (student, Card(score_threshold=0.1)))


@pytest.mark.parametrize(("task", "gate"), [("masks", "mask_AP50=0.9"), ("keypoints", "keypoint_AP=0.99")])
def test_eval_measures_what_the_model_finds(
    demo: Path,
    model: Path,
    student: Detector,
    task: str,
    gate: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _pretend(monkeypatch, student, _val(demo, task))
    written = tmp_path / "found.json"
    command = ["eval", str(model), "--data", str(demo), "--device", "cpu", "--workers", "0", "--precision", "fp32"]
    assert run([*command, "--fail-under", gate, "--predictions", str(written), "--per-class"]) == 0
    printed = capsys.readouterr()
    assert f"low, {task}" in printed.out
    assert f"figure, {task}" in printed.out
    assert ("nobody measured" in printed.err) is (task == "keypoints")
    kind, field = ("segm", "segmentation") if task == "masks" else ("keypoints", "keypoints")
    assert f"{written} holds boxes, {tmp_path}/found.{kind}.json holds {task}" in printed.err.replace("\n", " ")
    assert {each.name for each in tmp_path.glob("found*")} == {"found.json", f"found.{kind}.json"}
    for file, own in ((written, "bbox"), (tmp_path / f"found.{kind}.json", field)):
        assert all(each.keys() == {"image_id", "category_id", "score", own} for each in json.loads(file.read_text()))
    assert run([*command, "--fail-under", "keypoint_AP=0.1" if task == "masks" else "mask_AP=0.1"]) == 2
    capsys.readouterr()
    assert run([*command, "--json"]) == 0
    numbers = by_view(capsys.readouterr().out)["low"]["scores"]
    assert numbers[gate.partition("=")[0]] > 0.9
    if task == "keypoints":
        assert run([*command, "--sigmas", ",".join(["0.1"] * 7)]) == 0
        assert "nobody measured" not in capsys.readouterr().err
        assert run([*command, "--sigmas", "0.1"]) == 2
        assert f"in the order of {KEYPOINTS[0]}" in capsys.readouterr().err
    assert run([*command, "--split", "train", "--fail-under", gate]) == 8  # predicted are the objects of val


def test_eval_takes_the_test_split_and_says_what_has_nothing_to_compare_with(
    demo: Path,
    model: Path,
    student: Detector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _pretend(monkeypatch, student, _val(demo, "boxes"))
    folder = tmp_path / "set"
    shutil.copytree(demo, folder)
    (folder / "val2017").rename(folder / "test2017")
    own = folder / "annotations" / "instances_val2017.json"
    own.with_name("person_keypoints_val2017.json").unlink()
    document = json.loads(own.read_text())
    test = own.rename(own.with_name("instances_test2017.json"))
    command = ["eval", str(model), "--data", str(folder), "--device", "cpu", "--workers", "0", "--precision", "fp32"]
    assert run([*command, "--split", "test", "--fail-under", "AP=0.99"]) == 0
    assert "4 images of test" in " ".join(capsys.readouterr().out.split())
    assert run([*command, "--fail-under", "AP=0.99"]) == 0
    assert "no val, its test is taken as val" in " ".join(capsys.readouterr().err.split())
    # Images without annotations, as COCO gives its own test split.
    test.unlink()
    info = own.with_name("image_info_test2017.json")
    info.write_text(json.dumps({"images": document["images"], "categories": document["categories"]}))
    assert run([*command, "--split", "test"]) == 3
    said = " ".join(capsys.readouterr().err.split())
    assert "nothing to learn from or to compare with" in said
    assert "msad predict MODEL IMAGES --save coco" in said
    info.write_text(json.dumps({**document, "annotations": []}))
    assert run([*command, "--split", "test"]) == 0
    assert "no object to compare with, AP is unknown" in " ".join(capsys.readouterr().err.split())
    info.unlink()
    assert run([*command, "--split", "test"]) == 3
    assert "no annotations/instances_test*.json" in " ".join(capsys.readouterr().err.split())
    assert run([*command, "--split", "dev"]) == 2


def test_eval_by_either_library(
    demo: Path, model: Path, student: Detector, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _pretend(monkeypatch, student, _val(demo, "masks"))
    asked = []

    def spy(*arguments: Any) -> Any:
        asked.append(arguments[-1])
        return evaluate(*arguments)

    monkeypatch.setattr("msad_cli.evaluation.metrics.evaluate", spy)
    command = ["eval", str(model), "--data", str(demo), "--device", "cpu", "--workers", "0", "--precision", "fp32"]
    said = []
    for flags in ([], ["--evaluator", "hotcoco"], ["--evaluator", "pycocotools"]):
        assert run([*command, "--json", *flags]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] == said[2]
    assert asked == ["hotcoco"] * 4 + ["pycocotools"] * 2  # boxes and masks
    assert run([*command, "--evaluator", "coco"]) == 2
    assert "give hotcoco or pycocotools" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["masks", "keypoints"])
def test_predict_writes_and_draws_what_the_model_finds(
    demo: Path, model: Path, student: Detector, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = _val(demo, task)
    _pretend(monkeypatch, student, split)
    out = tmp_path / "out"
    flags = ["--device", "cpu", "--precision", "fp32", "-q"]
    assert run(["predict", str(demo / "val2017"), "-m", str(model), "-o", str(out), *flags]) == 0
    results = json.loads((out / "predictions.json").read_text())
    assert len(results) == len(split.boxes)
    expected = _found(split)
    for found, other in zip(results, expected, strict=True):
        assert {**found, "image_id": other["image_id"]} == {**other, "file_name": found["file_name"]}
    for name in split.file_names.tolist():
        with Image.open(out / name) as drawn, Image.open(demo / "val2017" / name) as plain:
            assert drawn.size == plain.size


def test_gates() -> None:
    assert parse_gates("AP=0.3,mask_AP50=0.5,keypoint_AR=0.1,AR300=1") == {
        "AP": 0.3,
        "mask_AP50": 0.5,
        "keypoint_AR": 0.1,
        "AR300": 1.0,
    }
    assert parse_gates(None) == {}
    for malformed in ("AP", "AP=x", "APP"):
        with pytest.raises(UsageError, match="not NAME=NUMBER"):
            parse_gates(malformed)
    for unknown in ("APP=1", "box_AP=1", "=1"):
        with pytest.raises(UsageError, match=f"{unknown}: no such score"):
            parse_gates(unknown)
    with pytest.raises(UsageError, match="mask_AP: this evaluation has none"):
        refuse_unknown({"mask_AP": 0.1}, NUMBERS)


def test_sigmas_as_flags() -> None:
    assert parse_sigmas(None, ["a"]) == ()
    assert parse_sigmas("0.05,1e-1", ["a", "b"]) == (0.05, 0.1)
    for wrong in ("0.05", "0.05,x", "0.05,0", "0.05,nan", "0.05,inf", ""):
        with pytest.raises(UsageError, match="not 2 positive numbers"):
            parse_sigmas(wrong, ["a", "b"])
    with pytest.raises(UsageError, match="finds no keypoints"):
        parse_sigmas("0.05", [])


def test_remarks_tell_what_differs_from_coco() -> None:
    assert list(remarks(_crowded(100)[0], "boxes", 100)) == []
    (line,) = remarks(_crowded(101)[0], "masks", 100)
    assert "more than 100 objects of a class: for boxes and masks, up to 300 detections" in line
    assert "at most 100" in line
    (line,) = remarks(_crowded(21)[0], "keypoints", 100)
    assert "for keypoints, up to 100 detections" in line
    assert "COCO's for persons" in next(remarks(_crowded(1)[0], "keypoints", 100, oks_sigmas(17)))
    assert "0.05 for each" in next(remarks(_crowded(1)[0], "keypoints", 100, oks_sigmas(2)))


def test_tables_have_a_row_for_each_view_and_kind(capsys: pytest.CaptureFixture[str]) -> None:
    boxes = dict.fromkeys(NUMBERS, 0.5)
    masks = boxes | {f"mask_{name}": 0.25 for name in NUMBERS}
    print_scores("masks", {"high": masks, "low": masks})
    lines = capsys.readouterr().out.splitlines()
    cells = [line.rsplit(maxsplit=len(NUMBERS))[:2] for line in lines if line.startswith(("high", "low"))]
    assert cells == [["high, boxes", "50.0"], ["low, boxes", "50.0"], ["high, masks", "25.0"], ["low, masks", "25.0"]]
    points = boxes | {f"keypoint_{name}": 0.75 for name in KEYPOINT_NUMBERS}
    print_scores("points", {"high": points})
    printed = capsys.readouterr().out
    assert printed.count("points") >= 2  # two tables, of other columns
    assert "AR50" in printed
    print_scores("boxes", {"high": boxes})
    assert "high, boxes" not in capsys.readouterr().out  # there is nothing else
