"""Milliseconds from a JPEG to its views, decoded whole and no larger than the views need; and how far they differ.

    python benchmarks/decode.py [FILE|DIR …] [--size 256,456] [--k 2] [--rounds 5] [--pictures 20] [--margin 1.5]

Without a file, a drawn image of 4000×3000 pixels. The two ways take turns, image by image. The difference is that
of a view's values (0 to 255) from those of the same view of the image that was decoded whole.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image, features

from msad_cli.data.images import scaled
from msad_cli.data.images.decode import read_image
from msad_cli.data.images.scaled import ScaledImage, open_image, scale_for, whole_image
from msad_cli.data.loading.transforms import render
from msad_cli.frame import Resolution
from msad_cli.inference.inputs import find_inputs
from msad_cli.text import parse_ks, parse_size


def main() -> None:
    """Takes the times in turn, prints their medians and the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*")
    parser.add_argument("--size", default="256,456")
    parser.add_argument("--k", default="2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--margin", type=float, default=scaled.MARGIN, help="the least ratio of sides, decoded to view")
    arguments = parser.parse_args()
    scaled.MARGIN = arguments.margin
    resolution, ks = parse_size(arguments.size), parse_ks("--k", arguments.k)
    ways: dict[str, Any] = {
        "whole": lambda path: whole_image(read_image(path)),
        "scaled": open_image,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        inputs = arguments.inputs or [str(draw(Path(folder)))]
        paths = [each.path for each in find_inputs(inputs)][: arguments.pictures]
        for path in paths * arguments.rounds:
            for name, way in ways.items():
                began = time.perf_counter()
                views(way(path), resolution, ks)
                seconds[name].append(time.perf_counter() - began)
        differences = np.concatenate([difference(path, resolution, ks) for path in paths])
        image = open_image(paths[0])
        height, width = resolution.frame_size(*image.size)
        scales = [f"1/{scale_for(image.header, (height // k, width // k))} for k = {k}" for k in ks]
    print(f"Pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}, {vars(arguments)}")
    print(f"{len(paths)} images, the first of {image.size[1]}×{image.size[0]} pixels: {', '.join(scales)}")
    medians = {name: 1000 * statistics.median(each) for name, each in seconds.items()}
    for name, median in medians.items():
        print(f"{name:8}{median:8.2f} ms  {median / medians['whole']:5.2f}")
    print(f"difference: {differences.mean():.2f} of 255 on average, 99% under {np.quantile(differences, 0.99):.0f}")


def views(image: ScaledImage, resolution: Resolution, ks: tuple[int, ...]) -> list[torch.Tensor]:
    """The views of an image, (3, h/k, w/k) each."""
    return [render(image, resolution.frame_size(*image.size), k) for k in ks]


def difference(path: Path, resolution: Resolution, ks: tuple[int, ...]) -> NDArray[np.int32]:
    """Of every value of an image's views, how far the two ways are apart."""
    images = open_image(path), whole_image(read_image(path))
    pairs = zip(*(views(image, resolution, ks) for image in images), strict=True)
    return np.concatenate([(one.int() - other.int()).abs().flatten().numpy() for one, other in pairs])


def draw(folder: Path) -> Path:
    """A JPEG of 4000×3000 pixels: waves from coarse to fine, and noise."""
    y, x = np.mgrid[0:3000, 0:4000]
    waves = [np.sin(x / 37 + y / 91), np.sin(x / 11) * np.cos(y / 17), np.sin(x * y / 90_000)]
    noise = np.random.default_rng(0).normal(0, 8, (3000, 4000, 3))
    pixels = 127 + 100 * np.stack(waves, axis=2) + noise
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "drawn.jpg", quality=90)
    return folder / "drawn.jpg"


if __name__ == "__main__":
    main()
