"""`--unlabelled`: what the command takes, refuses, says and remembers."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from support.flags import EXACT
from support.overfit import SIDE, SQUARES, overfit, squares

from msad_cli.cli.app import run
from msad_cli.models.model_file import read_header
from msad_cli.runs.folder import Setting
from msad_cli.training.config import Asked, DistillConfig
from msad_cli.training.observer import Observer
from msad_cli.training.students.train_student import train_student


class Listener(Observer):
    """Keeps the plan."""

    def plan(self, out: Path, settings: Mapping[str, Setting]) -> None:
        self.settings = dict(settings)


SHORT = [*EXACT, "--batch=4", "--epochs=1", "--lr=0.001", "--quiet"]
"""16 labelled images, two a batch: 8 steps."""


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return overfit(tmp_path_factory)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images of squares of another colour in two folders, a copy of a validation image, and one that is none."""
    folder = tmp_path_factory.mktemp("others")
    (folder / "deep").mkdir()
    for number, (x, y, width, height) in enumerate([*SQUARES, (4, 4, 60, 60)]):
        image = Image.new("RGB", (SIDE, SIDE), (90, 90, 90))
        ImageDraw.Draw(image).rectangle((x, y, x + width - 1, y + height - 1), fill=(200, 40, 40))
        image.save((folder / "deep" if number % 2 else folder) / f"{number}.png")
    shutil.copy(squares(tmp_path_factory) / "val2017" / "2.png", folder / "deep" / "leak.png")
    (folder / "broken.png").write_bytes(b"none")
    return folder


def distil(taught: Path, out: Path, *flags: str) -> int:
    return run(["distill", f"--teacher={taught}", *SHORT, f"--out={out}", *flags])


def _ap50(student: Path) -> float:
    """Of its one view, from 0 to 1."""
    return (read_header(student)[1].scores or {})["low"]["AP50"] or 0.0


def test_a_run_says_and_remembers_what_it_learnt_from(
    taught: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "student.safetensors"
    assert distil(taught, out, f"--unlabelled={others}", "--unlabelled-share=0.25") == 0
    recorded = json.loads((out.with_suffix(".run") / "args.json").read_text())
    assert recorded["unlabelled"]["value"] == str(others)
    words = "5 images, 1 of a batch of 4; 1 also in val, 1 unreadable left out"
    assert recorded["unlabelled"]["reason"] == words
    card = read_header(out)[1]
    assert card.unlabelled_images == 5
    assert len(card.unlabelled) == 64
    # It starts as the teacher, which finds the squares (support/overfit.py), and goes on finding them.
    assert _ap50(out) > 0.3
    row = (out.with_suffix(".run") / "results.csv").read_text()
    assert "loss/distil/output-kd/classes" in row
    assert run(["info", str(out)]) == 0
    assert f"5 images: {card.unlabelled}" in capsys.readouterr().out


def test_the_warning_names_an_image_of_val(
    taught: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [each for each in SHORT if each != "--quiet"]
    out = tmp_path / "student.safetensors"
    command = ["distill", f"--teacher={taught}", *flags, f"--out={out}", "--dry-run", "--cache-teacher=ram"]
    assert run([*command, f"--unlabelled={others}/**/*.png"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "warning: unlabelled images that val has too are left out: 1, such as" in said
    assert "leak.png" in said
    assert "21 images, plain and mirrored" in said  # 16 with labels, 5 without: so many are in the teacher cache


@pytest.mark.slow
def test_a_run_that_was_cut_goes_on_to_the_last_digit_whatever_is_cached(
    taught: Path, others: Path, tmp_path: Path
) -> None:
    whole, cut, cached = (tmp_path / f"{name}.safetensors" for name in ("whole", "cut", "cached"))
    assert distil(taught, whole, f"--unlabelled={others}", "--epochs=2") == 0
    assert distil(taught, cut, f"--unlabelled={others}", "--epochs=2", "--time=0s") == 0
    assert read_header(cut)[1].unfinished
    moved = shutil.copytree(others, tmp_path / "moved")
    assert run(["distill", "--resume", f"--out={cut}", f"--unlabelled={moved}", "--workers=1", "--quiet"]) == 0
    assert distil(taught, cached, f"--unlabelled={others}", "--epochs=2", "--cache=ram") == 0
    weights = load_file(whole)
    for other in (cut, cached):
        assert all(torch.equal(each, load_file(other)[name]) for name, each in weights.items())


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_images(
    taught: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "student.safetensors"
    assert distil(taught, out, f"--unlabelled={others}", "--time=0s") == 0
    more = shutil.copytree(others, tmp_path / "more")
    Image.new("RGB", (SIDE, SIDE), (5, 6, 7)).save(more / "new.png")
    assert run(["distill", "--resume", f"--out={out}", f"--unlabelled={more}"]) == 2
    assert "unlabelled images (SHA-256) was" in capsys.readouterr().err


@pytest.mark.slow
def test_a_teacher_cache_holds_them_too(taught: Path, others: Path, tmp_path: Path) -> None:
    out = tmp_path / "student.safetensors"
    place = tmp_path / "kept"
    assert distil(taught, out, f"--unlabelled={others}", f"--cache-teacher={place}") == 0
    assert len(list(place.rglob("*.safetensors"))) == 2 * 21
    assert _ap50(out) > 0.3


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--no-distill"], 2, "nobody says what is in these images"),
        (["--method=l1,fgd"], 2, "with --method fgd: it asks where objects are"),
        (["--method=pixel"], 2, "its assistant is tuned by labels"),
        (["--batch=1"], 2, "no room for an image with labels and one without"),
        (["--unlabelled-share=1"], 2, "less than or equal to 0.99"),
        (["--unlabelled=nowhere"], 3, "no such file, folder or pattern"),
        (["--unlabelled={data}/val2017"], 3, "no image to learn from: 4 also in val left out"),
        (["--unlabelled={empty}"], 3, "a folder without images"),
    ],
)
def test_what_cannot_be_is_refused(
    taught: Path,
    others: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    code: int,
    words: str,
) -> None:
    (tmp_path / "empty").mkdir()
    typed = [each.format(data=squares(tmp_path_factory), empty=tmp_path / "empty") for each in flags]
    assert distil(taught, tmp_path / "s.safetensors", f"--unlabelled={others}", *typed) == code
    assert words in " ".join(capsys.readouterr().err.split())


def test_a_video_that_is_none_is_counted(taught: Path, others: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    folder = shutil.copytree(others, tmp_path / "films")
    (folder / "a.mp4").write_bytes(b"no film")
    listener = Listener()
    config = DistillConfig(
        teacher=taught, unlabelled=str(folder), device="cpu", out=tmp_path / "s.safetensors", dry_run=True
    )
    train_student(Asked(config, frozenset({"teacher", "unlabelled"})), listener)
    assert "5 images" in listener.settings["unlabelled"].reason
    assert "2 unreadable left out" in listener.settings["unlabelled"].reason


def test_a_share_of_nothing_is_refused(taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert distil(taught, tmp_path / "s.safetensors", "--unlabelled-share=0.3") == 2
    assert "of --unlabelled, which is not given" in capsys.readouterr().err
