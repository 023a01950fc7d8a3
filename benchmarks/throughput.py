"""Images a second from files to boxes: `msad predict`'s engine beside torchvision's stock FCOS at HR; interleaved.

    python benchmarks/throughput.py student.safetensors FOLDER [--number 60] [--rounds 5] [--precision bf16]
        [--device cuda] [--batch 8] [--alike]

Both read the same images, and neither draws or writes. The stock detector has the student's classes and HR size,
ResNet-50 or with --alike the student's own backbone, pyramid and head; it is float32 and in the precision too. Its
images are decoded one after the other, as its users do. Batches are msad's alone.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from mistakes import told
from plain import stock_fcos
from torchvision.models.detection import FCOS
from torchvision.transforms.v2.functional import pil_to_tensor

from msad_cli.data.images.decode import read_image
from msad_cli.inference.inputs import Input, find_inputs
from msad_cli.inference.predictor import Wanted, predict
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import load_model
from msad_cli.system.device import Compute

Job = Callable[[], object]


def main() -> None:
    """Runs each in turn and prints medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures", type=str)
    parser.add_argument("--number", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--alike", action="store_true")
    arguments = parser.parse_args()
    inputs = find_inputs([arguments.pictures], [Path("predictions")])[: arguments.number]
    detector, _ = load_model(arguments.model)
    exact, fast = (Compute(torch.device(arguments.device), each) for each in ("fp32", arguments.precision))
    resolution = detector.to(exact.device).spec.resolution
    if arguments.alike:
        stock = Detector(replace(detector.spec, role="baseline", scales="single", ks=(1,))).core.eval()
        stock.transform.min_size, stock.transform.max_size = (resolution.short_side,), resolution.long_side
    else:
        stock = stock_fcos(len(detector.spec.classes), (resolution.short_side, resolution.long_side)).eval()
    stock.to(exact.device)
    jobs: dict[str, Job] = {
        "stock fp32": lambda: stock_detections(stock, inputs, exact),
        f"stock {fast.precision}": lambda: stock_detections(stock, inputs, fast),
        "msad fp32": lambda: list(
            predict(detector, detector.spec.views[0], inputs, Wanted(0.05), exact, arguments.batch)
        ),
        f"msad {fast.precision}": lambda: list(
            predict(detector, detector.spec.views[0], inputs, Wanted(0.05), fast, arguments.batch)
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(arguments.rounds + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {len(inputs)} images, {arguments}")
    first = statistics.median(seconds["stock fp32"])
    for name, each in seconds.items():
        median = statistics.median(each)
        print(f"{name:12} {len(inputs) / median:7.2f} images/s  {first / median:5.2f} times stock fp32")


def stock_detections(model: FCOS, inputs: list[Input], compute: Compute) -> None:
    """Torchvision's detections of image files."""
    for each in inputs:
        image = pil_to_tensor(read_image(each.path)).to(compute.device) / 255
        with torch.inference_mode(), compute.autocast():
            (found,) = model([image])
            found["boxes"].cpu()  # its users want them there, and so wait for the device


if __name__ == "__main__":
    told(main)
