"""A student's weights from its teacher's, wherever the two are built alike."""

from msad_cli.models.detector import Detector
from msad_cli.models.init import Copied, copy_matching
from msad_cli.models.spec import DetectorSpec

BACKBONE, LOW = "core.backbone.", "low."


def from_teacher(student: Detector, teacher: Detector) -> Copied:
    """Pyramid, head and fusion where shapes agree, and the body where it is of the same kind and width.

    Single layers of another body are not taken over, although some have the same shape: they were learnt among others.
    A fusion student's second body and pyramid start like its first.
    """
    state = teacher.state_dict()
    body = {name: each for name, each in state.items() if name.startswith(f"{BACKBONE}body.")}
    rest = {name: each for name, each in state.items() if name not in body}
    taken = dict(rest)
    if student.spec.low_backbone:
        taken |= {LOW + name.removeprefix(BACKBONE): each for name, each in rest.items() if name.startswith(BACKBONE)}
    if same_body(student.spec, teacher.spec):
        taken |= body
    if same_body(student.spec, teacher.spec, low=True):
        taken |= {LOW + name.removeprefix(BACKBONE): each for name, each in body.items()}
    return copy_matching(student, taken)


def same_body(student: DetectorSpec, teacher: DetectorSpec, low: bool = False) -> bool:
    """Whether a student's body, or its second one, is of the kind, width and normalisation of its teacher's."""
    own = (student.low_backbone, student.low_width) if low else (student.backbone, student.width)
    return (*own, student.norm) == (teacher.backbone, teacher.width, teacher.norm)
