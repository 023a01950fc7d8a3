"""From a view of a detector to the bytes of an .onnx or .pt2 file."""

import contextlib
import importlib.util
import io
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from msad_cli.export.runtime import IDENTITY, Run
from msad_cli.export.sidecar import InputShape
from msad_cli.frame import FRAME_DIVISOR
from msad_cli.models.decode.deployed import INPUT, OUTPUTS, Deployed
from msad_cli.system.extras import missing_extra

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
EXAMPLE = 2
"""Images in the batch that is traced. A batch of one would be taken for a constant."""


def need_packages() -> None:
    """Does nothing where the extra `export` is installed.

    Raises:
        UsageError: a package of it is missing.
    """
    for package in ONNX_PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise missing_extra(package, "export")


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
    with _quiet(), torch.no_grad():
        return torch.export.export(network, (images,), dynamic_shapes=shapes, strict=False)


def to_onnx(program: ExportedProgram, task: str) -> bytes:
    """The bytes of an .onnx file."""
    with _quiet():
        exported: Any = torch.onnx.export(
            program, dynamo=True, input_names=[INPUT], output_names=list(OUTPUTS[task]), verbose=False
        )
    written: bytes = exported.model_proto.SerializeToString()
    return written


def marked(model: bytes, identity: str) -> bytes:
    """An .onnx file's bytes with what tells it from others in its metadata."""
    from onnx import ModelProto, StringStringEntryProto

    # Of messages of protobuf that lie one behind the other, the second one's lists are added to the first one's.
    entry = StringStringEntryProto(key=IDENTITY, value=identity)
    metadata: bytes = ModelProto(metadata_props=[entry]).SerializeToString()
    return model + metadata


def to_pt2(program: ExportedProgram) -> bytes:
    """The bytes of a .pt2 file."""
    written = io.BytesIO()
    with _quiet():
        torch.export.save(program, written)
    return written.getvalue()


def pt2_run(model: bytes) -> Run:
    """The network of a .pt2 file's bytes."""
    # Its guards refuse images whose coarsest grid is a single cell, which it computes all the same.
    with _quiet():
        network = torch.export.load(io.BytesIO(model)).module(check_guards=False)

    def run(pixels: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return list(network(pixels))

    return run


def quantise(model: bytes, batches: Iterable[Tensor]) -> bytes:
    """An ONNX model whose convolutions and matrix products compute with 8 bits, by onnxruntime's static quantisation.

    Args:
        model: the bytes of an .onnx file.
        batches: of images, uint8 (N, 3, h, w), to learn the ranges of values from.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        whole, ready, small = (Path(folder) / f"{name}.onnx" for name in ("whole", "ready", "small"))
        whole.write_bytes(model)
        # Normalisation is folded into convolutions before their ranges are measured.
        quant_pre_process(str(whole), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready), str(small), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            op_types_to_quantize=["Conv"],
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        return small.read_bytes()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters talk about their insides, in warnings and logs."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
