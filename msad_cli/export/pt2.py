"""The format .pt2, torch.export's own. Its files are written, checked and never opened: loading one can run code."""

import io
from typing import TYPE_CHECKING

from msad_cli.export.base import ExportFormat, Run

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

    from msad_cli.export.sidecar import InputShape


def write(program: "ExportedProgram", task: str) -> bytes:
    """The bytes of a .pt2 file."""
    import torch

    from msad_cli.export.trace import quiet
    from msad_cli.models.decode.nms import suppress_images

    written = io.BytesIO()
    with quiet():
        # Of operations that torch and torchvision have alone, so that nobody needs msad to load it.
        plain = program.run_decompositions({torch.ops.msad.suppressed.default: suppress_images})
        torch.export.save(plain, written)
    return written.getvalue()


def load(model: bytes, task: str, name: str, shape: "InputShape", identity: str) -> Run:
    """The network of a .pt2 file's bytes, which this process has written."""
    import torch

    from msad_cli.export.trace import quiet

    # Its guards refuse images whose coarsest grid is a single cell, which it computes all the same.
    with quiet():
        network = torch.export.load(io.BytesIO(model)).module(check_guards=False)

    def run(pixels: "Tensor") -> "list[Tensor]":
        with torch.no_grad():
            return list(network(pixels))

    return run


FORMAT = ExportFormat("pt2", write, load, unopened="loading one can run code")
