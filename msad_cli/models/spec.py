"""What a model is: the frozen values from which it is rebuilt. Imports no torch: `msad info` needs none."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from msad_cli.structures.frame import Resolution, level_shift

Role = Literal["teacher", "student", "baseline"]
Scales = Literal["aligned", "vanilla", "single"]
Norm = Literal["frozen", "batch", "group"]
View = Literal["high", "low", "fused"]

DETECTORS = ("fcos",)
BACKBONE_NAMES = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d",
)  # fmt: skip

LONGEST_NAME, LONGEST_NAMES = 1_000, 500_000
"""Characters: of one class, and of all. The model file's header holds them."""


@dataclass(frozen=True)
class ClassName:
    """A category: its id in the user's data and its name. Its label inside the model is its place in the list + 1."""

    category_id: int
    name: str


@dataclass(frozen=True)
class DetectorSpec:
    """Everything that rebuilds a model.

    Attributes:
        role: teacher (several views and a fusion), student (one reduced view), baseline (unshifted pyramids).
        scales: how it was trained: aligned views, vanilla multi-scale, or a single scale.
        ks: by how much each of its views is reduced, ascending; (1, 2) for a teacher, (2,) for its student.
        channels: channels of the pyramid and of the head's towers.
        head_convs: convolutions of each tower of the head.
        resolution: the HR frame's size. A student sees images 1/k of it.
        mean, std: normalisation of RGB in [0, 1].
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
    task: str = "boxes"

    def __post_init__(self) -> None:
        _one_of("role", self.role, get_args(Role))
        _one_of("detector", self.detector, DETECTORS)
        _one_of("backbone", self.backbone, BACKBONE_NAMES)
        _one_of("norm", self.norm, get_args(Norm))
        _one_of("scales", self.scales, get_args(Scales))
        _one_of("task", self.task, ("boxes",))
        _between("width", self.width, 0.125, 4.0)
        _between("channels", self.channels, 32, 1024)
        _between("head convolutions", self.head_convs, 1, 16)
        _between("number of classes", len(self.classes), 1, 10_000)
        if self.channels % 32:
            raise ValueError(f"channels = {self.channels}: the head's group normalisation needs a multiple of 32")
        for value in self.mean:
            _between("mean", value, -1e6, 1e6)
        for value in self.std:
            _between("std", value, 1e-6, 1e6)
        if not self.ks or list(self.ks) != sorted(set(self.ks)):
            raise ValueError(f"k = {self.ks}: reductions have to be different and ascending")
        for k in self.ks:
            level_shift(k)
        for each in self.classes:
            _between("category id", each.category_id, -(2**63), 2**63 - 1)
            _between("characters of a class name", len(each.name), 0, LONGEST_NAME)
        _between("characters of all class names", sum(len(each.name) for each in self.classes), 0, LONGEST_NAMES)
        if len({each.category_id for each in self.classes}) != len(self.classes):
            raise ValueError("classes: a category id stands twice")

    @property
    def categories(self) -> tuple[tuple[int, str], ...]:
        """The classes as (original id, name), in the order of their labels."""
        return tuple((each.category_id, each.name) for each in self.classes)

    @property
    def fuses(self) -> bool:
        """Whether it answers from a fusion of its views."""
        return self.role != "baseline" and len(self.ks) > 1

    @property
    def views(self) -> tuple[View, ...]:
        """The views in which this model can be evaluated; the first is its own best, the default."""
        if self.role == "teacher":
            return ("fused", "high", "low")
        if self.role == "student":
            return ("low",)
        return ("high", "low") if len(self.ks) > 1 else ("high",)

    def ks_of(self, view: View) -> tuple[int, ...]:
        """The reductions whose pixels a view needs."""
        return {"high": self.ks[:1], "low": self.ks[-1:], "fused": self.ks}[view]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "DetectorSpec":
        """The inverse of `to_json`.

        Raises:
            ValueError, TypeError, KeyError: a field is missing, unknown, or of a wrong type or size.
        """
        known = dict(values)
        known["resolution"] = Resolution(**_typed(known["resolution"], {"short_side": int, "long_side": int}))
        classes = [_typed(each, {"category_id": int, "name": str}) for each in known["classes"]]
        known["classes"] = tuple(ClassName(**each) for each in classes)
        for name in ("ks", "mean", "std"):
            known[name] = tuple(known[name])
        numbers = {"channels": int, "head_convs": int, "width": (int, float)}
        _typed({name: known[name] for name in numbers}, numbers)
        if not all(type(k) is int for k in known["ks"]):
            raise TypeError("ks: not integers")
        for name in ("mean", "std"):
            if len(known[name]) != 3 or not all(type(value) in (int, float) for value in known[name]):
                raise TypeError(f"{name}: not three numbers")
        return cls(**known)


def _typed(values: Any, types: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(values, dict) or set(values) != set(types):
        raise TypeError(f"expected the fields {', '.join(types)}")
    for name, kind in types.items():
        if not isinstance(values[name], kind) or isinstance(values[name], bool):
            raise TypeError(f"{name}: {values[name]!r} has the wrong type")
    return values


def _one_of(what: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{what} {value!r}: not one of {', '.join(known)}")


def _between(what: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{what} {value}: not from {low} to {high}")
