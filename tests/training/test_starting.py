"""`--init FILE`: a model file brings its architecture, what was typed goes before it, and all of it is said."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.detectors import POINTS
from support.specs import spec

from msad_cli.cli.app import run
from msad_cli.errors import ModelFileError
from msad_cli.frame import Resolution
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, save_model
from msad_cli.models.spec import ClassName
from msad_cli.runs.folder import Setting
from msad_cli.training.config import Asked, DistillConfig, TeacherConfig
from msad_cli.training.observer import Observer
from msad_cli.training.starting import adopted
from msad_cli.training.train_teacher import train_teacher


class Listener(Observer):
    """Keeps the plan."""

    def plan(self, out: Path, settings: Any) -> None:
        self.settings: dict[str, Setting] = dict(settings)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of red and green."""
    path = tmp_path_factory.mktemp("models") / "base.safetensors"
    classes = (ClassName(1, "green"), ClassName(2, "red"))
    save_model(path, Detector(spec(detector="retinanet", classes=classes, ks=(1, 4), phase="grid")), Card())
    return path


def planned(folder: Path, file: Path, **typed: Any) -> dict[str, Setting]:
    config = TeacherConfig(data=str(folder), init=str(file), dry_run=True, out=folder / "o.safetensors", **typed)
    listener = Listener()
    train_teacher(Asked(config, frozenset({"data", "init", *typed})), listener)
    return listener.settings


def test_a_model_file_brings_its_architecture(coco_folder: Path, file: Path) -> None:
    settings = planned(coco_folder, file, head_convs=2)
    brought = {
        "detector": "retinanet",
        "backbone": "resnet18",
        "width": 0.25,
        "head_channels": 64,
        "head_depthwise": False,
        "norm": "group",
        "size": "128,256",
        "k": "4",
        "fusion": "c-ff",
        "phase": "grid",
    }
    assert {name: settings[name] for name in brought} == {
        name: Setting(value, "file", f"as in {file}") for name, value in brought.items()
    }
    assert settings["head_convs"] == Setting(2, "flag", f"{file} has 1")
    init = settings["init"]
    assert init.value == str(file)
    # The second convolution of both towers is new: 2 × (weight, bias), and no norm, as RetinaNet has none.
    assert init.reason.endswith("the head keeps its rows of red, by name; from the prior: blue")
    tensors = len(Detector(spec(detector="retinanet", ks=(1, 4), head_convs=2)).state_dict())
    assert f"{tensors - 4} of {tensors} tensors loaded" in init.reason


def test_a_backbone_that_is_typed_has_to_fit(coco_folder: Path, file: Path) -> None:
    with pytest.raises(ModelFileError, match=r"tensors of resnet34 at width 0\.25 loaded; not, for example"):
        planned(coco_folder, file, backbone="resnet34")
    settings = planned(coco_folder, file, backbone="resnet34", init_partial=True)
    assert settings["norm"].value == "group"
    assert settings["backbone"] == Setting("resnet34", "flag", f"{file} has resnet18")


def test_students_take_backbone_and_head_from_a_file_and_what_they_see_from_the_teacher(file: Path) -> None:
    asked, settings = adopted(Asked(DistillConfig(init=f"{file},teacher", width=0.5), frozenset({"init", "width"})))
    config = asked.config
    assert (config.backbone, config.width, config.head_channels, config.norm) == ("resnet18", 0.5, 64, "group")
    assert config.k is None
    assert settings["width"] == Setting(0.5, "flag", f"{file} has 0.25")


def test_a_baseline_takes_the_one_view_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "low.safetensors"
    low = spec(role="student", ks=(2,), detector="keypointrcnn", keypoints=POINTS, resolution=Resolution(64, 96))
    save_model(path, Detector(low), Card())
    single = adopted(Asked(TeacherConfig(init=str(path), scales="single"), frozenset({"init", "scales"})))[0].config
    assert (single.k, single.size, single.detector) == ("2", "64,96", "keypointrcnn")


def test_a_file_of_another_tool_brings_nothing(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "w.pth")
    asked = Asked(TeacherConfig(init=str(tmp_path / "w.pth")), frozenset({"init"}))
    assert adopted(asked) == (asked, {})


@pytest.mark.slow
def test_a_run_goes_on_without_the_file_that_it_started_from(
    coco_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, out = tmp_path / "start.safetensors", str(tmp_path / "o.safetensors")
    save_model(start, Detector(spec(resolution=Resolution(64, 96))), Card())
    flags = ["--batch", "2", "--workers", "0", "--device", "cpu", "-o", out]
    assert run(["teacher", "--data", str(coco_folder), "--init", str(start), "--epochs", "1", *flags]) == 0
    tensors = len(Detector(spec()).state_dict())
    assert f"{start}: {tensors} of {tensors} tensors loaded" in " ".join(capsys.readouterr().err.split())
    start.unlink()
    assert run(["teacher", "--resume", "--epochs", "2", "--batch", "2", "-o", out]) == 0
    assert "backbone resnet18" in " ".join(capsys.readouterr().err.split())
