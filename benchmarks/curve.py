"""The losses of 50 steps of teacher and student under a fixed seed: what a change that is only for speed must not move.

    python benchmarks/curve.py FOLDER before.json                        (on the code before)
    python benchmarks/curve.py FOLDER after.json --beside before.json    (on the code after)

FOLDER is a COCO-style set. Without --precision it is float32, on one thread, with a small network from scratch.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from msad_cli.data.annotations.split import read_split
from msad_cli.data.layouts.splits import find_split
from msad_cli.data.loading.dataset import TrainingSet, training_loader
from msad_cli.distillation.aligned_teacher import AlignedTraining
from msad_cli.distillation.distillation import Distillation, teaching
from msad_cli.distillation.losses.table import build_distillers
from msad_cli.frame import Resolution
from msad_cli.models.detector import Detector
from msad_cli.models.spec import ClassName, DetectorSpec
from msad_cli.models.weights.inherit import from_teacher
from msad_cli.system.device import Compute
from msad_cli.training.steps.loop import train
from msad_cli.training.steps.optimiser import sgd
from msad_cli.training.steps.schedule import Schedule

STEPS = 50


def main() -> None:
    """Trains a teacher, then a student of it; writes the sum of losses at every step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--detector", default="fcos")
    parser.add_argument("--precision", default="fp32")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    curves = curve(arguments.data, arguments.detector, Compute(torch.device("cpu"), arguments.precision))
    arguments.out.write_text(json.dumps(curves))
    before = json.loads(arguments.beside.read_text()) if arguments.beside else {}
    for name, values in curves.items():
        far = [abs(now - then) / then for now, then in zip(values, before.get(name, values), strict=True)]
        print(f"{name:8} step 1 {values[0]:.6f}, step {STEPS} {values[-1]:.6f}; farthest apart {max(far):.1e}")


def curve(data: str, detector: str, compute: Compute) -> dict[str, list[float]]:
    """By role, the sum of losses at each step."""
    files = find_split(data, "train")
    split = read_split(files.annotations, files.images)
    classes = tuple(ClassName(number, name) for number, name in split.categories)
    spec = DetectorSpec(
        role="teacher",
        detector=detector,
        backbone="resnet18",
        width=0.25,
        channels=64,
        head_convs=1,
        norm="group",
        scales="aligned",
        ks=(1, 2),
        resolution=Resolution(128, 171),
        classes=classes,
    )
    torch.manual_seed(0)
    teacher, student = Detector(spec), Detector(replace(spec, role="student", ks=(2,)))
    training = TrainingSet(split, spec.resolution, spec.ks, jitter=False, seed=0)
    losses = {"teacher": totals(AlignedTraining(teacher), training, compute)}
    from_teacher(student, teacher)
    distillers = build_distillers(student.spec, spec, {"l1": 0.6})
    losses["student"] = totals(Distillation(student, teaching(teacher, student), distillers), training, compute)
    return losses


def totals(module: nn.Module, training: TrainingSet, compute: Compute) -> list[float]:
    """The sum of losses at each step."""
    batches = training_loader(training, 4, 0, 0, STEPS)
    schedule = Schedule(0.005, STEPS, STEPS // 10, "steps")
    return [sum(step.losses.values()) for step in train(module, batches, sgd(module, 0.005), schedule, compute)]


if __name__ == "__main__":
    main()
