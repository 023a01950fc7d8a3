"""Detections as files from which pycocotools gets the numbers of msad: one for each kind that is measured."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from msad_cli.evaluation.coco_eval import PREDICTED
from msad_cli.evaluation.metrics import KINDS, Result
from msad_cli.system.files import write_text

WHOSE = ("image_id", "category_id", "score")


def result_files(path: Path, task: str) -> dict[str, Path]:
    """The file of each kind, by COCOeval's name of it: that of boxes is `path`, `x.segm.json` lies beside `x.json`."""
    return {kind: path if kind == "bbox" else path.with_suffix(f".{kind}{path.suffix}") for kind in KINDS[task]}


def result_words(path: Path, task: str) -> str:
    """What lies where, in words."""
    names = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}
    return ", ".join(f"{file} holds {names[kind]}" for kind, file in result_files(path, task).items())


def write_results(path: Path, results: Iterable[Result], task: str) -> None:
    """Writes what was found, each kind into a file of its own.

    Beside a `bbox`, pycocotools takes its area for that of the mask or of the keypoints, and sorts by it into sizes.

    Raises:
        OutputError: a file cannot be written.
    """
    every = list(results)
    for kind, file in result_files(path, task).items():
        write_text(file, json.dumps([_of_kind(each, kind) for each in every]) + "\n")


def _of_kind(result: Mapping[str, object], kind: str) -> Result:
    return {field: result[field] for field in (*WHOSE, PREDICTED[kind][0])}
