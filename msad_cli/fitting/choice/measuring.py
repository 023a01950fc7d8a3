"""What a candidate costs on this machine, untrained: as a graph, by every runtime that is installed."""

import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from msad_cli.errors import ModelFileError, UsageError
from msad_cli.export.base import Run
from msad_cli.export.formats import FORMATS, RUNTIMES
from msad_cli.export.sidecar import InputShape, read_exported
from msad_cli.export.trace import trace
from msad_cli.fitting.choice.candidates import Candidate
from msad_cli.fitting.choice.facts import Facts
from msad_cli.fitting.choice.planted import plant
from msad_cli.fitting.choice.yardstick import yardstick
from msad_cli.models.decode.deployed import Deployed
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import load_model
from msad_cli.models.spec import DetectorSpec

YARDSTICK = "the yardstick"
"""Its name among runs that take turns."""
TORCH = "torch"
"""The runtime that is always there: the network itself, in float32."""
GRAPH = "onnx"
"""The format whose files the other runtimes run."""
RUNS, WARMUP, LEAST_SECONDS = 20, 3, 0.5
"""Of a latency: at least so many runs and seconds count, after some that do not."""
PACE_SECONDS = 2.0
"""In which the machine's pace is measured."""
TURNS = 3
"""In which trained models are measured; the median counts."""
BYTES = 4
"""Of a parameter in float32."""
BUSY = 1.3
"""Wall time over CPU time of one thread from which on something else computes on its core."""


@dataclass(frozen=True)
class Measured:
    """What was measured of a model.

    Attributes:
        milliseconds: an image, from its pixels to its boxes, by runtime, at the pace of the fit; the fastest first.
        size: bytes of the file that is deployed.
        busy: wall time over CPU time, of one thread; 1 where nobody knows.
        slower: how many times as slow as at that pace the machine was meanwhile.
    """

    milliseconds: dict[str, float]
    size: int
    busy: float = 1.0
    slower: float = 1.0

    @property
    def runtime(self) -> str:
        """The fastest one."""
        return next(iter(self.milliseconds))

    @property
    def latency(self) -> float:
        """Milliseconds an image by the fastest runtime."""
        return self.milliseconds[self.runtime]


Measure = Callable[[Candidate], Measured]


@dataclass(frozen=True)
class Runtimes:
    """What can run a model here.

    Attributes:
        names: the runtimes of graphs that are installed, and torch.
        missing: what is not there, in words; empty where nothing is missing.
    """

    names: tuple[str, ...]
    missing: str

    @property
    def graphs(self) -> tuple[str, ...]:
        """Those that run graphs."""
        return tuple(each for each in self.names if each != TORCH)


def find_runtimes() -> Runtimes:
    """The runtimes that are installed here."""
    there = tuple(name for name in RUNTIMES if importlib.util.find_spec(name) is not None)
    absent = [name for name in RUNTIMES if name not in there]
    try:
        FORMATS[GRAPH].need()
    except UsageError as error:
        return Runtimes(
            (TORCH,), f"{error.message}, so that no graph is written and torch runs the model; {error.hint}"
        )
    missing = f"{' and '.join(absent)} not installed: not tried" if absent else ""
    return Runtimes((*there, TORCH), missing)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """A stretch in which torch, and the runtimes that are opened in it, have so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def shape_for(candidate: Candidate, facts: Facts) -> InputShape:
    """The input of the graph: of one image, with the usual image's sides where nearly all are like it."""
    return InputShape(1, candidate.sees) if facts.alike else InputShape()


def measure_pace(count: int) -> float:
    """Milliseconds that the yardstick takes beside models of so many threads: how fast this machine is now."""
    return time_runs({}, [torch.zeros(3, 1, 1, dtype=torch.uint8)], count, PACE_SECONDS).yardstick


def measure_candidate(candidate: Candidate, facts: Facts, runtimes: Runtimes, count: int, pace: float) -> Measured:
    """Builds a candidate with random weights, plants as many objects as the set's images have, writes its graph, and
    times it in all runtimes, on images of the set.

    Args:
        count: threads.
        pace: by `measure_pace`; milliseconds are those of a machine that is as fast.
    """
    torch.manual_seed(0)
    detector = Detector(candidate.spec).eval()
    shape = shape_for(candidate, facts)
    images = _images(facts, candidate.spec, shape)
    plant(detector, images, facts.objects)
    network = as_deployed(detector)
    with threads(count):
        written = _write(network, candidate, shape) if runtimes.graphs else b""
        runs = _opened(network, written, candidate, shape, runtimes)
        timed = time_runs(runs, images, count, LEAST_SECONDS * len(runs))
    size = len(written) or BYTES * candidate.parameters
    fastest_first = sorted(timed.yardsticks.items(), key=lambda each: each[1])
    taken = {name: pace * times for name, times in fastest_first}
    return Measured(taken, size, timed.busy, timed.yardstick / pace)


def as_deployed(detector: Detector) -> Deployed:
    """What `msad export` writes of a detector of one view, which has the limits of an exported one from now on."""
    detector.limit(limits=detector.kind.deployed)
    return Deployed(detector, detector.spec.views[0]).eval()


def _write(network: Deployed, candidate: Candidate, shape: InputShape) -> bytes:
    return FORMATS[GRAPH].write(trace(network, shape), candidate.spec.task)


def _opened(
    network: Deployed, written: bytes, candidate: Candidate, shape: InputShape, runtimes: Runtimes
) -> dict[str, Run]:
    """What runs the model, by runtime; one that refuses the graph is left out."""
    runs: dict[str, Run] = {TORCH: network}
    for name in runtimes.graphs:
        try:
            runs[name] = RUNTIMES[name](written, candidate.spec.task, candidate.name, shape, "")
        except ModelFileError:
            continue
    return runs


@dataclass(frozen=True)
class Timed:
    """Runs that took turns with the yardstick.

    Attributes:
        yardsticks: how many times as long as it an image takes, by name; the median of all turns.
        yardstick: its own milliseconds.
        busy: wall time over CPU time, of one thread; 1 where nobody knows.
    """

    yardsticks: dict[str, float]
    yardstick: float
    busy: float


def time_runs(runs: Mapping[str, Run], images: Sequence[Tensor], count: int, least: float) -> Timed:
    """Times runs in turns.

    Of one thread it is the CPU's time that counts, in which no neighbour has a part; of several the wall's.

    Args:
        images: uint8 (3, h, w), looked at one by one.
        count: threads.
        least: seconds that it takes at least.
    """
    taking_turns = {YARDSTICK: _on_one_thread(yardstick()), **runs}
    wall: dict[str, list[float]] = {name: [] for name in taking_turns}
    own: dict[str, list[float]] = {name: [] for name in taking_turns}
    start, number = time.perf_counter(), 0
    with torch.inference_mode():
        while number < RUNS + WARMUP or time.perf_counter() - start < least:
            image = images[number % len(images)][None]
            for name, run in taking_turns.items():
                before, before_own = time.perf_counter(), time.process_time()
                run(image)
                if number >= WARMUP:
                    own[name].append(time.process_time() - before_own)
                    wall[name].append(time.perf_counter() - before)
            number += 1
    busy = sum(map(sum, wall.values())) / max(1e-9, sum(map(sum, own.values()))) if count == 1 else 1.0
    counted = own if count == 1 else wall
    beside = counted.pop(YARDSTICK)
    ratios = {
        name: statistics.median(taken / unit for taken, unit in zip(each, beside, strict=True))
        for name, each in counted.items()
    }
    return Timed(ratios, 1000 * statistics.median(beside), busy)


def _on_one_thread(run: Run) -> Run:
    """The same, without threads that wait, spinning, while the next model runs."""

    def alone(pixels: Tensor) -> Sequence[Tensor]:
        with threads(1):
            return run(pixels)

    return alone


def measure_files(
    files: Mapping[str, Path], runtime: str, facts: Facts, count: int, pace: float
) -> tuple[dict[str, float], float]:
    """Milliseconds an image of trained models, by name, as candidates were measured; they take turns. And how many
    times as slow as at that pace the machine was.

    Args:
        files: exported ones, or for torch model files.
        count: threads.
        pace: by `measure_pace`.

    Raises:
        ModelFileError: one cannot be read or run.
    """
    taken: dict[str, list[float]] = {name: [] for name in files}
    paces = []
    with threads(count):
        opened = {name: _open(file, runtime, facts) for name, file in files.items()}
        for _ in range(TURNS):
            for name, (run, images) in opened.items():
                timed = time_runs({name: run}, images, count, LEAST_SECONDS)
                taken[name].append(pace * timed.yardsticks[name])
                paces.append(timed.yardstick)
    return {name: statistics.median(each) for name, each in taken.items()}, statistics.median(paces) / pace


def _open(file: Path, runtime: str, facts: Facts) -> tuple[Run, list[Tensor]]:
    """What runs a file, and the images that it is timed on."""
    if runtime == TORCH:
        detector, _ = load_model(file)
        return as_deployed(detector), _images(facts, detector.spec, InputShape())
    notes = read_exported(file)
    run = RUNTIMES[runtime](file.read_bytes(), notes.spec.task, str(file), notes.shape, notes.identity)
    return run, _images(facts, notes.spec, notes.shape)


def _images(facts: Facts, spec: DetectorSpec, shape: InputShape) -> list[Tensor]:
    """Images of the set as a model sees them, of the sides that its graph may have."""
    images = [each for each in facts.views(spec) if shape.sides in (None, tuple(each.shape[1:]))]
    if images:
        return images
    height, width = shape.sides or (each // spec.ks[0] for each in spec.resolution.frame_size(*facts.size))
    return [torch.randint(0, 256, (3, height, width), dtype=torch.uint8)]
