"""Counting steps in a module that behaves differently after some of them."""

from typing import Any

import torch
from torch import Tensor, nn


class StepCounter(nn.Module):
    """A module with the buffer `steps_done` () int64, so that a resumed run goes on where it stood.

    The buffer may be on a GPU, where reading it waits for all work before. It is read only when a limit may have been
    passed: bounds in Python tell the rest. The buffer may also be put back to what it was before a step, where a batch
    is computed once more in parts; so the upper bound may be too high, never too low.
    """

    steps_done: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))
        self._at_least, self._at_most = 0, 0.0
        self.register_load_state_dict_post_hook(_unknown)  # type: ignore[no-untyped-call]

    def count_step(self) -> None:
        """To be called once a forward pass, before `passed`."""
        self.steps_done += 1
        self._at_most += 1

    def passed(self, limit: int) -> bool:
        """Whether this step comes after so many others."""
        if self._at_most > limit >= self._at_least:
            self._at_least = int(self.steps_done)
            self._at_most = self._at_least
        return self._at_least > limit


def _unknown(module: StepCounter, _keys: Any) -> None:
    module._at_least, module._at_most = 0, float("inf")
