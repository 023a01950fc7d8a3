"""`msad teacher --scales alone`: the student of `msad distill --no-distill`, without a teacher's file."""

from pathlib import Path

import pytest
from support.flags import EXACT, SMALLEST

from msad_cli.cli.app import run
from msad_cli.models.model_file import load_model, read_header

FLAGS = ["--epochs=2", "--batch=2", "--lr=0.01", *EXACT]


def test_it_trains_the_student_that_learns_from_no_teacher(tmp_path: Path, demo: Path) -> None:
    """The same weights, although nobody made a teacher."""
    teacher, plain, alone = (tmp_path / f"{name}.safetensors" for name in ("teacher", "plain", "alone"))
    of_teacher = ["--data", str(demo), *SMALLEST, "--size=64,96"]
    assert run(["teacher", *of_teacher, "--epochs=1", "--batch=2", *EXACT, "-o", str(teacher), "-q"]) == 0
    student = ["distill", "--teacher", str(teacher), "--no-distill", "--init=none", *FLAGS]
    assert run([*student, "-o", str(plain), "-q"]) == 0
    assert run(["teacher", "--scales=alone", "--k=2", *of_teacher, *FLAGS, "-o", str(alone), "-q"]) == 0
    (one, _), (other, card) = load_model(plain), load_model(alone)
    assert one.spec == other.spec
    assert other.spec.views == ("low",)
    assert card.teacher == ""
    theirs = one.state_dict()
    assert any(each.is_floating_point() and each.abs().sum() > 0 for each in theirs.values())
    for name, each in other.state_dict().items():
        assert each.equal(theirs[name]), name


def test_it_goes_on_and_is_evaluated_like_any_other(
    tmp_path: Path, demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = ["teacher", "--scales=alone", "--data", str(demo), *SMALLEST, "--size=64,96", *FLAGS, "-q"]
    assert run([*typed, "--time=0s"]) == 0
    assert read_header(Path("student.safetensors"))[1].unfinished
    assert run(["teacher", "--resume", "--out", "student.safetensors", "-q"]) == 0
    spec, card, _ = read_header(Path("student.safetensors"))
    assert (spec.role, spec.scales, spec.ks, card.run_epochs) == ("student", "aligned", (2,), 2)
    assert run(["eval", "student.safetensors"]) == 0
    assert run(["flops", "student.safetensors"]) == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [(["--k=2,4"], "it has one view"), (["--fusion=sum"], "fuses nothing"), (["--strategy=two-step"], "two-step")],
)
def test_what_means_nothing_to_it_is_refused(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["teacher", "--scales=alone", "--data", "demo", *SMALLEST, *flags]) == 2
    assert words in capsys.readouterr().err
