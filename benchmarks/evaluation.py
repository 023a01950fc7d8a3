"""Seconds of an evaluation of boxes by hotcoco beside pycocotools, interleaved in one run, and how far they differ.

    python benchmarks/evaluation.py [--pictures 5000] [--objects 36000] [--detections 200000] [--rounds 3]

The set is drawn with a seed: as many classes as COCO has, crowds among the objects, three detections of five near an
object. What is timed is all that `msad eval` does once the detections are there, loading included. Absolute times
belong to the machine and to what else runs on it; compare rows of one run only.
"""

import argparse
import statistics
import time
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msad_cli.evaluation.metrics import Result, Scores, score
from msad_cli.system.extras import EVALUATORS

CATEGORIES = 80


def main() -> None:
    """Draws, evaluates in turn, prints medians, their ratio and the largest difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--objects", type=int, default=36_000)
    parser.add_argument("--detections", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    truth, results = draw(arguments.pictures, arguments.objects, arguments.detections)
    seconds: dict[str, list[float]] = {each: [] for each in EVALUATORS}
    said: dict[str, Scores] = {}
    for _ in range(arguments.rounds):
        for each in EVALUATORS:
            start = time.perf_counter()
            said[each] = score(truth, results, evaluator=each)
            seconds[each].append(time.perf_counter() - start)
            print(f"{each:12} {seconds[each][-1]:8.2f} s", flush=True)
    print(arguments)
    medians = {each: statistics.median(values) for each, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name:12} {version(name):8} median {median:8.2f} s  AP {said[name].numbers['AP']:.4f}")
    fast, slow = (medians[each] for each in EVALUATORS)
    print(f"pycocotools takes {slow / fast:.1f} times as long")
    print(f"largest difference of any number: {difference(*said.values())}")


def draw(images: int, objects: int, detections: int) -> tuple[dict[str, Any], list[Result]]:
    """A COCO document, and what was found in its images of 640 × 640 pixels."""
    generator = np.random.default_rng(0)

    def boxes(count: int) -> NDArray[np.float64]:
        sides = np.exp(generator.uniform(2, 6, (count, 2)))  # 7 to 400 pixels, as many of each octave
        return np.concatenate([generator.random((count, 2)) * (640 - sides), sides], axis=1)

    owned = boxes(objects)
    image, category = generator.integers(1, images + 1, objects), generator.integers(1, CATEGORIES + 1, objects)
    of = generator.integers(0, objects, detections)
    near = generator.random(detections) < 0.6
    found = np.where(near[:, None], owned[of] + generator.normal(0, 5, (detections, 4)), boxes(detections))
    found[:, 2:] = found[:, 2:].clip(1)
    in_image = np.where(near, image[of], generator.integers(1, images + 1, detections))
    as_category = np.where(near, category[of], generator.integers(1, CATEGORIES + 1, detections))
    sure = generator.random(detections).round(5)
    truth = {
        "images": [{"id": each} for each in range(1, images + 1)],
        "categories": [{"id": each, "name": f"class {each}"} for each in range(1, CATEGORIES + 1)],
        "annotations": [
            {"id": number, "image_id": i, "category_id": c, "bbox": box, "area": box[2] * box[3]}
            | {"iscrowd": int(number % 50 == 0)}
            for number, (i, c, box) in enumerate(
                zip(image.tolist(), category.tolist(), owned.tolist(), strict=True), start=1
            )
        ],
    }
    rows = zip(in_image.tolist(), as_category.tolist(), found.round(2).tolist(), sure.tolist(), strict=True)
    return truth, [{"image_id": i, "category_id": c, "bbox": box, "score": value} for i, c, box, value in rows]


def difference(one: Scores, other: Scores) -> float:
    """Of all numbers, those of classes, the threshold and its F1; where just one of two is NaN, infinite."""

    def values(scores: Scores) -> NDArray[np.float64]:
        of_classes = [value for row in scores.per_class.values() for value in row.values()]
        return np.array([*scores.numbers.values(), *of_classes, scores.threshold, scores.f1])

    a, b = values(one), values(other)
    apart = np.where(np.isnan(a) | np.isnan(b), np.where(np.isnan(a) & np.isnan(b), 0, np.inf), np.abs(a - b))
    return float(apart.max())


if __name__ == "__main__":
    main()
