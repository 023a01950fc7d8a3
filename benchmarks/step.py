"""Seconds a step of teacher, distillation and student inference, fp32 beside bf16, interleaved in one run.

    python benchmarks/step.py [--backbone resnet50] [--size 480,640] [--batch 2] [--rounds 5] [--device cpu]

Absolute times belong to the machine and to what else runs on it; compare rows of one run only.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from msad_cli.commands.options import parse_size
from msad_cli.engine.device import Compute
from msad_cli.methods.aligned import AlignedTraining
from msad_cli.methods.distillation import Distillation, teaching
from msad_cli.methods.distillers.build import build_distillers
from msad_cli.models.detector import Detector
from msad_cli.models.spec import ClassName, DetectorSpec


def main() -> None:
    """Builds the three jobs, runs them in turn, prints medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", default="480,640")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    jobs = build_jobs(arguments.backbone, arguments.size, arguments.batch, device)
    seconds: dict[tuple[str, str], list[float]] = {}
    for number in range(arguments.rounds + 1):
        for precision in ("fp32", "bf16"):
            for name, job in jobs.items():
                taken = timed(job, Compute(device, precision))  # type: ignore[arg-type]
                if number:  # the first round warms up
                    seconds.setdefault((name, precision), []).append(taken)
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, {arguments}")
    for (name, precision), values in seconds.items():
        median = statistics.median(values)
        print(
            f"{name:18} {precision}  {median:7.3f} s/step  {arguments.batch / median:7.2f} images/s  "
            f"min {min(values):.3f}  max {max(values):.3f}"
        )


def timed(job: Callable[[], object], compute: Compute) -> float:
    """Wall seconds of a job under a precision."""
    start = time.perf_counter()
    with compute.autocast():
        job()
    if compute.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def build_jobs(backbone: str, size: str, batch: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """A training step of the teacher, one of the student, and the inference of both, on random pictures."""
    torch.manual_seed(0)
    classes = tuple(ClassName(i, str(i)) for i in range(1, 81))
    resolution = parse_size(size)
    spec = DetectorSpec(
        "teacher", "fcos", backbone, 1.0, 256, 4, "group", "aligned", (1, 2), resolution, classes
    )  # fmt: skip
    teacher = Detector(spec).to(device)
    student = Detector(replace(spec, role="student", ks=(2,))).to(device)
    height, width = resolution.frame_size(resolution.short_side, resolution.long_side)
    high = [torch.randint(0, 256, (3, height, width), dtype=torch.uint8, device=device) for _ in range(batch)]
    views = {1: high, 2: [image[:, ::2, ::2].contiguous() for image in high]}
    corners = torch.rand(10, 2, device=device) * torch.tensor([width / 2, height / 2], device=device)
    boxes = torch.cat([corners, corners + 20 + torch.rand(10, 2, device=device) * 200], dim=1)
    targets = [{"boxes": boxes, "labels": torch.ones(10, dtype=torch.int64, device=device)}] * batch
    distillers = build_distillers(student.spec, spec, {"l1": 0.6})
    fusing = AlignedTraining(teacher)
    distilling = Distillation(student, teaching(Detector(spec).to(device), student), distillers)

    def step(module: AlignedTraining | Distillation) -> Callable[[], object]:
        return lambda: backward(module.train()(views, targets))

    return {
        "teacher step": step(fusing),
        "distil step": step(distilling),
        "teacher inference": lambda: infer(teacher, views),
        "student inference": lambda: infer(student, {2: views[2]}),
    }


def backward(losses: dict[str, Tensor]) -> None:
    """The gradients of summed losses, without an update."""
    torch.stack(list(losses.values())).sum().backward()


@torch.inference_mode()
def infer(detector: Detector, views: dict[int, list[Tensor]]) -> None:
    """Detections of a model's own best view."""
    detector.eval().detect(views, detector.spec.views[0])


if __name__ == "__main__":
    main()
