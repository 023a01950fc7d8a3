"""From a view of a detector to a graph of torch.export, which every format is written from."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

import torch
from torch.export import Dim, ExportedProgram

from msad_cli.export.sidecar import InputShape
from msad_cli.frame import FRAME_DIVISOR
from msad_cli.models.decode.deployed import INPUT, Deployed

EXAMPLE = 2
"""Images in the batch that is traced. A batch of one would be taken for a constant."""


def example_size(k: int) -> tuple[int, int]:
    """(height, width) of images to trace with: different sides, both padded, and no grid of a single cell.

    Sides of one cell would be taken for constants.

    Args:
        k: HR pixels for one of the images.
    """
    return 2 * FRAME_DIVISOR // k - 4, 3 * FRAME_DIVISOR // k - 4


def trace(network: Deployed, shape: InputShape) -> ExportedProgram:
    """The graph of a network that is in eval mode. With fixed sides tracing is four times faster."""
    height, width = shape.sides or example_size(network.k)
    images = torch.zeros((shape.batch or EXAMPLE, 3, height, width), dtype=torch.uint8)
    free = [place for place, each in enumerate(shape.dimensions) if isinstance(each, str)]
    shapes = {INPUT: dict.fromkeys(free, Dim.DYNAMIC)}
    with quiet(), torch.no_grad():
        return torch.export.export(network, (images,), dynamic_shapes=shapes, strict=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters talk about their insides, in warnings and logs."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
