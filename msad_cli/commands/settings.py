"""From flags to the settings of a run: what was typed, what is computed, and why."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typer

from msad_cli.data.coco import CocoSplit, read_split
from msad_cli.data.layouts import DEMO, find_split
from msad_cli.engine.device import Compute, choose_device, choose_precision
from msad_cli.engine.model_file import read_header
from msad_cli.engine.run_folder import RunFolder, Setting
from msad_cli.engine.schedule import BASE_BATCH, BASE_LEARNING_RATE, Schedule
from msad_cli.models.spec import DetectorSpec, View
from msad_cli.structures.errors import DataError, UsageError

INVISIBLE = {"resume", "overwrite", "dry_run", "quiet"}

COCO_IMAGES, COCO_EPOCHS, MOST_EPOCHS = 117_266, 12, 150


@dataclass(frozen=True)
class Choices:
    """The values of a run that do not depend on the method, and all settings for the record."""

    compute: Compute
    batch: int
    workers: int
    epochs: int
    schedule: Schedule
    eval_every: int
    settings: dict[str, Setting]

    @property
    def steps_per_epoch(self) -> int:
        return self.schedule.steps // self.epochs


def from_command_line(context: typer.Context) -> dict[str, Setting]:
    """Every flag of a command with its value, and whether it was typed."""
    settings = {}
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        typed = source is not None and source.name == "COMMANDLINE"
        if name not in INVISIBLE and value is not None:
            settings[name.rstrip("_")] = Setting(value, "flag" if typed else "default")
    return settings


def choose(
    pictures: int,
    *,
    device: str,
    precision: str,
    batch: int | None,
    workers: int | None,
    epochs: int | None,
    lr: float | None,
    decay: str,
    warmup: int | None,
    eval_every: int | None,
) -> Choices:
    """Fills in what was not typed, for a training split of so many pictures."""
    settings: dict[str, Setting] = {}

    def pick(name: str, typed: Any, computed: Callable[[], tuple[Any, str]]) -> Any:
        value, reason = (typed, "") if typed is not None else computed()
        settings[name] = Setting(value, "flag" if typed is not None else "auto", reason)
        return value

    place, reason = choose_device(device)
    settings["device"] = Setting(str(place), "auto" if device == "auto" else "flag", reason)
    kind, reason = choose_precision(precision, place)
    settings["precision"] = Setting(kind, "auto" if precision == "auto" else "flag", reason)
    large = place.type != "cpu"
    batch = min(pick("batch", batch, lambda: (16, "a GPU") if large else (4, "no GPU")), pictures)
    if batch < settings["batch"].value:
        settings["batch"] = Setting(batch, "auto", "all pictures of the training split")
    workers = pick("workers", workers, lambda: default_workers(place))
    epochs = pick("epochs", epochs, lambda: (_epochs(pictures), f"{pictures} training pictures"))
    rate = pick("lr", lr, lambda: (BASE_LEARNING_RATE * batch / BASE_BATCH, f"{BASE_LEARNING_RATE} × batch / 16"))
    steps = epochs * (pictures // batch)
    warmup = pick("warmup", warmup, lambda: (min(500, steps // 10), "a tenth of the run, at most 500 steps"))
    eval_every = pick("eval_every", eval_every, lambda: (max(1, epochs // 20), "20 evaluations in a run"))
    if decay not in ("steps", "cosine"):
        raise UsageError(f"--decay {decay}: unknown", "give steps or cosine")
    if not rate > 0:
        raise UsageError(f"--lr {rate}: has to be positive")
    schedule = Schedule(rate, steps, warmup, decay)  # type: ignore[arg-type]
    return Choices(Compute(place, kind), batch, workers, epochs, schedule, eval_every, settings)


def default_workers(device: torch.device) -> tuple[int, str]:
    """Loader processes, and why so many: all cores but one beside a GPU, half of them where the CPU computes too."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores // 2 if device.type == "cpu" else cores - 1), f"{cores} cores"


def choose_views(view: str | None, spec: DetectorSpec, model: Path) -> tuple[View, ...]:
    """The views that a flag asks for, the model's best first; None asks for every one it has.

    Raises:
        UsageError: the model has no such view.
    """
    views = tuple(each for each in spec.views if view in (None, each))
    if not views:
        raise UsageError(f"--view {view}: {model} has {', '.join(spec.views)}", "leave --view away for its own")
    return views


def _epochs(pictures: int) -> int:
    # COCO's 12, growing with the square root as sets get smaller: a small set needs more passes but fewer steps.
    return int(min(MOST_EPOCHS, max(COCO_EPOCHS, round(COCO_EPOCHS * (COCO_IMAGES / pictures) ** 0.5))))


def read_data(
    data: str | None,
    train_json: Path | None,
    val_json: Path | None,
    train_images: Path | None,
    val_images: Path | None,
    categories: tuple[tuple[int, str], ...] | None = None,
) -> tuple[CocoSplit, CocoSplit, Setting]:
    """Training and validation split, and what was found, in words.

    Args:
        data: a folder or `demo`; the four paths take the place of what lies there.
        categories: the classes of an existing model; without them, those of the training split.

    Raises:
        UsageError: neither `data` nor all four paths.
        DataError: a split is unusable, or the training split has no box.
    """
    files = find_split(data, "train", train_json, train_images)
    train = read_split(files.annotations, files.images, categories)
    if not len(train.boxes):
        raise DataError(f"{train.file}: no boxes to learn from", "msad learns from boxes; check its list 'annotations'")
    other = find_split(data, "val", val_json, val_images)
    val = read_split(other.annotations, other.images, train.categories)
    found = (
        f"{files.recognised}: {len(train)} + {len(val)} pictures, {len(train.boxes)} training boxes, "
        f"{len(train.categories)} classes"
    )
    if train.crowds or train.dropped:
        found += f", {train.crowds} crowd regions and {train.dropped} boxes without extent left out"
    return train, val, Setting(data or str(train.file), "flag", found)


def lasting(data: str | None) -> str:
    """The name of a set as a model file remembers it: a folder is found again from anywhere, single files are not."""
    return str(Path(data).resolve()) if data and data != DEMO else data or ""


@contextmanager
def invalid_values_named(hint: str) -> Iterator[None]:
    """Turns a value that a spec refuses into a usage error with this hint."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error), hint) from None


def choose_norm(norm: str, init: str) -> Setting:
    """The backbone's normalisation: `auto` freezes pretrained statistics and groups channels from scratch.

    Raises:
        ModelFileError: `init` is a .safetensors file, but not msad's.
    """
    if norm != "auto":
        return Setting(norm, "flag")
    if init == "none":
        return Setting("group", "auto", "from scratch; two resolutions share no batch statistics")
    if init.endswith(".safetensors"):
        return Setting(read_header(Path(init))[0].norm, "auto", f"as in {init}")
    return Setting("frozen", "auto", "pretrained weights")


def claim_output(out: Path, resume: bool, overwrite: bool) -> RunFolder:
    """The run folder beside a model file that may be written.

    Raises:
        UsageError: not a .safetensors name, a result that exists, or nothing to resume.
    """
    if out.suffix != ".safetensors":
        raise UsageError(
            f"--out {out}: a model file's name ends in .safetensors", f"--out {out.with_suffix('.safetensors')}"
        )
    folder = RunFolder(out)
    if resume and not folder.state.exists():
        raise UsageError(f"nothing to resume: no {folder.state}", "leave --resume away to start")
    if not resume and not overwrite and (out.exists() or folder.state.exists()):
        what = out if out.exists() else folder.path
        raise UsageError(f"{what} exists", "add --overwrite, --resume an interrupted run, or choose another --out")
    return folder
