"""When a run saves its state, and when it stops."""

import math
import time
from dataclasses import dataclass

from msad_cli.cli.options import parse_duration


@dataclass(frozen=True)
class Clock:
    """Seconds between two resume states, and on `time.monotonic`'s clock the moment after which the run stops."""

    checkpoint: float
    deadline: float

    @classmethod
    def of(cls, limit: str | None, checkpoint: str) -> "Clock":
        """From the flags `--time` and `--checkpoint`, starting now.

        Raises:
            UsageError: one of them is not a time.
        """
        deadline = time.monotonic() + parse_duration("--time", limit) if limit else math.inf
        return cls(parse_duration("--checkpoint", checkpoint), deadline)
