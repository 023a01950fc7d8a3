"""Running a training to its end: what teacher and distill share once their module is assembled."""

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from msad_cli import __version__
from msad_cli.commands.console import announce_interruption, console, grouped, reporting
from msad_cli.commands.settings import Choices
from msad_cli.data.coco import CocoSplit
from msad_cli.data.loading import TrainingSet, training_loader
from msad_cli.engine.device import peak_memory
from msad_cli.engine.evaluate import Scores, ground_truth, score, view_results
from msad_cli.engine.model_file import Card, fingerprint, save_model
from msad_cli.engine.plots import LOSS, plot_run
from msad_cli.engine.run_folder import RunFolder, without_nan
from msad_cli.engine.schedule import sgd
from msad_cli.engine.train import Step, train
from msad_cli.models.detector import Detector
from msad_cli.structures.errors import TrainingError, UsageError

PATIENCE = 10
"""So many steps in a row that are not finite end a run."""
CHECKPOINT_SECONDS = 300.0


@dataclass
class Progress:
    """What a run has to remember between steps, beside parameters: all of it goes into the resume state."""

    step: int = 0
    images: int = 0
    seconds: float = 0.0
    finite: int = 0
    skipped_in_a_row: int = 0
    losses: dict[str, float] | None = None

    def add(self, step: Step) -> None:
        """Counts a step in."""
        self.step = step.number
        self.images, self.seconds = self.images + step.images, self.seconds + step.seconds
        self.skipped_in_a_row = 0 if step.finite else self.skipped_in_a_row + 1
        if step.finite:
            self.finite += 1
            values = {**step.losses, **grouped(step.losses), "total": sum(step.losses.values())}
            sums = self.losses or {}
            self.losses = {name: sums.get(name, 0.0) + value for name, value in values.items()}

    def row(self, epoch: int, rate: float) -> dict[str, float]:
        """The epoch's row of results.csv; starts the sums anew."""
        means = {f"{LOSS}{name}": value / max(1, self.finite) for name, value in (self.losses or {}).items()}
        row = {"epoch": epoch, "lr": rate, "images/s": self.images / max(1e-9, self.seconds), **means}
        self.images, self.seconds, self.finite, self.losses = 0, 0.0, 0, None
        return row


@dataclass(frozen=True)
class Run:
    """A training that is ready to start.

    Attributes:
        module: yields the losses; trains `detector`.
        card: what is already known of the model to be written.
        ema: decay of the averaged weights, 0 for none.
    """

    module: nn.Module
    detector: Detector
    training: TrainingSet
    validation: CocoSplit
    choices: Choices
    out: Path
    folder: RunFolder
    card: Card
    clip: float
    ema: float
    resume: bool
    quiet: bool


def fit(run: Run) -> dict[str, Scores]:
    """Trains to the end, writes the model file, and returns the scores of all views of the model that was written.

    Raises:
        TrainingError: too many steps in a row were not finite.
        KeyboardInterrupt: interrupted; the state to resume from is written.
    """
    choices = run.choices
    device = choices.compute.device
    run.module.to(device)
    run.detector.to(device)
    optimiser = sgd(run.module, choices.schedule.learning_rate)
    scaler = torch.amp.GradScaler(device.type) if choices.compute.precision == "fp16" else None
    average = AveragedModel(run.detector, multi_avg_fn=get_ema_multi_avg_fn(run.ema)) if run.ema else None
    parts = {"module": run.module, "optimiser": optimiser, "scaler": scaler, "average": average}
    progress = _restore(run, parts) if run.resume else Progress()
    final: nn.Module = average.module if average is not None else run.detector
    assert isinstance(final, Detector)
    loader = training_loader(run.training, choices.batch, choices.workers, progress.step, choices.schedule.steps)
    steps = train(
        run.module, loader, optimiser, choices.schedule, choices.compute,
        first_step=progress.step, clip=run.clip, scaler=scaler,
    )  # fmt: skip
    saved = time.monotonic()
    scores: dict[str, Scores] = {}
    with (
        reporting(choices.schedule.steps, choices.steps_per_epoch, progress.step, run.quiet) as reporter,
        _signals() as caught,
    ):
        for step in steps:
            progress.add(step)
            if average is not None and step.finite:
                average.update_parameters(run.detector)
            line = reporter.show(step)
            if progress.skipped_in_a_row >= PATIENCE:
                raise TrainingError(
                    f"{PATIENCE} steps in a row were not finite, up to step {step.number}", "lower --lr"
                )
            ended, rest = divmod(step.number, choices.steps_per_epoch)
            if rest == 0:
                run.folder.log(line)
                scores = _end_epoch(run, final, progress, ended, step)
            if rest == 0 or caught or time.monotonic() - saved > CHECKPOINT_SECONDS:
                _save(run, parts, progress)
                saved = time.monotonic()
            if caught and step.number < choices.schedule.steps:
                announce_interruption(step.number, run.out)
                raise KeyboardInterrupt(caught[0])
    scores = scores or _evaluate(run, final)
    _write(run, final, scores)
    return scores


def _end_epoch(run: Run, final: Detector, progress: Progress, epoch: int, step: Step) -> dict[str, Scores]:
    row = progress.row(epoch, step.learning_rate)
    memory = peak_memory(run.choices.compute.device)
    if not math.isnan(memory):
        row["memory_mib"] = round(memory)
    scores = {}
    if epoch % run.choices.eval_every == 0 or epoch == run.choices.epochs:
        scores = _evaluate(run, final)
        for view, each in scores.items():
            row |= {f"{name}/{view}": value for name, value in each.numbers.items() if not math.isnan(value)}
        words = "  ".join(f"{view} {100 * each.numbers['AP']:.1f}" for view, each in scores.items())
        line = f"epoch {epoch}/{run.choices.epochs}  loss {row.get(LOSS + 'total', 0):.3f}  AP {words}"
        run.folder.log(line)
        if not run.quiet:
            console.print(line)
    plot_run(run.folder.add_row(row), run.folder.path / "plots")
    return scores


def _evaluate(run: Run, detector: Detector) -> dict[str, Scores]:
    compute, workers = run.choices.compute, run.choices.workers
    truth = ground_truth(run.validation)
    return {
        view: score(truth, view_results(detector, run.validation, view, compute, workers))
        for view in detector.spec.views
    }


def _write(run: Run, detector: Detector, scores: dict[str, Scores]) -> None:
    best = scores[detector.spec.views[0]]
    card = Card(
        data=run.card.data,
        data_fingerprint=fingerprint(run.training.split.file),
        epochs=run.choices.epochs,
        scores=without_nan({view: each.numbers for view, each in scores.items()}),
        score_threshold=best.threshold,
        teacher=run.card.teacher,
        msad_version=__version__,
    )
    save_model(run.out, detector, card)
    run.folder.finish({view: each.to_json() for view, each in scores.items()})


def _save(run: Run, parts: dict[str, Any], progress: Progress) -> None:
    state = {name: part.state_dict() for name, part in parts.items() if part is not None}
    run.folder.save_state({**state, "progress": vars(progress), "spec": run.detector.spec.to_json()})


def _restore(run: Run, parts: dict[str, Any]) -> Progress:
    state = run.folder.load_state()
    now = run.detector.spec.to_json()
    changed = [name for name, value in state["spec"].items() if value != now[name]]
    if changed:
        name = changed[0]
        raise UsageError(
            f"cannot resume: {name} was {state['spec'][name]} and is now {now[name]}", "start with --overwrite"
        )
    for name, part in parts.items():
        if part is not None and name in state:
            part.load_state_dict(state[name])
    return Progress(**state["progress"])


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that receives the number of the first SIGINT or SIGTERM; a second one acts as it always does."""
    caught: list[int] = []
    before: dict[signal.Signals, Any] = {}

    owner = os.getpid()

    def catch(number: int, _frame: object) -> None:
        if os.getpid() != owner:
            return  # a loader worker, which a terminal's Ctrl-C reaches too; it lives until the loader ends
        caught.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)
        console.print("stopping after this step; once more ends at once")

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, catch)
    try:
        yield caught
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
