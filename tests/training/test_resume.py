"""Runs that were cut: by signals, clocks, full disks, numbers that are not finite, dead workers, bad images."""

import csv
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.flags import EXACT, SMALLEST
from support.places import SHARED

import msad_cli.training.judging.validation as validation_module
from msad_cli.cli.app import run
from msad_cli.data.images.decode import read_image
from msad_cli.data.layouts.demo import draw_demo
from msad_cli.distillation.distillation import Distillation
from msad_cli.errors import DataError, UsageError
from msad_cli.models.model_file import load_model
from msad_cli.runs.folder import RunFolder
from msad_cli.text import parse_duration

IMAGES, BATCH, EPOCHS = 6, 2, 2
STEPS = IMAGES // BATCH * EPOCHS
QUICK_CUTS = (2, IMAGES // BATCH)
"""In the middle of an epoch, and at its end; the other places are slow ones."""
TRAINING = [f"--batch={BATCH}", f"--epochs={EPOCHS}", "--ema=0.9", "--distill-warmup=5", *EXACT]
# Python 3.12 and 3.13 warn of every fork beside a thread. Torch has threads, and forks its loader workers all the same.
forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "demo"
    draw_demo(folder, train=IMAGES, val=3, seed=1, size=(128, 96))
    return folder


@pytest.fixture(scope="module")
def teacher(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    flags = [*SMALLEST, "--size=96,128", "--batch=2", "--epochs=1", *EXACT]
    assert run(["teacher", "--data", str(demo), *flags, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def start(teacher: Path) -> Callable[..., int]:
    """Starts a distillation into a file."""

    def distil(out: Path, *more: str) -> int:
        return run(["distill", "--teacher", str(teacher), *TRAINING, "--out", str(out), *more])

    return distil


def resume(out: Path, *more: str) -> int:
    """Goes on with nothing but the name of the file."""
    return run(["distill", "--resume", "--out", str(out), *more])


Forward = Callable[[Any, Any, Any], dict[str, torch.Tensor]]


@contextmanager
def forward_replaced(monkeypatch: pytest.MonkeyPatch, replacement: Callable[[Forward], Forward]) -> Iterator[None]:
    """Distillation's forward pass, wrapped."""
    with monkeypatch.context() as patch:
        patch.setattr(Distillation, "forward", replacement(Distillation.forward))
        yield


def signalling(number: signal.Signals, step: int) -> Callable[[Forward], Forward]:
    """Sends a signal to this process in a step, counted from 1."""
    calls: list[int] = []

    def wrap(forward: Forward) -> Forward:
        def replacement(self: Any, views: Any, targets: Any) -> dict[str, torch.Tensor]:
            calls.append(1)
            if len(calls) == step:
                os.kill(os.getpid(), number)
            return forward(self, views, targets)

        return replacement

    return wrap


def randomised(forward: Forward) -> Forward:
    """Weights the losses by what all three global generators draw."""

    def replacement(self: Any, views: Any, targets: Any) -> dict[str, torch.Tensor]:
        factor = 0.5 + float(torch.rand(())) + float(np.random.rand()) + random.random()
        return {name: factor * loss for name, loss in forward(self, views, targets).items()}

    return replacement


def rows(out: Path) -> list[dict[str, str]]:
    """results.csv without what depends on the machine's mood."""
    lines = (out.with_suffix(".run") / "results.csv").read_text().splitlines()
    timed = ("images/s", "memory_mib")
    return [{name: value for name, value in row.items() if name not in timed} for row in csv.DictReader(lines)]


def assert_same_run(one: Path, other: Path) -> None:
    """Parameters and results.csv, bit for bit."""
    expected, got = load_file(one), load_file(other)
    assert expected.keys() == got.keys()
    for name, each in expected.items():
        assert torch.equal(each, got[name]), name
    assert len(rows(one)) == EPOCHS
    assert rows(one) == rows(other)


@pytest.fixture(scope="module")
def whole(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that was left alone."""
    out = tmp_path_factory.mktemp("whole") / "whole.safetensors"
    assert run(["distill", "--teacher", str(teacher), *TRAINING, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def first_step(start: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that stopped after its first step."""
    out = tmp_path_factory.mktemp("first") / "stopped.safetensors"
    assert start(out, "--time", "0s") == 0
    return out.with_suffix(".run")


@pytest.fixture
def stopped(first_step: Path, tmp_path: Path) -> Path:
    """A run that stopped after its first step: a copy, as a run is wherever its folder is."""
    shutil.copytree(first_step, tmp_path / first_step.name)
    return tmp_path / "stopped.safetensors"


# --- resumed equals uninterrupted ---


@pytest.mark.parametrize(
    "step", [step if step in QUICK_CUTS else pytest.param(step, marks=pytest.mark.slow) for step in range(1, STEPS)]
)
def test_resumed_equals_uninterrupted_wherever_it_was_cut(
    start: Callable[..., int], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    cut = tmp_path / "cut.safetensors"
    with forward_replaced(monkeypatch, signalling(signal.SIGINT, step)):
        assert start(cut) == 130
    # What is there can be used: the weights after the first evaluation, or before it those without one.
    card = load_model(cut)[1]
    assert (card.epochs, card.steps) == ((1, IMAGES // BATCH) if step >= IMAGES // BATCH else (0, step))
    assert (card.unfinished, card.scores is None) == (True, step <= IMAGES // BATCH)  # a signal cuts evaluations
    assert resume(cut) == 0
    assert_same_run(whole, cut)
    assert load_model(cut)[1] == load_model(whole)[1]


@pytest.mark.slow
def test_resumed_equals_uninterrupted_with_random_numbers_in_the_method(
    start: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The states of torch's, numpy's and Python's global generators go on too."""
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    with forward_replaced(monkeypatch, randomised):
        random.seed(4)
        np.random.seed(4)
        assert start(whole) == 0
        random.seed(4)
        np.random.seed(4)
        with forward_replaced(monkeypatch, signalling(signal.SIGINT, 2)):
            assert start(cut) == 130
        for spoil in (random.random, np.random.rand, lambda: torch.rand(())):
            spoil()
        assert resume(cut) == 0
    assert_same_run(whole, cut)


@pytest.mark.slow
def test_resumed_equals_uninterrupted_with_statistics_for_each_view(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RTMDet's head, which takes those of the fusion for what a teacher cache holds."""
    teacher, whole, cut = (tmp_path / f"{name}.safetensors" for name in ("teacher", "whole", "cut"))
    flags = [*SMALLEST, "--detector=rtmdet", "--norm=batch", "--size=96,128", "--batch=2", "--epochs=1", *EXACT]
    assert run(["teacher", "--data", str(demo), *flags, "--out", str(teacher)]) == 0
    command = ["distill", f"--teacher={teacher}", "--cache-teacher=ram", *TRAINING]
    assert run([*command, f"--out={whole}"]) == 0
    with forward_replaced(monkeypatch, signalling(signal.SIGINT, 2)):
        assert run([*command, f"--out={cut}"]) == 130
    assert resume(cut) == 0
    assert_same_run(whole, cut)


@forks
def test_resumed_equals_uninterrupted_with_other_workers(
    stopped: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert resume(stopped, "--workers", "1") == 0
    assert "changed: workers 0 → 1" in capsys.readouterr().err
    assert_same_run(whole, stopped)


def test_resumed_equals_uninterrupted_when_cut_while_evaluating(
    start: Callable[..., int], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first epoch is trained but not yet evaluated; the evaluation is left at once and made up for."""
    cut = tmp_path / "cut.safetensors"

    def terminated(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal did not end the evaluation")

    with monkeypatch.context() as patch:
        patch.setattr(validation_module, "view_results", terminated)
        assert start(cut) == 143
    assert not (cut.with_suffix(".run") / "results.csv").exists()
    assert resume(cut) == 0
    assert_same_run(whole, cut)


def test_resumed_equals_uninterrupted_when_the_last_state_is_damaged(
    stopped: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two generations: the state before the last one is whole, although a step older."""
    assert resume(stopped, "--time", "0s") == 0
    folder = RunFolder(stopped)
    assert folder.load_state()[0]["progress"]["step"] == 2
    folder.state.write_bytes(folder.state.read_bytes()[:1000])
    state, remark = folder.load_state()
    assert state["progress"]["step"] == 1
    assert "state.pt is damaged" in remark
    capsys.readouterr()
    assert resume(stopped) == 0
    assert "going on from the state before it" in capsys.readouterr().err
    assert_same_run(whole, stopped)


def test_a_state_that_was_moved_but_not_yet_replaced_is_found(stopped: Path, whole: Path) -> None:
    """A kill between the two renames of a checkpoint."""
    folder = RunFolder(stopped)
    folder.state.replace(folder.previous_state)
    assert resume(stopped) == 0
    assert_same_run(whole, stopped)


def test_a_finished_run_is_resumed_to_the_same(start: Callable[..., int], whole: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    shutil.copytree(whole.with_suffix(".run"), again.with_suffix(".run"))
    assert resume(again) == 0
    assert_same_run(whole, again)


# --- what may change, and what may not ---


def test_what_may_change_is_printed_and_recorded(
    stopped: Path, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = shutil.copytree(demo, tmp_path / "moved")
    capsys.readouterr()
    assert resume(stopped, "--epochs", "3", "--batch", "3", "--data", str(moved)) == 0
    said = capsys.readouterr().err
    assert "changed: epochs 2 → 3" in said
    assert "changed: batch 2 → 3" in said
    assert f"→ {moved}" in said
    assert "changed: lr" not in said  # the rate was its teacher's, and is recorded as such
    settings = json.loads((stopped.with_suffix(".run") / "args.json").read_text())
    assert (settings["epochs"]["value"], settings["epochs"]["source"]) == (3, "flag")
    assert (settings["ema"]["value"], settings["ema"]["source"]) == (0.9, "resumed")
    assert [row["epoch"] for row in rows(stopped)] == ["1", "2", "3"]
    log = (stopped.with_suffix(".run") / "log.txt").read_text()
    # One step of two images is not one of three: the epoch's first images are seen again.
    assert "going on after step 0" in log
    assert "changed: batch 2 → 3" in log


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--lr", "0.5"), ("--lr", "0.005", "0.5")),
        (("--distill-warmup", "7"), ("--distill-warmup", "5", "7")),
        (("--gamma", "0.7"), ("--gamma", "0.2", "0.7")),
        (("--seed", "3"), ("--seed", "0", "3")),
        (("--ema", "0"), ("--ema", "0.9", "0.0")),
        (("--no-distill",), ("--no-distill", "False", "True")),
        (("--precision", "bf16"), ("--precision", "fp32", "bf16")),
    ],
)
def test_what_may_not_change_is_refused_with_both_values(
    stopped: Path, flags: tuple[str, ...], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    state = RunFolder(stopped).state.read_bytes()
    capsys.readouterr()
    assert resume(stopped, *flags) == 2
    message = capsys.readouterr().err.splitlines()[0]
    assert message.startswith("error: cannot resume: ")
    assert all(word in message for word in words)
    assert RunFolder(stopped).state.read_bytes() == state


def test_other_annotations_under_the_same_path_are_refused(
    teacher: Path, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = shutil.copytree(demo, tmp_path / "data"), tmp_path / "out.safetensors"
    more = ["--data", str(data), "--out", str(out), "--time", "0s"]
    assert run(["distill", "--teacher", str(teacher), *TRAINING, *more]) == 0
    file = data / "annotations" / "instances_train2017.json"
    document = json.loads(file.read_text())
    document["annotations"].pop()
    file.write_text(json.dumps(document))
    assert resume(out) == 2
    assert "cannot resume: training annotations (SHA-256) was" in capsys.readouterr().err


def test_another_teacher_is_refused(
    stopped: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.safetensors"
    content = bytearray(teacher.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    assert resume(stopped, "--teacher", str(other)) == 2
    assert "cannot resume: teacher (SHA-256) was" in capsys.readouterr().err
    # The same teacher may lie elsewhere.
    assert resume(stopped, "--teacher", str(shutil.copy(teacher, tmp_path / "moved.safetensors"))) == 0


def test_fewer_epochs_than_are_done_are_refused(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path / "again.safetensors"
    shutil.copytree(whole.with_suffix(".run"), again.with_suffix(".run"))
    assert resume(again, "--epochs", "1") == 2
    assert "2 epochs are done, more than --epochs 1" in capsys.readouterr().err


def test_nothing_to_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert resume(tmp_path / "none.safetensors") == 2
    assert "nothing to resume" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_of_a_run_are_named(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(stopped)
    settings = (folder.path / "args.json").read_text()
    (folder.path / "args.json").write_text(settings[:50])
    assert resume(stopped) == 2
    assert "args.json is damaged" in capsys.readouterr().err
    (folder.path / "args.json").write_text(settings)
    folder.state.write_bytes(b"torn")
    assert resume(stopped) == 2
    assert "state.pt is damaged" in capsys.readouterr().err
    torch.save({"progress": {}}, folder.state)
    assert resume(stopped) == 2
    assert "of another version of msad" in capsys.readouterr().err


# --- endings ---


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_with_the_command_that_resumes(
    start: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "cut.safetensors"
    with forward_replaced(monkeypatch, signalling(number, 2)):
        assert start(out) == code
    said = capsys.readouterr().err
    assert f"  msad distill --resume --out {out}" in said
    assert RunFolder(out).load_state()[0]["progress"]["step"] == 2  # the step was finished


def test_a_second_signal_ends_at_once(
    start: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No state is written from the middle of a step."""
    out = tmp_path / "cut.safetensors"
    first, second = signalling(signal.SIGINT, 1), signalling(signal.SIGINT, 1)

    def after_the_first(forward: Forward) -> Forward:
        def replacement(self: Any, views: Any, targets: Any) -> dict[str, torch.Tensor]:
            # The system may hand a signal to another thread first, and keeps one of two that are alike.
            deadline = time.monotonic() + 60
            while signal.getsignal(signal.SIGINT) is not signal.default_int_handler and time.monotonic() < deadline:
                pass
            return forward(self, views, targets)

        return replacement

    with forward_replaced(monkeypatch, lambda forward: first(after_the_first(second(forward)))):
        assert start(out) == 130
    assert not RunFolder(out).resumable


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("90", 90), ("45m", 2700), ("2h", 7200), ("1h30m", 5400), ("1h1m1s", 3661)]
)
def test_times(text: str, seconds: int) -> None:
    assert parse_duration("--time", text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "2d", "h", "30m1h", "-5s", "1.5h"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="not a time"):
        parse_duration("--time", text)


@contextmanager
def full_disk(largest: int) -> Iterator[None]:
    """The system refuses to write files of more bytes than this, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_the_old_state_and_names_the_bytes(
    stopped: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(stopped)
    before = {path: path.read_bytes() for path in folder.state.parent.iterdir()}
    size = folder.state.stat().st_size
    capsys.readouterr()
    with full_disk(size // 2):
        assert resume(stopped) == 6
    message = capsys.readouterr().err
    assert "cannot write" in message
    # The state holds the same tensors as before, those of the epoch that was evaluated since, and some more numbers.
    needed = int(message.split("it takes ")[1].split(" bytes")[0].replace(",", ""))
    kept = sum(each.nbytes for each in load_file(whole).values())
    assert abs(needed - size - kept) < 64 * len(load_file(whole)) + 65536
    assert f"msad distill --resume --out {stopped}" in message
    assert {path: path.read_bytes() for path in folder.state.parent.iterdir()} == before
    assert resume(stopped) == 0
    assert_same_run(whole, stopped)


def test_ten_steps_that_are_not_finite_end_the_run_with_the_images_named(
    stopped: Path, monkeypatch: pytest.MonkeyPatch, demo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(stopped)
    before = folder.state.read_bytes()

    def broken(forward: Forward) -> Forward:
        def replacement(self: Any, views: Any, targets: Any) -> dict[str, torch.Tensor]:
            return {name: loss * torch.nan for name, loss in forward(self, views, targets).items()}

        return replacement

    with forward_replaced(monkeypatch, broken):
        assert resume(stopped, "--epochs", "9") == 6
    message = capsys.readouterr().err
    assert "10 steps in a row were not finite, up to step 11, of the images " in message
    names = message.split("of the images ")[1].splitlines()[0].split(", ")
    assert len(names) == BATCH
    assert all((demo / "train2017" / name).exists() for name in names)
    assert folder.state.read_bytes() == before  # although epochs ended meanwhile
    log = (folder.path / "log.txt").read_text()
    assert log.count("is not finite and was skipped: ") == 10


@pytest.mark.slow
def test_skipped_steps_are_counted(start: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, calls = tmp_path / "out.safetensors", []

    def broken(forward: Forward) -> Forward:
        def replacement(self: Any, views: Any, targets: Any) -> dict[str, torch.Tensor]:
            calls.append(1)
            factor = torch.inf if len(calls) in (2, 4, 5) else 1.0
            return {name: loss * factor for name, loss in forward(self, views, targets).items()}

        return replacement

    with forward_replaced(monkeypatch, broken):
        assert start(out) == 0
    assert [row["skipped"] for row in rows(out)] == ["1", "2"]  # steps 1 to 3, and 4 to 6


def test_a_batch_that_does_not_fit_is_split_and_stays_split(
    start: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, sizes = tmp_path / "out.safetensors", []

    def small(forward: Forward) -> Forward:
        def replacement(self: Any, views: Any, targets: Any) -> dict[str, torch.Tensor]:
            sizes.append(len(targets))
            if len(targets) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(self, views, targets)

        return replacement

    with forward_replaced(monkeypatch, small):
        assert start(out, "--time", "0s") == 0
        assert "out of memory: from step 1 on, a batch is computed in 2 parts" in capsys.readouterr().err
        assert resume(out) == 0
    assert sizes == [2] + [1] * 2 * STEPS


def test_no_memory_for_one_image_ends_with_advice(
    stopped: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(_: Forward) -> Forward:
        def replacement(_self: Any, _views: Any, _targets: Any) -> dict[str, torch.Tensor]:
            raise MemoryError

        return replacement

    with forward_replaced(monkeypatch, none):
        assert resume(stopped) == 5
    message = capsys.readouterr().err
    assert "out of memory on cpu with a single image" in message
    assert "--size" in message
    assert RunFolder(stopped).load_state()[0]["progress"]["step"] == 1


@forks
def test_a_killed_worker_ends_the_run_with_a_state(
    start: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.safetensors"

    def killing(forward: Forward) -> Forward:
        def replacement(self: Any, views: Any, targets: Any) -> dict[str, torch.Tensor]:
            for each in multiprocessing.active_children():
                each.kill()
            return forward(self, views, targets)

        return replacement

    with forward_replaced(monkeypatch, killing):
        # Evaluation, whose worker is killed as well, comes after what the first epoch's worker has sent.
        assert start(out, "--workers", "1", "--epochs", "60", "--eval-every", "60") == 6
    message = capsys.readouterr().err
    assert "a loader process died" in message
    assert f"msad distill --resume --out {out}" in message
    assert 1 <= RunFolder(out).load_state()[0]["progress"]["step"] < 60 * IMAGES // BATCH
    assert resume(out, "--workers", "0", "--epochs", str(EPOCHS)) in (0, 2)


def test_two_processes_do_not_train_into_one_folder(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = RunFolder(stopped).state.with_name("lock")
    held = f"file = open({str(lock)!r}, 'a'); fcntl.lockf(file, fcntl.LOCK_EX)"
    code = f"import fcntl; {held}; print(1, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert resume(stopped) == 2
        assert "another process is training into" in capsys.readouterr().err
        other.communicate(b"\n")
    assert resume(stopped) == 0


@pytest.mark.slow
def test_what_a_killed_process_left_half_written_is_cleared_away(stopped: Path) -> None:
    folder = RunFolder(stopped)
    left = [
        folder.state.with_name(".new.pt.a1b2c3d4"),
        folder.path / ".results.csv.a1b2c3d4",
        folder.path / "plots" / ".loss.png.a1b2c3d4",
        stopped.with_name(f".{stopped.name}.a1b2c3d4"),
    ]
    foreign = stopped.with_name(".other.safetensors.a1b2c3d4")
    for each in (*left, foreign):
        each.parent.mkdir(exist_ok=True)
        each.touch()
    assert resume(stopped) == 0
    assert [each for each in left if each.exists()] == []
    assert foreign.exists()


# --- images that cannot be read ---

ROBUSTNESS = SHARED / "robustness_images"
TINY = ["--scales=single", *SMALLEST, "--size=32,32", "--epochs=1", *EXACT]


def many_images(data: Path, count: int, more: Sequence[Path] = ()) -> Path:
    """A COCO folder: `count` links to one image, and some other files; one box in all."""
    for split, links in (("train2017", count), ("val2017", 1)):
        (data / split).mkdir(parents=True)
        Image.new("RGB", (32, 32), "white").save(data / split / "0.png")
        for index in range(1, links):
            os.link(data / split / "0.png", data / split / f"{index}.png")
        for each in more if split == "train2017" else ():
            shutil.copy(each, data / split / each.name)
        names = sorted(each.name for each in (data / split).iterdir())
        document = {
            "images": [{"id": index, "file_name": name} for index, name in enumerate(names)],
            "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [2, 2, 20, 20]}],
            "categories": [{"id": 1, "name": "thing"}],
        }
        (data / "annotations").mkdir(exist_ok=True)
        (data / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return data


def test_one_percent_of_bad_images_is_passed_over_and_more_ends_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """101 images: one that is torn is passed over, a second one is past 1%."""
    data, out = many_images(tmp_path / "data", 101), tmp_path / "out.safetensors"
    arguments = ["teacher", "--data", str(data), *TINY, "--batch", "10", "--out", str(out)]
    whole = (data / "train2017" / "0.png").read_bytes()

    def tear(name: str) -> None:
        (data / "train2017" / name).unlink()  # its content is shared by links
        (data / "train2017" / name).write_bytes(whole[: len(whole) // 2 + 20])

    tear("7.png")
    assert run(arguments) == 0
    said = capsys.readouterr().err
    assert said.count("passed over: ") == 1
    assert "7.png" in said
    tear("8.png")
    assert run([*arguments, "--overwrite"]) == 3
    assert "2 of 101 images of " in capsys.readouterr().err
    (data / "train2017" / "8.png").write_bytes(whole)
    assert run(["teacher", "--resume", "--out", str(out)]) == 0


@pytest.mark.slow
@pytest.mark.shared("robustness_images")
def test_no_odd_image_ends_a_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Torn, empty, huge and strange files among so many others that they are less than 1%."""
    entries = json.loads((ROBUSTNESS / "manifest.json").read_text())
    odd = [ROBUSTNESS / entry["file"] for entry in entries]
    data = many_images(tmp_path / "data", 2400, odd)
    bad = set()
    for path in odd:
        try:
            read_image(path)
        except DataError:
            bad.add(path.name)
    assert {Path(entry["file"]).name for entry in entries if entry["expect"] == "must load"}.isdisjoint(bad)
    out = tmp_path / "out.safetensors"
    assert run(["teacher", "--data", str(data), *TINY, "--batch", "200", "--out", str(out)]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("passed over: ")]
    passed = {name for name in bad if any(f"/{name}" in line for line in said)}
    # Of 2466 images, 12 batches of 200 leave 66 out; which they are depends on the seed alone.
    assert len(said) == len(passed) >= len(bad) - 3
