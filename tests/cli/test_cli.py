"""What users type: help, exit codes, messages, and the main job from training to cost."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.documents import by_name, by_view, document

from msad_cli.cli.app import run
from msad_cli.models.model_file import read_header

TINY = [
    "--init",
    "none",
    "--backbone",
    "resnet18",
    "--width",
    "0.25",
    "--head-channels",
    "64",
    "--head-convs",
    "1",
    "--size",
    "96,128",
    "--batch",
    "2",
    "--epochs",
    "2",
    "--device",
    "cpu",
    "--precision",
    "fp32",
    "--workers",
    "0",
]


@pytest.fixture(scope="module")
def teacher(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    assert run(["teacher", "--data", str(demo), *TINY, "--out", str(out)]) == 0
    return out


def distil(teacher: Path, out: Path, *more: str) -> int:
    return run(["distill", "--teacher", str(teacher), *TINY[-10:], "--out", str(out), *more])


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["teacher", "--help"], ["distill", "--nonsense"], []])
def test_help_and_usage_errors_do_not_import_torch(arguments: list[str]) -> None:
    code = f"import sys\nfrom msad_cli.cli.app import run\nrun({arguments!r})\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["eval", "none.safetensors", "--json"], "model-file-missing", 4),
        (["flops", "--json", "--backbones", "resnet18"], "wrong-usage", 2),
        (["flops", "--json", "--backbone", "resnet19"], "setting-refused", 2),
        (["data", "check", "none", "--json"], "data-folder-missing", 3),
        (["--json", "teacher", "--data", "none"], "data-folder-missing", 3),
    ],
)
def test_json_of_a_command_that_fails_is_the_error(
    arguments: list[str], code: str, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == exit_code
    printed = capsys.readouterr()
    error = document(printed.out)["error"]
    assert (error["code"], error["exit_code"]) == (code, exit_code)
    assert printed.err == f"error: {error['message']}\n" + (f"\nhint: {error['hint']}\n" if error["hint"] else "")
    assert run([each for each in arguments if each != "--json"]) == exit_code
    assert capsys.readouterr() == ("", printed.err)


def test_json_before_a_command_keeps_results_from_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--json", "flops", "--backbone", "resnet18"]) == 0
    aside = capsys.readouterr()
    assert run(["flops", "--backbone", "resnet18"]) == 0
    usual = capsys.readouterr()
    assert usual.out
    assert (aside.out, aside.err) == ("", usual.out + usual.err)


def test_json_of_a_command_that_fails_with_a_result_is_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "set.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert run(["data", "check", str(tmp_path / "set.json"), "--images", str(tmp_path), "--json"]) == 3
    printed = capsys.readouterr()
    assert "no-images" in printed.out
    assert "error" not in document(printed.out)
    assert "\nerror: " in printed.err


def test_who_reads_stdout_may_have_enough() -> None:
    for arguments in (["--help"], ["flops", "--backbone", "resnet18", "--json"]):
        read, write = os.pipe()
        os.close(read)  # as `| head` does after its lines
        done = subprocess.run(
            [sys.executable, "-m", "msad_cli", *arguments], stdout=write, stderr=subprocess.PIPE, check=False
        )
        os.close(write)
        assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_python_m_msad_cli_is_msad() -> None:
    done = subprocess.run([sys.executable, "-m", "msad_cli", "--version"], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("msad ")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["teacher", "--data", "nowhere"], 3, "nowhere: no such folder"),
        (["teacher", "--data", "demo", "--nonsense"], 2, "--nonsense"),
        (["teacher", "--data", "demo", "--k", "3"], 2, "--k 3"),
        (["teacher", "--data", "demo", "--size", "many"], 2, "--size many"),
        (["teacher", "--data", "demo", "--size", "10"], 2, "32 <= SHORT"),
        (["teacher", "--data", "demo", "--out", "model.pt"], 2, ".safetensors"),
        (["teacher"], 2, "no data given"),
        (["teacher", "--data", "demo", "--backbone", "resnet18", "--init", "nowhere.pth", "-q"], 4, "no such weights"),
        (["teechr"], 2, "teechr"),
        (["distill", "--teacher", "nowhere.safetensors"], 4, "no such model file"),
        (["eval", "nowhere.safetensors"], 4, "no such model file"),
        (["eval", "nowhere.safetensors", "--fail-under", "APP=1"], 2, "APP=1"),
        (["eval", "nowhere.safetensors", "--fail-under", "AP=36"], 2, "AP=36: not from 0 to 1"),
        (["eval", "nowhere.safetensors", "--fail-under", "AP=nan"], 2, "AP=nan: not from 0 to 1"),
        (["eval", "nowhere.safetensors", "--evaluator", "coco"], 2, "--evaluator coco: unknown"),
        (["predict", "nowhere.jpg"], 2, "nowhere.jpg"),
        (["flops", "--backbone", "resnet19"], 2, "resnet19"),
        (["info", "nowhere.safetensors"], 4, "no such model file"),
    ],
)
def test_wrong_input_gets_a_message_a_hint_and_its_exit_code(
    arguments: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    demo: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("msad_cli.data.layouts.demo.demo_folder", lambda: demo)
    assert run(arguments) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert "\n\nhint: " in captured.err
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "check", "a" * 300],
        ["eval", "a" * 300],
        ["predict", "a" * 300],
        ["teacher", "--data", "demo", "--val-json", "a" * 300],
        ["teacher", "--data", "demo", "--out", "a" * 300 + ".safetensors"],
    ],
)
def test_names_longer_than_the_system_allows_are_the_users_mistake(
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    demo: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("msad_cli.data.layouts.demo.demo_folder", lambda: demo)
    assert run(arguments) in (2, 3, 4)
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "bug" not in message


def test_unknown_values_of_a_model_are_refused_before_anything_is_written(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag, value in (("--backbone", "resnet19"), ("--detector", "yolo"), ("--norm", "none"), ("--scales", "many")):
        assert run(["teacher", "--data", str(demo), "--out", str(tmp_path / "t.safetensors"), flag, value]) == 2
        assert value in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_dry_run_prints_the_plan_and_writes_nothing(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "t.safetensors"
    assert run(["teacher", "--data", str(demo), *TINY, "--out", str(out), "--dry-run"]) == 0
    plan = capsys.readouterr().err
    assert "0.01 × batch / 16" in plan
    assert "6 + 3 images" in plan.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_leaves_its_record(teacher: Path) -> None:
    folder = teacher.with_suffix(".run")
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [float(row["epoch"]) for row in rows] == [1, 2]
    assert {
        "lr",
        "loss/total",
        "loss/k1",
        "loss/k2",
        "loss/fused",
        "images/s",
        "memory_mib",
        "AP/high",
        "AP/low",
    } <= rows[0].keys()
    settings = json.loads((folder / "args.json").read_text())
    assert settings["batch"] == {"value": 2, "source": "flag", "reason": ""}
    assert settings["lr"]["value"] == 0.01 * 2 / 16 * 4  # a narrow network from scratch
    assert settings["lr"]["source"] == "auto"
    assert set(json.loads((folder / "metrics.json").read_text())) == {"high", "low", "fused"}


def test_an_existing_result_is_refused(teacher: Path, demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = teacher.read_bytes()
    assert run(["teacher", "--data", str(demo), *TINY, "--out", str(teacher)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert teacher.read_bytes() == before


def test_the_main_job(teacher: Path, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """teacher → distil → eval → predict → flops → info, the data and the classes coming from the model files."""
    student = tmp_path / "student.safetensors"
    assert distil(teacher, student) == 0
    capsys.readouterr()

    assert run(["eval", str(teacher), "--json", "--precision", "fp32", "--workers", "0"]) == 0
    scores = {view: each["scores"] for view, each in by_view(capsys.readouterr().out).items()}
    recorded = json.loads((teacher.with_suffix(".run") / "metrics.json").read_text())
    assert set(scores) == {"high", "low", "fused"}
    assert scores["fused"]["AP"] == pytest.approx(recorded["fused"]["AP"], abs=1e-9)

    assert run(["eval", str(student), "--per-class", "--workers", "0"]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in ("AP50", "APs", "AR100", "triangle"))
    assert run(["eval", str(student), "--fail-under", "AP=1", "--workers", "0"]) == 8

    images = demo / "val2017"
    assert run(["predict", str(images), "-m", str(student), "-o", str(tmp_path / "seen"), "--score", "0"]) == 0
    results = json.loads((tmp_path / "seen" / "predictions.json").read_text())
    known = {each["id"] for each in json.loads((demo / "annotations/instances_val2017.json").read_text())["categories"]}
    assert results
    assert {each["category_id"] for each in results} <= known
    assert len(list((tmp_path / "seen").glob("*.jpg"))) == 3
    capsys.readouterr()

    assert run(["flops", str(student), "--json"]) == 0
    total = {name: each["macs"]["total"] for name, each in by_name(capsys.readouterr().out).items()}
    assert total["student, 1/2"] < total["stock fcos, HR"] < total["teacher, fused"]

    assert run(["info", str(student), "--json"]) == 0
    facts = document(capsys.readouterr().out)["card"]
    assert facts["role"] == "student"
    assert facts["data"] == str(demo)


@pytest.mark.slow
def test_the_baselines_train(teacher: Path, demo: Path, tmp_path: Path) -> None:
    short = [*TINY, "--epochs", "1"]
    for scales, views in (("vanilla", {"high", "low"}), ("single", {"high"})):
        out = tmp_path / f"{scales}.safetensors"
        assert run(["teacher", "--data", str(demo), *short, "--scales", scales, "--out", str(out)]) == 0
        assert set(json.loads((out.with_suffix(".run") / "metrics.json").read_text())) == views
    plain = tmp_path / "plain.safetensors"
    assert distil(teacher, plain, "--no-distill", "--init", "none", "--epochs", "1") == 0
    assert "distil" not in (plain.with_suffix(".run") / "results.csv").read_text()


@pytest.mark.parametrize("stop_at", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_an_interrupted_and_resumed_run_equals_the_uninterrupted_one(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bit for bit, cut in the middle of an epoch too: 3 steps an epoch, the signal in step 1 or 4."""
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    more = ["--ema", "0.9", "--distill-warmup", "5"]
    assert distil(teacher, whole, *more) == 0

    from msad_cli.distillation.distillation import Distillation

    forward, calls = Distillation.forward, []

    def interrupted(self, views, targets):  # type: ignore[no-untyped-def]
        calls.append(1)
        if len(calls) == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(self, views, targets)

    with monkeypatch.context() as patch:
        patch.setattr(Distillation, "forward", interrupted)
        assert distil(teacher, cut, *more) == 130
    assert read_header(cut)[1].unfinished
    assert distil(teacher, cut, *more, "--resume") == 0
    assert len(calls) == stop_at
    for name, each in load_file(whole).items():
        assert torch.equal(each, load_file(cut)[name]), name
    untimed = [
        [
            {key: value for key, value in row.items() if key not in ("images/s", "memory_mib")}
            for row in csv.DictReader(path.read_text().splitlines())
        ]
        for path in (whole.with_suffix(".run") / "results.csv", cut.with_suffix(".run") / "results.csv")
    ]
    assert untimed[0] == untimed[1]
