"""How much of the difference between models is chance: AP on images drawn again and again from the validation split.

    python benchmarks/bootstrap.py MODEL[:VIEW] MODEL[:VIEW]… [--data DIR] [--resamples 200]

The first model is the reference. As many images as the split has are drawn with replacement, the same ones for all
models (a paired bootstrap; Efron and Tibshirani, 1993, chapter 16). Printed are each model's AP on the split, its
difference from the reference, and of that difference the standard error and the middle 95% over the draws. What
another seed of the training would change is not in it. Of masks and keypoints it is their AP; both models take it on
the first one's set.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from mistakes import told

from msad_cli.data.annotations.split import read_split
from msad_cli.data.layouts.splits import find_split
from msad_cli.evaluation.detect_split import view_results
from msad_cli.evaluation.ground_truth import ground_truth
from msad_cli.evaluation.metrics import KINDS, PREFIXES, Result, score
from msad_cli.export.runtime import open_model
from msad_cli.models.spec import DetectorSpec, View
from msad_cli.models.views import choose_views
from msad_cli.system.device import choose_compute

Document = dict[str, Any]
ByImage = defaultdict[int, list[Document]]


def main() -> None:
    """Detects once, then draws and evaluates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data")
    parser.add_argument("--resamples", type=int, default=200)
    arguments = parser.parse_args()
    if arguments.resamples < 2:
        parser.error(f"--resamples {arguments.resamples}: an error needs two draws or more")
    truth, spec, found = detections(arguments.models, arguments.data)
    name = PREFIXES[KINDS[spec.task][-1]] + "AP"
    whole = {
        model: 100 * score(truth, each, spec.task, spec.measuring.sigmas).numbers[name] for model, each in found.items()
    }
    aps = bootstrap(truth, found, spec.task, name, arguments.resamples, spec.measuring.sigmas)
    print(f"{name}, {len(truth['images'])} images, {arguments.resamples} draws")
    for model, reference in ((each, arguments.models[0]) for each in arguments.models):
        apart = [100 * (one - other) for one, other in zip(aps[model], aps[reference], strict=True)]
        low, high = np.quantile(apart, (0.025, 0.975))
        differs = f"{whole[model] - whole[reference]:+5.1f} ± {np.std(apart, ddof=1):.1f}  [{low:+.1f}, {high:+.1f}]"
        print(f"{model:60} {whole[model]:5.1f}  {differs}")


def detections(models: Sequence[str], data: str | None) -> tuple[Document, DetectorSpec, dict[str, list[Result]]]:
    """The ground truth of the first model's split (or of `data`), its spec, and what each model finds in it."""
    compute = choose_compute("auto", "auto")
    detectors, views = [], []
    for path, view in map(model_and_view, models):
        detectors.append(open_model(path))
        views.append(choose_views(view, detectors[-1][0].spec, path)[0])
    spec, data = detectors[0][0].spec, data or detectors[0][1].data
    files = find_split(data, "val", task=spec.task)
    split = read_split(files.annotations, files.images, spec.categories, spec.task, spec.keypoints)
    found = {
        model: view_results(detector.to(compute.device), split, view, compute, workers=0).results
        for model, (detector, _), view in zip(models, detectors, views, strict=True)
    }
    return ground_truth(split), spec, found


def model_and_view(model: str) -> tuple[Path, str | None]:
    """Of MODEL[:VIEW]; no view stands for the model's best."""
    name, colon, view = model.rpartition(":")
    return (Path(name), view) if colon and view in get_args(View) else (Path(model), None)


def bootstrap(
    truth: Document,
    found: Mapping[str, Sequence[Result]],
    task: str,
    name: str,
    resamples: int,
    sigmas: Sequence[float] = (),
) -> dict[str, list[float]]:
    """A number of each model's on each draw; seeded, so that the same models give the same answer."""
    generator = np.random.default_rng(0)
    images = [each["id"] for each in truth["images"]]
    objects, results = by_image(truth["annotations"]), {model: by_image(each) for model, each in found.items()}
    aps: dict[str, list[float]] = {model: [] for model in found}
    for _ in range(resamples):
        drawn = generator.choice(images, len(images)).tolist()
        document = {**truth, **redrawn(truth["images"], objects, drawn)}
        for model, of in results.items():
            aps[model].append(score(document, renamed(of, drawn), task, sigmas).numbers[name])
    return aps


def by_image(records: Sequence[Document]) -> ByImage:
    """Annotations or results by the id of their image."""
    of: ByImage = defaultdict(list)
    for each in records:
        of[each["image_id"]].append(each)
    return of


def redrawn(images: Sequence[Document], objects: ByImage, drawn: Sequence[int]) -> Document:
    """Images and annotations of the drawn images, which are called 1, 2, … in their order."""
    by_id = {each["id"]: each for each in images}
    return {
        "images": [{**by_id[each], "id": number} for number, each in enumerate(drawn, start=1)],
        "annotations": [{**each, "id": number} for number, each in enumerate(renamed(objects, drawn), start=1)],
    }


def renamed(of: ByImage, drawn: Sequence[int]) -> list[Document]:
    """Annotations or results of the drawn images, a copy for each time that an image was drawn."""
    return [{**each, "image_id": number} for number, image in enumerate(drawn, start=1) for each in of[image]]


if __name__ == "__main__":
    told(main)
