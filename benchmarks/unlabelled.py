"""Few labels and many images: what a student learns with and without the images that nobody has labelled.

    python benchmarks/unlabelled.py SET [--out DIR] [--part 4] [--k 2] [--seeds 0,1,2] [--epochs 24,24] [--shares 0.5]
        [FLAGS]

Of each seed one image in `--part` of the training split keeps its labels. On these a teacher is trained, and a student
alone for the steps of both. Then, in the same number of steps and with batches of the same size: a student alone, one
that starts from the teacher's weights and learns from labels only, one that is distilled on the labelled images, and
for each of `--shares` one that is distilled with as much of each batch from the rest of the training split. `--epochs`
are those of teacher and students, counted on batches of labelled images. Other FLAGS replace those of the network
(`NETWORK`). A model that is in DIR is not trained again: an interrupted table goes on, and seeds can be trained by
several calls. The table has all that is there: AP on the validation split after the last epoch.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
from pathlib import Path

from mistakes import told

from msad_cli.data.layouts.splits import find_split
from msad_cli.models.model_file import read_header

NETWORK = "--init none --backbone resnet18 --width 0.5 --head-channels 64 --head-convs 2 --size 128,171"
BATCH = 8
SCHEDULE = "--lr 0.02 --ema 0 --decay cosine --workers 0"
"""Without averaged weights: over 200 steps they would be some of half-learnt ones."""
ALONE, BOTH, INIT, LABELLED = "alone", "alone-both", "init-only", "labelled"
WORDS = {
    "teacher": "teacher, its best view",
    ALONE: "student alone",
    BOTH: "student alone, for the teacher's steps too",
    INIT: "student from the teacher's weights, labels only",
    LABELLED: "distilled on the labelled images",
}


def main() -> None:
    """Trains what is missing, prints the table of all that is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("set", type=Path)
    parser.add_argument("--out", type=Path, default=Path("unlabelled"))
    parser.add_argument("--part", type=int, default=4)
    parser.add_argument("--k", default="2")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", default="24,24")
    parser.add_argument("--shares", default="0.5")
    arguments, flags = parser.parse_known_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in filter(None, arguments.seeds.split(",")):
        train(arguments, flags or NETWORK.split(), seed)
    print(table(arguments.out, arguments.k))


def train(arguments: argparse.Namespace, network: list[str], seed: str) -> None:
    """A teacher and its students, unless their files are there."""
    files, other = (find_split(str(arguments.set), name) for name in ("train", "val"))
    labelled, images = labels_of_part(files.annotations, arguments.out, arguments.part, seed)
    places = {"train-json": labelled, "train-images": files.images}
    places |= {"val-json": other.annotations, "val-images": other.images}
    shared = [f"--{name}={place}" for name, place in places.items()]
    shared += ["--batch", str(BATCH), *SCHEDULE.split(), "--seed", seed, "--overwrite"]
    of_teacher, of_student = map(int, arguments.epochs.split(","))
    teacher = model(arguments.out, "teacher", arguments.k, seed)
    runs = {"teacher": ["teacher", *network, "--k", arguments.k, *of_epochs(of_teacher)]}
    student = ["distill", "--teacher", str(teacher), "--k", arguments.k]
    runs[ALONE] = [*student, "--no-distill", "--init", "none", *of_epochs(of_student)]
    runs[BOTH] = [*student, "--no-distill", "--init", "none", *of_epochs(of_teacher + of_student)]
    runs[INIT] = [*student, "--no-distill", "--init", "teacher", *of_epochs(of_student)]
    runs[LABELLED] = [*student, "--init", "teacher", *of_epochs(of_student)]
    for share in filter(None, arguments.shares.split(",")):
        # An epoch is one of the labelled images: with fewer of them in a batch it has more steps.
        steps, beside = of_student * (images // BATCH), BATCH - round(float(share) * BATCH)
        epochs = of_epochs(max(1, round(steps / (images // beside))))
        mixed = ["--unlabelled", str(files.images), "--unlabelled-share", share]
        runs[f"share-{share}"] = [*student, "--init", "teacher", *mixed, *epochs]
    for name, words in runs.items():
        out = model(arguments.out, name, arguments.k, seed)
        if not out.exists():
            subprocess.run([sys.executable, "-m", "msad_cli", *words, *shared, "--out", str(out)], check=True)


def of_epochs(epochs: int) -> list[str]:
    """Flags of a run that is evaluated at its end alone: no epoch is chosen by the images that measure it."""
    return ["--epochs", str(epochs), "--eval-every", str(epochs)]


def model(out: Path, name: str, k: str, seed: str) -> Path:
    """The file of a row's model."""
    return out / f"{name}.k{k}.seed{seed}.safetensors"


def labels_of_part(file: Path, out: Path, part: int, seed: str) -> tuple[Path, int]:
    """An annotation file of one image in `part`, drawn by the seed, and how many images it has."""
    document = json.loads(file.read_text())
    ids = sorted(each["id"] for each in document["images"])
    kept = set(random.Random(seed).sample(ids, round(len(ids) / part)))
    document["images"] = [each for each in document["images"] if each["id"] in kept]
    document["annotations"] = [each for each in document["annotations"] if each["image_id"] in kept]
    labelled = out / f"labelled.part{part}.seed{seed}.json"
    labelled.write_text(json.dumps(document))
    return labelled, len(kept)


def table(out: Path, k: str) -> str:
    """AP of each row by seed, its mean, and what it has over distillation on the labelled images, by seed."""
    names = list(WORDS) + sorted({each.name.split(".k")[0] for each in out.glob(f"share-*.k{k}.*.safetensors")})
    found = {name: scores(out, name, k) for name in names}
    seeds = sorted({seed for each in found.values() for seed in each})
    rows = [
        f"| | {' | '.join(f'seed {seed}' for seed in seeds)} | mean | against labelled, by seed |",
        "|---" * (len(seeds) + 3) + "|",
    ]
    for name, each in found.items():
        if not each:
            continue
        values = " | ".join(f"{each[seed]:.1f}" if seed in each else "–" for seed in seeds)
        beside = found[LABELLED]
        apart = ", ".join(f"{each[seed] - beside[seed]:+.1f}" for seed in seeds if seed in each and seed in beside)
        words = WORDS.get(name, f"distilled, {name.removeprefix('share-')} of each batch unlabelled")
        against = "" if name in ("teacher", LABELLED) else apart
        rows.append(f"| {words} | {values} | {statistics.mean(each.values()):.1f} | {against} |")
    return "\n".join(rows)


def scores(out: Path, name: str, k: str) -> dict[str, float]:
    """By seed, 100 × AP of a row's model, of its best view."""
    found = {}
    for file in out.glob(f"{name}.k{k}.seed*.safetensors"):
        known = [each["AP"] for each in (read_header(file)[1].scores or {}).values()]
        found[file.stem.rsplit("seed", 1)[1]] = max(100 * ap for ap in known if ap is not None)
    return found


if __name__ == "__main__":
    told(main)
