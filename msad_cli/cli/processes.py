"""One command in the processes of torchrun: joining them, silence in all but the first, and errors said once."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from msad_cli.errors import MsadError

TRAINING = ("teacher", "distill")
"""Commands that can share their work."""

SENTENCE = 1.0
"""Seconds."""


def other_process() -> int:
    """The rank of this process among those of torchrun; 0 for the first, and for a single one."""
    return int(os.environ.get("RANK", "0")) if _processes() > 1 else 0


def refused(command: str | None) -> str:
    """Why several processes cannot run a command; empty where they can, and in a single one."""
    if _processes() == 1 or command in (*TRAINING, None):
        return ""
    return f"msad {command} runs in one process, not in {_processes()}"


@contextmanager
def together() -> Iterator[None]:
    """A training command's stretch: where torchrun started several processes, they know of each other in it.

    Raises:
        SystemExit: another process has said already what is wrong here, or why it has ended.
    """
    if _processes() == 1:
        yield
        return
    from msad_cli.cli.console import console, results
    from msad_cli.system import distributed

    if distributed.size() > 1:  # a stage of a command that has several
        yield
        return
    said_before = distributed.join()
    console.quiet = results.quiet = console.quiet or distributed.rank() > 0
    try:
        yield
    except typer.Exit:
        distributed.leave()
        raise
    except MsadError as error:
        alike = said_before(error.message)
        anything = said_before("anything")
        if alike or (anything and isinstance(error, distributed.LostError)):
            raise _silent_exit(error) from None
        raise
    except RuntimeError as error:
        if not distributed.is_loss_of_another(error):
            raise
        lost = distributed.lost("what the others say tells why; --resume goes on from the last state, if there is one")
        if said_before("anything"):
            raise _silent_exit(lost) from None
        raise lost from error
    distributed.leave()


def _silent_exit(error: MsadError) -> SystemExit:
    # When one process has ended with an error, torchrun ends the others: let that one finish its sentence first.
    time.sleep(SENTENCE)
    return SystemExit(error.exit_code)


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
