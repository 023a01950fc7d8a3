"""A whole fit of the demo set at toy size: nothing is given, everything is trained, exported and measured."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.documents import document

import msad_cli as msad
from msad_cli.cli.app import run
from msad_cli.fitting.choice import candidates, measuring
from msad_cli.fitting.choice.candidates import Network, candidates_for
from msad_cli.fitting.choice.facts import find_facts
from msad_cli.models.model_file import load_model

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    """One network, that learns in seconds, and few runs of it."""
    monkeypatch.setattr(candidates, "NETWORKS", (Network("fcos", "resnet18", 0.125, 64, 1),))
    monkeypatch.setattr(measuring, "RUNS", 2)
    monkeypatch.setattr(measuring, "LEAST_SECONDS", 0.0)


def test_from_the_demo_set_to_a_report(
    tmp_path: Path, demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    code = run(["fit", "--data", str(demo), "--budget", "1s", "--time", "20s", "--k", "2", "--device", "cpu", "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    told = document(captured.out)
    student, _ = load_model(tmp_path / "student.safetensors")
    assert student.spec.ks == (2,)
    assert (tmp_path / "student.onnx").exists()
    assert told["result"]["int8"]["file"] == "student.int8.onnx"
    assert told["result"]["int8"]["milliseconds"] > 0
    assert told["result"]["student"]["milliseconds"] <= 1000
    assert told["result"]["student"]["ap"] is not None
    # What is trained is what was measured; RoIs are of detectors of two stages.
    plain, _ = load_model(tmp_path / "student.fit" / "plain.safetensors")
    among = candidates_for(find_facts(str(demo), lambda line: None), candidates.NETWORKS, (1, 2))
    specs = {each.name: replace(each.spec, learning=student.spec.learning) for each in among}
    taken = [specs[row["name"]] for row in told["plan"]["candidates"] if row["taken"]]
    assert taken == [student.spec, plain.spec]
    page = (tmp_path / "student.fit" / "report.html").read_text()
    assert told["result"]["verdict"].split(";")[0] in page
    # A command of it, typed by hand, makes the same weights.
    words = shlex.split(told["commands"][0])[1:]
    words[words.index("--out") + 1] = "again.safetensors"
    assert run([*words, "--quiet"]) == 0
    again, _ = load_model(tmp_path / "again.safetensors")
    for name, each in student.state_dict().items():
        assert each.equal(again.state_dict()[name])


def test_python_has_it_all_by_programs(tmp_path: Path, demo: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.chdir(tmp_path)
    asked = {"data": str(demo), "budget": "1s", "time": "10s", "k": "2", "device": "cpu", "control": False}
    fitted = msad.fit(**asked, out=Path("s.safetensors"))  # type: ignore[arg-type]
    assert capfd.readouterr() == ("", "")
    assert fitted.verdict is not None
    assert fitted.verdict.met
    assert fitted.verdict.ship == Path("s.onnx")
    assert fitted.verdict.int8 is not None
    assert fitted.verdict.int8.file.exists()
    written = json.loads(Path("s.fit/verdict.json").read_text())
    assert written["verdict"] == fitted.verdict.words
    assert written["bench"]["machine"]["threads"] == 1
    # All of it was done by the commands that it names.
    assert msad.fit(resume=Path("s.fit")).commands == fitted.commands
