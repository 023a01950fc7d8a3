"""From the flags of distill to a student: its spec, its start, and what it learns by."""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from torch import nn

from msad_cli.distillation.cached_teacher import CachedPyramids, CachedTeacher
from msad_cli.distillation.distillation import GAMMA, TAU, Distillation, Weighted, teaching
from msad_cli.distillation.knowledge import Knowledge
from msad_cli.distillation.labelled_part import LabelledPart
from msad_cli.distillation.losses.table import (
    build_distillers,
    pixel_methods,
    reads_large_pixels,
    suitable_methods,
    usual_weights,
)
from msad_cli.distillation.pixel import TUNE_SHARE, PixelDistillation
from msad_cli.errors import UsageError
from msad_cli.frame import FRAME_DIVISOR
from msad_cli.models.backbones.published import has_imagenet_weights
from msad_cli.models.detector import Detector
from msad_cli.models.detectors.kinds import DETECTORS, task_of
from msad_cli.models.model_file import Card
from msad_cli.models.spec import DetectorSpec, Measuring, Scales, View
from msad_cli.models.views import view_of_best_ap
from msad_cli.models.weights.inherit import from_teacher
from msad_cli.models.weights.initialise import initialise
from msad_cli.runs.folder import RunFolder, Setting
from msad_cli.text import parse_ks
from msad_cli.training.config import DistillConfig
from msad_cli.training.plan import Choices, choose_norm

USUAL_K = 2
PIXEL = "pixel"
"""The method that is a procedure of two stages; others that are named beside it are those of its second one."""
RECORDED_WEIGHT = re.compile(r"([^\s,]+) × (\d[\d.e+-]*)")
"""In the reason that a run records for its method: "pkd × 10, l1 × 0.6"."""
WARMUP = "distill_warmup"
"""The setting of distillation's own warm-up."""
TEACHER_VIEW = "teacher_view"
"""The setting of by which view a teacher teaches."""


def default_k(teacher: DetectorSpec) -> int:
    """By how much a student's image is downsampled unless typed: as its teacher's smallest one, if that is."""
    return teacher.ks[-1] if len(teacher.ks) > 1 else USUAL_K


def student_spec(
    teacher: DetectorSpec,
    k: str | None,
    changed: Mapping[str, Any],
    init: str,
    norm: str,
    aligned: bool = True,
    partial: bool = False,
) -> tuple[DetectorSpec, dict[str, Setting]]:
    """A student like its teacher, apart from what it sees and what was typed; and for the record, by name: where it
    starts from (`init`), its normalisation (`norm`), and whether it is `aligned`.

    Args:
        k: the flag; several of them make a fusion student.
        changed: fields of the spec by name; None stands for the teacher's own.
        init, norm: the flags.
        aligned: whether it shares the teacher's HR frame; else it takes its small image for an ordinary one.
        partial: whether a part of the backbone may start at random.

    Raises:
        UsageError, ValueError: a value that cannot be, or a teacher that sees no large image.
        ModelFileError: `init` names a file of msad's that is broken.
    """
    if teacher.ks[0] != 1:
        raise UsageError(
            f"--teacher: a {teacher.role} that sees only images downsampled by {teacher.ks[0]}",
            "a teacher sees the large image; train one with msad teacher",
            code="teacher-without-large-image",
        )
    ks = parse_ks("--k", k) if k else (default_k(teacher),)
    typed = {name: value for name, value in changed.items() if value is not None}
    like = with_detector(teacher, typed.pop("detector", teacher.detector))
    if len(ks) > 1 and {"low_backbone", "low_width"} & typed.keys():
        # One of the two is typed: the other is as the first backbone's.
        typed = {"low_backbone": typed.get("backbone", teacher.backbone), "low_width": 1.0} | typed
    scales: Scales = "aligned" if aligned else "single"
    own = replace(like, low_backbone="", low_width=1.0)
    # The grids of an unaligned student are compared with finer ones of its teacher.
    divisor = teacher.divisor if aligned else FRAME_DIVISOR
    spec = replace(own, role="student", scales=scales, ks=ks, divisor=divisor, **typed)
    start, chosen = _choose_start(init, norm, spec, teacher, partial)
    shares = Setting(aligned, "auto", "the HR frame" if aligned else "an ordinary network of the small image")
    return replace(spec, norm=chosen.value), {"init": start, "norm": chosen, "aligned": shares}


def with_detector(teacher: DetectorSpec, detector: str) -> DetectorSpec:
    """A teacher as it would be with another detector of the same levels.

    Raises:
        UsageError: the detector has other levels.
        ValueError: there is no such detector, or it lacks what its task needs.
    """
    levels = {name: (entry.finest_level, entry.levels) for name, entry in DETECTORS.items()}
    own = levels[teacher.detector]
    if levels.get(detector, own) != own:
        raise UsageError(
            f"--detector {detector}: its levels are not those of the teacher, a {teacher.detector}",
            f"choose from {', '.join(name for name, each in levels.items() if each == own)}",
            code="detector-of-other-levels",
        )
    if task_of(detector) == "keypoints":
        return replace(teacher, detector=detector)
    return replace(teacher, detector=detector, keypoints=(), flip_pairs=(), skeleton=(), measuring=Measuring())


def _choose_start(
    init: str, norm: str, spec: DetectorSpec, teacher: DetectorSpec, partial: bool
) -> tuple[Setting, Setting]:
    alike = (spec.backbone, spec.width) == (teacher.backbone, teacher.width)
    second = not spec.low_backbone or (spec.low_backbone, spec.low_width) == (teacher.backbone, teacher.width)
    weights = has_imagenet_weights(spec.backbone, spec.width)
    if init != "auto":
        start = Setting(init, "flag")
    elif alike and second:
        start = Setting("teacher", "auto", "the same backbone")
    elif weights and not spec.low_backbone and teacher.norm == "frozen":
        start = Setting("imagenet,teacher", "auto", "another backbone; pyramid and head from the teacher")
    else:
        start = Setting("none,teacher", "auto", "another backbone, without published weights for it; the rest fits")
    first = start.value.split(",")[0]
    if norm == "auto" and first == "teacher":
        return start, Setting(teacher.norm, "auto", "the teacher's")
    return start, choose_norm(norm, first, spec.detector, partial)


def start_student(student: Detector, teacher: Detector, init: str, partial: bool = False) -> str:
    """Fills a student from each of the sources in turn; says what was done.

    Args:
        partial: whether a file will do that has less than nine tenths of a backbone.

    Raises:
        UsageError, ModelFileError: as `initialise`.
    """
    done = []
    for source in init.split(","):
        if source == "teacher":
            done.append(f"weights from the teacher: {from_teacher(student, teacher)}")
        else:
            done.append(initialise(student, source, partial))
    return "; ".join(done)


def choose_teaching_view(teacher: DetectorSpec, card: Card, recorded: Mapping[str, Setting] | None) -> Setting:
    """By which of its views a teacher teaches: that of the highest recorded AP; ordinary networks by the large image.

    Args:
        card: the teacher's.
        recorded: the settings of a run that goes on, which keeps its view; older versions knew the model's own alone.
    """
    own = Setting(teacher.views[0], "auto", "its own")
    if recorded is not None:
        return recorded.get(TEACHER_VIEW, own)
    if teacher.scales != "aligned" or not card.scores or len(teacher.views) == 1:
        return own
    known = [(view, card.scores[view].get("AP")) for view in teacher.views if view in card.scores]
    words = ", ".join(f"{view} {100 * ap:.1f}" for view, ap in known if ap is not None)
    return Setting(view_of_best_ap(teacher, card.scores), "auto", f"its best, by AP: {words}")


def choose_methods(
    spec: DetectorSpec,
    config: DistillConfig,
    so_far: Mapping[str, float] = MappingProxyType({}),
    one_detector: bool = True,
) -> tuple[dict[str, float], Setting]:
    """The weights of distillation losses by name, and the choice for the record.

    Args:
        spec: the student's.
        config: says which losses, and weights that are not the usual ones.
        so_far: by name, those of a run that goes on, whatever is usual by now.
        one_detector: whether the teacher's is the student's too.

    Raises:
        UsageError: a weight that is none, or of a method that does not run.
    """
    method, gamma_tau = config.method, (config.gamma, config.tau)
    usual = suitable_methods(spec.dense and one_detector)
    names = [name for name in method.split(",") if name != PIXEL] if method else usual
    if method is None and config.losses:
        names = []
    if is_pixel(method):
        names = [*(names or pixel_methods(spec)), "isrd"]
    if "l1" not in names and gamma_tau != (GAMMA, TAU):
        raise UsageError(
            f"--gamma, --tau: the weight of l1; methods: {', '.join(names)}",
            "add --method l1",
            code="gamma-tau-without-l1",
        )
    known = {**usual_weights(spec), **so_far, "l1": config.gamma * config.tau}
    weights = {name: known.get(name, 1.0) for name in (*names, *config.losses)}
    for part in config.weight.split(",") if config.weight else ():
        name, _, value = part.partition("=")
        try:
            typed = float(value)
        except ValueError:
            typed = -1.0
        if name not in weights or not typed >= 0:
            raise UsageError(
                f"--weight {part}: not METHOD=NUMBER",
                f"such as l1=1; methods: {', '.join(weights)}",
                code="weight-malformed",
            )
        weights[name] = typed
    words = ", ".join(f"{name} × {value:g}" for name, value in weights.items())  # read by weights_so_far
    return weights, Setting(method or ",".join(weights), "flag" if method else "auto", words)


def weights_so_far(config: DistillConfig) -> dict[str, float]:
    """By name, the weights that a run to be resumed has recorded; of a new run none.

    Raises:
        UsageError: its record is damaged.
    """
    if not config.resume or config.out is None:
        return {}
    method = RunFolder(config.out).recorded().get("method")
    return {name: float(value) for name, value in RECORDED_WEIGHT.findall(method.reason)} if method else {}


def choose_losses(
    student: DetectorSpec, teacher: DetectorSpec, config: DistillConfig, weights: Mapping[str, float]
) -> dict[str, Weighted]:
    """The distillation losses of these weights, those of one's own among them; none with `no_distill`.

    Raises:
        ValueError: an unknown method, or one that this detector has no use for.
    """
    if config.no_distill:
        return {}
    known = {name: weight for name, weight in weights.items() if name not in config.losses}
    own = {name: Weighted(module, weights[name]) for name, module in config.losses.items()}
    return build_distillers(student, teacher, known) | own


def is_pixel(method: str | None) -> bool:
    """Whether Pixel Distillation is among the methods that were typed."""
    return PIXEL in (method or "").split(",")


def rendered(student: DetectorSpec, teacher: DetectorSpec, methods: Collection[str], kept: bool) -> tuple[int, ...]:
    """The reductions that a student's training looks at: its own, and those of a teacher that looks too.

    Args:
        methods: by which it learns, if any.
        kept: whether the teacher's pyramids are kept.
    """
    # Where nobody looks at the large pixels, they are not even decoded.
    alone = not methods or (kept and not reads_large_pixels(methods))
    return student.ks if alone else tuple(sorted({*student.ks, *teacher.ks}))


def of_distillation(choices: Choices, warmup: int | None, pixel: bool) -> Choices:
    """The choices of a student's run.

    Args:
        warmup: the flag: steps until the distillers have their full weight; None stands for the learning rate's.
        pixel: whether an assistant is tuned first, with a schedule of its own.
    """
    as_rate = Setting(choices.schedule.warmup_steps, "auto", "the learning rate's warm-up")
    slowly = as_rate if warmup is None else Setting(warmup, "flag")
    choices = replace(choices, settings={**choices.settings, WARMUP: slowly})
    if not pixel:
        return choices
    first = max(1, round(TUNE_SHARE * choices.epochs))
    steps, epochs = choices.steps_per_epoch, choices.epochs + first
    return replace(
        choices, epochs=epochs, schedule=replace(choices.schedule, steps=epochs * steps, restart=first * steps)
    )


def training_module(
    student: Detector,
    teacher: Detector,
    kept: CachedPyramids | None,
    distillers: Mapping[str, Weighted],
    choices: Choices,
    config: DistillConfig,
    view: View,
) -> nn.Module:
    """What trains a student: alone where there are no distillers, by a teacher (or its pyramids, if they are kept), or
    where the steps before a restart tune its assistant, by that.

    Args:
        view: by which the teacher teaches.
    """
    warmup, tune = choices.settings[WARMUP].value, choices.schedule.restart
    if not distillers:
        return Distillation(student, None, {}, warmup)
    if tune:
        return PixelDistillation(student, teacher, config.afp, distillers, tune, warmup)  # type: ignore[arg-type]
    if kept is None:
        teach = teaching(teacher, student, view)
    else:
        teacher.eval().requires_grad_(False).select(view)
        teach = CachedTeacher(teacher, kept)
    detection = LabelledPart(choices.labelled / choices.batch) if choices.unlabelled else Knowledge.losses
    return Distillation(student, teach, distillers, warmup, detection, config.detection_weight)
