"""Seconds until a command answers, beside the bare import of torch and torchvision; every command in turn.

    python benchmarks/startup.py student.safetensors image.jpg [--rounds 7]

Every one is a process of its own. Importing torch and torchvision, loading the model and one forward pass is the least
that a prediction takes.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BARE = """
import sys, torch, torchvision
from PIL import Image
from torchvision.models.detection import fcos_resnet50_fpn
from torchvision.transforms.v2.functional import pil_to_tensor
torch.manual_seed(0)
"""
FORWARD = """
from msad_cli.models.model_file import load_model
from msad_cli.data.images.scaled import open_image
from msad_cli.data.loading.transforms import render
detector, _ = load_model(__import__("pathlib").Path(sys.argv[1]))
image = open_image(__import__("pathlib").Path(sys.argv[2]))
size = detector.spec.resolution.frame_size(*image.size)
view = detector.spec.views[0]
views = {k: [render(image, size, k, phase=detector.spec.phase)] for k in detector.spec.ks_of(view)}
with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
    detector.detect(views, view)
"""


def main() -> None:
    """Runs all in turn and prints medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    files = [str(arguments.model), str(arguments.picture)]
    msad = [sys.executable, "-m", "msad_cli"]
    with tempfile.TemporaryDirectory() as out:
        commands = {
            "import torch, torchvision": [sys.executable, "-c", BARE],
            "the same and the forward": [sys.executable, "-c", BARE + FORWARD, *files],
            "msad predict, one image": [
                *msad,
                "predict",
                files[1],
                "-m",
                files[0],
                "-o",
                out,
                "--overwrite",
                "--quiet",
            ],
            "msad --help": [*msad, "--help"],
            "msad --version": [*msad, "--version"],
            "msad info": [*msad, "info", files[0]],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(arguments.rounds + 1):
            for name, command in commands.items():
                start = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                if number:  # the first round fills the disk's cache
                    seconds[name].append(time.perf_counter() - start)
    bare = statistics.median(seconds["the same and the forward"])
    for name, each in seconds.items():
        median = statistics.median(each)
        print(f"{name:28} {median:6.2f} s  {median / bare:5.2f} of import and forward")


if __name__ == "__main__":
    main()
