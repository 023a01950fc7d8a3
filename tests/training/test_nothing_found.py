"""A training that finds nothing says so, with what may be the reason, and one that finds something does not."""

from pathlib import Path

import pytest
from support.flags import EXACT, SMALLEST
from support.overfit import RECIPE, SIZE, squares
from support.specs import spec

from msad_cli.cli.app import run
from msad_cli.data.annotations.split import read_split
from msad_cli.frame import Resolution
from msad_cli.training.judging.nothing_found import finds_nothing, median_side


def test_what_nothing_is() -> None:
    assert finds_nothing([{"AP": 0.0}, {"AP": 0.0049}])
    assert not finds_nothing([{"AP": 0.0}, {"AP": 0.005}])
    assert not finds_nothing([{"AP": float("nan")}])  # a split without objects tells nothing
    assert not finds_nothing([{"AP": None}, {}])


def test_it_is_said_after_two_evaluations_and_at_the_end(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rate of 10⁻⁹ learns nothing. The squares have a median side of 64 pixels, at 1/2 32, which is not small; 16
    images in batches of 4 make 4 steps an epoch."""
    out = tmp_path / "t.safetensors"
    command = ["teacher", f"--data={squares(tmp_path_factory)}", *SMALLEST, SIZE, *EXACT, "--batch=4", "--lr=1e-9"]
    assert run([*command, "--epochs=3", "--eval-every=1", f"--out={out}"]) == 0
    said = capsys.readouterr().err
    assert said.count("nothing is found after 2 of 3 epochs") == 1
    assert "these were 8 steps: more --epochs" in said
    assert "--lr 2.5e-10, or 2e-09" in said
    assert "pixels at 1/2" not in said
    assert "nothing was learnt: AP is below 0.5 after 3 epochs" in said
    assert "next: msad distill" not in said
    assert run(["distill", f"--teacher={out}", *EXACT, "--dry-run", f"--out={tmp_path / 's.safetensors'}"]) == 0
    assert "the teacher finds nothing: there is nothing to learn" in capsys.readouterr().err


def test_small_objects_are_a_cause(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Squares with a median side of 64 of 128 pixels have 16 in images of 32, and 4 at 1/4 of that."""
    folder = squares(tmp_path_factory)
    train = read_split(folder / "annotations" / "instances_train2017.json", folder / "train2017")
    sides = {ks: median_side(spec(ks=ks, resolution=Resolution(32, 32)), train) for ks in ((1, 4), (1, 2))}
    assert sides == pytest.approx({(1, 4): 4.0, (1, 2): 8.0}, rel=0.05)


@pytest.mark.slow
def test_one_that_learns_is_not_bothered(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["teacher", f"--data={squares(tmp_path_factory)}", *SMALLEST, SIZE, *EXACT, *RECIPE, "--scales=single"]
    assert run([*command, f"--out={tmp_path / 't.safetensors'}"]) == 0
    said = capsys.readouterr().err
    assert "nothing" not in said
    assert "next: msad eval" in said
