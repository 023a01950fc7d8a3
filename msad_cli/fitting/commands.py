"""The commands that `msad fit` runs, one by one: each is one that can be typed."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from msad_cli.export.sidecar import InputShape
from msad_cli.fitting.choice.candidates import PLAIN, Candidate
from msad_cli.fitting.choice.measuring import GRAPH, TORCH
from msad_cli.fitting.scheduling import Epochs
from msad_cli.runs.folder import RunFolder
from msad_cli.text import size_text

Part = Literal["teacher", "student", "int8", "control", "both"]
JITTER = "0.8,1"
"""The scale jitter of the plain detector's images, which students have and the paper's `--scales single` has not."""
TIMED_RUNS = 30
TALKATIVE = ("teacher", "distill", "export")
"""Commands that tell people what they do, unless they are to be quiet."""


@dataclass(frozen=True)
class Step:
    """A command.

    Attributes:
        part: of what is made: it is left out with it.
        words: what is typed behind `msad`.
        out: the file that it writes; empty where it only tells.
        state: whether it has begun, and whether it is done.
    """

    part: Part
    words: tuple[str, ...]
    out: str = ""
    state: Literal["", "begun", "done"] = ""

    @property
    def trains(self) -> bool:
        """Whether it is a training, which goes on by its own `--resume`."""
        return self.words[0] in ("teacher", "distill")

    def now(self) -> tuple[str, ...]:
        """What is typed now: a training that was stopped goes on, and what was half done is done anew."""
        if not self.out:
            return self.words
        there = Path(self.out).exists()
        if self.trains:
            resumable = RunFolder(Path(self.out)).resumable
            if resumable and self.state:
                return (self.words[0], "--resume", "--out", self.out)
            there = there or resumable
        return (*self.words, "--overwrite") if there else self.words

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Step":
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError: it is not what `to_json` makes.
        """
        return cls(values["part"], tuple(values["words"]), values["out"], values["state"])


@dataclass(frozen=True)
class Places:
    """Where everything goes.

    Attributes:
        student: the model file that was asked for.
        folder: of the rest.
    """

    student: Path
    folder: Path

    @property
    def teacher(self) -> Path:
        """The teacher's model file."""
        return self.folder / "teacher.safetensors"

    @property
    def int8(self) -> Path:
        """The student's graph that computes with 8 bits."""
        return self.student.with_suffix(f".int8.{GRAPH}")

    @property
    def control(self) -> Path:
        """The plain detector's model file."""
        return self.folder / "plain.safetensors"


def shown(words: tuple[str, ...], threads: int | None = None) -> str:
    """A command as it is typed."""
    before = "" if threads is None else f"OMP_NUM_THREADS={threads} "
    return f"{before}msad {shlex.join(words)}"


def quietly(words: Sequence[str]) -> tuple[str, ...]:
    """A command that tells people nothing."""
    return (*words, "--quiet") if words[0] in TALKATIVE else tuple(words)


@dataclass(frozen=True)
class Recipe:
    """What all commands of a fit share.

    Attributes:
        data: the set, as it was typed.
        device, seed: flags of the trainings.
        runtime: that runs the model in the end.
        shape: of a graph's input.
    """

    data: str
    device: str
    seed: int
    runtime: str
    shape: InputShape


def steps_for(
    recipe: Recipe, places: Places, chosen: Candidate, control: Candidate | None, epochs: Epochs, teacher: str | None
) -> list[Step]:
    """All commands, in order: the model that ships is there before the plain detector is trained.

    Args:
        teacher: the backbone of a teacher where it is not the student's; empty where it is; None without a teacher.
    """
    steps = []
    if teacher is not None:
        words = _network(chosen, teacher) + _of_training(recipe, epochs.teacher, places.teacher)
        steps.append(Step("teacher", ("teacher", "--k", str(chosen.k), *words), str(places.teacher)))
        own = ("--backbone", chosen.network.backbone, "--width", f"{chosen.network.width:g}") if teacher else ()
        taught = ("distill", "--teacher", str(places.teacher), "--k", str(chosen.k), *own)
        words = ("--epochs", str(epochs.student), *_machine(recipe), "--out", str(places.student))
        steps.append(Step("student", (*taught, *words), str(places.student)))
    else:
        words = _network(chosen) + _of_training(recipe, epochs.student, places.student)
        alone = ("teacher", "--scales", "alone", "--k", str(chosen.k))
        steps.append(Step("student", (*alone, *words), str(places.student)))
    steps += _export(recipe, "student", places.student, recipe.shape)
    steps += _export(recipe, "int8", places.student, recipe.shape, places.int8)
    models = [places.student]
    if control is not None:
        words = _network(control) + _of_training(recipe, epochs.control, places.control)
        plain = ("teacher", "--scales", "single", "--k", str(PLAIN), "--zoom", JITTER)
        steps.append(Step("control", (*plain, *words), str(places.control)))
        fixed = InputShape(1, control.sees) if recipe.shape.sides else recipe.shape
        steps += _export(recipe, "control", places.control, fixed)
        models.append(places.control)
    return [*steps, Step("both", _bench(recipe, models))]


def deployed(model: Path, runtime: str) -> Path:
    """The file that runs in the end."""
    return model if runtime == TORCH else model.with_suffix(f".{GRAPH}")


def _network(candidate: Candidate, backbone: str = "") -> tuple[str, ...]:
    """The flags of a network, with another backbone of full width where one is named."""
    of = candidate.network
    of = replace(of, backbone=backbone, width=1.0, init="none") if backbone else of
    return (
        *("--detector", of.detector, "--backbone", of.backbone, "--width", f"{of.width:g}"),
        *("--head-channels", str(of.head_channels), "--head-convs", str(of.head_convs)),
        *(("--head-depthwise",) if of.head_depthwise else ()),
        *("--size", size_text(candidate.spec.resolution), "--init", of.init),
    )


def _of_training(recipe: Recipe, epochs: int, out: Path) -> tuple[str, ...]:
    return ("--data", recipe.data, "--epochs", str(epochs), *_machine(recipe), "--out", str(out))


def _machine(recipe: Recipe) -> tuple[str, ...]:
    device = () if recipe.device == "auto" else ("--device", recipe.device)
    return (*device, *(("--seed", str(recipe.seed)) if recipe.seed else ()))


def _export(recipe: Recipe, part: Part, model: Path, shape: InputShape, int8: Path | None = None) -> list[Step]:
    """The graph with its check, or one that computes with 8 bits; none where torch runs the model."""
    if recipe.runtime == TORCH:
        return []
    fixed = () if shape.sides is None else ("--fixed", ",".join(map(str, shape.sides)), "--batch", "1")
    out, bits = (deployed(model, recipe.runtime), ()) if int8 is None else (int8, ("--int8",))
    return [Step(part, ("export", str(model), "--data", recipe.data, *fixed, *bits, "--out", str(out)), str(out))]


def _bench(recipe: Recipe, models: list[Path]) -> tuple[str, ...]:
    files = (str(deployed(each, recipe.runtime)) for each in models)
    by = ("--precision", "fp32", "--device", "cpu") if recipe.runtime == TORCH else ("--runtime", recipe.runtime)
    return ("bench", *files, *by, "--runs", str(TIMED_RUNS), "--json")
