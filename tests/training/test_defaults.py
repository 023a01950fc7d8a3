"""What a training does that nobody typed: by machine, by set, by its teacher, by the time it may take."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.flags import EXACT, SMALLEST
from support.overfit import SIZE, overfit, squares
from support.specs import spec

from msad_cli.cli.app import run
from msad_cli.data.annotations.records import Records, read_records
from msad_cli.errors import UsageError
from msad_cli.frame import Resolution
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, read_header, save_model
from msad_cli.runs.folder import RunFolder, Setting
from msad_cli.text import duration
from msad_cli.training import train_teacher
from msad_cli.training.config import Asked, DistillConfig, TeacherConfig
from msad_cli.training.defaults.budget import fit_time
from msad_cli.training.defaults.inherited import inherited, remembered
from msad_cli.training.defaults.machine import LARGE, SMALL, choose_network, choose_size
from msad_cli.training.defaults.pace import Pace, pace_of, words
from msad_cli.training.plan import Choices, choose, choose_norm
from msad_cli.training.steps.averaging import decay_after

CPU, GPU = torch.device("cpu"), torch.device("cuda")
FOLDER = Path("t.safetensors")


def network(device: torch.device = CPU, **asked: Any) -> tuple[Any, ...]:
    found, _ = choose_network(TeacherConfig(**asked), device)
    return found.backbone, found.width, found.head_channels, found.head_convs, found.init


def test_a_small_network_without_a_gpu_and_the_papers_with_one() -> None:
    assert network() == ("cspnext_nano", 1.0, 64, 2, "none")
    assert network(detector="fcos") == ("resnet18", 0.5, 64, 2, "none")
    assert network(GPU) == ("resnet50", 1.0, 256, 4, "imagenet")


def test_what_was_typed_stands_and_the_rest_goes_with_it() -> None:
    """A backbone that is named, and published weights that are, come with all channels: else no weights fit."""
    assert network(backbone="mobilenet_v2") == ("mobilenet_v2", 1.0, 64, 2, "imagenet")
    assert network(backbone="mobilenet_v2", width=0.5)[1::3] == (0.5, "none")
    assert network(init="imagenet")[:2] == ("resnet18", 1.0)
    assert network(init="coco")[:4] == ("resnet50", 1.0, 256, 4)
    assert network(GPU, width=0.25)[-1] == "none"
    assert network(GPU, head_convs=1)[3] == 1


def test_rtmdet_is_the_detector_from_scratch_on_a_cpu_and_fcos_any_other() -> None:
    def detector(device: torch.device = CPU, **asked: Any) -> str:
        return choose_network(TeacherConfig(**asked), device)[0].detector

    assert detector() == detector(init="none") == detector(backbone="cspnext_tiny") == detector(width=0.5) == "rtmdet"
    assert detector(GPU) == detector(GPU, init="none") == detector(GPU, backbone="cspnext_s") == "fcos"
    assert detector(init="imagenet") == detector(init="coco") == detector(backbone="resnet18") == "fcos"
    assert detector(init="none", backbone="resnet18") == "fcos"
    assert detector(detector="fcos", backbone="cspnext_nano") == "fcos"


def test_rtmdet_has_a_backbone_of_its_own_family() -> None:
    """64 channels of nano and 128 of s: 256 × 0.25 and 256 × 0.5."""
    assert network(detector="rtmdet") == ("cspnext_nano", 1.0, 64, 2, "none")
    assert network(GPU, detector="rtmdet") == ("cspnext_s", 1.0, 128, 2, "none")
    assert network(detector="rtmdet", init="coco")[:3] == ("cspnext_tiny", 1.0, 96)
    assert network(detector="rtmdet", backbone="mobilenet_v2") == ("mobilenet_v2", 1.0, 64, 2, "imagenet")


def test_rtmdet_is_trained_by_its_own_recipe_unless_something_is_typed() -> None:
    """AdamW with 0.004 at a batch of 16, flat and then a cosine, batch statistics from scratch; FCOS as before."""

    def recipe(detector: str, **asked: Any) -> tuple[str, str, float]:
        found = choose(TeacherConfig(device="cpu", precision="fp32", **asked), 100, detector, "none")
        return found.optimizer, found.schedule.decay, found.schedule.learning_rate

    assert recipe("rtmdet") == ("adamw", "flat-cosine", 0.002)
    assert recipe("rtmdet", optimizer="sgd", decay="steps") == ("sgd", "steps", 0.005)
    assert recipe("fcos") == ("sgd", "steps", 0.005)
    assert (choose_norm("auto", "none", "rtmdet").value, choose_norm("auto", "none", "fcos").value) == (
        "batch",
        "group",
    )


def test_settings_say_what_was_chosen_and_no_others() -> None:
    assert set(choose_network(TeacherConfig(backbone="resnet18", width=0.5), CPU)[1]) == {
        "detector",
        "head_channels",
        "head_convs",
        "init",
    }
    assert "rois" in choose_network(TeacherConfig(detector="maskrcnn"), CPU)[1]


def records(folder: Path, *sides: tuple[int, int]) -> Records:
    file = folder / "annotations" / "instances_train2017.json"
    return replace(read_records(file, folder / "train2017"), sizes=np.array(sides, dtype=np.int64))


def test_images_are_not_enlarged_unasked(coco_folder: Path) -> None:
    """The short side is the median one, up to 320 pixels on a CPU and 800 on a GPU; the long side 5/3 of it."""
    some = records(coco_folder, (480, 640), (640, 480), (200, 900), (0, 0))
    assert choose_size(None, some, CPU)[0] == SMALL.size == Resolution(320, 533)
    size, said = choose_size(None, some, GPU)
    assert (size.short_side, size.long_side) == (480, 800) == (480, round(480 * 1333 / 800))
    assert said is not None
    assert "1 of 3 images are smaller and enlarged" in said.reason
    assert choose_size(None, records(coco_folder, (2000, 3000)), GPU)[0] == LARGE.size
    assert choose_size(None, records(coco_folder, (0, 0)), GPU)[0] == LARGE.size
    assert choose_size(None, records(coco_folder, (20, 30)), CPU)[0].short_side == 32  # the least there is
    assert choose_size("640,700", some, CPU) == (Resolution(640, 700), None)


TRAINED = {"epochs": 6, "batch": 8, "lr": 0.02, "decay": "cosine", "ema": 0.0, "optimizer": "sgd"}


def heir(**typed: Any) -> tuple[DistillConfig, dict[str, Setting]]:
    asked, settings = inherited(Asked(DistillConfig(**typed), frozenset(typed)), TRAINED, FOLDER)
    return asked.config, settings


def test_a_student_is_trained_as_its_teacher_was() -> None:
    config, settings = heir()
    assert {name: getattr(config, name) for name in TRAINED} == TRAINED
    assert {(each.source, each.reason) for each in settings.values()} == {("teacher", "as t.safetensors was trained")}
    config, settings = heir(epochs=3, decay="steps")
    assert (config.epochs, config.decay, config.lr) == (3, "steps", 0.02)
    assert settings.keys() == {"batch", "lr", "ema", "optimizer"}


def test_the_rate_goes_with_batch_and_optimiser() -> None:
    assert heir(batch=2)[0].lr == pytest.approx(0.02 * 2 / 8)
    assert heir(batch=2, lr=0.1)[0].lr == 0.1
    assert heir(optimizer="adamw")[0].lr is None
    assert heir(budget_time="1h")[0].epochs is None


def test_files_without_a_memory_leave_all_to_the_plan() -> None:
    asked = Asked(DistillConfig(), frozenset())
    assert inherited(asked, {}, FOLDER) == (asked, {})
    going_on = Asked(DistillConfig(resume=True), frozenset({"resume"}))
    assert inherited(going_on, TRAINED, FOLDER) == (going_on, {})


def test_what_is_remembered() -> None:
    """How a run was trained, however that was chosen; what goes by the machine only if somebody typed it."""
    settings = {name: Setting(value, "auto") for name, value in TRAINED.items()}
    beside = {"workers": Setting(1, "auto"), "fliplr": Setting(0.25, "flag"), "seed": Setting(0, "flag")}
    assert remembered(settings | beside) == TRAINED | {"fliplr": 0.25}


@pytest.mark.parametrize("wrong", [{"epochs": "many"}, {"lr": [1]}, {"batch": True}, {"decay": 3}, {"lr": 10**400}])
def test_a_hostile_memory_is_a_broken_file(tmp_path: Path, wrong: dict[str, Any]) -> None:
    file = tmp_path / "t.safetensors"
    save_model(file, Detector(spec()), Card(training=wrong))
    assert run(["info", str(file)]) == 4


def test_student_of_a_teacher_from_its_file(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    """The teacher had `--batch=4 --epochs=15 --lr=0.02 --ema=0`, as support/overfit.py says."""
    teacher, out = overfit(tmp_path_factory), tmp_path / "s.safetensors"
    assert run(["distill", f"--teacher={teacher}", *EXACT, "--epochs=1", f"--out={out}"]) == 0
    recorded = RunFolder(out).recorded()
    assert [recorded[name].value for name in ("batch", "lr", "ema", "epochs")] == [4, 0.02, 0.0, 1]
    assert [recorded[name].source for name in ("batch", "lr", "ema", "epochs")] == ["teacher"] * 3 + ["flag"]
    assert read_header(out)[1].training["lr"] == 0.02


def test_the_average_forgets_the_start() -> None:
    """(1 + n) / (10 + n): of the first update a tenth of what was stays, and never more than the largest decay."""
    assert [decay_after(n, 0.999) for n in (0, 1, 90)] == [0.1, 2 / 11, 0.91]
    assert decay_after(8989, 0.999) == pytest.approx(8990 / 8999)
    assert decay_after(10**6, 0.999) == 0.999
    # What is left of the start after n updates is their product: 9! · n! / (n + 9)!, below 10⁻⁸ after 50.
    left = math.prod(decay_after(n, 0.999) for n in range(50))
    assert left == pytest.approx(math.factorial(9) * math.factorial(50) / math.factorial(59))


def test_durations() -> None:
    said = {0.2: "1 s", 40: "40 s", 100: "2 min", 3599: "60 min", 7800: "2 h 10 min", 86_400: "1 day"}
    assert {seconds: duration(seconds) for seconds in said} == said
    assert duration(3 * 86_400 + 4 * 3600) == "3 days 4 h"
    assert duration(7199) == "2 h"


def test_how_long_it_takes_and_what_helps_where_it_is_days() -> None:
    assert words({"teacher": 4800.0, "its student": 3000.0}) == (
        "about 2 h 10 min on this machine (teacher 1 h 20 min, its student 50 min)"
    )
    assert "--budget-time 2h" in words({"teacher": 90_000.0})
    assert "could not be measured" in words({})


IMAGES, VALIDATION = 80, 10


def fitted(budget: str, step: float, size_free: bool = True, **asked: Any) -> tuple[tuple[int, int], int]:
    """Size and epochs of a run of 10 steps an epoch, whose step takes so many seconds at 320,533."""
    config = TeacherConfig(budget_time=budget, device="cpu", precision="fp32", eval_every=1, **asked)
    choices: Choices = choose(config, IMAGES, "fcos")

    def pace_at(size: Resolution) -> Pace:
        area = size.short_side * size.long_side / (320 * 533)
        return Pace(step * area, 0.0)

    found = fit_time(config, Resolution(320, 533), choices, VALIDATION, pace_at, size_free)
    assert found is not None
    return (found.resolution.short_side, found.resolution.long_side), found.epochs[0]


def test_epochs_are_what_fits_into_the_time() -> None:
    """150 epochs of 10 steps are usual for 80 images. 0.9 of an hour is 3240 s: all of them at 2.16 s a step, 81 at
    4 s. Below a third of them the size goes down: 50 epochs at 0.85² × 8 s are 2890 s, and 56 fit."""
    assert fitted("1h", 2.16) == ((320, 533), 150)
    assert fitted("1h", 4.0) == ((320, 533), 81)
    assert fitted("1h", 8.0) == ((272, 453), 56)
    assert fitted("1h", 8.0, size_free=False) == ((320, 533), 40)
    assert fitted("1h", 8.0, epochs=60)[0] == (224, 373)  # 0.7² × 8 × 600 s = 2352 s; at 0.85² they would be 3468 s


def test_a_time_that_is_too_short_is_said() -> None:
    with pytest.raises(UsageError, match="too short for an epoch, a step takes 4e\\+02 s"):
        fitted("1m", 400.0)
    with pytest.raises(UsageError, match="too short for 60 epochs"):
        fitted("1m", 8.0, epochs=60)
    with pytest.raises(UsageError, match="nothing is left to choose"):
        fitted("1h", 1.0, epochs=3, size_free=False)
    assert run(["teacher", "--data", "demo", "--budget-time", "soon"]) == 2


def test_a_run_in_a_given_time(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps are timed, and taken for a second each: 0.9 × 20 s are 4 epochs of 4. What was timed leaves no trace."""

    def a_second(*args: Any) -> Pace:
        measured = pace_of(*args)
        assert measured is not None
        assert measured.step > 0
        assert measured.image > 0
        return Pace(1.0, 0.0)

    monkeypatch.setattr(train_teacher, "pace_of", a_second)
    data, out, again = squares(tmp_path_factory), tmp_path / "t.safetensors", tmp_path / "again.safetensors"
    command = ["teacher", f"--data={data}", *SMALLEST, SIZE, *EXACT, "--batch=4", "--eval-every=9"]
    assert run([*command, "--budget-time=20s", f"--out={out}"]) == 0
    recorded = RunFolder(out).recorded()["epochs"]
    assert (recorded.value, recorded.source) == (4, "auto")
    assert run([*command, "--epochs=4", f"--out={again}"]) == 0
    assert all(torch.equal(each, load_file(again)[name]) for name, each in load_file(out).items())
