"""The paper's claims on a set: every row of its tables by one schedule, with the controls that it leaves out.

    python benchmarks/evidence.py SET [--out DIR] [--scale cpu|gpu] [--k 2|4] [--seeds 3] [--jobs 2] [--rows a,b]
        [--size 480,640] [--pictures N] [--minutes 5] [--estimate]

SET is a folder in the COCO layout; Mask R-CNN is trained where it has masks, Keypoint R-CNN where it has keypoints,
else FCOS, unless --detector says otherwise. Every row is shown as many images, with the same batches and rates. All
students of a seed learn from that seed's teacher. DIR gets a model file and a log a row and seed, evidence.md and
evidence.csv of all that is there, and evidence.png of the rows that were asked for (evidence_report.py). A model that
is in DIR is not trained again and an interrupted one goes on: the command can be stopped and typed again. Hours are
estimated first; with --estimate that is all, and with --minutes only the first rows are trained, as many as fit by it.
"""

import argparse
import itertools
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from evidence_report import METHODS, claims_for, is_finished, write_report
from mistakes import told

from msad_cli.data.annotations.split import CocoSplit, read_split
from msad_cli.data.layouts.splits import find_split
from msad_cli.data.loading.dataset import TrainingSet
from msad_cli.distillation.aligned_teacher import AlignedTraining
from msad_cli.distillation.losses.table import suitable_methods
from msad_cli.errors import UsageError
from msad_cli.models.detector import Detector
from msad_cli.models.detectors.kinds import DETECTORS, task_of
from msad_cli.models.model_file import read_header
from msad_cli.models.spec import DetectorSpec, Learning
from msad_cli.runs.folder import RunFolder
from msad_cli.text import duration, parse_size
from msad_cli.training.config import TeacherConfig
from msad_cli.training.defaults.pace import pace_of
from msad_cli.training.plan import choose, choose_norm, invalid_values_named
from msad_cli.training.sets import fields_from_data


@dataclass(frozen=True)
class Row:
    """A model of the table.

    Attributes:
        name: of its files.
        label: in the table.
        command: `teacher` or `distill`, with the flags that are its own.
        share: seconds an image, of the aligned teacher's; for the estimate. Measured on blood cells, one thread.
        schedules: how often the schedule's epochs it is trained for.
        learns_from: the row whose file is its `--teacher`.
        starts_from: the row whose file is its `--init`, where that is another.
    """

    name: str
    label: str
    command: str
    share: float
    schedules: int = 1
    learns_from: str = ""
    starts_from: str = ""


@dataclass(frozen=True)
class Scale:
    """A network and a schedule; `images` are shown to every model, so that epochs follow from the size of the set.

    `stronger` are the flags of a stronger teacher, `usual` those that give its student the network of all the others.
    """

    network: str
    schedule: str
    images: int
    stronger: str = "--width 1.0"
    usual: str = "--width 0.5"


Run = tuple[Row, int]
"""A row and a seed."""


def scale_of(name: str, detector: str) -> Scale:
    """`cpu`: a small network at 256 pixels. `gpu`: the paper's at 800."""
    dense = DETECTORS[detector].family == "dense"
    if detector == "rtmdet":  # by its own recipe
        backbones = ("cspnext_s", "cspnext_m") if name == "gpu" else ("cspnext_nano", "cspnext_tiny")
        head, sides = ("128", "800,1333") if name == "gpu" else ("64", "256,456")
        return Scale(
            f"--init none --backbone {backbones[0]} --head-channels {head} --head-convs 2 --size {sides}",
            "--batch 16" if name == "gpu" else "--batch 8 --workers 0",
            36_000 if name == "gpu" else 10_500,
            f"--backbone {backbones[1]}",
            f"--backbone {backbones[0]}",
        )
    if name == "gpu":
        return Scale(
            "--init none --backbone resnet50",
            "--batch 16 --lr 0.01 --decay cosine",
            36_000,
            "--backbone resnet101",
            "--backbone resnet50",
        )
    small = "--init none --backbone resnet18 --width 0.5 --head-channels 64 --size 256,456"
    if dense:
        return Scale(f"{small} --head-convs 2", "--batch 8 --lr 0.02 --workers 0", 10_500)
    # Regions are what a step takes its time for; images with keypoints show few objects.
    rois = 32 if task_of(detector) == "keypoints" else 64
    return Scale(f"{small} --rois {rois}", "--batch 4 --lr 0.01 --workers 0", 4_300)


def methods_of(detector: str) -> list[str]:
    """The paper's method and the best of the others, the default of this detector first."""
    default = suitable_methods(DETECTORS[detector].family == "dense")
    return sorted(METHODS, key=lambda method: method not in default)


def rows_of(detector: str, scale: Scale, k: int) -> dict[str, Row]:
    """All rows by name, in the order of the table. Distilled ones name their method, whatever the default is."""
    both = f"teacher --k {k}"
    light = "--head-depthwise" if DETECTORS[detector].family == "dense" else "--head-convs 1"
    alone, taught, method = "--no-distill --init none", "--init teacher", methods_of(detector)[0]
    best = f"--method {method}"
    rows = [
        Row("teacher", "aligned teacher", both, 1.0),
        Row("concat", "teacher, concat", f"{both} --fusion concat", 1.0),
        Row("sum", "teacher, sum", f"{both} --fusion sum", 1.0),
        Row("stronger", "stronger teacher", f"{both} {scale.stronger}", 2.0),
        Row("vanilla", "vanilla multi-scale", f"{both} --scales vanilla", 0.8),
        Row("vanilla-both", "vanilla multi-scale, two schedules", f"{both} --scales vanilla", 0.8, 2),
        Row("single-high", "single scale H", "teacher --scales single", 0.6),
        Row("single-high-both", "single scale H, two schedules", "teacher --scales single", 0.6, 2),
        Row("single-low", "single scale L", f"{both} --scales single", 0.2),
        Row("plain-low", "vanilla L alone, two schedules", f"distill {alone} --unaligned", 0.2, 2, "teacher"),
        Row("scratch-low", "aligned L alone", f"distill {alone}", 0.3, 1, "teacher"),
        Row("scratch-both", "aligned L alone, two schedules", f"distill {alone}", 0.3, 2, "teacher"),
        # Of a teacher and a distilled student, 1.0 + 0.6, at 0.3 a schedule.
        Row("scratch-time", "aligned L alone, the time of both", f"distill {alone}", 0.3, 5, "teacher"),
        Row("init-only", "init-only L", f"distill --no-distill {taught}", 0.3, 1, "teacher"),
        *(Row(each, f"L by {each}", f"distill {taught} --method {each}", 0.6, 1, "teacher") for each in METHODS),
        Row("light-alone", "lighter L, init-only", f"distill --no-distill {taught} {light}", 0.25, 1, "teacher"),
        Row("light", f"lighter L by {method}", f"distill {taught} {best} {light}", 0.5, 1, "teacher"),
        Row("of-stronger", f"its student by {method}", f"distill {best} {scale.usual}", 0.9, 1, "stronger", "teacher"),
        Row("unaligned-alone", "unaligned, init-only", f"distill {taught} --unaligned --no-distill", 0.2, 1, "teacher"),
        Row("unaligned", f"unaligned, by {method}", f"distill {taught} {best} --unaligned", 0.5, 1, "teacher"),
    ]
    return {row.name: row for row in rows}


MAIN = (
    *("teacher", "vanilla", "vanilla-both", "single-high", "single-high-both", "single-low", "plain-low"),
    *("scratch-both", "scratch-time", "init-only", *METHODS, "light-alone", "light"),
)


def main() -> None:
    """Estimates, trains what is missing, writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--scale", choices=("cpu", "gpu"), default="gpu" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--k", type=int, choices=(2, 4), default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="rows trained side by side, with a thread each on a CPU")
    parser.add_argument("--rows", default=",".join(MAIN))
    parser.add_argument("--pictures", type=int, help="shown to every model in place of the scale's")
    parser.add_argument("--size", help="HR sides in place of the scale's")
    parser.add_argument("--minutes", type=float, help="train only the first rows, whose steps take so long")
    parser.add_argument("--detector", choices=tuple(DETECTORS))
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--estimate", action="store_true", help="say how many hours there are, and end")
    arguments = parser.parse_args()
    for name in ("seeds", "jobs", "pictures"):
        if (count := getattr(arguments, name)) is not None and count < 1:
            parser.error(f"--{name} {count}: at least 1")
    detector = arguments.detector or detector_for(arguments.set)
    out = arguments.out or Path(f"evidence-{arguments.set.resolve().name}{'' if arguments.k == 2 else '-k4'}")
    scale = scale_of(arguments.scale, detector)
    if arguments.size:
        scale = replace(scale, network=f"{scale.network} --size {arguments.size}")  # of two the last one counts
    known = rows_of(detector, scale, arguments.k)
    typed = arguments.rows.split(",")
    if unknown := set(typed) - set(known):
        parser.error(f"--rows {','.join(unknown)}: there are {', '.join(known)}")
    rows = in_order(typed, known)
    train = read(arguments.set, "train", detector)
    epochs = -(-(arguments.pictures or scale.images) // len(train))
    files = {row.name: [file_of(out, row, seed) for seed in range(arguments.seeds)] for row in known.values()}
    for row in known.values():
        refuse_others(filter(is_finished, files[row.name]), detector, arguments.k, epochs * row.schedules)
    runs = [(row, seed) for seed in range(arguments.seeds) for row in rows if not is_finished(files[row.name][seed])]
    if runs and not arguments.report:
        second = seconds_an_image(train, detector, scale, arguments.k)
        hours = [row.share * row.schedules * epochs * len(train) * second / 3600 / arguments.jobs for row, _ in runs]
        if arguments.minutes is not None:
            fit = first_within(hours, arguments.minutes / 60)
            left_out = ", ".join(f"{row.name}.{seed}" for row, seed in runs[fit:])
            print(f"left out for want of time: {left_out or 'nothing'}", flush=True)
            runs, hours = runs[:fit], hours[:fit]
        print(f"{len(runs)} models of {epochs} epochs, about {duration(3600 * sum(hours))}", flush=True)
        if arguments.estimate:
            return
        out.mkdir(parents=True, exist_ok=True)
        train_all(runs, arguments.jobs, lambda *run: train_row(arguments.set, out, detector, scale, epochs, *run))
    labels = {row.name: row.label for row in known.values()}
    val, claims = read(arguments.set, "val", detector), claims_for(methods_of(detector))
    print(write_report(out, files, labels, shlex.join(["python", *sys.argv]), val, claims, [row.name for row in rows]))


def detector_for(folder: Path) -> str:
    """The detector whose task a set's training annotations have."""
    for detector, key in (("keypointrcnn", "keypoints"), ("maskrcnn", "segmentation")):
        text = find_split(str(folder), "train", task=task_of(detector)).annotations.read_text(encoding="utf-8")
        if any(each.get(key) for each in json.loads(text)["annotations"]):
            return detector
    return "fcos"


def read(folder: Path, name: str, detector: str) -> CocoSplit:
    """A split of the set, with what the detector learns."""
    files = find_split(str(folder), name, task=task_of(detector))
    return read_split(files.annotations, files.images, task=task_of(detector))


def file_of(out: Path, row: Row, seed: int) -> Path:
    """Where a model is kept."""
    return out / f"{row.name}.{seed}.safetensors"


def refuse_others(models: Iterable[Path], detector: str, k: int, epochs: int) -> None:
    """Does nothing to models of this detector and k that were trained for so many epochs.

    Raises:
        UsageError: one is of another; its AP would stand in the wrong table.
    """
    for path in models:
        spec, card, _ = read_header(path)
        if spec.detector != detector or not {*spec.ks} <= {1, k}:
            raise UsageError(
                f"{path}: {spec.detector}, k = {max(spec.ks)}, not {detector}, k = {k}",
                "another --out",
                code="result-exists",
            )
        if card.epochs != epochs:
            raise UsageError(
                f"{path}: trained for {card.epochs} epochs, not {epochs}",
                "another --out, or --pictures",
                code="result-exists",
            )


def train_all(runs: list[Run], jobs: int, train: Callable[[Row, int], None]) -> None:
    """All models, so many side by side; a student waits for its teacher and its start, which were begun before it."""
    begun: dict[tuple[str, int], Future[None]] = {}

    def after_its_teacher(row: Row, seed: int) -> None:
        for name in (row.learns_from, row.starts_from):
            if needed := begun.get((name, seed)):
                needed.result()
        train(row, seed)

    with ThreadPoolExecutor(jobs) as pool:
        for row, seed in runs:
            begun[row.name, seed] = pool.submit(after_its_teacher, row, seed)


def train_row(data: Path, out: Path, detector: str, scale: Scale, epochs: int, row: Row, seed: int) -> None:
    """One model, from where it was left; its messages go to a log beside it."""
    file = file_of(out, row, seed)
    name, *own = row.command.split()
    if name == "teacher":
        own = ["--detector", detector, *scale.network.split(), *own]
    else:
        own += ["--teacher", str(out / f"{row.learns_from}.{seed}.safetensors")]
        own += ["--init", str(out / f"{row.starts_from}.{seed}.safetensors")] if row.starts_from else []
    length = epochs * row.schedules
    command = [name, "--data", str(data), *own, *scale.schedule.split(), "--epochs", str(length), "--seed", str(seed)]
    # The last epoch, not the best: choosing by the split that is reported would favour rows with noisier curves.
    command += ["--eval-every", str(-(-epochs // 6)), "--keep", "last", "--out", str(file)]
    command += ["--resume"] if RunFolder(file).resumable else ["--overwrite"]
    start = time.monotonic()
    with file.with_suffix(".log").open("a") as log:
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        subprocess.run(
            [sys.executable, "-m", "msad_cli", *command], stdout=log, stderr=log, check=False, env=environment
        )
    result = f"{(time.monotonic() - start) / 60:.0f} minutes" if is_finished(file) else "failed, see its log"
    print(f"{file.stem}: {result}", flush=True)


def first_within(lengths: Iterable[float], limit: float) -> int:
    """How many of the first fit into a limit, one after the other."""
    return sum(1 for reached in itertools.accumulate(lengths) if reached <= limit)


def in_order(names: Iterable[str], known: Mapping[str, Row]) -> list[Row]:
    """These rows, each behind those of them that it learns from and starts from."""
    wanted = list(names)
    chained = [each for name in wanted for each in (known[name].learns_from, known[name].starts_from, name)]
    return [known[name] for name in dict.fromkeys(chained) if name in wanted]


def seconds_an_image(train: CocoSplit, detector: str, scale: Scale, k: int) -> float:
    """Of an aligned teacher's steps on the set's own images, loading included.

    Raises:
        UsageError: no step could be timed.
    """
    words = scale.network.split()
    given = dict(zip(words[::2], words[1::2], strict=True))
    words = scale.schedule.split()
    asked = dict(zip(words[::2], words[1::2], strict=True))
    with invalid_values_named("choose another --k or --detector"):
        spec = DetectorSpec(
            "teacher",
            detector,
            given["--backbone"],
            float(given.get("--width", 1.0)),
            int(given.get("--head-channels", 256)),
            int(given.get("--head-convs", 4)),
            choose_norm("auto", "none", detector).value,
            "aligned",
            (1, k),
            parse_size(given.get("--size", "800,1333")),
            learning=Learning(int(given.get("--rois", 512))),
            **fields_from_data(train, None)[0],
        )
    workers = int(asked["--workers"]) if "--workers" in asked else None
    choices = choose(TeacherConfig(batch=int(asked["--batch"]), workers=workers), len(train), detector)
    model = Detector(spec)
    pace = pace_of(AlignedTraining(model), model, TrainingSet(train, spec.resolution, spec.ks, seed=0), choices)
    if pace is None:
        raise UsageError(
            f"{train.file}: no step could be timed: no image can be read, or memory is too small",
            "a smaller --size, or msad data check",
            code="pace-unknown",
        )
    del model
    if choices.compute.device.type == "cuda":
        torch.cuda.empty_cache()  # for the trainings, which are processes of their own
    return pace.step / choices.batch


if __name__ == "__main__":
    told(main)
