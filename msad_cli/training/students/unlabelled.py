"""`--unlabelled`: images that nobody has labelled, of which a student learns what its teacher says."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from msad_cli.data.annotations.records import read_records
from msad_cli.data.annotations.split import CocoSplit, with_unlabelled
from msad_cli.data.images.without_labels import Unlabelled, look_at_unlabelled
from msad_cli.data.layouts.splits import find_split
from msad_cli.distillation.losses.table import DISTILLERS, NEED_OBJECTS
from msad_cli.errors import DataError, MsadError, UsageError
from msad_cli.inference.frames import SECONDS, frames_as_images
from msad_cli.inference.inputs import Input, find_inputs
from msad_cli.inference.video import need_decoder
from msad_cli.runs.folder import Setting
from msad_cli.system.distributed import first_then_others
from msad_cli.training.config import Asked, DistillConfig
from msad_cli.training.observer import Observer
from msad_cli.training.plan import Choices
from msad_cli.training.students.plan_student import is_pixel

SHARE = "unlabelled_share"
"""The setting of how much of each batch is unlabelled."""


def refuse_unlabelled(asked: Asked[DistillConfig]) -> None:
    """Does nothing where a student can learn from images without labels, or is to have none.

    Raises:
        UsageError: a share of nothing, or what is asked for beside them cannot go without labels.
    """
    config = asked.config
    if config.unlabelled is None:
        if SHARE in asked.typed:
            raise UsageError(
                "--unlabelled-share: of --unlabelled, which is not given",
                "add --unlabelled DIR, or leave it out",
                code="setting-without-effect",
            )
        return
    if config.no_distill:
        raise UsageError(
            "--unlabelled with --no-distill: nobody says what is in these images",
            "leave one of them out",
            code="unlabelled-refused",
        )
    if is_pixel(config.method):
        raise UsageError(
            "--unlabelled with --method pixel: its assistant is tuned by labels",
            "name other methods, or leave --unlabelled out",
            code="unlabelled-refused",
        )
    needy = [each for each in (config.method or "").split(",") if each in NEED_OBJECTS]
    if needy:
        known = ", ".join(each for each in DISTILLERS if each not in NEED_OBJECTS)
        raise UsageError(
            f"--unlabelled with --method {','.join(needy)}: it asks where objects are, which only labels say",
            f"name others, of {known}",
            code="unlabelled-refused",
        )


def read_unlabelled(
    config: DistillConfig, data: str, train: CocoSplit, val: CocoSplit, observer: Observer
) -> tuple[CocoSplit, Unlabelled | None]:
    """The training split with what `--unlabelled` names behind it, and what that is; as it is where nothing is named.

    Args:
        data: the set's folder; images of its test split are left out as those of val are. Empty if there is none.

    Raises:
        DataError: there are no images, or none that can be learnt from.
        UsageError: a video, and the extra is missing.
    """
    if config.unlabelled is None:
        return train, None
    place = os.fspath(config.unlabelled)
    with first_then_others():  # who find in the cache the frames of videos, and a test split of another layout
        paths, broken = _images_of(_inputs(place), observer)
        known = {"val": val.paths, "test": _test_images(data, train), "train": train.paths}
    observer.say(f"looking at {len(paths)} images of {place}")
    found = look_at_unlabelled(paths, known)
    found = replace(found, unreadable=(*broken, *found.unreadable))
    if not found.paths:
        raise DataError(
            f"--unlabelled {place}: no image to learn from: {_left_out(found)}",
            "give a place with other images",
            code="no-unlabelled-images",
        )
    for name in ("val", "test"):
        if twins := found.twins[name]:
            observer.say(
                f"warning: unlabelled images that {name} has too are left out: {len(twins)}, such as {twins[0][1]}"
            )
    for reason in found.unreadable[:1]:
        observer.say(f"passed over: {reason}{f', and {more} more' if (more := len(found.unreadable) - 1) else ''}")
    return with_unlabelled(train, found.paths, found.sizes), found


def said_of_unlabelled(config: DistillConfig, found: Unlabelled | None, choices: Choices) -> dict[str, Setting]:
    """The choice for the record, if there is any."""
    if config.unlabelled is None or found is None:
        return {}
    words = f"{len(found.paths)} images, {choices.unlabelled} of a batch of {choices.batch}"
    reason = "; ".join(filter(None, (words, _left_out(found))))
    return {"unlabelled": Setting(os.fspath(config.unlabelled), "flag", reason)}


def _left_out(found: Unlabelled) -> str:
    counts = [f"{len(pairs)} also in {name}" for name, pairs in found.twins.items() if pairs]
    counts += [f"{len(found.unreadable)} unreadable"] if found.unreadable else []
    return f"{', '.join(counts)} left out" if counts else ""


def _inputs(place: str) -> list[Input]:
    try:
        return find_inputs([place])
    except UsageError as error:
        raise DataError(f"--unlabelled {error.message}", error.hint, code="no-unlabelled-images") from None


def _images_of(inputs: Sequence[Input], observer: Observer) -> tuple[list[Path], list[str]]:
    """The files of images, and of the frames of videos; and why each video that is none cannot be read."""
    paths, broken = [], []
    for each in inputs:
        if not each.is_video:
            paths.append(each.path)
            continue
        need_decoder()
        observer.say(f"drawing out a frame of each {SECONDS} s of {each.path}")
        try:
            paths += frames_as_images(each.path)
        except DataError as error:
            broken.append(error.message)
    return paths, broken


def _test_images(data: str, train: CocoSplit) -> list[Path]:
    """The images of a set's test split, if it has one that can be read."""
    with contextlib.suppress(MsadError):
        files = find_split(data, "test", task=train.task)
        records = read_records(files.annotations, files.images, train.categories, train.task, (), files.root)
        return [records.folder / name for name in records.file_names.tolist()]
    return []
