"""A format of exported models that nobody uses, as a file of its own in export/ would hold it: torch's, backwards."""

import io
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.export import ExportedProgram

from msad_cli.export.base import ExportFormat, Run
from msad_cli.export.sidecar import InputShape


def write(program: ExportedProgram, task: str) -> bytes:
    written = io.BytesIO()
    torch.export.save(program, written)
    return written.getvalue()[::-1]


def load(model: bytes, task: str, name: str, shape: InputShape, identity: str) -> Run:
    network = torch.export.load(io.BytesIO(model[::-1])).module(check_guards=False)

    def run(pixels: Tensor) -> Sequence[Tensor]:
        with torch.no_grad():
            return list(network(pixels))

    return run


FORMAT = ExportFormat("toy", write, load)
