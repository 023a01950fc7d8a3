"""The verdict of a page in three sentences of HTML: how good, at what cost, and which classes are not found."""

import math
from collections.abc import Mapping, Sequence

from msad_cli.evaluation.metrics import never_found
from msad_cli.evaluation.pareto import frontier
from msad_cli.runs.comparison import Comparison, Row, points_of
from msad_cli.runs.members import Member
from msad_cli.runs.pages.skeleton import text
from msad_cli.text import listed, percent

RELATIVE_WORDS = {"teacher": "teacher", "control": "without distillation"}
KIND_WORDS = {"boxes": "AP", "masks": "mask AP", "keypoints": "keypoint AP"}


def of_run(member: Member, beside: Sequence[Member], comparison: Comparison) -> list[str]:
    """Of a run: the model, its teacher and its control."""
    return [_accuracy(member, beside), _cost(member, beside, comparison), classes([member])]


def of_models(members: Sequence[Member], comparison: Comparison, advice: str) -> list[str]:
    """Of models side by side, the first being the reference.

    Args:
        advice: what was said on the budget; empty without one.
    """
    known = {name: ap for name, row in comparison.rows.items() if isinstance(ap := row.get("AP"), float)}
    first = next(iter(comparison.rows))
    if not known:
        accuracy = "None of the models says its AP."
    else:
        best = max(known, key=lambda name: known[name])
        others = f"; {text(first)}, the reference, has {percent(known.get(first))}" if best != first else ""
        accuracy = f"Of {len(comparison.rows)} {text(best)} has the most AP, {percent(known[best])}{others}."
    cost = f"{text(advice[:1].upper() + advice[1:])}." if advice else _fastest(comparison.rows)
    return [accuracy, cost, classes(members)]


def classes(members: Sequence[Member]) -> str:
    """Which classes are not found, by model where there are several; if there are none, what else can be said."""
    lost = {member.name: names for member in members if (names := nothing_found(member))}
    if lost:
        by = {name: f" by {text(name)}" if len(members) > 1 else "" for name in lost}
        parts = (f"<strong>{text(listed(lost[name], 8))}: nothing found{by[name]}</strong>" for name in lost)
        return f"{'; '.join(parts)}."
    known = [member for member in members if member.per_class]
    if not known:
        return "What is found of each class is not known."
    if len(members) == 1:
        return f"{_weakest(known[0])}."
    whose = "Every model" if len(known) == len(members) else text(listed([each.name for each in known]))
    return f"{whose} finds something of every class."


def nothing_found(member: Member) -> list[str]:
    """Classes of which there are objects and nothing is found: by no box at all, or by none that is shown unasked."""
    lost = never_found(member.per_class)
    if member.curves is not None:
        matrix = member.curves.confusion
        shown = enumerate(member.curves.classes)
        lost += [name for place, name in shown if matrix[place].sum() and not matrix[place, place] and name not in lost]
    return lost


def _weakest(member: Member) -> str:
    numbers = {name: each.get(member.ap_name, math.nan) for name, each in member.per_class.items()}
    known = {name: ap for name, ap in numbers.items() if not math.isnan(ap)}
    if not known:
        return "No class has objects to be found"
    worst, best = min(known, key=lambda name: known[name]), max(known, key=lambda name: known[name])
    if len(known) == 1:
        return f"{text(worst)} is the only class"
    return (
        f"{text(worst)} is the weakest of {len(known)} classes, {percent(known[worst])} {KIND_WORDS[member.task]}, "
        f"and {text(best)} the strongest, {percent(known[best])}"
    )


def _accuracy(member: Member, beside: Sequence[Member]) -> str:
    kind = KIND_WORDS[member.task]
    if math.isnan(member.ap):
        return f"{text(member.name)}: no {kind} yet."
    others = [
        f"{RELATIVE_WORDS.get(each.part, text(each.name))} {percent(each.ap)}"
        for each in beside
        if not math.isnan(each.ap)
    ]
    unfinished = ", unfinished" if member.card is not None and member.card.unfinished else ""
    own = f"{text(member.name)} {percent(member.ap)} {kind}{unfinished}"
    return f"{', '.join([own, *others])}."


def _cost(member: Member, beside: Sequence[Member], comparison: Comparison) -> str:
    own = row_of(member, comparison)
    if own is None:
        return "Its cost was not counted."
    ms = own.get("ms")
    teacher = next((each for each in beside if each.part == "teacher"), None)
    other = row_of(teacher, comparison) if teacher is not None else None
    if other is None:
        latency = f", {ms:.1f} ms" if isinstance(ms, float) else ", its latency was not measured"
        return f"An image takes {_number(own.get('GMACs')):.2f} GMACs{latency}."
    work = _number(own.get("GMACs")) / (_number(other.get("GMACs")) or math.nan)
    slow = other.get("ms")
    if isinstance(ms, float) and isinstance(slow, float) and slow > 0:
        return (
            f"It takes {_part(ms / slow)} the teacher's latency ({ms:.1f} of {slow:.1f} ms) "
            f"and {work:.2f} of its multiply-accumulates."
        )
    return f"It takes {work:.2f} of the teacher's multiply-accumulates; its latency was not measured."


def row_of(member: Member, comparison: Comparison) -> Row | None:
    """A model's row of a comparison, that of its own view where it has several."""
    model = member.folder.model
    names = (f"{name}{view}" for name in (member.name, model.name, str(model)) for view in (f", {member.view}", ""))
    return next((comparison.rows[name] for name in names if name in comparison.rows), None)


def _fastest(rows: Mapping[str, Row]) -> str:
    points = points_of(rows)
    if points:
        unbeaten = ", ".join(f"{text(name)} ({points[name].milliseconds:.1f} ms)" for name in frontier(points))
        return f"Beaten in AP and latency by none: {unbeaten}."
    cheapest = min(rows, key=lambda name: _number(rows[name].get("GMACs")))
    return (
        f"The least multiply-accumulates has {text(cheapest)}, {_number(rows[cheapest].get('GMACs')):.2f} GMACs; "
        "latencies were not measured."
    )


def _part(share: float) -> str:
    return "half" if 0.475 <= share <= 0.525 else f"{share:.2f} of"


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
