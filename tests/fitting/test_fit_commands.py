"""The commands of a fit are ones that can be typed, and go on where they were stopped."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from support.fitting import facts, measured

from msad_cli.cli.app import app, run
from msad_cli.errors import UsageError
from msad_cli.export.sidecar import InputShape
from msad_cli.fitting.choice.candidates import NETWORKS, PLAIN, candidates_for
from msad_cli.fitting.commands import Places, Recipe, Step, shown, steps_for
from msad_cli.fitting.fit_folder import FitConfig, FitFolder, FitState, marked
from msad_cli.fitting.scheduling import Epochs

FEW = [each for each in NETWORKS if each.backbone == "resnet18" and each.width == 0.5]
STUDENT = next(each for each in candidates_for(facts(), FEW[:1], (2,)) if each.spec.resolution.short_side == 256)
CONTROL = candidates_for(facts(), FEW[:1], (PLAIN,))[5]
RECIPE = Recipe("my set", "cpu", 3, "onnxruntime", InputShape(1, STUDENT.sees))
PLACES = Places(Path("out/s.safetensors"), Path("out/s.fit"))


def parsed(words: tuple[str, ...]) -> dict[str, Any]:
    """What msad's parser makes of a command that it does not run."""
    whole: Any = typer.main.get_command(app)
    command = whole.commands[words[0]]
    context = command.make_context(words[0], list(words[1:]))
    return dict(context.params)


def test_a_student_without_a_teacher() -> None:
    steps = steps_for(RECIPE, PLACES, STUDENT, CONTROL, Epochs(0, 80, 80, 400.0, 1.0), None)
    assert [(each.part, each.words[0]) for each in steps] == [
        ("student", "teacher"),
        ("student", "export"),
        ("int8", "export"),
        ("control", "teacher"),
        ("control", "export"),
        ("both", "bench"),
    ]
    assert shown(steps[0].words) == (
        "msad teacher --scales alone --k 2 --detector fcos --backbone resnet18 --width 0.5 --head-channels 64 "
        "--head-convs 2 --size 256,340 --init none --data 'my set' --epochs 80 --device cpu --seed 3 "
        "--out out/s.safetensors"
    )
    student, export, int8, control, _, bench = (parsed(each.words) for each in steps)
    assert int8 == {**export, "int8": True, "out": Path("out/s.int8.onnx")}
    assert (student["scales"], student["epochs"], student["seed"], student["out"]) == ("alone", 80, 3, PLACES.student)
    assert (export["fixed"], export["batch"], export["out"]) == ("128,170", 1, Path("out/s.onnx"))
    assert (control["scales"], control["k"], control["zoom"]) == ("single", "1", "0.8,1")
    assert control["size"] == f"{CONTROL.spec.resolution.short_side},{CONTROL.spec.resolution.long_side}"
    assert bench["models"] == [Path("out/s.onnx"), Path("out/s.fit/plain.onnx")]
    assert bench["runtime"] == "onnxruntime"


def test_a_student_of_a_larger_teacher() -> None:
    steps = steps_for(RECIPE, PLACES, STUDENT, None, Epochs(90, 40, 0, 400.0, 1.0), "resnet34")
    assert [each.part for each in steps] == ["teacher", "student", "student", "int8", "both"]
    teacher, student = (parsed(each.words) for each in steps[:2])
    assert (teacher["backbone"], teacher["width"], teacher["epochs"], teacher["k"]) == ("resnet34", 1.0, 90, "2")
    assert (student["teacher"], student["backbone"], student["width"]) == (PLACES.teacher, "resnet18", 0.5)
    assert student["epochs"] == 40
    same = steps_for(RECIPE, PLACES, STUDENT, None, Epochs(90, 40, 0, 400.0, 1.0), "")
    assert parsed(same[0].words)["backbone"] == "resnet18"
    assert parsed(same[1].words)["backbone"] is None


def test_where_torch_runs_the_model_nothing_is_exported() -> None:
    steps = steps_for(replace(RECIPE, runtime="torch"), PLACES, STUDENT, None, Epochs(0, 9, 0, 1.0, 1.0), None)
    assert [each.words[0] for each in steps] == ["teacher", "bench"]
    bench = parsed(steps[1].words)
    assert (bench["models"], bench["precision"], bench["runtime"]) == ([PLACES.student], "fp32", None)


def test_images_of_many_shapes_have_a_graph_of_any() -> None:
    steps = steps_for(replace(RECIPE, shape=InputShape()), PLACES, STUDENT, CONTROL, Epochs(0, 9, 9, 1.0, 1.0), None)
    assert "--fixed" not in {word for each in steps for word in each.words}


def test_what_was_stopped_goes_on_and_what_is_half_done_is_done_anew(tmp_path: Path) -> None:
    out = tmp_path / "s.safetensors"
    training = Step("student", ("teacher", "--data", "d", "--out", str(out)), str(out))
    export = Step("student", ("export", str(out), "--out", str(tmp_path / "s.onnx")), str(tmp_path / "s.onnx"))
    assert training.now() == training.words
    state = tmp_path / "s.run" / "resume" / "state.pt"
    state.parent.mkdir(parents=True)
    state.touch()
    begun = replace(training, state="begun")
    assert begun.now() == ("teacher", "--resume", "--out", str(out))
    # Another run's state is no state of this one.
    assert training.now() == (*training.words, "--overwrite")
    state.unlink()
    assert begun.now() == begun.words
    out.touch()
    assert begun.now() == (*begun.words, "--overwrite")
    assert export.now() == export.words
    (tmp_path / "s.onnx").touch()
    assert export.now() == (*export.words, "--overwrite")


def test_a_state_comes_back_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = FitConfig(data="d", budget="15ms", out=tmp_path / "s.safetensors", teacher_epochs=7)
    steps = steps_for(RECIPE, config.places, STUDENT, CONTROL, Epochs(0, 8, 8, 4.0, 1.0), None)
    state = FitState(config, {"a": measured(3.0)}, {"lines": ["x"]}, steps, {"control": "none"})
    folder = FitFolder(config.places.folder)
    folder.refuse_used(False, config.out)
    folder.save(state)
    again = folder.load()
    assert again == state
    assert again.config.places.folder == tmp_path / "s.fit"
    with pytest.raises(UsageError, match="exists"):
        folder.refuse_used(False, config.out)
    folder.refuse_used(True, config.out)
    # Its commands name files from where it was begun.
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="was begun in") as error:
        folder.load()
    assert error.value.hint.startswith("cd /")
    folder.refuse_used(True, config.out)
    # One that has only measured may begin anew.
    folder.save(replace(state, steps=[]))
    folder.refuse_used(False, config.out)
    assert [each.state for each in marked(steps, 1, state="done")] == ["", "done", "", "", "", ""]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": "msad-fit/9"}', '{"format": "msad-fit/1"}', '{"format": "msad-fit/2"}']
)
def test_a_damaged_state_is_named(tmp_path: Path, text: str) -> None:
    folder = FitFolder(tmp_path)
    with pytest.raises(UsageError, match="nothing to resume"):
        folder.load()
    folder.state.write_text(text)
    with pytest.raises(UsageError, match=r"state\.json is damaged"):
        folder.load()


def test_what_cannot_be_is_refused() -> None:
    wrong: tuple[dict[str, Any], ...] = (
        {"budget": "soon"},
        {"time": "long"},
        {"k": "3"},
        {"teacher": "maybe"},
        {"teacher": "no", "teacher_epochs": 3},
        {"teacher": "no", "teacher_backbone": "resnet50"},
        {"init": "weights.pth"},
        {"out": Path("s.onnx")},
    )
    for each in wrong:
        with pytest.raises(UsageError):
            FitConfig(**{"data": "d", "budget": "15ms", **each})
    config = FitConfig(data="d", budget="15ms", teacher_backbone="resnet50")
    assert (config.wanted_teacher, FitConfig(data="d", budget="15ms").wanted_teacher) == ("yes", "auto")


def test_a_command_is_quoted_as_a_shell_takes_it() -> None:
    words = ("teacher", "--data", "a b'c")
    assert tuple(shlex.split(shown(words))) == ("msad", *words)
    assert shown(("bench", "s.onnx"), 2) == "OMP_NUM_THREADS=2 msad bench s.onnx"


def test_a_set_that_is_not_there_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["fit", "--data", str(tmp_path / "nowhere"), "--budget", "15ms"]) == 3
    assert list(tmp_path.iterdir()) == []
