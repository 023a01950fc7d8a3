"""curves.json: what the plots of a finished run show, beside its epochs."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msad_cli.errors import UsageError
from msad_cli.evaluation.confusion import Confusion
from msad_cli.evaluation.curves import STEPS, OverScore, PrecisionRecall
from msad_cli.evaluation.metrics import PREFIXES, Scores
from msad_cli.runs.folder import without_nan
from msad_cli.system.files import write_text

SIZE_EDGES = 2 ** np.linspace(1, 12, 23)
"""Pixels: the borders of the bins of object sizes, two an octave; what is beyond an end is in the last bin there."""
AREAS = ("s", "m", "l")
"""COCO's ends of names for objects under 32 and 96 pixels, and above."""
MOST_CLASSES = 24
"""Rows and columns of the confusion matrix; the classes with the fewest objects become one."""
OTHERS = "other classes"
KIND_NAMES = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}


@dataclass(frozen=True)
class Fusion:
    """What a fusion takes of each view, (levels, views) each: means over images and standard deviations."""

    levels: tuple[int, ...]
    ks: tuple[int, ...]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


@dataclass(frozen=True)
class RunCurves:
    """An evaluation's curves and counts.

    Attributes:
        view: of which all is said but `size_ap`.
        precision: over recall, by kind: boxes, masks, keypoints.
        over_score: of boxes.
        threshold, f1: the score of best F1, at which `confusion` is counted, and that F1.
        classes: names of the confusion matrix's C rows and columns, the most frequent first.
        confusion: (C + 1, C + 1) objects by their true class, down, and their predicted ones, across; background last.
        sizes: how many objects of the split have a √area in each of the bins of `SIZE_EDGES`, original pixels.
        size_ap: AP of small, medium and large objects (3,), from 0 to 1, by view and kind.
        fusion: None for a model that weighs no views.
    """

    view: str
    precision: dict[str, PrecisionRecall]
    over_score: OverScore
    threshold: float
    f1: float
    classes: tuple[str, ...]
    confusion: NDArray[np.int64]
    sizes: NDArray[np.int64]
    size_ap: dict[str, NDArray[np.float64]]
    fusion: Fusion | None


def collect_curves(
    truth: Mapping[str, Any], scores: Mapping[str, Scores], confused: Confusion, fusion: Fusion | None
) -> RunCurves:
    """Puts together what was found in a split.

    Args:
        truth: its ground truth.
        scores: by view, the model's best first.
        confused: that view's confusion matrix at its threshold, as counts.
        fusion: of the same model.
    """
    view, best = next(iter(scores.items()))
    names = {each["id"]: str(each["name"]) for each in truth["categories"]}
    classes, matrix = confusion_matrix(confused, names)
    areas = [each["area"] for each in truth["annotations"] if not each.get("iscrowd")]
    return RunCurves(
        view=view,
        precision={KIND_NAMES[kind]: each for kind, each in best.precision.items()},
        over_score=best.over_score,
        threshold=best.threshold,
        f1=best.f1,
        classes=classes,
        confusion=matrix,
        sizes=count_sizes(areas),
        size_ap=_size_ap(scores),
        fusion=fusion,
    )


def confusion_matrix(
    counts: Confusion, names: Mapping[int, str], most: int = MOST_CLASSES
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The names of C classes, and their counts (C + 1, C + 1), truth down, background last.

    Of more than `most` classes, those with the fewest objects are one, the last. Confusions among them stand on its
    diagonal.
    """
    objects = dict.fromkeys(names, 0)
    for (category, _), count in counts.items():
        if category is not None:
            objects[category] += count
    ranked = sorted(objects, key=lambda category: -objects[category])
    shown = ranked if len(ranked) <= most else ranked[: most - 1]
    rest = [OTHERS] if len(shown) < len(ranked) else []
    size = len(shown) + len(rest)
    place: dict[int | None, int] = {category: min(i, size - 1) for i, category in enumerate(ranked)}
    place[None] = size
    matrix = np.zeros((size + 1, size + 1), dtype=np.int64)
    for (true, predicted), count in counts.items():
        matrix[place[true], place[predicted]] += count
    return (*(names[category] for category in shown), *rest), matrix


def shares(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """A confusion matrix's counts as shares of their row, the objects of a class.

    What was found in the background has no objects to be a share of: the last row's are of all predictions of a class.
    """
    share: NDArray[np.float64] = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    share[-1] = matrix[-1] / matrix.sum(axis=0).clip(min=1)
    return share


def count_sizes(areas: Iterable[float]) -> NDArray[np.int64]:
    """How many square roots of these areas lie in each bin of `SIZE_EDGES`."""
    sides = np.sqrt(np.array(list(areas), dtype=np.float64).clip(min=0))
    inside = sides.clip(SIZE_EDGES[0], np.nextafter(SIZE_EDGES[-1], 0))
    return np.histogram(inside, SIZE_EDGES)[0].astype(np.int64)


def _size_ap(scores: Mapping[str, Scores]) -> dict[str, NDArray[np.float64]]:
    found = {}
    for view, each in scores.items():
        for kind in each.precision:
            values = np.array([each.numbers.get(f"{PREFIXES[kind]}AP{end}", math.nan) for end in AREAS])
            if not np.isnan(values).all():
                found[f"{view}, {KIND_NAMES[kind]}" if len(each.precision) > 1 else view] = values
    return found


def write_curves(path: Path, curves: RunCurves) -> None:
    """Writes curves.json."""
    write_text(path, json.dumps(without_nan(_plain(asdict(curves)))) + "\n")


def read_curves(path: Path) -> RunCurves | None:
    """The curves of a curves.json; None where there is none.

    Raises:
        UsageError: it cannot be read, or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return _curves(values)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{path} is damaged ({error})",
            "move it away; what needs no curves is drawn without it",
            code="run-record-damaged",
        ) from None


def _plain(value: Any) -> Any:
    """Arrays as lists; shares with four digits, which no plot shows more of."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value.round(4).tolist() if isinstance(value, np.ndarray) else value


def _curves(values: Mapping[str, Any]) -> RunCurves:
    """`_plain`'s reverse, of arrays that have the right shapes.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: they have not, or something is missing.
    """
    steps, classes = len(STEPS), tuple(map(str, values["classes"]))
    precision = {
        str(kind): PrecisionRecall(
            _numbers(each["at50"], steps),
            _numbers(each["at75"], steps),
            {str(name): _numbers(line, steps) for name, line in each["by_class"].items()},
        )
        for kind, each in values["precision"].items()
    }
    over_score = OverScore(*(_numbers(values["over_score"][name], steps) for name in ("precision", "recall", "f1")))
    return RunCurves(
        view=str(values["view"]),
        precision=precision,
        over_score=over_score,
        threshold=float(values["threshold"]),
        f1=math.nan if values["f1"] is None else float(values["f1"]),
        classes=classes,
        confusion=_numbers(values["confusion"], len(classes) + 1, len(classes) + 1).astype(np.int64),
        sizes=_numbers(values["sizes"], len(SIZE_EDGES) - 1).astype(np.int64),
        size_ap={str(name): _numbers(each, len(AREAS)) for name, each in values["size_ap"].items()},
        fusion=None if values["fusion"] is None else _fusion(values["fusion"]),
    )


def _fusion(values: Mapping[str, Any]) -> Fusion:
    levels, ks = (tuple(map(int, values[name])) for name in ("levels", "ks"))
    mean, deviation = (_numbers(values[name], len(levels), len(ks)) for name in ("mean", "deviation"))
    return Fusion(levels, ks, mean, deviation)


def _numbers(values: Sequence[Any], *shape: int) -> NDArray[np.float64]:
    """An array of this shape, NaN in place of null."""
    numbers = np.array(values, dtype=np.float64)
    if numbers.shape != shape:
        raise ValueError(f"{numbers.shape} numbers where {shape} belong")
    return numbers
