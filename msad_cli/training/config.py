"""What a training is asked for: the settings of `msad teacher` and `msad distill`, each once. Imports no torch.

A field is the flag of its name, with `_` for `-`. None stands for a value that follows from the machine, the data or
the teacher. What a field means is said once, where the flags are: cli/options.py and the two commands.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msad_cli.errors import UsageError
from msad_cli.runs.folder import CONTROL
from msad_cli.text import MOST_PIXELS, name_files, parse_duration, parse_zoom, refuse_out_of_range

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn
    from torch.utils.data import Dataset

    from msad_cli.models.spec import Role
    from msad_cli.training.steps.loop import Step

PYTHON_ONLY = frozenset({"on_step", "losses"})
"""Fields that hold objects: they have no flag, and args.json does not record them."""
UNRECORDED = frozenset({"out", "resume", "finish", "overwrite", "dry_run", "quiet", "time", "checkpoint"}) | PYTHON_ONLY
"""Fields that args.json does not hold: they are of a single call."""
LIMITS: "dict[str, tuple[float, float | None]]" = {
    "epochs": (1, None),
    "batch": (1, None),
    "warmup": (0, None),
    "clip": (0.01, None),
    **dict.fromkeys(("fliplr", "flipud", "turn", "photo", "mosaic", "mixup"), (0.0, 1.0)),
    "ema": (0.0, 0.99999),
    "eval_every": (1, None),
    "patience": (0, None),
    "workers": (0, 128),
    "bits": (1, 32),
    "lambda_": (0.0, None),
    "detection_weight": (0.0, None),
    "gamma": (0.0, None),
    "tau": (0.0, None),
    "distill_warmup": (0, None),
    "unlabelled_share": (0.01, 0.99),
}
"""The least and the largest value of a field, where there are any."""
AUTO = "auto"
"""What stands for a value that nobody gave, where files have to say so."""
BUDGET = "--budget-time"
LEVELS_OF_AUGMENTATION = ("off", "light", "strong")
PATHS = frozenset({"teacher", "train_json", "val_json", "train_images", "val_images", "out"})


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What both trainings share.

    Attributes:
        data: the folder or file of a set, or `demo`; from Python also two datasets, for training and validation, of
            images and targets as torchvision's detectors take them (`data/writers/datasets.py`).
        on_step: is called after each step, from Python alone.

    Raises:
        UsageError: a number is out of range, no such augmentation, or a time that is none.
    """

    data: "str | tuple[Dataset[Any], Dataset[Any]] | None" = None
    train_json: Path | None = None
    val_json: Path | None = None
    train_images: Path | None = None
    val_images: Path | None = None
    crowd_as_objects: bool = False
    join_classes: bool = False
    epochs: int | None = None
    budget_time: str | None = None
    batch: int | None = None
    lr: float | None = None
    decay: str | None = None
    warmup: int | None = None
    clip: float = 10.0
    freeze: str | None = None
    class_weights: str | None = None
    optimizer: str | None = None
    ema: float | None = None
    eval_every: int | None = None
    keep: str = "best"
    patience: int | None = None
    device: str = "auto"
    precision: str = "auto"
    compile_: bool = False
    workers: int | None = None
    cache: str = "off"
    max_pixels: str = MOST_PIXELS
    bits: int | None = None
    exif: str | None = None
    augment: str = "light"
    fliplr: float | None = None
    flipud: float | None = None
    turn: float | None = None
    zoom: str | None = None
    photo: float | None = None
    mosaic: float | None = None
    mixup: float | None = None
    seed: int = 0
    out: Path | None = None
    resume: bool = False
    finish: bool = False
    overwrite: bool = False
    time: str | None = None
    checkpoint: str = "5m"
    log: str | None = None
    dry_run: bool = False
    quiet: bool = False
    on_step: "Callable[[Step], None] | None" = None

    @property
    def unlabelled_part(self) -> float:
        """How much of each batch is to have no labels; of what learns from no teacher nothing."""
        return 0.0

    def __post_init__(self) -> None:
        name_files(self, PATHS)
        refuse_out_of_range(self, LIMITS)
        if self.augment not in LEVELS_OF_AUGMENTATION:
            raise UsageError(f"--augment {self.augment}: unknown", "give off, light or strong", code="unknown-value")
        parse_zoom(self.zoom)
        if self.budget_time is not None:
            parse_duration(BUDGET, self.budget_time)


ALONE = "alone"
"""The scales of a student that learns without a teacher: the one low view, on the aligned grid."""
ROLES: "dict[str, Role]" = {"aligned": "teacher", ALONE: "student"}
"""What is trained by scales that make no baseline."""


@dataclass(frozen=True, kw_only=True)
class TeacherConfig(TrainingConfig):
    """What a teacher, or a baseline, is asked for."""

    k: str | None = None
    detector: str | None = None
    backbone: str | None = None
    width: float | None = None
    head_channels: int | None = None
    head_convs: int | None = None
    head_depthwise: bool = False
    size: str | None = None
    init: str | None = None
    init_partial: bool = False
    norm: str = "auto"
    head_norm: str = "auto"
    scales: str = "aligned"
    phase: str = "centre"
    fusion: str = "c-ff"
    strategy: str = "joint"
    lambda_: float = 0.4
    rois: int | None = None
    sigmas: str | None = None

    @property
    def usual_out(self) -> Path:
        """The model file that is written unless `out` says."""
        return Path(f"{ROLES.get(self.scales, self.scales)}.safetensors")


@dataclass(frozen=True, kw_only=True)
class DistillConfig(TrainingConfig):
    """What a student is asked for.

    Attributes:
        losses: distillation losses of one's own, by name, from Python alone: modules that are called with the
            `Knowledge` of student and teacher and the targets, and answer with named losses. They are trained along.
            Targets of unlabelled images have neither boxes nor labels.
    """

    teacher: Path | None = None
    k: str | None = None
    detector: str | None = None
    backbone: str | None = None
    width: float | None = None
    low_backbone: str | None = None
    low_width: float | None = None
    head_channels: int | None = None
    head_convs: int | None = None
    head_depthwise: bool = False
    init: str = "auto"
    init_partial: bool = False
    norm: str = "auto"
    head_norm: str = "auto"
    no_distill: bool = False
    method: str | None = None
    weight: str | None = None
    aligned: bool = True
    cache_teacher: str | None = None
    afp: str = "resize"
    assistant_method: str | None = None
    detection_weight: float = 1.0
    gamma: float = 0.2
    tau: float = 3.0
    distill_warmup: int | None = None
    unlabelled: str | None = None
    unlabelled_share: float = 0.5
    losses: "Mapping[str, nn.Module]" = field(default_factory=dict)

    @property
    def unlabelled_part(self) -> float:
        """How much of each batch is to have no labels; 0 where no such images are named."""
        return 0.0 if self.unlabelled is None else self.unlabelled_share

    @property
    def usual_out(self) -> Path:
        """The model file that is written unless `out` says."""
        return Path(CONTROL if self.no_distill else "student.safetensors")


Config = TypeVar("Config", TeacherConfig, DistillConfig)


@dataclass(frozen=True)
class Asked(Generic[Config]):
    """A configuration, and where its values come from.

    Attributes:
        typed: names of the fields that somebody gave.
        recalled: names of those that a run to be resumed had recorded.
    """

    config: Config
    typed: frozenset[str]
    recalled: frozenset[str] = frozenset()

    def source(self, name: str) -> str:
        """Where the value of a field comes from, as a `Setting` says it."""
        return "flag" if name in self.typed else "default"
