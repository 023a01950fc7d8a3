"""From the flags of distill to a student: its spec, its start, and what it learns by."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from msad_cli.commands.options import parse_ks
from msad_cli.commands.settings import choose_norm
from msad_cli.engine.run_folder import Setting
from msad_cli.methods.distillers.build import DISTILLERS, suitable_methods
from msad_cli.models.detector import Detector
from msad_cli.models.inherit import from_teacher
from msad_cli.models.init import initialise
from msad_cli.models.spec import DetectorSpec
from msad_cli.structures.errors import UsageError

PUBLISHED_WIDTH = 1.0
"""Of ImageNet weights."""


def student_spec(
    teacher: DetectorSpec, k: str | None, changed: Mapping[str, Any], init: str, norm: str
) -> tuple[DetectorSpec, Setting, Setting]:
    """A student like its teacher, apart from what it sees and what was typed; where it starts from; its normalisation.

    Args:
        k: the flag; several of them make a fusion student.
        changed: fields of the spec by name; None stands for the teacher's own.
        init, norm: the flags.

    Raises:
        UsageError, ValueError: a value that cannot be, or a teacher that is none.
        ModelFileError: `init` names a .safetensors file that is not msad's.
    """
    if teacher.role != "teacher":
        raise UsageError(f"--teacher: a {teacher.role}, not a teacher", "train one with msad teacher")
    ks = parse_ks("--k", k) if k else teacher.ks[-1:]
    typed = {name: value for name, value in changed.items() if value is not None}
    if len(ks) > 1 and {"low_backbone", "low_width"} & typed.keys():
        # One of the two is typed: the other is as the first body's.
        typed = {"low_backbone": typed.get("backbone", teacher.backbone), "low_width": 1.0} | typed
    spec = replace(teacher, role="student", ks=ks, **typed)
    start, chosen = _choose_start(init, norm, spec, teacher)
    return replace(spec, norm=chosen.value), start, chosen


def _choose_start(init: str, norm: str, spec: DetectorSpec, teacher: DetectorSpec) -> tuple[Setting, Setting]:
    alike = (spec.backbone, spec.width) == (teacher.backbone, teacher.width)
    second = not spec.low_backbone or (spec.low_backbone, spec.low_width) == (teacher.backbone, teacher.width)
    if init != "auto":
        start = Setting(init, "flag")
    elif alike and second:
        start = Setting("teacher", "auto", "the same backbone")
    elif spec.width == PUBLISHED_WIDTH and not spec.low_backbone and teacher.norm == "frozen":
        start = Setting("imagenet,teacher", "auto", "another backbone; pyramid and head from the teacher")
    else:
        start = Setting("none,teacher", "auto", "another backbone, without published weights for it; the rest fits")
    first = start.value.split(",")[0]
    if norm == "auto" and first == "teacher":
        return start, Setting(teacher.norm, "auto", "the teacher's")
    return start, choose_norm(norm, first)


def start_student(student: Detector, teacher: Detector, init: str) -> str:
    """Fills a student from each of the sources in turn; says what was done.

    Raises:
        UsageError, ModelFileError: as `initialise`.
    """
    done = []
    for source in init.split(","):
        if source == "teacher":
            done.append(f"weights from the teacher: {from_teacher(student, teacher)}")
        else:
            done.append(initialise(student, source))
    return "; ".join(done)


def choose_methods(
    method: str | None, weight: str | None, spec: DetectorSpec, teacher: DetectorSpec, l1: float
) -> tuple[dict[str, float], Setting]:
    """The distillers' weights by name, and the choice for the record.

    Args:
        method, weight: the flags.
        l1: the weight γ·τ of the L1 unless one is typed.

    Raises:
        UsageError: a weight that is none, or of a method that does not run.
    """
    names = method.split(",") if method else suitable_methods(spec, teacher)
    known = {name: weight for name, (_, weight) in DISTILLERS.items()} | {"l1": l1}
    weights = {name: known.get(name, 1.0) for name in names}
    for part in weight.split(",") if weight else ():
        name, _, value = part.partition("=")
        try:
            typed = float(value)
        except ValueError:
            typed = -1.0
        if name not in weights or not typed >= 0:
            raise UsageError(f"--weight {part}: not METHOD=NUMBER", f"such as l1=1; methods: {', '.join(weights)}")
        weights[name] = typed
    words = ", ".join(f"{name} × {value:g}" for name, value in weights.items())
    return weights, Setting(",".join(names), "flag" if method else "auto", words)
