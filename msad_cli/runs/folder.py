"""FILE.run/: what a run leaves beside its model file, for people and for resuming."""

import csv
import io
import json
import math
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from msad_cli import __version__
from msad_cli.errors import UsageError
from msad_cli.system.files import append_line, explained, remove, remove_unfinished, write_bytes, write_text

CONTROL = "plain.safetensors"
"""Where the student goes that learns without its teacher, unless --out says."""


def assistant_file(student: Path) -> Path:
    """Where the assistant of a student is kept, by Pixel Distillation: `student.assistant.safetensors`."""
    return student.with_name(f"{student.stem}.assistant{student.suffix}")


@dataclass(frozen=True)
class Setting:
    """A setting of a run: its value, where it came from (`flag`, `default`, `auto`, `file`, `resumed`), and why."""

    value: Any
    source: str
    reason: str = ""


class RunFolder:
    """The folder beside a model file.

    Args:
        model: the model file to be written; `student.safetensors` has `student.run/` beside it.
    """

    def __init__(self, model: Path) -> None:
        self.model = model
        self.path = model.with_suffix(".run")
        self.results = self.path / "results.csv"
        self.metrics = self.path / "metrics.json"
        self.curves = self.path / "curves.json"
        self.compared = self.path / "compared.json"
        self.report = self.path / "report.html"
        self.plots = self.path / "plots"
        self.samples = self.path / "samples"
        self.state = self.path / "resume" / "state.pt"
        self.previous_state = self.state.with_name("previous.pt")

    @property
    def resumable(self) -> bool:
        """Whether there is something to go on from."""
        return self.state.exists() or self.previous_state.exists()

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keeps other processes out, and clears away what a killed one left half-written.

        Raises:
            UsageError: another process trains here.
            OutputError: the folder cannot be written to.
        """
        path = self.state.with_name("lock")
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.open("a")
        with lock:
            if not _lock(lock):
                raise UsageError(
                    f"another process is training into {self.path}",
                    "wait for it, or choose another --out",
                    code="run-in-use",
                )
            for folder in (self.path, *self.path.glob("*/")):
                remove_unfinished(folder)
            remove_unfinished(self.model.parent, self.model.name)
            yield

    def start(self, settings: Mapping[str, Setting], line: str) -> None:
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
        remove(self.state)
        remove(self.previous_state)
        for of_the_earlier_run in (self.metrics, self.curves, self.compared, self.report):
            remove(of_the_earlier_run)
        self.record(settings)
        write_text(self.path / "env.json", json_text(env))
        self.log(line)

    def record(self, settings: Mapping[str, Setting]) -> None:
        """Writes args.json."""
        write_text(self.path / "args.json", json_text({name: asdict(each) for name, each in settings.items()}))

    def recorded(self) -> dict[str, Setting]:
        """The settings in args.json.

        Raises:
            UsageError: it is missing or damaged.
        """
        path = self.path / "args.json"
        try:
            return {name: Setting(**each) for name, each in json.loads(path.read_text(encoding="utf-8")).items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UsageError(
                f"cannot resume: {path} is damaged ({error})", "start anew with --overwrite", code="state-damaged"
            ) from None

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
        """The epochs so far.

        Raises:
            UsageError: results.csv was changed into something else.
        """
        if not self.results.exists():
            return []
        try:
            with self.results.open(newline="") as file:
                rows = [{name: _number(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
            return [{**row, "epoch": int(row["epoch"])} for row in rows]
        except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
            raise UsageError(
                f"{self.results} is damaged ({error})",
                "move it away; new rows start a new one",
                code="run-record-damaged",
            ) from None

    def finish(self, metrics: dict[str, Any]) -> None:
        """Writes metrics.json; what is not a number becomes null."""
        write_text(self.metrics, json_text(metrics))

    def log(self, line: str) -> None:
        """Appends a line to log.txt."""
        append_line(self.path / "log.txt", f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}")

    def save_state(self, state: dict[str, Any]) -> None:
        """Writes what only resuming needs. The state before it is kept, so that one of the two is whole at any time.

        Raises:
            OutputError: it cannot be written; the states that are there stay.
        """
        import torch

        content = io.BytesIO()
        torch.save(state, content)
        new = self.state.with_name("new.pt")
        write_bytes(new, content.getbuffer())
        with explained(self.state):
            if self.state.exists():
                self.state.replace(self.previous_state)
            new.replace(self.state)

    def load_state(self) -> tuple[dict[str, Any], str]:
        """What `save_state` wrote last, and a remark if it had to be the state before; executes no code.

        Raises:
            UsageError: both files are missing, damaged, or hold something else.
        """
        import torch

        damages: list[str] = []
        for path in (self.state, self.previous_state):
            try:
                state = dict(torch.load(path, map_location="cpu", weights_only=True))
                return state, f"{damages[0]}; going on from the state before it" if damages else ""
            except FileNotFoundError:
                continue
            except Exception as error:
                # Torch answers damaged files with whatever its reader stumbled over.
                what = str(error).splitlines()[0] if str(error) else type(error).__name__
                damages.append(f"{path} is damaged ({what})")
        raise UsageError(f"cannot resume: {'; '.join(damages)}", "start anew with --overwrite", code="state-damaged")


def _number(text: str) -> float:
    return int(text) if text.isdecimal() else float(text)


def _lock(file: IO[str]) -> bool:
    """Locks a file until it is closed; false where another process has it. The system unlocks what it kills."""
    try:
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows, or a file system without locks
        return True
    return True


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
