"""msad: detectors with the speed of small images and nearly the accuracy of large ones.

import msad_cli as msad

trained = msad.train_teacher(data="demo", epochs=12)
found = msad.load(trained.model).predict("image.jpg")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msad_cli.api import Detections, Model, Trained, distill, evaluate, fit, load, train_teacher
    from msad_cli.errors import MsadError
    from msad_cli.evaluation.metrics import Scores
    from msad_cli.fitting.job import Fitted

__version__ = "0.1.0"
__all__ = [
    "Detections",
    "Fitted",
    "Model",
    "MsadError",
    "Scores",
    "Trained",
    "distill",
    "evaluate",
    "fit",
    "load",
    "train_teacher",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # It imports torch, which `msad --help` does without.
    from msad_cli import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
