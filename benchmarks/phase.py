"""Low views by an ordinary resize, and at the phase of the HR grid: AP and AP75 of teachers and students over seeds.

    python benchmarks/phase.py SET [--out DIR] [--k 4] [--seeds 0,1,2] [--phases centre,grid] [--epochs 8,3] [FLAGS]

Of each seed and phase a teacher is trained, and from its weights a student by the default method; `--epochs` are those
of both. Other FLAGS replace those of the network (`NETWORK`). A model that is in DIR is not trained again: an
interrupted table goes on, and phases and seeds can be trained by several calls. The table has all that is there.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from mistakes import told

from msad_cli.models.model_file import read_header

NETWORK = "--init none --backbone resnet18 --width 0.5 --head-channels 64 --head-convs 2 --size 128,171"
SCHEDULE = "--batch 8 --lr 0.02 --decay cosine --workers 0"
ONE = """
import sys
from msad_cli.cli.app import main
from msad_cli.training import plan
plan.NEW_PHASE = sys.argv.pop(1)
main()
"""
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
    print(table(arguments.out, arguments.k))


def train(arguments: argparse.Namespace, network: list[str], phase: str, seed: str) -> None:
    """A teacher and its student, unless their files are there."""
    teacher, student = (
        arguments.out / f"{role}.k{arguments.k}.{phase}.{seed}.safetensors" for role in ("teacher", "student")
    )
    for_teacher, for_student = arguments.epochs.split(",")
    shared = ["--data", str(arguments.set), *SCHEDULE.split(), "--seed", seed, "--overwrite"]
    runs = {
        teacher: ["teacher", *network, "--k", arguments.k, "--epochs", for_teacher, "--eval-every", for_teacher],
        student: ["distill", "--teacher", str(teacher), "--epochs", for_student, "--eval-every", for_student],
    }
    for file, words in runs.items():
        if not file.exists():
            command = [sys.executable, "-c", ONE, phase, *words, *shared, "--out", str(file)]
            subprocess.run(command, check=True)


def table(out: Path, k: str) -> str:
    """AP and AP75 by phase, each the mean of all seeds that are there, and the mean difference within seeds."""
    rows = ["| measure | view | centre | grid | grid − centre, by seed | mean ± sd |", "|---|---|---|---|---|---|"]
    for measure in ("AP", "AP75"):
        for view in VIEWS:
            of = {phase: scores(out, k, phase, view, measure) for phase in ("centre", "grid")}
            seeds = sorted(of["centre"].keys() & of["grid"].keys())
            if not seeds:
                continue
            differences = [of["grid"][seed] - of["centre"][seed] for seed in seeds]
            means = [f"{statistics.mean(of[phase][seed] for seed in seeds):.1f}" for phase in ("centre", "grid")]
            spread = f" ± {statistics.stdev(differences):.1f}" if len(seeds) > 1 else ""
            words = ", ".join(f"{each:+.1f}" for each in differences)
            rows.append(
                f"| {measure} | {view} | {' | '.join(means)} | {words} | {statistics.mean(differences):+.1f}{spread} |"
            )
    return "\n".join(rows)


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
