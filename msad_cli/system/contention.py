"""Whether other processes keep this one's threads from the cores. Imports no torch."""

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CONTENDED = 0.2
"""Of the time that threads could have computed, the share without a core from which on it is said."""


@dataclass(frozen=True)
class CoreTime:
    """Seconds of this process, its threads added up.

    Attributes:
        computed: on a core.
        waited: ready to compute, without a core.
        wall: passed meanwhile.
    """

    computed: float
    waited: float
    wall: float

    @classmethod
    def so_far(cls) -> "CoreTime | None":
        """None where the system does not say; Linux does."""
        if not Path("/proc/self/schedstat").exists():
            return None
        waited = 0
        for file in Path("/proc/self/task").glob("*/schedstat"):
            with suppress(OSError):  # a thread that ended meanwhile
                waited += int(file.read_text().split()[1])
        return cls(time.process_time(), waited / 1e9, time.perf_counter())

    def since(self, before: "CoreTime") -> "CoreTime":
        """What passed between two looks."""
        return CoreTime(self.computed - before.computed, self.waited - before.waited, self.wall - before.wall)

    def advice(self, threads: int) -> str:
        """What to set where other processes keep this one's threads from the cores; empty where nothing is gained.

        Args:
            threads: that compute together. They wait for each other, so that one without a core stops all.
        """
        share = self.waited / max(self.computed + self.waited, 1e-9)
        if threads == 1 or share < CONTENDED:
            return ""
        cores = max(1, min(threads - 1, int(self.computed / max(self.wall, 1e-9))))
        return (
            f"other processes use the CPU, and {threads} threads wait for a core {share:.0%} of their time: "
            f"OMP_NUM_THREADS={cores} OMP_WAIT_POLICY=PASSIVE before the command is likely faster"
        )
