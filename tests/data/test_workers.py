"""Loader processes in a program that has handlers of its own."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import signal_handling

from msad_cli.data.loading.workers import batches_of

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="Windows has no SIGCHLD"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


class Numbers(Dataset[int]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return index


@pytest.fixture
def usual(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A program in which torch has not set its handler of SIGCHLD yet; put back what was there."""
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("usual")
def test_a_programs_own_handler_of_dead_children_stays() -> None:
    dead: list[int] = []

    def note(number: int, _: Any) -> None:
        dead.append(number)

    signal.signal(signal.SIGCHLD, note)
    batches = batches_of(Numbers(), list, 1, batch_size=2)
    assert next(batches) == [0, 1]
    assert signal.getsignal(signal.SIGCHLD) is note
    assert list(batches) == [[2, 3]]
    assert signal.getsignal(signal.SIGCHLD) is note
    assert set(dead) <= {signal.SIGCHLD}


@pytest.mark.usefixtures("usual")
def test_torchs_own_handler_rests_while_batches_come() -> None:
    """It would raise in the middle of an update; a program that has had a loader of torch's has it."""
    assert len(list(DataLoader(Numbers(), num_workers=1))) == 4
    torchs = signal.getsignal(signal.SIGCHLD)
    assert getattr(torchs, "__module__", "").startswith("torch.")
    batches = batches_of(Numbers(), list, 1, batch_size=2)
    assert next(batches) == [0, 1]
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
    assert list(batches) == [[2, 3]]
    assert signal.getsignal(signal.SIGCHLD) is torchs
