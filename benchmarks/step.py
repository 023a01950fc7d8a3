"""Seconds a step of training and inference: msad's, a plain implementation's, torchvision's stock FCOS; interleaved.

    python benchmarks/step.py [--backbone resnet50] [--size 480,640] [--batch 2] [--rounds 5] [--precision bf16]

Absolute times belong to the machine and to what else runs on it; compare rows of one run only. The plain implementation
(plain.py) is float32, as is stock FCOS, which is always ResNet-50; msad's rows are in float32 and in the precision.
"""

import argparse
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from plain import Plain, stock_fcos, stock_inference, stock_step
from torch import Tensor

from msad_cli.distillation.aligned_teacher import AlignedTraining
from msad_cli.distillation.cached_teacher import CachedTeacher
from msad_cli.distillation.distillation import Distillation, teaching
from msad_cli.distillation.knowledge import best_view
from msad_cli.distillation.losses.table import build_distillers
from msad_cli.frame import Resolution
from msad_cli.models.detector import Detector
from msad_cli.models.spec import ClassName, DetectorSpec
from msad_cli.system.device import Compute
from msad_cli.text import parse_size

Jobs = dict[str, Callable[[], object]]


def main() -> None:
    """Builds the jobs, runs them in turn, prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", default="480,640")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="bf16")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    plain, ours, stock = build_jobs(arguments.backbone, arguments.size, arguments.batch, device)
    exact, fast = Compute(device, "fp32"), Compute(device, arguments.precision)
    rows = [(f"plain {name}", job, exact) for name, job in plain.items()]
    rows += [(f"msad {name}, {each.precision}", job, each) for each in (exact, fast) for name, job in ours.items()]
    rows += [(f"stock {name}", job, exact) for name, job in stock.items()]
    seconds: dict[str, list[float]] = {name: [] for name, _, _ in rows}
    for number in range(arguments.rounds + 1):
        for name, job, compute in rows:
            taken = timed(job, compute)
            if number:  # the first round warms up
                seconds[name].append(taken)
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, {arguments}")
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    for name, median in medians.items():
        alike = re.split(r", | \(", name)[0].removeprefix("msad ").removeprefix("plain ")
        beside = medians.get(f"plain {alike}", float("nan"))
        print(f"{name:40} {median:8.3f} s  {arguments.batch / median:7.2f} images/s  {median / beside:5.2f} of plain")


def timed(job: Callable[[], object], compute: Compute) -> float:
    """Wall seconds of a job under a precision."""
    start = time.perf_counter()
    with compute.autocast():
        job()
    if compute.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def build_jobs(backbone: str, size: str, batch: int, device: torch.device) -> tuple[Jobs, Jobs, Jobs]:
    """The jobs of the plain implementation, of msad under the same names, and of torchvision, on random images."""
    torch.manual_seed(0)
    spec = teacher_spec(backbone, size)
    teacher, frozen = (Detector(spec).to(device) for _ in range(2))
    student = Detector(replace(spec, role="student", ks=(2,))).to(device)
    views, targets = random_batch(spec.resolution, batch, device)
    high = views[1]
    # The plain student shares no parameter with ours: each has gradients of its own.
    plain_teacher, plain_student = Plain(Detector(spec).to(device)), Plain(Detector(spec).to(device))
    fusing = AlignedTraining(teacher)
    distilling, by_answers = (
        Distillation(student, teaching(frozen, student), build_distillers(student.spec, spec, weights))
        for weights in ({"l1": 0.6}, {"output-kd": 1.0})
    )
    with torch.no_grad():
        pyramid = best_view(frozen, views).pyramid
    kept = CachedTeacher(frozen, lambda image, mirrored: [each[image].bfloat16() for each in pyramid])
    without_teacher = Distillation(student, kept, build_distillers(student.spec, spec, {"l1": 0.6}))
    named = [{**target, "picture": torch.tensor([place, 0])} for place, target in enumerate(targets)]
    stock = stock_fcos(len(spec.classes), (high[0].shape[-2], high[0].shape[-1])).to(device)
    plain: Jobs = {
        "teacher step": lambda: plain_teacher.teacher_step(high, targets),
        "distil step": lambda: plain_student.distil_step(plain_teacher, high, targets),
        "teacher inference": lambda: plain_teacher.fused_inference(high),
        "student inference": lambda: plain_student.student_inference(high),
    }
    ours: Jobs = {
        "teacher step": lambda: backward(fusing.train()(views, targets)),
        "distil step": lambda: backward(distilling.train()(views, targets)),
        "distil step (output-kd)": lambda: backward(by_answers.train()(views, targets)),
        "distil step (teacher kept)": lambda: backward(without_teacher.train()({2: views[2]}, named)),
        "teacher inference": lambda: infer(teacher, views),
        "student inference": lambda: infer(student, {2: views[2]}),
    }
    return (
        plain,
        ours,
        {
            "FCOS step": lambda: stock_step(stock, high, targets),
            "FCOS inference": lambda: stock_inference(stock, high),
        },
    )


def teacher_spec(backbone: str, size: str) -> DetectorSpec:
    """FCOS with torchvision's head and COCO's number of classes, from scratch; `size` as it is typed."""
    classes = tuple(ClassName(i, str(i)) for i in range(1, 81))
    return DetectorSpec("teacher", "fcos", backbone, 1.0, 256, 4, "group", "aligned", (1, 2), parse_size(size), classes)


def random_batch(
    resolution: Resolution, batch: int, device: torch.device
) -> tuple[dict[int, list[Tensor]], list[dict[str, Tensor]]]:
    """Views by k and targets of images of noise, ten objects each."""
    height, width = resolution.frame_size(resolution.short_side, resolution.long_side)
    high = [torch.randint(0, 256, (3, height, width), dtype=torch.uint8, device=device) for _ in range(batch)]
    corners = torch.rand(10, 2, device=device) * torch.tensor([width / 2, height / 2], device=device)
    boxes = torch.cat([corners, corners + 20 + torch.rand(10, 2, device=device) * 200], dim=1)
    target = {"boxes": boxes, "labels": torch.ones(10, dtype=torch.int64, device=device)}
    return {1: high, 2: [image[:, ::2, ::2].contiguous() for image in high]}, [target] * batch


def backward(losses: dict[str, Tensor]) -> None:
    """The gradients of summed losses, without an update."""
    torch.stack(list(losses.values())).sum().backward()


@torch.inference_mode()
def infer(detector: Detector, views: dict[int, list[Tensor]]) -> None:
    """Detections of a model's own best view."""
    detector.eval().detect(views, detector.spec.views[0])


if __name__ == "__main__":
    main()
