"""SIGKILL at random moments, while states are written too: the run ends with the weights it would have had anyway."""

import multiprocessing
import os
import random
import shlex
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from msad_cli.cli.app import run
from msad_cli.data.layouts.demo import draw_demo
from msad_cli.runs.folder import RunFolder

KILLS = 100
EPOCHS = 100
FLAGS = shlex.split(
    "--init none --backbone resnet18 --width 0.125 --head-channels 64 --head-convs 1 --size 64,64 --batch 2 --ema 0.99 "
    f"--epochs {EPOCHS} --eval-every {EPOCHS} --device cpu --precision fp32 --workers 0 --checkpoint 0s --quiet"
)


def start(arguments: list[str]) -> None:
    """One start of msad, in a process that may be killed."""
    torch.set_num_threads(1)
    os._exit(run(arguments))


def left_half_written(out: Path) -> bool:
    """Whether a kill fell into the writing of a state: a temporary file, or a state that did not get its name yet."""
    folder = RunFolder(out).state.parent
    return any(folder.glob(".*")) or (folder / "new.pt").exists()


@pytest.mark.slow
def test_a_run_that_is_killed_a_hundred_times(tmp_path: Path) -> None:
    draw_demo(tmp_path / "demo", train=32, val=2, seed=0, size=(64, 64))
    cut, whole = tmp_path / "cut.safetensors", tmp_path / "whole.safetensors"
    anew = ["teacher", "--data", str(tmp_path / "demo"), *FLAGS]
    resume = ["teacher", "--resume", "--out", str(cut), "--checkpoint", "0s", "--quiet"]
    # A server that has torch loaded forks each start: what is killed is training, not importing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["msad_cli.training.trainer", "msad_cli.models.detector", "msad_cli.models.weights.initialise"]
    )
    draw, half_written, resumed = random.Random(0), 0, 0
    server = context.Process(target=os.getpid)
    server.start()
    server.join()
    began = time.monotonic()
    process = context.Process(target=start, args=([*anew, "--out", str(cut)],))
    process.start()
    while not RunFolder(cut).resumable:
        assert process.exitcode is None
    process.kill()
    process.join()
    to_first_state = time.monotonic() - began  # a loaded machine takes longer to come so far
    for kill in range(KILLS):
        resumable = RunFolder(cut).resumable
        process = context.Process(
            target=start, args=(resume if resumable else [*anew, "--out", str(cut), "--overwrite"],)
        )
        process.start()
        process.join(timeout=draw.uniform(0.2, 1.6) * to_first_state)
        while kill % 2 and process.is_alive() and not left_half_written(cut):
            pass  # every second kill waits for a state that is being written
        assert process.exitcode is None, f"ended with code {process.exitcode} before kill {kill + 1}: too few epochs"
        process.kill()
        process.join()
        half_written += left_half_written(cut)
        resumed += resumable
        step = int(RunFolder(cut).load_state()[0]["progress"]["step"]) if RunFolder(cut).resumable else 0
        print(f"kill {kill + 1}: state of step {step}{', half-written' if left_half_written(cut) else ''}")
    print(f"{KILLS} kills in {time.monotonic() - began:.0f} s, {half_written} of them while a state was written")
    torch.set_num_threads(1)
    assert run(resume) == 0
    assert run([*anew, "--out", str(whole)]) == 0
    expected, got = load_file(whole), load_file(cut)
    assert expected.keys() == got.keys()
    assert all(torch.equal(each, got[name]) for name, each in expected.items())
    # Torn files of earlier kills are gone.
    assert not left_half_written(cut)
