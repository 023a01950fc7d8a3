"""What folding normalisation into convolutions, and weights that lie channels last, bring in torch; in turn.

    OMP_NUM_THREADS=1 python benchmarks/folding.py [--detector fcos --backbone resnet18 --width 0.5] [--norm group]

An untrained student at k = 2 with a head of 64 × 2: its time does not depend on its weights. CPU time of backbone,
pyramid and head of one image.
"""

import argparse
import copy
import time

import numpy as np
import torch

from msad_cli.frame import DIVISOR, Resolution
from msad_cli.models.detector import Detector
from msad_cli.models.spec import ClassName, DetectorSpec
from msad_cli.system.device import Compute
from msad_cli.text import parse_size

WARMUP = 3


def main() -> None:
    """Prints a row: before : after in float32 and in bfloat16."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="rtmdet")
    parser.add_argument("--backbone", default="cspnext_nano")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--norm", default="batch")
    parser.add_argument("--size", default="256,342", help="of the HR image")
    parser.add_argument("--runs", type=int, default=30)
    given = parser.parse_args()
    resolution: Resolution = parse_size(given.size)
    spec = DetectorSpec(
        role="student",
        detector=given.detector,
        backbone=given.backbone,
        width=given.width,
        channels=64,
        head_convs=2,
        norm=given.norm,
        scales="aligned",
        ks=(2,),
        resolution=resolution,
        classes=tuple(ClassName(number, str(number)) for number in (1, 2, 3)),
        divisor=DIVISOR,
    )
    plain = Detector(spec).eval().requires_grad_(requires_grad=False)
    models = (plain, copy.deepcopy(plain).fold())
    height, width = resolution.frame_size(resolution.short_side, resolution.long_side)
    image = torch.randint(0, 256, (3, height // 2, width // 2), dtype=torch.uint8)
    ratios = []
    for precision in ("fp32", "bf16"):
        compute, taken = Compute(torch.device("cpu"), precision), ([], [])  # type: ignore[var-annotated]
        for _ in range(given.runs + WARMUP):
            for model, seconds in zip(models, taken, strict=True):
                with compute.inference():
                    begun = time.process_time()
                    model.look({2: [image]}, "low")
                    seconds.append(time.process_time() - begun)
        before, after = (float(np.median(each[WARMUP:])) for each in taken)
        ratios.append(f"{precision} {before / after:.2f} ({1000 * before:.1f} : {1000 * after:.1f} ms)")
    print(f"{given.detector}, {given.backbone} × {given.width:g}, {given.norm}: {', '.join(ratios)}")


if __name__ == "__main__":
    main()
