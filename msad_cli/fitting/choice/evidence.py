"""What was measured that a choice can go by, each number in one place. A new measurement is a changed line here.

Points are AP on blood cells, 292 images, from scratch (docs/results.md, and docs/results-paper.md of FCOS). They order
candidates before anything is trained; they are no forecast of AP on another set.
"""

import math
from dataclasses import dataclass

from msad_cli.fitting.choice.candidates import SMALL_HEAD, Candidate, Network
from msad_cli.fitting.choice.facts import Facts

AP_OF_TWICE_THE_SIDES = {1: 5.9, 2: 11.0, 4: 11.0}
"""RTMDet with mosaics. Plain detectors, 36 epochs: 56.3 at 160 × 212 and 60.3 at 256 × 340. Students alone, k = 2, 72
epochs: 58.1 at HR 208 × 278, 61.4 at 256 × 340. k = 4 is taken to be as k = 2."""
ENOUGH_SIDE = 55.0
"""HR pixels of the median object's side up to which that was measured: that of blood cells at 256 × 340."""
AP_BEYOND, LARGEST_SIDE = 3.0, 216.0
"""Beyond, by assumption, and up to two doublings more: nobody measured it. Stronger networks gain less than that."""
AP_OF_K = {1: 0.2, 2: 0.0, 4: -4.0}
"""Of one large image. FCOS: init-only students of k = 2 have 55.6 and of k = 4 51.6, the plain detector of that image
54.9. RTMDet, 36 epochs: the student alone at k = 2 has 59.1, the plain detector 60.3. Of the two at k = 1, the mean."""
AP_OF_DEPTHWISE = -2.8
"""Init-only students with a head of depthwise convolutions have 52.8, with the teacher's head 55.6."""
AP_OF_NARROW_HEAD = -1.4
"""RTMDet's aligned student alone, HR 160 × 214, 36 epochs, one seed: 42.4 with a pyramid and a head of 32 channels,
43.8 of 64, in 1.7 times the time."""
AP_OF_DETECTOR = {"rtmdet": 2.9}
"""The aligned student alone, at k = 2: blood cells, 72 epochs, RTMDet 58.7 (three seeds), FCOS 55.8 (one); apples, 14
epochs, 34.5 and 29.8 (one seed); with 0.6 of the multiply-accumulates."""
AP_OF_NARROW = -5.7
"""Widths under a half (of cspnext_nano: under 1). The paper's students on COCO: 30.4 at 0.25, 36.1 at 0.5."""
AP_OF_START = 5.9
"""Apples, 6 epochs, one seed, MobileNetV2: 39.7 from ImageNet, 33.8 from scratch."""
AP_OF_TWICE_THE_COST = ((292, 0.2), (117_266, 2.4))
"""Images of a set, and what twice the multiply-accumulates of a network bring at one size: 0.1 where the ResNet-18 of
blood cells grew from width 0.5 to 1, twofold; 9.3 over 3.9 doublings of the paper's ResNet-50 on COCO (0.25 to 1)."""
REFERENCE_MACS = {1: 1.34e9, 2: 0.63e9, 4: 0.45e9}
"""Of docs/results-paper.md's network at each k, at HR 256 × 384."""

GAIN_OF_TEACHER = {("fcos", 4): "1.3 ± 1.0 AP (three trainings)"}
"""By detector and k what a teacher brought to a student of its weights. At k = 2 it is nothing that pays."""
ALONE_AND_TAUGHT = {"rtmdet": "RTMDet: 61.4 and 61.8 AP", "fcos": "FCOS: 55.8 and 55.7 AP"}
"""At k = 2, the epochs of both trainings: a student alone, and one of a teacher. RTMDet's are means of three."""


def gain_of_teacher(student: Candidate) -> str:
    """What a teacher is taken to bring, in words; empty for nothing. What was not measured is as FCOS."""
    return GAIN_OF_TEACHER.get((student.network.detector, student.k)) or GAIN_OF_TEACHER.get(("fcos", student.k), "")


def points(candidate: Candidate, facts: Facts) -> dict[str, float]:
    """AP that a candidate is ahead of the student of docs/results-paper.md (behind, below 0), by reason."""
    network, short = candidate.network, candidate.spec.resolution.short_side
    side = max(1.0, facts.side * short)
    steep = min(math.log2(side / ENOUGH_SIDE), 0.0)
    flat = min(max(math.log2(side / ENOUGH_SIDE), 0.0), math.log2(LARGEST_SIDE / ENOUGH_SIDE))
    richer = math.log2(candidate.macs_as_counted / REFERENCE_MACS[candidate.k])
    narrow = network.width < (1.0 if network.backbone == "cspnext_nano" else 0.5)
    return {
        "size": AP_OF_TWICE_THE_SIDES[candidate.k] * steep + AP_BEYOND * flat,
        "k": AP_OF_K[candidate.k],
        "head": _of_head(network),
        "detector": AP_OF_DETECTOR.get(network.detector, 0.0),
        "width": AP_OF_NARROW if narrow else 0.0,
        "network": _of_cost(len(facts.train)) * richer,
        "start": 0.0 if network.init == "none" else AP_OF_START,
    }


def strength(candidate: Candidate, facts: Facts) -> float:
    """By which candidates are ordered: the sum of `points`."""
    return sum(points(candidate, facts).values())


def _of_head(network: Network) -> float:
    """What a head costs that is lighter than the usual one."""
    narrow = network.head_channels < SMALL_HEAD[0]
    return (AP_OF_DEPTHWISE if network.head_depthwise else 0.0) + (AP_OF_NARROW_HEAD if narrow else 0.0)


def _of_cost(images: int) -> float:
    """What twice the multiply-accumulates bring on a set of so many images."""
    (few, least), (many, most) = AP_OF_TWICE_THE_COST
    share = math.log(max(1, images) / few) / math.log(many / few)
    return least + (most - least) * min(1.0, max(0.0, share))


@dataclass(frozen=True)
class Teaching:
    """Whether a teacher is trained, and why."""

    wanted: bool
    why: str


def may_teach(asked: str, student: Candidate) -> bool:
    """Whether it is worth a look what a teacher would take."""
    return asked == "yes" or (asked == "auto" and bool(gain_of_teacher(student)))


def choose_teaching(asked: str, student: Candidate, fits: bool) -> Teaching:
    """Whether a student learns from a teacher.

    Args:
        asked: `auto`, `yes` or `no`.
        fits: whether the usual epochs of both trainings fit into the time.
    """
    if asked != "auto":
        return Teaching(asked == "yes", f"--teacher {asked}")
    k, gain = student.k, gain_of_teacher(student)
    if not gain:
        measured = ALONE_AND_TAUGHT.get(student.network.detector, ALONE_AND_TAUGHT["fcos"])
        return Teaching(
            False,
            f"at k = {k} a student alone, for the epochs of both trainings, was as good as one of a teacher (blood "
            f"cells, {measured}), and takes a fraction of the time; --teacher yes trains one",
        )
    if not fits:
        return Teaching(
            False, "the time does not hold the usual epochs of teacher and student; --teacher yes trains one"
        )
    return Teaching(True, f"at k = {k} a teacher brought {gain}; --teacher no leaves it out")
