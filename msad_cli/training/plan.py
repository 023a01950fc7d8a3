"""From flags to the settings of a run: what was typed, what is computed, and why."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msad_cli.cli.check_tables import print_problems
from msad_cli.cli.console import print_line
from msad_cli.cli.gates import parse_sigmas
from msad_cli.data.annotations.check_cache import checked, refuse_unusable
from msad_cli.data.annotations.records import read_records
from msad_cli.data.annotations.split import CocoSplit, to_split
from msad_cli.data.layouts.demo import DEMO
from msad_cli.data.layouts.splits import find_split
from msad_cli.data.loading.dataset import TrainingSet
from msad_cli.distillation.two_step import FUSION_SHARE
from msad_cli.errors import UsageError
from msad_cli.frame import Resolution
from msad_cli.models.model_file import read_header
from msad_cli.models.spec import ClassName, DetectorSpec, View
from msad_cli.runs.folder import RunFolder, Setting
from msad_cli.runs.onlooker import Onlooker
from msad_cli.runs.reported_folder import ReportedFolder
from msad_cli.runs.trackers import parse_trackers
from msad_cli.system.device import Compute, choose_device, choose_precision
from msad_cli.system.distributed import first_then_others, on_this_machine, own_device, rank, size
from msad_cli.system.memory import available_memory
from msad_cli.system.processor import cores
from msad_cli.training.schedule import BASE_BATCH, BASE_LEARNING_RATE, Schedule

UNMIRRORED = "no image is mirrored: their names do not tell left from right; a category's flip_pairs would"

MOST_OF_MEMORY = 0.8
"""The share of what is available that decoded images may take; the rest is for the training itself."""

USUAL_DETECTIONS, MOST_DETECTIONS = 100, 1000
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


def choose(
    images: int,
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
    """Fills in what was not typed, for a training split of so many images."""
    settings: dict[str, Setting] = {}

    def pick(name: str, typed: Any, computed: Callable[[], tuple[Any, str]]) -> Any:
        value, reason = (typed, "") if typed is not None else computed()
        settings[name] = Setting(value, "flag" if typed is not None else "auto", reason)
        return value

    place, reason = choose_device(device)
    settings["device"] = Setting(str(place), "auto" if device == "auto" else "flag", reason)
    place = own_device(place)
    if size() > 1:
        settings["processes"] = Setting(size(), "auto", "torchrun; each has its share of every batch")
    kind, reason = choose_precision(precision, place)
    settings["precision"] = Setting(kind, "auto" if precision == "auto" else "flag", reason)
    large = place.type != "cpu"
    usual, why = (16, "a GPU; computed in parts where its memory is too small") if large else (4, "no GPU")
    batch = min(pick("batch", batch, lambda: (usual, why) if usual >= size() else (size(), "processes")), images)
    if batch < settings["batch"].value:
        settings["batch"] = Setting(batch, "auto", "all images of the training split")
    workers = pick("workers", workers, lambda: default_workers(place))
    epochs = pick("epochs", epochs, lambda: (_epochs(images), f"{images} training images"))
    rate = pick("lr", lr, lambda: (BASE_LEARNING_RATE * batch / BASE_BATCH, f"{BASE_LEARNING_RATE} × batch / 16"))
    steps = epochs * (images // batch)
    warmup = pick("warmup", warmup, lambda: (min(500, steps // 10), "a tenth of the run, at most 500 steps"))
    eval_every = pick("eval_every", eval_every, lambda: (max(1, epochs // 20), "20 evaluations in a run"))
    if decay not in ("steps", "cosine"):
        raise UsageError(f"--decay {decay}: unknown", "give steps or cosine")
    if not rate > 0:
        raise UsageError(f"--lr {rate}: has to be positive")
    schedule = Schedule(rate, steps, warmup, decay)  # type: ignore[arg-type]
    return Choices(Compute(place, kind), batch, workers, epochs, schedule, eval_every, settings)


def in_two_steps(choices: Choices) -> Choices:
    """The choices of a run whose last epochs train the fusion alone, with a schedule of their own.

    Raises:
        UsageError: there are not two epochs.
    """
    if choices.epochs < 2:
        raise UsageError("--strategy two-step: a single epoch has no two steps", "add --epochs 4, or more")
    last = max(1, round(FUSION_SHARE * choices.epochs))
    restart = (choices.epochs - last) * choices.steps_per_epoch
    return replace(choices, schedule=replace(choices.schedule, restart=restart))


def default_workers(device: torch.device) -> tuple[int, str]:
    """Loader processes, and why so many: all cores but one beside a GPU, half of them where the CPU computes too."""
    share = max(1, cores() // on_this_machine())
    return min(8, share // 2 if device.type == "cpu" else share - 1), f"{share} cores"


def keep_decoded(training: TrainingSet, cache: str, workers: int) -> Setting:
    """Has a training set keep its decoded images if `--cache` asks for it; the choice for the record.

    Raises:
        UsageError: an unknown value, or too little memory.
    """
    if cache not in ("off", "ram"):
        raise UsageError(f"--cache {cache}: unknown", "give ram or off")
    if cache == "off":
        return Setting(cache, "default", "images are decoded in every epoch")
    needed, there = training.keep_decoded() * on_this_machine(), available_memory(shared=workers > 0)
    words = f"{needed / 2**30:.2f} GiB of decoded images, {there / 2**30:.1f} GiB of memory are available"
    if needed > MOST_OF_MEMORY * there:
        raise UsageError(
            f"--cache ram does not fit: {words}, of which msad takes {MOST_OF_MEMORY:.0%}",
            "--cache off decodes the images in every epoch, for which more --workers help",
        )
    return Setting(cache, "flag", words)


def choose_views(view: str | None, spec: DetectorSpec, model: Path) -> tuple[View, ...]:
    """The views that a flag asks for, the model's best first; None asks for every one it has.

    Raises:
        UsageError: the model has no such view.
    """
    views = tuple(each for each in spec.views if view in (None, each))
    if not views:
        raise UsageError(f"--view {view}: {model} has {', '.join(spec.views)}", "leave --view away for its own")
    return views


def _epochs(images: int) -> int:
    # COCO's 12, growing with the square root as sets get smaller: a small set needs more passes but fewer steps.
    return int(min(MOST_EPOCHS, max(COCO_EPOCHS, round(COCO_EPOCHS * (COCO_IMAGES / images) ** 0.5))))


def read_data(
    data: str | None,
    train_json: Path | None,
    val_json: Path | None,
    train_images: Path | None,
    val_images: Path | None,
    resolution: Resolution,
    ks: Sequence[int],
    task: str,
    quiet: bool,
    model: DetectorSpec | None = None,
) -> tuple[CocoSplit, CocoSplit, Setting]:
    """Training and validation split, checked, and what was found, in words; unless `quiet` problems are printed.

    Args:
        data: a folder or `demo`; the four paths take the place of what lies there.
        resolution, ks: HR size and reductions of the views, by which objects may be small.
        task: `boxes`, `masks` or `keypoints`, as a detector's spec has it.
        model: whose classes and keypoints are taken; without one, those of the training split.

    Raises:
        UsageError: neither `data` nor all four paths.
        DataError: a split is unusable, or the training split has no box.
    """
    with first_then_others():  # the demo set is drawn once
        files = find_split(data, "train", train_json, train_images, task)
        other = find_split(data, "val", val_json, val_images, task)
    for note in () if quiet else dict.fromkeys((*files.notes, *other.notes)):
        print_line(note)
    known = (None, task) if model is None else (model.categories, task, model.keypoints)
    learnt = read_records(files.annotations, files.images, *known)
    val_records = read_records(other.annotations, other.images, learnt.categories, task, learnt.scheme.names)
    splits = {"train": learnt, "val": val_records}
    with first_then_others():  # who find it kept
        report = checked(splits, resolution, ks, lambda line: None if quiet else print_line(line))
    typed = data or str(files.annotations)
    refuse_unusable(report, typed, f"msad data check {typed} lists all")
    if not quiet:
        print_problems(report)
    train, val = (to_split(each) for each in splits.values())
    lengths = [f"{each.quantiles[1]:.0f} at 1/{each.k}" for each in report.splits[0].sizes]
    found = (
        f"{files.recognised}: {len(train)} + {len(val)} images, {len(train.boxes)} training boxes "
        f"(median side in pixels {', '.join(lengths)}), {len(train.categories)} classes"
    )
    if train.crowds or train.dropped:
        found += f", {train.crowds} crowd regions and {train.dropped} bad boxes left out"
    if task == "keypoints":
        mirrored = f"{len(train.scheme.flip_pairs)} pairs swap in a mirror" if train.scheme.flips else UNMIRRORED
        found += f", {len(train.scheme.names)} keypoints ({mirrored})"
    return train, val, Setting(data or str(train.file), "flag", found)


def fields_from_data(train: CocoSplit, sigmas: str | None) -> tuple[dict[str, Any], Setting]:
    """The fields of a spec that follow from the training split, and the number of detections for the record.

    Raises:
        UsageError: `sigmas` is not a positive number for each keypoint.
    """
    most = int(np.diff(train.starts).max(initial=0))
    # Room for what a denser image may hold; COCO's 100 where that is enough.
    detections = (
        USUAL_DETECTIONS if most <= USUAL_DETECTIONS else min(MOST_DETECTIONS, 100 * math.ceil(1.5 * most / 100))
    )
    scheme = train.scheme
    fields = {
        "classes": tuple(ClassName(*each) for each in train.categories),
        "detections_per_image": detections,
        "keypoints": scheme.names,
        "flip_pairs": scheme.flip_pairs,
        "skeleton": scheme.skeleton,
        "sigmas": parse_sigmas(sigmas, scheme.names),
    }
    return fields, Setting(detections, "auto", f"at most {most} objects in a training image")


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


def claim_output(out: Path, resume: bool, overwrite: bool, log: str | None, quiet: bool) -> RunFolder:
    """The run folder beside a model file that may be written; processes after the first only look on.

    Args:
        log: the flag, trackers that are told what goes there.
        quiet: whether nobody is told of one that fails, and they print nothing.

    Raises:
        UsageError: not a .safetensors name, a folder, a result that exists, or a tracker that cannot be used.
    """
    if out.suffix != ".safetensors":
        raise UsageError(
            f"--out {out}: a model file's name ends in .safetensors", f"--out {out.with_suffix('.safetensors')}"
        )
    if out.is_dir():
        raise UsageError(f"--out {out}: a folder", "give the name of a file that does not exist yet")
    trackers = parse_trackers(log)
    own = ReportedFolder(out, trackers, None if quiet else print_line)
    folder = own if rank() == 0 else Onlooker(out)
    if not resume and not overwrite and (out.exists() or folder.resumable):
        what = out if out.exists() else folder.path
        raise UsageError(f"{what} exists", "add --overwrite, --resume an interrupted run, or choose another --out")
    return folder
