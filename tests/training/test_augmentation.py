"""`--augment` of the commands: what the plan says, what goes together, and that it trains and resumes."""

import json
import random
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.flags import EXACT, SMALLEST

from msad_cli.cli.app import run
from msad_cli.data.annotations.keypoint_scheme import KeypointScheme
from msad_cli.data.annotations.split import CocoSplit, read_split
from msad_cli.data.loading.augment import LEVELS, ONE_SCALE, Augmentation
from msad_cli.errors import UsageError
from msad_cli.text import parse_zoom
from msad_cli.training.augmentation import choose_augmentation
from msad_cli.training.config import LEVELS_OF_AUGMENTATION, Asked, DistillConfig, TeacherConfig
from msad_cli.training.defaults.inherited import inherited

SHORT = [*EXACT, "--batch", "3", "--epochs", "2"]


@pytest.fixture
def train(coco_folder: Path) -> CocoSplit:
    return read_split(coco_folder / "annotations" / "instances_train2017.json", coco_folder / "train2017")


@pytest.fixture(scope="module")
def taught(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "teacher.safetensors"
    size = ["--size", "96,128", "--augment", "strong"]
    assert run(["teacher", "--data", str(demo), *SMALLEST, *size, *SHORT, "--out", str(out)]) == 0
    return out


def chosen(train: CocoSplit, **typed: Any) -> Augmentation:
    return choose_augmentation(TeacherConfig(**typed), train, "fcos", 72)[0]


def test_levels_and_what_is_typed_beside_them(train: CocoSplit) -> None:
    assert chosen(train) == Augmentation()
    assert chosen(train, augment="off") == Augmentation(jitter=False, fliplr=0.0)
    assert chosen(train, augment="off", fliplr=0.25).fliplr == 0.25
    strong = Augmentation(jitter=False, zoom=(0.1, 2.0), photo=0.5, mosaic=0.5)
    assert chosen(train, augment="strong") == strong
    assert chosen(train, augment="strong", mosaic=0.0, photo=1.0) == replace(strong, mosaic=0.0, photo=1.0)
    # One factor at a time: all else stays light.
    for name in ("flipud", "turn", "photo", "mosaic", "mixup"):
        typed: dict[str, Any] = {name: 0.5}
        assert chosen(train, **typed) == replace(Augmentation(), **typed)
    zoomed = chosen(train, zoom="0.5,1.5")
    assert zoomed == Augmentation(jitter=False, zoom=(0.5, 1.5))
    single = choose_augmentation(TeacherConfig(), train, "fcos", 72, jitter=False)[0]
    assert single == Augmentation(jitter=False)
    assert tuple(LEVELS) == LEVELS_OF_AUGMENTATION


def test_a_long_training_of_an_rtmdet_has_mosaics_unless_somebody_says(train: CocoSplit) -> None:
    def mosaic(detector: str, epochs: int, **typed: Any) -> float:
        return choose_augmentation(TeacherConfig(**typed), train, detector, epochs)[0].mosaic

    assert [mosaic("rtmdet", epochs) for epochs in (14, 35, 36, 300)] == [0, 0, 1, 1]
    said = {epochs: choose_augmentation(TeacherConfig(), train, "rtmdet", epochs)[1] for epochs in (35, 36)}
    assert "mosaic" not in said[35]
    assert (said[36]["mosaic"].value, said[36]["mosaic"].source) == (1.0, "auto")
    assert mosaic("fcos", 300) == 0
    assert mosaic("rtmdet", 72, mosaic=0.0) == 0
    assert mosaic("rtmdet", 14, mosaic=0.3) == 0.3
    assert mosaic("rtmdet", 72, augment="off") == 0
    assert mosaic("rtmdet", 72, augment="strong") == 0.5


def test_the_plan_says_what_is_done(train: CocoSplit) -> None:
    def said(**typed: Any) -> tuple[str, str]:
        setting = choose_augmentation(TeacherConfig(**typed), train, "fcos", 72)[1]["augment"]
        return setting.source, setting.reason

    assert said() == ("default", "scale jitter 0.8 to 1, 0.5 mirrored")
    assert said(augment="off") == ("flag", "images as they are")
    assert said(mixup=0.4)[1].endswith("0.4 with another image blended in, none in the last quarter of the epochs")
    assert said(augment="strong", turn=0.3, flipud=0.2) == (
        "flag",
        "0.5 mirrored, 0.2 top and bottom exchanged, 0.3 turned, scale 0.1 to 2 in a frame that stays, "
        "0.5 with other colours, 0.5 mosaics, none in the last quarter of the epochs",
    )


def test_a_vertical_mirror_is_a_mirror_and_a_turn_is_none(train: CocoSplit) -> None:
    odd = replace(train, scheme=KeypointScheme(("1", "2"), (), (), flips=False))
    with pytest.raises(UsageError, match=r"keypoints, --flipud 0\.5: .* do not tell left from right"):
        chosen(odd, flipud=0.5)
    assert chosen(odd, turn=0.5) == Augmentation(fliplr=0.0, turn=0.5)
    sides = replace(train, categories=((1, "left"), (2, "right")))
    choice, settings = choose_augmentation(TeacherConfig(flipud=0.5, augment="strong"), sides, "fcos", 72)
    assert (choice.fliplr, choice.flipud) == (0.0, 0.5)
    assert settings["flipud"].reason.startswith("warning: a mirror makes left of right")


@pytest.mark.parametrize(
    "typed",
    [{"flipud": 0.5}, {"turn": 0.1}, {"zoom": "0.5,2"}, {"photo": 1.0}, {"mosaic": 0.5}, {"mixup": 0.5}],
    ids=lambda typed: next(iter(typed)),
)
def test_a_teacher_cache_goes_with_the_mirror_alone(train: CocoSplit, typed: dict[str, Any]) -> None:
    for level in LEVELS_OF_AUGMENTATION:
        choice, settings = choose_augmentation(DistillConfig(augment=level), train, "rtmdet", 72, cached=True)
        assert choice == replace(ONE_SCALE, fliplr=LEVELS[level].fliplr)
        assert settings["augment"].reason == "with --cache-teacher all but the mirror is off"
    with pytest.raises(UsageError, match=f"--cache-teacher with --{next(iter(typed))}") as caught:
        choose_augmentation(DistillConfig(**typed), train, "rtmdet", 72, cached=True)
    assert caught.value.code == "augmentation-not-cached"
    choose_augmentation(DistillConfig(mosaic=0.0), train, "rtmdet", 72, cached=True)


@pytest.mark.parametrize("text", ["0.5", "2,1", "0.01,1", "1,5", "a,b", "0.5,1,2", "nan,1", ""])
def test_what_is_no_zoom_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--zoom"):
        TeacherConfig(zoom=text)
    assert parse_zoom("0.05,4") == (0.05, 4.0)
    assert parse_zoom(None) is None


@pytest.mark.parametrize("name", ["flipud", "turn", "photo", "mosaic", "mixup"])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_what_is_no_probability_is_refused(name: str, value: float) -> None:
    typed: dict[str, Any] = {name: value}
    with pytest.raises(UsageError, match=f"--{name}"):
        TeacherConfig(**typed)


def test_an_unknown_level_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["teacher", "--data", "demo", "--augment", "heavy"]) == 2
    assert "give off, light or strong" in capsys.readouterr().err


def test_teachers_and_students_have_the_same_settings() -> None:
    names = {"augment", "fliplr", "flipud", "turn", "zoom", "photo", "mosaic", "mixup"}
    for config in (TeacherConfig, DistillConfig):
        assert names <= {each.name for each in fields(config)}


def heir(**typed: Any) -> dict[str, Any]:
    """What a student is asked for whose teacher was trained with `--augment strong --fliplr 0.3 --turn 0.5`."""
    trained = {"augment": "strong", "fliplr": 0.3, "turn": 0.5}
    asked, _ = inherited(Asked(DistillConfig(**typed), frozenset(typed)), trained, Path("t.safetensors"))
    return {name: getattr(asked.config, name) for name in trained}


def test_a_student_sees_what_its_teacher_saw_unless_a_level_is_typed_or_pyramids_are_cached() -> None:
    assert heir() == {"augment": "strong", "fliplr": 0.3, "turn": 0.5}
    assert heir(turn=0.0) == {"augment": "strong", "fliplr": 0.3, "turn": 0.0}
    assert heir(augment="light") == {"augment": "light", "fliplr": None, "turn": None}
    assert heir(cache_teacher="ram") == {"augment": "strong", "fliplr": 0.3, "turn": None}
    assert heir(cache_teacher="ram", turn=0.2)["turn"] == 0.2  # which is refused


# --- the commands ---


def test_a_student_is_distilled_with_strong_augmentation(
    taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its teacher was. Of two epochs the second one has no mosaics."""
    out = tmp_path / "student.safetensors"
    asked = set()
    drawn = Augmentation.draw_mosaic

    def draw(self: Augmentation, epoch: int, source: random.Random) -> bool:
        asked.add((epoch, self.mosaic, self.mixed_epochs))
        return drawn(self, epoch, source)

    monkeypatch.setattr(Augmentation, "draw_mosaic", draw)
    assert run(["distill", "--teacher", str(taught), *SHORT, "--turn", "0.5", "--out", str(out)]) == 0
    said = "".join(capsys.readouterr().err.split())  # a long path is folded wherever the line ends
    assert "teacher.safetensorswastrained:0.5mirrored,0.5turned,scale0.1to2" in said
    assert "0.5mosaics,noneinthelastquarteroftheepochs" in said
    recorded = json.loads((out.with_suffix(".run") / "args.json").read_text())
    settings = recorded.get("settings", recorded)
    assert settings["augment"]["value"] == "strong"
    assert settings["turn"]["value"] == 0.5
    assert asked == {(0, 0.5, 1), (1, 0.5, 1)}
    assert (out.with_suffix(".run") / "samples" / "training.jpg").stat().st_size > 1000


def test_with_a_teacher_cache_the_plan_says_what_is_off(
    taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["distill", "--teacher", str(taught), *SHORT, "--cache-teacher", "ram", "--dry-run"]
    command += ["--out", str(tmp_path / "s.safetensors")]
    assert run(command) == 0
    assert "with --cache-teacher all but the mirror is off" in " ".join(capsys.readouterr().err.split())
    assert run([*command, "--mosaic", "0.5"]) == 2
    assert "leave one or the other away" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
@pytest.mark.parametrize("detector", ["fcos"])
def test_a_run_with_strong_augmentation_resumes_to_the_last_bit(demo: Path, tmp_path: Path, detector: str) -> None:
    strong = ["--augment", "strong", "--turn", "0.5", "--flipud", "0.5", "--mosaic", "0.7"]
    own = ["--detector", detector, "--size", "96,128"]
    command = ["teacher", "--data", str(demo), *SMALLEST, *SHORT, *strong, *own]
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    assert run([*command, "--out", str(whole)]) == 0
    assert run([*command, "--out", str(cut), "--time", "0s"]) == 0
    assert run(["teacher", "--resume", "--out", str(cut)]) == 0
    assert all(torch.equal(each, load_file(cut)[name]) for name, each in load_file(whole).items())
