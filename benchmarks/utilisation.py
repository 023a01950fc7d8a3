"""How much of a device's matrix peak training and inference reach, and where the rest of the time goes.

    python benchmarks/utilisation.py [--backbone resnet50] [--size 800,1333] [--batch 16] [--device cuda] [--compile]
        [--channels-first]

The peak is the best of square matrix products in the precision. FLOPs are those of convolutions and matrix products,
backward passes included, as torch counts them. A step is what `msad teacher` and `msad distill` do with a batch that
lies in the host's memory: copies, losses, clipping and the update included. `network` is its backbone, pyramid, fusion
and head alone, forward and, where there is something to learn, backward. Of the profile, backward passes of losses
stand with what is elementwise, and `between` is time in which no operation runs: Python on a CPU, an idle GPU; the
profiler itself adds to it.
"""

import argparse
import itertools
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from step import backward, random_batch, teacher_spec
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from msad_cli.data.loading.dataset import Batch, Sample
from msad_cli.distillation.aligned_teacher import AlignedTraining
from msad_cli.distillation.distillation import Distillation, teaching
from msad_cli.distillation.losses.table import build_distillers
from msad_cli.evaluation.detect_split import detect_batch
from msad_cli.models import detector as building
from msad_cli.models.compiled import compile_parts
from msad_cli.models.detector import Detector
from msad_cli.system.device import HALF, Compute
from msad_cli.training.steps.loop import train
from msad_cli.training.steps.optimiser import sgd
from msad_cli.training.steps.schedule import Schedule

SIDES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192, 16384)}
"""Of the square matrices."""
LOSSES, CHOICE, BETWEEN = "assignment, losses", "choice of boxes", "between"
GROUPS = {
    LOSSES: LOSSES,
    CHOICE: CHOICE,
    "clipping, update": r"Optimizer|_foreach",
    "copies, casts": r"aten::(copy_|to|_to_copy|clone|contiguous|cat|stack)$",
    "convolutions": r"conv|mm$|linear",
    "normalisation": r"(batch|group)_?norm",
    "elementwise, others": "",
}
"""By group, what its operations, or those that they are part of, are called; the first that fits."""


@dataclass(frozen=True)
class Work:
    """What is measured: a whole step, and of it backbone, pyramid, fusion and head alone."""

    whole: Callable[[], object]
    network: Callable[[], object]


def main() -> None:
    """Measures the peak, then each work in turn; prints a table and the profiles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", default="800,1333")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp32"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--channels-first", action="store_true", help="not channels last, which a GPU's bf16 has")
    arguments = parser.parse_args()
    if arguments.channels_first:
        building.as_convolved = lambda maps: maps
    compute = Compute(torch.device(arguments.device), arguments.precision)
    works, detectors = build(arguments.backbone, arguments.size, arguments.batch, compute)
    # Before anything is compiled: torch does not look into compiled code.
    flops = {name: (counted(work.whole), counted(work.network)) for name, work in works.items()}
    if arguments.compile:
        compile_parts(detectors, compute.device)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    peaks = []
    for number in range(arguments.rounds + 1):
        found = peak(compute)
        taken = {name: (timed(each.whole, compute), timed(each.network, compute)) for name, each in works.items()}
        if number:  # the first round warms up
            peaks.append(found)
            for name, each in taken.items():
                seconds[name].append(each)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments}")
    print(f"matrix peak: {max(peaks) / 1e12:.3f} TFLOP/s")
    for name, pairs in seconds.items():
        for part, taken_by, of in zip(("step", "network"), zip(*pairs, strict=True), flops[name], strict=True):
            median = statistics.median(taken_by)
            reached = 100 * of / median / max(peaks)
            rate = f"{arguments.batch / median:8.2f} images/s"
            print(f"{name:18} {part:8} {rate} {of / 1e12:8.3f} TFLOP {reached:5.1f}% of peak")
    for name, work in works.items():
        print(f"{name}: " + ", ".join(f"{group} {100 * part:.1f}%" for group, part in shares(work, compute).items()))


def peak(compute: Compute) -> float:
    """FLOP/s of the fastest square matrix product."""
    dtype = HALF.get(compute.precision, torch.float32)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32  # what convolutions in float32 may use
    best = 0.0
    for side in SIDES[compute.device.type]:
        one, other = (torch.randn(side, side, device=compute.device).to(dtype) for _ in range(2))
        product = lambda: one @ other  # noqa: E731, B023 - called before the next turn
        best = max([best, *(2 * side**3 / timed(product, compute) for _ in range(5))])
    return best


def timed(job: Callable[[], object], compute: Compute) -> float:
    """Seconds of a job, until the device has done it; of a single thread those that it was given by a shared CPU."""
    alone = compute.device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    finish(compute)
    start = clock()
    job()
    finish(compute)
    return clock() - start


def finish(compute: Compute) -> None:
    """Waits for the device."""
    if compute.device.type == "cuda":
        torch.cuda.synchronize(compute.device)


def counted(job: Callable[[], object]) -> int:
    """FLOPs of a job."""
    with FlopCounterMode(display=False) as counter:
        job()
    return int(counter.get_total_flops())


def shares(work: Work, compute: Compute) -> dict[str, float]:
    """By group, its share of a step's time; they add up to 1."""
    on_gpu = compute.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiled:
        start = time.perf_counter()
        work.whole()
        finish(compute)
        whole = 1e6 * (time.perf_counter() - start)
    spent = dict.fromkeys(GROUPS, 0.0)
    for event in profiled.events():
        if event.device_type.name == "CPU":  # what a GPU did stands with the operation that asked
            spent[group_of(event)] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    return {name: each / whole for name, each in spent.items()} | {BETWEEN: 1 - sum(spent.values()) / whole}


def group_of(event: Any) -> str:
    """The group of an operation."""
    names = []
    while event is not None:
        names.append(event.name)
        event = event.cpu_parent
    return next(group for group, pattern in GROUPS.items() if any(re.search(pattern, name) for name in names))


def build(backbone: str, size: str, batch: int, compute: Compute) -> tuple[dict[str, Work], list[Detector]]:
    """A teacher's step, a student's beside its teacher, and a student's inference; and their detectors."""
    torch.manual_seed(0)
    spec = teacher_spec(backbone, size)
    student_spec = replace(spec, role="student", ks=(2,))
    teacher, frozen = (Detector(spec).to(compute.device) for _ in range(2))
    student, deployed = (Detector(student_spec).to(compute.device) for _ in range(2))
    detectors = [teacher, frozen, student, deployed.eval()]
    distilling = Distillation(student, teaching(frozen, student), build_distillers(student_spec, spec, {"l1": 0.6}))
    for each in detectors:
        for owner in (each.core, each.core.head):
            owner.compute_loss = ranged(LOSSES, owner.compute_loss)
        each.core.postprocess_detections = ranged(CHOICE, each.core.postprocess_detections)
    for distiller in distilling.distillers.values():
        distiller.forward = ranged(LOSSES, distiller.forward)
    views, targets = random_batch(spec.resolution, batch, torch.device("cpu"))
    height, width = views[1][0].shape[-2:]
    samples = [
        Sample(i, (height, width), (height, width), {k: images[i] for k, images in views.items()}, targets[i])
        for i in range(batch)
    ]
    both = Batch(tuple(samples))
    small = Batch(tuple(replace(each, views={2: each.views[2]}, target={}) for each in samples))
    if compute.pins:
        both, small = both.pin_memory(), small.pin_memory()
    with compute.autocast():
        pixels = {k: teacher.pixels([each.to(compute.device) for each in images], k) for k, images in views.items()}

    def answers(detector: Detector) -> list[Tensor]:
        """Of the head, on each view's pyramid and on their fusion."""
        pyramids = [detector.backbone(k).pyramid(pixels[k], k) for k in detector.spec.ks]
        pyramids += [detector.fuse(pyramids)] if detector.spec.fuses else []
        return [each for pyramid in pyramids for each in detector.outputs(pyramid).values()]

    def learn(detector: Detector, beside: Detector | None = None) -> None:
        detector.train().zero_grad(set_to_none=True)
        with compute.autocast():
            if beside is not None:
                with torch.no_grad():
                    beside.fuse([beside.backbone(k).pyramid(pixels[k], k) for k in beside.spec.ks])
            found = answers(detector)
        backward({str(i): each.mean() for i, each in enumerate(found)})

    def infer() -> None:
        with compute.inference():
            answers(deployed)

    return {
        "teacher step": Work(steps(AlignedTraining(teacher), both, compute), lambda: learn(teacher)),
        "distil step": Work(steps(distilling, both, compute), lambda: learn(student, frozen)),
        "student inference": Work(
            lambda: detect_batch(lambda seen: deployed.detect(seen, "low"), small, compute), infer
        ),
    }, detectors


def steps(module: torch.nn.Module, batch: Batch, compute: Compute) -> Callable[[], object]:
    """Steps of msad's loop on one batch, with a rate of 0: noise would make the losses infinite in the end."""
    loop = train(module, itertools.repeat(batch), sgd(module, 0.0), Schedule(0.0, 1, 0, "cosine"), compute)
    return lambda: next(loop)


def ranged(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The same call, which the profiler sees under a name."""

    def named(*given: Any, **options: Any) -> Any:
        with record_function(name):
            return call(*given, **options)

    return named


if __name__ == "__main__":
    main()
