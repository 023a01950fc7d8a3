"""Limits of what suppression looks at: in the detector, its graph and the JSON beside it; and suppression in ONNX."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.detectors import TWO_STAGES, lively, spec_of
from torch import Tensor, nn

from msad_cli.cli.app import run
from msad_cli.errors import UsageError
from msad_cli.export import pt2
from msad_cli.export.base import ExportFormat
from msad_cli.export.formats import FORMATS
from msad_cli.export.parity import compare
from msad_cli.export.runtime import ExportedModel
from msad_cli.export.sidecar import InputShape, exported_spec, read_sidecar, sidecar_path
from msad_cli.export.trace import trace
from msad_cli.models.decode.deployed import Deployed
from msad_cli.models.decode.limits import OWN, SCORE_THRESHOLD, Limits
from msad_cli.models.decode.nms import DROPPED, best_pairs, suppress, top
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, save_model

DENSE = ("fcos", "retinanet", "rtmdet")


def built(name: str) -> Detector:
    torch.manual_seed(0)
    detector = Detector(spec_of(name, role="student", ks=(2,), detections_per_image=1000)).eval()
    lively(detector.core)
    return detector


def pixels() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, 3, 24, 32), generator=generator, dtype=torch.uint8)


def test_the_best_pairs_by_hand() -> None:
    """Of three anchors and two classes. Alone, an anchor's second class takes no place of another anchor."""
    scores = torch.tensor([[[0.9, 0.8], [0.1, 0.2], [0.7, 0.3]]])
    best, anchors, classes = best_pairs(scores, 3, one_class=False)
    assert best.tolist() == [pytest.approx([0.9, 0.8, 0.7])]
    assert (anchors.tolist(), classes.tolist()) == ([[0, 0, 2]], [[0, 1, 0]])
    best, anchors, classes = best_pairs(scores, 4, one_class=True)
    assert best.tolist() == [pytest.approx([0.9, 0.7, 0.2, DROPPED])]
    assert (anchors[0, :3].tolist(), classes[0, :3].tolist()) == ([0, 2, 1], [0, 0, 1])


@pytest.mark.parametrize("limits", [Limits(1.0), Limits(candidates=40), Limits(one_class=True), Limits(1.0, 60, True)])
@pytest.mark.parametrize("name", DENSE)
@torch.no_grad()
def test_a_limited_detector_and_its_graph_find_the_same_and_less_than_without(name: str, limits: Limits) -> None:
    """A score of 1 stands for the median of what is found. Graphs have a thousand candidates of all levels together,
    torchvision's detectors of each: with nine anchors a cell that is another 300 behind the first 600."""
    images = {2: list(pixels())}
    whole = built(name).detect(images, "low")
    limits = replace(limits, score=limits.score * float(whole[0]["scores"].median()) if limits.score == 1 else 0.05)
    detector = built(name)
    detector.limit(limits=limits)
    graph = ExportedModel(exported_spec(detector.spec, "low"), Deployed(detector, "low"))
    for each, other, all_of_it in zip(detector.detect(images, "low"), graph.detect(images, "low"), whole, strict=True):
        assert 0 < len(each["scores"]) < len(all_of_it["scores"])
        assert float(each["scores"].min()) > limits.score
        assert len(each["scores"]) <= (limits.candidates or 1000)
        mine, theirs = ({name: values[:600] for name, values in one.items()} for one in (each, other))
        assert torch.equal(mine["labels"], theirs["labels"])
        torch.testing.assert_close(mine["scores"], theirs["scores"])
        torch.testing.assert_close(mine["boxes"], theirs["boxes"], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", TWO_STAGES)
def test_two_stages_take_a_lowest_score_and_no_candidates(name: str) -> None:
    detector = built(name)
    detector.limit(limits=Limits(0.4))
    assert detector.kind.post_processing.score_thresh == 0.4
    with pytest.raises(UsageError, match=f"--candidates: {name} finds proposals first"):
        detector.limit(limits=Limits(candidates=9))


def test_words_by_hand() -> None:
    assert Limits(0.2, 300).words() == "scores above 0.2, 300 candidates"
    assert OWN.words() == Limits(one_class=True).words() == ""


class _Suppression(nn.Module):
    """Boxes of an image (N, 3, h, w) of bytes: corners from its first rows, scores from the row behind them."""

    k = 1

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        rows = images[:, 0].float()
        boxes = torch.cat([rows[:, :2], rows[:, :2] + 20 + rows[:, 2:4] / 4], dim=1).transpose(1, 2)
        scores = torch.where(rows[:, 4] > 20, rows[:, 4] / 256, DROPPED)
        kept = suppress(boxes, scores, images[:, 0, 5].long() % 3, 3, 0.4, 9)
        scores, places = top(kept, 9)
        return boxes.gather(1, places[..., None].expand(-1, -1, 4)), scores, places


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@torch.no_grad()
def test_suppression_in_a_graph_is_that_of_torch_for_any_number_of_images(form: ExportFormat) -> None:
    """Of three images of forty boxes, in one of which no box takes part."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 8, 40), generator=generator, dtype=torch.uint8)
    images[1, 0, 4] = 0
    network = _Suppression()
    program = trace(network, InputShape(None, (8, 40)))  # type: ignore[arg-type]
    exported = form.load(form.write(program, "boxes"), "boxes", "m", InputShape(None, (8, 40)), "")
    expected = network(images)
    assert (expected[1] > DROPPED).sum(dim=1).tolist() == [9, 0, 9]
    for count in (1, 3):
        for mine, other in zip(exported(images[:count]), expected, strict=True):
            there = expected[1][:count] > DROPPED
            assert torch.equal(mine[there], other[:count][there])


@pytest.mark.slow
def test_a_pt2_file_needs_no_msad(tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    path.write_bytes(pt2.write(trace(_Suppression(), InputShape(2, (8, 40))), "boxes"))  # type: ignore[arg-type]
    program = (
        "import sys, torch, torchvision; sys.modules['msad_cli'] = None;"
        "found = torch.export.load(sys.argv[1]).module()(torch.full((2, 3, 8, 40), 99, dtype=torch.uint8));"
        "print([tuple(each.shape) for each in found])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True)
    assert done.stdout == "[(2, 9, 4), (2, 9), (2, 9)]\n"


@pytest.mark.slow
def test_export_takes_limits_says_what_they_cost_and_writes_them_down(
    coco_folder: Path, student: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "student.safetensors", tmp_path / "m.pt2"
    save_model(path, student, Card(data=str(coco_folder)))
    flags = [
        "--lowest-score",
        "0.06",
        "--candidates",
        "50",
        "--agnostic",
        "--fixed",
        "64,48",
        "--data",
        str(coco_folder),
    ]
    assert run(["export", str(path), "-o", str(out), *flags]) == 0
    said = capsys.readouterr().err
    assert "0 without a partner" in said
    assert "scores above 0.06, 50 candidates cost " in said
    written = json.loads(sidecar_path(out).read_text())["postprocessing"]
    assert (written["lowest_score"], written["candidates"], written["classes_of_a_box"]) == (0.06, 50, "the best")
    assert read_sidecar(sidecar_path(out)).limits == Limits(0.06, 50, one_class=True)
    assert SCORE_THRESHOLD < 0.06
    assert run(["export", str(path), "--candidates", "0"]) == 2
    assert run(["export", str(path), "--lowest-score", "1.5"]) == 2


def test_a_graph_says_below_what_it_finds_nothing(student: Detector) -> None:
    graph = ExportedModel(student.spec, lambda images: [images], lowest=0.2)
    assert (graph.drop_below(0.1), graph.drop_below(0.3)) == (0.2, 0.3)
    assert (student.drop_below(0.01), student.drop_below(0.3)) == (SCORE_THRESHOLD, 0.3)


def test_a_score_below_what_is_found_at_all_is_told(
    coco_folder: Path, student: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, seen = tmp_path / "student.safetensors", tmp_path / "seen"
    save_model(path, student, Card(data=str(coco_folder)))
    looked = ["predict", str(coco_folder / "val2017"), "-m", str(path), "-o", str(seen), "--overwrite", "--score"]
    assert run([*looked, "0.01"]) == 0
    assert f"--score 0.01: {path} finds nothing below 0.05" in capsys.readouterr().err.replace("\n", "")
    assert run([*looked, "0.05"]) == 0
    assert "finds nothing below" not in capsys.readouterr().err


def test_what_stands_next_to_the_lowest_score_may_be_missing() -> None:
    box = {"boxes": torch.tensor([[0.0, 0.0, 9.0, 9.0]]), "scores": torch.tensor([0.305]), "labels": torch.tensor([1])}
    none = {name: each[:0] for name, each in box.items()}
    assert compare([box], [none], 0.3, 100).unmatched == 0
    assert compare([box], [none], SCORE_THRESHOLD, 100).unmatched == 1
