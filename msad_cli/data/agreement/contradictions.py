"""All that in an annotation file contradicts itself, and what is meant where that is known."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from msad_cli.data.agreement.box_agreement import Said, box_contradictions, compared
from msad_cli.data.agreement.forms import Form
from msad_cli.data.agreement.keypoint_agreement import keypoint_contradictions
from msad_cli.data.annotations.records import Records


def contradictions(records: Records, frames: NDArray[np.int64], known: Sequence[Form] = ()) -> tuple[Said, ...]:
    """Compares each annotation with itself and with its image.

    Args:
        records: of an annotation file.
        frames: (I, 2) height and width of the raster that the boxes of each image are of, 0 where unknown.
        known: forms that the boxes of the set's other split have: one box that leaves its image is enough then.
    """
    of = compared(records, frames, known)
    boxes = box_contradictions(of)
    # Keypoints are compared with boxes only where these are right.
    points = [] if any(each.problem.fatal for each in boxes) else keypoint_contradictions(of)
    return (*boxes, *points)
