"""Shared by tests of msad fit: facts of a set that nobody drew, measurements that nobody made, and a listener."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from msad_cli.data.annotations.keypoint_scheme import KeypointScheme
from msad_cli.data.annotations.segmentation import SegmentationsBuilder
from msad_cli.data.annotations.split import CocoSplit
from msad_cli.fitting.choice.candidates import Candidate
from msad_cli.fitting.choice.facts import Facts
from msad_cli.fitting.choice.measuring import Measured
from msad_cli.models.spec import ClassName


def facts(size: tuple[int, int] = (480, 640), images: int = 292, side: float = 0.215, objects: int = 14) -> Facts:
    """Those of blood cells, unless said: nothing of them is on the disk."""
    split = CocoSplit(
        file=Path("nowhere.json"),
        folder=Path("nowhere"),
        image_ids=np.arange(images),
        file_names=np.array([f"{each}.png" for each in range(images)], dtype=np.dtypes.StringDType()),
        sizes=np.tile(np.array(size, dtype=np.int64), (images, 1)),
        boxes=np.zeros((0, 4), dtype=np.float32),
        labels=np.zeros(0, dtype=np.int64),
        starts=np.zeros(images + 1, dtype=np.int64),
        categories=((7, "seven"),),
        crowds=0,
        dropped=0,
        task="boxes",
        masks=SegmentationsBuilder().built(),
        keypoints=np.zeros((0, 0, 3), dtype=np.float32),
        scheme=KeypointScheme(),
        sought=(Path("nowhere"), None),
    )
    fields = {"classes": (ClassName(7, "seven"), ClassName(90, "ninety"), ClassName(91, "other"))}
    return Facts("nowhere", split, split, fields, size, True, [size] * images, objects, side)


def measured(milliseconds: float, size: int = 10_000_000) -> Measured:
    """A measurement with onnxruntime ahead of torch."""
    return Measured({"onnxruntime": milliseconds, "torch": 2 * milliseconds}, size)


class Given:
    """Measures by a rule, and remembers what was asked for."""

    def __init__(self, per_gmac: float = 20.0, fixed: float = 2.0) -> None:
        self.per_gmac, self.fixed = per_gmac, fixed
        self.asked: list[str] = []

    def latency(self, candidate: Candidate) -> float:
        return self.fixed + self.per_gmac * candidate.macs / 1e9

    def __call__(self, candidate: Candidate) -> Measured:
        self.asked.append(candidate.name)
        return measured(self.latency(candidate), 4 * candidate.parameters + 1_100_000)


class Listening:
    """Notes what it is told; runs nothing but notes the commands."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.commands: list[tuple[str, ...]] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def table(self, title: str, rows: Sequence[Sequence[str]], taken: Sequence[int]) -> None:
        self.tables.append([list(row) for row in rows])

    def run(self, words: Sequence[str], threads: int | None) -> tuple[int, str]:
        self.commands.append(tuple(words))
        return 0, ""
