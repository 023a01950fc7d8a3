"""Running a training to its end: what teacher and distill share once their module is assembled."""

import contextlib
import math
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from msad_cli import __version__
from msad_cli.data.loading.dataset import same_place, tolerate, training_loader
from msad_cli.errors import DataError, DeviceError, MsadError, OutputError, TrainingError, UsageError
from msad_cli.evaluation.detect_split import EVALUATION_BATCH, Detected, put_together, view_results
from msad_cli.evaluation.ground_truth import ground_truth
from msad_cli.evaluation.metrics import Result, Scores, oks_sigmas, score
from msad_cli.models.backbones.normalisation import synchronised
from msad_cli.models.compiled import compile_parts
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import save_model
from msad_cli.models.spec import View
from msad_cli.runs import report
from msad_cli.runs.folder import without_nan
from msad_cli.runs.plots.epochs import LOSS
from msad_cli.system import distributed
from msad_cli.system.device import peak_memory
from msad_cli.training.interruption import Interruption, interruptible
from msad_cli.training.observer import Observer, Speed
from msad_cli.training.resume import changes
from msad_cli.training.run import Outcome, Run
from msad_cli.training.steps.loop import Step, train
from msad_cli.training.steps.schedule import sgd
from msad_cli.training.steps.state import Progress, TrainingState

PATIENCE = 10
"""So many steps in a row that are not finite end a run."""


class _Stopped(Exception):  # noqa: N818  # it is no error
    """The run was asked to stop, and has saved its state.

    Attributes:
        number: of the signal; 0 for the time limit.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def fit(run: Run, observer: Observer) -> Outcome:
    """Trains to the end and writes the model file, or saves its state where a signal or the time limit stops it.

    Of several processes the first one writes; all return the same, when the file is there.

    Raises:
        UsageError: there is another run's state, or another process, in the folder.
        TrainingError: too many steps in a row were not finite, a loader process died, another process of the run is
            gone, or the disk is full.
        DataError: too many images cannot be read.
        DeviceError: out of memory with a single image.
    """
    resume = run.config.resume
    started = "" if resume else distributed.from_first(run.initialise)
    distributed.like_first(run.module)
    training = _Training(run, observer)
    with run.folder.claimed():
        training.resume() if resume else training.start(started)
        try:
            scores = training.to_the_end()
            distributed.wait_for_all()
            return Outcome(run.folder.model, scores, run=run)
        except _Stopped as stop:
            return Outcome(run.folder.model, stopped=stop.number, command_to_resume=training.command_to_resume)
        except OutputError as error:
            hint = f"{error.hint}, then: {training.command_to_resume}" if run.folder.resumable else error.hint
            raise TrainingError(error.message, hint, code=error.code) from error


class _Training:
    def __init__(self, run: Run, observer: Observer) -> None:
        self.run = run
        self.observer = observer
        self.total, self.per_epoch = run.choices.schedule.steps, run.choices.steps_per_epoch
        self.compute = run.choices.compute
        self.progress = Progress(batch=run.choices.batch)
        self.said: set[str] = set()
        self.results: list[Result] = []  # of the last evaluation, by the model's best view
        self.command_to_resume = f"msad {run.command} --resume --out {shlex.quote(str(run.folder.model))}"
        if distributed.size() > 1:
            synchronised(run.module, self.compute.device)
        run.module.to(self.compute.device)
        run.detector.to(self.compute.device)
        compile_parts(run.compiled, self.compute.device)
        ema = run.config.ema
        average = AveragedModel(run.detector, multi_avg_fn=get_ema_multi_avg_fn(ema)) if ema else None
        scaler = torch.amp.GradScaler(self.compute.device.type) if self.compute.precision == "fp16" else None
        optimiser = sgd(run.module, run.choices.schedule.learning_rate)
        identity = {
            "spec": run.detector.spec.to_json(),
            "training annotations (SHA-256)": run.card.data_fingerprint,
            "teacher (SHA-256)": run.card.teacher,
        }
        self.state = TrainingState(run.module, optimiser, scaler, average, self.progress, identity)
        final = run.detector if average is None else average.module
        assert isinstance(final, Detector)
        self.final = final

    def start(self, started: str) -> None:
        """Begins the run folder; `started` says from which weights."""
        self.run.folder.start(self.run.settings, started)
        self.observer.say(started)
        report.show_training(self.run.folder, self.run.training, self.run.choices.batch)

    def resume(self) -> None:
        """Takes over the state of the run folder."""
        run, progress = self.run, self.progress
        state, remark = run.folder.load_state()
        try:
            self.state.restore(state)
        except ValueError as error:
            raise UsageError(
                f"cannot resume: {error}", "give what it was, or start anew with --overwrite", code="setting-changed"
            ) from None
        except (LookupError, TypeError, AttributeError, RuntimeError):
            raise UsageError(
                f"cannot resume: {run.folder.state} is of another version of msad",
                "start anew with --overwrite",
                code="state-of-another-version",
            ) from None
        if run.choices.epochs < progress.epochs:
            raise UsageError(
                f"cannot resume: {progress.epochs} epochs are done, more than --epochs {run.choices.epochs}",
                f"--epochs {progress.epochs} ends the run here",
                code="epochs-done-already",
            )
        progress.step = same_place(progress.step, len(run.training.split), progress.batch, run.choices.batch)
        progress.batch = run.choices.batch
        progress.unreadable.clear()  # they may have been mended
        differences = changes(run.folder.recorded(), run.settings)
        distributed.wait_for_all()  # until they have read what is overwritten now
        run.folder.record(run.settings)
        for line in (remark, f"going on after step {progress.step}", *(f"changed: {each}" for each in differences)):
            self._say(line)

    def to_the_end(self) -> dict[str, Scores]:
        """Trains, evaluates, writes the model file."""
        with (
            self.observer.watching(self.total, self.progress.step),
            interruptible(self.observer.say) as interruption,
        ):
            try:
                scores = self._epochs(interruption)
            except RuntimeError as error:
                if not distributed.is_loss_of_another(error):
                    raise
                raise self._after_saving(distributed.lost("what the others say tells why")) from error
        self._write(scores)
        return scores

    def _epochs(self, interruption: Interruption) -> dict[str, Scores]:
        """Trains, and returns the scores at the end."""
        run, progress = self.run, self.progress
        scores: dict[str, Scores] = {}
        if progress.step // self.per_epoch > progress.epochs:  # it was cut while evaluating
            scores = self._end_epoch(interruption)
            self._stop_if_asked(interruption, scores)
        speed, saved = Speed(self.total, self.per_epoch), time.monotonic()
        for step in self._steps():
            self._take_in(step, speed)
            ended = step.number % self.per_epoch == 0
            scores = self._end_epoch(interruption) if ended else {}
            self._stop_if_asked(interruption, scores)
            due = ended or time.monotonic() - saved >= run.clock.checkpoint
            if due and not progress.skipped_in_a_row:
                run.folder.save_state(self.state.to_save())
                saved = time.monotonic()
        scores = scores or self._evaluate(interruption)
        self._stop_if_asked(interruption, scores)
        return scores

    def _steps(self) -> Iterator[Step]:
        """The steps; an error that is none of the parameters' saves the state before it ends the run."""
        run, progress = self.run, self.progress
        loader = training_loader(
            run.training,
            run.choices.batch,
            run.choices.workers,
            progress.step,
            run.choices.schedule.steps,
            (distributed.rank(), distributed.size()),
            self.compute.pins,
        )
        try:
            yield from train(
                run.module,
                loader,
                self.state.optimiser,
                run.choices.schedule,
                self.compute,
                first_step=progress.step,
                clip=run.config.clip,
                scaler=self.state.scaler,
                parts=progress.parts,
                seed=run.training.seed,
            )
        except (DeviceError, TrainingError) as error:
            raise self._after_saving(error) from None

    def _take_in(self, step: Step, speed: Speed) -> None:
        """Counts a step, shows it, and says what was odd about it."""
        run, progress = self.run, self.progress
        new = [reason for index, reason in step.unreadable.items() if index not in progress.unreadable]
        if step.parts > progress.parts:
            self._say(f"out of memory: from step {step.number} on, a batch is computed in {step.parts} parts")
        progress.add(step)
        if self.state.average is not None and step.updated:
            self.state.average.update_parameters(run.detector)
        line = speed.add(step)
        self.observer.step(step, line, speed.seconds_left(step.number))
        if run.config.on_step is not None:
            run.config.on_step(step)
        if step.number % self.per_epoch == 0:
            run.folder.log(line)
        self._say(speed.advice(step.number), once=True)
        for reason in new:
            self._say(f"passed over: {reason}")
        if new:
            try:
                tolerate(progress.unreadable, run.training.split)
            except DataError as error:
                raise self._after_saving(error) from None
        if progress.skipped_in_a_row:
            names = ", ".join(str(run.training.split.file_names[index]) for index in step.indices)
            run.folder.log(f"step {step.number} is not finite and was skipped: {names}")
            if progress.skipped_in_a_row >= PATIENCE:
                raise TrainingError(
                    f"{PATIENCE} steps in a row were not finite, up to step {step.number}, of the images {names}",
                    f"a lower --lr with --overwrite; the state before them is kept: {self.command_to_resume}",
                    code="training-not-finite",
                )

    def _stop_if_asked(self, interruption: Interruption, scores: Mapping[str, Scores]) -> None:
        past = time.monotonic() >= self.run.clock.deadline
        # What one process was told, or finds, is for all: they stop after the same step.
        asked = distributed.largest(2 * interruption.number + past)
        if not asked or (scores and self.progress.step == self.total):
            return
        self.run.folder.save_state(self.state.to_save())
        self._say(f"stopped after step {self.progress.step}")
        raise _Stopped(asked // 2)

    def _after_saving(self, error: MsadError) -> MsadError:
        """The error with the command that goes on from a state written now."""
        self.run.folder.save_state(self.state.to_save())
        return type(error)(error.message, f"{error.hint}; then go on: {self.command_to_resume}", code=error.code)

    def _end_epoch(self, interruption: Interruption) -> dict[str, Scores]:
        """Evaluates where it is due, and writes the epoch's row; nothing is returned where a signal cut it short."""
        run, choices = self.run, self.run.choices
        epoch = self.progress.epochs + 1
        scores: dict[str, Scores] = {}
        if epoch % choices.eval_every == 0 or epoch == choices.epochs:
            scores = self._evaluate(interruption)
            if not scores:
                return {}
        row = {**self.progress.end_epoch(), "lr": choices.schedule.at(self.progress.step - 1)}
        memory = peak_memory(self.compute.device)
        if not math.isnan(memory):
            row["memory_mib"] = round(memory)
        for view, each in scores.items():
            row |= {f"{name}/{view}": value for name, value in each.numbers.items() if not math.isnan(value)}
        if scores:
            words = "  ".join(f"{view} {100 * each.numbers['AP']:.1f}" for view, each in scores.items())
            self._say(f"epoch {epoch}/{choices.epochs}  loss {row.get(LOSS + 'total', 0):.3f}  AP {words}")
        report.show_epochs(run.folder, run.folder.add_row(row))
        return scores

    @cached_property
    def truth(self) -> dict[str, Any]:
        """The validation split's ground truth, the same at every evaluation."""
        return ground_truth(self.run.validation)

    def _evaluate(self, interruption: Interruption) -> dict[str, Scores]:
        """The scores of every view, or nothing where a signal cut it short."""
        scores: dict[str, Scores] = {}
        for view in self.final.spec.views:
            detected = self._detect(view, interruption)
            if detected is None:
                return {}
            for reason in detected.unreadable.values():
                self._say(f"passed over, its objects count as missed: {reason}", once=True)
            scores[view] = self._score(detected)
            if self.progress.step == self.total and view == self.final.spec.views[0]:
                self.results = detected.results
        return scores

    def _detect(self, view: View, interruption: Interruption) -> Detected | None:
        run = self.run
        # A batch that had to be split in training is not risked here either.
        batch = EVALUATION_BATCH if self.progress.parts == 1 else 1
        found = None
        with contextlib.suppress(KeyboardInterrupt), interruption.at_once():
            found = view_results(self.final, run.validation, view, self.compute, run.choices.workers, batch=batch)
        return found if distributed.size() == 1 else put_together(found, run.validation)

    def _score(self, detected: Detected) -> Scores:
        spec = self.final.spec
        sigmas = oks_sigmas(len(spec.keypoints), spec.measuring.sigmas)
        return distributed.from_first(lambda: score(self.truth, detected.results, spec.task, sigmas))

    def _write(self, scores: dict[str, Scores]) -> None:
        if distributed.rank() > 0:
            return
        run = self.run
        card = replace(
            run.card,
            epochs=run.choices.epochs,
            scores=without_nan({view: each.numbers for view, each in scores.items()}),
            score_threshold=scores[self.final.spec.views[0]].threshold,
            msad_version=__version__,
        )
        save_model(run.folder.model, self.final, card)
        run.folder.finish({view: each.to_json() for view, each in scores.items()})
        report.show_findings(run.folder, self.final, run.validation, self.truth, self.results, scores, self.compute)

    def _say(self, line: str, once: bool = False) -> None:
        """A line for the log and, unless quiet, for the console."""
        if not line or (once and line in self.said):
            return
        self.said.add(line)
        self.run.folder.log(line)
        self.observer.say(line)
