"""The data of a training: its two splits, checked, and what of a model follows from them."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from msad_cli.data.annotations.check import Report
from msad_cli.data.annotations.check_cache import checked, refuse_unusable
from msad_cli.data.annotations.problems import IGNORED
from msad_cli.data.annotations.records import Records, read_records
from msad_cli.data.annotations.split import CocoSplit, to_split
from msad_cli.data.images.tones import Tones, parse_bits
from msad_cli.data.layouts.base import Files
from msad_cli.data.layouts.decisions import Decisions, decided
from msad_cli.data.layouts.demo import DEMO
from msad_cli.data.layouts.splits import find_split
from msad_cli.data.loading.dataset import TrainingSet
from msad_cli.data.writers.datasets import written_datasets
from msad_cli.errors import UsageError
from msad_cli.frame import Resolution
from msad_cli.models.model_file import remembered_data
from msad_cli.models.spec import MOST_DETECTIONS, ClassName, DetectorSpec, Measuring
from msad_cli.runs.folder import Setting
from msad_cli.system.distributed import first_then_others, on_this_machine
from msad_cli.system.memory import available_memory
from msad_cli.text import parse_class_weights, parse_sigmas
from msad_cli.training.augmentation import UNMIRRORED
from msad_cli.training.config import Asked, Config, TrainingConfig
from msad_cli.training.observer import Observer

MOST_OF_MEMORY = 0.8
"""The share of what is available that a cache may take; the rest is for the training itself."""

USUAL_DETECTIONS = 100
MOST_WEIGHT = 4.0
"""Of a class, and one over the least, where they are computed."""


@dataclass(frozen=True)
class Found:
    """Both splits of a set as its annotation files have them.

    Attributes:
        learnt, val: for training and validation.
        files: of the training split.
        typed: what was named.
        model: whose classes and keypoints were taken, if any.
    """

    learnt: Records
    val: Records
    files: Files
    typed: str | None
    model: DetectorSpec | None


def find_data(
    config: TrainingConfig,
    data: str | None,
    task: str,
    observer: Observer,
    model: DetectorSpec | None = None,
    exif: str = "auto",
) -> Found:
    """Training and validation split of a set, as they are; the observer is told what was decided.

    Args:
        data: a folder or `demo`; the four paths of `config` take the place of what lies there.
        task: `boxes`, `masks` or `keypoints`, as a detector's spec has it.
        exif: whether labels fit images that EXIF turns: `auto`, `keep` or `ignore`.
        model: whose classes and keypoints are taken; without one, those of the training split.

    Raises:
        UsageError: neither `data` nor all four paths.
        DataError: a split cannot be found or read.
    """
    with first_then_others():  # the demo set is drawn once
        found = {
            "train": find_split(data, "train", config.train_json, config.train_images, task, exif),
            "val": find_split(data, "val", config.val_json, config.val_images, task, exif),
        }
        of_model = () if model is None else model.categories
        files, other = decided(found, Decisions(config.crowd_as_objects, config.join_classes, of_model)).values()
    for note in dict.fromkeys((*files.notes, *other.notes)):
        observer.say(note)
    categories, names = (None, ()) if model is None else (model.categories, model.keypoints)
    learnt = read_records(files.annotations, files.images, categories, task, names, files.root)
    names = learnt.scheme.names
    val_records = read_records(other.annotations, other.images, learnt.categories, task, names, other.root)
    return Found(learnt, val_records, files, data, model)


def read_data(
    config: TrainingConfig, found: Found, resolution: Resolution, ks: Sequence[int], observer: Observer
) -> tuple[CocoSplit, CocoSplit, Setting]:
    """Both splits, checked, and what was found, in words; the observer is told of problems.

    Args:
        resolution, ks: HR size, and by what the views are downsampled, by which objects may be small.

    Raises:
        DataError: a split is unusable, or the training split has no box.
    """
    learnt, files, data, task = found.learnt, found.files, found.typed, found.learnt.task
    splits = {"train": learnt, "val": found.val}
    with first_then_others():  # who find it kept
        report = checked(splits, resolution, ks, observer.say)
    typed = data or str(files.annotations)
    refuse_unusable(report, typed, f"msad data check {typed} lists all")
    for line in report.lines():
        observer.say(line)
    if found.model is None and (unused := learnt.unused()):
        observer.say(unused)
    tones = _tones(config, found.model, report)
    train, val = (replace(to_split(each), tones=tones) for each in splits.values())
    if weights := class_weights(config.class_weights, train):
        observer.say("class weights: " + ", ".join(f"{name} × {weight:.2g}" for name, weight in weights.items()))
    lengths = [f"{each.quantiles[1]:.0f} at 1/{each.k}" for each in report.splits[0].sizes]
    words = (
        f"{files.recognised}: {len(train)} + {len(val)} images, {len(train.boxes)} training boxes "
        f"(median side in pixels {', '.join(lengths)}), {len(train.categories)} classes"
    )
    if train.crowds or train.dropped:
        ignored = sum(each.count for each in learnt.problems if each.code == IGNORED.code)
        beside = f" ({ignored} of them marked 'ignore')" if ignored else ""
        words += f", {train.crowds} crowd regions{beside} and {train.dropped} bad boxes left out"
    if report.depth:
        words += f", {report.depth}" if tones == report.tones else f", images of more than 8 bits: {tones}"
    if task == "keypoints":
        mirrored = f"{len(train.scheme.flip_pairs)} pairs swap in a mirror" if train.scheme.flips else UNMIRRORED
        words += f", {len(train.scheme.names)} keypoints ({mirrored})"
    return train, val, Setting(data or str(train.file), "flag", words)


def _tones(config: TrainingConfig, model: DetectorSpec | None, report: Report) -> Tones:
    """How images of more than 8 bits are read: as typed, as the teacher does, or by what the set holds."""
    typed = parse_bits(config.bits)
    if typed is not None:
        return typed
    return report.tones if model is None or model.tones.deep_unseen else model.tones


def fields_from_data(train: CocoSplit, sigmas: str | None) -> tuple[dict[str, Any], Setting]:
    """The fields of a spec that follow from the training split, and the number of detections for the record.

    Raises:
        UsageError: `sigmas` is not a positive number for each keypoint.
    """
    most = int(np.diff(train.starts).max(initial=0))
    # Room for what a denser image may hold; COCO's 100 where that is enough.
    detections = (
        USUAL_DETECTIONS if most <= USUAL_DETECTIONS else min(MOST_DETECTIONS, 100 * math.ceil(1.5 * most / 100))
    )
    scheme = train.scheme
    fields = {
        "classes": tuple(ClassName(*each) for each in train.categories),
        "detections_per_image": detections,
        "keypoints": scheme.names,
        "flip_pairs": scheme.flip_pairs,
        "skeleton": scheme.skeleton,
        "tones": train.tones,
        "measuring": Measuring(parse_sigmas(sigmas, scheme.names)),
    }
    return fields, Setting(detections, "auto", f"at most {most} objects in a training image")


def class_weights(text: str | None, train: CocoSplit) -> dict[str, float]:
    """The weight of each class by name, in the split's order; empty where none is asked for.

    `auto` is the square root of how much rarer a class is than the median one, from 1/4 to 4; a class without objects
    has 1.

    Args:
        text: `auto`, or some of the classes as NAME=WEIGHT, separated by commas.

    Raises:
        UsageError: a class that there is not, a weight that is none, or a task of two-stage detectors.
    """
    if text is None:
        return {}
    if train.task != "boxes":
        raise UsageError(
            "--class-weights: of dense detectors, whose classes are decided one by one",
            "leave it out, or take --detector fcos or retinanet",
            code="setting-without-effect",
        )
    names = [name for _, name in train.categories]
    if text != "auto":
        return dict.fromkeys(names, 1.0) | parse_class_weights(text, names)
    counts = np.bincount(train.labels, minlength=len(names) + 1)[1:].astype(float)
    shares = np.sqrt(np.median(counts[counts > 0]) / np.maximum(counts, 1)).clip(1 / MOST_WEIGHT, MOST_WEIGHT)
    return {name: float(share) if count else 1.0 for name, share, count in zip(names, shares, counts, strict=True)}


def lasting(data: str | None) -> str:
    """The name of a set as a model file remembers it: a folder is found again from anywhere, single files are not."""
    return str(Path(data).resolve()) if data and data != DEMO else data or ""


def cache_decoded(training: TrainingSet, cache: str, workers: int) -> Setting:
    """Has a training set keep its decoded images if `--cache` asks for it; the choice for the record.

    Raises:
        UsageError: an unknown value, or too little memory.
    """
    if cache not in ("off", "ram"):
        raise UsageError(f"--cache {cache}: unknown", "give ram or off", code="unknown-value")
    if cache == "off":
        return Setting(cache, "default", "images are decoded in every epoch")
    needed, there = training.keep_decoded() * on_this_machine(), available_memory(shared=workers > 0)
    words = f"{needed / 2**30:.2f} GiB of decoded images, {there / 2**30:.1f} GiB of memory are available"
    if needed > MOST_OF_MEMORY * there:
        raise UsageError(
            f"--cache ram does not fit: {words}, of which msad takes {MOST_OF_MEMORY:.0%}",
            "--cache off decodes the images in every epoch, for which more --workers help",
            code="image-cache-too-large",
        )
    return Setting(cache, "flag", words)


def folder_of(asked: Asked[Config], known: str | None = None, whose: Path | None = None) -> str | None:
    """Where a set lies; datasets from Python are written there as a COCO folder, once.

    Args:
        known: the set that is taken where none is named, as the file `whose` remembers it.

    Raises:
        UsageError: neither the name of a set nor two datasets.
        DataError: an item of a dataset that cannot be an image and its objects, or a set that was moved since the run
            that goes on was stopped, or since the file remembers it.
    """
    config = asked.config
    data, out = config.data, config.out
    if data is None:
        whole = config.train_json and config.train_images and config.val_json and config.val_images
        return known if whole or not known or whose is None else remembered_data(known, whose)
    if isinstance(data, str | os.PathLike):
        place = os.fspath(data)
        if "data" in asked.recalled and out is not None and place != DEMO:
            remembered_data(os.path.abspath(place), out)
        return place
    with first_then_others():
        return str(written_datasets(*data))
