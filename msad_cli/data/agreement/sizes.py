"""Stated sizes of images against those of their files: images that were made smaller or larger after labelling."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from msad_cli.data.annotations import problems as kinds
from msad_cli.data.annotations.problem_tally import Problem, Tally
from msad_cli.data.annotations.records import Records

Sizes = NDArray[np.int64]
OVER = 1.0
"""Pixels by which a box may stick out of the frame that it is of."""
LEAST = 0.05
"""Share of a side by which sizes differ before boxes are looked at: some tools round."""
FEWEST = 4
"""Boxes that all lie in the smaller of two frames before that says something."""


@dataclass(frozen=True)
class Resized:
    """The images whose boxes are of another raster than their files have.

    Attributes:
        images: (I,) bool.
        frames: (I, 2) height and width of the raster that the boxes of each image are of; 0 where nobody knows.
        problems: one, or none.
    """

    images: NDArray[np.bool_]
    frames: Sizes
    problems: tuple[Problem, ...] = ()


def resized_images(records: Records, sizes: Sizes, turned: NDArray[np.bool_], before: bool = False) -> Resized:
    """Tells images that were resized after labelling from those of which only the stated size is wrong.

    The boxes decide: they lie in the raster that they were drawn in.

    Args:
        records: of an annotation file.
        sizes: (I, 2) height and width of the files, 0 where unknown.
        turned: (I,) images that EXIF turns and whose stated size is unturned.
        before: whether images of the set's other split were resized: a single box is enough then.
    """
    stated = records.sizes
    known = np.where(sizes > 0, sizes, stated)
    both = (stated > 0).all(axis=1) & (sizes > 0).all(axis=1)
    other = both & (np.abs(stated - sizes) > LEAST * stated).any(axis=1) & ~turned
    none = Resized(np.zeros(len(stated), dtype=bool), known)
    of = records.annotations
    rows = np.flatnonzero(other[of.images] & ~of.crowd & np.isfinite(of.boxes).all(axis=1))
    rows = rows[(of.boxes[rows, 2:] > 0).all(axis=1)]
    if not len(rows):
        return none
    ends = (of.boxes[rows, :2] + of.boxes[rows, 2:])[:, ::-1]
    in_stated = np.asarray((ends <= stated[of.images[rows]] + OVER).all(axis=1))
    in_file = (ends <= sizes[of.images[rows]] + OVER).all(axis=1)
    smaller = np.all(stated[of.images[rows]] <= sizes[of.images[rows]], axis=1)
    proven = (in_stated & ~in_file).sum()
    # In larger files all boxes lie inside, too: many that stay within a smaller frame were drawn there.
    kept = in_stated[smaller].all() and smaller.sum() >= (1 if before else FEWEST)
    if not (in_stated.mean() > 0.95 and (proven >= max(1, 0.1 * len(rows)) or (smaller.all() and kept))):
        return none
    tally = Tally()
    places = np.flatnonzero(other).tolist()

    def words(i: int) -> str:
        (height, width), (stated_height, stated_width) = sizes[i], stated[i]
        return f"{records.image_words(i)}: {width}×{height}, stated {stated_width}×{stated_height}"

    tally.add_all(kinds.RESIZED, places, words)
    return Resized(other, np.where(other[:, None], stated, known), tally.problems())


def without_resized(problems: tuple[Problem, ...], resized: Resized) -> list[Problem]:
    """Problems of images, less those of stated sizes that were told as resized."""
    count = int(resized.images.sum())
    kept = [
        replace(each, count=each.count - count) if each.code == kinds.OTHER_SIZE.code else each for each in problems
    ]
    return [each for each in kept if each.count > 0]
