"""What a format of exported models has to provide. A new one is a file beside this one, and a line in formats.py.

Imports no torch: by the name of a file `msad info` has to know whether it is an exported model.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

    from msad_cli.export.sidecar import InputShape


class Run(Protocol):
    """A model that runs."""

    def __call__(self, pixels: "Tensor", /) -> "Sequence[Tensor]":
        """uint8 images (N, 3, h, w) of one size -> the outputs of `Deployed`."""


class Load(Protocol):
    """Makes a file's bytes something that runs."""

    def __call__(self, model: bytes, task: str, name: str, shape: "InputShape", identity: str, /) -> Run:
        """What runs the model, on the CPU.

        Args:
            model: the bytes of a file.
            task: `boxes`, `masks` or `keypoints`, which its outputs have to be those of.
            name: of its file, for messages.
            shape: that its input has to have.
            identity: that the file has to repeat, if it has one; tools that change a graph may drop it.

        Raises:
            ModelFileError: it cannot be run, or is another model.
            UsageError: a package is not installed.
        """


@dataclass(frozen=True)
class ExportFormat:
    """A kind of file that a model is exported to.

    Attributes:
        name: that is typed; with a dot in front of it, what the names of its files end in.
        write: a traced network and its task -> the bytes of a file.
        load: those bytes -> what runs them.
        quantise: a file's bytes and batches of images, uint8 (N, 3, h, w), to learn ranges of values from -> the bytes
            of one that computes with 8 bits; None where the format has none.
        mark: a file's bytes and texts by name -> bytes with them; among them is the identity that `load` compares. None
            where nothing can be added.
        need: raises `UsageError` where a package is missing that `write` needs.
        unopened: why `msad eval` and others do not open a file that comes from elsewhere; empty where they do.
    """

    name: str
    write: "Callable[[ExportedProgram, str], bytes]"
    load: Load
    quantise: "Callable[[bytes, Iterable[Tensor]], bytes] | None" = None
    mark: Callable[[bytes, Mapping[str, str]], bytes] | None = None
    need: Callable[[], None] = lambda: None
    unopened: str = ""

    @property
    def suffix(self) -> str:
        """Of the names of its files."""
        return f".{self.name}"
