"""Where else a run reports to: TensorBoard, Weights & Biases, MLflow. Each package is imported when it is asked for."""

import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from msad_cli.errors import UsageError
from msad_cli.system.extras import how_to_install
from msad_cli.text import meant

Numbers = Mapping[str, float]


class Tracker(Protocol):
    """One place that a run reports to; made when the run starts or goes on.

    Attributes:
        id: by which a run that goes on finds it again.
    """

    id: str

    def add(self, epoch: int, row: Numbers) -> None:
        """Takes the numbers of an epoch, as results.csv has them."""

    def finish(self, epoch: int, scores: Numbers) -> None:
        """Takes the scores of the model that was written, after so many epochs."""

    def close(self) -> None:
        """Writes what waits; the run ends here, or stops."""


class TensorBoard:
    """Event files in `tensorboard/` of the run folder."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], id_: str, quiet: bool) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.id = "tensorboard"
        self.writer = SummaryWriter(str(folder / "tensorboard"))
        if not id_:
            self.writer.add_text("settings", "\n".join(f"    {name}: {value}" for name, value in settings.items()), 0)

    def add(self, epoch: int, row: Numbers) -> None:
        """As `Tracker`."""
        for name, value in row.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def finish(self, epoch: int, scores: Numbers) -> None:
        """As `Tracker`, under `final/`."""
        self.add(epoch, {f"final/{name}": value for name, value in scores.items()})

    def close(self) -> None:
        """As `Tracker`."""
        self.writer.close()


class WeightsAndBiases:
    """A run of the project that WANDB_PROJECT names, else `msad`; WANDB_MODE=offline needs no network."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], id_: str, quiet: bool) -> None:
        import wandb

        project = os.environ.get("WANDB_PROJECT", "msad")
        self.run = wandb.init(
            project=project,
            name=folder.stem,
            dir=str(folder),
            config=dict(settings),
            id=id_ or None,
            resume="allow",
            settings=wandb.Settings(silent=quiet),
        )
        self.id = str(self.run.id)

    def add(self, epoch: int, row: Numbers) -> None:
        """As `Tracker`."""
        self.run.log(dict(row), step=epoch)

    def finish(self, epoch: int, scores: Numbers) -> None:
        """As `Tracker`, into the summary under `final/`."""
        self.run.summary.update({f"final/{name}": value for name, value in scores.items()})

    def close(self) -> None:
        """As `Tracker`."""
        self.run.finish()


class MLflow:
    """A run at the server that MLFLOW_TRACKING_URI names, else where MLflow keeps runs of this folder."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], id_: str, quiet: bool) -> None:
        import mlflow

        self.mlflow = mlflow
        self.id = str(mlflow.start_run(run_id=id_ or None, run_name=None if id_ else folder.stem).info.run_id)
        if not id_:  # MLflow refuses other values of a run's parameters
            mlflow.log_params(dict(settings))

    def add(self, epoch: int, row: Numbers) -> None:
        """As `Tracker`."""
        self.mlflow.log_metrics(dict(row), step=epoch)

    def finish(self, epoch: int, scores: Numbers) -> None:
        """As `Tracker`, under `final/`."""
        self.add(epoch, {f"final/{name}": value for name, value in scores.items()})

    def close(self) -> None:
        """As `Tracker`."""
        self.mlflow.end_run()


TRACKERS: dict[str, Callable[[Path, Mapping[str, Any], str, bool], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}
"""By the name of the flag, of the package and of msad's extra: what is made of the run folder, the settings, the id of
a run that goes on (empty for a new one), and whether nothing is to be printed."""


def parse_trackers(text: str | None) -> tuple[str, ...]:
    """`tensorboard,wandb` as names of trackers that can be used.

    Raises:
        UsageError: an unknown name, or a package that is not installed.
    """
    names = tuple(dict.fromkeys(text.split(","))) if text else ()
    for name in names:
        if name not in TRACKERS:
            raise UsageError(
                f"--log {name}: unknown{meant(name, TRACKERS)}",
                f"give some of {', '.join(TRACKERS)}",
                code="unknown-value",
            )
        if importlib.util.find_spec(name) is None:
            raise UsageError(
                f"--log {name}: the package {name} is not installed", how_to_install(name), code="package-missing"
            )
    return names
