"""The examples run as they stand, on a set of a few images and for an epoch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from msad_cli.cli.app import run
from msad_cli.data.layouts.demo import draw_demo

ROOT = Path(__file__).parents[1]
SHORT = [
    "--epochs",
    "1",
    "--batch",
    "2",
    "--eval-every",
    "1",
    "--workers",
    "0",
    "--device",
    "cpu",
    "--precision",
    "fp32",
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "demo"
    draw_demo(folder, train=4, val=2, seed=1, size=(128, 96))
    return folder


def example(name: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs an example in this folder, with this Python's msad."""
    tool = folder / "bin" / "msad"
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m msad_cli "$@"\n')
    tool.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tool.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    command = ["bash", str(ROOT / "examples" / name), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("blood_cells.sh", {"teacher", "student", "init-only"}),
        ("instance_masks.sh", {"teacher", "student"}),
        ("keypoints.sh", {"aligned", "vanilla", "student"}),
    ],
)
def test_an_example_trains_its_models(name: str, models: set[str], demo: Path, tmp_path: Path) -> None:
    done = example(name, tmp_path, str(demo), *SHORT)
    assert done.returncode == 0, done.stderr
    out = tmp_path / name.removesuffix(".sh")
    assert {each.stem for each in out.glob("*.safetensors")} == models


def test_an_example_without_its_arguments_says_them(tmp_path: Path) -> None:
    scripts = {each.name for each in (ROOT / "examples").glob("*.sh")} - {"quickstart.sh"}
    assert scripts == {"blood_cells.sh", "ci_gate.sh", "instance_masks.sh", "keypoints.sh"}
    for name in scripts:
        done = example(name, tmp_path)
        assert done.returncode != 0
        assert f"bash examples/{name} DATA" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["bin"]


@pytest.mark.slow
def test_the_gate_passes_on_msads_exit_codes(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 and the numbers as JSON, 8 for a number too low, 4 without a model, 3 for a box outside its image."""
    out = tmp_path / "teacher.safetensors"
    small = [
        "--init",
        "none",
        "--backbone",
        "resnet18",
        "--width",
        "0.25",
        "--head-channels",
        "64",
        "--head-convs",
        "1",
    ]
    assert (
        run(["teacher", "--data", str(demo), "--scales", "single", *small, "--size", "96,128", *SHORT, "-o", str(out)])
        == 0
    )
    capsys.readouterr()
    assert example("ci_gate.sh", tmp_path, str(demo), str(out), "AP=0").stdout.startswith("{")
    assert example("ci_gate.sh", tmp_path, str(demo), str(out)).returncode == 8
    assert example("ci_gate.sh", tmp_path, str(demo), str(tmp_path / "gone.safetensors")).returncode == 4
    file = demo / "annotations" / "instances_val2017.json"
    broken = tmp_path / "broken"
    (broken / "annotations").mkdir(parents=True)
    for each in ("train2017", "val2017", "annotations/instances_train2017.json"):
        (broken / each).symlink_to(demo / each)
    (broken / "annotations" / file.name).write_text(file.read_text().replace('"bbox": [', '"bbox": [-9000', 1))
    assert example("ci_gate.sh", tmp_path, str(broken), str(out)).returncode == 3


def test_the_notebook_runs_from_top_to_bottom(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its code cells in one namespace, where a toy's settings follow those of the cell that is tagged `parameters`."""
    cells = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text())["cells"]
    code = [each for each in cells if each["cell_type"] == "code"]
    toy = {"data": str(demo), "size": "96,128", "epochs": 1, "folder": tmp_path / "notebook"}
    names: dict[str, Any] = {}
    for cell in code:
        exec("".join(cell["source"]), names)
        if "parameters" in cell["metadata"].get("tags", ()):
            assert toy.keys() < names.keys()
            names |= toy
    assert {each.name for each in (tmp_path / "notebook").glob("*.safetensors")} == {
        "teacher.safetensors",
        "student.safetensors",
    }
    said = capsys.readouterr().out
    assert [line.split(":")[0] for line in said.splitlines()] == [
        *(f"teacher, {view} view" for view in ("fused", "high", "low")),
        "student, low view",
    ]
    assert names["image"].size == (320, 240)
    assert not any(each["outputs"] or each["execution_count"] for each in code)  # nobody's own run is kept in it
