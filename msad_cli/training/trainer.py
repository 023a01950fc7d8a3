"""Running a training to its end: what teacher and distill share once their module is assembled."""

import copy
import math
import shlex
import time
from collections.abc import Iterator, Mapping

import torch

from msad_cli.data.loading.dataset import tolerate, training_loader
from msad_cli.data.loading.sampler import same_place
from msad_cli.errors import DataError, DeviceError, MsadError, OutputError, TrainingError, UsageError
from msad_cli.evaluation.detect_split import EVALUATION_BATCH
from msad_cli.evaluation.metrics import Scores
from msad_cli.models.backbones.normalisation import synchronised
from msad_cli.models.compiled import compile_parts
from msad_cli.models.detector import Detector
from msad_cli.models.weights.frozen import freeze_stages
from msad_cli.runs import report
from msad_cli.runs.plots.epochs import KEPT, LOSS
from msad_cli.system import distributed
from msad_cli.system.device import peak_memory
from msad_cli.training.interruption import Interruption, Stopped, interruptible
from msad_cli.training.judging.kept import Keeper
from msad_cli.training.judging.nothing_found import remark
from msad_cli.training.judging.validation import Validation, in_words
from msad_cli.training.observer import Observer, Speed
from msad_cli.training.plan import frozen_stages
from msad_cli.training.resume import changes, jump_of_rate
from msad_cli.training.run import Outcome, Run
from msad_cli.training.sets import class_weights
from msad_cli.training.steps.averaging import averaged
from msad_cli.training.steps.loop import Step, train
from msad_cli.training.steps.optimiser import OPTIMISERS
from msad_cli.training.steps.state import Progress, TrainingState

NOT_FINITE = 10
"""So many steps in a row that are not finite end a run."""


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
            return Outcome(run.folder.model, scores, held=training.keeper.held, run=run)
        except Stopped as stop:
            goes_on = training.command_to_resume
            return Outcome(run.folder.model, held=training.keeper.held, stopped=stop.number, command_to_resume=goes_on)
        except OutputError as error:
            hint = f"{error.hint}, then: {training.command_to_resume}" if run.folder.resumable else error.hint
            raise TrainingError(error.message, hint, code=error.code) from error


class _Training:
    def __init__(self, run: Run, observer: Observer) -> None:
        self.run = run
        self.observer = observer
        run.training.augmentation = run.training.augmentation.for_run(run.choices.epochs)
        self.total, self.per_epoch = run.choices.schedule.steps, run.choices.steps_per_epoch
        self.compute = run.choices.compute
        self.progress = Progress(batch=run.choices.labelled)
        self.said: set[str] = set()
        self.validation = Validation(run, lambda line: self._say(line, once=True))
        self.command_to_resume = f"msad {run.command} --resume --out {shlex.quote(str(run.folder.model))}"
        if distributed.size() > 1:
            synchronised(run.module, self.compute.device)
        run.module.to(self.compute.device)
        run.detector.to(self.compute.device)
        compile_parts(run.compiled, self.compute.device)
        ema = run.choices.ema
        average = averaged(run.detector, ema, lambda: self.progress.step) if ema else None
        scaler = torch.amp.GradScaler(self.compute.device.type) if self.compute.precision == "fp16" else None
        if weights := class_weights(run.config.class_weights, run.training.split):
            run.detector.kind.class_weights = torch.tensor([1.0, *weights.values()])
        freeze_stages(run.detector, frozen_stages(run.config.freeze))
        optimiser = OPTIMISERS[run.choices.optimizer].build(run.module, run.choices.schedule.learning_rate)
        identity = {
            "spec": run.detector.spec.to_json(),
            "training annotations (SHA-256)": run.card.data_fingerprint,
            "teacher (SHA-256)": run.card.teacher,
            "unlabelled images (SHA-256)": run.card.unlabelled,
        }
        self.state = TrainingState(run.module, optimiser, scaler, average, self.progress, identity)
        final = run.detector if average is None else average.module
        assert isinstance(final, Detector)
        self.final = final
        self.keeper = Keeper(run, final, self.progress)

    def start(self, started: str) -> None:
        """Begins the run folder; `started` says from which weights."""
        self.run.folder.start(self.run.settings, started)
        self.observer.say(started)
        report.show_training(self.run.folder, self.run.training, self.run.choices.labelled)

    def resume(self) -> None:
        """Takes over the state of the run folder."""
        run, progress = self.run, self.progress
        state, remark = run.folder.load_state()
        try:
            self.state.restore(state)
            missing = self.keeper.restore(state)
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
        labelled = run.choices.labelled
        progress.step = same_place(progress.step, run.training.split.labelled, progress.batch, labelled)
        progress.batch = labelled
        progress.unreadable.clear()  # they may have been mended
        self.total = progress.step if run.config.finish else self.total
        if self.total < progress.step:
            done = progress.step / self.per_epoch
            raise UsageError(
                f"cannot resume: {done:.3g} epochs are done, more than --epochs {run.choices.epochs}",
                f"{self.command_to_resume} --finish ends the run here",
                code="epochs-done-already",
            )
        before, rate = run.folder.recorded(), float(self.state.optimiser.param_groups[0]["lr"])
        distributed.wait_for_all()  # until they have read what is overwritten now
        run.folder.record(run.settings)
        differences = [f"changed: {each}" for each in changes(before, run.settings)]
        jump = (
            "" if run.config.finish else jump_of_rate(before, run.settings, run.choices.schedule, progress.step, rate)
        )
        for line in (remark, f"going on after step {progress.step}", *differences, missing, jump):
            self._say(line)

    def to_the_end(self) -> dict[str, Scores]:
        """Trains, evaluates, writes the model file."""
        with (
            self.observer.watching(self.total, self.progress.step),
            interruptible(self.observer.say) as interruption,
        ):
            try:
                model, scores = self._epochs(interruption)
            except RuntimeError as error:
                if not distributed.is_loss_of_another(error):
                    raise
                raise self._after_saving(distributed.lost("what the others say tells why")) from error
        self._write(model, scores)
        return scores

    def _epochs(self, interruption: Interruption) -> tuple[Detector, dict[str, Scores]]:
        """Trains, and returns the model that is kept with its scores."""
        progress = self.progress
        scores: dict[str, Scores] = {}
        if progress.step // self.per_epoch > progress.epochs:  # it was cut while evaluating
            scores = self._end_epoch(interruption)
            self._stop_if_asked(interruption, scores)
        if not self._ended:
            scores = self._train(interruption)
        keeper = self.keeper
        if not progress.measured or keeper.kept is None or not (keeper.current or keeper.kept.weights):
            scores = self._measure(self.final, interruption)
            self._stop_if_asked(interruption, scores)
            keeper.consider(scores)
            self._say(f"after step {progress.step}: AP {in_words(scores)}")
        if keeper.current or keeper.kept is None:
            return self.final, scores
        model = copy.deepcopy(self.final)  # the training's own weights may still be saved
        model.load_state_dict(keeper.kept.weights)
        self._say(f"looking once more at what is kept, for its curves: {keeper.held}")
        scores = self._measure(model, interruption)
        self._stop_if_asked(interruption, scores)
        return model, scores

    @property
    def _ended(self) -> bool:
        return self.progress.step >= self.total or self.keeper.out_of_patience

    def _train(self, interruption: Interruption) -> dict[str, Scores]:
        """Makes steps until the end, and returns the scores then."""
        run, progress = self.run, self.progress
        scores: dict[str, Scores] = {}
        speed, saved = Speed(self.total, self.per_epoch), time.monotonic()
        for step in self._steps():
            self._take_in(step, speed)
            ended = step.number % self.per_epoch == 0
            scores = self._end_epoch(interruption) if ended else {}
            self._stop_if_asked(interruption, scores)
            due = ended or time.monotonic() - saved >= run.clock.checkpoint
            if due and not progress.skipped_in_a_row:
                self._save_state()
                saved = time.monotonic()
            if self.keeper.out_of_patience and step.number < self.total:
                self._say(
                    f"no better AP in {progress.unimproved} evaluations: the run ends here (--patience); "
                    f"{self.command_to_resume} --patience 0 goes on"
                )
                break
        return scores

    def _steps(self) -> Iterator[Step]:
        """The steps; an error that is none of the parameters' saves the state before it ends the run."""
        run, progress = self.run, self.progress
        loader = training_loader(
            run.training,
            run.choices.labelled,
            run.choices.workers,
            progress.step,
            run.choices.schedule.steps,
            (distributed.rank(), distributed.size()),
            self.compute.pins,
            run.choices.unlabelled,
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
            if progress.skipped_in_a_row >= NOT_FINITE:
                raise TrainingError(
                    f"{NOT_FINITE} steps in a row were not finite, up to step {step.number}, of the images {names}",
                    f"a lower --lr with --overwrite; the state before them is kept: {self.command_to_resume}",
                    code="training-not-finite",
                )

    def _stop_if_asked(self, interruption: Interruption, scores: Mapping[str, Scores]) -> None:
        past = time.monotonic() >= self.run.clock.deadline
        # What one process was told, or finds, is for all: they stop after the same step.
        asked = distributed.largest(2 * interruption.number + past)
        if not asked or (scores and self._ended):
            return
        self._save_state()
        self.keeper.write(unfinished=True)
        report.show_page(self.run.folder)
        self._say(f"stopped after step {self.progress.step}")
        raise Stopped(asked // 2)

    def _after_saving(self, error: MsadError) -> MsadError:
        """The error with the command that goes on from a state written now."""
        self._save_state()
        return type(error)(error.message, f"{error.hint}; then go on: {self.command_to_resume}", code=error.code)

    def _save_state(self) -> None:
        if self.run.config.finish:
            return  # the state stays that of the training, which may still go on
        self.run.folder.save_state(self.state.to_save() | self.keeper.to_save())

    def _end_epoch(self, interruption: Interruption) -> dict[str, Scores]:
        """Evaluates where it is due, and writes the epoch's row; nothing is returned where a signal cut it short."""
        run, choices = self.run, self.run.choices
        epoch = self.progress.epochs + 1
        scores: dict[str, Scores] = {}
        if epoch % choices.eval_every == 0 or self.progress.step >= self.total:
            scores = self._measure(self.final, interruption)
            if not scores:
                return {}
            self.keeper.consider(scores)
            self._say(remark(run, scores, self.progress.step, self._ended), once=True)
            if not self._ended:
                self.validation.results = []  # of a large set they are large
        row = {**self.progress.end_epoch(), "lr": choices.schedule.at(self.progress.step - 1)}
        memory = peak_memory(self.compute.device)
        if not math.isnan(memory):
            row["memory_mib"] = round(memory)
        row |= self.validation.columns(scores)
        if self.keeper.kept is not None:
            row[KEPT] = self.keeper.kept.epoch
        if scores:
            loss = row.get(LOSS + "total", 0)
            kept = "  kept" if self.keeper.current else ""
            self._say(f"epoch {epoch}/{choices.epochs}  loss {loss:.3f}  AP {in_words(scores)}{kept}")
        report.show_epochs(run.folder, run.folder.add_row(row))
        return scores

    def _measure(self, detector: Detector, interruption: Interruption) -> dict[str, Scores]:
        # A batch that had to be split in training is not risked here either.
        return self.validation.measure(detector, interruption, EVALUATION_BATCH if self.progress.parts == 1 else 1)

    def _write(self, model: Detector, scores: dict[str, Scores]) -> None:
        """What is there at the end of a run."""
        if distributed.rank() > 0:
            return
        run, seen, keeper, timed = self.run, self.validation, self.keeper, self.observer.latencies
        keeper.write(unfinished=False)
        epoch = {} if keeper.kept is None else {"epoch": keeper.kept.epoch}
        run.folder.finish({view: each.to_json() | epoch for view, each in scores.items()})
        report.show_end(run.folder, model, run.validation, seen.truth, seen.results, scores, self.compute, timed)
        self._say(f"kept: {keeper.held}")

    def _say(self, line: str, once: bool = False) -> None:
        """A line for the log and, unless quiet, for the console."""
        if not line or (once and line in self.said):
            return
        self.said.add(line)
        self.run.folder.log(line)
        self.observer.say(line)
