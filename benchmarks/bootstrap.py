"""How much of the difference between models is chance: AP on pictures drawn again and again from the validation split.

    python benchmarks/bootstrap.py MODEL[:VIEW] MODEL[:VIEW]… [--data DIR] [--resamples 200]

The first model is the reference. As many pictures as the split has are drawn with replacement, the same ones for all
models (a paired bootstrap; Efron and Tibshirani, 1993, chapter 16). Printed are each model's AP on the split, its
difference from the reference, and of that difference the standard error and the middle 95% over the draws. What
another seed of the training would change is not in it. Of masks and keypoints it is their AP; both models take it on
the first one's set.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msad_cli.commands.settings import choose_views
from msad_cli.data.coco import read_split
from msad_cli.data.layouts import find_split
from msad_cli.engine.device import choose_compute
from msad_cli.engine.evaluate import view_results
from msad_cli.engine.exported import open_model
from msad_cli.engine.scoring import KINDS, PREFIXES, Result, score
from msad_cli.engine.truth import ground_truth

Document = dict[str, Any]


def main() -> None:
    """Detects once, then draws and evaluates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data")
    parser.add_argument("--resamples", type=int, default=200)
    arguments = parser.parse_args()
    truth, task, found = detections(arguments.models, arguments.data)
    name = PREFIXES[KINDS[task][-1]] + "AP"
    whole = {model: 100 * score(truth, results, task).numbers[name] for model, results in found.items()}
    aps = bootstrap(truth, found, task, name, arguments.resamples)
    print(f"{name}, {len(truth['images'])} pictures, {arguments.resamples} draws")
    for model, reference in ((each, arguments.models[0]) for each in arguments.models):
        apart = [100 * (one - other) for one, other in zip(aps[model], aps[reference], strict=True)]
        low, high = np.quantile(apart, (0.025, 0.975))
        differs = f"{whole[model] - whole[reference]:+5.1f} ± {np.std(apart, ddof=1):.1f}  [{low:+.1f}, {high:+.1f}]"
        print(f"{model:60} {whole[model]:5.1f}  {differs}")


def detections(models: Sequence[str], data: str | None) -> tuple[Document, str, dict[str, list[Result]]]:
    """The ground truth and the task of the first model's split (or of `data`), and what each model finds in it."""
    compute = choose_compute("auto", "auto")
    found: dict[str, list[Result]] = {}
    for model in models:
        path, _, view = model.partition(":")
        detector, card = open_model(Path(path))
        spec = detector.spec
        if not found:
            files = find_split(data or card.data, "val", task=spec.task)
            split = read_split(files.annotations, files.images, spec.categories, spec.task, spec.keypoints)
            task = spec.task
        detector.to(compute.device)
        best = choose_views(view or None, spec, Path(path))[0]
        found[model] = view_results(detector, split, best, compute, workers=0).results
    return ground_truth(split), task, found


def bootstrap(
    truth: Document, found: Mapping[str, Sequence[Result]], task: str, name: str, resamples: int
) -> dict[str, list[float]]:
    """A number of each model's on each draw; seeded, so that the same models give the same answer."""
    generator = np.random.default_rng(0)
    images = [each["id"] for each in truth["images"]]
    aps: dict[str, list[float]] = {model: [] for model in found}
    for _ in range(resamples):
        drawn = generator.choice(images, len(images)).tolist()
        document = {**truth, **redrawn(truth, drawn)}
        for model, results in found.items():
            aps[model].append(score(document, renamed(results, drawn), task).numbers[name])
    return aps


def redrawn(truth: Document, drawn: Sequence[int]) -> Document:
    """Images and annotations of the drawn pictures, which are called 1, 2, … in their order."""
    images = {each["id"]: each for each in truth["images"]}
    annotations = renamed(truth["annotations"], drawn)
    return {
        "images": [{**images[each], "id": number} for number, each in enumerate(drawn, start=1)],
        "annotations": [{**each, "id": number} for number, each in enumerate(annotations, start=1)],
    }


def renamed(records: Sequence[dict[str, Any]], drawn: Sequence[int]) -> list[dict[str, Any]]:
    """Annotations or results of the drawn pictures, a copy for each time that a picture was drawn."""
    of: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for each in records:
        of[each["image_id"]].append(each)
    return [{**each, "image_id": number} for number, picture in enumerate(drawn, start=1) for each in of[picture]]


if __name__ == "__main__":
    main()
