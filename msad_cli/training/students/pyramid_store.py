"""The pyramids of a frozen teacher, of every image plain and mirrored, cached in memory or in a folder as bfloat16."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from msad_cli.data.annotations.split import CocoSplit
from msad_cli.data.loading.dataset import Batch, EvaluationSet, evaluation_loader
from msad_cli.data.loading.mirroring import MIRRORED
from msad_cli.errors import DataError
from msad_cli.frame import Frame
from msad_cli.models.detector import Views
from msad_cli.models.spec import DetectorSpec, View
from msad_cli.system.cache_folder import file_state
from msad_cli.system.device import Compute, to_device
from msad_cli.system.distributed import rank, size, wait_for_all
from msad_cli.system.files import write_bytes

Look = Callable[[Views], Sequence[Tensor]]
Done = Callable[[int], None]

BATCH = 4
BYTES = torch.bfloat16.itemsize


class Store(Protocol):
    """Where pyramids are cached, each by its image's place in the split and whether that is mirrored."""

    def has(self, image: int, mirrored: bool) -> bool: ...

    def keep(self, image: int, mirrored: bool, pyramid: Sequence[Tensor]) -> None: ...

    def __call__(self, image: int, mirrored: bool) -> Sequence[Tensor]:
        """
        Raises:
            DataError: it is not cached, or damaged.
        """


class InMemory:
    """Pyramids in this process's memory."""

    def __init__(self) -> None:
        self._cached: dict[tuple[int, bool], Sequence[Tensor]] = {}

    def has(self, image: int, mirrored: bool) -> bool:
        """Whether a pyramid is cached."""
        return (image, mirrored) in self._cached

    def keep(self, image: int, mirrored: bool, pyramid: Sequence[Tensor]) -> None:
        """Takes one in."""
        self._cached[image, mirrored] = pyramid

    def __call__(self, image: int, mirrored: bool) -> Sequence[Tensor]:
        """A pyramid that is cached."""
        if not self.has(image, mirrored):
            raise _missing(image)
        return self._cached[image, mirrored]


class InFolder:
    """Pyramids as files of a folder, where later runs with the same teacher and images find them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, image: int, mirrored: bool) -> bool:
        """Whether a pyramid is cached."""
        return self._file(image, mirrored).exists()

    def keep(self, image: int, mirrored: bool, pyramid: Sequence[Tensor]) -> None:
        """Writes one.

        Raises:
            OutputError: the file cannot be written.
        """
        write_bytes(self._file(image, mirrored), save({str(level): each for level, each in enumerate(pyramid)}))

    def __call__(self, image: int, mirrored: bool) -> Sequence[Tensor]:
        """A pyramid that is cached."""
        file = self._file(image, mirrored)
        try:
            maps = load_file(file)
            return [maps[str(level)] for level in range(len(maps))]
        except FileNotFoundError:
            raise _missing(image) from None
        except (SafetensorError, KeyError, OSError):
            raise DataError(
                f"{file}: damaged", "delete it; it is made again at the next start", code="pyramid-damaged"
            ) from None

    def _file(self, image: int, mirrored: bool) -> Path:
        # A thousand images a folder: file systems are slow with many more.
        way = "mirrored" if mirrored else "plain"
        return self.folder / f"{image // 1000:06}" / f"{image:09}.{way}.safetensors"


def _missing(image: int) -> DataError:
    return DataError(
        f"image {image} of the split (from 0) is not in the teacher cache",
        "it could not be read when that was made; start the command again",
        code="pyramid-missing",
    )


def key(teacher: str, split: CocoSplit, spec: DetectorSpec, precision: str) -> str:
    """What kept pyramids depend on, as a folder's name: the teacher, the images' files, the size, the precision.

    Args:
        teacher: the fingerprint of its file.
    """
    files = [split.path(index) for index in range(len(split))]
    images = [(str(file), file_state(file)) for file in files]
    size = (spec.resolution.short_side, spec.resolution.long_side)
    return hashlib.sha256(json.dumps([teacher, size, precision, images]).encode()).hexdigest()[:16]


def predicted_bytes(spec: DetectorSpec, split: CocoSplit, fliplr: float = MIRRORED) -> int:
    """How much room the pyramids of a split take; an image without a known size is taken for the largest there is."""
    largest = (spec.resolution.short_side, spec.resolution.long_side)
    total = 0
    for height, width in split.sizes.tolist():
        own = spec.resolution.frame_size(height, width) if height and width else largest
        frame = Frame.around([own], divisor=spec.divisor)
        cells = sum(math.prod(frame.grid(level)) for level in spec.levels)
        total += cells * spec.channels * BYTES
    return total * len(ways(split, fliplr))


def ways(split: CocoSplit, fliplr: float = MIRRORED) -> tuple[bool, ...]:
    """Whether images are mirrored in training: as they are, mirrored, or both.

    Args:
        fliplr: how likely; none is where a mirror would change what keypoints mean.
    """
    likely = fliplr if split.scheme.flips else 0.0
    return tuple(mirrored for mirrored, chance in ((False, 1 - likely), (True, likely)) if chance > 0)


def keep_all(
    store: Store,
    spec: DetectorSpec,
    look: Look,
    split: CocoSplit,
    compute: Compute,
    workers: int,
    done: Done,
    view: View | None = None,
    fliplr: float = MIRRORED,
) -> None:
    """Lets a teacher look at whatever is not kept yet; of several processes each at its share.

    Args:
        spec: the teacher's.
        look: its pyramid of views on the device.
        view: at which it looks; None for the model's own best.
        done: told, as it goes on, how many pyramids were made by now.
        fliplr: how likely images are mirrored.

    Raises:
        OutputError, DeviceError: no room to write, or out of memory.
    """
    made = 0
    for mirrored in ways(split, fliplr):
        missing = [i for i in range(len(split))[rank() :: size()] if not store.has(i, mirrored)]
        images = EvaluationSet(split, spec.resolution, spec.ks_of(view or spec.views[0]), mirrored, spec.phase)
        batches = evaluation_loader(images, BATCH, workers, wanted=missing)
        for image, pyramid in _looked_at(look, batches, compute, spec.divisor):
            store.keep(image, mirrored, pyramid)
            made += 1
            done(made)
    wait_for_all()


def _looked_at(
    look: Look, batches: Iterable[Batch], compute: Compute, divisor: int
) -> Iterator[tuple[int, list[Tensor]]]:
    """The place and the pyramid of each image, in its own frame, on the CPU."""
    for batch in batches:
        by_frame: dict[tuple[int, int], list[int]] = {}
        for place, sample in enumerate(batch.samples):
            by_frame.setdefault(Frame.around([sample.frame_size], divisor=divisor).padded, []).append(place)
        for places in by_frame.values():
            own = {k: [images[i] for i in places] for k, images in batch.views.items()}
            views, _ = to_device(own, (), compute.device)
            with compute.inference():
                maps = [each.to("cpu", torch.bfloat16) for each in look(views)]
            for i, place in enumerate(places):
                yield (
                    batch.samples[place].index,
                    [each[i].clone(memory_format=torch.contiguous_format) for each in maps],
                )
