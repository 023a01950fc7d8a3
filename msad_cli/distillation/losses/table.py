"""From a method's name, as it is typed, to its distiller."""

from collections.abc import Callable, Collection, Mapping

from torch import nn

from msad_cli.distillation.distillation import GAMMA, TAU, Weighted
from msad_cli.distillation.losses.amd import AMD
from msad_cli.distillation.losses.crosskd import CrossKD
from msad_cli.distillation.losses.cwd import CWD
from msad_cli.distillation.losses.dmkd import DMKD
from msad_cli.distillation.losses.dsamkd import DSAMKD
from msad_cli.distillation.losses.feature_l1 import FeatureL1
from msad_cli.distillation.losses.fgd import FGD
from msad_cli.distillation.losses.fgfi import FGFI
from msad_cli.distillation.losses.freekd import FreeKD
from msad_cli.distillation.losses.isrd import ISRD
from msad_cli.distillation.losses.mgd import MGD
from msad_cli.distillation.losses.output_kd import OutputKD
from msad_cli.distillation.losses.pkd import PKD
from msad_cli.distillation.losses.podnet import PODNet
from msad_cli.distillation.losses.roi_kd import RoIKD
from msad_cli.distillation.losses.samkd import SAMKD
from msad_cli.distillation.losses.skd import SKD
from msad_cli.models.spec import DetectorSpec
from msad_cli.text import meant

Build = Callable[..., nn.Module]
"""From the specs of student and teacher to a distiller."""


def _of_outputs(student: DetectorSpec, teacher: DetectorSpec) -> nn.Module:
    by_family: dict[str, Build] = {"dense": OutputKD, "two-stage": RoIKD}
    return by_family[student.family](student, teacher)


DISTILLERS: dict[str, tuple[Build, float]] = {
    "l1": (FeatureL1, GAMMA * TAU),
    "output-kd": (_of_outputs, 1.0),
    "fgfi": (FGFI, 0.01),
    "podnet": (PODNet, 3.0),
    # None is published for detectors. Between untrained networks the five levels add up to a tenth; ten times that is
    # the size of a detection loss.
    "skd": (SKD, 10.0),
    "pkd": (PKD, 10.0),
    "cwd": (CWD, 10.0),
    "fgd": (FGD, 1.0),
    "freekd": (FreeKD, 1.0),
    "crosskd": (CrossKD, 1.0),
    "mgd": (MGD, 1.0),
    "amd": (AMD, 1.0),
    "dmkd": (DMKD, 1.0),
    "dsamkd": (DSAMKD, 1.0),
    "samkd": (SAMKD, 1.0),
    "isrd": (ISRD, 1.0),
}
"""By method: how it is built, and the weight that it has unless one is typed: the published one of its reference."""
NEED_OBJECTS = frozenset({"fgfi", "fgd", "freekd", "crosskd"})
"""Methods that ask where objects are; the others look at the two networks alone."""
COMPARE_OUTPUTS = frozenset({"output-kd", "crosskd"})
"""Methods that compare predictions alone, which those of different detectors do not allow."""
ASK_THE_TEACHER = frozenset({"freekd"})
"""Methods that ask for the teacher's own detection losses, and so for all that its task has."""
OF_TWO_STAGES = {"pkd": 6.0}
"""Weights that are others for detectors of two stages."""


def usual_weights(student: DetectorSpec) -> dict[str, float]:
    """By method, the weight for a student of which nobody typed any."""
    usual = {name: weight for name, (_, weight) in DISTILLERS.items()}
    return usual if student.dense else usual | OF_TWO_STAGES


def build_distillers(student: DetectorSpec, teacher: DetectorSpec, weights: Mapping[str, float]) -> dict[str, Weighted]:
    """The distillers of these weights for a student and its teacher.

    Raises:
        ValueError: an unknown method, or one that this detector has no use for.
    """
    unknown = [name for name in weights if name not in DISTILLERS]
    if unknown:
        known = ", ".join(DISTILLERS)
        raise ValueError(f"method {unknown[0]!r}: not one of {known}{meant(unknown[0], DISTILLERS)}")
    compared = [name for name in weights if name in COMPARE_OUTPUTS]
    if compared and student.detector != teacher.detector:
        raise ValueError(
            f"method {compared[0]}: it compares predictions, and the student is {student.detector}, its teacher "
            f"{teacher.detector}"
        )
    return {name: Weighted(DISTILLERS[name][0](student, teacher), weight) for name, weight in weights.items()}


def reads_large_pixels(methods: Collection[str]) -> bool:
    """Whether one of the methods looks at the large image itself."""
    return "isrd" in methods


def suitable_methods(dense: bool) -> tuple[str, ...]:
    """The methods for a student of which nobody typed any, by what was measured (docs/results-paper.md).

    Args:
        dense: whether its detector, which is its teacher's too, predicts at every cell (`DetectorSpec.dense`).
    """
    return ("output-kd",) if dense else ("l1",)


def pixel_methods(student: DetectorSpec) -> tuple[str, ...]:
    """What Pixel Distillation's second stage compares, beside the image, unless something is typed."""
    return ("l1", "output-kd") if student.dense else ("l1",)
