"""Mirrored images: how many, which names of classes forbid it, and that the default draws what it always drew."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from support.specs import spec

from msad_cli.cli.app import run
from msad_cli.data.annotations.keypoint_scheme import KeypointScheme
from msad_cli.data.annotations.split import CocoSplit, read_split
from msad_cli.data.loading.augment import JITTER, Augmentation
from msad_cli.data.loading.dataset import TrainingSet
from msad_cli.data.loading.mirroring import mirror_pairs
from msad_cli.errors import UsageError
from msad_cli.frame import Resolution
from msad_cli.training.augmentation import choose_mirror
from msad_cli.training.config import TeacherConfig
from msad_cli.training.students.pyramid_store import predicted_bytes, ways

RESOLUTION = Resolution(64, 96)
KEYS = [(epoch, index) for epoch in range(8) for index in range(4)]


@pytest.fixture
def train(coco_folder: Path) -> CocoSplit:
    return read_split(coco_folder / "annotations" / "instances_train2017.json", coco_folder / "train2017")


def mirrored(data: TrainingSet) -> list[int]:
    return [int(data[key].target["image"][1]) for key in KEYS]


@pytest.mark.parametrize("fliplr", [0.0, 0.25, 0.5, 1.0])
def test_a_sample_is_mirrored_by_its_own_first_draw(train: CocoSplit, fliplr: float) -> None:
    """The first draw of (seed, epoch, index) decides, and the second one is the scale, whatever it says."""
    data = TrainingSet(train, RESOLUTION, (1,), seed=3, augmentation=Augmentation(fliplr=fliplr))
    expected, scales = [], []
    for epoch, index in KEYS:
        draw = random.Random(f"3/{epoch}/{index}")
        expected.append(int(draw.random() < fliplr))
        scales.append(RESOLUTION.frame_size(48, 64, scale=draw.choice(JITTER)))
    assert mirrored(data) == expected
    assert [data[key].frame_size for key in KEYS] == scales


def test_half_of_all_images_is_the_default(train: CocoSplit) -> None:
    default = TrainingSet(train, RESOLUTION, (1,), seed=3)
    half = TrainingSet(train, RESOLUTION, (1,), seed=3, augmentation=Augmentation(fliplr=0.5))
    assert mirrored(default) == mirrored(half)
    assert 0 < sum(mirrored(half)) < len(KEYS)


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["left", "right"], [("left", "right")]),
        (["straight", "turnRight", "turn_left"], [("turnRight", "turn_left")]),
        (["LEFT ARM", "left-leg", "Right-Leg", "right arm"], [("LEFT ARM", "right arm"), ("left-leg", "Right-Leg")]),
        (["L", "R"], [("L", "R")]),
        (["hand_l", "hand_r", "head"], [("hand_l", "hand_r")]),
        (["leftarrow", "rightarrow"], [("leftarrow", "rightarrow")]),
        (["left_to_right", "right_to_left"], [("left_to_right", "right_to_left")]),
        (["counterclockwise", "clockwise"], [("counterclockwise", "clockwise")]),
        (["links abbiegen", "rechts abbiegen"], [("links abbiegen", "rechts abbiegen")]),
        (["flèche gauche", "flèche droite"], [("flèche gauche", "flèche droite")]),
        (["mano izquierda", "mano derecha"], [("mano izquierda", "mano derecha")]),
        (["vanster", "höger"], [("vanster", "höger")]),
        (["lewa", "prawa"], [("lewa", "prawa")]),
        (["налево", "направо"], [("налево", "направо")]),
        (["左箭头", "右箭头"], [("左箭头", "右箭头")]),
        (["왼손", "오른손"], [("왼손", "오른손")]),
        (["sol", "sağ"], [("sol", "sağ")]),
        (["⬅️", "➡️"], [("⬅️", "➡️")]),
        # No pairs: one side alone, other words with the same letters, sizes, names that differ in case alone.
        (["left", "straight"], []),
        (["lock", "rock", "lamp", "ramp"], []),
        (["S", "M", "L", "XL"], []),
        (["left", "Left"], []),
        (["person", "bicycle", "car", "port", "airport"], []),
        (["up", "down"], []),
    ],
)
def test_names_tell_which_classes_a_mirror_exchanges(names: list[str], pairs: list[tuple[str, str]]) -> None:
    assert mirror_pairs(names) == pairs


def of_classes(split: CocoSplit, *names: str) -> CocoSplit:
    return replace(split, categories=tuple(enumerate(names, start=1)))


def test_no_image_is_mirrored_where_classes_say_left_and_right(train: CocoSplit) -> None:
    plain = choose_mirror(None, train)
    assert (plain.value, plain.source) == (0.5, "auto")
    sides = of_classes(train, "left", "right")
    off = choose_mirror(None, sides)
    assert (off.value, off.source) == (0.0, "auto")
    assert off.reason.startswith(
        "warning: a mirror makes left of right and the other way round, so no image is mirrored"
    )
    typed = choose_mirror(0.25, sides)
    assert (typed.value, typed.source) == (0.25, "flag")
    assert typed.reason.startswith("warning: a mirror makes left of right")
    assert choose_mirror(0.0, sides).reason == ""


def test_keypoints_without_sides_are_never_mirrored(train: CocoSplit) -> None:
    odd = replace(train, scheme=KeypointScheme(("1", "2"), (), (), flips=False))
    assert choose_mirror(None, odd).value == choose_mirror(0.0, odd).value == 0.0
    with pytest.raises(UsageError, match="their names do not tell left from right"):
        choose_mirror(0.5, odd)
    assert (
        TrainingSet(
            odd, RESOLUTION, (1,), seed=0, augmentation=Augmentation(jitter=False, fliplr=0.5)
        ).augmentation.fliplr
        == 0.0
    )


@pytest.mark.parametrize(("fliplr", "looks"), [(0.0, (False,)), (0.3, (False, True)), (1.0, (True,))])
def test_a_teacher_cache_holds_what_training_shows(train: CocoSplit, fliplr: float, looks: tuple[bool, ...]) -> None:
    assert ways(train, fliplr) == looks
    assert predicted_bytes(spec(), train, fliplr) * 2 == predicted_bytes(spec(), train) * len(looks)


@pytest.mark.parametrize("fliplr", [-0.1, 1.5, float("nan")])
def test_what_is_no_probability_is_refused(fliplr: float) -> None:
    with pytest.raises(UsageError, match="--fliplr"):
        TeacherConfig(fliplr=fliplr)


def test_the_plan_warns(coco_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (coco_folder / "annotations").glob("*.json"):
        document = json.loads(file.read_text())
        for each, name in zip(document["categories"], ("turn right", "turn left"), strict=True):
            each["name"] = name
        file.write_text(json.dumps(document))
    arguments = ["teacher", "--data", str(coco_folder), "--init", "none", "--dry-run", "--device", "cpu", "-o"]
    assert run([*arguments, str(coco_folder / "o.safetensors")]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "fliplr 0.0 warning: a mirror makes turn left of turn right" in said
