"""How long the parts of a prediction take, from the file to boxes in its pixels."""

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from msad_cli.data.images import read_image
from msad_cli.data.transforms import render
from msad_cli.engine.device import Compute
from msad_cli.engine.evaluate import in_original
from msad_cli.engine.exported import Model
from msad_cli.models.spec import View

PARTS = ("decode", "preprocess", "model", "postprocess")


def timed_parts(detector: Model, view: View, paths: Sequence[Path], compute: Compute) -> dict[str, float]:
    """Seconds of each of `PARTS` for one batch of pictures.

    decode: from the file to RGB; preprocess: resizing to what the view sees, and to the device; model: body, pyramid,
    head; postprocess: the choice of boxes (in two-stage detectors with the regions that they are made of), and their
    way to the pixels of the pictures.

    Raises:
        DataError: a picture cannot be read.
    """
    clock = [time.perf_counter()]

    def tick() -> None:
        if compute.device.type == "cuda":
            torch.cuda.synchronize(compute.device)
        clock.append(time.perf_counter())

    images = [read_image(path) for path in paths]
    tick()
    sizes = [(image.height, image.width) for image in images]
    frames = [detector.spec.resolution.frame_size(*size) for size in sizes]
    views = {
        k: [render(image, frame, k).to(compute.device) for image, frame in zip(images, frames, strict=True)]
        for k in detector.spec.ks_of(view)
    }
    tick()
    with compute.inference():
        seen = detector.look(views, view)
        tick()
        found = detector.finish(seen)
    for each, size, frame in zip(found, sizes, frames, strict=True):
        in_original(each, size, frame)
    tick()
    return {part: after - before for part, before, after in zip(PARTS, clock[:-1], clock[1:], strict=True)}
