"""How much torchvision's detectors change where images are padded to 128 pixels, as msad has it, instead of to 32.

    python benchmarks/padding.py FOLDER [--images 12] [--size 800,1333]

The weights are random, but awake: activations keep their size from layer to layer, and scores spread from 0 to 1. So
the detections are of nothing, and follow the pixels as trained ones do. FOLDER holds images. Of the detections at the
padding of 32 the table counts those that have a twin at 128: the same class, and an IoU of at least 0.9.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.ops import box_iou
from torchvision.transforms.functional import pil_to_tensor

from msad_cli.data.images.decode import read_image
from msad_cli.models.detectors.kinds import DETECTORS
from msad_cli.text import parse_size

TWIN = 0.9
HEADS = ("cls_logits", "cls_score")


class Spread:
    """Brings logits to a mean of −3 and a deviation of 2, as those of the first call need it."""

    def __init__(self) -> None:
        self.of_first: tuple[Tensor, Tensor] | None = None

    def __call__(self, _: nn.Module, __: object, found: Tensor) -> Tensor:
        if self.of_first is None:
            self.of_first = (found.mean(), found.std())
        mean, deviation = self.of_first
        return 2 * (found - mean) / deviation - 3


@torch.no_grad()
def awake(name: str, example: Tensor) -> Any:
    """A stock detector whose random weights react to what they see."""
    torch.manual_seed(0)
    model: Any = get_model(f"{name}_resnet50_fpn", weights=None, weights_backbone=None, norm_layer=nn.BatchNorm2d)
    for part, each in model.named_modules():
        if isinstance(each, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(each.weight, nonlinearity="relu")
            if "bbox" in part:
                each.weight.data *= 0.1
        if isinstance(each, nn.BatchNorm2d):
            each.momentum = None  # statistics are those of the example
    model.train().backbone(model.transform([example])[0].tensors)
    model.eval()
    for part, each in model.named_modules():
        if part.rpartition(".")[2] in HEADS:
            each.register_forward_hook(Spread())
    model([example])
    return model


@torch.no_grad()
def compare(name: str, images: list[Tensor], size: tuple[int, int]) -> str:
    """A row of the table."""
    model = awake(name, images[0])
    model.transform.min_size, model.transform.max_size = (size[0],), size[1]
    twins, count, scores, others = 0, 0, 0.0, 0
    for image in images:
        found = []
        for divisor in (32, 128):
            model.transform.size_divisible = divisor
            found.append(model([image])[0])
        one, other = found
        count, others = count + len(one["boxes"]), others + len(other["boxes"])
        if not len(one["boxes"]) or not len(other["boxes"]):
            continue
        iou = box_iou(one["boxes"], other["boxes"]) * (one["labels"][:, None] == other["labels"])
        best, place = iou.max(dim=1)
        found_again = best >= TWIN
        twins += int(found_again.sum())
        scores += float((one["scores"] - other["scores"][place]).abs()[found_again].sum())
    return f"| {name} | {count} | {others} | {twins / max(1, count):.1%} | {scores / max(1, twins):.4f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--size", default="800,1333")
    given = parser.parse_args()
    size = parse_size(given.size)
    files = sorted(given.folder.iterdir())[: given.images]
    images = [pil_to_tensor(read_image(each)) / 255 for each in files]
    print("| detector | detections at 32 | at 128 | with a twin | scores of twins differ by |\n|---|---|---|---|---|")
    for name in DETECTORS:
        print(compare(name, images, (size.short_side, size.long_side)), flush=True)


if __name__ == "__main__":
    main()
