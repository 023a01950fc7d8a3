"""benchmarks/evidence.py: verdicts and spreads by hand, a table of two models, and the order of a run."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.scripts import script

from msad_cli.data.annotations.split import read_split
from msad_cli.errors import UsageError
from msad_cli.models.detector import Detector
from msad_cli.models.detectors.kinds import DETECTORS
from msad_cli.models.model_file import Card, save_model
from msad_cli.runs.folder import RunFolder


@pytest.fixture
def evidence(monkeypatch: pytest.MonkeyPatch) -> Any:
    return script(monkeypatch, "benchmarks/evidence.py")


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Any:
    return script(monkeypatch, "benchmarks/evidence_report.py")


@pytest.mark.parametrize(
    ("differences", "margin", "said"),
    [
        ([1.5], 1.0, "yes (one seed)"),
        ([0.5], 1.0, "no (one seed)"),
        ([2.0, 2.2, 2.4], 1.0, "yes"),
        ([-1.0, -1.2, -1.4], 0.0, "no"),
        # Mean 1.1, standard deviation 1, standard error 0.58: the margin of 1.0 is nearer than that.
        ([0.1, 1.1, 2.1], 1.0, "open, rather yes"),
        ([0.0, 0.0, 0.0], 0.0, "no"),
    ],
)
def test_verdicts_by_hand(report: Any, differences: list[float], margin: float, said: str) -> None:
    assert report.verdict(differences, margin) == said


@pytest.mark.parametrize(
    ("distilled", "said"),
    [
        # Beside the better of both, 50, 51, 50: 2.0, 2.2, 1.8 more, with a standard error of 0.12.
        ([52.0, 53.2, 51.8], "yes"),
        # 0.5 more.
        ([50.5, 51.5, 50.5], "no"),
        # 1.5 more with a standard deviation of 3.0 and a standard error of 1.7.
        ([48.5, 55.5, 51.5], "no: within two standard errors"),
        ([52.0], "yes (one seed)"),
    ],
)
def test_whether_distillation_helps(report: Any, distilled: list[float], said: str) -> None:
    lines = {
        (name, "low"): report.Line(name, {"AP": values}, 1.0, 1.0, 1.0)
        for name, values in {
            "scratch-both": [50.0, 49.0, 50.0],
            "init-only": [49.0, 51.0, 48.0],
            "l1": distilled,
        }.items()
    }
    (row,) = report.distillation_helps(lines, "l1")
    assert row.split(" | ")[-1] == f"{said} |"
    assert report.distillation_helps(lines, "output-kd") == []
    assert report.distillation_helps({key: lines[key] for key in list(lines)[1:]}, "l1") == []


def test_a_spread_by_hand(report: Any) -> None:
    """Of 1, 2, 3 the mean is 2 and the sample's standard deviation 1."""
    assert report.spread([1.0, 2.0, 3.0]) == "2.0 ± 1.0"
    assert report.spread([54.321]) == "54.3"
    assert report.spread([float("nan")] * 3) == report.spread([]) == "-"


def test_a_student_waits_for_its_own_teacher(evidence: Any) -> None:
    """Two jobs; the first seed's teacher ends last of all that can run without it."""
    rows = evidence.rows_of("fcos", evidence.scale_of("cpu", "fcos"), 2)
    runs = [(rows[name], seed) for seed in (0, 1) for name in ("teacher", "vanilla", "init-only")]
    order: list[tuple[str, int]] = []
    others = threading.Event()

    def train(row: Any, seed: int) -> None:
        if (row.name, seed) == ("teacher", 0):
            assert others.wait(timeout=60)
        order.append((row.name, seed))
        if (row.name, seed) == ("vanilla", 0):
            others.set()

    evidence.train_all(runs, 2, train)
    assert sorted(order) == sorted((row.name, seed) for row, seed in runs)
    assert order.index(("teacher", 0)) < order.index(("init-only", 0))
    assert order.index(("teacher", 1)) < order.index(("init-only", 1))


def test_k_is_that_of_every_teacher_with_a_small_view(evidence: Any) -> None:
    """Students take their teacher's; a single scale at H has k = 1."""
    rows = evidence.rows_of("fcos", evidence.scale_of("cpu", "fcos"), 4)
    teachers = {name for name, row in rows.items() if row.command.startswith("teacher")}
    assert {name for name, row in rows.items() if "--k 4" in row.command} == teachers - {
        "single-high",
        "single-high-both",
    }


@pytest.mark.parametrize("flag", ["--seeds", "--jobs", "--pictures"])
def test_counts_below_one_are_refused(
    evidence: Any, flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["evidence.py", "set", flag, "0"])
    with pytest.raises(SystemExit, match="2"):
        evidence.main()
    assert f"{flag} 0: at least 1" in capsys.readouterr().err


def test_the_estimate_alone_trains_nothing(
    evidence: Any,
    tmp_path: Path,
    coco_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Four models of 10,500 images, a teacher at 4/7 of a second each and a vanilla one at 0.8 of it, twice. These are
    6 hours of one job and 3 of two, where the first teacher takes 50 minutes and its vanilla neighbour 40."""
    out = tmp_path / "evidence"
    monkeypatch.setattr(evidence, "seconds_an_image", lambda *_: 4 / 7)
    command = ["evidence.py", str(coco_folder), "--detector", "fcos", "--rows", "teacher,vanilla", "--seeds", "2"]
    monkeypatch.setattr("sys.argv", [*command, "--jobs", "2", "--out", str(out), "--estimate"])
    evidence.main()
    said = capsys.readouterr().out
    assert said.startswith("4 models of ")
    assert said.endswith("about 3 h\n")
    monkeypatch.setattr("sys.argv", [*command, "--jobs", "2", "--out", str(out), "--estimate", "--minutes", "91"])
    evidence.main()
    left_out, estimated = capsys.readouterr().out.splitlines()
    assert left_out == "left out for want of time: teacher.1, vanilla.1"
    assert estimated.startswith("2 models of ")
    assert estimated.endswith("about 1 h 30 min")
    assert not out.exists()


def test_rows_are_as_typed_but_for_those_that_others_need(evidence: Any) -> None:
    """A cheap row behind one that does not fit is not reached: what is compared is trained from the first one on."""
    known = evidence.rows_of("fcos", evidence.scale_of("cpu", "fcos"), 2)
    typed = ["of-stronger", "scratch-both", "teacher"]
    assert [each.name for each in evidence.in_order(typed, known)] == ["teacher", "of-stronger", "scratch-both"]
    assert [evidence.first_within([2.0, 1.0, 5.0, 0.5], limit) for limit in (1.9, 3.0, 7.9, 9.0)] == [0, 2, 2, 4]


def test_a_step_is_timed_on_the_sets_own_images(evidence: Any, coco_folder: Path) -> None:
    scale = evidence.scale_of("cpu", "fcos")
    small = replace(scale, network=f"{scale.network} --size 64,96")
    assert 0 < evidence.seconds_an_image(evidence.read(coco_folder, "train", "fcos"), "fcos", small, 2) < 60


def test_models_of_another_run_are_not_taken_for_these(evidence: Any, tmp_path: Path, teacher: Detector) -> None:
    """The fixture's teacher is an FCOS of k = 2."""
    file = tmp_path / "teacher.0.safetensors"
    save_model(file, teacher, Card(epochs=36))
    evidence.refuse_others([file], "fcos", 2, 36)
    for detector, k in (("fcos", 4), ("retinanet", 2)):
        with pytest.raises(UsageError, match=f"fcos, k = 2, not {detector}, k = {k}"):
            evidence.refuse_others([file], detector, k, 36)
    with pytest.raises(UsageError, match="trained for 36 epochs, not 72"):
        evidence.refuse_others([file], "fcos", 2, 72)


@pytest.mark.parametrize("detector", DETECTORS)
def test_every_claim_is_on_rows_that_there_are(evidence: Any, report: Any, detector: str) -> None:
    rows = evidence.rows_of(detector, evidence.scale_of("gpu", detector), 2)
    claims = report.claims_for(evidence.methods_of(detector))
    assert {name for claim in claims for name, _ in (claim.better, claim.worse)} < set(rows)
    assert set(evidence.MAIN) < set(rows)
    assert all({row.learns_from, row.starts_from} <= {"", *rows} for row in rows.values())


def test_the_report_of_two_models(
    report: Any,
    tmp_path: Path,
    coco_folder: Path,
    student: Detector,
    teacher: Detector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One teacher, and two seeds of a student with AP 0.5 and 0.6 beside 0.52 of the teacher's high view."""
    monkeypatch.setattr(report, "RUNS", 2)
    files = {
        "teacher": [tmp_path / "t.0.safetensors"],
        "vanilla": [tmp_path / "none.safetensors"],
        "l1": [tmp_path / f"s.{seed}.safetensors" for seed in (0, 1)],
    }
    scores = {
        files["teacher"][0]: {"fused": 0.55, "high": 0.52, "low": 0.4},
        files["l1"][0]: {"low": 0.5},
        files["l1"][1]: {"low": 0.6},
    }
    for path, views in scores.items():
        save_model(path, teacher if "fused" in views else student, Card(data=str(coco_folder)))
        run = RunFolder(path).path
        run.mkdir()
        (run / "metrics.json").write_text(json.dumps({view: {"AP": ap, "APs": None} for view, ap in views.items()}))
    val = read_split(coco_folder / "annotations" / "instances_val2017.json", coco_folder / "val2017")
    text = report.write_report(
        tmp_path, files, dict.fromkeys(files, "row"), "the command", val, report.claims_for(["l1"]), files
    )
    table = [line.split(" | ") for line in text.splitlines() if line.startswith("| row")]
    assert [(line[0], line[1], line[2]) for line in table] == [
        ("| row, fused", "1", "55.0"),
        ("| row, high", "1", "52.0"),
        ("| row, low", "1", "40.0"),
        ("| row", "2", "55.0 ± 7.1"),
    ]
    assert "| teacher: H&L > H | 3.0 | yes (one seed) |" in text
    assert "vanilla" not in text  # no claim on what was not trained
    assert (tmp_path / "evidence.png").stat().st_size > 1000
    assert len((tmp_path / "evidence.csv").read_text().splitlines()) == 1 + 3 + 2
