"""The same classes under other ids, as a YOLO copy of a COCO set has them, are matched by name."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from msad_cli.cli.app import run
from msad_cli.data.annotations.records import read_records
from msad_cli.data.annotations.split import read_split
from msad_cli.errors import DataError
from msad_cli.evaluation.ground_truth import ground_truth
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, save_model

NAMES = ("cat", "dog", "cow")


def drawn(folder: Path, ids: dict[str, int], seed: int, names: dict[str, str] | None = None) -> Path:
    """A COCO file of four images whose nine boxes depend on the seed alone, and their classes' ids on `ids`."""
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(4):
        Image.new("RGB", (64, 48)).save(folder / f"{number}.png")
    annotations: list[dict[str, Any]] = []
    for number in range(9):
        x, y, width, height = draw.randrange(30), draw.randrange(20), draw.randrange(5, 30), draw.randrange(5, 25)
        name = draw.choice(NAMES)
        annotations.append({"id": number, "image_id": draw.randrange(4), "category_id": ids[name], "iscrowd": 0})
        annotations[-1] |= {"bbox": [x, y, width, height], "area": width * height}
    document = {
        "images": [{"id": number, "file_name": f"{number}.png", "width": 64, "height": 48} for number in range(4)],
        "annotations": annotations,
        "categories": [{"id": ids[name], "name": (names or {}).get(name, name)} for name in ids],
    }
    file = folder / "set.json"
    file.write_text(json.dumps(document))
    return file


LEARNT = {"cat": 1, "dog": 4, "cow": 17}
KNOWN = tuple((number, name) for name, number in LEARNT.items())


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        ({"cat": 0, "dog": 1, "cow": 2}, {}),  # 1 is another class there
        ({"cow": 1, "cat": 4, "dog": 17}, {}),  # the same ids, all of them others'
        ({"cat": 7, "dog": 8, "cow": 9}, {"cat": "Cat ", "cow": "COW"}),
        ({"cat": 1, "dog": 4, "cow": 5}, {}),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_boxes_and_truth_are_those_of_the_known_ids(
    tmp_path: Path, ids: dict[str, int], names: dict[str, str], seed: int
) -> None:
    one = read_split(drawn(tmp_path / "one", LEARNT, seed), tmp_path / "one", KNOWN)
    file = drawn(tmp_path / "other", ids, seed, names)
    other = read_split(file, tmp_path / "other", KNOWN)
    assert np.array_equal(one.labels, other.labels)
    assert np.array_equal(one.boxes, other.boxes)
    assert other.categories == KNOWN
    expected, found = ground_truth(one), ground_truth(other)
    assert expected["annotations"] == found["annotations"]
    assert {each["id"] for each in found["categories"]} == set(LEARNT.values())
    (problem,) = read_records(file, tmp_path / "other", KNOWN).problems
    assert (problem.code, problem.fatal) == ("classes-by-name", False)
    assert problem.count == sum(number != LEARNT[name] for name, number in ids.items())


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        ({"cat": 4, "dog": 1, "cow": 2}, {"cow": "owl"}),  # one that nobody knows: whose names are right is open
        ({"cat": 4, "dog": 1, "cow": 2}, {"cow": "cat"}),  # two of one name
    ],
)
def test_what_would_be_a_guess_is_refused(tmp_path: Path, ids: dict[str, int], names: dict[str, str]) -> None:
    file = drawn(tmp_path / "other", ids, 0, names)
    with pytest.raises(DataError, match="another class elsewhere"):
        read_split(file, tmp_path / "other", KNOWN)


def test_what_agrees_is_left_alone(tmp_path: Path) -> None:
    file = drawn(tmp_path / "one", LEARNT, 0)
    assert read_records(file, tmp_path / "one", KNOWN).problems == ()


def test_eval_says_that_classes_were_matched(
    coco_folder: Path, student: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model's classes are red, 7, and blue, 90."""
    model = tmp_path / "student.safetensors"
    save_model(model, student, Card(data=str(coco_folder)))
    command = ["eval", str(model), "--workers", "0", "--device", "cpu", "--precision", "fp32", "--json"]
    assert run(command) == 0
    expected = capsys.readouterr().out
    for split in ("train2017", "val2017"):
        file = coco_folder / "annotations" / f"instances_{split}.json"
        document = json.loads(file.read_text())
        for each, field in ((each, "id") for each in document["categories"]):
            each[field] = {7: 1, 90: 0}[each[field]]
        for each in document["annotations"]:
            each["category_id"] = {7: 1, 90: 0}[each["category_id"]]
        file.write_text(json.dumps(document))
    assert run(command) == 0
    said = capsys.readouterr()
    assert said.out == expected
    assert "2 classes that have other ids than where they were learnt" in " ".join(said.err.split())
