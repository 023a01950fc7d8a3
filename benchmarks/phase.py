"""Low views by an ordinary resize, and at the phase of the HR grid: what teachers and students have over seeds.

    python benchmarks/phase.py SET [--out DIR] [--k 4] [--seeds 0,1,2] [--phases centre,grid] [--epochs 8,3] [FLAGS]

Of each seed and phase a teacher is trained, and from its weights a student by the default method; `--epochs` are those
of both. Other FLAGS replace those of the network (`NETWORK`). A model that is in DIR is not trained again: an
interrupted table goes on, and phases and seeds can be trained by several calls. The table has all that is there: AP and
AP75 of every view, and the teachers' detection losses on the validation images, which vary less.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from mistakes import told

from msad_cli.data.annotations.split import read_split
from msad_cli.data.layouts.splits import find_split
from msad_cli.data.loading.augment import ONE_SCALE
from msad_cli.data.loading.dataset import TrainingSet, training_loader
from msad_cli.distillation.aligned_teacher import view_pyramids
from msad_cli.models.model_file import load_model, read_header

NETWORK = "--init none --backbone resnet18 --width 0.5 --head-channels 64 --head-convs 2 --size 128,171"
SCHEDULE = "--batch 8 --lr 0.02 --decay cosine --workers 0"
PHASES = ("centre", "grid")
VIEWS = ("fused", "high", "low", "student")


def main() -> None:
    """Trains what is missing, prints the table of all that is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("set", type=Path)
    parser.add_argument("--out", type=Path, default=Path("phase"))
    parser.add_argument("--k", default="4")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--phases", default="centre,grid")
    parser.add_argument("--epochs", default="8,3")
    arguments, flags = parser.parse_known_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in filter(None, arguments.seeds.split(",")):
        for phase in arguments.phases.split(","):
            train(arguments, flags or NETWORK.split(), phase, seed)
    print(table(arguments.out, arguments.set, arguments.k))


def train(arguments: argparse.Namespace, network: list[str], phase: str, seed: str) -> None:
    """A teacher and its student, unless their files are there."""
    teacher, student = (
        arguments.out / f"{role}.k{arguments.k}.{phase}.{seed}.safetensors" for role in ("teacher", "student")
    )
    for_teacher, for_student = arguments.epochs.split(",")
    shared = ["--data", str(arguments.set), *SCHEDULE.split(), "--seed", seed, "--overwrite"]
    runs = {
        teacher: [
            "teacher",
            *network,
            "--phase",
            phase,
            "--k",
            arguments.k,
            "--epochs",
            for_teacher,
            "--eval-every",
            for_teacher,
        ],
        student: ["distill", "--teacher", str(teacher), "--epochs", for_student, "--eval-every", for_student],
    }
    for file, words in runs.items():
        if not file.exists():
            command = [sys.executable, "-m", "msad_cli", *words, *shared, "--out", str(file)]
            subprocess.run(command, check=True)


def table(out: Path, folder: Path, k: str) -> str:
    """What was measured by phase, medians of the seeds that are there, and differences within seeds.

    Medians, because a training may fail to start, which says nothing of phases.
    """
    lost = {phase: losses(out, folder, k, phase) for phase in PHASES}
    rows = ["| measure | view | centre | grid | grid − centre, by seed | median |", "|---|---|---|---|---|---|"]
    for view in VIEWS:
        for measure in ("AP", "AP75"):
            of = {phase: scores(out, k, phase, view, measure) for phase in PHASES}
            rows += row(measure, view, of, ".1f")
    for view in VIEWS[:3]:
        rows += row("loss", view, {phase: lost[phase][view] for phase in PHASES}, ".4f")
    return "\n".join(rows)


def row(measure: str, view: str, of: dict[str, dict[str, float]], form: str) -> list[str]:
    """A row of the table, of the seeds that both phases have; nothing where there are none."""
    seeds = sorted(of["centre"].keys() & of["grid"].keys())
    if not seeds:
        return []
    differences = [of["grid"][seed] - of["centre"][seed] for seed in seeds]
    medians = " | ".join(f"{statistics.median(of[phase][seed] for seed in seeds):{form}}" for phase in PHASES)
    words = ", ".join(f"{each:+{form}}" for each in differences)
    return [f"| {measure} | {view} | {medians} | {words} | {statistics.median(differences):+{form}} |"]


def losses(out: Path, folder: Path, k: str, phase: str) -> dict[str, dict[str, float]]:
    """By view and seed, the sum of a teacher's detection losses, the mean over batches of the validation images."""
    files = find_split(str(folder), "val")
    split = read_split(files.annotations, files.images)
    found: dict[str, dict[str, float]] = {view: {} for view in VIEWS[:3]}
    for file in out.glob(f"teacher.k{k}.{phase}.*.safetensors"):
        teacher = load_model(file)[0]
        spec = teacher.spec
        data = TrainingSet(split, spec.resolution, spec.ks, seed=0, phase=spec.phase, augmentation=ONE_SCALE)
        loader = training_loader(data, 8, 0, 0, len(split) // 8)
        batches = []
        with torch.inference_mode():
            for batch in loader:
                pyramids, frame = view_pyramids(teacher, batch.views)
                every = teacher.losses_of_views([*pyramids, teacher.fuse(pyramids)], frame, batch.targets)
                batches.append([sum(loss.item() for loss in each.values()) for each in every])
        for view, values in zip(("high", "low", "fused"), zip(*batches, strict=True), strict=True):
            found[view][file.stem.rsplit(".", 1)[1]] = statistics.mean(values)
    return found


def scores(out: Path, k: str, phase: str, view: str, measure: str) -> dict[str, float]:
    """By seed, 100 × a measure of a view of the teacher, or of the student."""
    role, of = ("student", "low") if view == "student" else ("teacher", view)
    found = {}
    for file in out.glob(f"{role}.k{k}.{phase}.*.safetensors"):
        known = (read_header(file)[1].scores or {})[of][measure]
        if known is not None:
            found[file.stem.rsplit(".", 1)[1]] = 100 * known
    return found


if __name__ == "__main__":
    told(main)
