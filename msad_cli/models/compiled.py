"""torch.compile for what computes most of a detector: backbone and pyramid, and the head."""

from collections.abc import Iterable

import torch

from msad_cli.errors import UsageError
from msad_cli.models.detector import Detector

VARIANTS = 64
"""So many a part may have: one for the first size and one for all others, for each view, for training, for inference,
and for single images. Torch's own limit, beyond which it stops compiling, is 8."""


def compile_parts(detectors: Iterable[object], device: torch.device) -> None:
    """Has torch compile the parts of detectors when they are first called, which takes minutes; results are those of
    before but for rounding. Parameters keep their names.

    Batches are padded to multiples of 32 HR pixels. At the second size that it meets, torch compiles once more, for
    sizes of any number; so an image of yet another size costs nothing.

    Raises:
        UsageError: torch cannot compile here, or a model is no `Detector` but an exported one.
    """
    parts = []
    for each in detectors:
        if not isinstance(each, Detector):
            raise UsageError(
                "--compile: an exported model is compiled by onnxruntime",
                "leave --compile away",
                code="compile-of-exported-model",
            )
        parts += each.compilable()
    if parts:
        refuse_without_compiler(device)
        torch._dynamo.config.recompile_limit = VARIANTS
    for part in parts:
        part.compile()


def refuse_without_compiler(device: torch.device) -> None:
    """Does nothing where torch can compile.

    Raises:
        UsageError: it cannot.
    """
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(8, device=device))
    except Exception as error:
        # A missing compiler, missing headers, a GPU that is too old: each has errors of its own classes.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"--compile: torch {torch.__version__} cannot compile for {device} here ({reason})",
            "it takes a C++ compiler (g++ or clang++) and Python's header files; or leave --compile away",
            code="compiler-unusable",
        ) from None
