"""Reading the tensors of a file that somebody else may have written: nothing in it is run."""

import os
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from msad_cli.errors import ModelFileError

DEEPEST = 4
"""Dictionaries in dictionaries: checkpoints have two, such as `{"model": {"state_dict": …}}`."""


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, those that weights can be copied from.

    Checkpoints wrap them in dictionaries of any name. That of the most tensors counts, the first of several.

    Raises:
        ModelFileError: there is no such file, or it holds something else.
    """
    from safetensors.torch import load

    if not os.path.isfile(path):  # unlike Path's, it says no to names that are too long, too
        what = f"{path}: not a file" if os.path.exists(path) else f"no such weights file: {path}"
        raise ModelFileError(what, "--init takes imagenet, coco, none or a file", code="weights-file-missing")
    try:
        # Read as a whole: a file that is mapped to memory and gets shorter ends the process.
        state = load(path.read_bytes()) if path.suffix == ".safetensors" else _read_pickle(path)
    except Exception as error:
        # Torch raises whatever its reader stumbles over in damaged files, and tells of others how to run their code.
        what = (str(error) or type(error).__name__).splitlines()[0][:120]
        if isinstance(error, UnpicklingError):
            what = "a damaged pickle, or one of more than tensors, which could run code"
        raise ModelFileError(
            f"{path}: not a file of weights ({what})",
            "--init takes .safetensors, or the .pth of a plain state_dict",
            code="not-a-weights-file",
        ) from error
    if not isinstance(state, dict):
        raise ModelFileError(
            f"{path}: a {type(state).__name__}, not a dictionary of tensors", code="not-a-weights-file"
        )
    plain = ({str(name): each for name, each in one.items() if _is_plain(each)} for one in _dictionaries(state))
    return max(plain, key=len)


def _dictionaries(outer: dict[Any, Any], depth: int = 1) -> Iterator[dict[Any, Any]]:
    """A dictionary and those in it."""
    yield outer
    for each in outer.values():
        if isinstance(each, dict) and depth < DEEPEST:
            yield from _dictionaries(each, depth + 1)


def _is_plain(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not (value.is_quantized or value.is_complex() or value.is_nested)
    )


def _read_pickle(path: Path) -> Any:
    """What `torch.save` wrote; whatever would run code is refused."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            # Torch takes the memory that a record claims to need. It compresses none: all of them fit into the file.
            if sum(each.file_size for each in archive.infolist()) > path.stat().st_size:
                raise ValueError("its records claim more bytes than the file has")
    with warnings.catch_warnings():
        # Of archives that it refuses a moment later.
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)
