"""`msad predict --tile`: where tiles lie, and that an object that several of them see is found once, whole."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from msad_cli.cli.app import run
from msad_cli.export.sidecar import exported_spec
from msad_cli.frame import Resolution
from msad_cli.inference.inputs import Input
from msad_cli.inference.predictor import Prediction, Wanted
from msad_cli.inference.tiles import predict_tiled, tile_corners
from msad_cli.models.spec import DetectorSpec
from msad_cli.system.device import Compute

CPU = Compute(torch.device("cpu"), "fp32")


def test_tiles_by_hand() -> None:
    """100 pixels in tiles of 40 with a quarter shared: 40 + 2 · 30. 90 × 30 has a row, whose height is the image's."""
    assert [each[:1] for each in tile_corners(100, 40, 40, 0.25)] == [(0,), (30,), (60,)]
    assert tile_corners(90, 30, 60, 0.5) == [(0, 0, 60, 30), (30, 0, 90, 30)]
    assert tile_corners(50, 30, 60, 0.2) == [(0, 0, 50, 30)]
    assert tile_corners(100, 100, 60, 0.0) == [(0, 0, 60, 60), (40, 0, 100, 60), (0, 40, 60, 100), (40, 40, 100, 100)]


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("size", [(641, 100), (1000, 999), (64, 64), (65, 640)])
def test_tiles_cover_all_and_share_enough(size: tuple[int, int], overlap: float) -> None:
    width, height = size
    tiles = tile_corners(width, height, 64, overlap)
    seen = torch.zeros(height, width, dtype=torch.bool)
    for x0, y0, x1, y1 in tiles:
        seen[y0:y1, x0:x1] = True
    assert bool(seen.all())
    columns = sorted({x0 for x0, *_ in tiles})
    assert all(there - here <= 64 * (1 - overlap) + 1 for here, there in itertools.pairwise(columns))


class Seeing:
    """A model that finds the reddest and the bluest rectangle of an image, where they have 6 pixels of its view."""

    def __init__(self, spec: DetectorSpec) -> None:
        self.spec = spec
        self.resolution = spec.resolution
        self.looks = 0

    def detect(self, views: dict[int, Sequence[Tensor]], view: str) -> list[dict[str, Tensor]]:
        return [self._found(each) for each in views[1]]

    def _found(self, image: Tensor) -> dict[str, Tensor]:
        self.looks += 1
        rows = []
        for label, channel in ((1, 0), (2, 2)):
            there = (image[channel].int() - image[1].int()) > 100
            ys, xs = there.nonzero().unbind(1)
            if len(ys) > 6:
                rows.append((label, [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], 0.5 + len(ys) / 1e6))
        return {
            "boxes": torch.tensor([box for _, box, _ in rows], dtype=torch.float32).reshape(-1, 4),
            "scores": torch.tensor([score for *_, score in rows]),
            "labels": torch.tensor([label for label, *_ in rows], dtype=torch.int64),
        }


RED, BLUE = (8, 300, 20, 312), (250, 100, 330, 180)


def test_an_object_that_several_tiles_see_is_found_once_and_whole(student_spec: DetectorSpec) -> None:
    """A blue one of 80 pixels lies over the edges of tiles of 160, which see parts of it beside the whole; a red one of
    12 pixels is too small in an image of 640 that the model sees at 160."""
    image = Image.new("RGB", (640, 640), (120, 120, 120))
    pen = ImageDraw.Draw(image)
    for (x0, y0, x1, y1), colour in ((RED, (250, 0, 0)), (BLUE, (0, 0, 250))):
        pen.rectangle((x0, y0, x1 - 1, y1 - 1), fill=colour)
    spec = replace(exported_spec(student_spec, "low"), ks=(1,), resolution=Resolution(160, 160))
    model = Seeing(spec)
    inputs = [Input(Path("a.png"), Path("a.png"), image)]
    (found,) = predict_tiled(model, "high", inputs, Wanted(0.1), CPU, 1, 160, 0.2)  # type: ignore[arg-type]
    assert model.looks == 1 + 25  # (640 - 160) / 128 = 3.75: five tiles each way
    assert isinstance(found, Prediction)
    assert sorted(found.found["labels"].tolist()) == [1, 2]
    boxes = dict(zip(found.found["labels"].tolist(), found.found["boxes"], strict=True))
    assert boxes[1].tolist() == pytest.approx(RED, abs=1)
    assert boxes[2].tolist() == pytest.approx(BLUE, abs=5)  # seen whole by none but the whole, at a quarter


def test_a_video_has_no_tiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").touch()
    assert run(["predict", str(tmp_path / "a.mp4"), "--tile", "320"]) == 2
    assert "is a video" in capsys.readouterr().err
