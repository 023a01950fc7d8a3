"""Addresses and cameras as inputs: a local server answers, and nothing is opened that nobody typed."""

import functools
import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from msad_cli.cli.app import run
from msad_cli.inference import predictor
from msad_cli.inference.streams import is_stream
from msad_cli.inference.video import writing_video
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, save_model


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A host on this machine with a turned image, a clip of five frames and a text."""
    folder = tmp_path / "served"
    folder.mkdir()
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (64, 48), (200, 40, 40)).save(folder / "turned photo.jpg", exif=exif)
    (folder / "text.png").write_text("no image")
    with writing_video(folder / "clip.mp4", Fraction(10)) as write:
        for number in range(5):
            write(Image.new("RGB", (64, 48), (40 * number, 90, 90)))
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as host:
        thread = threading.Thread(target=host.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{host.server_address[1]}"
        host.shutdown()
        thread.join()


@pytest.fixture
def predict(tmp_path: Path, student: Detector) -> Callable[..., int]:
    path = tmp_path / "student.safetensors"
    save_model(path, student, Card(score_threshold=0.0))
    flags = ["-m", str(path), "-o", str(tmp_path / "out"), "--device", "cpu", "--precision", "fp32"]
    return lambda *arguments: run(["predict", *map(str, arguments), *flags])


def test_an_image_and_a_clip_behind_addresses(server: str, predict: Callable[..., int], tmp_path: Path) -> None:
    assert predict(f"{server}/turned%20photo.jpg", f"{server}/clip.mp4") == 0
    out = tmp_path / "out"
    with Image.open(out / "turned photo.jpg") as image:
        assert image.size == (48, 64)  # upright
    assert (out / "clip.mp4").stat().st_size > 0
    found = json.loads((out / "predictions.json").read_text())
    assert {each["file_name"] for each in found} == {"turned photo.jpg", "clip.mp4"}
    assert {each["frame"] for each in found if "frame" in each} == set(range(5))


def test_ctrl_c_ends_a_stream_and_keeps_what_was_found(
    server: str, predict: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = predictor._detect
    frames = []

    def interrupted(*arguments: object) -> Iterator[object]:
        for found in look(*arguments):  # type: ignore[arg-type]
            frames.append(1)
            if len(frames) == 3:
                os.kill(os.getpid(), signal.SIGINT)
            yield found

    monkeypatch.setattr(predictor, "_detect", interrupted)
    assert predict(f"{server}/clip.mp4") == 0
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {each["frame"] for each in found} == {0, 1, 2}
    assert (tmp_path / "out" / "clip.mp4").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("name", ["gone.jpg", "text.png", "gone.mp4"])
def test_what_is_not_there_is_named(
    name: str, server: str, predict: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    code = predict(f"{server.replace('//', '//me:secret@')}/{name}")
    assert code in (3, 7)
    said = capsys.readouterr().err
    assert f"127.0.0.1/{name}" in said
    assert "secret" not in said


def test_a_camera_that_is_not_there_is_named(predict: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert predict("987") == 7
    assert "camera 987: cannot be decoded (No such file or directory)" in capsys.readouterr().err


def test_only_what_is_typed_is_opened(
    server: str, predict: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not the lines of a list."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{server}/clip.mp4\n".encode())))
    assert predict("-") == 2
    assert "no such file, folder or pattern" in capsys.readouterr().err


def test_a_file_is_meant_before_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_stream("0")
    (tmp_path / "0").mkdir()
    assert not is_stream("0")
    assert not is_stream("file:///etc/passwd")
    assert is_stream("RTSP://10.0.0.7/live")
