"""`--budget-time`: the epochs and the size with which a training ends in time on this machine."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from msad_cli.errors import UsageError
from msad_cli.frame import Resolution
from msad_cli.runs.folder import Setting
from msad_cli.system.distributed import from_first
from msad_cli.text import duration, parse_duration, size_text
from msad_cli.training.config import BUDGET, TrainingConfig
from msad_cli.training.defaults.pace import Pace
from msad_cli.training.plan import Choices, usual_eval_every

SMALLER = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4)
"""Sizes that are tried, as shares of the sides; a step's time goes with the area."""
ENOUGH = 1 / 3
"""The share of the usual epochs below which a smaller size is tried first: of hardly any training nothing is learnt."""
MARGIN = 0.9
"""The share of the time that is planned for: paces are those of a few steps."""


@dataclass(frozen=True)
class Fitted:
    """What fits into a time.

    Attributes:
        resolution: the HR size, and why it is that, where it is not the usual one.
        epochs: and why they are as many.
    """

    resolution: Resolution
    size: Setting | None
    epochs: tuple[int, str]


def fit_time(
    config: TrainingConfig,
    size: Resolution,
    choices: Choices,
    validation: int,
    pace_at: Callable[[Resolution], Pace | None],
    size_free: bool,
) -> Fitted | None:
    """The largest size with which enough epochs fit into `--budget-time`, and as many epochs as fit, up to the usual
    number; the same in all processes. None without such a limit, and of a run that goes on, which has chosen already.

    Args:
        size: the usual or typed one.
        choices: of a run without a limit.
        validation: images of an evaluation.
        pace_at: times a few steps at a size.
        size_free: whether the size may become smaller.

    Raises:
        UsageError: nothing is left to be chosen, or not even an epoch fits.
    """
    if config.budget_time is None or config.resume:
        return None
    budget = parse_duration(BUDGET, config.budget_time)
    return from_first(lambda: _fit(config, size, choices, validation, pace_at, size_free, budget))


def _fit(
    config: TrainingConfig,
    size: Resolution,
    choices: Choices,
    validation: int,
    pace_at: Callable[[Resolution], Pace | None],
    size_free: bool,
    budget: float,
) -> Fitted:
    if config.epochs is not None and not size_free:
        raise UsageError(
            "--budget-time: with --epochs and the size given nothing is left to choose",
            "leave one of them away; --time stops a run after a time",
            code="setting-without-effect",
        )
    least = choices.epochs if config.epochs is not None else max(1, round(ENOUGH * choices.epochs))
    best: Fitted | None = None
    pace: Pace | None = None
    for share in SMALLER if size_free else SMALLER[:1]:
        smaller = _scaled(size, share)
        if pace is not None and _epochs(_guess(pace, share), choices, config, validation, budget) < least:
            continue  # a guess by the area is enough to pass on
        now = pace_at(smaller)
        if now is None:
            continue
        pace = now if pace is None else pace
        epochs = _epochs(now, choices, config, validation, budget)
        if epochs:
            best = _fitted(smaller, epochs, size, choices, now, budget)
        if epochs >= least:
            break
    if best is None or (config.epochs is not None and best.epochs[0] < config.epochs):
        raise UsageError(
            f"--budget-time {config.budget_time}: too short for "
            + ("an epoch" if config.epochs is None else f"{config.epochs} epochs")
            + (f", a step takes {pace.step:.2g} s" if pace else ""),
            "give more time, a smaller network (--width, --head-channels), or a part of the set",
            code="budget-too-short",
        )
    return best


def _guess(pace: Pace, share: float) -> Pace:
    return replace(pace, step=pace.step * share**2, image=pace.image * share**2)


def _epochs(pace: Pace, choices: Choices, config: TrainingConfig, validation: int, budget: float) -> int:
    """How many epochs fit, at most the usual ones; 0 where none does."""

    def seconds(epochs: int) -> float:
        evaluations = -(-epochs // (config.eval_every or usual_eval_every(epochs)))
        return pace.seconds(epochs, choices.steps_per_epoch, evaluations, validation)

    return next((epochs for epochs in range(choices.epochs, 0, -1) if seconds(epochs) <= MARGIN * budget), 0)


def _fitted(size: Resolution, epochs: int, usual: Resolution, choices: Choices, pace: Pace, budget: float) -> Fitted:
    why = f"{duration(budget)} at {pace.step:.2g} s a step allow them; {choices.epochs} without that limit"
    smaller = Setting(size_text(size), "auto", f"for {duration(budget)}; {size_text(usual)} without that limit")
    return Fitted(size, None if size == usual else smaller, (epochs, why))


def _scaled(size: Resolution, share: float) -> Resolution:
    return Resolution(max(32, round(size.short_side * share)), max(32, round(size.long_side * share)))
