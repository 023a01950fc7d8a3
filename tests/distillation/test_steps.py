"""Counting steps: as often as the module is called, whatever is loaded or put back, and seldom read from a device."""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from msad_cli.distillation.parts.steps import StepCounter


def read(counter: StepCounter, limit: int, steps: int) -> tuple[list[bool], int]:
    """Whether each of the next steps passes the limit, and how often the buffer was read for that."""
    reads, exact = [], Tensor.__int__

    def count(tensor: Tensor) -> int:
        reads.append(tensor)
        return exact(tensor)

    found = []
    with patch.object(Tensor, "__int__", count):
        for _ in range(steps):
            counter.count_step()
            found.append(counter.passed(limit))
    return found, len(reads)


def test_the_buffer_is_read_once() -> None:
    assert read(StepCounter(), 3, 6) == ([False, False, False, True, True, True], 1)


@pytest.mark.parametrize("done", [0, 2, 3, 9])
def test_a_resumed_run_goes_on_where_it_stood(done: int) -> None:
    counter = torch.nn.Sequential(StepCounter())
    counter.load_state_dict({"0.steps_done": torch.tensor(done)})
    inner = counter[0]
    assert isinstance(inner, StepCounter)
    assert read(inner, 3, 3)[0] == [done + step > 3 for step in (1, 2, 3)]


def test_a_step_that_is_computed_in_parts_is_one() -> None:
    """Between the parts, buffers are put back to what they were before the step."""
    counter, found = StepCounter(), []
    for _ in range(5):
        before = counter.steps_done.clone()
        for _ in range(3):
            counter.steps_done.copy_(before)
            counter.count_step()
            found.append(counter.passed(3))
    assert found == [False] * 9 + [True] * 6
