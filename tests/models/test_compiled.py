"""--compile: the numbers of the run without it but for rounding, the names of its file, and few compilations."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.documents import by_name
from torch import Tensor, nn

from msad_cli.cli.app import run
from msad_cli.distillation.aligned_teacher import AlignedTraining
from msad_cli.distillation.distillation import Distillation
from msad_cli.models.compiled import compile_parts
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, load_model, save_model
from msad_cli.models.spec import DetectorSpec

# Tracing looks at the gradient of what one compiled part hands to the next.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
CPU = torch.device("cpu")


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What torch would compile from now on; it runs as it is, traced, without a compiler."""
    seen: list[Any] = []
    compile_module = nn.Module.compile

    def backend(graph: Any, _inputs: Any) -> Callable[..., Any]:
        seen.append(graph)
        return graph.forward  # type: ignore[no-any-return]

    monkeypatch.setattr(nn.Module, "compile", lambda module: compile_module(module, backend=backend))
    monkeypatch.setattr("msad_cli.models.compiled.refuse_without_compiler", lambda device: None)
    torch._dynamo.reset()
    return seen


def _batch(heights: int, widths: int, images: int = 2) -> tuple[dict[int, list[Tensor]], list[dict[str, Tensor]]]:
    generator = torch.Generator().manual_seed(heights + widths)
    high = [torch.randint(0, 256, (3, heights, widths), dtype=torch.uint8, generator=generator)] * images
    target = {"boxes": torch.tensor([[8.0, 8.0, 60.0, 50.0]]), "labels": torch.tensor([1])}
    return {1: high, 2: [image[:, ::2, ::2] for image in high]}, [target] * images


def _numbers(student: Detector) -> dict[str, list[Tensor]]:
    views, targets = _batch(96, 128)
    losses = Distillation(student, None, {}).train()(views, targets)
    torch.stack(list(losses.values())).sum().backward()
    with torch.inference_mode():
        found = student.eval().detect(views, "low")
    gradients = [each.grad for each in student.parameters() if each.grad is not None]
    detections = [value for each in found for value in each.values()]
    return {"losses": list(losses.values()), "gradients": gradients, "detections": detections}


@pytest.mark.slow
def test_compiled_equals_eager(student: Detector) -> None:
    """By the real compiler, but for the rounding of float32's sums."""
    compiled = copy.deepcopy(student)
    compile_parts([compiled], CPU)
    found, expected = _numbers(compiled), _numbers(student)
    assert len(expected["gradients"]) > 40
    assert all(len(each) for each in expected["detections"])
    for name, values in expected.items():
        for one, other in zip(found[name], values, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [{}, *(pytest.param(each, marks=pytest.mark.slow) for each in ({"norm": "batch"}, {"detector": "maskrcnn"}))],
    ids=str,
)
def test_traced_equals_eager(teacher_spec: DetectorSpec, graphs: list[Any], changed: dict[str, Any]) -> None:
    torch.manual_seed(0)
    eager = Detector(replace(teacher_spec, **changed))
    compiled = copy.deepcopy(eager)
    compile_parts([compiled], CPU)
    assert list(compiled.state_dict()) == list(eager.state_dict())
    high, low = torch.rand(1, 3, 128, 128), torch.rand(1, 3, 64, 128)
    for k, pixels in ((1, high), (2, low), (1, high)):
        for one, other in zip(
            compiled.backbone(k).pyramid(pixels, k), eager.backbone(k).pyramid(pixels, k), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert graphs


@pytest.mark.slow
def test_sizes_do_not_compile_anew(teacher: Detector, graphs: list[Any]) -> None:
    """A graph for the first size, one for all others, and perhaps one for squares; of each view, and of the head, which
    serves them and their fusion.
    """
    compile_parts([teacher], CPU)
    module, counts = AlignedTraining(teacher), []
    for height, width in ((96, 128), (160, 100), (100, 200), (256, 256), (120, 300), (390, 130)):
        module.train()(*_batch(height, width))
        counts.append(len(graphs))
    assert counts[0] == 3
    assert counts[-1] <= 3 * 3
    assert counts[3:] == [counts[-1]] * 3


@pytest.mark.slow
def test_the_file_has_the_usual_names(tmp_path: Path, teacher: Detector, graphs: list[Any]) -> None:
    """A copy, which averaged weights are, is not compiled."""
    before = list(teacher.state_dict())
    compile_parts([teacher], CPU)
    views, targets = _batch(96, 128)
    AlignedTraining(teacher)(views, targets)
    assert graphs
    save_model(tmp_path / "t.safetensors", teacher, Card())
    assert list(load_model(tmp_path / "t.safetensors")[0].state_dict()) == before
    graphs.clear()
    copy.deepcopy(teacher).detect(views, "fused")
    assert not graphs


@pytest.mark.slow
def test_the_commands_know_it(
    tmp_path: Path, coco_folder: Path, graphs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = ["--init", "none", "--backbone", "resnet18", "--width", "0.25", "--head-channels", "64", "--head-convs", "1"]
    short = ["--epochs", "1", "--batch", "2", "--device", "cpu", "--precision", "fp32", "--workers", "0", "--compile"]
    teacher, student = str(tmp_path / "t.safetensors"), str(tmp_path / "s.safetensors")
    command = ["teacher", "--data", str(coco_folder), "--size", "64,96", *tiny, *short, "--out", teacher]
    for arguments in (
        command,
        ["distill", "--teacher", teacher, *short, "--out", student],
        ["predict", str(coco_folder / "val2017"), "-m", student, "--compile", "-o", str(tmp_path / "out")],
        ["bench", student, "--compile", "--runs", "1", "--device", "cpu", "--json"],
    ):
        graphs.clear()
        capsys.readouterr()
        torch._dynamo.reset()  # what was compiled for one model serves others like it
        assert run(arguments) == 0
        assert graphs
    assert list(by_name(capsys.readouterr().out)) == [student, f"{student}, compiled"]


def test_a_machine_that_cannot_compile_is_told_so(
    tmp_path: Path,
    student: Detector,
    coco_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nmore")

    monkeypatch.setattr(torch, "compile", fails)
    save_model(tmp_path / "s.safetensors", student, Card())
    image = str(coco_folder / "val2017" / "a.png")
    assert run(["predict", image, "-m", str(tmp_path / "s.safetensors"), "--compile", "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert "cannot compile for cpu here (InvalidCxxCompiler: No working C++ compiler found)" in error
    assert "leave --compile away" in error
