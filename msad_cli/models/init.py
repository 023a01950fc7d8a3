"""Where weights start from: torchvision's published weights, a file, another model, or chance."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.detection import FCOS_ResNet50_FPN_Weights

from msad_cli.models.detector import Detector
from msad_cli.structures.errors import ModelFileError, UsageError

OFFLINE_HINT = "without a network: --init none, or --init FILE with a .pth that was downloaded elsewhere"


@dataclass(frozen=True)
class Copied:
    """How many of a model's tensors were taken over, of how many, and the first names that were not."""

    tensors: int
    of: int
    left: tuple[str, ...]

    def __str__(self) -> str:
        rest = f"; not, for example, {', '.join(self.left[:3])}" if self.left else ""
        return f"{self.tensors} of {self.of} tensors taken over{rest}"


def copy_matching(module: nn.Module, state: Mapping[str, Tensor]) -> Copied:
    """Copies every tensor of `state` whose name and shape `module` has too."""
    own = module.state_dict()
    matching = {name: each for name, each in state.items() if name in own and own[name].shape == each.shape}
    module.load_state_dict(matching, strict=False)
    return Copied(len(matching), len(own), tuple(name for name in own if name not in matching))


def from_imagenet(detector: Detector) -> Copied:
    """Torchvision's default ImageNet weights into the body.

    Raises:
        UsageError: there are none for this body, or they cannot be downloaded.
    """
    spec = detector.spec
    if spec.width != 1.0:
        raise UsageError(f"--init imagenet: published weights have width 1.0, not {spec.width}", "add --init none")
    weights = get_model_weights(spec.backbone)["DEFAULT"]
    return copy_matching(detector.core.backbone.body, _download(weights))


def from_coco(detector: Detector) -> Copied:
    """Torchvision's COCO weights into the stock part; the classifier's rows where class names agree.

    Raises:
        UsageError: there are none for this architecture, or they cannot be downloaded.
    """
    spec = detector.spec
    if (spec.backbone, spec.width, spec.channels, spec.head_convs) != ("resnet50", 1.0, 256, 4):
        raise UsageError(
            "--init coco: torchvision's FCOS weights are of resnet50 at width 1.0 with 256 channels and 4 convolutions",
            "leave --backbone, --width, --head-channels and --head-convs away, or use --init imagenet",
        )
    weights = FCOS_ResNet50_FPN_Weights.DEFAULT
    state = _download(weights)
    names = [str(name).lower() for name in weights.meta["categories"]]
    rows = [names.index(each.name.lower()) if each.name.lower() in names else 0 for each in spec.classes]
    for part in ("weight", "bias"):
        key = f"head.classification_head.cls_logits.{part}"
        state[key] = state[key][[0, *rows]]  # row 0 is background, which unknown classes start from
    return copy_matching(detector.core, state)


def from_file(detector: Detector, path: Path) -> Copied:
    """A torchvision state file (`.pth`: a classifier's or a detector's) or the tensors of a `.safetensors` file.

    Raises:
        ModelFileError: the file is no such thing, or nothing in it fits.
    """
    state = _read_state(path)
    parts: tuple[nn.Module, ...] = (detector, detector.core, detector.core.backbone.body)
    copied = max((copy_matching(part, state) for part in parts), key=lambda each: each.tensors)
    if not copied.tensors:
        raise ModelFileError(
            f"{path}: none of its tensors fits {detector.spec.backbone} at width {detector.spec.width}"
        )
    return copied


def _read_state(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ModelFileError(f"no such weights file: {path}", "--init takes imagenet, coco, none or a file")
    read: Callable[[Path], Any] = load_file
    if path.suffix != ".safetensors":
        read = _read_pickle
    try:
        state = read(path)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ModelFileError(f"{path}: not a file of weights ({str(error).splitlines()[0][:120]})") from None
    if not isinstance(state, dict) or not all(isinstance(each, Tensor) for each in state.values()):
        raise ModelFileError(f"{path}: not a plain dictionary of tensors")
    return state


def _read_pickle(path: Path) -> Any:
    # weights_only refuses anything that would run code.
    return torch.load(path, map_location="cpu", weights_only=True)


def _download(weights: Any) -> dict[str, Tensor]:
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except (URLError, HTTPException, OSError, RuntimeError) as error:
        raise UsageError(f"cannot download {weights.url} ({error})", OFFLINE_HINT) from None


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
