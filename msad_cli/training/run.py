"""A training that is ready to start, and how it ended."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from msad_cli.data.annotations.split import CocoSplit
from msad_cli.data.loading.dataset import TrainingSet
from msad_cli.evaluation.metrics import Scores
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card
from msad_cli.runs.folder import RunFolder, Setting
from msad_cli.training.config import TrainingConfig
from msad_cli.training.interruption import Clock
from msad_cli.training.plan import Choices


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training that is ready to start.

    Attributes:
        command: that trains, as it is typed.
        config: what was asked for.
        module: yields the losses; trains `detector`.
        initialise: fills the detector for a run that starts anew; says with what.
        card: what is already known of the model to be written.
        source: the model file that it learns from, if it does.
        compiled: detectors whose parts torch compiles.
    """

    command: str
    config: TrainingConfig
    module: nn.Module
    detector: Detector
    initialise: Callable[[], str]
    training: TrainingSet
    validation: CocoSplit
    choices: Choices
    settings: Mapping[str, Setting]
    folder: RunFolder
    card: Card
    clock: Clock
    source: Path | None = None
    compiled: Sequence[Detector] = ()


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        model: the model file; it is written unless the run is only `planned`, and of one that is `unfinished` it has
            the best weights up to then.
        scores: of each view, the model's best first, at the end of the run.
        held: what the model file holds, in words.
        stopped: the signal that stopped it, 0 where its time was up; None where it went to its end.
        planned: whether nothing but its plan was asked for.
        command_to_resume: what goes on with a run that stopped.
        run: what was trained, by whom and on what; None where nothing was.
    """

    model: Path
    scores: dict[str, Scores] = field(default_factory=dict)
    held: str = ""
    stopped: int | None = None
    planned: bool = False
    command_to_resume: str = ""
    run: Run | None = None

    @property
    def unfinished(self) -> bool:
        """Whether it was stopped before its end."""
        return self.stopped is not None
