"""The format .onnx, which onnxruntime and many others run. Written by torch.onnx, in 8 bits by onnxruntime."""

import importlib.util
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msad_cli.errors import ModelFileError
from msad_cli.export.base import ExportFormat, Run
from msad_cli.export.sidecar import IDENTITY, refuse_another, refuse_other_sides
from msad_cli.system.extras import missing_extra

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from torch.export import ExportedProgram

    from msad_cli.export.sidecar import InputShape

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
AXES = {0: "batch", 2: "height", 3: "width"}
"""Of the input, those that may be of any size."""
DETECTIONS = "detections"
"""The second axis of the outputs, where its size depends on the image's."""


def need_packages() -> None:
    """Does nothing where the extra `export` is installed.

    Raises:
        UsageError: a package of it is missing.
    """
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise missing_extra(package, "export")


def write(program: "ExportedProgram", task: str) -> bytes:
    """The bytes of an .onnx file."""
    import torch

    from msad_cli.export.trace import quiet
    from msad_cli.models.decode.deployed import INPUT, OUTPUTS

    with quiet():
        exported: Any = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[INPUT],
            output_names=list(OUTPUTS[task]),
            custom_translation_table={torch.ops.msad.suppressed.default: _suppressed},
            verbose=False,
        )
    model = exported.model_proto
    name_axes(model.graph)
    written: bytes = model.SerializeToString()
    return written


def _suppressed(boxes: Any, scores: Any, overlap: float, most: int) -> Any:
    """`decode.nms.suppressed` in ONNX, whose operation takes each image by itself and stops at the most boxes wanted.

    Torchvision's way to it knows neither: it looks at all pairs of boxes, of all images in one row.
    """
    import onnxscript

    from msad_cli.models.decode.nms import DROPPED

    op: Any = onnxscript.opset18
    limits = (op.Constant(value_ints=[most]), *(op.Constant(value_floats=[each]) for each in (overlap, DROPPED)))
    by_class = op.Unsqueeze(scores, op.Constant(value_ints=[1]))
    kept = op.NonMaxSuppression(boxes, by_class, *limits)
    none = op.Expand(op.Constant(value_floats=[DROPPED]), op.Shape(by_class))
    return op.Squeeze(op.ScatterND(none, kept, op.GatherND(by_class, kept)), op.Constant(value_ints=[1]))


def name_axes(graph: Any) -> None:
    """Calls the axes of a graph by names where torch counts them (`s34`), in the sizes of all that is computed too.

    Args:
        graph: an ONNX `GraphProto` with one input (N, 3, h, w) and outputs (N, D, …).
    """
    names: dict[str, str] = {}
    for place, name in AXES.items():
        names.setdefault(_axes(graph.input[0])[place].dim_param, name)
    sizes = re.compile("|".join(rf"\b{re.escape(each)}\b" for each in names if each) or r"(?!)")
    found = {_axes(each)[1].dim_param for each in graph.output} - {""}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in _axes(value):
            if axis.dim_param:
                whole = DETECTIONS if axis.dim_param in found else axis.dim_param
                axis.dim_param = sizes.sub(lambda match: names[match[0]], whole)


def _axes(value: Any) -> Any:
    return value.type.tensor_type.shape.dim


def mark(model: bytes, texts: Mapping[str, str]) -> bytes:
    """An .onnx file's bytes with texts in its metadata."""
    from onnx import ModelProto, StringStringEntryProto

    # Of messages of protobuf that lie one behind the other, the second one's lists are added to the first one's.
    entries = [StringStringEntryProto(key=key, value=value) for key, value in texts.items()]
    metadata: bytes = ModelProto(metadata_props=entries).SerializeToString()
    return model + metadata


def quantise(model: bytes, batches: "Iterable[Tensor]") -> bytes:
    """An ONNX model whose convolutions compute with 8 bits, by onnxruntime's static quantisation.

    Args:
        model: the bytes of an .onnx file.
        batches: of images, uint8 (N, 3, h, w), to learn the ranges of values from.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from msad_cli.export.trace import quiet
    from msad_cli.models.decode.deployed import INPUT

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> "dict[str, np.ndarray[Any, Any]] | None":
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    with tempfile.TemporaryDirectory() as folder, quiet():
        whole, ready, small = (Path(folder) / f"{name}.onnx" for name in ("whole", "ready", "small"))
        whole.write_bytes(model)
        # Normalisation is folded into convolutions before their ranges are measured.
        quant_pre_process(str(whole), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(small),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=["Conv"],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return small.read_bytes()


def load(model: bytes, task: str, name: str, shape: "InputShape", identity: str = "") -> Run:
    """onnxruntime's session of a model, with as many threads as torch has; see `Load`."""
    import torch

    from msad_cli.models.decode.deployed import INPUT, OUTPUTS

    try:
        import onnxruntime
    except ImportError:
        raise missing_extra("onnxruntime", "export") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    with _explained(name):
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    known = session.get_modelmeta().custom_metadata_map.get(IDENTITY, identity)
    ins, outs = ([each.name for each in places] for places in (session.get_inputs(), session.get_outputs()))
    refuse_another(name, known == identity and ins == [INPUT] and tuple(outs) == OUTPUTS[task])
    refuse_other_sides(name, session.get_inputs()[0].shape, shape)

    def run(pixels: "Tensor") -> "list[Tensor]":
        with _explained(name):
            return [torch.from_numpy(each) for each in session.run(None, {INPUT: pixels.numpy()})]

    return run


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # onnxruntime has classes of errors for what is wrong with a model, which share no base.
        raise ModelFileError(
            f"{name}: onnxruntime cannot run it ({str(error)[:200]})", "export it again", code="onnxruntime-refuses"
        ) from None


FORMAT = ExportFormat("onnx", write, load, quantise, mark, need_packages)
