"""What stands on the screen: whole at every width."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from typer.main import get_command

from msad_cli.cli.app import app, run
from msad_cli.cli.console import console, results
from msad_cli.cli.help import PANELS
from msad_cli.cli.output.ending import print_end, print_model
from msad_cli.cli.output.tables import print_beside, print_table
from msad_cli.cli.progress import print_plan
from msad_cli.evaluation.curves import OverScore
from msad_cli.evaluation.metrics import Scores
from msad_cli.runs.folder import RunFolder, Setting
from msad_cli.text import folded
from msad_cli.training.run import Outcome, Run

ROWS = [
    ("model", "AP", "images/s", "what", "postprocess", "params, M"),
    ("teacher, fused", "41.2", "7.2", "teacher, fcos resnet50 × 0.5, head 64 × 1, HR + 1/2", "21.6", "3.13"),
    ("a/long/folder/student.safetensors", "-", "12.5", "[bold]猫[/] and \x1b[2J", "13.3", "3.09"),
]
NARROW = 12
"""Less than the longest word."""


@pytest.mark.parametrize("width", [NARROW, 40, 60, 80, 140])
def test_a_table_holds_every_word_at_every_width(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "width", width)
    print_table("a title", ROWS)
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == "a title"
    assert max(len(line) + line.count("猫") for line in lines) <= width
    printed = "".join("".join(lines).split())
    for row in ROWS:
        for word in " ".join(row[1:]).replace("\x1b", r"\x1b").split():
            assert word in printed or width == NARROW
    assert "…" not in printed
    rules = [line for line in lines if set(line) == {"─"}]
    # Whole they take 33, 4, 8, 52, 11, 9 and 5 gaps of 2: 127. The first column has half of a screen at most, others a
    # third, the text 20 at least. So at 60 there are 28 beside the first: 4 + 2 + 8, then 20, then 11 + 2 + 7.
    assert len(rules) == {NARROW: 5, 40: 4, 60: 3, 80: 2, 140: 1}[width]


def test_numbers_stand_right_and_texts_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "width", 80)
    print_table("", [("name", "AP", "words"), ("3", "2.1", "a b"), ("12", "-", "c")])
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "name   AP  words",
        "────────────────",
        "3     2.1  a b",
        "12      -  c",
        "",
    ]


def test_a_text_goes_on_below_its_first_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "width", 20)
    print_beside("cache  ", "9 GiB free for /a/very/long/folder")
    assert capsys.readouterr().out == "cache  9 GiB free\n       for\n       /a/very/long/folder\n"


def test_parts_of_a_line_stay_whole_in_its_fold() -> None:
    line = "epoch 2  step 83/100  distil 0.135  8.4 images/s"
    assert folded(line, 30) == "epoch 2  step 83/100\ndistil 0.135  8.4 images/s"
    assert folded(line, 100) == line


def test_a_plan_counts_plain_defaults(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 60)
    settings = {
        "lr": Setting(0.02, "auto", "0.01 × batch / 16"),
        "epochs": Setting(2, "flag"),
        "cache": Setting("off", "default", "images are decoded in every epoch"),
        "clip": Setting(10.0, "default"),
        "seed": Setting(0, "default"),
    }
    print_plan("plan of s", settings, whole=False)
    said = capsys.readouterr().err
    assert [line.split()[0] for line in said.splitlines()[3:5]] == ["lr", "epochs"]
    assert said.endswith("\n\nand 3 defaults (--dry-run shows all)\n")
    print_plan("plan of s", settings, whole=True)
    said = capsys.readouterr().err
    assert all(f"\n{name} " in said for name in settings)
    assert "--dry-run" not in said


def test_the_end_of_a_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a class without ground truth, whose AP is not a number, it is not said that it was never found."""
    model = tmp_path / "s.safetensors"
    model.write_bytes(bytes(3 * 2**19))  # 1.5 MiB
    nothing = np.zeros(0)
    per_class = {name: {"AP": ap / 2, "AP50": ap} for name, ap in (("disc", 0.4), ("cat", 0.0), ("dog", math.nan))}
    scores = {"low": Scores({"AP": 0.1}, per_class, 0.5, 0.5, {}, OverScore(nothing, nothing, nothing))}
    of = SimpleNamespace(detector=SimpleNamespace(spec=SimpleNamespace(task="boxes")), folder=RunFolder(model))
    outcome = Outcome(model, scores, "epoch 2 of 2, AP 10.0 (low)", run=cast("Run", of))
    print_model(outcome)
    first, *table, never = capsys.readouterr().out.splitlines()
    assert first == f"{model}, 1.5 MiB: epoch 2 of 2, AP 10.0 (low)"
    assert [line.split() for line in table[2:5]] == [["disc", "20.0", "40.0"], ["cat", "0.0", "0.0"], ["dog", "-", "-"]]
    assert never == "never found, at no IoU of 0.5 or more: cat"
    print_end(outcome, ["", "a remark"], "msad eval s.safetensors")
    said = capsys.readouterr().err
    assert said == f"a remark\nreport: {tmp_path / 's.run'}\nnext: msad eval s.safetensors\n"


COMMANDS = get_command(app).commands  # type: ignore[attr-defined]
ALL = {**COMMANDS, **{f"data {name}": each for name, each in COMMANDS["data"].commands.items()}}


@pytest.mark.parametrize("name", ALL)
def test_the_help_of_a_command(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(results, "width", 60)
    assert run([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 60
    assert "<bool>" not in text
    panels = {title: names.split() for title, names in PANELS.items()}
    for each in ALL[name].params:
        if each.param_type_name != "option":
            continue
        assert all(f" {flag} " in text.replace(",", " ").replace("/--", " --") for flag in each.opts)
        assert each.rich_help_panel in panels or sum(each.name in names for names in panels.values()) == 1
    if name != "data":
        example = ALL[name].epilog.removeprefix("Example: ")
        assert example in " ".join(text.split())
        known = {flag for each in ALL[name].params for flag in each.opts}
        assert {word for word in example.split() if word.startswith("-")} <= known


def test_switches_are_shown_as_switches(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(results, "width", 80)
    assert run(["eval", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--per-class    A row for each class too." in text
    assert "--max-detections            N: Of an image." in text


@pytest.mark.parametrize("arguments", [[], ["data"]])
def test_a_bare_command_shows_its_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 0
    bare = capsys.readouterr()
    assert run([*arguments, "--help"]) == 0
    assert capsys.readouterr().out.strip() == bare.out.strip()
    assert bare.err == ""
