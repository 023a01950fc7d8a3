"""RepPoints' deformable convolutions by grid sampling, as msad has them on a CPU, beside torchvision's; in turn.

    OMP_NUM_THREADS=1 python benchmarks/deformable.py [--backbone resnet18] [--width 0.5] [--channels 64] [--convs 2]
        [--size 256,341] [--batch 4] [--rounds 5] [--precision bf16]

Times are CPU time: a step of a teacher (forward and backward) and a student's detections, on images of noise.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from step import backward, infer, random_batch
from torch import Tensor
from torchvision.ops import DeformConv2d

from msad_cli.distillation.aligned_teacher import AlignedTraining
from msad_cli.models.detector import Detector
from msad_cli.models.detectors import points
from msad_cli.models.spec import ClassName, DetectorSpec
from msad_cli.system.device import Compute
from msad_cli.text import parse_size

Job = Callable[[], object]


def main() -> None:
    """Runs each in turn and prints medians; the first round warms up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--convs", type=int, default=2)
    parser.add_argument("--size", default="256,341")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="bf16")
    given = parser.parse_args()
    torch.manual_seed(0)
    classes = tuple(ClassName(i, str(i)) for i in range(1, 4))
    network = (given.backbone, given.width, given.channels, given.convs)
    spec = DetectorSpec("teacher", "reppoints", *network, "group", "aligned", (1, 2), parse_size(given.size), classes)
    training, student = AlignedTraining(Detector(spec)).train(), Detector(replace(spec, role="student", ks=(2,)))
    views, targets = random_batch(spec.resolution, given.batch, torch.device("cpu"))
    compute = Compute(torch.device("cpu"), given.precision)

    def step() -> None:
        with compute.autocast():
            losses = training(views, targets)
        backward(losses)

    def look() -> None:
        with compute.autocast():
            infer(student, {2: views[2]})

    jobs: dict[str, Job] = {"teacher step": step, "student inference": look}
    ways = {"torchvision": _torchvisions, "grid sampling": points._read}
    seconds: dict[tuple[str, str], list[float]] = {(job, way): [] for job in jobs for way in ways}
    for number in range(given.rounds + 1):
        for (job, way), taken in seconds.items():
            points._read = ways[way]
            start = time.process_time()
            jobs[job]()
            if number:
                taken.append(time.process_time() - start)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {given}")
    medians = {key: statistics.median(taken) for key, taken in seconds.items()}
    for (job, way), median in medians.items():
        print(f"{job:18} {way:14} {median:7.3f} s  {medians[job, 'torchvision'] / median:5.2f} times as fast")


def _torchvisions(conv: DeformConv2d, maps: Tensor, offsets: Tensor) -> Tensor:
    read: Tensor = conv(maps.float(), offsets)
    return read


if __name__ == "__main__":
    main()
