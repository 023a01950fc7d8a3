"""The plan of a training: what was not asked for, computed from machine and data, each value with its reason."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from msad_cli.distillation.two_step import FUSION_SHARE
from msad_cli.errors import UsageError
from msad_cli.models.detectors.kinds import DETECTORS, Recipe, is_two_stage, recipe_of
from msad_cli.models.model_file import own_header
from msad_cli.models.spec import DetectorSpec
from msad_cli.models.weights.frozen import STAGES
from msad_cli.runs.folder import RunFolder, Setting
from msad_cli.runs.onlooker import Onlooker
from msad_cli.runs.reported_folder import ReportedFolder
from msad_cli.runs.trackers import parse_trackers
from msad_cli.system.device import Compute, choose_device, choose_precision, default_workers
from msad_cli.system.distributed import own_device, rank, size
from msad_cli.training.config import TrainingConfig
from msad_cli.training.defaults.machine import FROM_SCRATCH, IMAGES_ON_CPU, usual
from msad_cli.training.observer import Observer
from msad_cli.training.steps.averaging import USUAL_DECAY
from msad_cli.training.steps.optimiser import OPTIMISERS
from msad_cli.training.steps.schedule import BASE_BATCH, Decay, Schedule

COCO_IMAGES, COCO_EPOCHS, MOST_EPOCHS = 117_266, 12, 150
MANY_EVALUATIONS = 30
"""A training with more of them may end early."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The values of a run that do not depend on the method, and all settings for the record.

    Attributes:
        batch: images a step.
        unlabelled: how many of them have no labels.
        optimizer: a name of `OPTIMISERS`.
    """

    compute: Compute
    batch: int
    unlabelled: int = 0
    workers: int
    epochs: int
    optimizer: str
    schedule: Schedule
    eval_every: int
    patience: int = 0
    ema: float = 0.0
    settings: dict[str, Setting]

    @property
    def steps_per_epoch(self) -> int:
        return self.schedule.steps // self.epochs

    @property
    def labelled(self) -> int:
        """How many images of a batch have labels."""
        return self.batch - self.unlabelled


def choose(
    config: TrainingConfig,
    images: int,
    detector: str,
    init: str = "",
    width: float = 1.0,
    within: tuple[int, str] | None = None,
) -> Choices:
    """Fills in what was not asked for, for a training split of so many images.

    Args:
        detector: what is trained.
        init, width: where its backbone starts from, and the factor on its channels.
        within: the epochs that fit into a time, in place of the usual ones, and why.

    Raises:
        UsageError: a value that cannot be.
        DeviceError: the device cannot be used.
    """
    settings: dict[str, Setting] = {}

    def pick(name: str, computed: Callable[[], tuple[Any, str]]) -> Any:
        typed = getattr(config, name)
        value, reason = (typed, "") if typed is not None else computed()
        settings[name] = Setting(value, "flag" if typed is not None else "auto", reason)
        return value

    compute = _choose_compute(config, settings)
    large = compute.device.type != "cpu"
    known, recipe = DETECTORS.get(detector), recipe_of(detector)
    count = usual(compute.device).batch[is_two_stage(detector)]
    why = "a GPU; computed in parts where its memory is too small" if large else "no GPU"
    batch = min(pick("batch", lambda: (count, why) if count >= size() else (size(), "processes")), images)
    if batch < settings["batch"].value:
        settings["batch"] = Setting(batch, "auto", "all images of the training split")
    workers = pick("workers", lambda: default_workers(compute.device))
    epochs = pick("epochs", lambda: within or _epochs(images, large))
    published = "as its authors trained it" if recipe != Recipe() else "as detectors are usually trained"
    optimizer = pick("optimizer", lambda: (recipe.optimizer, published))
    decay = pick("decay", lambda: (recipe.decay, published))
    _refuse_unknown("--optimizer", optimizer, OPTIMISERS)
    _refuse_unknown("--decay", decay, get_args(Decay))
    _refuse_unknown("--keep", config.keep, ("best", "last"))
    fast = init.split(",", maxsplit=1)[0] == FROM_SCRATCH and width < 1 and known is not None and known.fast_start
    own = recipe.learning_rate if optimizer == recipe.optimizer else None
    rate = pick("lr", lambda: _rate(optimizer, batch, fast, own))
    ema = pick("ema", lambda: (USUAL_DECAY, "of about a ninth of the run at first"))
    unlabelled = _unlabelled(batch, config.unlabelled_part)
    steps = epochs * (images // (batch - unlabelled))
    warmup = pick("warmup", lambda: (min(500, steps // 10), "a tenth of the run, at most 500 steps"))
    eval_every = pick("eval_every", lambda: (usual_eval_every(epochs), "20 evaluations in a run"))
    patience = pick("patience", lambda: _patience(math.ceil(epochs / eval_every)))
    frozen_stages(config.freeze)
    if not rate > 0:
        raise UsageError(f"--lr {rate}: has to be positive", code="number-out-of-range")
    schedule = Schedule(rate, steps, warmup, decay)
    return Choices(
        compute=compute,
        batch=batch,
        unlabelled=unlabelled,
        workers=workers,
        epochs=epochs,
        optimizer=optimizer,
        schedule=schedule,
        eval_every=eval_every,
        patience=patience,
        ema=ema,
        settings=settings,
    )


def _refuse_unknown(flag: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise UsageError(f"{flag} {value}: unknown", f"give {' or '.join(known)}", code="unknown-value")


def _unlabelled(batch: int, share: float) -> int:
    if not share:
        return 0
    if batch < 2:
        raise UsageError(
            f"--batch {batch}: no room for an image with labels and one without",
            "add --batch 2, or more",
            code="batch-too-small",
        )
    return min(batch - 1, max(1, round(share * batch)))


def _choose_compute(config: TrainingConfig, settings: dict[str, Setting]) -> Compute:
    place, reason = choose_device(config.device)
    settings["device"] = Setting(str(place), "auto" if config.device == "auto" else "flag", reason)
    place = own_device(place)
    if size() > 1:
        settings["processes"] = Setting(size(), "auto", "torchrun; each has its share of every batch")
    kind, reason = choose_precision(config.precision, place)
    settings["precision"] = Setting(kind, "auto" if config.precision == "auto" else "flag", reason)
    return Compute(place, kind)


def in_two_steps(choices: Choices) -> Choices:
    """The choices of a run whose last epochs train the fusion alone, with a schedule of their own.

    Raises:
        UsageError: there are not two epochs.
    """
    if choices.epochs < 2:
        raise UsageError(
            "--strategy two-step: a single epoch has no two steps", "add --epochs 4, or more", code="too-few-epochs"
        )
    last = max(1, round(FUSION_SHARE * choices.epochs))
    restart = (choices.epochs - last) * choices.steps_per_epoch
    return replace(choices, schedule=replace(choices.schedule, restart=restart))


def _epochs(images: int, large: bool) -> tuple[int, str]:
    # COCO's 12, growing with the square root as sets get smaller: a small set needs more passes but fewer steps.
    epochs = int(min(MOST_EPOCHS, max(COCO_EPOCHS, round(COCO_EPOCHS * (COCO_IMAGES / images) ** 0.5))))
    within = max(COCO_EPOCHS, math.ceil(IMAGES_ON_CPU / images))
    if large or within >= epochs:
        return epochs, f"{images} training images"
    return within, f"no GPU: {IMAGES_ON_CPU} images in all, or {COCO_EPOCHS} epochs; with one {epochs}"


def _rate(optimizer: str, batch: int, fast: bool, of_detector: float | None) -> tuple[float, str]:
    own = OPTIMISERS[optimizer]
    base = of_detector or own.learning_rate
    rate, words = base * batch / BASE_BATCH, f"{base} × batch / {BASE_BATCH}"
    if fast and own.from_scratch != 1:
        return rate * own.from_scratch, f"{words} × {own.from_scratch:g}: a narrow network from scratch"
    return rate, words


def usual_eval_every(epochs: int) -> int:
    """Epochs between evaluations: some twenty in a run."""
    return max(1, epochs // 20)


def frozen_stages(freeze: str | None) -> int:
    """How many stages of the backbone `--freeze` means.

    Raises:
        UsageError: neither `backbone` nor a number of its stages.
    """
    if freeze in (None, "backbone"):
        return STAGES if freeze else 0
    if freeze not in map(str, range(STAGES + 1)):
        raise UsageError(
            f"--freeze {freeze}: unknown", f"give backbone, or a number of stages up to {STAGES}", code="unknown-value"
        )
    return int(freeze)


def _patience(evaluations: int) -> tuple[int, str]:
    # Half of them: with the rate divided by ten at 2/3 of a run, the best so far of a run that is worth its time falls
    # into that half.
    if evaluations <= MANY_EVALUATIONS:
        return 0, f"never ends early: not more than {MANY_EVALUATIONS} evaluations"
    return evaluations // 2, f"half of {evaluations} evaluations without a better one end the run"


@contextmanager
def invalid_values_named(hint: str) -> Iterator[None]:
    """Turns a value that a spec refuses into a usage error with this hint."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error), hint, code="setting-refused") from None


def choose_norm(norm: str, init: str, detector: str, partial: bool = False) -> Setting:
    """The backbone's normalisation: `auto` freezes pretrained statistics and from scratch takes the detector's.

    Args:
        detector: a name; the COCO weights of some are trained on with batch statistics.
        partial: whether a part of the backbone may start at random.

    Raises:
        ModelFileError: `init` is a file of msad's, but broken.
    """
    if norm != "auto":
        return Setting(norm, "flag")
    if partial:
        return Setting("group", "auto", "with --init-partial some layers start at random, and have no statistics")
    if init == "none":
        own = recipe_of(detector).norm
        why = "each resolution has statistics of its own" if own == "batch" else "resolutions share no batch statistics"
        return Setting(own, "auto", f"from scratch; {why}")
    if (header := own_header(Path(init))) is not None:
        return Setting(header[0].norm, "auto", f"as in {init}")
    kept = DETECTORS[detector].coco_norm if init == "coco" and detector in DETECTORS else "frozen"
    return Setting(kept, "auto", "pretrained weights")


def choose_head_norm(
    asked: str, norm: str, init: str, spec: DetectorSpec, recorded: Mapping[str, Setting] | None
) -> dict[str, Setting]:
    """`head_norm`: with `--norm batch` batch statistics too, which cost nothing once they are folded into convolutions;
    nothing for a detector that has no choice.

    Args:
        asked, norm, init: the flags; published COCO weights have groups.
        spec: of the model, with what its head has else: that of a student's teacher.
        recorded: the settings of a run that goes on; older versions knew groups alone.

    Raises:
        UsageError: it was asked for, and there is no choice.
    """
    if not DETECTORS[spec.detector].head_norm:
        if asked not in ("auto", spec.head_norm):
            raise UsageError(
                f"--head-norm {asked}: the head of {spec.detector} has no choice",
                "leave it out; RTMDet's head follows --norm",
                code="setting-without-effect",
            )
        return {}
    if recorded is not None:
        return {"head_norm": recorded.get("head_norm", Setting("group", "auto"))}
    if asked != "auto":
        return {"head_norm": Setting(asked, "flag")}
    if norm == "batch" and "coco" not in init.split(","):
        return {"head_norm": Setting("batch", "auto", "as --norm")}
    return {"head_norm": Setting(spec.head_norm, "default" if spec.head_norm == "group" else "auto")}


def claim_output(config: TrainingConfig, observer: Observer) -> RunFolder:
    """The run folder beside a model file that may be written; processes after the first only look on.

    Args:
        observer: is told of a tracker that fails; beside a silent one trackers print nothing either.

    Raises:
        UsageError: not a .safetensors name, a folder, a result that exists, or a tracker that cannot be used.
    """
    out = config.out
    assert out is not None
    if out.suffix != ".safetensors":
        raise UsageError(
            f"--out {out}: a model file's name ends in .safetensors",
            f"--out {out.with_suffix('.safetensors')}",
            code="out-name-refused",
        )
    if out.is_dir():
        raise UsageError(
            f"--out {out}: a folder", "give the name of a file that does not exist yet", code="out-is-a-folder"
        )
    trackers = parse_trackers(config.log)
    own = ReportedFolder(out, trackers, None if observer.silent else observer.say)
    folder = own if rank() == 0 else Onlooker(out)
    replaces = config.resume or config.overwrite or config.dry_run
    if not replaces and (out.exists() or folder.resumable):
        what = out if out.exists() else folder.path
        raise UsageError(
            f"{what} exists",
            "add --overwrite, --resume an interrupted run, or choose another --out",
            code="result-exists",
        )
    return folder
