"""An exported graph against the network that it was written from: detections, AP, and what 8 bits and sides cost."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from msad_cli.data.annotations.split import CocoSplit, read_split
from msad_cli.data.layouts.splits import find_split
from msad_cli.data.loading.dataset import EvaluationSet
from msad_cli.errors import DataError, GateMissedError, UsageError
from msad_cli.evaluation.detect_split import view_results
from msad_cli.evaluation.ground_truth import ground_truth
from msad_cli.evaluation.metrics import PREFIXES, score
from msad_cli.export.parity import compare_models
from msad_cli.export.runtime import ExportedModel, Model
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card
from msad_cli.models.spec import DetectorSpec, View
from msad_cli.system.device import Compute

MOST_AP_LOST = 0.001
"""Between the model and its graph in float32, which differ by rounding alone."""


def split_for(data: str | None, split: str, spec: DetectorSpec | None = None) -> CocoSplit:
    """A split of a set; with a spec, as the model that it describes understands it."""
    if spec is None:
        files = find_split(data, split)
        return read_split(files.annotations, files.images, root=files.root)
    files = find_split(data, split, task=spec.task)
    known = (spec.categories, spec.task, spec.keypoints)
    return replace(read_split(files.annotations, files.images, *known, files.root), tones=spec.tones)


def graph_images(split: CocoSplit, model: ExportedModel) -> Iterator[Tensor]:
    """The images that can be read, as the graph takes them: uint8 (3, h, w)."""
    (k,) = model.spec.ks
    samples = EvaluationSet(split, model.resolution, (k,), phase=model.spec.phase)
    for index in range(len(samples)):
        try:
            yield model.padded(samples[index].views[k])
        except DataError:
            continue


def compared_images(named: CocoSplit | None, card: Card, graph: ExportedModel) -> Iterator[Tensor]:
    """The images of a split and, where nothing is found in them, those of the set that the model learnt from. The
    drawn ones where there is neither: a model may be sure of anything in images of another world, and many boxes of
    one score are suppressed in an order that rounding decides."""
    if named is not None:
        yield from graph_images(named, graph)
    try:
        other = split_for(card.data, "val", graph.spec)
    except (UsageError, DataError):  # it is not here, or not any more
        if named is not None:
            return
        other = split_for("demo", "val")
    yield from graph_images(other, graph)


def check_graph(
    detector: Detector,
    view: View,
    graph: ExportedModel,
    form: str,
    images: Iterable[Tensor],
    overlap: float | None,
    lowest: float,
) -> str:
    """A line on how alike the detections of a model and its graph are.

    Raises:
        GateMissedError: they are not, or there are none to compare.
    """
    parity = compare_models(detector, view, graph, images, overlap, lowest)
    if not parity.detections:
        raise GateMissedError(
            f"nothing was written: in {parity.images} images neither msad nor {form} finds anything, so that nothing "
            "is compared",
            "train the model, name images with its objects by --data, or lower --lowest-score",
            code="export-finds-nothing",
        )
    apart = ", ".join(f"{name} {value:.2g}" for name, value in parity.differences.items())
    line = (
        f"{form} against msad: {parity.detections} detections in {parity.images} images, {parity.unmatched} without "
        f"a partner; the others differ by at most {apart}"
    )
    if not parity.holds:
        raise GateMissedError(
            f"nothing was written: {line}",
            "report it, with the versions of torch and onnxruntime",
            code="export-differs",
        )
    return line


def score_graphs(
    detector: Detector, view: View, graphs: Mapping[str, Model], split: CocoSplit, overlap: float | None
) -> dict[str, dict[str, float]]:
    """COCO's numbers of a model's view and of its graphs, in float32, image by image."""
    truth, compute = ground_truth(split), Compute(torch.device("cpu"), "fp32")
    models = {"msad": (detector, view), **{name: (each, each.spec.views[0]) for name, each in graphs.items()}}
    scores = {}
    for name, (model, seen) in models.items():
        alone = overlap if model is detector else None  # a graph has it inside
        found = view_results(model, split, seen, compute, workers=0, batch=1, overlap=alone)
        scores[name] = score(truth, found.results, split.task, model.spec.measuring.sigmas).numbers
    return scores


def cost_lines(scores: Mapping[str, Mapping[str, float]], form: str) -> Iterator[str]:
    """What fixed sides and 8 bits cost, in lines.

    Args:
        scores: of the model, of its network with a graph's limits and in fixed sides, where the graph has such, of its
            graph, and of that with 8 bits.

    Raises:
        GateMissedError: the graph in float32 has another AP than the network.
    """
    steps = list(itertools.pairwise(scores))
    for name in (prefix + "AP" for prefix in PREFIXES.values()):
        for before, after in steps:
            if name not in scores[before]:
                continue
            lost = scores[before][name] - scores[after][name]
            if after != form:
                yield f"{'8 bits' if after == 'int8' else after} cost {100 * lost:.1f} {name}"
            elif abs(lost) > MOST_AP_LOST:
                raise GateMissedError(
                    f"nothing was written: {name} of {form} is {-100 * lost:.2f} off",
                    "report it",
                    code="export-differs",
                )
