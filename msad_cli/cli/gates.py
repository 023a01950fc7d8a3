"""What `msad eval` reads from its flags, and says of its numbers, around COCO's evaluation."""

import re
from collections.abc import Mapping, Sequence

from msad_cli.errors import UsageError

NUMBER = re.compile(r"(mask_|keypoint_)?(AP(50|75|s|m|l)?|AR(\d+|s|m|l)?)")
ELSEWHERE = re.compile(r"(mask_|keypoint_)?m?AP@?(50-95|50:95|\.50?:\.95|50|75|s|m|l)?", re.IGNORECASE)
"""What other tools call COCO's numbers: `mAP`, `map50`, `mAP50-95`."""
SOME = "such as AP=0.36 or mask_AP=0.3,AP50=0.5"


def parse_gates(text: str | None) -> dict[str, float]:
    """`AP=0.36,AP50=0.5` as a dict.

    Raises:
        UsageError: it is no list of names and numbers from 0 to 1.
    """
    gates = {}
    for part in text.split(",") if text else ():
        written, _, value = part.partition("=")
        name = _of_coco(written.strip())
        try:
            gates[name] = float(value)
        except ValueError:
            raise UsageError(f"--fail-under {part}: not NAME=NUMBER", SOME, code="gate-malformed") from None
        if not NUMBER.fullmatch(name):
            raise UsageError(f"--fail-under {part}: no such score", SOME, code="gate-unknown")
        if not 0 <= gates[name] <= 1:
            raise UsageError(
                f"--fail-under {part}: not from 0 to 1", f"the tables show hundredths; {SOME}", code="gate-out-of-range"
            )
    return gates


def _of_coco(name: str) -> str:
    """A number's name as COCO has it; other words as they are."""
    found = ELSEWHERE.fullmatch(name)
    if found is None:
        return name
    kind, which = (each or "" for each in found.groups())
    return f"{kind.lower()}AP{which.lower() if len(which) < len('50-95') else ''}"


def refuse_unknown(gates: Mapping[str, float], names: Sequence[str]) -> None:
    """Does nothing to gates on numbers that there are.

    Raises:
        UsageError: one is on another number.
    """
    for name in gates:
        if name not in names:
            raise UsageError(
                f"--fail-under {name}: this evaluation has none", f"it has {', '.join(names)}", code="gate-not-measured"
            )
