"""report.html: its numbers are those of the run folders, and nothing that a name holds becomes more than a text."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.pages import COUNTS, ROWS, Page, curves, family, write_run

from msad_cli.cli.app import run
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, save_model
from msad_cli.runs.comparison import Comparison, read_comparison, write_comparison
from msad_cli.runs.folder import RunFolder
from msad_cli.runs.members import find_control, find_teacher, read_member, relatives
from msad_cli.runs.pages.run_page import write_run_page
from msad_cli.runs.pages.sentences import classes, nothing_found

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></svg><b>",
    "$x_{$",
    "a\u202eb",
    "&lt;",
)


@pytest.fixture
def model(tmp_path: Path, student: Detector, teacher: Detector) -> Path:
    return family(tmp_path, student, teacher)


def page_of(model: Path) -> Page:
    return Page(write_run_page(model).read_text(encoding="utf-8"))


def verdict(page: Page) -> str:
    """All texts between the first heading and the second."""
    texts = page.texts
    start = next(place for place, (tag, _) in enumerate(texts) if tag == "h1")
    end = next(place for place, (tag, _) in enumerate(texts) if tag == "h2")
    return " ".join(text for _, text in texts[start + 1 : end])


def test_a_page_has_the_numbers_of_its_run_folders(model: Path) -> None:
    """55.7 AP is written as 0.557; a class has a half or a third of it; of ten red objects one is taken for blue."""
    page = page_of(model)
    assert page.unclosed == []
    scores, bars, confusion, costs, settings = page.tables
    assert scores[0] == ["model", "view", "of", "AP", "AP50", "AP75", "APs", "APm", "APl"]
    assert scores[1:] == [
        ["student", "low", "boxes", "55.7", "55.7", "27.9", "-", "27.9", "55.7"],
        ["teacher", "fused", "boxes", "56.4", "56.4", "28.2", "-", "28.2", "56.4"],
        ["plain", "low", "boxes", "55.6", "55.6", "27.8", "-", "27.8", "55.6"],
    ]
    assert bars == [["blue", "18.6 18.8 18.5"], ["red", "27.9 28.2 27.8"]]
    assert confusion[0] == ["true ↓ predicted →", "red", "blue", "background"]
    assert confusion[1] == ["red", "60% 6", "10% 1", "30% 3"]
    assert confusion[2] == ["blue", "", "50% 4", "50% 4"]
    assert confusion[3] == ["background", "25% 2", "50% 5", ""]  # of 8 and of 10 predictions
    assert costs[1:] == [["student", "small", "0.25", "10.00"], ["teacher, fused", "large", "1.00", "20.00"]]
    assert settings[1] == ["teacher", str(model.with_name("teacher.safetensors")), "flag", ""]
    assert "msad distill --k 2" in page.of("pre")


def test_the_verdict_is_three_sentences(model: Path) -> None:
    assert verdict(page_of(model)) == (
        "student 55.7 AP, teacher 56.4, without distillation 55.6. "
        "It takes half the teacher's latency (10.0 of 20.0 ms) and 0.25 of its multiply-accumulates. "
        "blue is the weakest of 2 classes, 18.6 AP, and red the strongest, 27.9."
    )


def test_classes_are_told_by_what_the_model_is_judged_by(model: Path) -> None:
    """By box AP red is the weakest, by mask AP blue."""
    own = {"red": {"AP": 0.1, "mask_AP": 0.5}, "blue": {"AP": 0.4, "mask_AP": 0.3}}
    masks = replace(read_member(model), scores={"low": {"AP": 0.25, "mask_AP": 0.4}}, per_class=own, curves=None)
    assert classes([masks]) == "blue is the weakest of 2 classes, 30.0 mask AP, and red the strongest, 50.0."
    assert classes([replace(masks, per_class={"red": own["red"]})]) == "red is the only class."


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ({}, "Its cost was not counted."),
        ({"student.safetensors": {"GMACs": 0.25}}, "An image takes 0.25 GMACs, its latency was not measured."),
        ({"student": {"GMACs": 0.25, "ms": 3.0}}, "An image takes 0.25 GMACs, 3.0 ms."),
        (
            {name: {**row, "ms": None} for name, row in ROWS.items()},
            "It takes 0.25 of the teacher's multiply-accumulates; its latency was not measured.",
        ),
        (
            {**ROWS, "student": {**ROWS["student"], "ms": 13.0}},
            "It takes 0.65 of the teacher's latency (13.0 of 20.0 ms) and 0.25 of its multiply-accumulates.",
        ),
    ],
)
def test_the_verdict_says_of_cost_what_is_known(model: Path, rows: Any, sentence: str) -> None:
    write_comparison(RunFolder(model), Comparison(rows))
    assert sentence in verdict(page_of(model))


def test_classes_of_which_nothing_is_found_are_named(model: Path) -> None:
    """Of `lost` no box is right; of `blue` none that is shown unasked; of `absent` there are no objects."""
    classes: dict[str, dict[str, float | None]] = {
        "red": {"AP": 0.5, "AP50": 0.6},
        "blue": {"AP": 0.1, "AP50": 0.2},
        "lost": {"AP": 0.0, "AP50": 0.0},
    }
    found = curves(("red", "blue", "absent"), [[5, 0, 0, 0], [0, 0, 0, 4], [0, 0, 0, 0], [1, 0, 1, 0]])
    write_run(model, "low", 0.5, {**classes, "absent": {"AP": None, "AP50": None}}, {}, found)
    assert nothing_found(read_member(model)) == ["lost", "blue"]
    page = page_of(model)
    assert page.of("strong") == ["lost, blue: nothing found"]
    assert page.tables[1][0] == ["lost", "nothing found -"]  # the control does not know of it
    assert ["absent", "no objects -"] in page.tables[1]


def test_teacher_and_control_stand_in_the_plots_of_the_student(model: Path) -> None:
    """Labels are texts; a teacher without a run folder is the level that its file says."""
    lines = ["student, low", "teacher, fused", "control plain, low"]
    assert [each for each in page_of(model).of("text") if each in lines] == lines
    folder = RunFolder(model.with_name("teacher.safetensors")).path
    folder.rename(folder.with_name("elsewhere"))
    assert "teacher, fused (its file)" in page_of(model).of("text")


def test_a_teacher_is_taken_if_its_file_is_the_one_that_taught(
    model: Path, tmp_path: Path, student: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_teacher(model) == tmp_path / "teacher.safetensors"
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("student.safetensors", "student.run", "teacher.safetensors"):
        (tmp_path / name).rename(moved / name)
    assert find_teacher(moved / model.name) == moved / "teacher.safetensors"
    save_model(moved / "teacher.safetensors", student, Card())
    # The run folder is still where it was, but says nothing of which file it is; the other file is another model.
    assert find_teacher(moved / model.name) == tmp_path / "teacher.safetensors"
    (tmp_path / "teacher.run").rename(tmp_path / "gone")
    assert find_teacher(moved / model.name) is None
    assert relatives(moved / model.name) == []


def test_by_pixel_distillation_the_assistant_taught(model: Path, tmp_path: Path, student: Detector) -> None:
    """The student's file has the hash of its assistant; its run names the teacher of both."""
    teacher = tmp_path / "teacher.safetensors"
    teacher.rename(tmp_path / "student.assistant.safetensors")
    save_model(teacher, student, Card())
    assert find_teacher(model) == tmp_path / "student.assistant.safetensors"


def test_a_control_has_the_same_teacher_and_set(model: Path, student: Detector) -> None:
    plain = model.with_name("plain.safetensors")
    card = read_member(model).card
    assert card is not None
    assert find_control(model) == plain
    assert find_control(plain) is None  # it is its own
    save_model(plain, student, Card(teacher=card.teacher, data_fingerprint="another"))
    assert find_control(model) is None
    save_model(plain, student, Card(data_fingerprint=card.data_fingerprint))
    assert find_control(model) is None


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    model = tmp_path / "student.safetensors"
    RunFolder(model).add_row({"epoch": 1, "loss/total": 2.0})
    page = page_of(model)
    assert verdict(page).startswith("student: no AP yet. Its cost was not counted. What is found of each class is not")
    assert page.of("h2") == ["Over epochs"]
    assert "student: loss" in page.of("text")


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_texts(name: str, tmp_path: Path, student: Detector, teacher: Detector) -> None:
    """The page has the same elements as one with harmless names, and loads nothing."""
    model = family(tmp_path, student, teacher, (name, "blue"))
    (model.parent / f"{model.stem}.run" / "args.json").write_text(json.dumps({name: {"value": name, "reason": name}}))
    write_comparison(RunFolder(model), Comparison({name: {**ROWS["student"], "what": name}, **ROWS}, name))
    page = page_of(model)
    kinds = {tag for tag, _ in page.elements}
    assert page.unclosed == []
    assert not kinds & {"script", "img", "iframe", "object", "embed", "form", "b"}
    for _, attributes in page.elements:
        for attribute, value in attributes.items():
            assert not attribute.startswith("on")
            if attribute in ("src", "href", "xlink:href"):
                assert re.match(r"data:|#", value or ""), value
            assert "url(" not in (value or "").replace("url(#", "")
    shown = name.replace("\u202e", "\\u202e")
    assert shown in page.of("th")


def test_a_page_asks_for_nothing_outside(model: Path) -> None:
    html = write_run_page(model).read_text(encoding="utf-8")
    assert "://" not in html
    assert "@import" not in html
    assert "<script" not in html
    policy = {attributes.get("content") for tag, attributes in Page(html).elements if tag == "meta"}
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in policy


def test_names_in_plots_are_used_once_in_a_page(model: Path) -> None:
    """A clip path of one plot must not cut another."""
    ids = [str(attributes["id"]) for _, attributes in page_of(model).elements if "id" in attributes]
    assert len(ids) > 10
    assert len(set(ids)) == len(ids)


def test_without_matplotlib_a_page_says_what_is_missing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.startswith("matplotlib")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = page_of(model)
    assert "svg" not in {tag for tag, _ in page.elements}
    missing = [each for each in page.of("p") if "pip install matplotlib" in each]
    assert len(missing) == 5  # AP, loss, precision, F1, sizes
    assert len(page.tables) == 5


def test_what_was_compared_comes_back_and_what_is_no_row_does_not(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "m.safetensors")
    assert read_comparison(folder) == Comparison({})
    write_comparison(folder, Comparison(ROWS, "here"))
    assert read_comparison(folder) == Comparison(ROWS, "here")
    folder.compared.write_text(json.dumps({"rows": {"a": {"AP": [1], "ms": 2, "x": True}, "b": 3}, "where": 4}))
    assert read_comparison(folder) == Comparison({"a": {"ms": 2}}, "4")


@pytest.mark.parametrize("name", ["metrics.json", "compared.json", "args.json", "env.json"])
def test_a_damaged_record_is_named(name: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (RunFolder(model).path / name).write_text("[1]")
    assert run(["plot", str(model)]) == 2
    assert f"{name} is damaged (no object)" in capsys.readouterr().err


def test_counts_of_the_confusion_are_those_of_the_file() -> None:
    """What the other tests take for granted: 10 red objects, 8 blue ones, 8 and 10 predictions."""
    matrix = curves().confusion
    assert matrix.tolist() == [list(row) for row in COUNTS]
    assert matrix.sum(axis=1).tolist()[:2] == [10, 8]
    assert matrix.sum(axis=0).tolist()[:2] == [8, 10]
