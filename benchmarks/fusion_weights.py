"""What C-FF weighs: the share of each view at each level, on images of small and of large objects.

    python benchmarks/fusion_weights.py teacher.safetensors [--data DIR] [--out weights.png]

The images of the validation split are ordered by the median side of their objects in HR pixels; the first and the
last third are compared. The paper says that C-FF takes more of the large image where objects are small.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mistakes import told
from numpy.typing import NDArray

from msad_cli.data.annotations.split import CocoSplit, read_split
from msad_cli.data.layouts.splits import find_split
from msad_cli.data.loading.dataset import EvaluationSet
from msad_cli.evaluation.fusion_weights import fusion_weights
from msad_cli.frame import Resolution
from msad_cli.models.model_file import load_model
from msad_cli.system.device import Compute


def main() -> None:
    """Weighs, prints a table, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--out", type=Path, default=Path("fusion_weights.png"))
    arguments = parser.parse_args()
    detector, card = load_model(arguments.teacher)
    spec = detector.spec
    files = find_split(arguments.data or card.data, "val", task=spec.task)
    split = read_split(files.annotations, files.images, spec.categories, spec.task, spec.keypoints)
    order = np.argsort(median_sides(split, spec.resolution))
    order = order[~np.isnan(median_sides(split, spec.resolution)[order])]
    third = len(order) // 3
    weights = fusion_weights(detector, split, Compute(torch.device("cpu"), "fp32"))
    means = {
        "small objects": weights[order[:third]].mean(axis=0),
        "large objects": weights[order[-third:]].mean(axis=0),
    }
    for name, of in means.items():
        rows = "  ".join(f"P{spec.finest_level + i}: {' '.join(f'{w:.3f}' for w in each)}" for i, each in enumerate(of))
        print(f"{name:14} weight of k = {', '.join(map(str, spec.ks))} at {rows}")
    draw(means, spec.finest_level, spec.ks, arguments.out)


def median_sides(split: CocoSplit, resolution: Resolution) -> NDArray[np.float64]:
    """(I,) median of √(width × height) of an image's boxes, in HR pixels; NaN without boxes."""
    images = EvaluationSet(split, resolution, (1,))
    medians = np.full(len(split), np.nan)
    for i in range(len(split)):
        boxes = split.boxes[split.starts[i] : split.starts[i + 1]]
        if len(boxes):
            sample = images[i]
            scale = sample.frame_size[0] / sample.original[0]
            medians[i] = np.median(np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))) * scale
    return medians


def draw(means: dict[str, NDArray[np.float64]], finest: int, ks: tuple[int, ...], path: Path) -> None:
    """One group of bars a level: the large image's weight on either kind of image."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = FigureCanvasAgg(figure).figure.add_subplot()
    for number, (name, of) in enumerate(means.items()):
        places = np.arange(len(of)) + 0.4 * number - 0.2
        axes.bar(places, of[:, 0], width=0.38, label=name)
    axes.axhline(1 / len(ks), color="grey", linewidth=0.8, linestyle="--")
    axes.set_xticks(range(len(next(iter(means.values())))), [f"P{finest + i}" for i in range(5)])
    axes.set_ylabel("weight of the large image")
    axes.set_ylim(0, 1)
    axes.legend()
    figure.savefig(path, dpi=120)
    print(f"drawn: {path}")


if __name__ == "__main__":
    told(main)
