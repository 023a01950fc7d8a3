"""plots/ and samples/ of a run: the numbers behind them, the files, and that none of them ends a run."""

import contextlib
import dataclasses
import io
import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.flags import EXACT, SMALLEST

from msad_cli.cli.app import run
from msad_cli.data.annotations.split import read_split
from msad_cli.data.layouts.demo import draw_demo
from msad_cli.data.layouts.splits import find_split
from msad_cli.data.loading.dataset import EvaluationSet, TrainingSet, first_batch, training_loader
from msad_cli.errors import UsageError
from msad_cli.evaluation.confusion import Confusion, confusion
from msad_cli.evaluation.curves import STEPS
from msad_cli.evaluation.fusion_weights import fusion_weights
from msad_cli.evaluation.metrics import Result, score
from msad_cli.frame import Resolution
from msad_cli.inference.draw import draw_boxes
from msad_cli.models.fusion import CrossFusion
from msad_cli.models.model_file import load_model
from msad_cli.runs import report as album
from msad_cli.runs.pages.run_page import write_run_page
from msad_cli.runs.plots import results as result_plots
from msad_cli.runs.plots.figures import shown, write_figure
from msad_cli.runs.run_curves import (
    OTHERS,
    SIZE_EDGES,
    RunCurves,
    collect_curves,
    confusion_matrix,
    count_sizes,
    read_curves,
    write_curves,
)
from msad_cli.runs.samples import COLUMNS, GAP, LINE, TILE, spread
from msad_cli.system.device import Compute

# pycocotools 2.0.11 lacks the copy argument that NumPy 2 asks of __array__, which is for pycocotools to mend.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.plots,
]

IMAGES, BATCH = 6, 2
TINY = [*SMALLEST, "--size=96,128", f"--batch={BATCH}", "--epochs=1", *EXACT]
PLOTS = {"loss.png", "ap.png", "pr.png", "f1.png", "confusion.png", "sizes.png", "fusion.png"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "demo"
    draw_demo(folder, train=IMAGES, val=3, seed=1, size=(128, 96))
    return folder


@pytest.fixture(scope="module")
def teacher(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    assert run(["teacher", "--data", str(demo), *TINY, "--out", str(out)]) == 0
    return out


def drawn(seed: int) -> tuple[dict[str, Any], list[Result]]:
    """Objects of three classes, crowds among them, in ten images, and shaken copies of them, no two of one score."""
    draw = np.random.default_rng(seed)
    boxes = np.concatenate([200 * draw.random((80, 2)), 20 + 60 * draw.random((80, 2))], axis=1)
    objects: list[dict[str, Any]] = [
        {"id": number, "image_id": int(draw.integers(10)), "category_id": int(draw.choice([3, 7, 90]))}
        | {"bbox": box.tolist(), "area": float(box[2] * box[3]), "iscrowd": int(draw.random() < 0.1)}
        for number, box in enumerate(boxes, start=1)
    ]
    results = [
        {"image_id": each["image_id"], "bbox": (np.array(each["bbox"]) + draw.uniform(-12, 12, 4)).tolist()}
        | {"category_id": each["category_id"] if draw.random() < 0.8 else int(draw.choice([3, 7, 90]))}
        for each in 2 * objects
    ]
    for each, value in zip(results, draw.permutation(len(results)), strict=True):
        each["score"] = (int(value) + 1) / 200
    names = {3: "cat", 7: "dog", 90: "cow", 91: "no object"}
    truth = {
        "images": [{"id": number, "width": 300, "height": 300} for number in range(10)],
        "categories": [{"id": number, "name": name} for number, name in names.items()],
        "annotations": objects,
    }
    return truth, results


# --- the numbers ---


@pytest.mark.parametrize("seed", range(4))
def test_precision_over_recall_is_pycocotools_own_array(seed: int) -> None:
    truth, results = drawn(seed)
    curve = score(truth, results).precision["bbox"]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([dict(each) for each in results]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # thresholds, recalls, classes
    assert np.array_equal(evaluation.params.recThrs, STEPS)
    for place, name in enumerate(("cat", "dog", "cow")):
        assert np.array_equal(curve.by_class[name], precision[0, :, place])
    assert set(curve.by_class) == {"cat", "dog", "cow"}  # of the fourth class there is no object
    assert curve.at50 == pytest.approx(precision[0, :, :3].mean(axis=1), abs=1e-12)
    assert curve.at75 == pytest.approx(precision[5, :, :3].mean(axis=1), abs=1e-12)


def test_curves_over_the_score_by_hand() -> None:
    """Two objects. At 0.9 one right box, at 0.5 a wrong one, at 0.25 the other right one."""
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "one"}],
        "annotations": [
            {"id": place, "image_id": 1, "category_id": 1, "bbox": [place, 0, 20, 20], "area": 400, "iscrowd": 0}
            for place in (100, 200)
        ],
    }
    results = [
        {"image_id": 1, "category_id": 1, "bbox": [place, 0, 20, 20], "score": value}
        for place, value in ((100, 0.9), (300, 0.5), (200, 0.25))
    ]
    scores = score(truth, results)
    curve = scores.over_score
    for at, precision, recall, f1 in (
        (0.0, 2 / 3, 1, 4 / 5),
        (0.25, 2 / 3, 1, 4 / 5),
        (0.26, 1 / 2, 1 / 2, 2 / 4),
        (0.5, 1 / 2, 1 / 2, 2 / 4),
        (0.51, 1, 1 / 2, 2 / 3),
        (0.9, 1, 1 / 2, 2 / 3),
        (0.91, math.nan, 0, 0),
    ):
        place = round(100 * at)
        got = curve.precision[place], curve.recall[place], curve.f1[place]
        assert got == pytest.approx((precision, recall, f1), nan_ok=True), at
    assert scores.f1 == 0.8
    assert scores.precision["bbox"].by_class == {}  # that of a single class is the mean


def test_curves_of_a_set_without_objects_say_nothing() -> None:
    truth = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "one"}], "annotations": []}
    scores = score(truth, [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}])
    assert np.isnan(scores.precision["bbox"].at50).all()
    assert np.isnan(scores.over_score.recall).all()


def _object(image: int, category: int, x: float, crowd: int = 0) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": [x, 0, 20, 20], "iscrowd": crowd}


def _found(image: int, category: int, x: float, value: float) -> Result:
    return {"image_id": image, "category_id": category, "bbox": [x, 0, 20, 20], "score": value}


def test_confusion_by_hand() -> None:
    """Boxes of 20 × 20; two that lie 5 pixels apart have IoU 15 / 25, 10 pixels apart 10 / 30."""
    truth = {
        "annotations": [
            _object(1, 3, 0),
            _object(1, 7, 100),
            _object(1, 7, 200),
            _object(1, 90, 300),
            _object(1, 3, 400, crowd=1),
            _object(2, 3, 0),
            _object(2, 7, 5),
        ]
    }
    results = [
        _found(1, 3, 0, 0.9),  # right
        _found(1, 3, 5, 0.8),  # a second one for the same object
        _found(1, 90, 105, 0.7),  # a 7 is taken for a 90
        _found(1, 7, 210, 0.7),  # too far from the second 7, which is missed
        _found(1, 90, 300, 0.4),  # right, but under the threshold: missed
        _found(1, 3, 400, 0.9),
        _found(1, 3, 402, 0.9),  # in a crowd of 3: not counted
        _found(1, 7, 400, 0.9),  # in a crowd of another class
        _found(2, 7, 0, 0.9),  # overlaps the 3 more, but there is a 7
        _found(3, 7, 0, 0.5),  # an image without objects; just the threshold
    ]
    assert confusion(truth, results, 0.5) == {
        (3, 3): 1,
        (None, 3): 1,
        (7, 90): 1,
        (None, 7): 3,
        (7, None): 1,
        (90, None): 1,
        (7, 7): 1,
        (3, None): 1,
    }


@pytest.mark.parametrize("seed", range(4))
def test_confusion_has_the_hits_that_the_best_f1_counts(seed: int) -> None:
    truth, results = drawn(seed)
    scores = score(truth, results)
    counts = confusion(truth, results, scores.threshold)
    hits = sum(count for (one, other), count in counts.items() if one == other)
    objects = sum(count for (one, _), count in counts.items() if one is not None)
    taken = sum(count for (_, other), count in counts.items() if other is not None)
    assert objects == sum(not each["iscrowd"] for each in truth["annotations"])
    assert 2 * hits / (objects + taken) == pytest.approx(scores.f1, abs=1e-12)


def test_a_confusion_matrix_has_the_most_frequent_classes_and_the_rest_as_one() -> None:
    counts: Confusion = Counter(
        {(1, 1): 5, (2, 2): 9, (3, 4): 2, (4, 4): 1, (4, None): 1, (None, 3): 7, (1, 3): 1, (2, None): 4}
    )
    names = {1: "a", 2: "b", 3: "c", 4: "d"}
    classes, matrix = confusion_matrix(counts, names, most=3)
    assert classes == ("b", "a", OTHERS)
    # down and across: b, a, the others, background
    assert matrix.tolist() == [[9, 0, 0, 4], [0, 5, 1, 0], [0, 0, 3, 1], [0, 0, 7, 0]]
    classes, matrix = confusion_matrix(counts, names)
    assert classes == ("b", "a", "c", "d")
    assert matrix.sum() == counts.total()


def test_sizes_are_binned_by_hand() -> None:
    """Two bins an octave from 2 to 4096 pixels: 4 … 5.66 is the third, 32 … 45.25 the ninth."""
    assert SIZE_EDGES[[0, 2, 8, 22]] == pytest.approx([2, 4, 32, 4096])
    sizes = count_sizes([0, 1, 4**2, 5.6**2, 5.7**2, 31.9**2, 32.0**2, 45**2, 4095**2, 1e9, 1e20])
    assert {int(place): int(sizes[place]) for place in np.flatnonzero(sizes)} == {0: 2, 2: 2, 3: 1, 7: 1, 8: 2, 21: 3}


def test_ap_by_size_is_that_of_each_view() -> None:
    truth, results = drawn(0)
    scores = {"high": score(truth, results), "low": score(truth, results[:40])}
    found = collect_curves(truth, scores, confusion(truth, results, 0.5), None)
    assert found.view == "high"
    for view, each in scores.items():
        assert found.size_ap[view] == pytest.approx([each.numbers[name] for name in ("APs", "APm", "APl")], nan_ok=True)
    assert found.sizes.sum() == sum(not each["iscrowd"] for each in truth["annotations"])


def test_fusion_weights_are_those_of_the_fused_pyramid(demo: Path, teacher: Path) -> None:
    """fused = w0 · high + w1 · low at each level, image by image."""
    detector, _ = load_model(teacher)
    assert isinstance(detector.fusion, CrossFusion)
    torch.nn.init.normal_(detector.fusion.weigh.weight)  # it begins with zeros, and has hardly learnt
    split = _split(demo, "val")
    weights = fusion_weights(detector, split, Compute(torch.device("cpu"), "fp32"), [0, 2])
    assert weights.shape == (2, 5, 2)
    assert len(np.unique(weights.round(6))) > 2
    images = EvaluationSet(split, detector.spec.resolution, detector.spec.ks, phase=detector.spec.phase)
    for row, place in zip(weights, (0, 2), strict=True):
        with torch.inference_mode():
            high, low = (detector.pyramid([images[place].views[k]], k) for k in (1, 2))
            fused = detector.fuse([high, low])
        for level, (one, other) in zip(row, zip(high, low, strict=True), strict=True):
            expected = float(level[0]) * one + float(level[1]) * other
            torch.testing.assert_close(fused.pop(0), expected)


def _split(folder: Path, name: str) -> Any:
    files = find_split(str(folder), name)
    return read_split(files.annotations, files.images)


def _curves() -> RunCurves:
    truth, results = drawn(1)
    scores = score(truth, results)
    return collect_curves(truth, {"low": scores}, confusion(truth, results, scores.threshold), None)


def test_curves_come_back_from_their_file(tmp_path: Path) -> None:
    """To the four digits that are written."""
    curves, path = _curves(), tmp_path / "curves.json"
    write_curves(path, curves)
    again = read_curves(path)
    assert again is not None
    assert again.over_score.f1 == pytest.approx(curves.over_score.f1, abs=5e-5)
    assert again.over_score.precision == pytest.approx(curves.over_score.precision, abs=5e-5, nan_ok=True)
    assert again.precision["boxes"].by_class["cat"] == pytest.approx(
        curves.precision["boxes"].by_class["cat"], abs=5e-5
    )
    assert np.array_equal(again.confusion, curves.confusion)
    assert again.classes == curves.classes
    assert np.array_equal(again.sizes, curves.sizes)
    assert read_curves(tmp_path / "none.json") is None


# --- the files ---


def test_a_run_leaves_its_plots_and_samples(teacher: Path) -> None:
    folder = teacher.with_suffix(".run")
    assert {each.name for each in (folder / "plots").iterdir()} == PLOTS
    for each in (folder / "plots").iterdir():
        with Image.open(each) as image:
            assert image.format == "PNG"
            assert len(image.convert("L").getcolors() or ()) > 2
    assert "not drawn" not in (folder / "log.txt").read_text()
    assert (folder / "report.html").exists()
    metrics = json.loads((folder / "metrics.json").read_text())["fused"]
    curves = json.loads((folder / "curves.json").read_text())
    assert curves["view"] == "fused"
    assert curves["threshold"] == metrics["threshold"]
    assert curves["fusion"]["levels"] == [3, 4, 5, 6, 7]
    for row in curves["fusion"]["mean"]:
        assert sum(row) == pytest.approx(1, abs=1e-4)


def test_the_samples_show_two_training_images_and_three_of_validation(teacher: Path) -> None:
    """Images of 128 × 96 become tiles of 480 × 360: the batch's two in both views in a row, and two pairs a row."""
    width = COLUMNS * TILE + (COLUMNS + 1) * GAP
    row = LINE + TILE * 96 // 128 + GAP
    for name, rows in (("training.jpg", 1), ("validation.jpg", 2)):
        with Image.open(teacher.with_suffix(".run") / "samples" / name) as image:
            assert image.format == "JPEG"
            assert abs(image.width - width) <= COLUMNS
            assert abs(image.height - GAP - rows * row) <= 3 * rows


def test_the_training_sample_shows_the_batch_that_is_trained_on(demo: Path) -> None:
    training = TrainingSet(_split(demo, "train"), Resolution(96, 128), (1, 2), seed=3)
    first, whole = first_batch(training, 4, most=2), next(training_loader(training, 4, 0, 0, 10))
    assert first.indices == whole.indices[:2]
    for k in (1, 2):
        for one, other in zip(first.views[k], whole.views[k], strict=False):
            assert torch.equal(one, other)


def test_samples_are_spread_over_images_with_objects(coco_folder: Path) -> None:
    """One of the four training images has no object."""
    split = _split(coco_folder, "train")
    filled = [place for place in range(len(split)) if split.starts[place + 1] > split.starts[place]]
    assert len(filled) == 3
    assert spread(split, 9) == filled
    assert spread(split, 2) == [filled[0], filled[-1]]
    assert spread(dataclasses.replace(split, starts=np.zeros_like(split.starts)), 9) == [0, 1, 2, 3]


def test_a_student_ends_beside_its_control_and_its_teacher(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table on the screen is that of compared.json and of the page, which is written once."""
    written: list[Path] = []

    def write(model: Path) -> Path:
        written.append(model)
        return write_run_page(model)

    monkeypatch.setattr(album, "write_run_page", write)
    student = tmp_path / "student.safetensors"
    distil = ["distill", "--teacher", str(teacher), "--batch", "2", "--epochs", "1", *EXACT]
    assert run([*distil, "--no-distill", "--quiet", "--out", str(tmp_path / "plain.safetensors")]) == 0
    alone = json.loads((tmp_path / "plain.run" / "compared.json").read_text())
    assert list(alone["rows"]) == ["plain", "teacher, fused", "teacher, high", "teacher, low"]
    assert alone["where"] == ""  # nobody looked on
    assert written == [tmp_path / "plain.safetensors"]
    capsys.readouterr()
    assert run([*distil, "--out", str(student)]) == 0
    assert written[1:] == [student]
    ended = capsys.readouterr()
    table = ended.out.partition("\n\n")[0]
    rows = [line.split("  ")[0] for line in table.splitlines()[2:] if not line.startswith(" ")]
    compared = json.loads((tmp_path / "student.run" / "compared.json").read_text())
    assert rows == list(compared["rows"]) == ["plain", "student", "teacher, fused", "teacher, high", "teacher, low"]
    assert all(each["ms"] > 0 for each in compared["rows"].values())
    assert "precision" in compared["where"]
    assert "not drawn" not in (tmp_path / "student.run" / "log.txt").read_text()
    page = (tmp_path / "student.run" / "report.html").read_text()
    assert f"{compared['rows']['student']['ms']:.2f}" in page
    assert f"{student}, " in ended.out
    assert f"report: {tmp_path / 'student.run'}" in ended.err
    assert all(name in table for name in ("APs", "GMACs", "backbone", "head", "ms"))


@pytest.mark.slow
@pytest.mark.parametrize("detector", ["maskrcnn", "keypointrcnn"])
def test_masks_and_keypoints_are_shown_too(
    detector: str, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("draw_masks", "draw_keypoints"):
        real = getattr(sys.modules["msad_cli.inference.draw"], name)

        def counted(*args: Any, name: str = name, real: Any = real) -> Any:
            calls.append(name)
            return real(*args)

        monkeypatch.setattr(f"msad_cli.inference.draw.{name}", counted)
    out = tmp_path / "t.safetensors"
    more = ["--detector", detector, "--rois", "8", "--size", "64,96"]
    assert run(["teacher", "--data", str(demo), *TINY, *more, "--out", str(out)]) == 0
    folder = out.with_suffix(".run")
    assert "not drawn" not in (folder / "log.txt").read_text()
    # Two training images in two views; three validation images, each with its objects and with what was found.
    assert Counter(calls) == {"draw_masks" if detector == "maskrcnn" else "draw_keypoints": 2 * 2 + 3 * 2}
    kind = "masks" if detector == "maskrcnn" else "keypoints"
    assert set(json.loads((folder / "curves.json").read_text())["precision"]) == {"boxes", kind}


def test_a_box_without_a_text_is_its_segmentation_alone() -> None:
    """A line of one pixel around 20 × 10."""
    drawn = draw_boxes(Image.new("RGB", (64, 48)), [(8, 20, 28, 30)], [1], [""])
    assert np.asarray(drawn).any(axis=2).sum() == 2 * 20 + 2 * 8


def test_names_of_all_kinds_can_be_drawn(tmp_path: Path) -> None:
    """Formulas, what legends leave out, what the font lacks, and what is too long."""
    names = ["$x", "$a_b$", "_hidden", "細胞", "a\x1b[31m", "", "x" * 80]
    truth, results = drawn(2)
    truth["categories"] = [{"id": number, "name": name} for number, name in enumerate(names)]
    for number, each in enumerate(truth["annotations"] + results):
        each["category_id"] = number % len(names)
    scores = score(truth, results)
    curves = collect_curves(truth, {"low": scores}, confusion(truth, results, 0.1), None)
    assert len(curves.precision["boxes"].by_class) == len(names)
    for name, draw in result_plots.drawings(curves).items():
        write_figure(draw(curves, "_a$b"), tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    assert all(len(shown(name)) <= 26 for name in names)


# --- nothing of it ends a run ---


@pytest.mark.parametrize(
    ("functions", "missing"),
    [
        ((album, "draw_training", "plot_epochs", "draw_found", "confusion"), None),
        pytest.param((album, "plot_epochs"), {"plots/loss.png", "plots/ap.png"}, marks=pytest.mark.slow),
        ((result_plots, "plot_confusion"), {"plots/confusion.png"}),
    ],
)
def test_a_plot_that_fails_is_a_line_in_the_log(
    demo: Path,
    teacher: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    functions: tuple[Any, ...],
    missing: set[str] | None,
) -> None:
    """`missing` is None where all that is drawn is, and curves.json."""

    def fail(*args: Any) -> None:
        raise RuntimeError("no ink")

    for name in functions[1:]:
        monkeypatch.setattr(functions[0], name, fail)
    out = tmp_path / "t.safetensors"
    assert run(["teacher", "--data", str(demo), *TINY, "--out", str(out)]) == 0
    assert out.read_bytes()[-1000:] == teacher.read_bytes()[-1000:]  # the same weights
    there, here = (
        {each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()}
        for folder in (teacher.with_suffix(".run"), out.with_suffix(".run"))
    )
    everything = {each for each in there if each.startswith(("plots/", "samples/"))} | {"curves.json"}
    assert there - here == (everything if missing is None else missing)
    log = (out.with_suffix(".run") / "log.txt").read_text()
    assert log.count("RuntimeError: no ink") == len(functions) - 1


# --- msad plot ---


def test_plot_draws_the_same_again(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plots = teacher.with_suffix(".run") / "plots"
    before = {each.name: each.read_bytes() for each in plots.iterdir()}
    for each in plots.iterdir():
        each.unlink()
    assert run(["plot", str(teacher)]) == 0
    assert capsys.readouterr().err.count("drawn: ") == len(PLOTS) + 1  # report.html
    after = {each.name: np.asarray(Image.open(each)) for each in plots.iterdir()}
    assert set(after) == PLOTS
    for name in PLOTS:
        # Rounded to four digits a line may move by a fraction of a pixel.
        one = np.asarray(Image.open(io.BytesIO(before[name]))).astype(int)
        assert np.abs(after[name].astype(int) - one).mean() < 0.5, name
    (plots / "f1.png").unlink()
    assert run(["plot", str(teacher.with_suffix(".run")), "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert (plots / "f1.png").exists()


def test_plot_draws_what_an_unfinished_run_has(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cut.run"
    folder.mkdir()
    (folder / "results.csv").write_bytes((teacher.with_suffix(".run") / "results.csv").read_bytes())
    monkeypatch.chdir(folder)
    assert run(["plot", "."]) == 0
    assert {each.name for each in (folder / "plots").iterdir()} == {"loss.png", "ap.png"}
    assert "curves.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("nowhere.safetensors", {}, "nowhere.run: no such folder"),
        ("nowhere.run", {}, "nowhere.run: no such folder"),
        ("/", {}, "not a run's folder"),
        ("plain", {"plain/results.csv": "epoch,AP/low\n1,0.5\n"}, "not a run's folder"),
        ("empty.run", {"empty.run/notes.txt": "hello"}, "no results.csv"),
        ("foreign.run", {"foreign.run/results.csv": "name,value\na,1\n"}, "results.csv is damaged"),
        ("bad.run", {"bad.run/results.csv": "epoch,AP/low\n1,0.5\n", "bad.run/curves.json": "[1]"}, "curves.json is"),
        ("bad.run", {"bad.run/results.csv": "epoch,AP/low\n1,0.5\n", "bad.run/curves.json": "{"}, "curves.json is"),
    ],
)
def test_plot_refuses_what_is_no_run(
    name: str,
    files: dict[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for file, text in files.items():
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).write_text(text)
    assert run(["plot", name]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "\n\nhint: " in said
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize(
    "change",
    [
        {"confusion": [[1]]},
        {"sizes": [1, 2]},
        {"classes": 3},
        {"fusion": {"levels": [3]}},
        {"threshold": "high"},
        {"precision": {"boxes": {"at50": [0.5], "at75": [], "by_class": {}}}},
        {"over_score": None},
    ],
)
def test_curves_of_wrong_shapes_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "curves.json"
    write_curves(path, _curves())
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UsageError, match="damaged"):
        read_curves(path)


@pytest.mark.slow
def test_plot_needs_no_torch(teacher: Path) -> None:
    code = f"import sys\nfrom msad_cli.cli.app import run\nassert run(['plot', {str(teacher)!r}]) == 0\n"
    code += "assert not {'torch', 'matplotlib.pyplot'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_new_run_forgets_the_curves_of_the_one_it_overwrites(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "t.safetensors"
    stale = out.with_suffix(".run") / "curves.json"
    stale.parent.mkdir()
    stale.write_text("{}")
    assert run(["teacher", "--data", str(demo), *TINY, "--out", str(out), "--overwrite", "--time", "0s"]) == 0
    assert not stale.exists()
