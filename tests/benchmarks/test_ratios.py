"""benchmarks/ratios.py: msad's losses and gradients are those of each method's public code.

The formulas stand in benchmarks/references.py, each with the repository, file and commit that it was written from.
"""

from typing import Any

import pytest
from support.scripts import script

METHODS = ("cwd", "pkd", "freekd", "crosskd", "fgd", "fgfi", "l1", "podnet", "skd", "mgd", "isrd")
UNLIKE = (
    ("fgfi", "maskrcnn", ""),  # a ReLU behind the adapter, and boxes that hold their last pixel
    ("fgfi", "maskrcnn", "no ReLU"),
    ("fgd", "retinanet", ""),  # a box's cells
    ("crosskd", "retinanet", ""),  # anchors on padding and between the thresholds
)
"""What differs on purpose, and is said in docs/methods.md; REFERENCES has it once more, without that difference."""
FEWEST = 2 * 4 * 6
"""Cells of both images in the coarsest level that PKD compares. The code's variance is by n − 1, msad's by n."""


@pytest.fixture
def ratios(monkeypatch: pytest.MonkeyPatch) -> Any:
    return script(monkeypatch, "benchmarks/ratios.py")


@pytest.mark.parametrize("method", METHODS)
def test_losses_and_gradients_are_those_of_the_public_code(ratios: Any, method: str) -> None:
    compared = 0
    for each in ratios.REFERENCES:
        if each.method == method and (method, each.detector, each.differs) not in UNLIKE:
            tolerance = 1 / (FEWEST - 1) if method == "pkd" else 1e-3
            _, found = ratios.measured(each)
            assert found == pytest.approx((1.0, 1.0, 1.0), abs=tolerance), each
            compared += 1
    assert compared > 0


def test_every_reference_is_compared(ratios: Any) -> None:
    rows = {(each.method, each.detector, each.differs) for each in ratios.REFERENCES}
    assert {method for method, _, _ in rows} == set(METHODS)
    assert set(UNLIKE) < rows
