"""Detections of picture files, each decoded straight at the size that the model sees."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from msad_cli.data.images import read_image
from msad_cli.data.transforms import render
from msad_cli.engine.device import Compute
from msad_cli.engine.evaluate import in_original
from msad_cli.engine.inputs import Input
from msad_cli.models.detector import Detector
from msad_cli.models.spec import View
from msad_cli.structures.errors import DataError


@dataclass(frozen=True)
class Prediction:
    """What was found in a picture: `boxes` (corners in its pixels), `scores`, `labels` (from 1), and by task `masks`
    (D, 1, 28, 28), probabilities on a grid over each of `mask_boxes` (D, 4), or `keypoints` (D, K, 3) in its
    pixels."""

    source: Input
    image: Image.Image
    found: dict[str, Tensor]


def predict(
    detector: Detector, view: View, inputs: Sequence[Input], score: float, compute: Compute
) -> Iterator[Prediction | DataError]:
    """A prediction a picture, in order; a picture that cannot be read yields its error instead."""
    for source in inputs:
        try:
            image = read_image(source.path)
        except DataError as error:
            yield error
            continue
        yield Prediction(source, image, _detect(detector, view, image, score, compute))


def _detect(detector: Detector, view: View, image: Image.Image, score: float, compute: Compute) -> dict[str, Tensor]:
    original = (image.height, image.width)
    frame_size = detector.spec.resolution.frame_size(*original)
    views = {k: [render(image, frame_size, k).to(compute.device)] for k in detector.spec.ks_of(view)}
    with compute.inference():
        found = detector.detect(views, view)[0]
    sure = found["scores"] >= score
    found = in_original({name: each[sure].float() for name, each in found.items()}, original, frame_size)
    return {**found, "labels": found["labels"].long()}
