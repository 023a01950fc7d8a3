"""A split of a COCO set, held as a few flat arrays so that memory does not grow in loader workers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msad_cli.data.annotations.boxes import judge_boxes
from msad_cli.data.annotations.keypoint_scheme import KeypointScheme
from msad_cli.data.annotations.records import Names, Records, read_records
from msad_cli.data.annotations.segmentation import Segmentations
from msad_cli.data.images.tones import BY_FILE, Tones
from msad_cli.errors import DataError


@dataclass(frozen=True)
class CocoSplit:
    """The images of one split and the boxes to learn from.

    Attributes:
        file: the annotation file.
        folder: where the images lie.
        image_ids: (I,) ids of the user's file.
        file_names: (I,) relative to `folder`.
        sizes: (I, 2) height and width in pixels as the file says, 0 where it does not.
        boxes: (B, 4) float32 corners x0, y0, x1, y1 in pixels of the original image, x right, y down.
        labels: (B,) from 1: place in `categories` + 1.
        starts: (I + 1,) image i owns the boxes starts[i]:starts[i + 1].
        categories: (original id, name) in ascending order of id.
        crowds: crowd regions left out; as in torchvision's references they are no training target.
        dropped: boxes left out because they have no extent, are not finite, outside, repeat another one, or lack the
            mask or the keypoints that the task asks for.
        task: `boxes`, `masks` or `keypoints`.
        masks: (B) segmentations; all empty unless masks are the task.
        keypoints: (B, K, 3) float32 x, y in pixels of the original and visibility (0 without a label, 1 hidden, 2
            visible); K = 0 unless keypoints are the task.
        scheme: names of the K keypoints, which of them a mirror swaps, and between which lines are drawn.
        sought: the folder that the images were looked for in, and that of the whole set.
        tones: by which images of more than 8 bits are read.
        unlabelled: how many images, the last ones, nobody has labelled: that they have no boxes says nothing.
    """

    file: Path
    folder: Path
    image_ids: NDArray[np.int64]
    file_names: Names
    sizes: NDArray[np.int64]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    starts: NDArray[np.int64]
    categories: tuple[tuple[int, str], ...]
    crowds: int
    dropped: int
    task: str
    masks: Segmentations
    keypoints: NDArray[np.float32]
    scheme: KeypointScheme
    sought: tuple[Path, Path | None]
    tones: Tones = BY_FILE
    unlabelled: int = 0

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def labelled(self) -> int:
        """How many images, the first ones, have labels."""
        return len(self) - self.unlabelled

    @property
    def paths(self) -> list[Path]:
        """The files of all images."""
        return [self.path(index) for index in range(len(self))]

    def path(self, index: int) -> Path:
        """The file of an image, by its place."""
        return self.folder / str(self.file_names[index])


def with_unlabelled(split: CocoSplit, paths: Sequence[Path], sizes: NDArray[np.int64]) -> CocoSplit:
    """A split, followed by images that nobody has labelled; their ids are −1.

    Args:
        paths: absolute.
        sizes: (I, 2) height and width in pixels.
    """
    names = np.array([str(each) for each in paths], dtype=split.file_names.dtype)
    return replace(
        split,
        image_ids=np.concatenate([split.image_ids, np.full(len(paths), -1)]),
        # A folder with an absolute name behind it is that name.
        file_names=np.concatenate([split.file_names, names]),
        sizes=np.concatenate([split.sizes, sizes]),
        starts=np.concatenate([split.starts, np.full(len(paths), split.starts[-1])]),
        unlabelled=split.unlabelled + len(paths),
    )


def read_split(
    file: Path,
    folder: Path,
    categories: Sequence[tuple[int, str]] | None = None,
    task: str = "boxes",
    keypoints: Sequence[str] = (),
    root: Path | None = None,
) -> CocoSplit:
    """Reads one split.

    Args:
        file: the annotation file.
        folder: where its images lie.
        categories: the classes of an existing model; without them, those of the file.
        task: `boxes`, `masks` or `keypoints`: what is to be learnt of each object.
        keypoints: names of those of an existing model; without them, those of the file.
        root: the folder of the whole set, where images are looked for that are not in `folder`.

    Raises:
        DataError: the file is unusable, holds a malformed record, no image, a category that is not known or has
            another name, no or other keypoints where these are the task, or a file name that leaves the folder.
    """
    return to_split(read_records(file, folder, categories, task, keypoints, root))


def to_split(records: Records) -> CocoSplit:
    """What can be learnt from of an annotation file.

    Raises:
        DataError: there is something wrong with it that is fatal.
    """
    for problem in records.problems:
        if problem.fatal:
            raise DataError(f"{records.file}: {problem.in_words()}", problem.advice, code=problem.code)
    of = records.annotations
    rows = np.flatnonzero(judge_boxes(records).usable)
    rows = rows[np.argsort(of.images[rows], kind="stable")]
    corners = np.concatenate([of.boxes[rows, :2], of.boxes[rows, :2] + of.boxes[rows, 2:]], axis=1)
    return CocoSplit(
        file=records.file,
        folder=records.folder,
        image_ids=records.image_ids,
        file_names=records.file_names,
        sizes=records.sizes,
        boxes=corners.astype(np.float32),
        labels=of.labels[rows],
        starts=np.searchsorted(of.images[rows], np.arange(len(records.image_ids) + 1)).astype(np.int64),
        categories=records.categories,
        crowds=int(of.crowd.sum()),
        dropped=int((~of.crowd).sum()) - len(rows),
        task=records.task,
        masks=of.masks.take(rows),
        keypoints=of.keypoints[rows].astype(np.float32),
        scheme=records.scheme,
        sought=records.sought,
    )
