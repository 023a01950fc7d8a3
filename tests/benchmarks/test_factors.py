"""benchmarks/factors.py: which runs are made, and what the table says of them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.scripts import script

from msad_cli.data.layouts.demo import draw_demo

ROOT = Path(__file__).parents[2]


@pytest.fixture
def factors(monkeypatch: pytest.MonkeyPatch) -> Any:
    return script(monkeypatch, "benchmarks/factors.py")


def test_a_row_is_measured_against_the_training_without_flags_by_the_seeds_of_both(factors: Any) -> None:
    found = {"none": {"0": 50.0, "1": 52.0, "2": 51.0}, "--mosaic 0.5": {"0": 51.0, "2": 54.0}, "--turn 1": {}}
    lines = factors.table(found, ["0", "1", "2"]).splitlines()
    # The sd of 50, 52, 51 is 1, that of 51 and 54 is 3/√2; (51 − 50 + 54 − 51) / 2 = 2.
    assert lines[2:] == [
        "| `none` | 50.0 | 52.0 | 51.0 | 51.0 ± 1.0 |  |",
        "| `--mosaic 0.5` | 51.0 | – | 54.0 | 52.5 ± 2.1 | +2.0 |",
    ]


def test_files_of_rows_differ(factors: Any) -> None:
    rows = ["none", "--turn 0.5", "--turn 0.5 --flipud 0.5", "--zoom 0.5,1.5"]
    names = [factors.file_of(Path(), row, "0").name for row in rows]
    assert names[0] == "none.seed0.safetensors"
    assert names[3] == "zoom-0.5-1.5.seed0.safetensors"
    assert len(set(names)) == len(rows)


def test_what_msad_refuses_is_told_once_with_its_exit_code(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/factors.py", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 3  # of data, as msad has it
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_table_is_made_and_goes_on(tmp_path: Path) -> None:
    draw_demo(tmp_path / "set")
    flags = ["--scales", "alone", "--k", "2", "--size", "64,64", "--epochs", "1", "--workers", "0"]
    command = [sys.executable, "benchmarks/factors.py", tmp_path / "set", "--out", tmp_path / "out", "--seeds", "0"]
    for rows in (["--flags=--flipud 0.5"], ["--flags=--flipud 0.5", "--flags=--turn 0.5"]):
        done = subprocess.run(
            [*map(str, command), *rows, *flags], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout.count("| `--flipud 0.5` |") == 1
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 3
