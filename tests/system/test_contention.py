"""When a run says that others use its cores, by given numbers; and that this system's own are read."""

import threading
from pathlib import Path

import pytest

from msad_cli.system.contention import CONTENDED, CoreTime


@pytest.mark.parametrize(
    ("computed", "waited", "threads", "said"),
    [
        # Ten seconds, two threads, nobody else: both compute all the time, but for what the kernel itself does.
        (19.9, 0.1, 2, None),
        # The second thread sleeps while Python runs: fewer core seconds, and still nobody waits.
        (12.0, 0.1, 2, None),
        # A neighbour on one of two cores takes 5 of 20 seconds: 25%.
        (15.0, 5.0, 2, 1),
        # Of 16 threads each waits for half of the time: they had eight cores.
        (80.0, 80.0, 16, 8),
        # As it was seen on two cores with two other trainings.
        (2.2, 17.7, 2, 1),
        # One thread waits for none of its own.
        (5.0, 5.0, 1, None),
        (0.0, 0.0, 2, None),
    ],
)
def test_what_is_said_of_ten_seconds(computed: float, waited: float, threads: int, said: int | None) -> None:
    advice = CoreTime(computed, waited, 10.0).advice(threads)
    assert (f"OMP_NUM_THREADS={said} OMP_WAIT_POLICY=PASSIVE" in advice) == (said is not None)
    assert bool(advice) == (said is not None)


def test_it_is_said_from_a_fifth_on() -> None:
    assert CoreTime(1 - CONTENDED, CONTENDED, 1.0).advice(2)
    assert not CoreTime(1.01 - CONTENDED, CONTENDED - 0.01, 1.0).advice(2)


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this system does not say how long threads wait")
def test_core_seconds_are_those_of_all_threads() -> None:
    """A thread that has computed and still is there counts, and its waiting is never undone."""
    before, done, end = CoreTime.so_far(), threading.Event(), threading.Event()

    def compute() -> None:
        sum(range(200_000))
        done.set()
        end.wait()

    other = threading.Thread(target=compute)
    other.start()
    done.wait()
    after = CoreTime.so_far()
    end.set()
    other.join()
    assert before is not None
    assert after is not None
    passed = after.since(before)
    assert passed.computed > 0
    assert passed.waited >= 0
    assert passed.wall > 0
