"""OpenVINO as a runtime of .onnx files: often the faster one on Intel's CPUs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from msad_cli.errors import ModelFileError
from msad_cli.export.base import Run
from msad_cli.export.sidecar import IDENTITY, refuse_another, refuse_other_sides
from msad_cli.system.extras import missing_extra

if TYPE_CHECKING:
    from torch import Tensor

    from msad_cli.export.sidecar import InputShape

TAIL = 1 << 16
"""Bytes at the end of a file, among which its metadata are."""
UNKNOWN = "No conversion rule"
"""How the line begins that names operations of a graph that OpenVINO does not know."""


def load(model: bytes, task: str, name: str, shape: "InputShape", identity: str = "") -> Run:
    """OpenVINO's compiled model, in float32 with as many threads as torch has; see `base.Load`."""
    import torch

    from msad_cli.models.decode.deployed import INPUT, OUTPUTS

    try:
        import openvino
    except ImportError:
        raise missing_extra("openvino", "openvino") from None
    with _explained(name):
        core = openvino.Core()
        network = core.read_model(model)
        settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(network, "CPU", settings)
    ins, outs = ([each.get_any_name() for each in places] for places in (network.inputs, network.outputs))
    # It does not show a file's metadata, in which `mark` wrote the identity as it is.
    another = IDENTITY.encode() in model[-TAIL:] and identity.encode() not in model
    refuse_another(name, not another and ins == [INPUT] and tuple(outs) == OUTPUTS[task])
    sides = network.inputs[0].get_partial_shape()
    refuse_other_sides(name, [each.get_length() if each.is_static else str(each) for each in sides], shape)
    request = compiled.create_infer_request()

    def run(pixels: "Tensor") -> "list[Tensor]":
        with _explained(name):
            request.infer({INPUT: pixels.contiguous().numpy()})
            places = range(len(outs))
            return [torch.from_numpy(request.get_output_tensor(place).data.copy()) for place in places]

    return run


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # OpenVINO raises plain RuntimeErrors of many lines, of which one may name operations that it does not know.
        text = str(error)
        reason = " ".join(text[max(0, text.find(UNKNOWN)) :].split())[:200]
        raise ModelFileError(
            f"{name}: openvino cannot run it ({reason})", "leave out --runtime openvino", code="openvino-refuses"
        ) from None
