"""CPU time of a training sample by how its image is changed, the ways taking turns, in one thread.

    python benchmarks/augmentation.py SET [--size 256,340] [--images 40] [--rounds 5]

Prints for each way the median over rounds of the milliseconds that a sample at k = 1 and 2 takes, decoding included.
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from mistakes import told

from msad_cli.data.annotations.split import read_split
from msad_cli.data.layouts.splits import find_split
from msad_cli.data.loading.augment import LEVELS
from msad_cli.data.loading.dataset import TrainingSet
from msad_cli.text import parse_size

LIGHT, STRONG = LEVELS["light"], LEVELS["strong"]
WAYS = {
    "light": LIGHT,
    "zoom": replace(LIGHT, jitter=False, zoom=STRONG.zoom),
    "mosaic": replace(LIGHT, mosaic=STRONG.mosaic),
    "photo": replace(LIGHT, photo=STRONG.photo),
    "strong": STRONG,
}


def main() -> None:
    """Times and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("--size", default="256,340")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    files = find_split(str(arguments.set), "train")
    split, resolution = read_split(files.annotations, files.images), parse_size(arguments.size)
    sets = {name: TrainingSet(split, resolution, (1, 2), 0, each) for name, each in WAYS.items()}
    images = min(arguments.images, len(split))
    taken: dict[str, list[float]] = {name: [] for name in sets}
    for epoch in range(arguments.rounds):
        for name, data in sets.items():
            start = time.process_time()
            for index in range(images):
                data[epoch, index]
            taken[name].append(1000 * (time.process_time() - start) / images)
    print("  ".join(f"{name} {statistics.median(each):.1f} ms" for name, each in taken.items()))


if __name__ == "__main__":
    told(main)
