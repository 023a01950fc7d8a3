"""How long the trainings take here, and how many epochs fit into the time."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from msad_cli.data.loading.dataset import TrainingSet
from msad_cli.distillation.aligned_teacher import AlignedTraining
from msad_cli.distillation.baselines import UnshiftedTraining
from msad_cli.distillation.distillation import Distillation
from msad_cli.errors import UsageError
from msad_cli.fitting.choice.candidates import Candidate
from msad_cli.fitting.choice.facts import Facts
from msad_cli.models.detector import Detector
from msad_cli.models.spec import DetectorSpec
from msad_cli.text import duration
from msad_cli.training.augmentation import choose_augmentation
from msad_cli.training.config import TeacherConfig
from msad_cli.training.defaults.budget import MARGIN
from msad_cli.training.defaults.pace import Pace, pace_of, student_pace
from msad_cli.training.plan import Choices, choose


@dataclass(frozen=True)
class Speed:
    """What a training takes here.

    Attributes:
        usual: its epochs, unless anybody says.
        epoch: seconds of one, its share of evaluations among them.
    """

    usual: int
    epoch: float


Timed = Callable[[], Speed]


@dataclass(frozen=True)
class Epochs:
    """What is trained for how long.

    Attributes:
        teacher, student, control: epochs; 0 of one that there is not.
        seconds: that all of them take.
        share: of the usual epochs.
    """

    teacher: int
    student: int
    control: int
    seconds: float
    share: float


def training_of(spec: DetectorSpec, facts: Facts, device: str, init: str) -> tuple[TrainingSet, Choices]:
    """The images of a training by `msad teacher`, and its choices."""
    config = TeacherConfig(data=facts.data, device=device)
    choices = choose(config, len(facts.train), spec.detector, init, spec.width)
    augmentation, _ = choose_augmentation(config, facts.train, spec.detector, choices.epochs)
    return TrainingSet(facts.train, spec.resolution, spec.ks, config.seed, augmentation, spec.phase), choices


def speed_of(candidate: Candidate, facts: Facts, device: str) -> Speed:
    """That of a student which is trained alone, or of a plain detector: three of its steps are timed."""
    training, choices = training_of(candidate.spec, facts, device, candidate.network.init)
    detector = Detector(candidate.spec)
    module = UnshiftedTraining(detector) if candidate.plain else Distillation(detector, None, {})
    return _speed(pace_of(module, detector, training, choices), choices, len(facts.val))


def speeds_with_teacher(teacher: DetectorSpec, facts: Facts, device: str, init: str) -> tuple[Speed, Speed]:
    """Those of a teacher, and of a student of its network that learns by the default method."""
    training, choices = training_of(teacher, facts, device, init)
    detector = Detector(teacher)
    own = pace_of(AlignedTraining(detector), detector, training, choices)
    taught = student_pace(Detector(teacher), training, choices)
    return _speed(own, choices, len(facts.val)), _speed(taught, choices, len(facts.val))


def teacher_spec(candidate: Candidate, backbone: str | None) -> DetectorSpec:
    """The teacher of a student, of the HR image and of the student's.

    Args:
        backbone: another one, of full width.
    """
    spec = replace(candidate.spec, role="teacher", ks=(1, candidate.k))
    return spec if backbone is None else replace(spec, backbone=backbone, width=1.0)


def _speed(pace: Pace | None, choices: Choices, validation: int) -> Speed:
    if pace is None:
        raise UsageError(
            "no step could be timed: no image of the first batch can be read, or memory is too small",
            "msad data check DIR --decode says which; a smaller --size or --batch needs less memory",
            code="pace-unknown",
        )
    return Speed(choices.epochs, pace.of(choices, validation) / choices.epochs)


def fit_epochs(
    student: Speed,
    control: Speed | None,
    seconds: float,
    teacher: Speed | None = None,
    teacher_epochs: int | None = None,
) -> Epochs:
    """As many epochs as fit into a time, at most the usual ones.

    A student alone is trained for the epochs that teacher and student would have together, and so is the control: all
    that is compared has seen every image equally often.

    Args:
        seconds: there are.
        teacher: where there is one.
        teacher_epochs: where they were typed.
    """
    first = teacher_epochs or student.usual
    wanted = {
        "teacher": (teacher, first),
        "student": (student, student.usual if teacher else 2 * student.usual),
        "control": (control, first + student.usual),
    }
    trained = {name: (speed.epoch, epochs) for name, (speed, epochs) in wanted.items() if speed is not None}
    kept = {"teacher"} & trained.keys() if teacher_epochs else set()
    whole = {name: epoch * epochs for name, (epoch, epochs) in trained.items()}
    there = MARGIN * seconds - sum(whole[name] for name in kept)
    share = min(1.0, max(0.0, there) / sum(each for name, each in whole.items() if name not in kept))
    counts = {
        name: epochs if name in kept else max(1, math.floor(share * epochs)) for name, (_, epochs) in trained.items()
    }
    taken = sum(epoch * counts[name] for name, (epoch, _) in trained.items())
    return Epochs(counts.get("teacher", 0), counts["student"], counts.get("control", 0), taken, share)


def refused_if_longer(epochs: Epochs, seconds: float) -> Epochs:
    """The epochs, where they fit into a time.

    Raises:
        UsageError: not even one of each does.
    """
    if epochs.seconds > seconds:
        raise UsageError(
            f"--time {duration(seconds)}: too short, the trainings take {duration(epochs.seconds)} at least",
            "give more time, --no-control, or a smaller --budget",
            code="budget-too-short",
        )
    return epochs
