"""Processes that load batches: how they are started, and what is said when one dies."""

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from msad_cli.data.images.decode import limit_pixels, most_pixels
from msad_cli.errors import TrainingError

T = TypeVar("T")
B = TypeVar("B")

DEATHS = ("exited unexpectedly", "killed by signal", "shared memory", "No space left", "Too many open files", "ancdata")
"""Words in what torch says when a loader process is lost; other errors in one are bugs."""
SIGNALS = [each for name in ("SIGINT", "SIGTERM", "SIGCHLD") if (each := getattr(signal, name, None))]
"""There is no SIGCHLD on Windows."""


def batches_of(data: Dataset[T], collate: Callable[[list[T]], B], workers: int, **options: Any) -> Iterator[B]:
    """The batches of torch's loader, whose processes have msad's limits; none, and this process loads.

    Args:
        options: of torch's loader.

    Raises:
        TrainingError: a process died.
    """
    if workers:
        _allow_open_files()
    # A generator of its own: a loader draws its workers' seed from torch's global one otherwise, so that a resumed run,
    # whose loader starts once more, would draw other numbers from there on. No sample depends on those seeds.
    loader = DataLoader(
        data,
        num_workers=workers,
        collate_fn=collate,
        generator=torch.Generator(),
        worker_init_fn=functools.partial(limit_pixels, most_pixels()),
        **options,
    )
    with _torchs_handler_rests():
        with _signals_wait():  # torch's loader cannot be taken down before it stands
            batches = iter(loader)
        while True:
            try:
                batch: B = next(batches)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                if not _is_death(error):
                    raise
                reason = (str(error).strip() or "it was cut off while sending").splitlines()[-1]
                raise TrainingError(
                    f"a loader process died ({reason})",
                    "fewer --workers need less memory and fewer open files; --workers 0 shares no memory at all "
                    "(a container gets more with --shm-size)",
                    code="loader-died",
                ) from None
            yield batch


@contextmanager
def _signals_wait() -> Iterator[None]:
    """A stretch after which signals do what they did before it, and do it now if they arrived in it.

    SIGCHLD is among them for another reason: torch's loader gives it a handler that would raise wherever the program is
    when a worker dies, in the middle of an update too. Without it the death is noticed when the next batch is fetched.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    usual = {each: handler for each in SIGNALS if (handler := signal.getsignal(each)) is not None}
    for each in usual:
        signal.signal(each, lambda number, _: arrived.append(number))
    try:
        yield
    finally:
        for each, handler in usual.items():
            signal.signal(each, handler)
        for number in arrived:
            signal.raise_signal(number)


@contextmanager
def _torchs_handler_rests() -> Iterator[None]:
    """A stretch without torch's handler of SIGCHLD, which is there where the program has had a loader of its own."""
    usual = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    main = threading.current_thread() is threading.main_thread()
    if not main or not getattr(usual, "__module__", "").startswith("torch."):
        yield
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # a generator is closed where its last name ends
            signal.signal(signal.SIGCHLD, usual)


def _is_death(error: Exception) -> bool:
    # Torch hands on what was raised in a worker as the same class of error, with these words.
    raised_there = "Caught " in str(error)
    cut_off = isinstance(error, EOFError | ConnectionError | FileNotFoundError) and not raised_there
    return cut_off or any(words in str(error) for words in DEATHS)


def _allow_open_files() -> None:
    """Raises the soft limit on open files to the hard one: every tensor of a batch from a worker is one."""
    try:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ImportError, ValueError, OSError):  # Windows, or a system that forbids it
        return
