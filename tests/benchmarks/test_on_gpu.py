"""benchmarks/on_gpu.sh: at toy size it measures everything on a CPU; without time it says so; mistakes are said."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from msad_cli.data.layouts.demo import draw_demo

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "on_gpu.sh"


def on_gpu(*arguments: str | Path, limit: int = 100_000) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "LIMIT": str(limit), "OMP_NUM_THREADS": "1"}
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True)


@pytest.mark.slow
def test_everything_is_measured(tmp_path: Path) -> None:
    draw_demo(tmp_path / "set", train=4, val=2, seed=1, size=(128, 96))
    out = tmp_path / "new" / "gpu.md"
    done = on_gpu(tmp_path / "set", out, "--toy")
    text = out.read_text()
    assert done.returncode == 0, text
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Use of the device: bf16, channels last",
        "## Use of the device: bf16, channels first",
        "## Evidence",
        "## Predict beside stock FCOS, from files to boxes (output-kd)",
    ]
    assert text.count("% of peak") == 12  # two runs, three works, each whole and its network
    assert "left out for want of time: nothing" in text
    assert "| L by output-kd | 1 |" in text
    assert "times stock fp32" in text
    assert str(tmp_path) not in text
    assert {each.name for each in tmp_path.iterdir()} == {"set", "new"}


def test_what_there_is_no_time_for_is_said(tmp_path: Path) -> None:
    (tmp_path / "set" / "val2017").mkdir(parents=True)
    done = on_gpu(tmp_path / "set", tmp_path / "gpu.md", limit=0)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "gpu.md").read_text()
    assert text.startswith("# msad on a GPU\n")
    assert text.count("Not run: the time was over.") == text.count("\n## ") == 4


def test_what_is_wrong_is_said_before_anything_is_written(tmp_path: Path) -> None:
    assert on_gpu().returncode == on_gpu(tmp_path, "--toys").returncode == 2
    done = on_gpu(tmp_path, tmp_path / "gpu.md")
    assert done.returncode == 3
    assert "no folder val2017" in done.stderr
    (tmp_path / "val2017").mkdir()
    done = on_gpu(tmp_path, tmp_path / "gpu.md", "--wheels", tmp_path)
    assert done.returncode == 2
    assert "no wheels there" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["val2017"]
