"""FILE.fit/: what `msad fit` was asked for, what it has found so far, and which of its commands are done."""

import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from msad_cli import __version__
from msad_cli.errors import UsageError
from msad_cli.fitting.choice.budgets import KNOWN, parse_budget
from msad_cli.fitting.choice.measuring import Measured
from msad_cli.fitting.commands import Places, Step
from msad_cli.runs.folder import json_text
from msad_cli.system.files import refuse_unwritable, write_text
from msad_cli.text import name_files, parse_duration, parse_ks, refuse_out_of_range

FORMAT = "msad-fit/2"
SUFFIX = ".fit"
TEACHERS = ("auto", "yes", "no")
UNRECORDED = frozenset({"resume", "overwrite", "dry_run", "quiet"})
"""Fields that state.json does not hold: they are of a single call."""
LIMITS: dict[str, tuple[float, float | None]] = {"teacher_epochs": (1, None), "threads": (1, 256)}
"""The least and the largest value of a field, where there are any."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """What a fit is asked for; a field is the flag of its name.

    Attributes:
        data: as it was typed.
        out: the model file of the student.
        teacher: `auto`, `yes` or `no`.
        control: whether the plain detector of the budget is trained too.
        resume: the folder of a fit that is to go on, for which nothing else is asked.

    Raises:
        UsageError: a value that cannot be.
    """

    data: str = ""
    budget: str = ""
    time: str = "6h"
    out: Path = Path("student.safetensors")
    teacher: str = "auto"
    teacher_epochs: int | None = None
    teacher_backbone: str | None = None
    control: bool = True
    detector: str | None = None
    backbone: str | None = None
    k: str = "2,4"
    init: str | None = None
    threads: int = 1
    device: str = "auto"
    seed: int = 0
    resume: Path | None = None
    overwrite: bool = False
    dry_run: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        name_files(self, ("out", "resume"))
        for name in ("data", "init"):  # words of commands
            if isinstance(path := getattr(self, name), os.PathLike):
                object.__setattr__(self, name, os.fspath(path))
        if self.resume is not None:
            return
        for flag, value, form in (("--data", self.data, " DIR"), ("--budget", self.budget, f", {KNOWN}")):
            if not value:
                raise UsageError(f"no {flag} given", f"add {flag}{form}", code="flag-missing")
        refuse_out_of_range(self, LIMITS)
        parse_budget(self.budget)
        parse_duration("--time", self.time)
        parse_ks("--k", self.k, "24")
        if self.teacher not in TEACHERS:
            raise UsageError(f"--teacher {self.teacher}: unknown", "give auto, yes or no", code="unknown-value")
        if self.teacher == "no" and (self.teacher_epochs is not None or self.teacher_backbone is not None):
            raise UsageError(
                "--teacher no with --teacher-epochs or --teacher-backbone: there is none to have them",
                "leave one or the other away",
                code="setting-without-effect",
            )
        if self.init not in (None, "none", "imagenet") and self.backbone is None:
            raise UsageError(
                f"--init {self.init}: of which backbone its weights are decides what there is to choose among",
                "add --backbone NAME",
                code="backbone-missing",
            )
        if self.out.suffix != ".safetensors":
            raise UsageError(
                f"--out {self.out}: a model file's name ends in .safetensors",
                f"--out {self.out.with_suffix('.safetensors')}",
                code="out-name-refused",
            )

    @property
    def wanted_teacher(self) -> str:
        """`auto`, `yes` or `no`: whoever says what the teacher is wants one."""
        described = self.teacher_epochs is not None or self.teacher_backbone is not None
        return "yes" if described else self.teacher

    @property
    def places(self) -> Places:
        """Where everything goes."""
        return Places(self.out, self.out.with_suffix(SUFFIX))


@dataclass
class FitState:
    """How far a fit is.

    Attributes:
        measured: candidates by name.
        plan: what was chosen, as `job.py` puts it for people and programs; empty before.
        pace: milliseconds of the yardstick, by which all times of this fit are told; 0 before it is measured.
        steps: the commands; none before they are known.
        notes: what became of a step that could not be done, by its part.
    """

    config: FitConfig
    measured: dict[str, Measured] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    pace: float = 0.0


class FitFolder:
    """The folder beside a model file that is to be fitted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / "state.json"
        self.report = path / "report.html"
        self.verdict = path / "verdict.json"

    def refuse_used(self, overwrite: bool, out: Path) -> None:
        """Does nothing where a fit may begin; one that has only measured may begin anew.

        Raises:
            UsageError: there is a result, or a fit whose commands have begun.
            OutputError: nothing can be written there.
        """
        begun = not overwrite and self.state.exists() and bool(self.load().steps)
        if begun or (out.exists() and not overwrite):
            what = self.path if begun else out
            raise UsageError(
                f"{what} exists",
                f"msad fit --resume {self.path} goes on with a fit; or add --overwrite, or choose another --out",
                code="result-exists",
            )
        refuse_unwritable(out)  # the folder, which lies beside it, is made with the first thing that is found

    def save(self, state: FitState) -> None:
        """Writes how far it is, all of it or nothing."""
        values = {
            "format": FORMAT,
            "msad": __version__,
            "config": {name: value for name, value in asdict(state.config).items() if name not in UNRECORDED},
            "begun_in": os.getcwd(),
            "measured": {name: asdict(each) for name, each in state.measured.items()},
            "plan": state.plan,
            "steps": [each.to_json() for each in state.steps],
            "notes": state.notes,
            "pace": state.pace,
        }
        write_text(self.state, json_text(values))

    def load(self) -> FitState:
        """How far it was.

        Raises:
            UsageError: there is none, the file was changed into something else, or it was begun in another folder.
        """
        try:
            values = json.loads(self.state.read_text(encoding="utf-8"))
            if values["format"] != FORMAT:
                raise ValueError(f"format {str(values['format'])[:40]!r}, this msad reads {FORMAT!r}")
            begun_in = str(values["begun_in"])
            state = FitState(
                _config(values["config"]),
                {str(name): _measured(each) for name, each in values["measured"].items()},
                dict(values["plan"]),
                [Step.from_json(each) for each in values["steps"]],
                dict(values["notes"]),
                float(values["pace"]),
            )
        except FileNotFoundError:
            raise UsageError(
                f"nothing to resume: no {self.state}",
                "--resume takes the folder that msad fit made, such as student.fit",
                code="nothing-to-resume",
            ) from None
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise UsageError(
                f"cannot resume: {self.state} is damaged ({str(error)[:200]})",
                "start anew with --overwrite",
                code="state-damaged",
            ) from None
        if begun_in != os.getcwd():  # its commands name files from there
            raise UsageError(
                f"{self.path}: this fit was begun in {begun_in}", f"cd {shlex.quote(begun_in)}", code="other-folder"
            )
        return state


def begin(config: FitConfig, typed: Iterable[str]) -> tuple[FitFolder, FitState]:
    """The folder of a fit that begins or goes on, and how far it is.

    Args:
        typed: names of the fields that somebody gave.

    Raises:
        UsageError: a result exists; or there is nothing to resume, or more is asked for than that.
        OutputError: nothing can be written there.
    """
    if config.resume is None:
        folder = FitFolder(config.places.folder)
        if not config.dry_run:
            folder.refuse_used(config.overwrite, config.out)
        return folder, FitState(config)
    if beside := [name for name in typed if name not in ("resume", "quiet")]:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in beside)
        raise UsageError(
            f"--resume with {flags}: a fit goes on as it began",
            "leave them away, or start anew with --overwrite",
            code="setting-changed",
        )
    folder = FitFolder(config.resume)
    return folder, folder.load()


def _config(values: Mapping[str, Any]) -> FitConfig:
    known = {each.name for each in fields(FitConfig)} - UNRECORDED
    return FitConfig(**{**{name: values[name] for name in known}, "out": Path(values["out"])})


def _measured(values: Mapping[str, Any]) -> Measured:
    times = sorted(
        ((str(name), float(each)) for name, each in values["milliseconds"].items()), key=lambda each: each[1]
    )
    if not times:
        raise ValueError("a measured candidate without a time")
    return Measured(dict(times), int(values["size"]), float(values["busy"]), float(values["slower"]))


def marked(steps: Sequence[Step], place: int, **changed: Any) -> list[Step]:
    """The steps, one of them with other fields."""
    return [Step(**{**vars(each), **changed}) if number == place else each for number, each in enumerate(steps)]
