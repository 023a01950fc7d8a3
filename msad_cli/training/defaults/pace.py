"""How long a training will take here: a few of its own steps are timed before it begins."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from msad_cli.data.loading.dataset import Batch, TrainingSet, first_batch
from msad_cli.distillation.distillation import Distillation, teaching
from msad_cli.distillation.losses.table import build_distillers, suitable_methods
from msad_cli.models.detector import Detector
from msad_cli.models.spec import View
from msad_cli.system import distributed
from msad_cli.system.contention import CoreTime
from msad_cli.system.device import Compute, is_out_of_memory, to_device
from msad_cli.text import duration
from msad_cli.training.config import TrainingConfig
from msad_cli.training.observer import Observer
from msad_cli.training.plan import Choices

TIMED = 3
"""Steps. The first one is slower than all others, and does not count where there are more."""
SLOW = 20.0
"""Seconds of a step after which no other one is timed."""
WORTH_TIMING = 100
"""Steps of a run from which on it is worth it; a shorter one shows soon how long it takes."""
A_DAY = 86_400.0


@dataclass(frozen=True)
class Pace:
    """Seconds of a step and, in evaluation, of an image by all of a model's views."""

    step: float
    image: float

    def seconds(self, epochs: int, steps_per_epoch: int, evaluations: int, validation: int) -> float:
        """Of a run, which looks at so many validation images in each evaluation."""
        return self.step * epochs * steps_per_epoch + self.image * validation * evaluations

    def of(self, choices: Choices, validation: int) -> float:
        """Seconds of a run of these choices."""
        evaluations = math.ceil(choices.epochs / choices.eval_every)
        return self.seconds(choices.epochs, choices.steps_per_epoch, evaluations, validation)


def pace_of(module: nn.Module, detector: Detector, training: TrainingSet, choices: Choices) -> Pace | None:
    """What a step and an evaluated image take: the module is called and gets gradients, which nobody applies.

    Args:
        module: what trains `detector`; neither is to be trained afterwards.

    Returns:
        None where no image of the first batch can be read, or memory runs out: the run will find its own way.
    """
    compute, workers = choices.compute, choices.workers
    start = time.perf_counter()
    batch = first_batch(training, choices.batch, max(1, choices.batch // distributed.size()))
    reading = (time.perf_counter() - start) / max(1, workers)
    if not batch.samples:
        return None
    try:
        module.to(compute.device).train()
        step = _median(lambda: _step(module, batch, compute), compute)
        detector.eval()
        views = detector.spec.views
        image = _median(lambda: _looks(detector, views, batch, compute), compute) / len(batch.samples)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    of_image = reading / len(batch.samples)
    if workers:  # they read ahead
        return Pace(max(step, reading), max(image, of_image))
    return Pace(step + reading, image + of_image)


def _step(module: nn.Module, batch: Batch, compute: Compute) -> None:
    views, targets = to_device(batch.views, batch.targets, compute.device)
    with compute.autocast():
        losses = module(views, targets)
    torch.stack([each.float() for each in losses.values()]).sum().backward()
    module.zero_grad(set_to_none=True)


def _looks(detector: Detector, views: Sequence[View], batch: Batch, compute: Compute) -> None:
    images, _ = to_device(batch.views, batch.targets, compute.device)
    with torch.inference_mode(), compute.autocast():
        for view in views:
            detector.detect(images, view)


def _median(run: Callable[[], None], compute: Compute) -> float:
    """Median seconds of a few calls, the first of which does not count."""
    taken: list[float] = []
    while len(taken) < TIMED and not (taken and taken[-1] > SLOW):
        start = time.perf_counter()
        run()
        if compute.device.type != "cpu":
            torch.accelerator.synchronize(compute.device)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:] or taken)


def student_pace(teacher: Detector, training: TrainingSet, choices: Choices) -> Pace | None:
    """The pace of the student that such a teacher has by default: its smallest view, its network, its methods."""
    spec = teacher.spec
    student = Detector(replace(spec, role="student", ks=spec.ks[-1:]))
    methods = dict.fromkeys(suitable_methods(spec.dense), 1.0)
    distillers = build_distillers(student.spec, spec, methods)
    module = Distillation(student, teaching(teacher, student), distillers)
    return pace_of(module, student, training, choices)


def say_time(
    config: TrainingConfig,
    observer: Observer,
    choices: Choices,
    validation: int,
    timed: Callable[[], Mapping[str, Pace | None]],
) -> None:
    """A line on how long a run will take here, and one where others use its cores; none of a short run, and of one that
    goes on.

    Args:
        validation: images of an evaluation.
        timed: by what is trained, its pace.
    """
    if observer.silent or config.resume or choices.schedule.steps < WORTH_TIMING:
        return
    before = CoreTime.so_far()
    paces = timed()
    after = CoreTime.so_far()
    observer.say(words({name: each.of(choices, validation) for name, each in paces.items() if each}))
    if before and after and choices.compute.device.type == "cpu":
        advice = after.since(before).advice(torch.get_num_threads())
        if advice:
            observer.say(advice)


def words(parts: Mapping[str, float]) -> str:
    """`about 2 h 10 min on this machine (teacher 1 h 20 min, student 50 min)`, and what helps where it is days."""
    if not parts:
        return "how long it takes here could not be measured"
    total = sum(parts.values())
    each = ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts.items())
    more = f" ({each})" if len(parts) > 1 else ""
    help_ = "; --budget-time 2h chooses epochs and size that take two hours" if total > A_DAY else ""
    return f"about {duration(total)} on this machine{more}{help_}"
