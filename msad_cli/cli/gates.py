"""What `msad eval` reads from its flags, and says of its numbers, around COCO's evaluation."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msad_cli.errors import UsageError
from msad_cli.system.extras import EVALUATORS, Evaluator

NUMBER = re.compile(r"(mask_|keypoint_)?(AP(50|75|s|m|l)?|AR(\d+|s|m|l)?)")
SOME = "such as AP=0.36 or mask_AP=0.3,AP50=0.5"


def parse_gates(text: str | None) -> dict[str, float]:
    """`AP=0.36,AP50=0.5` as a dict.

    Raises:
        UsageError: it is no list of names and numbers from 0 to 1.
    """
    gates = {}
    for part in text.split(",") if text else ():
        name, _, value = part.partition("=")
        try:
            gates[name] = float(value)
        except ValueError:
            name = ""
        if not NUMBER.fullmatch(name):
            raise UsageError(f"--fail-under {part}: not NAME=NUMBER", SOME)
        if not 0 <= gates[name] <= 1:
            raise UsageError(f"--fail-under {part}: not from 0 to 1", f"the tables show hundredths; {SOME}")
    return gates


def parse_evaluator(text: str) -> Evaluator:
    """The library of this name.

    Raises:
        UsageError: there is none.
    """
    for each in EVALUATORS:
        if text == each:
            return each
    raise UsageError(f"--evaluator {text}: unknown", f"give {' or '.join(EVALUATORS)}")


def refuse_unknown(gates: Mapping[str, float], names: Sequence[str]) -> None:
    """Does nothing to gates on numbers that there are.

    Raises:
        UsageError: one is on another number.
    """
    for name in gates:
        if name not in names:
            raise UsageError(f"--fail-under {name}: this evaluation has none", f"it has {', '.join(names)}")


def parse_sigmas(text: str | None, keypoints: Sequence[str]) -> tuple[float, ...]:
    """`0.05,0.1` for keypoints of these names; nothing where nothing is given.

    Raises:
        UsageError: it is not one positive number for each.
    """
    if text is None:
        return ()
    if not keypoints:
        raise UsageError("--sigmas: the model finds no keypoints", "leave it out")
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != len(keypoints) or not all(0 < each < math.inf for each in values):
        raise UsageError(
            f"--sigmas {text}: not {len(keypoints)} positive numbers", f"in the order of {', '.join(keypoints)}"
        )
    return values


def remarks(truth: Mapping[str, Any], task: str, given: int, sigmas: Sequence[float] = ()) -> Iterator[str]:
    """What is measured otherwise than in COCO, in lines.

    Args:
        truth: the ground truth.
        task: `boxes`, `masks` or `keypoints`.
        given: how many detections an image the model gives at most.
        sigmas: those of keypoints that nobody has chosen; none where somebody has.
    """
    from msad_cli.evaluation.metrics import KINDS, SIGMA, USUAL, counted_detections

    for kind in ("bbox",) if task == "masks" else KINDS[task]:
        counted = counted_detections(truth, USUAL[kind])
        if counted > USUAL[kind]:
            of = "keypoints" if kind == "keypoints" else task if task == "boxes" else "boxes and masks"
            yield (
                f"an image holds more than {USUAL[kind]} objects of a class: for {of}, up to {counted} detections a "
                f"image are counted, where COCO counts {USUAL[kind]}; the model gives at most {given}"
            )
    if sigmas:
        own = f"{SIGMA} for each" if set(sigmas) == {SIGMA} else "COCO's for persons"
        yield f"nobody measured how far off these keypoints are placed: the OKS takes {own}; --sigmas gives others"
