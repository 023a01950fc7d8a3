"""Where weights start from: torchvision's published weights, a file, another model, or chance."""

import errno
import os
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from msad_cli.errors import ModelFileError, UsageError
from msad_cli.models.backbones.normalisation import of_view, stock_name
from msad_cli.models.detector import Detector
from msad_cli.models.weights.coco import current_names, fitted
from msad_cli.models.weights.slimmable import is_slimmable, to_backbone_state
from msad_cli.system.cache_folder import OTHER_FOLDER, cache_folder, unwritable

OF_DISKS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}
"""What the system says of disks and rights, and not of networks."""
OFFLINE_HINT = "without a network: --init none, or --init FILE with a .pth that was downloaded elsewhere"


@dataclass(frozen=True)
class Copied:
    """How many of a model's tensors were loaded, of how many, and the first names that were not."""

    tensors: int
    of: int
    left: tuple[str, ...]

    def __str__(self) -> str:
        rest = f"; not, for example, {', '.join(self.left[:3])}" if self.left else ""
        return f"{self.tensors} of {self.of} tensors loaded{rest}"


def copy_matching(module: nn.Module, state: Mapping[str, Tensor]) -> Copied:
    """Copies every tensor of `state` whose name and shape `module` has too; norms without views go to every view."""
    own = module.state_dict()
    offered = {name: state.get(name, state.get(stock_name(name))) for name in own}
    matching = {name: each for name, each in offered.items() if each is not None and own[name].shape == each.shape}
    module.load_state_dict(matching, strict=False)
    return Copied(len(matching), len(own), tuple(name for name in own if name not in matching))


def from_imagenet(detector: Detector) -> Copied:
    """Torchvision's default ImageNet weights into the backbone, or into both backbones.

    Raises:
        UsageError: there are none for this backbone, or they cannot be downloaded.
    """
    return _together([_imagenet_backbone(*each) for each in _backbones(detector)])


def _backbones(detector: Detector) -> list[tuple[nn.Module, str, float]]:
    """The backbone, or both, each with its name and width."""
    spec = detector.spec
    first = (detector.core.backbone.body, spec.backbone, spec.width)
    return [first] if detector.low is None else [first, (detector.low.body, spec.low_backbone, spec.low_width)]


def _together(parts: Sequence[Copied]) -> Copied:
    return Copied(
        sum(each.tensors for each in parts),
        sum(each.of for each in parts),
        tuple(name for each in parts for name in each.left),
    )


def _imagenet_backbone(backbone: nn.Module, name: str, width: float) -> Copied:
    if width != 1.0:
        raise UsageError(
            f"--init imagenet: published weights have width 1.0, not {width}",
            "add --init none",
            code="imagenet-weights-missing",
        )
    return copy_matching(backbone, _download(get_model_weights(name)["DEFAULT"]))


def from_coco(detector: Detector) -> Copied:
    """Torchvision's COCO weights into the stock part; rows of classes and keypoints where their names agree.

    Other classes and keypoints keep the start that they have.

    Raises:
        UsageError: there are none for this architecture, or they cannot be downloaded.
    """
    spec, published = detector.spec, detector.kind.published
    if published is None:
        raise UsageError(
            f"--init coco: there are no published weights of {spec.detector}",
            "add --init imagenet",
            code="coco-weights-missing",
        )
    stock = (spec.backbone, spec.width, spec.channels, spec.head_convs) == ("resnet50", 1.0, 256, 4)
    if not stock or spec.head_depthwise or spec.low_backbone:
        raise UsageError(
            f"--init coco: torchvision's {spec.detector} weights are of resnet50 at width 1.0 with 256 channels, "
            "4 convolutions and one backbone",
            "leave --backbone, --width, --head-channels and --head-convs away, or use --init imagenet",
            code="coco-weights-missing",
        )
    weights = get_model_weights(published.name)["DEFAULT"]
    return copy_matching(detector.core, fitted(detector.kind, _download(weights), weights.meta))


def from_file(detector: Detector, path: Path) -> Copied:
    """A state file of torchvision or of a slimmable network (`.pth`), or the tensors of a `.safetensors` file.

    A backbone's weights go into both backbones of a fusion student, as far as their shapes allow; those of a
    slimmable network fit either at its own width.

    Raises:
        ModelFileError: the file is no such thing, or nothing in it fits.
        UsageError: a slimmable network lacks the width.
    """
    state = _read_state(path)
    if detector.kind.published is not None:
        state = current_names(state, detector.kind.published.old_names)
    try:
        copied = max(_offers(detector, state), key=lambda each: each.tensors)
    except RuntimeError as error:
        raise ModelFileError(
            f"{path}: a tensor cannot be copied ({str(error)[:120]})", code="weights-malformed"
        ) from error
    if not copied.tensors:
        raise ModelFileError(
            f"{path}: none of its tensors fits {detector.spec.backbone} at width {detector.spec.width}",
            code="weights-of-another-network",
        )
    return copied


def _offers(detector: Detector, state: dict[str, Tensor]) -> list[Copied]:
    """Copies a state into the parts that it may be of: detector, torchvision's detector, or backbones."""
    backbones = _backbones(detector)
    if is_slimmable(state):
        return [
            _together(
                [copy_matching(backbone, to_backbone_state(state, name, width)) for backbone, name, width in backbones]
            )
        ]
    # Where the file keeps the views apart and the detector does not, or not this one, its first view counts.
    state = {**of_view(state, detector.spec.ks[0]), **state}
    parts = [copy_matching(part, state) for part in (detector, detector.core)]
    return [*parts, _together([copy_matching(backbone, state) for backbone, _, _ in backbones])]


def _read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, those that weights can be copied from."""
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
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict):
        raise ModelFileError(
            f"{path}: a {type(state).__name__}, not a dictionary of tensors", code="not-a-weights-file"
        )
    # Training on several GPUs puts `module.` before every name.
    return {str(name).removeprefix("module."): each for name, each in state.items() if _is_plain(each)}


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


def _download(weights: Any) -> dict[str, Tensor]:
    """The tensors of published weights, from torch's cache, or msad's where that cannot be written."""
    own = Path(torch.hub.get_dir())
    place = {"model_dir": str(cache_folder() / "weights")} if unwritable(own) else {}
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True, **place))
    except (URLError, HTTPException, OSError, RuntimeError) as error:
        if getattr(error, "errno", None) not in OF_DISKS:
            raise UsageError(f"cannot download {weights.url} ({error})", OFFLINE_HINT, code="download-failed") from None
        folder = place.get("model_dir", own)
        raise UsageError(
            f"{weights.url} cannot be kept in {folder} ({error})",
            f"free space, or {OTHER_FOLDER}; torch's own is named by TORCH_HOME",
            code="weights-not-kept",
        ) from None


def initialise(detector: Detector, source: str) -> str:
    """Fills a detector from `imagenet`, `coco`, `none` (its own random start) or a file; says what was done.

    Raises:
        UsageError, ModelFileError: as the three functions above.
    """
    if source == "none":
        return "weights start at random"
    if source == "imagenet":
        return f"ImageNet weights: {from_imagenet(detector)}"
    if source == "coco":
        return f"COCO weights: {from_coco(detector)}"
    return f"{source}: {from_file(detector, Path(source))}"
