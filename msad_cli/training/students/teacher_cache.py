"""`--cache-teacher`: whether the teacher's pyramids are cached, where, and how much room they take."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from msad_cli.data.annotations.split import CocoSplit
from msad_cli.data.loading.dataset import TrainingSet
from msad_cli.distillation.knowledge import best_view
from msad_cli.errors import UsageError
from msad_cli.models.detector import Detector, Views
from msad_cli.models.spec import DetectorSpec, View
from msad_cli.runs.folder import Setting
from msad_cli.system.device import Compute
from msad_cli.system.distributed import size
from msad_cli.system.files import fingerprint
from msad_cli.system.memory import available_memory
from msad_cli.training.observer import Observer
from msad_cli.training.sets import MOST_OF_MEMORY
from msad_cli.training.students.pyramid_store import InFolder, InMemory, Store, keep_all, key, predicted_bytes, ways

MEMORY = "ram"
SECONDS_BETWEEN_LINES = 30.0


def choose_store(
    where: str | None,
    refusal: str,
    file: Path,
    spec: DetectorSpec,
    split: CocoSplit,
    precision: str,
    view: View,
    fliplr: float,
) -> tuple[Store | None, Setting]:
    """Where the pyramids of a teacher are cached, if they are; and the choice for the record.

    Args:
        where: the flag.
        refusal: why they cannot be cached; empty where they can.
        file, spec: the teacher's.
        view: by which it teaches.
        fliplr: how likely images are mirrored.

    Raises:
        UsageError: they cannot be cached, or there is no room.
    """
    if where is None:
        return None, Setting(None, "default", "the teacher computes its pyramids in every epoch")
    if refusal:
        raise UsageError(f"--cache-teacher {refusal}", "leave --cache-teacher away", code="teacher-cache-refused")
    if where == MEMORY and size() > 1:
        raise UsageError(
            f"--cache-teacher {MEMORY}: each of {size()} processes would keep all of it",
            "name a folder that all of them see: --cache-teacher DIR",
            code="teacher-cache-refused",
        )
    looks = fingerprint(file) if view == spec.views[0] else f"{fingerprint(file)} {view}"
    store = InMemory() if where == MEMORY else InFolder(Path(where) / key(looks, split, spec, precision))
    return store, Setting(where, "flag", _room(where, store, spec, split, fliplr))


def cannot_keep(no_distill: bool, pixel: bool, aligned: bool) -> str:
    """Why a student's command has no use for a teacher cache; empty where it has."""
    if pixel:
        return "with --method pixel: its assistant is tuned first, and knows other things afterwards"
    if no_distill:
        return "with --no-distill: there is no teacher to keep anything of"
    return "" if aligned else "with --unaligned: the cache is of aligned pyramids"


def keep_pyramids(
    store: Store | None,
    teacher: Detector,
    training: TrainingSet,
    compute: Compute,
    workers: int,
    observer: Observer,
    view: View | None = None,
) -> None:
    """Lets the teacher look once at all that is not cached yet, and says how far it is; nothing without a store.

    Raises:
        OutputError, DeviceError: as `keep_all`.
    """
    if store is None:
        return
    start = said = time.monotonic()
    split, fliplr = training.split, training.augmentation.fliplr
    total = len(split) * len(ways(split, fliplr))
    count = 0

    def done(made: int) -> None:
        nonlocal said, count
        count = made
        if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            observer.say(f"teacher cache: {made * size()} of {total} images")

    teacher.eval()

    def look(views: Views) -> Sequence[Tensor]:
        return best_view(teacher, views, view=view).pyramid

    keep_all(store, teacher.spec, look, split, compute, workers, done, view, fliplr)
    if count:
        observer.say(f"teacher cache: {count * size()} images added in {time.monotonic() - start:.0f} s")


def _room(where: str, store: Store, spec: DetectorSpec, split: CocoSplit, fliplr: float) -> str:
    """What will be cached, in words.

    Raises:
        UsageError: there is no room for it.
    """
    needed = predicted_bytes(spec, split, fliplr)
    free = available_memory(shared=False) if isinstance(store, InMemory) else _free_on_disk(Path(where))
    shown = " and ".join("mirrored" if mirrored else "plain" for mirrored in ways(split, fliplr))
    words = f"{needed / 2**30:.2f} GiB: {len(split)} images, {shown}"
    there = isinstance(store, InFolder) and store.folder.is_dir()
    if not there and needed > MOST_OF_MEMORY * free:
        raise UsageError(
            f"--cache-teacher {where}: the pyramids take {words}; {free / 2**30:.2f} GiB are free",
            "name a folder on a disk with room, or leave --cache-teacher away",
            code="teacher-cache-too-large",
        )
    return f"{words}, as bfloat16; images keep one scale (no jitter)"


def _free_on_disk(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
