"""FILE.run/: what a run leaves beside its model file, for people and for resuming."""

import csv
import io
import json
import math
import platform
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msad_cli import __version__
from msad_cli.engine.files import replacing, write_text
from msad_cli.structures.errors import UsageError


@dataclass(frozen=True)
class Setting:
    """A setting of a run: its value, where it came from (`flag`, `default`, `auto`, `teacher`, `resumed`), and why."""

    value: Any
    source: str
    reason: str = ""


class RunFolder:
    """The folder beside a model file.

    Args:
        model: the model file to be written; `student.safetensors` has `student.run/` beside it.
    """

    def __init__(self, model: Path) -> None:
        self.path = model.with_suffix(".run")
        self.results = self.path / "results.csv"
        self.state = self.path / "resume" / "state.pt"

    def start(self, settings: dict[str, Setting], line: str) -> None:
        """Writes args.json, env.json and a first line of the log; an earlier run can no longer be resumed."""
        import torch
        import torchvision

        env = {
            "msad": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "command": sys.argv,
        }
        self.state.unlink(missing_ok=True)
        write_text(self.path / "args.json", json_text({name: asdict(each) for name, each in settings.items()}))
        write_text(self.path / "env.json", json_text(env))
        self.log(line)

    def add_row(self, row: dict[str, float]) -> list[dict[str, float]]:
        """Appends an epoch to results.csv, replacing rows of that and later epochs; returns all rows."""
        rows = [each for each in self.rows() if each["epoch"] < row["epoch"]] + [row]
        names = list(dict.fromkeys(name for each in rows for name in each))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.results, text.getvalue())
        return rows

    def rows(self) -> list[dict[str, float]]:
        """The epochs so far."""
        if not self.results.exists():
            return []
        with self.results.open(newline="") as file:
            rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
        return [{**row, "epoch": int(row["epoch"])} for row in rows]

    def finish(self, metrics: dict[str, Any]) -> None:
        """Writes metrics.json; what is not a number becomes null."""
        write_text(self.path / "metrics.json", json_text(metrics))

    def log(self, line: str) -> None:
        """Appends a line to log.txt."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")

    def save_state(self, state: dict[str, Any]) -> None:
        """Writes what only resuming needs."""
        import torch

        with replacing(self.state) as temporary:
            torch.save(state, temporary)

    def load_state(self) -> dict[str, Any]:
        """What `save_state` wrote; loading it executes no code.

        Raises:
            UsageError: the file is damaged, or holds something else.
        """
        import torch

        try:
            return dict(torch.load(self.state, map_location="cpu", weights_only=True))
        except Exception as error:
            # Torch answers damaged files with whatever its reader stumbled over.
            what = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UsageError(
                f"cannot resume: {self.state} is damaged ({what})", "start anew with --overwrite"
            ) from None


def without_nan(value: Any) -> Any:
    """The same nested value with None for every NaN, as JSON has none."""
    if isinstance(value, dict):
        return {name: without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(value: Any) -> str:
    """JSON for people and programs: indented, null for NaN, a final newline."""
    return json.dumps(without_nan(value), indent=2, default=str) + "\n"
