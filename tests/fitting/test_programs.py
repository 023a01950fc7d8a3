"""Commands of a fit as programs: what they get, what they print, how they fail and how they are interrupted."""

import os
import signal
import sys
from pathlib import Path

import pytest

from msad_cli.errors import DataError, TrainingError
from msad_cli.fitting.programs import Programs


def in_place_of_python(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "python.sh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_a_program_gets_the_words_and_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    in_place_of_python('echo "$OMP_NUM_THREADS $@"; echo remark >&2', tmp_path, monkeypatch)
    assert Programs(quiet=True).run(("bench", "a b", "--json"), 3) == (0, "3 -m msad_cli --json bench a b --json\n")
    assert Programs(quiet=True).run(("export", "a"), None) == (0, "5 -m msad_cli --json export a --quiet\n")
    assert capfd.readouterr() == ("", "")
    assert Programs(quiet=False).run(("export", "a"), None) == (0, "5 -m msad_cli --json export a\n")
    assert capfd.readouterr() == ("", "remark\n")


def test_a_program_that_ends_without_a_word_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_place_of_python("echo half a document; echo deep in trouble >&2; kill -9 $$", tmp_path, monkeypatch)
    with pytest.raises(TrainingError, match=r"^the command export ended with -9: deep in trouble$") as caught:
        Programs(quiet=True).run(("export", "a"), None)
    assert caught.value.code == "command-died"


def test_an_error_of_a_command_is_raised_as_it_was_there(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError) as caught:
        Programs(quiet=True).run(("teacher", "--data", "nowhere"), None)
    assert (caught.value.code, caught.value.exit_code) == ("data-folder-missing", 3)
    assert caught.value.message == "nowhere: no such folder"
    assert caught.value.hint == "give the folder of a set, or the word demo"
    assert capfd.readouterr() == ("", "")


class Interrupting(Programs):
    """Who presses Ctrl-C once, when the first epoch is over."""

    pressed = False

    def say(self, line: str) -> None:
        if line.startswith("epoch 1/9") and not self.pressed:
            self.pressed = True
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_training_has_saved_its_state(demo: Path, tmp_path: Path) -> None:
    words = ["--data", str(demo), "--init", "none", "--backbone", "resnet18", "--width", "0.25", "--size", "96,128"]
    words += ["--head-channels", "64", "--head-convs", "1", "--batch", "2", "--device", "cpu", "--workers", "0"]
    words += ["--scales", "single", "--epochs", "9", "--out", str(tmp_path / "t.safetensors")]
    handler = signal.getsignal(signal.SIGINT)
    assert Interrupting(quiet=False).run(("teacher", *words), None) == (128 + signal.SIGINT, "")
    assert signal.getsignal(signal.SIGINT) == handler
    assert (tmp_path / "t.run" / "resume" / "state.pt").exists()
