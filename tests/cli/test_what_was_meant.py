"""What people type or have: sizes and numbers as other tools write them, sets that were moved, odd names."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.flags import SMALLEST
from support.specs import spec

from msad_cli import api
from msad_cli.cli.app import run
from msad_cli.cli.gates import parse_gates
from msad_cli.errors import MsadError, OutputError, UsageError
from msad_cli.evaluation.evaluate import Evaluation, EvaluationConfig
from msad_cli.frame import Resolution
from msad_cli.inference.inputs import find_inputs
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, save_model
from msad_cli.models.spec import ClassName
from msad_cli.runs.folder import RunFolder, Setting
from msad_cli.text import parse_size, parse_sizes


@pytest.mark.parametrize("text", ["800,1333", "800x1333", "1333x800", "800X1333", "800×1333", " 800 x 1333 "])
def test_a_size_is_understood_as_others_write_it(text: str) -> None:
    assert parse_size(text) == Resolution(800, 1333)
    assert parse_sizes(text, 2, Resolution(64, 96)) == {400: Resolution(800, 1333)}


@pytest.mark.parametrize("text", ["x800", "800x", "800x600x3", "800,1333,3", "1333,800", "axb"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("mAP", "AP"),
        ("map", "AP"),
        ("mAP50-95", "AP"),
        ("mAP@50:95", "AP"),
        ("mAP@.5:.95", "AP"),
        ("mAP50", "AP50"),
        ("map@75", "AP75"),
        ("mask_mAP", "mask_AP"),
        ("AP", "AP"),
        ("APs", "APs"),
        ("keypoint_AP50", "keypoint_AP50"),
        ("AR100", "AR100"),
    ],
)
def test_gates_know_the_names_of_other_tools(typed: str, name: str) -> None:
    assert parse_gates(f"{typed}=0.5") == {name: 0.5}


@pytest.mark.parametrize("typed", ["mAR=0.5", "mmAP=0.5", "AP60=0.5", "precision=0.5"])
def test_gates_that_there_are_not(typed: str) -> None:
    with pytest.raises(UsageError, match="no such score"):
        parse_gates(typed)


@pytest.fixture
def model(tmp_path: Path, coco_folder: Path) -> Path:
    """A student that remembers the tiny set."""
    classes = (ClassName(7, "red"), ClassName(90, "blue"))
    student = spec(role="student", ks=(2,), resolution=Resolution(64, 96), classes=classes)
    save_model(tmp_path / "s.safetensors", Detector(student), Card(data=str(coco_folder)))
    return tmp_path / "s.safetensors"


def test_python_refuses_the_numbers_that_the_command_line_refuses(model: Path) -> None:
    loaded = api.load(model, device="cpu")
    image = Image.new("RGB", (64, 48))
    for wrong in ({"score": 2}, {"score": -1}, {"score": float("nan")}, {"batch": 0}, {"batch": -1}):
        with pytest.raises(UsageError, match=f"{next(iter(wrong))} .*: not "):
            loaded.predict([image], **wrong)
    assert len(loaded.predict([image], score=0, batch=1)) == 1
    with pytest.raises(UsageError, match="--workers -1: not from 0 to 128"):
        EvaluationConfig(workers=-1)


def test_what_macos_leaves_beside_images_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("x.jpg", "._x.jpg", "sub/y.png", "sub/._y.png", "_z.png"):
        (tmp_path / name).write_bytes(b"")
    names = [str(each.relative) for each in find_inputs([str(tmp_path)])]
    assert names == ["_z.png", "sub/y.png", "x.jpg"]
    assert [each.path.name for each in find_inputs([f"{tmp_path}/**/*.png"])] == ["_z.png", "y.png"]
    assert [each.path.name for each in find_inputs([f"{tmp_path}/._x.jpg"])] == ["._x.jpg"]  # it was named


def test_a_set_that_was_moved_is_named_as_what_the_model_remembers(
    model: Path, coco_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco_folder.rename(coco_folder.with_name("moved"))
    assert run(["eval", str(model), "--device", "cpu"]) == 3
    err = capsys.readouterr().err
    assert f"error: {model}: the set that it was trained on is not at {coco_folder} any more" in err
    assert "hint: add --data DIR, where it lies now" in err
    teacher, out = model.with_name("t.safetensors"), str(model.with_name("o.safetensors"))
    save_model(teacher, Detector(spec()), Card(data=str(coco_folder)))
    assert run(["distill", "--teacher", str(teacher), "-o", out, "--device", "cpu"]) == 3
    assert f"error: {teacher}: the set that it was trained on is not at" in capsys.readouterr().err
    assert run(["export", str(model), "--int8", "-o", str(model.with_name("o.onnx"))]) == 3
    assert "any more" in capsys.readouterr().err


def stopped(out: Path, **recorded: str) -> None:
    """The folder of a run that was stopped, with these settings; its state is looked at later than they are."""
    folder = RunFolder(out)
    folder.state.parent.mkdir(parents=True)
    folder.state.write_bytes(b"")
    folder.record({name: Setting(value, "flag") for name, value in recorded.items()})


def test_a_run_whose_set_or_teacher_was_moved_says_where_it_was(
    model: Path, tmp_path: Path, coco_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, gone = tmp_path / "o.safetensors", str(tmp_path / "gone")
    stopped(out, data=gone)
    assert run(["teacher", "--resume", "-o", str(out), "--device", "cpu"]) == 3
    assert f"error: {out}: the set that it was trained on is not at {gone} any more" in capsys.readouterr().err
    out = tmp_path / "p.safetensors"
    stopped(out, data=str(coco_folder), teacher=gone)
    assert run(["distill", "--resume", "-o", str(out), "--device", "cpu"]) == 4
    err = capsys.readouterr().err
    assert f"error: {out}: its teacher is not at {gone} any more" in err
    assert "hint: add --teacher FILE, where it lies now" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--head-channels", "16"], "head channels 16: not from 32 to 1024"),
        (["--head-convs", "99"], "head convolutions 99: not from 1 to 16"),
        (["--decay", "slowly"], "--decay slowly: unknown"),
        (["--lr", "-1"], "--lr -1.0: has to be positive"),
        (["--detector", "keypointrcnn", "--width", "9"], "width 9.0: not from 0.125 to 4.0"),
    ],
)
def test_what_no_model_can_be_is_refused_before_a_set_is_drawn(
    flags: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("msad_cli.training.train_teacher.read_data", lambda *_: pytest.fail("the set was read"))
    out = str(tmp_path / "o.safetensors")
    assert run(["teacher", "--data", "demo", *SMALLEST, *flags, "--device", "cpu", "-o", out]) == 2
    assert message in capsys.readouterr().err


def test_without_utf8_names_from_a_text_are_found(coco_folder: Path) -> None:
    for name in ("train2017", "val2017"):
        annotations = coco_folder / "annotations" / f"instances_{name}.json"
        document = json.loads(annotations.read_text())
        for each in document["images"]:
            file = coco_folder / name / each["file_name"]
            each["file_name"] = f"ü 数据 {file.name}"
            file.rename(coco_folder / name / each["file_name"])
        annotations.write_text(json.dumps(document))
    environment = {**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    command = [sys.executable, "-m", "msad_cli", "data", "check", str(coco_folder), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    counts = [each["counts"]["images"] for each in json.loads(done.stdout)["splits"]]
    assert counts == [4, 3]


def test_a_name_that_cannot_be_written_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    from msad_cli.cli import app

    monkeypatch.setattr("sys.getfilesystemencoding", lambda: "ascii")
    try:
        "ü.png".encode("ascii")
    except UnicodeEncodeError as error:
        told: MsadError = app._unforeseen(error)
    assert isinstance(told, UsageError)
    assert "export PYTHONUTF8=1" in told.hint


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("file/a.json", "is a file, not a folder"),
        ("file/in/a.json", "file is a file, not a folder"),
        ("folder", "Is a directory"),
    ],
)
def test_predictions_that_cannot_be_written_are_said_before_the_evaluation(
    place: str, why: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=why):
        Evaluation(model, EvaluationConfig(predictions=tmp_path / place, device="cpu"))  # which measures nothing yet
    assert run(["eval", str(model), "--predictions", str(tmp_path / place), "--device", "cpu"]) == 2
    assert f"cannot write {tmp_path / place}: " in capsys.readouterr().err
