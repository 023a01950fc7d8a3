"""Which boxes are answered of those that overlap, and how many: predict, eval, export and Python."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.detectors import EACH, lively, spec_of
from support.specs import spec
from torch import Tensor, nn

import msad_cli as msad
from msad_cli.cli.app import run
from msad_cli.errors import UsageError
from msad_cli.export.runtime import ExportedModel
from msad_cli.export.sidecar import exported_spec
from msad_cli.models.decode.deployed import Deployed
from msad_cli.models.decode.nms import SAME_OBJECT, one_class_a_box
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, save_model

FLAGS = ["--device", "cpu", "--precision", "fp32"]


def built(name: str, **changes: Any) -> Detector:
    torch.manual_seed(0)
    detector = Detector(spec_of(name, **{"role": "student", "ks": (2,), **changes})).eval()
    lively(detector.core)
    if name == "fcos":  # sides of two strides, so that neighbours overlap
        nn.init.constant_(detector.core.head.regression_head.bbox_reg.bias, 2.0)
    return detector


def pixels() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (3, 24, 32), generator=generator, dtype=torch.uint8) for _ in range(2)]


def test_an_object_keeps_its_best_class_by_hand() -> None:
    """Two boxes of 10 × 10 that lie one pixel apart have IoU 90 / 110 = 0.82, two pixels apart 80 / 120 = 0.67."""
    found = {
        "boxes": torch.tensor([[x, 0.0, x + 10.0, 10.0] for x in (0, 1, 40, 2)]),
        "scores": torch.tensor([0.5, 0.9, 0.3, 0.4]),
        "labels": torch.tensor([1, 2, 1, 2]),
    }
    kept = one_class_a_box(found, SAME_OBJECT)
    assert kept["labels"].tolist() == [2, 1]
    assert kept["boxes"][:, 0].tolist() == [1, 40]
    assert one_class_a_box(found, 0.85)["labels"].tolist() == [2, 1, 2, 1]


@pytest.mark.parametrize("name", EACH)
@torch.no_grad()
def test_a_limit_holds_in_the_detector_and_in_its_graph(name: str) -> None:
    """More boxes than before at a higher IoU, fewer at a lower one, and never more than are allowed."""
    views, counts = {2: pixels()}, []
    for overlap in (0.1, None, 0.9):
        detector = built(name, detections_per_image=1000)
        detector.limit(overlap)
        counts.append(len(detector.detect(views, "low")[0]["scores"]))
    assert 7 < counts[0] < counts[1] < counts[2]
    detector = built(name)
    detector.limit(most=7)
    assert detector.spec.detections_per_image == 7
    graph = ExportedModel(exported_spec(detector.spec, "low"), Deployed(detector, "low"))
    for mine, other in zip(detector.detect(views, "low"), graph.detect(views, "low"), strict=True):
        assert len(mine["scores"]) == 7
        torch.testing.assert_close(other["boxes"], mine["boxes"], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", EACH)
@torch.no_grad()
def test_a_graph_leaves_out_what_prediction_leaves_out(name: str) -> None:
    detector = built(name, detections_per_image=200)
    views = {2: pixels()}
    expected = [one_class_a_box(each, 0.3) for each in detector.detect(views, "low")]
    graph = ExportedModel(exported_spec(detector.spec, "low"), Deployed(detector, "low", 0.3))
    for mine, other in zip(expected, graph.detect(views, "low"), strict=True):
        assert 0 < len(mine["scores"]) < 200
        assert mine.keys() == other.keys()
        assert torch.equal(mine["labels"], other["labels"])
        for each in mine.keys() - {"labels"}:
            torch.testing.assert_close(other[each], mine[each], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", EACH)
@torch.no_grad()
def test_what_is_surer_stays_the_same_where_the_rest_is_dropped(name: str) -> None:
    views, detector = {2: pixels()}, built(name, detections_per_image=60)
    whole = detector.detect(views, "low")
    least = float(whole[0]["scores"][20])
    detector.drop_below(least)
    for mine, every in zip(detector.detect(views, "low"), whole, strict=True):
        sure = every["scores"] >= least  # the one that has it among them
        assert 0 < len(mine["scores"]) == int(sure.sum()) < 60
        for each in mine:
            assert torch.equal(mine[each], every[each][sure])


def test_what_cannot_be_set_is_refused() -> None:
    detector = built("fcos")
    for wrong in ({"nms_iou": 1.5}, {"most": 0}, {"most": 1001}):
        with pytest.raises(UsageError, match="out of range"):
            detector.limit(**wrong)
    graph = ExportedModel(exported_spec(spec(role="student", ks=(2,)), "low"), Deployed(detector, "low"))
    graph.limit()
    with pytest.raises(UsageError, match="in the graph of an exported model"):
        graph.limit(most=5)


@pytest.fixture
def model(tmp_path: Path, student: Detector) -> Path:
    """Untrained: each place has both classes with nearly one score."""
    path = tmp_path / "student.safetensors"
    save_model(path, student, Card(score_threshold=0.0))
    return path


def test_predict_gives_an_object_one_class_and_says_when_the_limit_is_reached(
    model: Path, coco_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(next((coco_folder / "val2017").glob("*.png")))

    def found(*flags: str) -> tuple[list[dict[str, Any]], str]:
        capsys.readouterr()
        assert run(["predict", image, "-m", str(model), "--stdout", *FLAGS, *flags]) == 0
        said = capsys.readouterr()
        return json.loads(said.out)["detections"], said.err

    both, _ = found("--per-class-nms")
    alone, said = found()
    assert 0 < len(alone) < len(both)
    assert {json.dumps(each, sort_keys=True) for each in alone} < {json.dumps(each, sort_keys=True) for each in both}
    counts = [sum(each["category"] == name for each in alone) for name in ("red", "blue")]
    shown = ", ".join(f"{count} {name}" for count, name in zip(counts, ("red", "blue"), strict=True) if count)
    assert f"{image}: {shown}  " in said
    few, said = found("--max-detections", "3", "--per-class-nms")
    assert few == both[:3]
    assert "1 image has 3 detections, the most allowed, and may hold more: raise --max-detections" in said
    assert run(["predict", image, "-m", str(model), "--max-detections", "1001"]) == 2

    loaded = msad.load(model, device="cpu", precision="fp32", max_detections=3)
    assert len(loaded.predict(image, agnostic=False).scores) == 3
    assert len(loaded.predict(image).scores) <= 3


def test_eval_counts_as_it_is_told(model: Path, coco_folder: Path, tmp_path: Path) -> None:
    """Of an image no more than are allowed, and of an object one class or all."""
    counts: list[int] = []
    for flags in (["--agnostic"], [], ["--max-detections", "2"]):
        file = tmp_path / f"{len(counts)}.json"
        command = ["eval", str(model), "--data", str(coco_folder), "--predictions", str(file), "--workers", "0"]
        assert run([*command, *FLAGS, *flags]) == 0
        counts.append(len(json.loads(file.read_text())))
    assert 0 < counts[0] < counts[1]
    assert counts[2] == 2 * 3  # images


@pytest.mark.filterwarnings("ignore:OpenCV:UserWarning")
def test_detections_for_the_trackers_and_annotators_of_supervision(model: Path, coco_folder: Path) -> None:
    supervision = pytest.importorskip("supervision")
    found = msad.load(model, device="cpu", precision="fp32").predict(next((coco_folder / "val2017").glob("*.png")))
    theirs = found.to_supervision()
    assert isinstance(theirs, supervision.Detections)
    assert len(theirs) == len(found.scores) > 0
    assert np.array_equal(theirs.xyxy, found.boxes)
    assert np.array_equal(theirs.confidence, found.scores)
    assert theirs.class_id.tolist() == found.labels.tolist()
    assert theirs["class_name"].tolist() == list(found.names)
