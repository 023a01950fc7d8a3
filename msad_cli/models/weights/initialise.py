"""Where weights start from: torchvision's published weights, a file, another model, or chance."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn
from torchvision.models import get_model_weights

from msad_cli.errors import ModelFileError, UsageError
from msad_cli.models.backbones.cspnext_sizes import SIZES
from msad_cli.models.backbones.normalisation import of_view, stock_name
from msad_cli.models.detector import Detector
from msad_cli.models.detectors.base import PublishedWeights
from msad_cli.models.model_file import Card, own_header
from msad_cli.models.spec import DetectorSpec
from msad_cli.models.weights.class_rows import said, with_own_rows
from msad_cli.models.weights.coco import class_names, current_names, description, fitted, is_published
from msad_cli.models.weights.download import of_address, of_torchvision
from msad_cli.models.weights.foreign_names import from_openmmlab, of_backbone, without_prefix
from msad_cli.models.weights.slimmable import SLIMMABLE_NAMES, is_slimmable, to_backbone_state
from msad_cli.models.weights.state_file import read_state

CORE, BODY, LOW_BODY = "core.", "core.backbone.body.", "low.body."
"""What the names of a detector's parts begin with."""
ENOUGH = 0.9
"""The share of its tensors from which on a file is of a backbone: of its variants a few layers differ."""


@dataclass(frozen=True)
class Copied:
    """How many of a model's tensors were loaded, of how many, and the names that were not.

    Attributes:
        rows: which classes keep what was learnt of them, in words.
    """

    tensors: int
    of: int
    left: tuple[str, ...]
    rows: str = ""

    def __str__(self) -> str:
        rest = f"; not, for example, {', '.join(self.left[:3])}" if self.left else ""
        return f"{self.tensors} of {self.of} tensors loaded{rest}{'; ' * bool(self.rows)}{self.rows}"


def copy_matching(module: nn.Module, state: Mapping[str, Tensor]) -> Copied:
    """Copies every tensor of `state` whose name and shape `module` has too; norms without views go to every view."""
    matching, own = _matching(module, state), module.state_dict()
    module.load_state_dict(matching, strict=False)
    return Copied(len(matching), len(own), tuple(name for name in own if name not in matching))


def _matching(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    own = module.state_dict()
    offered = {name: state.get(name, state.get(stock_name(name))) for name in own}
    return {name: each for name, each in offered.items() if each is not None and own[name].shape == each.shape}


def from_imagenet(detector: Detector) -> Copied:
    """Torchvision's default ImageNet weights into the backbone, or into both backbones.

    Raises:
        UsageError: there are none for this backbone, or they cannot be downloaded.
    """
    return _together([_imagenet_backbone(*each) for each in _backbones(detector)])


def fetch_imagenet(names: Iterable[str]) -> None:
    """Downloads torchvision's weights of backbones, unless they are kept already: whoever needs them later has them.

    Raises:
        UsageError: they cannot be downloaded.
    """
    for name in names:
        of_torchvision(get_model_weights(name)["DEFAULT"])


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
    if name in SIZES:
        raise UsageError(
            f"--init imagenet: torchvision has no weights of {name}",
            "add --init none, or --init FILE with a .pth of it",
            code="imagenet-weights-missing",
        )
    if width != 1.0:
        raise UsageError(
            f"--init imagenet: published weights have width 1.0, not {width}",
            "add --init none",
            code="imagenet-weights-missing",
        )
    return copy_matching(backbone, of_torchvision(get_model_weights(name)["DEFAULT"]))


def from_coco(detector: Detector) -> Copied:
    """Published COCO weights into the stock part; rows of classes and keypoints where their names agree.

    Other classes and keypoints keep the start that they have.

    Raises:
        UsageError: there are none for this architecture, or they cannot be downloaded.
    """
    spec, published = detector.spec, _published(detector)
    if published.urls:
        return replace(_from_openmmlab(detector, published), rows=known_to_coco(detector))
    stock = (spec.backbone, spec.width, spec.channels, spec.head_convs) == ("resnet50", 1.0, 256, 4)
    if not stock or spec.head_depthwise or spec.low_backbone or spec.head_norm != "group":
        raise UsageError(
            f"--init coco: torchvision's {spec.detector} weights are of resnet50 at width 1.0 with 256 channels, "
            "4 convolutions, group normalisation in the head and one backbone",
            "leave --backbone, --width, --head-channels, --head-convs and --head-norm away, or use --init imagenet",
            code="coco-weights-missing",
        )
    weights = get_model_weights(published.name)["DEFAULT"]
    copied = copy_matching(detector.core, fitted(detector.kind, of_torchvision(weights), weights.meta))
    return replace(copied, rows=known_to_coco(detector))


def _published(detector: Detector) -> PublishedWeights:
    published = detector.kind.published
    if published is None:
        raise UsageError(
            f"--init coco: msad knows no published weights of {detector.spec.detector}",
            "add --init imagenet",
            code="coco-weights-missing",
        )
    return published


def _from_openmmlab(detector: Detector, published: PublishedWeights) -> Copied:
    spec = detector.spec
    url = published.urls.get(spec.backbone)
    wanted = (1.0, detector.core.backbone.body.channels[3], 2, "batch")
    if url is None or (spec.width, spec.channels, spec.head_convs, spec.norm) != wanted or spec.head_depthwise:
        raise UsageError(
            f"--init coco: {spec.detector}'s weights are of {', '.join(published.urls)} at width 1.0, with the "
            "channels of the backbone's C3, 2 convolutions and batch normalisation",
            "leave --width, --head-channels, --head-convs, --head-depthwise and --norm away",
            code="coco-weights-missing",
        )
    return copy_matching(
        detector.core, fitted(detector.kind, from_openmmlab(of_address(url)), description(detector.kind))
    )


def known_to_coco(detector: Detector) -> str:
    """Which of a detector's classes torchvision's COCO weights of it know, in words.

    Raises:
        UsageError: there are none.
    """
    _published(detector)
    return said([each.name for each in detector.spec.classes], class_names(description(detector.kind)))


def from_file(detector: Detector, path: Path, partial: bool = False) -> Copied:
    """What `fitting` finds, copied.

    Raises:
        ModelFileError, UsageError: as `fitting`, or a tensor cannot be copied.
    """
    tensors, copied = fitting(detector, path, partial)
    try:
        detector.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise ModelFileError(
            f"{path}: a tensor cannot be copied ({str(error)[:120]})", code="weights-malformed"
        ) from error
    return copied


def fitting(detector: Detector, path: Path, partial: bool = False) -> tuple[dict[str, Tensor], Copied]:
    """What fits a detector, by its own names, of a state file of torchvision, timm or a slimmable network (`.pth`), or
    of a `.safetensors` file, msad's own too.

    A backbone's weights are for both backbones of a fusion student; those of a slimmable network fit either at its own
    width. Rows of classes and keypoints are taken by name where the names are known: from msad's own files, and from
    torchvision's COCO weights.

    Args:
        detector: may lie on the meta device.
        partial: whether a file will do that has less than nine tenths of a backbone.

    Raises:
        ModelFileError: the file is no such thing, or too little in it fits.
        UsageError: a slimmable network lacks the width.
    """
    found = max(_offers(detector, read_state(path), own_header(path)), key=lambda each: len(each.tensors))
    if not found.tensors:
        raise ModelFileError(
            f"{path}: none of its tensors fits {detector.spec.backbone} at width {detector.spec.width}",
            "give a file of this backbone, or --backbone and --width as the file has them",
            code="weights-of-another-network",
        )
    if not partial:
        _refuse_poor(detector, found.tensors, path)
    wanted = [name for name in detector.state_dict() if name.startswith(found.parts)]
    left = [name for name in wanted if name not in found.tensors]
    named = tuple(name.removeprefix(next(part for part in found.parts if name.startswith(part))) for name in left)
    return found.tensors, Copied(len(wanted) - len(left), len(wanted), named, found.rows)


@dataclass(frozen=True)
class _Offer:
    """What of a file fits a detector, under the detector's own names.

    Attributes:
        parts: what the names begin with of what it was compared with: the whole detector, its core, or its backbones.
        rows: which classes it knows, in words.
    """

    tensors: dict[str, Tensor]
    parts: tuple[str, ...]
    rows: str = ""


def _refuse_poor(detector: Detector, found: Mapping[str, Tensor], path: Path) -> None:
    """Does nothing where a backbone has nine tenths of its tensors.

    Raises:
        ModelFileError: one has not.
    """
    for (_, name, width), part in zip(_backbones(detector), (BODY, LOW_BODY), strict=False):
        # How many batches were counted is no weight.
        wanted = [each for each in detector.state_dict() if each.startswith(part) and "num_batches" not in each]
        missing = [each for each in wanted if each not in found]
        if len(wanted) - len(missing) < ENOUGH * len(wanted):
            raise ModelFileError(
                f"{path}: {len(wanted) - len(missing)} of {len(wanted)} tensors of {name} at width {width:g} loaded; "
                f"not, for example, {', '.join(each.removeprefix(part) for each in missing[:3])}",
                "give --backbone, --width and --norm as the file has them, or add --init-partial, which starts the "
                "rest at random",
                code="weights-fit-poorly",
            )


def _offers(detector: Detector, state: dict[str, Tensor], header: tuple[DetectorSpec, Card] | None) -> Iterator[_Offer]:
    """What of a state fits the parts that it may be of: detector, torchvision's detector, or backbones."""
    backbones = _backbones(detector)
    slimmable = without_prefix(state, SLIMMABLE_NAMES)
    if is_slimmable(slimmable):
        yield _of_backbones(detector, [to_backbone_state(slimmable, name, width) for _, name, width in backbones])
        return
    state = from_openmmlab(state)
    # Where the file keeps the views apart and the detector does not, or not this one, its first view counts.
    state = {**of_view(state, detector.spec.ks[0]), **state}
    whole, rows = without_prefix(state, _known(detector)), ""
    names = [each.name for each in detector.spec.classes]
    if header is not None and detector.kind.rows.classes:
        classes = [each.name for each in header[0].classes]
        whole = with_own_rows(detector.kind, whole, classes, header[0].keypoints, CORE)
        rows = said(names, classes)
    yield _Offer(_matching(detector, whole), ("",), rows)
    core, rows = without_prefix(state, _known(detector.core)), ""
    if detector.kind.published is not None:
        core = current_names(core, detector.kind.published.old_names)
        if is_published(detector.kind, core):
            meta = description(detector.kind)
            core, rows = fitted(detector.kind, core, meta), said(names, class_names(meta))
    yield _Offer({CORE + name: each for name, each in _matching(detector.core, core).items()}, (CORE,), rows)
    yield _of_backbones(detector, [of_backbone(state, _known(backbone)) for backbone, *_ in backbones])


def _known(part: nn.Module) -> set[str]:
    """The names that a part's tensors have or, in a file without views, could have."""
    return {each for name in part.state_dict() for each in (name, stock_name(name))}


def _of_backbones(detector: Detector, states: Sequence[Mapping[str, Tensor]]) -> _Offer:
    """What of a state for each backbone fits it."""
    found: dict[str, Tensor] = {}
    for (backbone, *_), state, part in zip(_backbones(detector), states, (BODY, LOW_BODY), strict=False):
        found |= {part + name: each for name, each in _matching(backbone, state).items()}
    return _Offer(found, (BODY, LOW_BODY))


def initialise(detector: Detector, source: str, partial: bool = False) -> str:
    """Fills a detector from `imagenet`, `coco`, `none` (its own random start) or a file; says what was done.

    Args:
        partial: see `from_file`.

    Raises:
        UsageError, ModelFileError: as the three functions above.
    """
    if source == "none":
        return "weights start at random"
    if source == "imagenet":
        return f"ImageNet weights: {from_imagenet(detector)}"
    if source == "coco":
        return f"COCO weights: {from_coco(detector)}"
    return f"{source}: {from_file(detector, Path(source), partial)}"
