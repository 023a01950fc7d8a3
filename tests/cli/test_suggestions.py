"""Names that were nearly right, and completion."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from msad_cli.cli.app import run
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, save_model
from msad_cli.text import meant


def test_the_nearest_name_is_meant() -> None:
    known = ("resnet18", "resnet50", "mobilenet_v2", "c-ff")
    assert meant("resnet8", known) == "; did you mean resnet18?"
    assert meant("mobilenetv2", known) == "; did you mean mobilenet_v2?"
    assert meant("cff", known) == "; did you mean c-ff?"
    assert meant("ResNet-50", known) == "; did you mean resnet50?"
    assert meant("wbc", ["RBC", "WBC"]) == "; did you mean WBC?"
    assert meant("yolo", known) == meant("", known) == meant("r" * 10**6, known) == meant(None, known) == ""


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["techer"], "teacher"),
        (["data", "chek"], "check"),
        (["teacher", "--epoch", "3"], "--epochs"),
        (["distill", "--head-chanels", "64"], "--head-channels"),
        (["teacher", "--scael", "single"], "No such option: --scael. Did you mean --scales?"),
        (["teacher", "--detector", "FCOS"], "did you mean fcos?"),
        (["teacher", "--backbone", "resnet8"], "did you mean resnet18?"),
        (["teacher", "--detector", "fcoss"], "did you mean fcos?"),
        (["teacher", "--fusion", "cff"], "did you mean c-ff?"),
        (["teacher", "--scales", "alligned"], "did you mean aligned?"),
        (["flops", "--backbone", "mobilenetv2"], "did you mean mobilenet_v2?"),
        (["distill", "--method", "croskd"], "did you mean crosskd?"),
        (["distill", "--method", "outputkd"], "did you mean output-kd?"),
    ],
)
def test_misspelt_names_are_answered_with_the_nearest(
    arguments: list[str],
    suggestion: str,
    teacher: Detector,
    coco_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "teacher.safetensors", teacher, Card())
    more = {
        "teacher": ["--data", str(coco_folder), "--init", "none", "--out", "other.safetensors", "-q"],
        "distill": ["--data", str(coco_folder), "--teacher", "teacher.safetensors", "-q"],
    }
    assert run([*arguments, *more.get(arguments[0], [])]) == 2
    assert suggestion in capsys.readouterr().err


def complete(line: str) -> list[str]:
    """What bash is offered for the last word of a line."""
    words = line.split(" ")
    asked = {"_MSAD_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    code = (
        "import sys\nfrom msad_cli.cli.app import main\n"
        "try:\n    main([])\nfinally:\n    assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_completion_knows_commands_and_flags_without_torch() -> None:
    assert complete("msad te") == ["teacher"]
    assert complete("msad data ch") == ["check"]
    assert complete("msad distill --head-c") == ["--head-channels", "--head-convs"]
