"""COCO's numbers: cases worked out by hand, published ones, and the way of boxes from the frame to the user's file."""

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.places import SHARED
from torch import Tensor

from msad_cli.data.annotations.split import CocoSplit, read_split
from msad_cli.data.loading.dataset import EvaluationSet, evaluation_loader
from msad_cli.data.loading.transforms import to_frame
from msad_cli.evaluation.detect_split import coco_results, in_original, split_results, view_results
from msad_cli.evaluation.ground_truth import ground_truth
from msad_cli.evaluation.metrics import KEYPOINT_NUMBERS, NUMBERS, PREFIXES, Result, score
from msad_cli.frame import Resolution
from msad_cli.models.detector import Detector
from msad_cli.system.device import Compute
from msad_cli.system.extras import EVALUATORS, Evaluator

# pycocotools 2.0.11 lacks the copy argument that NumPy 2 asks of __array__, which is for pycocotools to mend.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

GOLDEN = SHARED / "coco_eval_golden"
CPU = Compute(torch.device("cpu"), "fp32")


def _truth(*annotations: tuple[int, list[float], int], categories: Sequence[int] = (7, 90)) -> dict[str, Any]:
    """A document of two images; annotations of category 7 as (image, box, crowd)."""
    return {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": each, "name": f"class {each}"} for each in categories],
        "annotations": [
            {"id": number, "image_id": image, "category_id": 7, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
            for number, (image, box, crowd) in enumerate(annotations, start=1)
        ],
    }


def _result(image: int, box: list[float], sure: float) -> Result:
    return {"image_id": image, "category_id": 7, "bbox": box, "score": sure}


THREE = _truth((1, [0, 0, 100, 100], 0), (2, [0, 0, 100, 100], 0), (2, [200, 200, 100, 100], 0))
FOUND = [
    _result(2, [0, 0, 100, 82], 0.7),  # IoU 0.82 with the second object: right up to the threshold 0.80, 7 of 10
    _result(1, [0, 0, 100, 100], 0.9),  # IoU 1 with the first: right at all ten
    _result(1, [300, 300, 100, 100], 0.8),  # nothing there
]


def test_ap_by_hand() -> None:
    # Three objects, one of them not found. By score: right, wrong, right (at 7 thresholds) or wrong (at 3).
    # At the 7: recall 1/3 at precision 1, then 2/3 at precision 2/3. COCO's 101 recalls 0.00 … 1.00: 34 of them are
    # at most 1/3, 33 more at most 2/3, so AP = (34 · 1 + 33 · 2/3) / 101 = 56/101. At the 3: 34/101.
    scores = score(copy.deepcopy(THREE), copy.deepcopy(FOUND))
    seven, three = 56 / 101, 34 / 101
    assert scores.numbers["AP"] == pytest.approx((7 * seven + 3 * three) / 10)
    assert scores.numbers["AP50"] == pytest.approx(seven)
    assert scores.numbers["AP75"] == pytest.approx(seven)
    # 100 × 100 is more than 96 × 96: all objects are large, of other sizes nothing is known.
    assert scores.numbers["APl"] == pytest.approx(scores.numbers["AP"])
    assert math.isnan(scores.numbers["APs"])
    assert math.isnan(scores.numbers["APm"])
    # The best detection of each image finds 2 of 3 at 7 thresholds and 1 of 3 at 3 of them; the third adds nothing.
    for name in ("AR1", "AR10", "AR100", "ARl"):
        assert scores.numbers[name] == pytest.approx((7 * 2 / 3 + 3 * 1 / 3) / 10)
    assert tuple(scores.numbers) == NUMBERS


def test_a_class_without_ground_truth_is_not_a_number() -> None:
    scores = score(copy.deepcopy(THREE), copy.deepcopy(FOUND))
    assert scores.per_class["class 7"]["AP50"] == pytest.approx(56 / 101)
    assert scores.per_class["class 7"]["AP"] == pytest.approx(scores.numbers["AP"])  # the mean is over this class alone
    assert math.isnan(scores.per_class["class 7"]["APs"])
    assert all(math.isnan(value) for value in scores.per_class["class 90"].values())


def test_the_best_threshold_by_hand() -> None:
    # F1 = 2 · right / (kept + objects): 2/4 from 0.9, 2/5 from 0.8, 4/6 from 0.7.
    scores = score(copy.deepcopy(THREE), copy.deepcopy(FOUND))
    assert [scores.threshold, scores.f1] == pytest.approx([0.7 - 1e-5, 2 / 3])


def test_the_best_threshold_ignores_what_lies_in_a_crowd() -> None:
    # One object and a crowd region. The surest detection lies in the crowd and counts neither way, so that 0.6 keeps
    # one right detection of one object: F1 = 2/(1 + 1). Were it counted as wrong, F1 would be 2/(2 + 1).
    truth = _truth((1, [0, 0, 50, 50], 0), (1, [100, 100, 200, 200], 1))
    results = [
        _result(1, [120, 120, 40, 40], 0.9),
        _result(1, [0, 0, 50, 50], 0.6),
        _result(1, [400, 0, 50, 50], 0.3),
    ]
    scores = score(truth, results)
    assert [scores.threshold, scores.f1] == pytest.approx([0.6 - 1e-5, 1.0])
    assert scores.numbers["AP"] == pytest.approx(1.0)


def test_no_detections() -> None:
    scores = score(copy.deepcopy(THREE), [])
    zero = {"AP", "AP50", "AP75", "APl", "AR1", "AR10", "AR100", "ARl"}
    assert {name for name, value in scores.numbers.items() if value == 0} == zero
    assert all(math.isnan(value) for name, value in scores.numbers.items() if name not in zero)
    assert scores.per_class["class 7"]["AP"] == 0
    assert math.isnan(scores.per_class["class 90"]["AP"])
    assert (scores.threshold, scores.f1) == (0.5, 0.0)


def test_without_a_right_detection_no_score_is_the_best() -> None:
    scores = score(copy.deepcopy(THREE), [_result(1, [300, 300, 5, 5], 0.9)])
    assert (scores.threshold, scores.f1) == (0.5, 0.0)


def test_no_ground_truth() -> None:
    for results in ([], copy.deepcopy(FOUND)):
        scores = score(_truth(), results)
        assert all(math.isnan(value) for value in scores.numbers.values())
        assert scores.threshold == 0.5
        assert math.isnan(scores.f1)


def test_results_stay_as_they_were() -> None:
    # pycocotools writes areas, ids and segmentations into what it loads; results are to be written to a file
    # afterwards, and a truth is used for every view.
    for evaluator in EVALUATORS:
        truth, results = copy.deepcopy(THREE), copy.deepcopy(FOUND)
        score(truth, results, evaluator=evaluator)
        assert (truth, results) == (THREE, FOUND)


EXPECTED: dict[str, Any] = json.loads((GOLDEN / "expected.json").read_text()) if GOLDEN.exists() else {}
TASK = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}


@pytest.mark.shared("coco_eval_golden")
@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize("name", EXPECTED or ["expected.json"])
def test_published_numbers(name: str, evaluator: Evaluator) -> None:
    """Cases of cocoapi and others; expected.json holds their published numbers and pycocotools' own in full."""
    case = EXPECTED[name]
    truth, results = (json.loads((GOLDEN / case[key]).read_text()) for key in ("gt", "dt"))
    found = score(truth, results, TASK[case["iou_type"]], evaluator=evaluator).numbers
    names = KEYPOINT_NUMBERS if case["iou_type"] == "keypoints" else NUMBERS
    assert set(names) == case["pycocotools"].keys()
    for number in names:
        expected = math.nan if case["pycocotools"][number] == -1 else case["pycocotools"][number]
        assert found[PREFIXES[case["iou_type"]] + number] == pytest.approx(expected, abs=1e-9, nan_ok=True)


# --- the user's file ---


@pytest.fixture
def val(coco_folder: Path) -> CocoSplit:
    return read_split(coco_folder / "annotations" / "instances_val2017.json", coco_folder / "val2017")


def _change(split: CocoSplit, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(split.file.read_text())
    change(document)
    split.file.write_text(json.dumps(document))


def _perfect(split: CocoSplit) -> list[Result]:
    """The ground truth as results, built from what was read."""
    results = []
    for place, image_id in enumerate(split.image_ids.tolist()):
        for box in range(int(split.starts[place]), int(split.starts[place + 1])):
            x0, y0, x1, y1 = split.boxes[box].tolist()
            category, _ = split.categories[split.labels[box] - 1]
            results.append({"image_id": image_id, "category_id": category, "bbox": [x0, y0, x1 - x0, y1 - y0]})
    return [{**each, "score": 0.9} for each in results]


def test_ground_truth_fills_in_area_and_crowd(val: CocoSplit) -> None:
    def change(document: dict[str, Any]) -> None:
        for each in document["annotations"]:
            del each["area"], each["iscrowd"]
        document["annotations"][0] |= {"area": None, "iscrowd": None}
        document["annotations"][1] |= {"area": 123, "iscrowd": 1}

    _change(val, change)
    annotations = ground_truth(val)["annotations"]
    # Areas are width × height of the boxes in conftest.py, unless the file has one: a mask's is smaller.
    assert [each["area"] for each in annotations] == [24 * 24, 123, 12 * 40, 64 * 20]
    assert [each["iscrowd"] for each in annotations] == [0, 1, 0, 0]


def test_ground_truth_as_detections_is_perfect(val: CocoSplit) -> None:
    assert score(ground_truth(val), _perfect(val)).numbers["AP"] == pytest.approx(1.0)


def test_annotation_ids_do_not_matter(val: CocoSplit) -> None:
    # COCOeval stores the id of what was matched and takes 0 for nothing; many files count from 0, some repeat ids.
    def change(document: dict[str, Any]) -> None:
        for number, each in enumerate(document["annotations"]):
            each["id"] = number // 2
        del document["annotations"][3]["id"]

    _change(val, change)
    scores = score(ground_truth(val), _perfect(val))
    assert scores.numbers["AP"] == pytest.approx(1.0)
    assert scores.f1 == pytest.approx(1.0)


def test_ids_may_be_written_as_texts(val: CocoSplit) -> None:
    expected = _perfect(val)

    def change(document: dict[str, Any]) -> None:
        for each in document["annotations"]:
            each |= {"image_id": str(each["image_id"]), "category_id": str(each["category_id"])}
        for each in document["images"] + document["categories"]:
            each["id"] = str(each["id"])

    _change(val, change)
    split = read_split(val.file, val.folder)
    assert _perfect(split) == expected
    assert score(ground_truth(split), expected).numbers["AP"] == pytest.approx(1.0)


def test_a_box_of_nan_matches_nothing(val: CocoSplit) -> None:
    # To COCOeval, whose comparisons are all false for it, it would be the match of any detection.
    box = [math.nan, 0, 10, 10]
    _change(val, lambda document: document["annotations"].append({"image_id": 2, "category_id": 7, "bbox": box}))
    truth = ground_truth(val)
    assert len(truth["annotations"]) == 4
    wrong: Result = {"image_id": 2, "category_id": 7, "bbox": [40.0, 5.0, 9.0, 9.0], "score": 0.99}
    # Category 7 has two objects, both found after a wrong detection: precision 1/2, then 2/3, which interpolates to
    # 2/3 at every recall. Category 90 is perfect.
    scores = score(truth, [wrong, *_perfect(val)])
    assert scores.per_class["red"]["AP"] == pytest.approx(2 / 3)
    assert scores.per_class["blue"]["AP"] == pytest.approx(1.0)


# --- from the frame to the original ---


def test_boxes_come_back_to_the_original_and_are_clipped() -> None:
    # (height, width): 37 × 50 is seen as 64 × 88, so x shrinks by 50/88 and y by 37/64.
    boxes = torch.tensor([[8.8, 6.4, 44.0, 32.0], [-5.0, -1.0, 500.0, 65.0]], dtype=torch.float16)
    found = in_original({"boxes": boxes}, (37, 50), (64, 88))["boxes"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0], torch.tensor([5.0, 3.7, 25.0, 18.5]), atol=0.01, rtol=0)  # float16 in
    assert found[1].tolist() == [0, 0, 50, 37]


def test_results_carry_the_users_ids() -> None:
    found = {
        "boxes": torch.tensor([[1.0, 2.0, 11.126, 22.0], [0.0, 0.0, 64.0, 48.0]]),
        "scores": torch.tensor([0.7777777, 0.25]),
        "labels": torch.tensor([2, 1]),
    }
    assert coco_results(found, 33, [7, 90], (48, 64)) == [
        {"image_id": 33, "category_id": 90, "bbox": [1.0, 2.0, 10.13, 20.0], "score": 0.77778},
        {"image_id": 33, "category_id": 7, "bbox": [0.0, 0.0, 64.0, 48.0], "score": 0.25},
    ]


@pytest.mark.parametrize("batch", [1, 2])
def test_the_whole_way_through_the_frame(val: CocoSplit, batch: int) -> None:
    # A detector that knows the ground truth in HR pixels: after the frame, the original and the user's ids, AP is 1.
    resolution = Resolution(64, 96)
    images = EvaluationSet(val, resolution, (2,))
    place = iter(range(len(val)))

    def detect(views: Mapping[int, Sequence[Tensor]]) -> list[dict[str, Tensor]]:
        predictions = []
        for view in views[2]:
            owned = slice(*val.starts[(i := next(place)) : i + 2])
            size = (2 * view.shape[-2], 2 * view.shape[-1])
            boxes = to_frame(torch.from_numpy(val.boxes[owned]), (48, 64), size)
            labels = torch.from_numpy(val.labels[owned])
            predictions.append({"boxes": boxes, "scores": torch.full((len(boxes),), 0.5), "labels": labels})
        return predictions

    results = split_results(detect, evaluation_loader(images, batch, workers=0), val, CPU).results
    assert [each["image_id"] for each in results] == [3, 3, 1, 2]  # as the images stand in the file
    assert score(ground_truth(val), results).numbers["AP"] == pytest.approx(1.0)


def test_every_view_of_a_teacher_is_scored(val: CocoSplit, teacher: Detector) -> None:
    results = {view: view_results(teacher, val, view, CPU, workers=0, batch=3).results for view in teacher.spec.views}
    assert set(results) == {"fused", "high", "low"}
    assert all(results.values())
    assert results["high"] != results["low"] != results["fused"] != results["high"]


def test_evaluation_reads_the_pixels_of_its_view_only(
    val: CocoSplit, teacher: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[int, tuple[int, ...]]] = []

    def detect(views: Mapping[int, Sequence[Tensor]], _view: str) -> list[dict[str, Tensor]]:
        seen.append({k: tuple(images[0].shape) for k, images in views.items()})
        nothing = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
        return [nothing for _ in next(iter(views.values()))]

    monkeypatch.setattr(teacher, "detect", detect)
    for view in ("high", "low", "fused"):
        assert view_results(teacher, val, view, CPU, workers=0, batch=3).results == []
    # 48 × 64 enlarged by 64/48 has 64 × 85.3 HR pixels, rounded to a multiple of 4.
    assert seen == [{1: (3, 64, 84)}, {2: (3, 32, 42)}, {1: (3, 64, 84), 2: (3, 32, 42)}]
    view_results(teacher, val, "low", CPU, workers=0, resolution=Resolution(96, 200))
    assert seen[-1] == {2: (3, 48, 64)}
