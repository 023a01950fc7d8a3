"""What a new detector costs: one file and one line, from training to an exported model, through the command line."""

import csv
import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from support.detectors import ORDINARY, images, targets
from support.documents import by_name, by_view, document
from support.specs import spec
from torch import Tensor

from msad_cli.cli.app import run
from msad_cli.distillation.losses.table import DISTILLERS, build_distillers
from msad_cli.errors import UsageError
from msad_cli.export.parity import TOLERANCES
from msad_cli.models.detector import Detector
from msad_cli.models.detectors.kinds import DETECTORS, Entry
from msad_cli.models.weights import initialise as init

THE_LINE = Entry("boxes", "dense", 3, "support.toy_detector:ToyKind")
SHORT = ["--batch", "2", "--device", "cpu", "--precision", "fp32", "--workers", "0", "--seed", "1", "--warmup", "1"]
SMALL = ["--init", "none", "--backbone", "resnet18", "--width", "0.25", "--head-channels", "64", "--head-convs", "1"]


LEAST = 0.05
EXACTLY = f"--score {LEAST} --save json --device cpu --precision fp32"
FORMS = ["pt2 --fixed 32,44", *(pytest.param(each, marks=pytest.mark.slow) for each in ("onnx --fixed 32,44", "onnx"))]


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DETECTORS, "toy", THE_LINE)


def _losses(model: Path) -> list[float]:
    rows = csv.DictReader((model.with_suffix(".run") / "results.csv").read_text().splitlines())
    return [float(row["loss/total"]) for row in rows]


@pytest.mark.parametrize("form", FORMS)
def test_from_training_to_an_exported_model(
    form: str, tmp_path: Path, coco_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, student, graph = (
        tmp_path / name for name in ("t.safetensors", "s.safetensors", f"s.{form.split(maxsplit=1)[0]}")
    )

    def msad(words: str, *arguments: object) -> str:
        capsys.readouterr()
        code = run([*words.split(), *map(str, arguments)])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out

    shape = "--detector toy --size 64,96"
    msad(f"teacher {shape} --epochs 12 --eval-every 12 --lr 0.01 --data", coco_folder, *SMALL, *SHORT, "--out", teacher)
    losses = _losses(teacher)
    assert losses[-1] < 0.7 * losses[0]
    msad("distill --epochs 4 --eval-every 4 --lr 0.01 --teacher", teacher, *SHORT, "--out", student)
    assert len(_losses(student)) == 4
    settings = (student.with_suffix(".run") / "args.json").read_text()
    assert "output-kd" in settings

    scores = by_view(msad("eval --device cpu --workers 0 --json", teacher, "--data", coco_folder))
    assert "AP" in json.dumps(scores)
    assert document(msad("info --json", student))["card"]["detector"] == "toy"
    costs = by_name(msad("flops --json", student))
    assert all(set(each["macs"]) == {"backbone", "pyramid", "fusion", "head", "total"} for each in costs.values())
    assert all(each["macs"]["head"] > 0 for each in costs.values())

    # What a .pt2 file finds is compared when it is written, and never run afterwards: loading one can run code.
    capsys.readouterr()
    assert run(["export", "--format", *form.split(), str(student), "-o", str(graph)]) == 0
    assert "0 without a partner" in capsys.readouterr().err
    if graph.suffix == ".pt2":
        return
    found = {}
    for model in (student, graph):
        out = tmp_path / model.suffix[1:]
        msad(f"predict {EXACTLY}", coco_folder / "val2017", "-m", model, "-o", out)
        found[model.suffix] = json.loads((out / "predictions.json").read_text())
    _same(found[".safetensors"], found[graph.suffix])


def _same(one: Any, other: Any) -> None:
    """JSON of detections, there being some, equal but for rounding, and so for the order of equal scores.

    The weakest may have no partner, as in `parity.py`: of two like boxes rounding tells which one suppression leaves.
    """
    assert len(one) == len(other)
    for mine, theirs in ((one, other), (other, one)):
        clear = [each for each in mine if each["score"] > LEAST + TOLERANCES["scores"]]
        assert clear
        left = list(theirs)
        for each in clear:
            partner = next((other for other in left if _is_same(each, other)), None)
            assert partner is not None, each
            left.remove(partner)


def _is_same(mine: Any, theirs: Any) -> bool:
    return bool(
        mine["image_id"] == theirs["image_id"]
        and mine["category_id"] == theirs["category_id"]
        and mine["bbox"] == pytest.approx(theirs["bbox"], abs=0.1)
        and mine["score"] == pytest.approx(theirs["score"], abs=1e-3)
    )


def test_what_it_does_not_answer_is_refused_by_its_name() -> None:
    detector = Detector(spec(detector="toy"))
    pyramid, frame = detector.pyramid(images(ORDINARY), 1), detector.frame(images(ORDINARY), 1)
    with pytest.raises(UsageError, match="toy has not towers"):
        detector.kind.tower_start("classification", pyramid, 1)
    with pytest.raises(UsageError, match="toy has not anchors"):
        detector.kind.object_anchors(pyramid, frame)
    with pytest.raises(UsageError, match="no published weights of toy"):
        init.from_coco(detector)


def test_views_have_the_losses_of_each_pyramid() -> None:
    torch.manual_seed(0)
    detector = Detector(spec(detector="toy"))
    pyramid, frame = detector.pyramid(images(ORDINARY), 1), detector.frame(images(ORDINARY), 1)
    pyramids = [pyramid, [each + 1 for each in pyramid]]
    alone = [detector.losses(each, frame, targets(ORDINARY)) for each in pyramids]
    assert alone[0] != alone[1]
    assert detector.losses_of_views(pyramids, frame, targets(ORDINARY)) == alone


@pytest.mark.parametrize("method", ["output-kd", "fgd", "mgd"])
def test_a_family_that_nobody_knows_is_no_other_ones(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither dense nor of two stages: constants of either would be wrong without a word."""
    monkeypatch.setitem(DETECTORS, "toy", Entry("boxes", cast("Any", "sets"), 3, THE_LINE.file))
    known = spec(detector="toy")
    assert not known.dense
    assert not known.two_stage
    assert method in DISTILLERS
    with pytest.raises(KeyError, match="sets"):
        build_distillers(known, known, {method: 1.0})


def test_it_learns_as_the_others_do() -> None:
    """Every parameter gets a gradient, from a batch without objects too."""
    torch.manual_seed(0)
    detector = Detector(spec(detector="toy", role="student", ks=(2,)))
    low = images(((64, 64), (64, 64)))
    empty: dict[str, Tensor] = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = detector.losses(detector.pyramid(low, 2), detector.frame(low, 2), [empty, empty])
    torch.stack(list(losses.values())).sum().backward()
    assert all(each.grad is not None for each in detector.parameters() if each.requires_grad)
