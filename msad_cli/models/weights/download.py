"""Published weights from the network, or from where they were kept."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor

from msad_cli.errors import UsageError
from msad_cli.models.weights.state_file import read_state
from msad_cli.system.cache_folder import OTHER_FOLDER, cache_folder, unwritable

OF_DISKS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}
"""What the system says of disks and rights, and not of networks."""
OFFLINE_HINT = "without a network: --init none, or --init FILE with a .pth that was downloaded elsewhere"


def of_torchvision(weights: Any) -> dict[str, Tensor]:
    """The tensors of torchvision's weights, from torch's cache, or msad's where that cannot be written.

    Raises:
        UsageError: they cannot be downloaded, or not kept.
    """
    folder = _folder()
    place = {} if folder is None else {"model_dir": str(folder)}
    with _explained(weights.url, folder):
        return dict(weights.get_state_dict(progress=False, check_hash=True, **place))


def of_address(url: str) -> dict[str, Tensor]:
    """As `of_torchvision`, of a file whose name ends with the beginning of its SHA-256: `…-78e30dcc.pth`.

    Raises:
        UsageError: as there.
        ModelFileError: the file holds something else.
    """
    folder = _folder()
    file = (folder or Path(torch.hub.get_dir()) / "checkpoints") / url.rpartition("/")[2]
    if not file.exists():
        with _explained(url, folder):
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), hash_prefix=file.stem.rpartition("-")[2], progress=False)
    return read_state(file)


def _folder() -> Path | None:
    """Where files are kept; None for torch's own place."""
    return cache_folder() / "weights" if unwritable(Path(torch.hub.get_dir())) else None


@contextmanager
def _explained(url: str, folder: Path | None) -> Iterator[None]:
    try:
        yield
    except (URLError, HTTPException, OSError, RuntimeError) as error:
        if getattr(error, "errno", None) not in OF_DISKS:
            raise UsageError(f"cannot download {url} ({error})", OFFLINE_HINT, code="download-failed") from None
        raise UsageError(
            f"{url} cannot be kept in {folder or torch.hub.get_dir()} ({error})",
            f"free space, or {OTHER_FOLDER}; torch's own is named by TORCH_HOME",
            code="weights-not-kept",
        ) from None
