"""Every distillation method on one set: AP over seeds beside the students that learn without a teacher, and its cost.

    python benchmarks/methods.py teacher.safetensors FOLDER [--methods l1,pkd] [--seeds 0,1,2] [--jobs 2] [FLAGS]

Other FLAGS go to every `msad distill`, such as `--epochs 12 --batch 8 --lr 0.02`. All students start from the teacher's
weights and have one schedule, whose last epoch counts. What is finished in FOLDER is not repeated: a table goes on.
FOLDER/methods.md is the table; the time of a step is measured afterwards, every method in turn, without an update.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from evidence_report import is_finished, metrics, spread
from mistakes import told

from msad_cli.data.annotations.split import read_split
from msad_cli.data.layouts.splits import find_split
from msad_cli.data.loading.augment import ONE_SCALE
from msad_cli.data.loading.dataset import TrainingSet, training_loader
from msad_cli.distillation.distillation import Distillation, teaching
from msad_cli.distillation.losses.table import DISTILLERS, build_distillers
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import load_model
from msad_cli.models.spec import usual_divisor
from msad_cli.system.device import Compute

ROUNDS = 7


def main() -> None:
    """Trains what is missing, times the steps, prints and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("teacher", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", default=",".join(DISTILLERS))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--jobs", type=int, default=1)
    arguments, flags = parser.parse_known_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rows = list(wanted(arguments.methods.split(","), load_model(arguments.teacher)[0].spec.dense))
    runs = [(*row, int(seed)) for seed in arguments.seeds.split(",") for row in rows]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda run: train(arguments.teacher, arguments.folder, flags, *run), runs))
    seconds = step_seconds(arguments.teacher, rows)
    table = as_table(arguments.folder, rows, seconds)
    print(table)
    (arguments.folder / "methods.md").write_text(table, encoding="utf-8")


def wanted(methods: list[str], dense: bool) -> Iterator[tuple[str, bool]]:
    """(method, aligned) of every row; `none` learns from the objects alone."""
    for method in ("none", *methods):
        for aligned in (True, False):
            # Two-stage detectors answer about regions, and on one grid alone.
            if dense or (method != "crosskd" and (aligned or method != "output-kd")):
                yield method, aligned


def model_file(folder: Path, method: str, aligned: bool, seed: int) -> Path:
    """Where a run's student is kept."""
    return folder / f"{method}.{'aligned' if aligned else 'unaligned'}.{seed}.safetensors"


def train(teacher: Path, folder: Path, flags: list[str], method: str, aligned: bool, seed: int) -> None:
    """One student, unless it is there; its messages go to a log beside it."""
    out = model_file(folder, method, aligned, seed)
    if is_finished(out):
        return
    learns = ["--no-distill", "--init", "teacher"] if method == "none" else ["--method", method, "--init", "teacher"]
    grid = [] if aligned else ["--unaligned"]
    command = ["distill", "--teacher", str(teacher), *learns, *grid, "--keep", "last", *flags]
    command += ["--seed", str(seed), "--out", str(out)]
    with out.with_suffix(".log").open("w") as log:
        subprocess.run(
            [sys.executable, "-m", "msad_cli", *command, "--overwrite"],
            stdout=log,
            stderr=log,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    print(f"{out.name}: {'done' if is_finished(out) else 'failed, see its log'}", flush=True)


def step_seconds(teacher: Path, rows: list[tuple[str, bool]]) -> dict[tuple[str, bool], float]:
    """Median seconds of forward and backward passes of one batch, the rows taking turns."""
    master, card = load_model(teacher)
    spec = master.spec
    files = find_split(card.data, "train", task=spec.task)
    split = read_split(files.annotations, files.images, spec.categories, spec.task, spec.keypoints)
    training = TrainingSet(split, spec.resolution, spec.ks, seed=0, phase=spec.phase, augmentation=ONE_SCALE)
    batch = next(iter(training_loader(training, 4, 0, 0, 1)))
    compute = Compute(torch.device("cpu"), "bf16")
    modules = {}
    for method, aligned in rows:
        own = replace(spec, role="student", ks=spec.ks[-1:])
        if not aligned:
            own = replace(own, scales="single", divisor=usual_divisor("single", own.ks))
        student = Detector(own)
        distillers = build_distillers(student.spec, spec, {} if method == "none" else {method: 1.0})
        teach = None if method == "none" else teaching(master, student)
        modules[method, aligned] = Distillation(student, teach, distillers, 1).train()
    taken: dict[tuple[str, bool], list[float]] = {row: [] for row in rows}
    for number in range(ROUNDS):
        for row, module in modules.items():
            start = time.perf_counter()
            with compute.autocast():
                losses = module(batch.views, batch.targets)
            torch.stack(list(losses.values())).sum().backward()
            if number:  # the first round warms up
                taken[row].append(time.perf_counter() - start)
    return {row: statistics.median(each) for row, each in taken.items()}


def as_table(folder: Path, rows: list[tuple[str, bool]], seconds: dict[tuple[str, bool], float]) -> str:
    """Markdown: mean ± deviation over seeds, gain over the plain detector of the small image, time beside its step."""
    found = {row: list(scores(folder, *row)) for row in rows}
    plain = found["none", False]
    base = statistics.mean(each["AP"] for each in plain) if plain else float("nan")
    lines = ["| method | grid | seeds | AP | APs | gain over vanilla L | step : vanilla L |", "|" + "---|" * 7]
    for (method, aligned), each in found.items():
        if not each:
            continue
        aps, small = ([numbers[name] for numbers in each] for name in ("AP", "APs"))
        share = seconds[method, aligned] / seconds["none", False]
        lines.append(
            f"| {method} | {'aligned' if aligned else 'own'} | {len(each)} | {spread(aps)} | {spread(small)} | "
            f"{statistics.mean(aps) - base:+.1f} | {share:.2f} |"
        )
    return "\n".join(lines) + "\n"


def scores(folder: Path, method: str, aligned: bool) -> Iterator[dict[str, float]]:
    """The numbers of every seed that is done, in AP points."""
    for path in sorted(folder.glob(model_file(folder, method, aligned, 0).name.replace(".0.", ".*."))):
        numbers = next(iter(metrics(path).values()))
        yield {name: 100 * (numbers[name] or 0.0) for name in ("AP", "APs")}


if __name__ == "__main__":
    told(main)
