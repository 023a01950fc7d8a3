"""One factor at a time: AP over seeds of one training with each of several flags, beside the training without them.

    python benchmarks/factors.py SET [--out DIR] [--seeds 0,1,2] [--flags="--mosaic 0.5"]… [FLAGS]

FLAGS are those of every `msad teacher`, such as `--scales alone --k 2 --epochs 36`; each `--flags` is a row that has
these too. AP is that of the last epoch on the validation split, of the best view: no epoch is chosen by the images that
measure it. A model that is in DIR is not trained again, so that an interrupted table goes on. A row gains where its
mean is ahead by more than the standard deviation that the training without flags has over its seeds.
"""

import argparse
import re
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

from evidence_report import is_finished
from mistakes import told

from msad_cli.models.model_file import read_header

WITHOUT = "none"
"""The row that the others are measured against."""


def main() -> None:
    """Trains what is missing, seed by seed, prints the table of all that is there after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("set", type=Path)
    parser.add_argument("--out", type=Path, default=Path("factors"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--flags", action="append", default=[])
    arguments, shared = parser.parse_known_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    seeds = arguments.seeds.split(",")
    for seed in seeds:
        for row in (WITHOUT, *arguments.flags):
            out = file_of(arguments.out, row, seed)
            if not is_finished(out):
                own = [] if row == WITHOUT else shlex.split(row)
                places = ["--data", str(arguments.set), "--seed", seed, "--out", str(out), "--overwrite"]
                words = ["teacher", *shared, *own, *places, "--keep", "last"]
                subprocess.run([sys.executable, "-m", "msad_cli", *words], check=True)
        print(table({row: aps(arguments.out, row, seeds) for row in (WITHOUT, *arguments.flags)}, seeds), flush=True)


def file_of(out: Path, row: str, seed: str) -> Path:
    """Where a row's model is kept."""
    return out / f"{re.sub(r'[^0-9a-z.]+', '-', row.lower()).strip('-')}.seed{seed}.safetensors"


def aps(out: Path, row: str, seeds: list[str]) -> dict[str, float]:
    """By seed, AP from 0 to 100 of the models that are there."""
    files = {seed: file_of(out, row, seed) for seed in seeds}
    known = {seed: read_header(file)[1].scores or {} for seed, file in files.items() if is_finished(file)}
    return {seed: max(100 * (each["AP"] or 0.0) for each in views.values()) for seed, views in known.items()}


def table(found: dict[str, dict[str, float]], seeds: list[str]) -> str:
    """Markdown: AP of each row by seed, the mean, and its difference to the first by the seeds that both have."""
    rows = [
        f"| FLAGS | {' | '.join(f'seed {seed}' for seed in seeds)} | mean ± sd | against none |",
        "|---" * (len(seeds) + 3) + "|",
    ]
    for row, each in found.items():
        if not each:
            continue
        values = " | ".join(f"{each[seed]:.1f}" if seed in each else "–" for seed in seeds)
        spread = f" ± {statistics.stdev(each.values()):.1f}" if len(each) > 1 else ""
        apart = [each[seed] - found[WITHOUT][seed] for seed in each if seed in found[WITHOUT]]
        against = f"{statistics.mean(apart):+.1f}" if apart and row != WITHOUT else ""
        rows.append(f"| `{row}` | {values} | {statistics.mean(each.values()):.1f}{spread} | {against} |")
    return "\n".join(rows)


if __name__ == "__main__":
    told(main)
