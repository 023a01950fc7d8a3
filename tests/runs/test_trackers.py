"""`--log`: trackers get what results.csv and metrics.json hold, and never end a run.

wandb and mlflow are stood in for by modules that write down what they are called with.
"""

import csv
import importlib.util
import json
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.flags import EXACT, SMALLEST
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from msad_cli.cli.app import run
from msad_cli.data.layouts.demo import draw_demo
from msad_cli.runs.onlooker import Onlooker
from msad_cli.training.config import TeacherConfig
from msad_cli.training.observer import Observer
from msad_cli.training.plan import claim_output

TINY = [*SMALLEST, "--size=96,128", "--batch=2", "--epochs=2", "--eval-every=1", *EXACT]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "demo"
    draw_demo(folder, train=4, val=2, seed=1, size=(128, 96))
    return folder


def rows(folder: Path) -> dict[int, dict[str, float]]:
    """What results.csv holds, by epoch."""
    found = csv.DictReader((folder / "results.csv").read_text().splitlines())
    return {int(row.pop("epoch")): {name: float(value) for name, value in row.items() if value} for row in found}


def final(folder: Path) -> dict[str, float]:
    """The numbers of metrics.json as trackers call them."""
    metrics = json.loads((folder / "metrics.json").read_text())
    return {
        f"final/{name}/{view}": value
        for view, scores in metrics.items()
        for name, value in scores.items()
        if isinstance(value, float)
    }


class Wandb(types.ModuleType):
    """`wandb` as far as msad calls it."""

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)
        self.fails_at = fails_at
        self.started: list[dict[str, Any]] = []
        self.rows: dict[int, dict[str, float]] = {}
        self.summary: dict[str, float] = {}
        self.ended = 0

    def init(self, **values: Any) -> SimpleNamespace:
        self.started.append(values)
        return SimpleNamespace(id=values["id"] or "made-up", log=self.log, summary=self.summary, finish=self.finish)

    def Settings(self, silent: bool) -> bool:  # noqa: N802  # a class there
        return silent

    def log(self, row: dict[str, float], step: int) -> None:
        if step == self.fails_at:
            raise ConnectionError("no server")
        self.rows[step] = row

    def finish(self) -> None:
        self.ended += 1


class MLflow(types.ModuleType):
    """`mlflow` as far as msad calls it."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.__spec__ = ModuleSpec("mlflow", None)
        self.started: list[tuple[str | None, str | None]] = []
        self.params: list[dict[str, Any]] = []
        self.rows: dict[int, dict[str, float]] = {}
        self.ended = 0

    def start_run(self, run_id: str | None, run_name: str | None) -> SimpleNamespace:
        self.started.append((run_id, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "0123"))

    def log_params(self, params: dict[str, Any]) -> None:
        self.params.append(params)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.rows[step] = self.rows.get(step, {}) | metrics

    def end_run(self) -> None:
        self.ended += 1


def test_tensorboard_gets_the_rows_and_the_final_scores(demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.safetensors"
    assert run(["teacher", "--data", str(demo), *TINY, "--log", "tensorboard", "--out", str(out)]) == 0
    folder = out.with_suffix(".run")
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    found: dict[int, dict[str, float]] = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            found.setdefault(event.step, {})[name] = event.value
    wanted = rows(folder)
    assert list(wanted) == [1, 2]
    assert wanted[2].keys() >= {"loss/total", "lr", "AP/fused", "AP/high", "AP/low"}
    wanted[2] |= final(folder)
    assert found.keys() == wanted.keys()
    for epoch, row in wanted.items():
        assert found[epoch] == pytest.approx(row, rel=1e-6)  # TensorBoard keeps float32


def test_wandb_and_mlflow_get_them_and_go_on_with_a_resumed_run(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb, mlflow = Wandb(), MLflow()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    out = tmp_path / "t.safetensors"
    folder = out.with_suffix(".run")
    command = ["teacher", "--out", str(out), "-q"]
    assert run([*command, "--data", str(demo), *TINY, "--log", "wandb,mlflow", "--time", "0s"]) == 0
    assert wandb.ended == mlflow.ended == 1  # also where a run stops
    assert run([*command, "--resume"]) == 0
    assert wandb.ended == mlflow.ended == 2
    assert wandb.rows == rows(folder)
    assert wandb.summary == final(folder)
    assert mlflow.rows == {1: rows(folder)[1], 2: rows(folder)[2] | final(folder)}
    assert [(each["id"], each["settings"]) for each in wandb.started] == [(None, True), ("made-up", True)]  # silent
    assert mlflow.started == [(None, "t"), ("0123", None)]
    assert len(mlflow.params) == 1
    assert mlflow.params[0]["batch"] == wandb.started[0]["config"]["batch"] == 2


def test_a_tracker_that_fails_is_left_out_and_said_once(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb, mlflow = Wandb(fails_at=1), MLflow()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setattr(mlflow, "start_run", None)
    out = tmp_path / "t.safetensors"
    assert run(["teacher", "--data", str(demo), *TINY, "--log", "wandb,mlflow", "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert said.count("wandb failed, and gets nothing from here on: ConnectionError: no server") == 1
    assert said.count("mlflow failed, and gets nothing from here on: TypeError") == 1
    assert (out.with_suffix(".run") / "log.txt").read_text().count("failed, and gets nothing") == 2
    assert (wandb.rows, wandb.ended, mlflow.params) == ({}, 1, [])


def test_what_cannot_be_used_is_said_before_anything_is_written(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else find(name))
    command = ["teacher", "--data", str(demo), *TINY, "--out", str(tmp_path / "t.safetensors"), "--log"]
    assert run([*command, "tensorboard,wandb"]) == 2
    assert capsys.readouterr().err == (
        "error: --log wandb: the package wandb is not installed\n\nhint: pip install '.[wandb]' in the clone of msad\n"
    )
    assert run([*command, "tensorbord"]) == 2
    assert "did you mean tensorboard?" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_only_the_first_of_several_processes_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msad_cli.training.plan.rank", lambda: 1)
    assert type(claim_output(TeacherConfig(out=tmp_path / "t.safetensors", log="tensorboard"), Observer())) is Onlooker
