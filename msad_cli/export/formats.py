"""The formats that models are exported to, a line each. Imports no torch."""

from pathlib import Path

from msad_cli.export import onnx, openvino, pt2
from msad_cli.export.base import ExportFormat, Load
from msad_cli.export.sidecar import read_exported
from msad_cli.models.model_file import Card, read_header
from msad_cli.models.spec import DetectorSpec

FORMATS: dict[str, ExportFormat] = {
    "onnx": onnx.FORMAT,
    "pt2": pt2.FORMAT,
}
"""By the name that is typed; the first one is the usual one."""


RUNTIMES: dict[str, Load] = {
    "onnxruntime": onnx.load,
    "openvino": openvino.load,
}
"""What runs .onnx files, by the name that `--runtime` takes; the first one is the usual one."""


def format_of(path: Path) -> ExportFormat | None:
    """The format of an exported model, by its name; None for a file of any other name."""
    return next((each for each in FORMATS.values() if each.suffix == path.suffix.lower()), None)


def is_exported(path: Path) -> bool:
    """Whether a file is an exported model, by its name."""
    return format_of(path) is not None


def read_description(path: Path) -> tuple[DetectorSpec, Card]:
    """Spec and card of a model file, or of an exported model by the JSON beside it.

    Raises:
        ModelFileError: there is none, or it is broken.
    """
    if not is_exported(path):
        return read_header(path)[:2]
    notes = read_exported(path)
    return notes.spec, notes.card
