"""What a model is: the frozen values from which it is rebuilt. Imports no torch: `msad info` needs none."""

from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, get_args

from msad_cli.data.annotations.values import MOST_KEYPOINTS
from msad_cli.data.images.tones import BY_FILE, Tones
from msad_cli.frame import DIVISOR, FRAME_DIVISOR, Phase, Resolution, level_shift
from msad_cli.models.backbones.cspnext_sizes import SIZES
from msad_cli.models.detectors.kinds import DETECTORS, Family, Task
from msad_cli.text import meant

Role = Literal["teacher", "student", "baseline"]
Scales = Literal["aligned", "vanilla", "single"]
Norm = Literal["frozen", "batch", "group"]
HeadNorm = Literal["group", "batch"]
Fusion = Literal["c-ff", "sigmoid", "channel", "sum", "concat"]
View = Literal["high", "middle", "low", "fused"]

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
RESNEXTS = ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d")
BACKBONE_NAMES = (*RESNETS, *RESNEXTS, "mobilenet_v2", *SIZES)
MOST_DETECTIONS = 1000
"""Of an image."""

LONGEST_NAME, LONGEST_NAMES = 1_000, 500_000
"""Characters: of one class or keypoint, and of all. The model file's header holds them."""


def _between(what: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{what} {value}: not from {low} to {high}")


@dataclass(frozen=True)
class ClassName:
    """A category: its id in the user's data and its name. Its label inside the model is its place in the list + 1."""

    category_id: int
    name: str


@dataclass(frozen=True)
class Learning:
    """How a model learns, beside its architecture.

    Attributes:
        rois: proposals of an image that a two-stage detector samples to learn from.
    """

    rois: int = 512

    def __post_init__(self) -> None:
        _between("rois", self.rois, 1, 10_000)


@dataclass(frozen=True)
class Measuring:
    """How a model is measured, beside its architecture.

    Attributes:
        sigmas: of each keypoint, how far off annotators place it (COCO's OKS); empty for the evaluation's own.
    """

    sigmas: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for sigma in self.sigmas:
            _between("sigma", sigma, 1e-6, 1e6)


@dataclass(frozen=True)
class DetectorSpec:
    """Everything that rebuilds a model.

    Attributes:
        role: teacher (several views and a fusion), student (one view; with several, a fusion student as in table 7 of
            the paper), baseline (no fusion).
        scales: how it was trained: aligned views, vanilla multi-scale, or a single scale.
        ks: by how much each of its views is downsampled, ascending; (1, 2) for a teacher, (2,) for its student.
        channels: channels of the pyramid and of the head's towers. Of the two-stage detectors: of the mask head, half
            those of the keypoint head, a quarter of the box head's.
        head_convs: convolutions of each tower of the head. Of the two-stage detectors: of the mask head, half those of
            the keypoint head. 4 is torchvision's for all of them.
        resolution: the HR frame's size. A student sees images 1/k of it.
        mean, std: normalisation of RGB in [0, 1].
        phase: how the pixels of its low views lie in the HR image.
        fusion: how aligned pyramids become one, if this model fuses.
        detections_per_image: how many detections an image has at most.
        head_depthwise: a dense head's 3×3 convolutions are depthwise separable.
        head_norm: what normalises the towers of an FCOS, and depthwise ones of a RetinaNet.
        low_backbone, low_width: the backbone of a fusion student's smaller views; empty for one backbone for all views.
        keypoints: names of the keypoints that keypointrcnn finds on each object.
        flip_pairs: pairs of places in `keypoints`, from 0, that a mirrored image swaps.
        skeleton: pairs of places in `keypoints`, from 0, between which lines are drawn.
        divisor: images are padded to multiples of so many HR pixels, 32 or 128; unaligned small images to 128.
        learning, measuring: what is no architecture, and stays with the model.
        tones: how images of more than 8 bits become what it sees; files of old versions have none.
    """

    role: Role
    detector: str
    backbone: str
    width: float
    channels: int
    head_convs: int
    norm: Norm
    scales: Scales
    ks: tuple[int, ...]
    resolution: Resolution
    classes: tuple[ClassName, ...]
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    phase: Phase = "centre"
    fusion: Fusion = "c-ff"
    detections_per_image: int = 100
    head_depthwise: bool = False
    head_norm: HeadNorm = "group"
    low_backbone: str = ""
    low_width: float = 1.0
    keypoints: tuple[str, ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    divisor: int = FRAME_DIVISOR
    learning: Learning = Learning()
    measuring: Measuring = Measuring()
    tones: Tones = BY_FILE

    def __post_init__(self) -> None:
        _one_of("role", self.role, get_args(Role))
        _one_of("detector", self.detector, tuple(DETECTORS))
        _one_of("backbone", self.backbone, BACKBONE_NAMES)
        for name, known in (("norm", Norm), ("scales", Scales), ("phase", Phase), ("fusion", Fusion)):
            _one_of(name, getattr(self, name), get_args(known))
        _one_of("head norm", self.head_norm, get_args(HeadNorm))
        _between("width", self.width, 0.125, 4.0)
        _between("head channels", self.channels, 32, 1024)
        _between("head convolutions", self.head_convs, 1, 16)
        _between("detections per image", self.detections_per_image, 1, MOST_DETECTIONS)
        _between("number of classes", len(self.classes), 1, 10_000)
        if self.channels % 32:
            raise ValueError(f"channels = {self.channels}: the head's group normalisation needs a multiple of 32")
        for what, values, least in (("mean", self.mean, -1e6), ("std", self.std, 1e-6)):
            for value in values:
                _between(what, value, least, 1e6)
        if self.head_depthwise and not self.dense:
            raise ValueError(f"{self.detector}: only the heads of dense detectors have a depthwise form")
        self._check_views()
        self._check_keypoints()
        for each in self.classes:
            _between("category id", each.category_id, -(2**63), 2**63 - 1)
            _between("characters of a class name", len(each.name), 0, LONGEST_NAME)
        names = (*(each.name for each in self.classes), *self.keypoints)
        _between("characters of all class names and keypoints", sum(map(len, names)), 0, LONGEST_NAMES)
        if len({each.category_id for each in self.classes}) != len(self.classes):
            raise ValueError("classes: a category id stands twice")

    def _check_views(self) -> None:
        if not self.ks or list(self.ks) != sorted(set(self.ks)):
            raise ValueError(f"k = {self.ks}: values have to be different and ascending")
        finest = self.finest_level - max(level_shift(k) for k in self.ks)
        if self.scales == "aligned" and finest < 1:
            raise ValueError(
                f"{self.detector}: a view downsampled by {self.ks[-1]} would need level P{finest}, and the stem's P1 "
                "is the finest there is; take k = 2, or a dense detector"
            )
        if self.divisor not in (DIVISOR, FRAME_DIVISOR):
            raise ValueError(f"divisor {self.divisor}: neither {DIVISOR} nor {FRAME_DIVISOR}")
        if self.divisor not in (usual_divisor(self.scales, self.ks), FRAME_DIVISOR):
            raise ValueError(f"divisor {self.divisor}: small images of {self.scales!r} scales need {FRAME_DIVISOR}")
        if self.role == "teacher" and len(self.ks) < 2:
            raise ValueError(f"k = {self.ks}: a teacher fuses several views")
        if len(self.ks) > 1 and self.ks[0] != 1:
            raise ValueError(f"k = {self.ks}: the first of several views is the HR image, k = 1")
        if self.fuses and self.scales != "aligned":
            raise ValueError(f"scales {self.scales!r}: only aligned views can be fused")
        _one_of("low backbone", self.low_backbone, ("", *BACKBONE_NAMES))
        if self.low_backbone and not (self.role == "student" and self.fuses):
            raise ValueError("low backbone: only a student of several views has a second backbone")
        if not self.low_backbone and self.low_width != 1.0:
            raise ValueError("low width: there is no low backbone")
        _between("low width", self.low_width, 0.125, 4.0)

    def _check_keypoints(self) -> None:
        count = len(self.keypoints)
        if self.task == "keypoints":
            _between("number of keypoints", count, 1, MOST_KEYPOINTS)
        elif count:
            raise ValueError(f"keypoints: {self.detector} finds none")
        for name in self.keypoints:
            _between("characters of a keypoint's name", len(name), 0, LONGEST_NAME)
        for what, pairs in (("flip pairs", self.flip_pairs), ("skeleton", self.skeleton)):
            _between(what, len(pairs), 0, MOST_KEYPOINTS)
            if not all(0 <= place < count for pair in pairs for place in pair):
                raise ValueError(f"{what}: a keypoint that is none of the {count}")
        swapped = [place for pair in self.flip_pairs for place in pair]
        if len(set(swapped)) != len(swapped):
            raise ValueError("flip pairs: a keypoint stands twice")
        if self.measuring.sigmas:
            _between("number of sigmas", len(self.measuring.sigmas), count, count)

    @property
    def categories(self) -> tuple[tuple[int, str], ...]:
        """The classes as (original id, name), in the order of their labels."""
        return tuple((each.category_id, each.name) for each in self.classes)

    @property
    def task(self) -> Task:
        """What it finds beside boxes: boxes alone, masks or keypoints."""
        return DETECTORS[self.detector].task

    @property
    def family(self) -> Family:
        """How its head predicts: at every cell (`dense`), or proposals first (`two-stage`)."""
        return DETECTORS[self.detector].family

    @property
    def dense(self) -> bool:
        """Whether its head predicts at every cell."""
        return self.family == "dense"

    @property
    def two_stage(self) -> bool:
        """Whether it predicts proposals first, and then looks at these RoIs."""
        return self.family == "two-stage"

    @property
    def finest_level(self) -> int:
        """l of the finest level P_l of the HR view. Its stride is 2^l HR pixels."""
        return DETECTORS[self.detector].finest_level

    @property
    def levels(self) -> range:
        """l of the levels P_l of the HR view, finest first."""
        return range(self.finest_level, self.finest_level + DETECTORS[self.detector].levels)

    @property
    def fuses(self) -> bool:
        """Whether it predicts from a fusion of its views."""
        return self.role != "baseline" and len(self.ks) > 1

    @property
    def views(self) -> tuple[View, ...]:
        """The views in which this model can be evaluated; the first is its own best, the default."""
        known: tuple[View, ...] = ("fused", "high", "middle", "low")
        return tuple(each for each in known if self.ks_of(each))

    def ks_of(self, view: View) -> tuple[int, ...]:
        """The reductions whose pixels a view needs; none for a view that this model does not have."""
        smaller = tuple(k for k in self.ks if k > 1)
        return {
            "fused": self.ks if self.fuses else (),
            "high": self.ks[:1] if self.ks[0] == 1 else (),
            "middle": smaller[:-1],
            "low": smaller[-1:],
        }[view]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, those of `learning` and `measuring` among the others."""
        values = asdict(self)
        nested = [values.pop(name) for name in _NESTED]
        return values | {name: each for one in nested for name, each in one.items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "DetectorSpec":
        """The inverse of `to_json`.

        Raises:
            ValueError, TypeError, KeyError: a field is missing, unknown, or of a wrong type or size.
        """
        # Files of old versions lack the later fields, and name the task, which follows from the detector.
        known = {**_LATER, **values}
        for name in _NESTED:  # as cards had them for a while
            known |= known.pop(name, {})
        task = known.pop("task", None)
        known["resolution"] = Resolution(**_typed(known["resolution"], {"short_side": int, "long_side": int}))
        classes = [_typed(each, {"category_id": int, "name": str}) for each in known["classes"]]
        known["classes"] = tuple(ClassName(**each) for each in classes)
        for name, kinds in _LISTS.items():
            known[name] = _listed(name, known[name], kinds)
        for name in ("flip_pairs", "skeleton"):
            pairs = _listed(name, known[name], (list, tuple))
            known[name] = tuple(_listed(name, pair, (int,), 2) for pair in pairs)
        _typed({name: known[name] for name in _NUMBERS}, _NUMBERS)
        for name in ("head_depthwise", "deep_unseen"):
            if type(known[name]) is not bool:
                raise TypeError(f"{name}: neither true nor false")
        for name in ("mean", "std"):
            _listed(name, known[name], (int, float), 3)
        known["learning"], known["measuring"] = Learning(known.pop("rois")), Measuring(known.pop("sigmas"))
        known["tones"] = Tones(*(known.pop(each.name) for each in fields(Tones)))
        spec = cls(**known)
        if task not in (None, spec.task):
            raise ValueError(f"task {task!r}: {spec.detector} finds {spec.task}")
        return spec


def usual_divisor(scales: str, ks: tuple[int, ...]) -> int:
    """To multiples of how many HR pixels a new model pads."""
    return DIVISOR if scales == "aligned" or (scales, ks) == ("single", (1,)) else FRAME_DIVISOR


_NESTED = {"learning": Learning, "measuring": Measuring, "tones": Tones}
"""Values whose fields stand among the spec's own in a file."""
_LATER: dict[str, Any] = {
    field.name: field.default
    for each in (DetectorSpec, *_NESTED.values())
    for field in fields(each)
    if field.default is not MISSING and field.name not in _NESTED
}
_NUMBERS: dict[str, Any] = {
    "channels": int,
    "head_convs": int,
    "detections_per_image": int,
    "divisor": int,
    "rois": int,
    "width": (int, float),
    "low_width": (int, float),
    "black": (int, float),
    "white": (int, float),
}
_LISTS: dict[str, tuple[type, ...]] = {
    "ks": (int,),
    "mean": (int, float),
    "std": (int, float),
    "keypoints": (str,),
    "sigmas": (int, float),
}


def _listed(name: str, values: Any, kinds: tuple[type, ...], length: int | None = None) -> tuple[Any, ...]:
    if not isinstance(values, list | tuple) or not all(type(each) in kinds for each in values):
        raise TypeError(f"{name}: not a list of values of the right type")
    if length is not None and len(values) != length:
        raise TypeError(f"{name}: {len(values)} values instead of {length}")
    return tuple(values)


def _typed(values: Any, types: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(values, dict) or set(values) != set(types):
        raise TypeError(f"expected the fields {', '.join(types)}")
    for name, kind in types.items():
        if not isinstance(values[name], kind) or isinstance(values[name], bool):
            raise TypeError(f"{name}: {values[name]!r} has the wrong type")
    return values


def _one_of(what: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{what} {value!r}: not one of {', '.join(known)}{meant(value, known)}")
