"""Exported models: decoding against torchvision's, ONNX and .pt2 against eager, the files and their manners."""

import builtins
import contextlib
import functools
import importlib
import importlib.util
import io
import json
import pkgutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx import helper
from PIL import Image
from support import toy_format
from support.detectors import lively, spec_of
from support.documents import by_name, by_view, document
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints
from torchvision.ops import batched_nms

import msad_cli
from msad_cli import export
from msad_cli.cli.app import run
from msad_cli.data.layouts.demo import draw_demo
from msad_cli.data.layouts.demo_scenes import CATEGORY_IDS
from msad_cli.errors import ModelFileError
from msad_cli.export import onnx, openvino, pt2
from msad_cli.export.base import ExportFormat
from msad_cli.export.formats import FORMATS
from msad_cli.export.parity import COMPARED, TOLERANCES, compare, compare_models
from msad_cli.export.runtime import ExportedModel, open_model
from msad_cli.export.sidecar import InputShape, Notes, exported_spec, metadata, read_sidecar, sidecar, sidecar_path
from msad_cli.export.trace import trace
from msad_cli.frame import Frame, Letterbox, Resolution
from msad_cli.models.decode.deployed import Deployed
from msad_cli.models.decode.keypoints import keypoint_places
from msad_cli.models.decode.limits import Limits
from msad_cli.models.decode.nms import DROPPED, suppress, top
from msad_cli.models.detector import Detector
from msad_cli.models.detectors.anchors import anchors_by_cell, grid_anchors
from msad_cli.models.detectors.base import Detection
from msad_cli.models.detectors.kinds import DETECTORS
from msad_cli.models.model_file import Card, load_model, save_model
from msad_cli.models.spec import ClassName, View

LOWEST = 0.05
FLAGS = ["--device", "cpu", "--precision", "fp32"]
SIZES = dict.fromkeys(DETECTORS, (60, 100)) | {"keypointrcnn": (24, 28)}
"""(height, width) of what students see. An untrained heatmap is noise, whose highest pixel may lie far from its highest
cell; in HR images of 48 × 56 pixels every pixel of every box is looked at."""


def built(name: str, **changes: Any) -> Detector:
    torch.manual_seed(0)
    detector = Detector(spec_of(name, **{"role": "student", "ks": (2,), "detections_per_image": 10, **changes})).eval()
    lively(detector.core)
    return detector


def pixels(height: int, width: int, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def assert_found(found: list[Detection], expected: list[Detection]) -> None:
    """Equal but for rounding: the same labels, in the same order."""
    assert [len(each["labels"]) for each in found] == [10] * len(expected)
    for mine, other in zip(found, expected, strict=True):
        assert mine.keys() == other.keys()
        assert torch.equal(mine["labels"], other["labels"])
        for name in mine.keys() - {"labels"}:
            torch.testing.assert_close(mine[name], other[name], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize(
    ("changes", "view"),
    [
        ({}, "low"),
        ({"ks": (1,)}, "high"),
        ({"role": "teacher", "ks": (1, 2)}, "low"),
        ({"scales": "single"}, "low"),  # a student that takes the small image for an ordinary one
    ],
)
@torch.no_grad()
def test_the_network_to_export_finds_what_the_detector_finds(name: str, changes: dict[str, Any], view: View) -> None:
    detector = built(name, **changes)
    (k,) = detector.spec.ks_of(view)
    images = pixels(*SIZES[name])
    exported = ExportedModel(exported_spec(detector.spec, view), Deployed(detector, view))
    found = exported.detect({k: list(images)}, exported.spec.views[0])
    assert_found(found, detector.detect({k: list(images)}, view))


@torch.no_grad()
def test_boxes_are_in_pixels_of_the_input_and_the_rest_is_zero() -> None:
    """Half as large as in the HR frame, and no more than there are: a threshold of 1 leaves none."""
    detector = built("fcos")
    images = pixels(60, 100)
    expected = detector.detect({2: list(images)}, "low")
    boxes, scores, labels = Deployed(detector, "low")(images)
    torch.testing.assert_close(boxes, torch.stack([each["boxes"] for each in expected]) / 2)
    assert scores.shape == labels.shape == (2, 10)
    detector.core.score_thresh = 1.0
    for each in Deployed(detector, "low")(images):
        assert each.shape[:2] == (2, 10)
        assert not each.any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "batch"),
    [
        ("fcos", None),
        ("retinanet", None),
        ("rtmdet", None),
        ("reppoints", None),
        ("maskrcnn", None),
        ("cascade_maskrcnn", None),
        ("keypointrcnn", 2),
    ],
)
@torch.no_grad()
def test_onnx_finds_what_the_detector_finds_in_batches(
    name: str, batch: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any size, or of a fixed one that is filled up.

    To be faster, sides are fixed and the exporter fuses nothing; the tests of whole commands, of FCOS, have both.
    """
    monkeypatch.setattr(torch.onnx, "export", functools.partial(torch.onnx.export, optimize=False))
    # FCOS with groups is that of the tests of whole commands.
    detector = built(name, **({"norm": "batch", "head_norm": "batch"} if name == "fcos" else {}))
    shape = InputShape(batch, SIZES[name])
    model = onnx.write(trace(Deployed(detector, "low").eval(), shape), detector.spec.task)
    spec = exported_spec(detector.spec, "low", SIZES[name])
    exported = ExportedModel(spec, onnx.load(model, spec.task, "model", shape), shape)
    for count in (1, 3):
        images = list(pixels(*SIZES[name], count))
        assert_found(exported.detect({2: images}, "low"), detector.detect({2: images}, "low"))


@torch.no_grad()
def test_fixed_sides_pad_with_the_mean_and_a_fixed_batch_is_filled_up() -> None:
    """The mean times 255, rounded: (124, 116, 104) of ImageNet's. Batches of two of three images, whose rows of the
    fourth are nobody's."""
    detector = built("fcos")
    shape = InputShape(2, (64, 112))
    batches = []

    def run(batch: Tensor) -> Sequence[Tensor]:
        batches.append(batch)
        return network.forward(batch)

    network = Deployed(detector, "low")
    exported = ExportedModel(exported_spec(detector.spec, "low", shape.sides), run, shape)
    images = [*pixels(60, 100), *pixels(64, 30, 1)]
    found = exported.detect({2: images}, "low")
    assert [tuple(batch.shape) for batch in batches] == [(2, 3, 64, 112)] * 2
    assert torch.equal(batches[0][1, :, :60, :100], images[1])
    assert batches[0][:, :, 63, 0].tolist() == batches[0][:, :, 0, 111].tolist() == [[124, 116, 104]] * 2
    assert_found(found, detector.detect({2: [exported.padded(each) for each in images]}, "low"))


def test_images_fit_into_fixed_sides_by_hand() -> None:
    """200 × 100 into 64 × 96: 64 / 200 of it is 32 wide; upright, 96 / 200 of it is 48. By the ordinary rule, which
    does not know upright from lying, both are 96 × 48."""
    assert Letterbox(64, 96).frame_size(200, 100) == (64, 32)
    assert Letterbox(64, 96, upright=True).frame_size(200, 100) == (96, 48)
    assert Resolution(64, 96).frame_size(200, 100) == (96, 48)
    assert Letterbox(64, 96).frame_size(100, 200) == Resolution(64, 96).frame_size(100, 200) == (48, 96)


@pytest.mark.parametrize("groups", [3, 2000])
def test_suppression_is_that_of_each_image_and_group_by_itself(groups: int) -> None:
    """By torchvision's own loop over groups. In a row, the places of 2 · 2000 groups would reach 5e6, where float32
    steps by half a pixel; in a square they reach 1.2e5, where it steps by 1/128."""
    torch.manual_seed(0)
    corners = torch.rand(2, 1500, 2) * 100
    boxes = (64 * torch.cat([corners, corners + 5 + torch.rand(2, 1500, 2) * 60], dim=2)).round() / 64
    boxes[0, 0] = torch.tensor([1200.0, 1200.0, 1333.0, 1333.0])
    scores, labels = torch.rand(2, 1500), torch.randint(0, groups, (2, 1500))
    if groups > 3:
        labels = torch.arange(2).repeat(750).expand(2, -1) * (groups - 1)
    scores[:, ::7] = DROPPED
    kept = suppress(boxes, scores, labels, groups, 0.5, 1500) > DROPPED
    for i in range(2):
        rows = (scores[i] > DROPPED).nonzero()[:, 0]
        expected = rows[batched_nms(boxes[i, rows].double(), scores[i, rows].double(), labels[i, rows], 0.5)]
        assert torch.equal(kept[i].nonzero()[:, 0], expected.sort().values)


def test_top_of_a_short_row_by_hand() -> None:
    best, places = top(torch.tensor([[0.2, DROPPED, 0.5]]), 4)
    assert best.tolist() == [[pytest.approx(0.5), pytest.approx(0.2), DROPPED, DROPPED]]
    assert places.tolist()[0][:2] == [2, 0]
    assert places.max() <= 2


def test_anchors_are_torchvisions() -> None:
    generator = AnchorGenerator(((32, 40), (64, 80)), ((0.5, 1.0, 2.0),) * 2)
    maps = [torch.zeros(1, 1, 16, 32), torch.zeros(1, 1, 8, 16)]
    expected = anchors_by_cell(generator, maps, Frame(((128, 256),), (128, 256)))
    for level, (stride, grid) in enumerate(zip((8, 16), maps, strict=True)):
        assert torch.equal(grid_anchors(generator, level, (stride, stride), grid), expected[level].flatten(0, 1))


def test_keypoints_stand_where_torchvisions_loop_puts_them() -> None:
    """Boxes of less than a pixel, smaller than the heatmap, and larger than what is looked at around its top."""
    torch.manual_seed(0)
    sides = torch.tensor([[0.4, 0.3], [13.7, 40.2], [57.0, 56.5], [58.2, 300.7], [640.0, 900.1]])
    boxes = torch.cat([torch.full_like(sides, 3.25), sides + 3.25], dim=1)
    places = torch.arange(56.0)
    peaks = torch.rand(5, 4, 2) * 56
    peaks[0, 0], peaks[3, 0], peaks[4, 0] = 0.0, 55.9, 0.0  # corners, where cells beyond the edge are read
    apart = (places - peaks[..., :1])[:, :, None].square() + (places - peaks[..., 1:])[..., None].square()
    heatmaps = 5 * torch.exp(-apart / 8) + 0.05 * torch.randn(5, 4, 56, 56)
    found, logits = keypoint_places(heatmaps, boxes)
    expected, scores = heatmaps_to_keypoints(heatmaps, boxes)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(logits, scores, rtol=1e-4, atol=1e-4)


def test_parity_by_hand() -> None:
    """One of three has moved too far, which leaves two without a partner; next to the lowest score nobody is missed."""
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [20.0, 0.0, 40.0, 9.0], [0.0, 30.0, 9.0, 60.0]])
    one = {"boxes": boxes, "scores": torch.tensor([0.9, 0.6, 0.055]), "labels": torch.tensor([1, 2, 1])}
    near = {**one, "boxes": boxes + 0.25, "scores": one["scores"] - 0.005}
    parity = compare([one], [near], LOWEST, 100)
    assert (parity.detections, parity.unmatched, parity.holds) == (6, 0, True)
    assert parity.differences == {"boxes": pytest.approx(0.25), "scores": pytest.approx(0.005)}
    far = {**one, "boxes": boxes + torch.tensor([[0.0], [2 * TOLERANCES["boxes"]], [90.0]])}
    parity = compare([one], [far], LOWEST, 100)
    assert (parity.unmatched, parity.holds) == (2, False)
    other = {**one, "labels": torch.tensor([1, 1, 1])}
    assert compare([one], [other], LOWEST, 100).unmatched == 2


def test_where_nothing_is_found_nothing_is_proved() -> None:
    none = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    for nothing in ([], [none]):
        parity = compare(nothing, nothing, LOWEST, 100)
        assert (parity.images, parity.detections, parity.unmatched, parity.holds) == (len(nothing), 0, 0, False)


def test_images_are_looked_at_until_something_is_found() -> None:
    """A network that finds a box in what is not black."""

    def run(batch: Tensor) -> Sequence[Tensor]:
        light = batch.amax(dim=(1, 2, 3))[:, None] > 0
        return torch.tensor([0.0, 0.0, 8.0, 8.0]).expand(len(batch), 1, 4), 0.9 * light, light.long()

    model = ExportedModel(exported_spec(built("fcos").spec, "low"), run)
    black, light = (torch.full((3, 32, 32), value, dtype=torch.uint8) for value in (0, 9))
    parity = compare_models(model, "low", model, [black] * 40 + [light] * 9)
    assert (parity.images, parity.detections, parity.holds) == (41, 2, True)
    assert compare_models(model, "low", model, [light] * 40).images == COMPARED
    assert not compare_models(model, "low", model, [black] * 40).holds


def test_masks_and_keypoints_have_to_agree_too() -> None:
    one = {"boxes": torch.rand(1, 4), "scores": torch.rand(1) + 0.1, "labels": torch.ones(1, dtype=torch.int64)}
    for name, shape in (("masks", (1, 1, 28, 28)), ("keypoints", (1, 7, 3))):
        with_it = {**one, name: torch.zeros(shape)}
        off = {**one, name: torch.full(shape, 1.1 * TOLERANCES[name])}
        assert compare([with_it], [off], LOWEST, 100).unmatched == 2


def test_axes_are_called_by_name_and_the_file_says_what_it_is() -> None:
    """A graph with the sizes that torch counts: s3 images of s1 × s2, of which it finds as many as s1 // 8."""
    graph_of = pytest.importorskip("onnx.helper")
    kind = pytest.importorskip("onnx").TensorProto.FLOAT
    values = {
        "images": ["s3", 3, "s1", "s2"],
        "boxes": ["s3", "s1//8", 4],
        "map": ["s3", "s1//8 + s10", "2*s2", "s1//8"],
    }
    infos = {name: graph_of.make_tensor_value_info(name, kind, sizes) for name, sizes in values.items()}
    graph = graph_of.make_graph([], "g", [infos["images"]], [infos["boxes"]], value_info=[infos["map"]])
    onnx.name_axes(graph)
    found = {
        each.name: [axis.dim_param or axis.dim_value for axis in each.type.tensor_type.shape.dim]
        for each in (*graph.input, *graph.output, *graph.value_info)
    }
    assert found["images"] == ["batch", 3, "height", "width"]
    assert found["boxes"] == ["batch", "detections", 4]
    assert found["map"] == ["batch", "height//8 + s10", "2*width", "detections"]
    spec = exported_spec(built("fcos").spec, "low")
    notes = Notes(spec, Card(score_threshold=0.25), identity="abc")
    written = onnx.mark(graph_of.make_model(graph).SerializeToString(), metadata(notes))
    texts = {each.key: each.value for each in pytest.importorskip("onnx").load_from_string(written).metadata_props}
    assert texts == {
        "msad": "abc",
        "version": msad_cli.__version__,
        "task": "boxes",
        "classes": '{"1": "seven", "2": "ninety"}',
        "category_ids": '{"1": 7, "2": 90}',
        "score_threshold": "0.25",
        "hr_short_side": "128",
        "hr_long_side": "256",
        "k": "2",
    }


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "demo"
    draw_demo(folder, train=4, val=3, seed=1, size=(128, 96))
    return folder


def of_demo() -> Detector:
    classes = tuple(ClassName(number, name) for name, number in CATEGORY_IDS.items())
    return built("fcos", classes=classes, phase="grid")


@pytest.fixture(scope="module")
def student(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FCOS student of the demo set's classes, untrained, which finds things of score ~0.3."""
    detector = of_demo()
    nn.init.normal_(detector.core.head.classification_head.cls_logits.weight, std=0.2)
    nn.init.constant_(detector.core.head.classification_head.cls_logits.bias, -2.0)
    path = tmp_path_factory.mktemp("model") / "student.safetensors"
    save_model(path, detector, Card(data=str(demo), score_threshold=0.07))
    return path


def assert_the_example_finds(found: list[dict[str, Any]], model: Path, image: Path, notes: dict[str, Any]) -> None:
    """examples/onnx_in_20_lines.py, which can import neither torch nor msad, prints what `msad predict` found."""
    example = Path(__file__).parents[2] / "examples" / "onnx_in_20_lines.py"
    alone = "import runpy, sys; sys.modules |= dict.fromkeys(['torch', 'msad_cli']); runpy.run_path(sys.argv.pop(1))"
    command = [sys.executable, "-c", alone, str(example), str(model), str(image)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    names = {each["id"]: each["name"] for each in notes["classes"]}
    expected = [each for each in found if each["file_name"] == image.name]
    printed = [line.rsplit(maxsplit=5) for line in done.stdout.splitlines()]
    assert [name for name, *_ in printed] == [names[each["category_id"]] for each in expected]
    for (_, *numbers), each in zip(printed, expected, strict=True):
        x, y, width, height = each["bbox"]
        # One and three digits are printed of pixels and scores.
        assert [float(number) for number in numbers[1:]] == pytest.approx([x, y, x + width, y + height], abs=0.06)
        assert float(numbers[0]) == pytest.approx(each["score"], abs=0.0006)


@dataclass(frozen=True)
class Exported:
    """What one `msad export --int8` wrote and said, and the bytes of its graph in float32, from its one trace."""

    path: Path
    said: str
    onnx: bytes
    pt2: bytes


@pytest.fixture(scope="module")
def exported(student: Path, demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    path = tmp_path_factory.mktemp("exported") / "small.onnx"
    kept: dict[str, bytes] = {}

    def keep(program: Any, task: str) -> bytes:
        kept["pt2"] = pt2.write(program, task)
        return kept.setdefault("onnx", onnx.write(program, task))

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as said:
        patch.setitem(FORMATS, "onnx", replace(onnx.FORMAT, write=keep))
        assert run(["export", str(student), "-o", str(path), "--int8", "--data", str(demo)]) == 0
    return Exported(path, said.getvalue(), **kept)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "pt2"])
@torch.no_grad()
def test_a_graph_finds_what_the_detector_finds_in_batches_and_images_of_any_size(
    form: str, student: Path, exported: Exported
) -> None:
    detector, _ = load_model(student)
    network = FORMATS[form].load(getattr(exported, form), "boxes", "m", InputShape(), "")
    graph = ExportedModel(detector.spec, network)
    images = [*pixels(60, 100), *pixels(130, 66, 3), *pixels(32, 32, 1)]
    assert_found(graph.detect({2: images}, "low"), [detector.detect({2: [each]}, "low")[0] for each in images])


@torch.no_grad()
def test_a_graph_answers_an_image_in_which_it_finds_nothing() -> None:
    """Torchvision tells an exporter that suppression leaves two boxes at least; a blank wall has none."""
    detector = built("fcos")
    nn.init.zeros_(detector.core.head.classification_head.cls_logits.weight)
    nn.init.constant_(detector.core.head.classification_head.cls_logits.bias, -20.0)
    shape = InputShape(1, (64, 64))
    network = pt2.load(pt2.write(trace(Deployed(detector, "low").eval(), shape), "boxes"), "boxes", "m", shape, "")
    boxes, scores, labels = network(pixels(64, 64, 1))
    assert (boxes.shape, scores.shape, labels.shape) == ((1, 10, 4), (1, 10), (1, 10))
    assert not any(each.any() for each in (boxes, scores, labels))


@pytest.mark.slow
def test_export_eval_bench_and_predict(
    exported: Exported, student: Path, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = exported.path
    assert "0 without a partner" in exported.said
    assert "8 bits cost" in exported.said
    assert sorted(each.name for each in out.parent.iterdir()) == ["small.onnx", "small.onnx.json"]

    values = json.loads(sidecar_path(out).read_text())
    assert values["precision"] == "int8"
    assert values["input"]["shape"] == ["batch", 3, "height", "width"]
    assert values["preprocessing"]["k"] == 2
    assert values["preprocessing"]["shift"] == 0.25  # of the low view's pixels: half an HR pixel at k = 2
    assert [each["id"] for each in values["classes"]] == sorted(each["id"] for each in values["classes"])
    assert list(values["outputs"]) == ["boxes", "scores", "labels"]

    assert run(["eval", str(out), "--json", "--workers", "0", *FLAGS]) == 0
    assert list(by_view(capsys.readouterr().out)) == ["low"]
    assert run(["bench", str(student), str(out), "--runs", "1", "--json", *FLAGS]) == 0
    timed = list(by_name(capsys.readouterr().out))
    assert timed == [str(student), str(out), *([f"{out}, openvino"] if importlib.util.find_spec("openvino") else [])]
    folder, image = tmp_path / "seen", tmp_path / "small.png"
    # Of half the HR size, 192 × 128, and so seen as it is: msad and the example resize others with different kernels.
    Image.open(next((demo / "val2017").iterdir())).resize((96, 64)).save(image)
    flags = ["--save", "json", "--per-class-nms", *FLAGS]  # which a graph without --agnostic has, and so the example
    assert run(["predict", str(image), "-m", str(out), "-o", str(folder), *flags]) == 0
    found = json.loads((folder / "predictions.json").read_text())
    assert found
    assert {each["category_id"] for each in found} <= {each["id"] for each in values["classes"]}
    assert_the_example_finds(found, out, image, values)

    assert run(["export", str(student), "-o", str(out)]) == 2
    assert f"{out} exists" in capsys.readouterr().err


@pytest.mark.slow
def test_info_compare_and_flops_of_an_exported_model(
    exported: Exported, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its AP is that of 8 bits, as eval measures it, and not that of the model, whose card has none."""
    out = str(exported.path)
    assert run(["eval", out, "--json", "--workers", "0", *FLAGS]) == 0
    measured = by_view(capsys.readouterr().out)["low"]["scores"]["AP"]
    assert run(["info", out, "--json"]) == 0
    said = document(capsys.readouterr().out)
    assert (said["card"]["format"], said["card"]["precision"]) == ("msad-export/1", "int8")
    assert said["card"]["input"] == ["batch", 3, "height", "width"]
    assert said["best"]["scores"]["AP"] == measured

    image = tmp_path / "pareto.png"
    assert run(["compare", str(student), out, "--runs", "1", "--plot", str(image), "--json", *FLAGS]) == 0
    rows = by_name(capsys.readouterr().out)
    assert list(rows) == ["student", "small"]
    assert [row["scores"]["AP"] for row in rows.values()] == [None, measured]
    assert rows["student"]["macs"] == rows["small"]["macs"]
    assert rows["small"]["latency_ms"]["p50"] > 0
    assert image.exists()

    reports = []
    for model in (str(student), out):
        assert run(["flops", model, "--json"]) == 0
        reports.append([each["macs"] for each in by_name(capsys.readouterr().out).values()])
    assert reports[0] == reports[1]


@pytest.mark.slow
def test_info_of_an_exported_model_imports_no_torch(exported: Exported) -> None:
    program = (
        "import sys; from msad_cli.cli.app import run; assert run(sys.argv[1:]) == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, "info", str(exported.path)], check=True, capture_output=True)


def test_fixed_sides_and_batch(student: Path, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo set's images of 96 × 128 stand upright in 64 × 48, all of which the padding is not."""
    out = tmp_path / "fixed.onnx"
    flags = ["--fixed", "72,48", "--batch", "2", "--data", str(demo)]
    assert run(["export", str(student), "-o", str(out), *flags]) == 0
    said = capsys.readouterr().err
    assert "0 without a partner" in said
    assert "sides 72,48 cost" in said
    values = json.loads(sidecar_path(out).read_text())
    assert values["input"]["shape"] == [2, 3, 72, 48]
    assert values["preprocessing"]["pad_colour"] == [124, 116, 104]
    assert (values["spec"]["resolution"]["short_side"], values["spec"]["resolution"]["long_side"]) == (96, 144)

    assert run(["eval", str(out), "--json", "--workers", "0", *FLAGS]) == 0
    measured = by_view(capsys.readouterr().out)["low"]["scores"]["AP"]
    assert run(["info", str(out), "--json"]) == 0
    assert by_view(capsys.readouterr().out)["low"]["scores"]["AP"] == measured
    assert run(["eval", str(out), "--json", "--workers", "0", "--runtime", "openvino", *FLAGS]) == 0
    assert by_view(capsys.readouterr().out)["low"]["scores"]["AP"] == pytest.approx(measured, abs=1e-3)
    assert run(["eval", str(student), "--runtime", "openvino"]) == 2
    assert "--runtime openvino: nothing that runs student.safetensors" in capsys.readouterr().err
    assert run(["bench", str(out), "--runs", "1", "--json", "--runtime", "openvino", *FLAGS]) == 0
    capsys.readouterr()
    assert run(["eval", str(out), "--size", "100,100", "--workers", "0", *FLAGS]) == 2
    assert "--size 100,100: this model's sides are fixed" in capsys.readouterr().err

    notes = read_sidecar(sidecar_path(out))
    sidecar_path(out).write_text(sidecar(replace(notes, identity="another")))
    assert run(["eval", str(out)]) == 4
    assert "the JSON beside it is that of another model" in capsys.readouterr().err
    assert run(["eval", str(out), "--runtime", "openvino"]) == 4
    assert "the JSON beside it is that of another model" in capsys.readouterr().err
    sidecar_path(out).write_text(sidecar(replace(notes, shape=InputShape(1, (72, 48)))))
    assert run(["eval", str(out)]) == 4
    assert "its input is [2, 3, 72, 48], the JSON beside it says [1, 3, 72, 48]" in capsys.readouterr().err
    assert run(["eval", str(out), "--runtime", "openvino"]) == 4
    assert "its input is [2, 3, 72, 48], the JSON beside it says [1, 3, 72, 48]" in capsys.readouterr().err


def test_an_operation_that_openvino_has_not_is_named() -> None:
    """RepPoints' deformable convolution, which onnxruntime has."""
    sides = {"images": [1, 4, 8, 8], "weight": [4, 4, 3, 3], "offset": [1, 18, 6, 6]}
    places = [helper.make_tensor_value_info(name, 1, each) for name, each in sides.items()]
    node = helper.make_node("DeformConv", list(sides), ["boxes"])
    graph = helper.make_graph([node], "one", places, [helper.make_tensor_value_info("boxes", 1, [1, 4, 6, 6])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9).SerializeToString()
    with pytest.raises(ModelFileError, match=r"openvino cannot run it \(No conversion rule found for .* DeformConv"):
        openvino.load(model, "boxes", "r.onnx", InputShape())
    with pytest.raises(ModelFileError, match="that of another model"):  # it runs, and has other inputs
        onnx.load(model, "boxes", "r.onnx", InputShape())


def test_past_the_tolerance_nothing_is_written(
    student: Path, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object) -> Any:
        return lambda images: [torch.ones(len(images), 10, *of) for of in ((4,), (), ())]

    monkeypatch.setattr("msad_cli.export.trace.trace", lambda *_: None)
    monkeypatch.setitem(FORMATS, "pt2", replace(pt2.FORMAT, write=lambda *_: b"graph", load=wrong))
    assert run(["export", str(student), "-o", str(tmp_path / "m.pt2"), "--data", str(demo)]) == 8
    assert "nothing was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_nothing_can_be_written_is_named_before_the_work(
    student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("msad_cli.export.trace.trace", lambda *_: pytest.fail("it was traced"))
    assert run(["export", str(student), "-o", str(tmp_path / "file" / "m.onnx")]) == 2
    assert f"cannot write {tmp_path / 'file' / 'm.onnx'}" in capsys.readouterr().err


@pytest.mark.parametrize("unfinished", [True, False])
def test_a_model_whose_training_still_runs_is_named(
    unfinished: bool, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "student.safetensors"
    save_model(path, of_demo(), Card(data=str(demo), epochs=2, unfinished=unfinished))
    monkeypatch.setattr("msad_cli.export.trace.trace", lambda *_: None)
    nothing = [torch.zeros(1, 10, *of) for of in ((4,), (), ())]
    toy = replace(pt2.FORMAT, write=lambda *_: b"graph", load=lambda *_: lambda _: nothing)
    monkeypatch.setitem(FORMATS, "pt2", toy)
    run(["export", str(path), "--format", "pt2"])
    words = " ".join(capsys.readouterr().err.split())
    assert ("; epoch 2 of a run that was not at its end: export again once it is" in words) == unfinished


def test_a_model_that_finds_nothing_is_not_exported(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "student.safetensors"
    detector = of_demo()
    nn.init.constant_(detector.core.head.classification_head.cls_logits.bias, -20.0)
    nn.init.zeros_(detector.core.head.classification_head.cls_logits.weight)
    save_model(path, detector, Card())
    nothing = [torch.zeros(1, 10, *of) for of in ((4,), (), ())]
    monkeypatch.setattr("msad_cli.export.trace.trace", lambda *_: None)
    toy = replace(pt2.FORMAT, write=lambda *_: b"graph", load=lambda *_: lambda _: nothing)
    monkeypatch.setitem(FORMATS, "pt2", toy)
    assert run(["export", str(path), "--format", "pt2", "--data", str(demo)]) == 8
    assert "in 3 images neither msad nor pt2 finds anything, so that nothing is compared" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]
    # Images of the set that it learnt from may hold something; here they are the same ones.
    save_model(path, detector, Card(data=str(demo)))
    assert run(["export", str(path), "--format", "pt2", "--data", str(demo)]) == 8
    assert "in 6 images" in capsys.readouterr().err
    # Without another one, its own set is taken; drawn images of another world might saturate its scores.
    assert run(["export", str(path), "--format", "pt2"]) == 8
    assert "in 3 images" in capsys.readouterr().err


def test_every_format_is_in_the_table_by_its_name() -> None:
    files = [
        importlib.import_module(f"{export.__name__}.{each.name}") for each in pkgutil.iter_modules(export.__path__)
    ]
    rows = [row for file in files if isinstance(row := vars(file).get("FORMAT"), ExportFormat)]
    assert list(FORMATS.values()) == rows
    assert [each.name for each in rows] == list(FORMATS)


@pytest.mark.slow
def test_a_new_format_is_a_file_and_a_line(
    student: Path, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written, checked, and read back by every command that takes exported models."""
    out = tmp_path / "m.toy"
    assert run(["export", str(student), "-o", str(out)]) == 2
    assert "it writes onnx and pt2" in capsys.readouterr().err
    monkeypatch.setitem(FORMATS, "toy", toy_format.FORMAT)
    assert run(["export", str(student), "-o", str(out), "--fixed", "72,48", "--data", str(demo)]) == 0
    said = capsys.readouterr().err
    assert "toy against msad: " in said
    assert "0 without a partner" in said
    assert f"next: msad eval {out}" in said
    assert sorted(each.name for each in tmp_path.iterdir()) == ["m.toy", "m.toy.json"]

    assert run(["info", str(out), "--json"]) == 0
    remembered = by_view(capsys.readouterr().out)["low"]["scores"]["AP"]
    assert run(["eval", str(out), "--json", "--workers", "0", *FLAGS]) == 0
    assert by_view(capsys.readouterr().out)["low"]["scores"]["AP"] == remembered
    folder, image = tmp_path / "seen", next((demo / "val2017").iterdir())
    assert run(["predict", str(image), "-m", str(out), "-o", str(folder), "--save", "json", *FLAGS]) == 0
    assert json.loads((folder / "predictions.json").read_text())
    assert run(["export", str(student), "--format", "toy", "--int8"]) == 2
    assert "--int8 --format toy: not a format with 8 bits" in capsys.readouterr().err
    assert run(["export", str(out)]) == 4
    assert "exported already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format", "tflite"], "--format tflite: not a format that msad writes"),
        (["-o", "m.engine"], "--out m.engine: not a format that msad writes"),
        (["-o", "m.onnx", "--format", "pt2"], "--out m.onnx: not the name of an .pt2 file"),
        (["--format", "pt2", "--int8"], "not a format with 8 bits"),
        (["--view", "high"], "--view high"),
        (["--fixed", "64"], "--fixed 64: not two numbers"),
        (["--fixed", "64,x"], "--fixed 64,x: not two numbers"),
        (["--fixed", "64,8"], "--fixed 64,8: size 16,128"),
        (["--fixed", "63,64"], "--fixed 63,64: not multiples of 2"),
        (["--batch", "0"], "--batch"),
    ],
)
def test_wrong_flags(student: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", str(student), *flags]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "\n\nhint: " in err


def test_a_teacher_needs_a_view_and_a_fused_one_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "teacher.safetensors"
    save_model(path, built("fcos", role="teacher", ks=(1, 2)), Card())
    for flags in ([], ["--view", "fused"]):
        assert run(["export", str(path), *flags]) == 2
        err = capsys.readouterr().err
        assert "a graph of several images is not exported" in err
        assert "--view high|low" in err


def test_without_the_extra(student: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    find, load = importlib.util.find_spec, builtins.__import__

    def gone(name: str, *more: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return load(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    assert run(["export", str(student)]) == 2
    assert (
        capsys.readouterr().err
        == "error: onnxscript is not installed\n\nhint: pip install '.[export]' in the clone of msad\n"
    )
    path = student.with_name("m.onnx")
    path.write_bytes(b"graph")
    model, card = open_model(student)
    sidecar_path(path).write_text(sidecar(Notes(model.spec, card)))
    monkeypatch.setattr(builtins, "__import__", gone)
    assert run(["eval", str(path)]) == 2
    assert "onnxruntime is not installed" in capsys.readouterr().err


def test_the_sidecar_comes_back_whole_and_damaged_ones_are_refused(
    student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, card = open_model(student)
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no graph")
    assert run(["eval", str(path)]) == 4
    assert "m.onnx needs it beside it" in capsys.readouterr().err
    notes = Notes(
        exported_spec(model.spec, "low", (72, 48)), card, "int8", InputShape(2, (72, 48)), "abc", Limits(0.2, 300, True)
    )
    text = sidecar(notes)
    sidecar_path(path).write_text(text)
    assert read_sidecar(sidecar_path(path)) == notes
    assert run(["eval", str(path)]) == 4
    assert "onnxruntime cannot run it" in capsys.readouterr().err
    others = [("msad-export/1", "msad-export/9"), ('"fcos"', '"yolo"'), ('"short_side": 96', '"short_side": 80')]
    others += [('"shape": [\n   2', f'"shape": [\n   {each}') for each in ("0", '"many"', "[2]", "2,\n  2")]
    for damaged in (text[:-9], "[]", *(text.replace(*each) for each in others)):
        assert damaged != text
        sidecar_path(path).write_text(damaged)
        assert run(["eval", str(path)]) == 4
        assert "not what msad export writes" in capsys.readouterr().err
    assert run(["export", str(path)]) == 4
    assert "exported already" in capsys.readouterr().err
    for command in ("info", "flops", "compare"):
        assert run([command, str(path)]) == 4
        assert "not what msad export writes" in capsys.readouterr().err
    assert run(["eval", str(path.with_suffix(".pt2"))]) == 4
    assert "a .pt2 file is not run" in capsys.readouterr().err
    assert run(["eval", str(tmp_path / "gone.onnx")]) == 4
    assert "no such model file" in capsys.readouterr().err
