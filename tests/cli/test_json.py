"""What `--json` prints, by the schema that docs/json.md explains."""

import json
import re
from pathlib import Path

import pytest
from jsonschema import ValidationError
from support.documents import by_name, document
from support.places import ROOT

from msad_cli.cli.app import run
from msad_cli.cli.output.json_output import SCHEMA
from msad_cli.evaluation.latency import PARTS
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, save_model

EXACTLY = ["--device", "cpu", "--precision", "fp32"]


@pytest.fixture
def files(tmp_path: Path, coco_folder: Path, student: Detector, teacher: Detector) -> dict[str, str]:
    """A student of AP 0.3, and a teacher whose fused view has 0.4 and whose low one 0.5."""
    of = {
        "student": (student, {"low": {"AP": 0.3, "APs": None}}),
        "teacher": (teacher, {"fused": {"AP": 0.4}, "high": {"AP": 0.2}, "low": {"AP": 0.5}}),
    }
    found = {"data": str(coco_folder)}
    for name, (detector, scores) in of.items():
        found[name] = str(tmp_path / f"{name}.safetensors")
        save_model(Path(found[name]), detector, Card(data=str(coco_folder), scores=scores))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("eval {student} --workers 0", ["student"]),
        ("eval {teacher} --workers 0", ["teacher, fused", "teacher, high", "teacher, low"]),
        ("eval {student} --workers 0 --size 64,48", ["student, 64", "student, 48"]),
        ("compare {student} {teacher} --runs 0", ["student", "teacher"]),
        ("compare {student} {teacher} --runs 1 --budget 100000", ["student", "teacher"]),
        ("bench {student} --runs 1 --stock", ["{student}", "stock fcos, HR, resnet18"]),
        ("flops {student} --size 64,96 --size 128,192", 2 * ["stock fcos, HR", "teacher, fused", "student, 1/2"]),
        ("flops --backbone resnet18 --size 64,96", ["stock fcos, HR", "teacher, fused", "student, 1/2"]),
        ("info {student}", ["student"]),
        ("info {teacher}", ["teacher, fused", "teacher, high", "teacher, low"]),
        ("data check {data}", None),
        ("data stats {data}", None),
        ("doctor", None),
    ],
)
def test_every_command_keeps_to_the_schema(
    command: str, names: list[str] | None, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = command.format_map(files).split()
    computes = words[0] in ("eval", "compare", "bench")
    assert run([*words, "--json", *(EXACTLY if computes else [])]) == 0
    told = document(capsys.readouterr().out)
    assert told["command"] == " ".join(words[: 1 + (words[0] == "data")])
    if names is None:
        assert "models" not in told
    else:
        assert [each["name"] for each in told["models"]] == [name.format_map(files) for name in names]


def test_one_thing_has_one_name(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """AP, multiply-accumulates and latencies of a student, by every command that says them."""
    student, found = files["student"], {}
    for command in ("eval --workers 0", "compare --runs 1", "bench --runs 1", "flops", "info"):
        name, *flags = command.split()
        computes = name in ("eval", "compare", "bench")
        assert run([name, student, *flags, "--json", *(EXACTLY if computes else [])]) == 0
        found[name] = list(by_name(capsys.readouterr().out).values())[-1]
    assert {each["file"] for each in found.values()} == {student}
    assert {each["view"] for each in found.values()} == {"low"}
    assert found["compare"]["scores"]["AP"] == found["info"]["scores"]["AP"] == 0.3
    assert "AP" in found["eval"]["scores"]
    assert found["compare"]["macs"]["total"] == pytest.approx(found["flops"]["macs"]["total"])
    assert found["compare"]["macs"]["head"] == pytest.approx(found["flops"]["macs"]["head"])
    assert list(found["compare"]["latency_ms"]) == list(found["bench"]["latency_ms"]) == ["p50", "p95", *PARTS]
    # A view uses most of what the file holds.
    assert 0.5 < found["flops"]["parameters"]["total"] / found["info"]["parameters"]["total"] <= 1


def test_the_cost_of_a_model_is_told_from_what_it_is_compared_with(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for model, own in (("student", "student, 1/2"), ("teacher", "teacher, fused")):
        assert run(["flops", files[model], "--json"]) == 0
        of_file = [name for name, each in by_name(capsys.readouterr().out).items() if each["file"] == files[model]]
        assert of_file == [own]


def test_the_best_is_the_model_of_the_highest_ap(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", files["teacher"], "--json"]) == 0
    told = document(capsys.readouterr().out)
    assert told["best"] == told["models"][2]
    assert told["best"]["view"] == "low"
    assert run(["compare", files["student"], files["teacher"], "--runs", "0", "--view", "all", "--json"]) == 0
    assert document(capsys.readouterr().out)["best"]["name"] == "teacher, low"
    assert run(["flops", files["student"], "--json"]) == 0
    assert document(capsys.readouterr().out)["best"] is None


def test_a_budget_and_json_are_one_document(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    for budget, ship in (("1e6", "teacher"), ("0.001", None)):
        models = [files["student"], files["teacher"]]
        assert run(["compare", *models, "--runs", "1", "--budget", budget, "--json", *EXACTLY]) == 0
        told = document(capsys.readouterr().out)
        assert (told["budget_ms"], told["ship"]) == (float(budget), ship)


def test_the_schema_refuses_what_it_does_not_know() -> None:
    cost = '"macs": {"total": 1}, "parameters": {"total": 1}'
    model = f'{{"name": "a", "file": null, "view": "low", "size": "8,8", "images": 1, {cost}}}'
    good = f'{{"schema": 1, "command": "flops", "best": null, "models": [{model}]}}'
    document(good)
    for before, after in (
        ('"schema": 1', '"schema": 2'),
        ('"flops"', '"flop"'),
        ('"best": null, ', ""),
        ('"view": "low"', '"view": "small"'),
        ('"total": 1', '"all": 1'),
        ('"images": 1', '"image_count": 1'),
    ):
        with pytest.raises(ValidationError):
            document(good.replace(before, after))


def test_the_page_explains_every_name_of_a_model() -> None:
    page = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    assert set(json.loads(SCHEMA.read_text(encoding="utf-8"))["$defs"]["model"]["properties"]) <= explained
