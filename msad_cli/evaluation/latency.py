"""How long the parts of a prediction take, from the file to boxes in its pixels."""

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from msad_cli.data.images.scaled import open_image, scale_for
from msad_cli.data.loading.transforms import render
from msad_cli.evaluation.detect_split import in_original
from msad_cli.export.runtime import Model
from msad_cli.models.spec import View
from msad_cli.system.device import Compute

PARTS = ("decode", "preprocess", "model", "postprocess")


def timed_parts(detector: Model, view: View, paths: Sequence[Path], compute: Compute) -> dict[str, float]:
    """Seconds of each of `PARTS` for one batch of images.

    decode: from the file to RGB, no larger than the view needs; preprocess: resizing to what the view sees, and to the
    device; model: backbone, pyramid, head; postprocess: non-maximum suppression (NMS), of
    two-stage detectors the RoIs too, and the way of boxes to the pixels of the images.

    Raises:
        DataError: an image cannot be read.
    """
    clock = [time.perf_counter()]

    def tick() -> None:
        if compute.device.type == "cuda":
            torch.cuda.synchronize(compute.device)
        clock.append(time.perf_counter())

    images = [open_image(path, detector.spec.tones) for path in paths]
    frames = [detector.resolution.frame_size(*image.size) for image in images]
    for image, (height, width) in zip(images, frames, strict=True):
        for k in detector.spec.ks_of(view):
            image.at(scale_for(image.header, (height // k, width // k)))
    tick()
    views = {
        k: [
            render(image, frame, k, phase=detector.spec.phase).to(compute.device)
            for image, frame in zip(images, frames, strict=True)
        ]
        for k in detector.spec.ks_of(view)
    }
    tick()
    with compute.inference():
        seen = detector.look(views, view)
        tick()
        found = detector.finish(seen)
    for each, image, frame in zip(found, images, frames, strict=True):
        in_original(each, image.size, frame)
    tick()
    return {part: after - before for part, before, after in zip(PARTS, clock[:-1], clock[1:], strict=True)}
