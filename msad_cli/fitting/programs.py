"""Commands of a fit as programs of their own, for whoever has no command line in the process: callers from Python."""

import json
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Sequence

import torch

from msad_cli.errors import MsadError, TrainingError
from msad_cli.fitting.commands import quietly
from msad_cli.text import printable
from msad_cli.training.interruption import interruptible

LAST_WORDS = 5
"""Lines that are told of a program that ended without saying why."""


class Programs:
    """Runs a fit's commands by `python -m msad_cli`, and prints what is told on stderr unless it is to be quiet."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet

    def say(self, line: str) -> None:
        """Prints a line."""
        if not self._quiet:
            print(printable(line), file=sys.stderr)

    def table(self, title: str, rows: Sequence[Sequence[str]], taken: Sequence[int]) -> None:
        """Prints a table whose first row is the head, an arrow before the rows at the places `taken`."""
        self.say(title)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for place, row in enumerate(rows):
            cells = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.say(f"{'→' if place in taken else ' '} {cells}".rstrip())

    def run(self, words: Sequence[str], threads: int | None) -> tuple[int, str]:
        """Runs a command to its end: its exit code and stdout.

        The first SIGINT or SIGTERM is handed on, so that a training saves its state; the exit code is then 128 and the
        signal's number.

        Raises:
            MsadError: what the command said.
            TrainingError: it ended without a word.
        """
        torch.cuda.empty_cache()  # the program needs what is kept here for trainings that were timed
        last: deque[str] = deque(maxlen=LAST_WORDS)
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8") as printed,
            interruptible(lambda line: None) as interruption,
            subprocess.Popen(
                [sys.executable, "-m", "msad_cli", "--json", *(quietly(words) if self._quiet else words)],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.PIPE,
                env={**os.environ, **({} if threads is None else {"OMP_NUM_THREADS": str(threads)})},
                encoding="utf-8",
                errors="replace",
                process_group=0,  # or a terminal's Ctrl-C would reach it twice, and twice ends a training at once
            ) as program,
        ):
            assert program.stderr is not None
            try:
                with interruption.at_once():
                    self._hear(program.stderr, last)
            except KeyboardInterrupt:
                program.send_signal(interruption.number)
                self._hear(program.stderr, last)
            code = program.wait()
            printed.seek(0)
            told = printed.read()
        if interruption.number:
            return 128 + interruption.number, ""
        if code:
            raise _error(words[0], code, told, last)
        return 0, told

    def _hear(self, lines: Iterable[str], last: deque[str]) -> None:
        for line in lines:
            last.append(line.rstrip())
            self.say(line.rstrip())


def _error(command: str, code: int, told: str, last: Iterable[str]) -> MsadError:
    """What a program said when it failed."""
    try:
        error = json.loads(told)["error"]
    except (ValueError, KeyError):
        return TrainingError(
            f"the command {command} ended with {code}: {' | '.join(last)}",
            "a program that the system ends, with -9, needs more memory than there is",
            code="command-died",
        )
    kinds = {each.exit_code: each for each in MsadError.__subclasses__()}
    return kinds.get(code, MsadError)(error["message"], error["hint"], code=error["code"])
