"""hotcoco and pycocotools say the same of anything: random sets of boxes, masks and keypoints, and odd ones."""

import contextlib
import copy
import gc
import io
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

from msad_cli.data.annotations.segmentation import encode
from msad_cli.evaluation.coco_eval import Tables, evaluate
from msad_cli.evaluation.metrics import KINDS, OF_PERSONS, Result, score
from msad_cli.system.extras import EVALUATORS, Evaluator

# pycocotools 2.0.11 lacks the copy argument that NumPy 2 asks of __array__, which is for pycocotools to mend.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SIDE = 48
"""Of the masks' images, in pixels."""
IMAGES = [0, 3, 2**31, 2**40 + 1, 2**53 - 1]
CATEGORIES = [0, 2, 90, 10**15]
"""The last one has no objects."""
TASK = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}


class Drawn:
    """A set and what was found in it: objects and crowds of all sizes, near misses, ties, and results of no object.

    Attributes:
        sigmas: one of each keypoint.
        most: a limit on detections, under or over what an image has.
    """

    def __init__(self, seed: int, kind: str) -> None:
        self.draw = np.random.default_rng(seed)
        self.points = int(self.draw.choice([1, 3, 17]))
        self.sigmas = OF_PERSONS if self.points == 17 else tuple((0.01 + self.draw.random(self.points) / 10).tolist())
        self.most = int(self.draw.choice([20, 100, 150, 300]))
        self.truth: dict[str, Any] = {
            "images": [{"id": each, "width": SIDE, "height": SIDE} for each in self.draw.permutation(IMAGES).tolist()],
            "categories": [
                {"id": each, "name": f"class {each}"} for each in self.draw.permutation(CATEGORIES).tolist()
            ],
            "annotations": [
                self._annotation(number, kind) for number in range(1, 1 + self._count(0, 1, 6, 30, 30, 30))
            ],
        }
        tied = self.draw.random() < 0.5
        self.results = [self._result(kind, tied) for _ in range(self._count(0, 1, 6, 40, 40, 250))]

    def _count(self, *counts: int) -> int:
        return int(self.draw.choice(counts))

    def _box(self) -> list[float]:
        box = (self.draw.random(4) * self._count(10, 40, 120, 400)).round(2)
        if self.draw.random() < 0.1:
            box[self.draw.integers(2, 4)] = self.draw.choice([0, 1e-9, 1e6])
        return [float(each) for each in box]

    def _mask(self) -> NDArray[np.uint8]:
        mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
        top, left, height, width = self.draw.integers(0, SIDE, 4)
        mask[top : top + height, left : left + width] = 1
        mask[self.draw.random(mask.shape) < self.draw.choice([0, 0, 0.1])] = 1
        return mask

    def _keypoints(self) -> NDArray[np.float64]:
        points = self.draw.random((self.points, 3)) * self._count(10, 100, 400)
        points[:, 2] = self.draw.integers(0, 3, self.points)
        return points.round(2) * (self.draw.random() > 0.2)  # without any the annotation is ignored

    def _annotation(self, number: int, kind: str) -> dict[str, Any]:
        box = self._box()
        # On the borders of the sizes, and beyond the largest.
        area = (
            float(self.draw.choice([0, 50.5, 1024, 9216, 1e10, 2e10])) if self.draw.random() < 0.3 else box[2] * box[3]
        )
        annotation = {
            "id": number,
            "image_id": int(self.draw.choice(IMAGES)),
            "category_id": int(self.draw.choice(CATEGORIES[:-1])),
            "bbox": box,
            "area": area,
            "iscrowd": int(self.draw.random() < 0.2),
        }
        if kind == "segm":
            drawn = self._mask()
            ring = np.array(box[:2] * 4, dtype=np.float64).reshape(4, 2) % SIDE
            ring += [[0, 0], [9, 0], [9, 9], [0, 9]]
            # As the ground truth of a split has it: RLE, or polygons drawn by our own code; some have none.
            own = rle.encode(np.asfortranarray(drawn)) if self.draw.random() < 0.7 else encode([ring], (SIDE, SIDE))
            if self.draw.random() < 0.9:
                annotation |= {"segmentation": own, "area": float(rle.area(own))}
        if kind == "keypoints":
            points = self._keypoints()
            annotation |= {"keypoints": points.ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum())}
        return annotation

    def _result(self, kind: str, tied: bool) -> Result:
        near: dict[str, Any] = {}
        if self.truth["annotations"] and self.draw.random() < 0.7:
            near = self.truth["annotations"][int(self.draw.integers(len(self.truth["annotations"])))]
        value = float(self.draw.choice([0.1, 0.5, 0.9])) if tied else round(float(self.draw.random()), 5)
        away = self.draw.choice([0, 2, 8])
        result = {
            "image_id": near.get("image_id", int(self.draw.choice(IMAGES))),
            "category_id": near.get("category_id", int(self.draw.choice(CATEGORIES))),
            "bbox": [round(each + float(self.draw.normal(0, away)), 2) for each in near.get("bbox", self._box())],
            "score": value,
        }
        if kind == "segm":
            mask = rle.decode(near["segmentation"]) if "segmentation" in near else self._mask()
            mask = np.roll(mask, int(self.draw.integers(-4, 5)), axis=0) & (self.draw.random(mask.shape) > away / 20)
            runs = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
            result["segmentation"] = {"size": runs["size"], "counts": runs["counts"].decode("ascii")}
        if kind == "keypoints":
            points = np.array(near["keypoints"]).reshape(-1, 3) if near else self._keypoints()
            moved = points + self.draw.normal(0, away, points.shape)
            result["keypoints"] = [round(each, 2) for each in moved.ravel().tolist()]
        return result


def _plain(drawn: Drawn, kind: str) -> COCOeval:
    """pycocotools without msad, on the document as it is."""
    truth, results = copy.deepcopy(drawn.truth), copy.deepcopy(drawn.results)
    if kind == "segm":
        truth["annotations"] = [each for each in truth["annotations"] if "segmentation" in each]
    for each in results if kind != "bbox" else ():
        del each["bbox"]
    with contextlib.redirect_stdout(io.StringIO()):
        coco, found = COCO(), COCO()
        coco.dataset, found.dataset = truth, {**truth, "annotations": []}
        coco.createIndex()
        found.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results) if results else found, kind)
        evaluation.params.maxDets[-1] = drawn.most
        if kind == "keypoints":
            evaluation.params.kpt_oks_sigmas = np.array(drawn.sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _assert_same(one: Tables, other: Tables) -> None:
    """To the last bit."""
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, 4))])
@pytest.mark.parametrize("kind", TASK)
def test_random_sets(kind: str, part: int, capfd: pytest.CaptureFixture[str]) -> None:
    known = 0
    for seed in range(12 * part, 12 * part + 12):
        drawn = Drawn(seed, kind)
        before = copy.deepcopy((drawn.truth, drawn.results))
        fast, slow = (evaluate(drawn.truth, drawn.results, kind, drawn.sigmas, drawn.most, each) for each in EVALUATORS)
        assert (drawn.truth, drawn.results) == before
        _assert_same(fast, slow)
        plain = _plain(drawn, kind)
        np.testing.assert_array_equal(fast.precision, plain.eval["precision"])
        np.testing.assert_array_equal(fast.recall, plain.eval["recall"])
        assert fast.category_ids == tuple(plain.params.catIds)
        assert fast.limits == tuple(plain.params.maxDets)
        assert fast.areas == tuple(plain.params.areaRngLbl)
        known += bool(((fast.precision > 0) & (fast.precision < 1)).any())
    assert known >= 3  # sets that tell a good evaluation from a bad one
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("task", KINDS)
def test_everything_that_is_said_of_random_sets(task: str) -> None:
    thresholds = set()
    for seed in range(100, 115):
        drawn = Drawn(seed, KINDS[task][-1])
        fast, slow = (
            score(drawn.truth, drawn.results, task, drawn.sigmas, evaluator=each).to_json() for each in EVALUATORS
        )
        assert json.dumps(fast) == json.dumps(slow)  # as texts, in which NaN equals NaN
        thresholds.add(fast["threshold"])
    assert len(thresholds) > 3


def _truth(image: int, category: int, number: int = 1) -> dict[str, Any]:
    box = {"image_id": image, "category_id": category, "bbox": [0, 0, 40, 40], "area": 1600, "iscrowd": 0}
    return {
        "images": [{"id": image}, {"id": 5}],
        "categories": [{"id": category, "name": "a"}, {"id": 6, "name": "b"}],
        "annotations": [{"id": number, **box}, {"id": 7, **box, "image_id": 5, "bbox": [9, 0, 40, 40]}],
    }


@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize(("image", "category"), [(1, 2), (0, 0), (-3, -2), (2**63 - 1, 2**62), (-(2**63), 2**32)])
def test_ids_do_not_matter(evaluator: Evaluator, image: int, category: int) -> None:
    # pycocotools takes a match with an annotation of id 0 for none; hotcoco has no negative ids.
    results = [{"image_id": image, "category_id": category, "bbox": [0, 0, 40, 40], "score": 0.5}]
    scores = score(_truth(image, category, number=0), results, evaluator=evaluator)
    assert scores.numbers["AP"] == pytest.approx(51 / 101)  # one of two objects: the recalls 0.00 … 0.50
    assert scores.f1 == pytest.approx(2 / 3)
    assert scores.per_class["a"]["AP"] == scores.numbers["AP"]


@pytest.mark.parametrize("kind", TASK)
def test_what_no_evaluation_reads_may_be_anything(kind: str) -> None:
    drawn = Drawn(8, kind)
    expected = evaluate(drawn.truth, drawn.results, kind, drawn.sigmas, drawn.most)
    drawn.truth |= {"info": "none", "licenses": None, "own": {1, 2}}
    for each in drawn.truth["images"]:
        each |= {"file_name": None, "license": "x", "date_captured": 5, "coco_url": []}
        if kind != "segm":
            each |= {"width": "wide", "height": -1}
    for each in drawn.truth["categories"]:
        each |= {"name": 5, "supercategory": None, "keypoints": 3, "skeleton": "x"}
    for each in drawn.truth["annotations"]:
        each |= {"score": "x", "obb": 1, "ignore": 1, "attributes": {1, 2}, "is_group_of": "x"}
        if kind != "segm":
            each["segmentation"] = "x"
        if kind != "keypoints":
            each |= {"keypoints": "x", "num_keypoints": -1}
    elsewhere = {**drawn.truth["annotations"][0], "image_id": 99}  # whose image the file lacks
    drawn.truth["annotations"].append(elsewhere)
    for evaluator in EVALUATORS:
        _assert_same(evaluate(drawn.truth, drawn.results, kind, drawn.sigmas, drawn.most, evaluator), expected)
    assert (expected.precision > 0).any()


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_results_that_the_truth_does_not_know(evaluator: Evaluator) -> None:
    truth = _truth(1, 2)
    result = {"image_id": 1, "category_id": 2, "bbox": [0, 0, 40, 40], "score": 0.5}
    expected = evaluate(truth, [result], "bbox", (), 100, evaluator)
    _assert_same(evaluate(truth, [result, {**result, "category_id": 3}], "bbox", (), 100, evaluator), expected)
    with pytest.raises(KeyError, match="8"):
        evaluate(truth, [{**result, "image_id": 8}], "bbox", (), 100, evaluator)


@pytest.mark.parametrize("kind", TASK)
@pytest.mark.parametrize("lists", [["annotations"], ["annotations", "categories"], ["annotations", "images"], []])
def test_empty_documents(kind: str, lists: list[str]) -> None:
    truth = {**Drawn(8, kind).truth, **{name: [] for name in lists}}
    fast, slow = (evaluate(truth, [], kind, [0.05] * 17, 100, each) for each in EVALUATORS)
    _assert_same(fast, slow)
    assert (fast.precision <= 0).all()
    assert not fast.scores.size


@pytest.mark.parametrize("running", [True, False])
def test_the_collector_is_left_as_it_was(running: bool) -> None:
    result = {"image_id": 8, "category_id": 2, "bbox": [0, 0, 40, 40], "score": 0.5}
    try:
        gc.enable() if running else gc.disable()
        evaluate(_truth(1, 2), [], "bbox", (), 100)
        assert gc.isenabled() is running
        with pytest.raises(KeyError):
            evaluate(_truth(1, 2), [result], "bbox", (), 100)
        assert gc.isenabled() is running
    finally:
        gc.enable()


def test_sigmas_of_persons_are_cocos() -> None:
    assert tuple(Params("keypoints").kpt_oks_sigmas.tolist()) == OF_PERSONS


def test_scoring_needs_neither_torch_nor_matplotlib() -> None:
    heavy = "{'torch', 'matplotlib', 'pycocotools'}"
    code = f"import sys, msad_cli.evaluation.metrics\nassert not {heavy} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
