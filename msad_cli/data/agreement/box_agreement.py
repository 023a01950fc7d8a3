"""Boxes against what stands beside them: the outline, the area, the image."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from msad_cli.data.agreement.forms import (
    CORNERS,
    FORMS,
    PERCENT,
    PIXELS,
    SHARES,
    Form,
    Table,
    ends,
    gaps,
    inside,
    near,
    nearer,
)
from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.boxes import LARGEST_COORDINATE, LEAST_CUT
from msad_cli.data.annotations.problem_tally import Problem, Tally
from msad_cli.data.annotations.records import Records

Rows = NDArray[np.bool_]
MOST = 0.9
"""Share of the annotations concerned that a form has to explain."""
SYSTEMATIC = 0.1
"""Share of the annotations that can be compared above which a fault that a form explains is one of the whole file."""
USUAL = 0.5
"""The same of a fault that no form explains; half of a file is no slip."""
LEAST_OVERLAP = 0.3
"""Intersection over union below which box and outline are not of one object."""
CUT_SHARE, FAR_SHARE = 0.2, 0.05
"""Share of the boxes that stick out before a form is looked for that all fit; share of an image's side that is far."""
FEWEST, FEWEST_OF_HALF = 8, 6
"""Boxes that have to fit a form before the file is refused for it; of corners half, as x1 > x0 and y1 > y0 is rare. And
where half of the boxes leave their images."""
REACHED, UNLIKELY, SURE = 60.0, 2e-3, 1e-9
"""Percent that boxes in percent reach; the chance that all lie there by accident, to be said and to be refused for."""
LARGER, SMALLER = 1.05, 0.05
"""Times the box that no area exceeds, and that the area of few objects falls below."""
REPAIR = "msad data check FILE --fix -o NEW writes them as x, y, width, height in pixels"
LOOK = "look at some of them: one of the two numbers is wrong"


@dataclass(frozen=True)
class Said:
    """A contradiction.

    Attributes:
        problem: with count and examples.
        rows: (A,) the annotations concerned.
        boxes: (A, 4) x, y, width, height that are meant by `rows`; None where nobody knows.
        factors: (A, 2) what x and y of the outlines of `rows` are to be multiplied by; None where these are right.
        points: (A, K, 3) keypoints that are meant by `rows`; None where these are right, or nobody knows.
        form: of boxes that only their images speak against.
    """

    problem: Problem
    rows: Rows
    boxes: Table | None = None
    factors: Table | None = None
    points: Table | None = None
    form: Form | None = None


@dataclass(frozen=True)
class Compared:
    """What boxes are compared with.

    Attributes:
        records: of an annotation file.
        boxes: (A, 4) x, y, width, height as they were read, NaN where they are not finite or absurdly far away.
        rows: (A,) the annotations whose boxes are compared: finite, no crowd regions.
        sides: (A, 2) width and height of their images, 0 where unknown.
        outlines: (A, 4) corners in pixels of the image, NaN where there are none.
        known: forms of boxes that the other split of the set has.
    """

    records: Records
    boxes: Table
    rows: Rows
    sides: Table
    outlines: Table
    known: Sequence[Form] = ()

    @property
    def outlined(self) -> Rows:
        """(A,) those that have an outline."""
        return self.rows & ~np.isnan(self.outlines[:, 0])


def compared(records: Records, frames: NDArray[np.int64], known: Sequence[Form] = ()) -> Compared:
    """What can be compared; `frames` (I, 2) are height and width of the images, 0 where unknown."""
    of = records.annotations
    sides = frames[of.images][:, ::-1].astype(np.float64)
    # An RLE's grid covers the image, whatever its own size is.
    grids = of.grids[:, ::-1].astype(np.float64)
    scale = np.divide(sides, grids, out=np.ones_like(sides), where=(grids > 0) & (sides > 0))
    with np.errstate(invalid="ignore"):
        near_enough = np.asarray(np.abs(of.boxes) < LARGEST_COORDINATE).all(axis=1)
    boxes = np.where(near_enough.reshape(-1, 1), of.boxes, np.nan)
    return Compared(records, boxes, near_enough & ~of.crowd, sides, of.outlines * np.tile(scale, 2), known)


def box_contradictions(of: Compared) -> list[Said]:
    """All that can be said against the boxes; each box is counted once."""
    said = _of_other_grids(of)
    said += _against_outlines(replace(of, rows=of.rows & ~_any(said, len(of.rows))))
    rest = replace(of, rows=of.rows & ~_any(said, len(of.rows)))
    said += _against_areas(rest)
    if not any(each.problem.fatal for each in said):
        said += _against_images(replace(rest, rows=rest.rows & ~_any(said, len(of.rows))))
    return said


def _any(said: list[Said], count: int) -> Rows:
    rows = np.zeros(count, dtype=bool)
    for each in said:
        rows |= each.rows
    return rows


def counted(kind: Problem, rows: Rows, words: Callable[[int], str]) -> Problem:
    tally = Tally()
    tally.add_all(kind, np.flatnonzero(rows).tolist(), words)
    return tally.problems()[0]


def _as_form(kind: Problem, form: Form, fatal: bool) -> Problem:
    what, outcome = f"{kind.what}; they look like {form.words}", "refused" if fatal else kind.outcome
    return replace(kind, what=what, outcome=outcome, advice=REPAIR if fatal else kind.advice, fatal=fatal)


def _of_other_grids(of: Compared) -> list[Said]:
    """RLE whose size is not the image's, and whose mask, as large as the image, is not in its box."""
    grids = of.records.annotations.grids
    other = (grids > 0).all(axis=1) & (of.sides > 0).all(axis=1) & (grids[:, ::-1] != of.sides).any(axis=1)
    off = of.outlined & other & ~near(of.boxes, of.outlines)
    if not off.any():
        return []

    def words(row: int) -> str:
        width, height = of.sides[row]
        size = f"size {grids[row].tolist()} in an image of height {height:g} and width {width:g}"
        return f"{of.records.box_words(row)}: {size}"

    fatal = of.records.task == "masks" and off.sum() >= max(2, SYSTEMATIC * of.outlined.sum())
    kind = replace(kinds.RLE_SIZE, outcome="refused", fatal=True) if fatal else kinds.RLE_SIZE
    return [Said(counted(kind, off, words), off)]


def _against_outlines(of: Compared) -> list[Said]:
    has, boxes = of.outlined, of.boxes
    off = has & ~near(boxes, of.outlines)
    if not off.any():
        return []

    def words(row: int) -> str:
        x0, y0, x1, y1 = of.outlines[row]
        gap = gaps(boxes, of.outlines)[row]
        return (
            f"{of.records.box_words(row)}: its outline goes from {x0:g}, {y0:g} to {x1:g}, {y1:g}, {gap:.0f} pixels off"
        )

    large = off.sum() >= max(2, SYSTEMATIC * has.sum())
    meant, sides, outlines = boxes[off], of.sides[off], of.outlines[off]
    outlined = np.concatenate([of.outlines[:, :2], of.outlines[:, 2:] - of.outlines[:, :2]], axis=1)
    for form in FORMS:
        if near(form.read(meant, sides), outlines).mean() >= MOST:
            kind = _as_form(kinds.BOX_OFF_OUTLINE, form, bool(large))
            rows = off | (has & nearer(form.read(boxes, of.sides), boxes, of.outlines))
            return [Said(counted(kind, rows, words), rows, outlined)]
    for factors, form_words in _outline_factors(of, off):
        if near(meant, outlines * np.tile(factors[off], 2)).mean() >= MOST:
            fault = Form(form_words, lambda box, _: box)
            kind = _as_form(kinds.OUTLINE_OFF_BOX, fault, bool(large))
            read = of.outlines * np.tile(factors, 2)
            rows = off | (has & (gaps(boxes, read) + 1 < gaps(boxes, of.outlines)))
            return [Said(counted(kind, rows, words), rows, None, factors)]
    usual = (_overlap(ends(boxes), of.outlines) < LEAST_OVERLAP)[off].sum() >= max(2, USUAL * has.sum())
    kind = kinds.BOX_OFF_OUTLINE
    if usual:
        advice = "correct the boxes or the outlines; --fix takes the boxes of the outlines"
        kind = replace(kind, outcome="refused", advice=advice, fatal=True)
    return [Said(counted(kind, off, words), off, outlined if usual else None)]


def _outline_factors(of: Compared, off: Rows) -> list[tuple[Table, str]]:
    """What outlines may be, if they and not the boxes are at fault: factors for x and y (A, 2), and words."""
    boxes, outlines = ends(of.boxes)[off], of.outlines[off]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nanmedian(np.where(outlines[:, 2:] > 0, boxes[:, 2:] / outlines[:, 2:], np.nan), axis=0)
    scale = np.broadcast_to(np.nan_to_num(ratio, nan=1.0), of.sides.shape)
    across, down = (1 / scale[0] if (scale[0] > 0).all() else (1.0, 1.0)) if len(scale) else (1.0, 1.0)
    times = f"{across:.3g}" if abs(across - down) < 0.01 * across else f"{across:.3g} and {down:.3g}"
    return [
        (of.sides, "shares (0 … 1) of the image's sides"),
        (of.sides / 100, "percent of the image's sides"),
        (scale, f"outlines of an image of {times} times the size"),
    ]


def _overlap(one: Table, other: Table) -> Table:
    """(A,) intersection over union of corners."""
    sides = (np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])).clip(0)
    areas = [(each[:, 2:] - each[:, :2]).clip(0).prod(axis=1) for each in (one, other)]
    both = sides.prod(axis=1)
    return np.asarray(both / np.maximum(areas[0] + areas[1] - both, 1e-9))


def _against_areas(of: Compared) -> list[Said]:
    """No object is larger than its box; pixels at the border count."""
    boxes, areas = of.boxes, of.records.annotations.areas
    solid = of.rows & (boxes[:, 2:] > 0).all(axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        off = solid & (areas > LARGER * (boxes[:, 2:] + 1).prod(axis=1))
    if not off.any():
        return []

    def words(row: int) -> str:
        width, height = boxes[row, 2:]
        return f"{of.records.box_words(row)}: area {areas[row]:g}, {width:g} × {height:g} is {width * height:g}"

    large = off.sum() >= max(2, SYSTEMATIC * solid.sum())
    for least in (1 / LARGER, SMALLER):  # areas of boxes tell more than those of outlines
        for form in FORMS:
            read = form.read(boxes, of.sides)
            most = LARGER * (read[:, 2:] + 1).prod(axis=1)
            fits = inside(read, of.sides) & (areas <= most) & (areas >= least * read[:, 2:].prod(axis=1))
            if fits[off].mean() >= MOST:
                kind = _as_form(kinds.AREA_ABOVE_BOX, form, bool(large))
                return [Said(counted(kind, off, words), off, read)]
    return [Said(counted(kinds.AREA_ABOVE_BOX, off, words), off)]


def _against_images(of: Compared) -> list[Said]:
    """Boxes without outlines, of which only the image tells what they may be."""
    rows = of.rows & ~of.outlined
    if not rows.any():
        return []
    said = _in_shares(of, rows) or _sticking_out(of, rows) or _in_percent(of, rows)
    return [] if said is None else [said]


def _said(of: Compared, form: Form, rows: Rows, fatal: bool) -> Said:
    problem = counted(_as_form(kinds.BOX_FORM, form, fatal), rows, of.records.box_words)
    return Said(problem, rows, form.read(of.boxes, of.sides), form=form)


def _in_shares(of: Compared, rows: Rows) -> Said | None:
    """Boxes of which no number reaches 1: smaller than a pixel, in the first one."""
    boxes = of.boxes
    small = ((boxes >= -1) & (boxes <= 1)).all(axis=1) | ((boxes[:, :2] >= -1) & (ends(boxes)[:, 2:] <= 1)).all(axis=1)
    tiny = rows & small & (boxes[:, :2] != boxes[:, :2].round()).any(axis=1)
    if not tiny.any():
        return None
    plain, corners, centre, counted_from_1 = SHARES
    fit = {form: inside(form.read(boxes, of.sides), of.sides)[tiny].mean() for form in SHARES}
    form = plain
    if (boxes[tiny, :2] < 0).mean() >= MOST:
        form = counted_from_1
    # Boxes that all fit as corners are hardly anything else: x1 > x0 and y1 > y0 hold by chance for one in four.
    elif fit[plain] < MOST or fit[corners] == 1:
        form = next((each for each in (corners, centre) if fit[each] >= MOST), plain)
    return _said(of, form, tiny, bool(tiny.sum() >= max(2, SYSTEMATIC * rows.sum())))


def _sticking_out(of: Compared, rows: Rows) -> Said | None:
    """Boxes that leave their images, where all boxes of the file stay inside if they are read otherwise."""
    rows = rows & (of.sides > 0).all(axis=1)
    corners, sides = ends(of.boxes), of.sides
    over = np.maximum(-corners, corners - np.tile(sides, 2)).reshape(-1, 2, 2).max(axis=1, initial=0)
    none = (of.boxes[:, 2:] <= 0).any(axis=1)
    out = rows & ((over > LEAST_CUT).any(axis=1) | none)
    if not out.any():
        return None
    for form in (*of.known, *PIXELS):
        sure = form in of.known or form is CORNERS
        if not inside(form.read(of.boxes, sides), sides)[rows].all():
            continue
        if form in of.known or (out.sum() >= CUT_SHARE * rows.sum() and (out.sum() > 1 or sure)):
            half = rows.sum() >= FEWEST_OF_HALF and out.sum() >= USUAL * rows.sum()
            many = rows.sum() >= (FEWEST // 2 if sure else FEWEST) or half
            return _said(of, form, rows, bool(out.sum() > 1 and many))
    far = rows & ((over > FAR_SHARE * sides + LEAST_CUT).any(axis=1) | none)
    if far.sum() >= max(2, FAR_SHARE * rows.sum()) and inside(CORNERS.read(of.boxes, sides), sides)[far].mean() >= MOST:
        return _said(of, CORNERS, far, False)
    return None


def _in_percent(of: Compared, rows: Rows) -> Said | None:
    """Boxes that all lie in the first 100 pixels of larger images, and reach their end, by fractions of a pixel."""
    boxes, sides = of.boxes[rows], of.sides[rows]
    far = ends(boxes)[:, 2:]
    fractions = (boxes != boxes.round()).any(axis=1).mean() > USUAL
    if not ((far <= 100.5).all() and (far.max(axis=0) > REACHED).all() and (boxes >= 0).all() and fractions):
        return None
    # By what chance all of them are there, if they may be anywhere.
    room = np.where(sides > 100, (100 - boxes[:, 2:]).clip(0) / (sides - boxes[:, 2:]).clip(1), 1.0)
    chance = float(np.log(room.clip(1e-9)).sum())
    return _said(of, PERCENT[0], rows, chance < math.log(SURE)) if chance < math.log(UNLIKELY) else None
