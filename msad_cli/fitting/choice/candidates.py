"""The models that may be shipped: a network, what it sees, and what that costs in multiply-accumulates."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from msad_cli.errors import MsadError, UsageError
from msad_cli.fitting.choice.facts import Facts
from msad_cli.frame import DIVISOR, Frame, Resolution
from msad_cli.models.backbones.published import has_imagenet_weights
from msad_cli.models.cost import cost_of_set, count_cost
from msad_cli.models.detectors.kinds import DETECTORS, PUBLISHED_HEAD, usual_head
from msad_cli.models.spec import ClassName, DetectorSpec
from msad_cli.text import meant, size_text
from msad_cli.training.plan import choose_norm, invalid_values_named
from msad_cli.training.starting import PUBLISHED, foretold

SMALL_HEAD = (64, 2)
"""Channels and convolutions of the head of docs/results-paper.md."""
SMALLEST_K = 2
PLAIN = 1
"""The k of an ordinary detector: it sees the image that its boxes are in."""
SMALLEST, STEP = 64, 32
"""HR pixels: the shortest side that is tried, and the steps in which sides grow."""
COUNTED = Resolution(256, 384)
"""The HR size at which a network's multiply-accumulates are counted: padding to any multiple adds nothing."""


@dataclass(frozen=True)
class Network:
    """A detector with a backbone and a head; the fields are flags of `msad teacher`."""

    detector: str
    backbone: str
    width: float
    head_channels: int
    head_convs: int
    head_depthwise: bool = False
    init: str = "none"

    def __str__(self) -> str:
        width = f" × {self.width:g}" if self.width != 1 else ""
        head = f"head {self.head_channels} × {self.head_convs}{' depthwise' if self.head_depthwise else ''}"
        return f"{self.detector} {self.backbone}{width}, {head}"


def _network(detector: str, backbone: str, width: float, depthwise: bool = False) -> Network:
    whole = PUBLISHED_HEAD if backbone == "resnet50" else SMALL_HEAD
    return Network(detector, backbone, width, *usual_head(detector, backbone, width, whole), depthwise)


NANO = _network("rtmdet", "cspnext_nano", 1.0)
NETWORKS = (
    _network("fcos", "resnet18", 0.25),
    _network("fcos", "resnet18", 0.5),
    _network("fcos", "resnet18", 0.5, depthwise=True),
    _network("fcos", "resnet18", 1.0),
    _network("fcos", "mobilenet_v2", 0.35),
    _network("fcos", "mobilenet_v2", 1.0),
    _network("fcos", "resnet50", 1.0),
    _network("rtmdet", "cspnext_nano", 0.5),
    replace(NANO, head_channels=32),
    replace(NANO, head_convs=1),
    NANO,
    _network("rtmdet", "cspnext_tiny", 1.0),
    _network("rtmdet", "cspnext_s", 1.0),
    _network("rtmdet", "cspnext_m", 1.0),
)
"""What is tried, a line each. Another one costs a line here."""


@dataclass(frozen=True)
class Candidate:
    """A model that may be shipped.

    Attributes:
        network: of which it is built.
        spec: that builds it: a student of one aligned view, or where k is `PLAIN` an ordinary detector.
        sees: (height, width) of the usual image as it sees it.
        macs: multiply-accumulates of an image, by `cost_of_set`, as it will be deployed.
        macs_as_counted: those of an image of `COUNTED`, which tell networks apart whatever they see.
        parameters: how many it has.
    """

    network: Network
    spec: DetectorSpec
    sees: tuple[int, int]
    macs: float
    macs_as_counted: float
    parameters: int

    @property
    def k(self) -> int:
        """By how much its image is downsampled from the HR one."""
        return self.spec.ks[0]

    @property
    def plain(self) -> bool:
        """Whether it is an ordinary detector."""
        return self.spec.scales == "single"

    @property
    def name(self) -> str:
        """What tells it from all others."""
        return f"{self.network}, {f'k = {self.k}' if not self.plain else 'plain'}, HR {size_text(self.spec.resolution)}"

    @property
    def family(self) -> tuple[Network, int]:
        """What it shares with candidates that differ in size alone."""
        return self.network, self.k


def candidates_for(facts: Facts, networks: Iterable[Network], ks: Iterable[int]) -> list[Candidate]:
    """Every network at every k and every size that suits the set, in no order.

    Args:
        ks: 2 and 4, and `PLAIN` for ordinary detectors.
    """
    ks = tuple(ks)
    return [each for network in networks for k in ks for each in _of_family(facts, network, k)]


def _of_family(facts: Facts, network: Network, k: int) -> Iterator[Candidate]:
    whole = replace(_spec(network, k), **facts.fields)
    (view,) = whole.views
    usual = count_cost(whole, view, [(COUNTED.short_side, COUNTED.long_side)])
    for resolution in sizes_for(facts):
        height, width = resolution.frame_size(*facts.size)
        spec = replace(whole, resolution=resolution)
        macs = cost_of_set(spec, view, facts.counted).total
        parameters = sum(usual.parameters.values())
        yield Candidate(network, spec, (height // k, width // k), macs, usual.total, parameters)


def sizes_for(facts: Facts) -> list[Resolution]:
    """HR sizes, ascending: of those whose padded sides are the same, and so the cost, the largest; none enlarges the
    usual image.
    """
    best: dict[tuple[int, int], Resolution] = {}
    ratio = max(facts.size) / facts.short
    shorts = {*range(SMALLEST, facts.short, STEP), *(int(side / ratio) // 4 * 4 for side in range(0, 16384, DIVISOR))}
    for short in sorted(each for each in {*shorts, facts.short} if SMALLEST <= each <= facts.short):
        size = facts.resolution(short)
        best[Frame.around([size.frame_size(*facts.size)], divisor=DIVISOR).padded] = size
    return sorted(best.values(), key=lambda each: each.short_side) or [facts.resolution(max(32, facts.short))]


def _spec(network: Network, k: int) -> DetectorSpec:
    plain = k == PLAIN
    return DetectorSpec(
        role="baseline" if plain else "student",
        detector=network.detector,
        backbone=network.backbone,
        width=network.width,
        channels=network.head_channels,
        head_convs=network.head_convs,
        head_depthwise=network.head_depthwise,
        norm=choose_norm("auto", network.init, network.detector).value,
        scales="single" if plain else "aligned",
        ks=(k,),
        resolution=COUNTED,
        classes=(ClassName(1, "any"),),
        divisor=DIVISOR,
    )


def chosen_networks(detector: str | None, backbone: str | None, init: str | None) -> list[Network]:
    """Those of the table that were asked for; a backbone that stands in no line is built like others of its kind.

    Args:
        detector, backbone: what was typed; None for all.
        init: where weights start from, of the networks that have them; None: at random.

    Raises:
        UsageError: there is no such detector or backbone, or it has two stages; or weights do not suit it.
        ModelFileError: the weights cannot be read.
    """
    dense = [name for name, entry in DETECTORS.items() if entry.family == "dense"]
    if detector is not None and detector not in dense:
        raise UsageError(
            f"--detector {detector}: not one that msad fit chooses among{meant(detector, dense)}",
            f"give {', '.join(dense)}, or none; msad teacher trains others",
            code="unknown-value",
        )
    found = [each for each in NETWORKS if detector in (None, each.detector) and backbone in (None, each.backbone)]
    if not found:
        found = [_network(each, backbone or "resnet18", 1.0) for each in dense if detector in (None, each)]
    with invalid_values_named("msad fit --help lists the values"):
        for each in found:
            _spec(each, SMALLEST_K)
    return found if init in (None, Network.init) else _started(found, init)


def _started(networks: Iterable[Network], init: str) -> list[Network]:
    """Networks that start from these weights where they suit, and at random elsewhere.

    Raises:
        UsageError, ModelFileError: they suit none.
    """
    found, errors = [], []
    for each in networks:
        if init in PUBLISHED and not has_imagenet_weights(each.backbone, each.width):
            found.append(each)
            continue
        try:
            foretold(_spec(each, SMALLEST_K), init, partial=False)
            found.append(replace(each, init=init))
        except MsadError as error:
            errors.append(error)
            found.append(each)
    if errors and all(each.init == Network.init for each in found):
        raise errors[0]
    return found
