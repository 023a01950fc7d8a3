"""A student's weights from its teacher's, wherever the two are built alike."""

from torch import Tensor

from msad_cli.models.backbones.normalisation import of_view
from msad_cli.models.detector import Detector
from msad_cli.models.spec import DetectorSpec
from msad_cli.models.weights.initialise import Copied, copy_matching

BACKBONE, LOW = "core.backbone.", "low."


def from_teacher(student: Detector, teacher: Detector) -> Copied:
    """Pyramid, head and fusion where shapes agree, and the backbone where it is of the same kind and width.

    Single layers of another backbone are not loaded, although some have the same shape: they were learnt among others.
    A fusion student's second backbone and pyramid start like its first.
    """
    spec = student.spec
    every = teacher.state_dict()
    # Norms that hold a view's own statistics: each backbone takes those of the views that go through it.
    first = every if len(spec.ks) > 1 and not spec.low_backbone else of_view(every, spec.ks[0])
    taken = _without_backbone(first) if not same_backbone(spec, teacher.spec) else first
    if spec.low_backbone:
        second = of_view(every, spec.ks[-1])
        second = _without_backbone(second) if not same_backbone(spec, teacher.spec, low=True) else second
        taken = taken | {LOW + name.removeprefix(BACKBONE): each for name, each in second.items() if BACKBONE in name}
    return copy_matching(student, taken)


def _without_backbone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: each for name, each in state.items() if not name.startswith(f"{BACKBONE}body.")}


def same_backbone(student: DetectorSpec, teacher: DetectorSpec, low: bool = False) -> bool:
    """Whether a student's backbone, or its second one, is of the kind, width and normalisation of its teacher's."""
    own = (student.low_backbone, student.low_width) if low else (student.backbone, student.width)
    return (*own, student.norm) == (teacher.backbone, teacher.width, teacher.norm)
