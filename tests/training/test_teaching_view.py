"""A teacher teaches by its best view, whatever its own is, and both commands say which that is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.flags import EXACT, SMALLEST
from support.specs import spec
from support.training import detectors, views
from support.unaligned import unaligned

from msad_cli.cli.app import run
from msad_cli.data.layouts.demo import draw_demo
from msad_cli.distillation.distillation import teaching
from msad_cli.distillation.parts.coarser import coarser
from msad_cli.models.model_file import Card, load_model, save_model
from msad_cli.models.views import view_of_best_ap
from msad_cli.runs.folder import Setting
from msad_cli.training.students.plan_student import choose_teaching_view

Scores = dict[str, dict[str, float | None]]

SATURATED: Scores = {"fused": {"AP": 0.082}, "high": {"AP": 0.165}, "low": {"AP": 0.082}}
"""APs that the demo set's teacher had at k = 4 when its fusion took all of the low view."""
EVEN: Scores = {"fused": {"AP": 0.165}, "high": {"AP": 0.165}, "low": {"AP": None}}


def test_the_view_of_the_highest_recorded_ap_teaches() -> None:
    chosen = choose_teaching_view(spec(), Card(scores=SATURATED), None)
    assert (chosen.value, chosen.reason) == ("high", "its best, by AP: fused 8.2, high 16.5, low 8.2")
    assert choose_teaching_view(spec(), Card(scores=EVEN), None).value == "fused"
    assert choose_teaching_view(spec(), Card(), None).value == "fused"
    # The low view of an ordinary network is on a grid of its own.
    vanilla = spec(role="baseline", scales="vanilla")
    better_low: Scores = {"high": {"AP": 0.1}, "low": {"AP": 0.2}}
    assert choose_teaching_view(vanilla, Card(scores=better_low), None).value == "high"
    assert view_of_best_ap(vanilla, {"high": {"AP": float("nan")}, "low": {"AP": 0.2}}) == "low"


def test_a_run_that_goes_on_keeps_its_view() -> None:
    """One of an older version has recorded none: it learnt from the model's own."""
    assert choose_teaching_view(spec(), Card(scores=SATURATED), {}).value == "fused"
    recorded = {"teacher_view": Setting("low", "auto")}
    assert choose_teaching_view(spec(), Card(scores=SATURATED), recorded).value == "low"


@torch.no_grad()
def test_what_is_taught_is_that_views_pyramid() -> None:
    teacher, student = detectors()
    for view, k in (("high", 1), ("low", 2)):
        expected = teacher.eval().pyramid(views()[k], k)
        known = teaching(teacher, student, view)(views(), [])  # type: ignore[arg-type]
        assert all(torch.equal(a, b) for a, b in zip(known.pyramid, expected, strict=True))
        assert known.frame == teacher.frame(views()[1], 1)
    # Padded to twice as much, so that its grids are twice those of the small image.
    high = teacher.pyramid(views()[1], 1, 256)
    known = teaching(teacher, unaligned(), "high")(views(), [])
    assert all(torch.equal(a, coarser(b, 2)) for a, b in zip(known.pyramid, high, strict=True))


def test_both_commands_say_which_view_is_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A teacher whose file says that its high view is the better one."""
    draw_demo(tmp_path / "demo", train=4, val=2, seed=1, size=(128, 96))
    teacher = tmp_path / "teacher.safetensors"
    short = [*EXACT, "--batch=4", "--epochs=1", "--size=96,128"]
    assert (
        run(["teacher", "--data", str(tmp_path / "demo"), *SMALLEST, *short, "--phase=grid", "--out", str(teacher)])
        == 0
    )
    measured = json.loads((tmp_path / "teacher.run" / "metrics.json").read_text())
    best = max(measured, key=lambda view: measured[view]["AP"])  # the first of equal ones
    assert f"best view: {best}, AP " in capsys.readouterr().err
    model, card = load_model(teacher)
    assert model.spec.phase == "grid"
    save_model(teacher, model, replace(card, scores=SATURATED))
    out = tmp_path / "student.safetensors"
    distil = ["distill", "--teacher", str(teacher), *short[:-1], "--out", str(out)]
    assert run([*distil, "--no-distill", "--dry-run"]) == 0
    assert "teaches by" not in capsys.readouterr().err
    for flags in (["--dry-run"], ["--cache-teacher", str(tmp_path / "kept")]):
        assert run([*distil, *flags]) == 0
        said = capsys.readouterr().err
        assert "the teacher teaches by its high view, its best, by AP: fused 8.2, high 16.5, low 8.2" in said
    assert json.loads((tmp_path / "student.run" / "args.json").read_text())["teacher_view"]["value"] == "high"
    student, _ = load_model(out)
    assert student.spec.phase == "grid"
