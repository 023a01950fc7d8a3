"""The formats that models are exported to, a line each. Imports no torch."""

from pathlib import Path

from msad_cli.data.layouts.image_sizes import image_sizes, image_sizes_of
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


def images_of(path: Path, data: str | None = None) -> list[tuple[int, int]]:
    """(height, width) of the images whose mean cost is a model's, by `msad_cli.models.cost.cost_of_set`.

    A graph of fixed sides sees every image in these: one of its HR sides stands for all.

    Args:
        data: their set; None for the one that the model remembers, of which none are known where it is not here.

    Raises:
        ModelFileError: the model cannot be read.
        UsageError, DataError: `data` is no set, or states no sizes.
    """
    if is_exported(path):
        notes = read_exported(path)
        if notes.shape.sides is not None:
            height, width = (side * notes.spec.ks[0] for side in notes.shape.sides)
            return [(height, width)]
    return image_sizes(data) if data else image_sizes_of(read_description(path)[1].data)
