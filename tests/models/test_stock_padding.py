"""A detector of the HR image alone pads to 32 pixels, as torchvision does: equal weights give equal detections."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.detectors import (
    ORDINARY,
    TORCHVISIONS,
    TWO_STAGES,
    images,
    lively,
    silence_background,
    spec_of,
    stock,
    targets,
)
from support.specs import assert_same, spec

from msad_cli.export.sidecar import InputShape
from msad_cli.export.trace import trace
from msad_cli.frame import DIVISOR, FRAME_DIVISOR, Frame, Resolution
from msad_cli.models.decode.deployed import Deployed
from msad_cli.models.detector import Detector
from msad_cli.models.detectors.kinds import DETECTORS
from msad_cli.models.spec import ClassName, DetectorSpec
from msad_cli.training.config import TeacherConfig
from msad_cli.training.defaults.machine import Network
from msad_cli.training.students.plan_student import student_spec as planned
from msad_cli.training.train_teacher import _spec

SIZES = (((132, 136),), ((132, 136), (132, 260)))
"""Of batches whose sides are padded to 160 and 288: no multiples of 64 or 128, so that P6 and P7 end in half cells."""


@pytest.fixture(scope="module", params=TORCHVISIONS)
def pair(request: pytest.FixtureRequest) -> tuple[Any, Detector]:
    """Torchvision's detector, which pads to 32, and the same weights under our roof."""
    torch.manual_seed(0)
    theirs = stock(request.param)
    lively(theirs)
    with torch.no_grad():  # the scales of its RoIs are those of the first frame that it meets
        theirs.eval()([image.float() / 255 for image in images(ORDINARY)])
    theirs.transform.size_divisible, theirs.transform.min_size = DIVISOR, (132,)
    convs = 4 if request.param == "retinanet" else 1
    kind = {"role": "baseline", "scales": "single", "ks": (1,), "norm": "batch", "divisor": DIVISOR}
    ours = Detector(spec_of(request.param, head_convs=convs, detections_per_image=10, **kind))
    ours.core.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


@pytest.mark.parametrize("sizes", SIZES, ids=["one", "several"])
@torch.no_grad()
def test_detections_are_torchvisions(pair: tuple[Any, Detector], sizes: tuple[tuple[int, int], ...]) -> None:
    theirs, ours = pair
    silence_background(theirs, ours.core)
    found = ours.eval().detect({1: images(sizes)}, "high")
    expected = theirs.eval()([image.float() / 255 for image in images(sizes)])
    for mine in found:
        mine.pop("masks", None)
    for other in expected:
        other.pop("masks", None)
    assert_same(found, expected)
    assert all(len(each["boxes"]) for each in found)


def test_losses_are_torchvisions(pair: tuple[Any, Detector]) -> None:
    theirs, ours = pair
    sizes = SIZES[1]
    if not hasattr(theirs, "rpn"):  # those of two stages draw samples
        expected = theirs.train()([image.float() / 255 for image in images(sizes)], targets(sizes))
        ours.train()
        found = ours.losses(ours.pyramid(images(sizes), 1), ours.frame(images(sizes), 1), targets(sizes))
        for name, loss in expected.items():
            torch.testing.assert_close(found[name], loss)


@torch.no_grad()
def test_a_graph_divides_sides_as_torchvision_does(pair: tuple[Any, Detector]) -> None:
    _, ours = pair
    network = Deployed(ours.eval(), "high").eval()
    seen = torch.stack(images((SIZES[0][0],) * 2))
    boxes = network(seen)[0]
    for row, each in zip(boxes, ours.detect({1: list(seen)}, "high"), strict=True):
        torch.testing.assert_close(row[: len(each["boxes"])], each["boxes"])


@pytest.mark.slow
@torch.no_grad()
def test_a_traced_graph_does_so_for_any_size(pair: tuple[Any, Detector]) -> None:
    network = Deployed(pair[1].eval(), "high").eval()
    graph = trace(network, InputShape()).module()
    other = torch.stack(images(((164, 200),)))
    torch.testing.assert_close(graph(other)[0], network(other)[0])


def test_who_pads_to_32(tmp_path: Path) -> None:
    """All but small images that are taken for ordinary ones: those of vanilla training, and of one small size."""
    fields = {"classes": (ClassName(1, "a"),)}

    def divisor(**asked: Any) -> int:
        config = TeacherConfig(out=tmp_path / "teacher.safetensors", **asked)
        network = Network("fcos", "resnet18", 1.0, 64, 4, 512, "none")
        ks = {"single": (int(asked.get("k", "1")),)}.get(config.scales, (1, 2))
        return _spec(config, network, ks, Resolution(64, 96), fields)[0].divisor

    assert divisor(scales="single") == divisor() == DIVISOR
    assert {divisor(scales="vanilla"), divisor(scales="single", k="2")} == {FRAME_DIVISOR}


def test_files_say_it_and_old_ones_keep_128(student_spec: DetectorSpec) -> None:
    single = replace(student_spec, role="baseline", scales="single", ks=(1,), divisor=DIVISOR)
    for each in (single, replace(student_spec, divisor=DIVISOR)):
        values = each.to_json()
        assert DetectorSpec.from_json(values) == each
        del values["divisor"]
        assert DetectorSpec.from_json(values).divisor == FRAME_DIVISOR
        for wrong in (0, 64, "32", 32.0):
            with pytest.raises((ValueError, TypeError)):
                DetectorSpec.from_json({**values, "divisor": wrong})
    with pytest.raises(ValueError, match="small images of 'single' scales need 128"):
        replace(single, ks=(2,))


def test_a_student_pads_as_its_teacher_and_an_unaligned_one_to_128() -> None:
    teacher = spec(divisor=DIVISOR)
    for aligned, expected in ((True, DIVISOR), (False, FRAME_DIVISOR)):
        found, _ = planned(teacher, None, {}, "none", "auto", aligned, False)
        assert found.divisor == expected
    assert planned(spec(), None, {}, "none", "auto", True, False)[0].divisor == FRAME_DIVISOR


@pytest.mark.parametrize("name", DETECTORS)
@torch.no_grad()
def test_views_share_grids_and_cells_whatever_the_size(name: str) -> None:
    """HR images of 132 × 260 and 164 × 228 pixels are padded to 160 × 288 and 192 × 256: P7 has 2 × 3 and 2 × 2 cells,
    of which some are parts. Torchvision would have them 80 and 96 pixels apart."""
    ks = (1, 2) if name in TWO_STAGES else (1, 2, 4)
    torch.manual_seed(0)
    detector = Detector(spec_of(name, ks=ks, divisor=DIVISOR)).eval()
    for height, width in ((132, 260), (164, 228)):
        frame = detector.frame([torch.zeros(3, height, width)], 1)
        expected = [
            (-(-frame.padded[0] // 2**level), -(-frame.padded[1] // 2**level)) for level in detector.spec.levels
        ]
        assert [frame.grid(level) for level in detector.spec.levels] == expected
        pyramids = [detector.pyramid(images(((height // k, width // k),)), k) for k in ks]
        for pyramid in (*pyramids, detector.fuse(pyramids)):
            assert [tuple(each.shape[2:]) for each in pyramid] == expected
        anchors = detector.kind.object_anchors(pyramids[0], frame)
        for level, each, (rows, columns) in zip(detector.spec.levels, anchors, expected, strict=True):
            middles = ((each[..., :2] + each[..., 2:]) / 2)[:, 0].view(rows, columns, 2)
            places = torch.stack(torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="xy"), dim=2)
            assert torch.equal(middles, places.float() * 2**level)


@pytest.mark.parametrize("name", DETECTORS)
@torch.no_grad()
def test_a_graph_of_an_aligned_view_has_the_detectors_cells(name: str) -> None:
    torch.manual_seed(0)
    detector = Detector(spec_of(name, role="student", ks=(2,), divisor=DIVISOR, detections_per_image=10)).eval()
    lively(detector.core)
    seen = torch.stack(images(((66, 130),) * 2))
    expected = detector.detect({2: list(seen)}, "low")
    for row, each in zip(Deployed(detector, "low")(seen)[0], expected, strict=True):
        assert len(each["boxes"]) == 10
        torch.testing.assert_close(2 * row, each["boxes"], rtol=1e-4, atol=1e-3)


def test_frames() -> None:
    assert Frame.around([(50, 64), (40, 130)], divisor=32).padded == (64, 160)
