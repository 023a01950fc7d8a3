"""A model as plots and pages show it: what its file and its run folder know of it, and what belongs beside it."""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from msad_cli.errors import MsadError, UsageError
from msad_cli.evaluation.metrics import KINDS, PREFIXES, main_number
from msad_cli.models.model_file import Card, own_header, read_header
from msad_cli.runs.folder import CONTROL, RunFolder, assistant_file
from msad_cli.runs.run_curves import RunCurves, read_curves
from msad_cli.system.files import fingerprint

Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Member:
    """A model among those that are shown together.

    Attributes:
        name: of its file, without folder and suffix.
        part: what it is to the others: `student`, `teacher`, `control`, `baseline`; empty where its file is not there.
        folder: its run folder; there may be none.
        card: of its file, if that is there.
        rows: its epochs; none without a run folder.
        scores: by view, its own first, numbers from 0 to 1; of its finished run, or those in its file.
        per_class: of its own view, by class; empty where the run folder does not say it.
        curves: of its finished run.
    """

    name: str
    part: str
    folder: RunFolder
    card: Card | None
    rows: Sequence[Numbers]
    scores: Mapping[str, Numbers]
    per_class: Mapping[str, Numbers]
    curves: RunCurves | None

    @property
    def view(self) -> str:
        """Its own view; empty where nothing is known of any."""
        return next(iter(self.scores), "")

    @property
    def numbers(self) -> Numbers:
        """Those of its own view."""
        return self.scores.get(self.view, {})

    @property
    def task(self) -> str:
        """What it finds, by its numbers: `boxes`, `masks` or `keypoints`."""
        known = (task for task in ("masks", "keypoints") if f"{PREFIXES[KINDS[task][-1]]}AP" in self.numbers)
        return next(known, "boxes")

    @property
    def ap_name(self) -> str:
        """What its AP is called among its numbers: `mask_AP` where it finds masks."""
        return f"{PREFIXES[KINDS[self.task][-1]]}AP"

    @property
    def ap(self) -> float:
        """By what it is compared, from 0 to 1: that of masks or keypoints where it finds these; NaN if unknown."""
        return main_number(self.numbers, self.task)

    @property
    def label(self) -> str:
        """`teacher, fused`; the part in front where the name does not say it."""
        name = self.name if self.part in ("", "student", self.name) else f"{self.part} {self.name}"
        return f"{name}, {self.view}" if self.view else name


def read_member(model: Path, part: str = "", name: str = "") -> Member:
    """What is known of a model.

    Args:
        model: its file, which may be missing; its run folder lies beside it.
        part: as `Member` has it; by default what the file says.
        name: by default that of the file.

    Raises:
        UsageError: the run folder is damaged.
        ModelFileError: the file is.
    """
    folder = RunFolder(model)
    header = own_header(model.with_suffix(".safetensors"))
    card = header[1] if header else None
    metrics = read_record(folder.metrics)
    scores = {str(view): _numbers(each) for view, each in metrics.items()}
    if not scores and header and card:
        known = card.scores or {}
        scores = {str(view): _numbers(known[view]) for view in header[0].views if view in known}
    first: Any = next(iter(metrics.values()), {})
    by_class = first.get("per_class", {}) if isinstance(first, dict) else {}
    return Member(
        name=name or model.stem,
        part=part or (header[0].role if header else ""),
        folder=folder,
        card=card,
        rows=folder.rows(),
        scores=scores,
        per_class={str(of): _numbers(each) for of, each in by_class.items()} if isinstance(by_class, dict) else {},
        curves=read_curves(folder.curves),
    )


def relatives(model: Path) -> list[Member]:
    """The teacher of a student and its control, as far as they are there and can be read."""
    found = []
    for part, file in (("teacher", find_teacher(model)), ("control", find_control(model))):
        if file is not None:
            with suppress(MsadError):
                found.append(read_member(file, part))
    return found


def find_teacher(model: Path) -> Path | None:
    """The file that a student's run names as its teacher, or of that name beside the student, if it is the one.

    By Pixel Distillation it is the student's assistant. Where no such file is there any more, but a run folder of it,
    the place where it would be; else None.
    """
    named = read_settings(RunFolder(model)).get("teacher", {}).get("value")
    if not isinstance(named, str) or not Path(named).name:
        return None
    with suppress(MsadError):
        student = model.with_suffix(".safetensors")
        header = own_header(student)
        places = (Path(named), model.parent / Path(named).name, assistant_file(student))
        there = [file for file in places if file.is_file()]
        same = (file for file in there if header is None or header[1].teacher == _identity(file, _state(file)))
        left = (file for file in places if file not in there and file.with_suffix(".run").is_dir())
        return next(chain(same, left), None)
    return None


def _state(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=8)
def _identity(file: Path, state: tuple[int, int]) -> str:
    """The fingerprint of a file in this state: a student's plots ask for its teacher's in every epoch."""
    return fingerprint(file)


def find_control(model: Path) -> Path | None:
    """The model that `--no-distill` wrote beside this one by its default name, if it is one of this teacher and set."""
    plain, file = model.with_name(CONTROL), model.with_suffix(".safetensors")
    if plain.name == file.name or not (plain.exists() and file.exists()):
        return None
    try:
        own, other = read_header(file)[1], read_header(plain)[1]
    except MsadError:
        return None
    alike = (own.teacher, own.data_fingerprint) == (other.teacher, other.data_fingerprint)
    return plain if alike and own.teacher else None


def read_settings(folder: RunFolder) -> dict[str, dict[str, Any]]:
    """What args.json says, by setting; nothing where there is none.

    Raises:
        UsageError: it is damaged.
    """
    return {name: each for name, each in read_record(folder.path / "args.json").items() if isinstance(each, dict)}


def read_record(path: Path) -> dict[str, Any]:
    """The object in one of a run folder's JSON files; nothing where there is no such file.

    Raises:
        UsageError: it cannot be read, or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise TypeError("no object")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{path} is damaged ({error})", "move it away; the rest is shown without it", code="run-record-damaged"
        ) from None
    return values


def _numbers(values: Any) -> dict[str, float]:
    """What is a number of what a JSON file has, from 0 to 1; NaN for null."""
    pairs = values.items() if isinstance(values, dict) else ()
    return {
        str(name): math.nan if value is None else float(value)
        for name, value in pairs
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    }
