"""Every method's loss and gradient beside those of its public code, as a table of ratios (docs/methods.md).

    python benchmarks/ratios.py

references.py says what the public code computes. Both get the same random pyramids of 64 channels, of images of
256 × 384 and 200 × 330 pixels, and heads of random weights. A ratio is msad's value by the reference's; gradients are
by the student's pyramid and weights.
"""

from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from references import CHANNELS, PADDED, REFERENCES, SIZES, Case, Reference, sum_of
from torch import Tensor, nn

from msad_cli.distillation.knowledge import Knowledge
from msad_cli.distillation.losses.freekd import PROMPT_STEPS
from msad_cli.distillation.losses.table import build_distillers
from msad_cli.frame import Resolution
from msad_cli.models.detector import Detector
from msad_cli.models.spec import ClassName, DetectorSpec
from msad_cli.training.config import DistillConfig
from msad_cli.training.students.plan_student import choose_methods


class Ratios(NamedTuple):
    """msad's loss, and the length of its gradient, by the reference's; the cosine of both gradients."""

    loss: float
    gradient: float
    cosine: float


def main() -> None:
    """Prints the table."""
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}\n")
    print("| method | detector | reference | commit | weight | loss | gradient | cosine | taken from msad |")
    print("|---|---|---|---|---|---|---|---|---|")
    for each in REFERENCES:
        weight, ratios = measured(each)
        shown = f"{weight:g}" if each.weighted else "–"
        numbers = " | ".join(f"{number:.3f}" for number in ratios)
        row = [
            f"{each.method} {each.part}".strip(),
            each.detector,
            each.source,
            each.commit,
            shown,
            numbers,
            each.differs,
        ]
        print(f"| {' | '.join(row)} |")


def measured(reference: Reference) -> tuple[float, Ratios]:
    """msad's weight, and the ratios."""
    case = build(reference.method, reference.detector)
    usual = choose_methods(case.student.spec, DistillConfig(method=reference.method))[0][reference.method]
    weight = usual if reference.weighted else 1.0
    mine = Knowledge(case.student, case.mine, case.frame, case.views)
    theirs = Knowledge(case.teacher, case.theirs, case.frame, case.views)
    torch.manual_seed(1)  # masks
    ours = weight * of_part(case.distiller(mine, theirs, case.targets), reference.part)
    torch.manual_seed(1)
    wanted = of_part(reference.formula(case), reference.part)
    slope, other = (gradient(each, case) for each in (ours, wanted))
    cosine = F.cosine_similarity(slope, other, dim=0)
    return usual, Ratios((ours / wanted).item(), (slope.norm() / other.norm()).item(), cosine.item())


def of_part(losses: Tensor | dict[str, Tensor], part: str) -> Tensor:
    """One part of several losses, or their sum."""
    if isinstance(losses, Tensor):
        return losses
    return losses[part] if part else sum_of(losses.values())


def gradient(loss: Tensor, case: Case) -> Tensor:
    """By the student's pyramid and weights, as one vector."""
    leaves = [*case.mine, *(each for each in case.student.parameters() if each.requires_grad)]
    slopes = torch.autograd.grad(loss, leaves, allow_unused=True)
    return torch.cat([(torch.zeros_like(a) if b is None else b).flatten() for a, b in zip(leaves, slopes, strict=True)])


def build(method: str, detector: str) -> Case:
    """The same for every formula of a detector."""
    teacher, student = networks(detector)
    torch.manual_seed(0)
    distiller: Any = build_distillers(student.spec, teacher.spec, {method: 1.0})[method].distiller
    if method == "freekd":
        distiller.load_state_dict({**distiller.state_dict(), "steps_done": torch.tensor(PROMPT_STEPS + 1)})
        nn.init.normal_(distiller.frozen, std=0.2)
    elif method == "fgd":
        for each in distiller.parameters():
            nn.init.normal_(each, std=0.2)
    finest = 8 if student.spec.dense else 4
    sides = [(PADDED[0] // (finest * 2**i), PADDED[1] // (finest * 2**i)) for i in range(5)]
    theirs = [torch.randn(len(SIZES), CHANNELS, *each) for each in sides]
    # A student that is half right.
    mine = [(0.7 * each + 0.7 * torch.randn_like(each)).requires_grad_() for each in theirs]
    boxes = [
        [
            [20.0, 30.0, 90.0, 120.0],
            [100.0, 10.0, 130.0, 50.0],
            [200.0, 100.0, 380.0, 250.0],
            [300.0, 40.0, 309.0, 48.0],
        ],
        [[10.0, 10.0, 40.0, 34.0], [150.0, 60.0, 290.0, 190.0]],
    ]
    targets = [{"boxes": torch.tensor(each), "labels": torch.ones(len(each), dtype=torch.int64)} for each in boxes]
    large = [torch.randint(0, 256, (3, *each), dtype=torch.uint8) for each in SIZES]
    views = {1: large, 2: [each[:, ::2, ::2].contiguous() for each in large]}
    return Case(
        student=student,
        teacher=teacher,
        mine=mine,
        theirs=theirs,
        targets=targets,
        views=views,
        distiller=distiller,
    )


@cache
def networks(detector: str) -> tuple[Detector, Detector]:
    """Teacher and student."""
    torch.manual_seed(0)
    teacher, student = network(detector, "teacher", (1, 2)), network(detector, "student", (2,))
    return teacher.eval().requires_grad_(False), student


def network(detector: str, role: str, ks: tuple[int, ...]) -> Detector:
    """A small one whose head, unlike at the start of a training, says different things of different maps."""
    spec = DetectorSpec(
        role="teacher",
        detector=detector,
        backbone="resnet18",
        width=0.25,
        channels=CHANNELS,
        head_convs=4,
        norm="group",
        scales="aligned",
        ks=(1, 2),
        resolution=Resolution(256, 384),
        classes=(ClassName(1, "one"), ClassName(2, "two")),
    )
    made = Detector(replace(spec, role=role, ks=ks))  # type: ignore[arg-type]
    for name, each in made.core.named_parameters():
        if "head" in name and each.ndim == 4:
            nn.init.normal_(each, std=0.05)
        elif name.endswith("bbox_reg.bias"):
            # FCOS's distances to a box's sides, in strides; of RetinaNet's anchors, a change of a tenth.
            nn.init.constant_(each, 2.0 if detector == "fcos" else 0.1)
    return made


if __name__ == "__main__":
    main()
