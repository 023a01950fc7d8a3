"""Which weights become the model: the best or the last ones; when a run ends early, and what a stop leaves."""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.flags import EXACT, SMALLEST

import msad_cli.training.judging.validation as validation_module
from msad_cli import api
from msad_cli.cli.app import run
from msad_cli.data.layouts.demo import draw_demo
from msad_cli.evaluation.metrics import Scores, main_number, score
from msad_cli.models.backbones.normalisation import norm_layer
from msad_cli.models.backbones.resnet import build_backbone
from msad_cli.models.model_file import read_header
from msad_cli.models.weights.frozen import STAGES
from msad_cli.runs.folder import RunFolder, Setting
from msad_cli.training.config import TeacherConfig
from msad_cli.training.judging.kept import is_better
from msad_cli.training.plan import MANY_EVALUATIONS, choose
from msad_cli.training.resume import jump_of_rate
from msad_cli.training.steps.schedule import Schedule
from msad_cli.training.steps.state import Progress

Measured = Callable[[Sequence[float]], None]
IMAGES, BATCH = 4, 2
STEPS = IMAGES // BATCH
"""Of an epoch."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "demo"
    draw_demo(folder, train=IMAGES, val=1, seed=1, size=(64, 64))
    return folder


@pytest.fixture
def start(demo: Path) -> Callable[..., int]:
    """Trains the smallest baseline, which has one view."""

    def train(out: Path, *more: str) -> int:
        flags = ["--scales=single", *SMALLEST, "--size=64,64", f"--batch={BATCH}", "--eval-every=1", *EXACT]
        return run(["teacher", "--data", str(demo), *flags, "--out", str(out), *more])

    return train


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    """Has the evaluations of a run come to given values of AP, one after the other; later ones to the last."""
    values: list[float] = []

    def given(*args: Any) -> Scores:
        found = score(*args)
        return replace(found, numbers=found.numbers | {"AP": values.pop(0) if len(values) > 1 else values[0]})

    monkeypatch.setattr(validation_module, "score", given)

    def set_values(aps: Sequence[float]) -> None:
        values[:] = aps

    return set_values


def resume(out: Path, *more: str) -> int:
    return run(["teacher", "--resume", "--out", str(out), *more])


def column(out: Path, name: str) -> list[str]:
    with RunFolder(out).results.open(newline="") as file:
        return [row[name] for row in csv.DictReader(file)]


def same(one: Path, other: Path) -> bool:
    """Whether two files hold the same weights, bit for bit."""
    first, second = load_file(one), load_file(other)
    return all(torch.equal(each, second[name]) for name, each in first.items())


# --- rules ---


@pytest.mark.parametrize(
    ("ap", "than", "better"),
    [
        (0.3, 0.2, True),
        (0.2, 0.3, False),
        (0.2, 0.2, True),
        (0.0, 0.0, True),
        (math.nan, 0.3, True),
        (0.1, math.nan, True),
    ],
)
def test_equal_ap_is_better_later(ap: float, than: float, better: bool) -> None:
    assert is_better(ap, than) is better


def test_a_task_is_compared_by_its_own_ap() -> None:
    numbers = {"AP": 0.1, "mask_AP": 0.2, "keypoint_AP": math.nan}
    assert main_number(numbers, "boxes") == 0.1
    assert main_number(numbers, "masks") == 0.2
    assert main_number(numbers, "keypoints") == 0.1  # the split has none: boxes say more than nothing


def test_patience_counts_from_the_best_and_not_before_anything_is_found() -> None:
    progress = Progress()
    counts = []
    for ap in (0.0, 0.0, math.nan, 0.2, 0.2, 0.1, 0.3, 0.1):
        progress.measure(ap, counts=True)
        counts.append(progress.unimproved)
    assert counts == [0, 0, 0, 0, 1, 2, 0, 1]
    progress.measure(0.1, counts=False)
    assert progress.unimproved == 0


@pytest.mark.parametrize(
    ("epochs", "every", "patience"), [(30, 1, 0), (31, 1, 15), (60, 1, 30), (100, None, 0), (61, 2, 15)]
)
def test_many_evaluations_have_patience(epochs: int, every: int | None, patience: int) -> None:
    """On in trainings of more than 30 evaluations: half of them. By default a run of 100 epochs has 20."""
    assert MANY_EVALUATIONS == 30
    config = TeacherConfig(epochs=epochs, eval_every=every, device="cpu", precision="fp32")
    assert choose(config, 100, "fcos").patience == patience


def test_a_longer_run_says_how_its_rate_goes_on() -> None:
    """Two epochs of ten steps, of which the last third has a tenth of the rate, are made four."""
    before, now = {"epochs": Setting(2, "flag")}, {"epochs": Setting(4, "flag")}
    schedule = Schedule(0.01, 40, 0, "steps")
    words = jump_of_rate(before, now, schedule, step=20, last=0.001)
    assert "0.001 in the last step, 0.01 from here on" in words
    assert words.endswith("--resume --epochs 4 --lr 0.001")
    assert Schedule(0.001, 40, 0, "steps").at(20) == 0.001
    assert jump_of_rate(now, now, schedule, step=20, last=0.001) == ""
    assert jump_of_rate(before, now, schedule, step=20, last=0.01) == ""


# --- runs ---


def test_the_best_epoch_is_the_model_however_often_the_run_was_cut(
    start: Callable[..., int], measured: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, short, cut = (tmp_path / f"{name}.safetensors" for name in ("whole", "short", "cut"))
    measured([0.2, 0.3, 0.1, 0.1])
    assert start(whole, "--epochs=3") == 0
    said = capsys.readouterr().err
    assert "kept: epoch 2 of 3, AP 30.0 (high)" in said
    card = read_header(whole)[1]
    assert (card.epochs, card.steps, card.run_epochs, card.keep) == (2, 2 * STEPS, 3, "best")
    assert card.scores is not None
    assert card.scores["high"]["AP"] == 0.3
    assert not card.unfinished
    assert column(whole, "kept") == ["1", "2", "2"]
    assert all(float(value) > 0 for value in column(whole, "val_loss/high"))
    assert run(["info", str(whole)]) == 0
    assert "2; the best of 3" in capsys.readouterr().out
    # The same run, stopped after each step: what it has after two epochs are the best weights of the whole one.
    measured([0.2, 0.3, 0.1, 0.1])
    assert start(cut, "--epochs=3", "--time=0s") == 0
    while RunFolder(cut).load_state()[0]["progress"]["step"] < 3 * STEPS:
        assert read_header(cut)[1].unfinished
        assert resume(cut, "--time=0s") == 0
        if RunFolder(cut).load_state()[0]["progress"]["step"] == 2 * STEPS:
            short.write_bytes(cut.read_bytes())
    cut.unlink()  # the state has it too
    measured([0.1])
    assert resume(cut) == 0
    assert same(whole, cut)
    assert same(whole, short)
    assert read_header(cut)[1] == card
    for name in ("kept", "val_loss/high", "loss/total"):
        assert column(cut, name) == column(whole, name)


def test_keep_last_keeps_the_last(
    start: Callable[..., int], measured: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, last = tmp_path / "best.safetensors", tmp_path / "last.safetensors"
    measured([0.3, 0.1])
    assert start(best, "--epochs=2") == 0
    measured([0.3, 0.1])
    assert start(last, "--epochs=2", "--keep=last") == 0
    assert not same(best, last)
    card = read_header(last)[1]
    assert (card.epochs, card.run_epochs, card.keep) == (2, 2, "last")
    assert card.scores is not None
    assert card.scores["high"]["AP"] == 0.1
    assert RunFolder(last).load_state()[0]["kept"]["weights"] == {}
    before = load_file(last)
    assert resume(last) == 0
    assert all(torch.equal(each, before[name]) for name, each in load_file(last).items())
    # Its last steps had a tenth of the rate; as the third of six epochs, the next one has all of it.
    assert resume(last, "--epochs=6", "--time=0s") == 0
    assert "the learning rate starts again: 0.0005 in the last step, 0.005 from here on" in capsys.readouterr().err
    assert read_header(last)[1].scores is None  # the last weights are those after one step more


def test_patience_ends_a_run_and_goes_on_when_told_to(
    start: Callable[..., int], measured: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"
    measured([0.3, 0.2, 0.1])
    assert start(out, "--epochs=6", "--patience=2") == 0
    said = capsys.readouterr().err
    assert "no better AP in 2 evaluations" in said
    assert "--patience 0 goes on" in said
    assert "kept: epoch 1 of 3, AP 30.0 (high)" in said
    assert read_header(out)[1].run_epochs == 3
    assert resume(out) == 0  # it is at its end
    assert len(column(out, "epoch")) == 3
    measured([0.1, 0.4, 0.1])
    assert resume(out, "--patience=0") == 0
    assert column(out, "kept") == ["1", "1", "1", "1", "5", "5"]


def test_a_stop_leaves_a_model_and_names_what_makes_one_of_the_state(
    start: Callable[..., int], measured: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut in the second epoch; its weights are the better ones, which only an evaluation tells."""
    out = tmp_path / "out.safetensors"
    measured([0.2, 0.3])
    assert start(out, "--epochs=50", "--time=0s") == 0
    assert "holds the weights after step 1, which were not evaluated" in capsys.readouterr().err
    assert read_header(out)[1].scores is None
    for _ in range(2):
        assert resume(out, "--time=0s") == 0
    said = capsys.readouterr().err
    assert "holds epoch 1 of 1, AP 20.0 (high)" in said
    assert f"msad teacher --resume --out {out} --finish" in said
    state = RunFolder(out).state.read_bytes()
    assert resume(out, "--finish") == 0
    said = capsys.readouterr().err
    assert "after step 3: AP high 30.0" in said
    assert "kept: step 3, after 1.50 epochs, AP 30.0 (high)" in said
    assert "epoch 2/" not in said
    card = read_header(out)[1]
    assert (card.epochs, card.steps, card.run_epochs, card.unfinished) == (1, 3, 1, False)
    assert column(out, "epoch") == ["1"]
    assert RunFolder(out).state.read_bytes() == state  # the training may still go on
    assert resume(out, "--epochs=1") == 2
    assert "1.5 epochs are done, more than --epochs 1" in capsys.readouterr().err
    assert start(tmp_path / "other.safetensors", "--finish") == 2
    assert "--resume is not given" in capsys.readouterr().err


def test_a_state_from_before_keeps_the_best_from_there_on(
    start: Callable[..., int], measured: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A state that knows nothing of evaluations."""
    out = tmp_path / "out.safetensors"
    measured([0.5])
    assert start(out, "--epochs=1") == 0
    folder = RunFolder(out)
    state = folder.load_state()[0]
    del state["kept"]
    for name in ("measured", "best", "unimproved"):
        del state["progress"][name]
    torch.save(state, folder.state)
    capsys.readouterr()
    measured([0.2, 0.1])
    assert resume(out, "--epochs=3", "--lr=0.0001") == 0
    said = capsys.readouterr().err
    assert "no weights of earlier epochs were kept" in said
    assert "changed: lr 0.005 → 0.0001" in said
    assert read_header(out)[1].epochs == 2


def test_frozen_stages_stay_as_they_start(
    start: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of five stages: the stem and layer1. The decay of weights leaves them alone too."""
    out = tmp_path / "out.safetensors"
    assert start(out, "--epochs=1", "--freeze=2", "--class-weights=figure=2", "--time=0s") == 0
    assert "class weights: disc × 1, triangle × 1, figure × 2" in capsys.readouterr().err
    first = load_file(out)
    assert resume(out) == 0
    moved = {name for name, each in load_file(out).items() if not torch.equal(each, first[name])}
    bodies = {name.removeprefix("core.backbone.body.").split(".")[0] for name in moved if ".body." in name}
    assert bodies == {"layer2", "layer3", "layer4"}
    assert start(tmp_path / "other.safetensors", "--freeze=6") == 2
    assert "--freeze 6: unknown" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_a_backbone_is_its_stages(name: str) -> None:
    """All of it, nothing twice; each stage halves the resolution but the pooled second one of a ResNet."""
    backbone = build_backbone(name, 0.25, norm_layer("group"))
    parts = [parameter for stage in backbone.stages() for module in stage for parameter in module.parameters()]
    assert len(backbone.stages()) == STAGES
    assert [id(each) for each in parts] == [id(each) for each in backbone.parameters()]


def test_python_says_what_is_held(demo: Path, measured: Measured, tmp_path: Path) -> None:
    measured([0.2, 0.1])
    settings: dict[str, Any] = {"width": 0.125, "head_channels": 64, "head_convs": 1, "size": "64,64", "device": "cpu"}
    trained = api.train_teacher(
        data=str(demo),
        scales="single",
        init="none",
        backbone="resnet18",
        **settings,
        precision="fp32",
        workers=0,
        epochs=2,
        batch=BATCH,
        eval_every=1,
        out=tmp_path / "out.safetensors",
    )
    assert trained.held == "epoch 1 of 2, AP 20.0 (high)"
