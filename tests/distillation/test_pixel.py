"""Pixel Distillation: the altered assistant, the input layer's loss, the two stages and what interrupts them."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from support.documents import by_name
from support.flags import EXACT, SMALLEST
from support.specs import spec
from support.training import TARGETS, detectors, total, views
from support.unaligned import odd_views, unaligned
from torch import Tensor

from msad_cli.cli.app import run
from msad_cli.data.layouts.demo import draw_demo
from msad_cli.distillation.distillation import Distillation
from msad_cli.distillation.knowledge import Knowledge, best_view, student_view
from msad_cli.distillation.losses.isrd import ISRD
from msad_cli.distillation.losses.table import build_distillers
from msad_cli.distillation.pixel import AFP, AlteredAssistant, PixelDistillation
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import load_model, read_header
from msad_cli.runs.folder import assistant_file

SHORT = ["--batch=2", "--epochs=2", *EXACT]


def assistant(**changes: Any) -> Detector:
    torch.manual_seed(2)
    return Detector(spec(role="student", ks=(1,), **changes))


# --- the assistant ---


@pytest.mark.parametrize("afp", ["shift", "resize"])
@pytest.mark.parametrize("detector", ["fcos", "retinanet", "maskrcnn"])
@torch.no_grad()
def test_the_assistant_gets_the_grids_of_its_student(detector: str, afp: AFP) -> None:
    images = odd_views()
    student = Detector(spec(role="student", scales="single", ks=(2,), detector=detector))
    own, _ = student_view(student, images, [])
    altered = AlteredAssistant(assistant(detector=detector), 2, afp)(images)
    assert [each.shape for each in altered.pyramid] == [each.shape for each in own.pyramid]
    assert altered.frame == own.frame
    if detector != "maskrcnn":
        assert {name: each.shape for name, each in altered.outputs.items()} == {
            name: each.shape for name, each in own.outputs.items()
        }


@torch.no_grad()
def test_shift_leaves_out_the_finest_levels_and_adds_coarser_ones() -> None:
    images = views() | {4: [image[:, ::4, ::4].contiguous() for image in views()[1]]}
    twin = assistant()
    altered = AlteredAssistant(twin, 4, "shift")
    whole, found = best_view(twin, images, 512).pyramid, altered(images).pyramid
    for mine, same in zip(found, whole[2:], strict=False):
        assert torch.equal(mine, same)
    p8 = altered.coarser[0](F.relu(whole[-1]))
    assert torch.equal(found[3], p8)
    assert torch.equal(found[4], altered.coarser[1](F.relu(p8)))
    # Two stages: P6 of the small image is every second cell of its P5, as in torchvision.
    pooled = AlteredAssistant(assistant(detector="maskrcnn"), 2, "shift")
    pyramid = pooled(images).pyramid
    assert torch.equal(pyramid[-1], F.max_pool2d(pyramid[-2], kernel_size=1, stride=2))
    assert list(pooled.coarser.parameters()) == []


@torch.no_grad()
def test_resize_leaves_the_maps_where_they_are() -> None:
    """¼, ½, ¼ around every second cell, as of any teacher for a student that is not aligned (test_unaligned.py)."""
    twin = assistant()
    found = AlteredAssistant(twin, 2, "resize")(views()).pyramid
    weights = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
    for mine, fine in zip(found[:2], best_view(twin, views(), 256).pyramid, strict=False):
        expected = (fine[:, :, 1:4, 3:6] * weights).sum(dim=(2, 3))  # around the cell in row 2 and column 4
        torch.testing.assert_close(mine[:, :, 1, 2], expected, atol=1e-5, rtol=1e-4)


def module(student: Detector, tune_steps: int = 1, afp: AFP = "shift") -> PixelDistillation:
    twin = assistant()
    distillers = build_distillers(student.spec, twin.spec, {"l1": 0.6, "output-kd": 1.0, "isrd": 1.0})
    return PixelDistillation(student, twin, afp, distillers, tune_steps, 1)


@pytest.mark.parametrize("afp", ["shift", "resize"])
def test_first_the_assistant_is_tuned_then_it_stands_still_and_teaches(afp: AFP) -> None:
    student = unaligned()
    training = module(student, afp=afp).train()
    first = training(views(), TARGETS)
    assert {name.split("/")[0] for name in first} == {"assistant"}
    total(first).backward()
    assert all(each.grad is not None for each in training.assistant.parameters() if each.requires_grad)
    assert all(each.grad is None for each in student.parameters())
    for each in training.assistant.parameters():
        each.grad = None
    second = training.train()(views(), TARGETS)
    assert {f"distil/{each}" for each in ("l1/pyramid", "output-kd/boxes", "isrd/image")} < second.keys()
    total(second).backward()
    assert [name for name, each in student.named_parameters() if each.requires_grad and each.grad is None] == []
    assert all(each.grad is not None for each in training.distillation.distillers.parameters())
    assert all(each.grad is None for each in training.assistant.parameters())
    assert not any(each.training for each in training.assistant.modules())


def test_the_altered_assistant_belongs_to_the_state_once_and_not_to_the_student() -> None:
    student = unaligned()
    state = module(student).state_dict()
    of_assistant = [name for name in state if "coarser" in name]
    assert sorted(of_assistant) == ["assistant.coarser.0.bias", "assistant.coarser.0.weight"]
    assert not any("coarser" in name or "decoder" in name for name in student.state_dict())
    resumed = module(unaligned())
    resumed.load_state_dict({**state, "steps_done": torch.tensor(1)})
    assert {name.split("/")[0] for name in resumed(views(), TARGETS)} == {"student", "distil"}


# --- the input layer ---


def test_isrd_by_hand() -> None:
    """A decoder that answers 0 everywhere leaves the mean |x| of the normalised images, image by image."""
    teacher, student = detectors()
    images = odd_views()
    isrd = ISRD(student.spec, teacher.spec)
    with torch.no_grad():
        isrd.decoder.get_parameter("0.weight").zero_()
    known, _ = student_view(student, images, TARGETS)
    mean, std = (torch.tensor(each).reshape(3, 1, 1) for each in (student.spec.mean, student.spec.std))
    expected = torch.stack([((image / 255 - mean) / std).abs().mean() for image in images[1]]).mean()
    torch.testing.assert_close(isrd(known, known, [])["image"], expected)


def test_isrd_sees_no_padding_and_is_0_where_the_decoder_is_right() -> None:
    """First convolution: the mean of each 2 × 2 cells. A grey image of one value is decoded to that value."""
    _, student = detectors()
    grey = {
        1: [torch.full((3, 96, 200), 200, dtype=torch.uint8)],
        2: [torch.full((3, 48, 100), 200, dtype=torch.uint8)],
    }
    isrd = ISRD(student.spec, student.spec)
    backbone: Any = student.core.backbone.body
    backbone.first_convolution = lambda images: torch.cat([images[..., ::2, ::2]] * 11, dim=1)[
        :, : backbone.channels[1]
    ]
    with torch.no_grad():
        weight = isrd.decoder.get_parameter("0.weight").zero_()
        # Pixel shuffle takes r² channels in a row for each colour.
        for colour in range(3):
            weight[colour * 16 : (colour + 1) * 16, colour] = 1.0
        isrd.decoder.get_parameter("2.weight").fill_(1.0)
    known = Knowledge(student, [], student.frame(grey[2], 2), grey)
    assert isrd(known, known, [])["image"].item() == pytest.approx(0.0, abs=1e-6)


def test_isrd_needs_a_student_of_a_small_image() -> None:
    with pytest.raises(ValueError, match="isrd: the student sees the large image itself"):
        ISRD(spec(role="student", ks=(1,)), spec())


def test_isrd_of_a_batch_is_the_mean_over_its_images() -> None:
    teacher, student = detectors()
    isrd = ISRD(student.spec, teacher.spec)

    def loss(shown: dict[int, list[Tensor]]) -> Tensor:
        known, _ = student_view(student, shown, [])
        found: Tensor = isrd(known, known, [])["image"]
        return found

    shown = views()
    alone = torch.stack([loss({k: images[i : i + 1] for k, images in shown.items()}) for i in (0, 1)])
    torch.testing.assert_close(loss(shown), alone.mean())


# --- the command ---


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pixel")
    draw_demo(folder / "demo", train=4, val=2, seed=1, size=(128, 96))
    out = folder / "teacher.safetensors"
    arguments = ["teacher", "--data", str(folder / "demo"), *SMALLEST, "--width=0.25", *SHORT, "--size=96,128"]
    assert run([*arguments, "--epochs=1", "--out", str(out)]) == 0
    return out


def pixel(teacher: Path, out: Path, *more: str) -> int:
    small = ["--method", "pixel", "--width", "0.125", "--assistant-method", "l1,output-kd"]
    return run(["distill", "--teacher", str(teacher), *small, *SHORT, "--out", str(out), *more])


@pytest.fixture(scope="module")
def whole(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that was left alone, both stages of it."""
    out = tmp_path_factory.mktemp("whole") / "student.safetensors"
    assert pixel(teacher, out) == 0
    return out


def test_both_stages(teacher: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = Path(shutil.copytree(whole.parent, tmp_path / "copy")) / whole.name
    between, student = (read_header(each) for each in (assistant_file(out), out))
    assert (between[0].ks, between[0].scales, between[0].width) == ((1,), "aligned", 0.125)
    assert (student[0].ks, student[0].scales, student[0].width) == ((2,), "single", 0.125)
    large = read_header(teacher)[0]
    assert between[1].teacher_spec == large
    assert student[1].teacher_spec == large
    # The assistant learnt by both methods that were typed for it, and the student by those of Pixel Distillation.
    assert "output-kd" in (assistant_file(out).with_suffix(".run") / "results.csv").read_text()
    assert "distil/isrd/image" in (out.with_suffix(".run") / "results.csv").read_text()
    # Two epochs of the student, and before them a quarter, at least one, in which the assistant is tuned.
    rows = (out.with_suffix(".run") / "results.csv").read_text().splitlines()
    assert len(rows) == 1 + 1 + 2
    # The coarse grid of the small image makes it cheap, head included: well below a quarter of the stock detector.
    capsys.readouterr()
    assert run(["flops", str(out), "--json"]) == 0
    costs = {name: each["macs"]["total"] for name, each in by_name(capsys.readouterr().out).items()}
    assert list(costs) == ["stock fcos, HR", "teacher, fused", "student, 1/2, unaligned"]
    assert costs["student, 1/2, unaligned"] < 0.25 * costs["stock fcos, HR"]
    # An assistant that is there is used again, unless it learnt from somebody else.
    assert run(["eval", str(out), "--workers", "0"]) == 0
    stamp = assistant_file(out).stat().st_mtime_ns
    out.unlink()
    assert pixel(teacher, out, "--overwrite", "--dry-run") == 0
    assert assistant_file(out).stat().st_mtime_ns == stamp
    other = tmp_path / "other.safetensors"
    other.write_bytes(teacher.read_bytes())
    detector, card = load_model(other)
    from msad_cli.models.model_file import save_model

    save_model(other, detector, replace(card, epochs=99))
    (out.with_suffix(".run") / "resume" / "state.pt").unlink()
    (out.with_suffix(".run") / "resume" / "previous.pt").unlink(missing_ok=True)
    capsys.readouterr()
    assert pixel(other, out) == 2
    assert "learnt from another teacher" in capsys.readouterr().err


def test_each_stage_goes_on_where_it_was_interrupted(
    teacher: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.safetensors"

    def interrupt(of: Any, step: int) -> None:
        forward, calls = of.forward, []

        def interrupted(self: Any, images: Any, targets: Any) -> dict[str, Tensor]:
            calls.append(1)
            if len(calls) == step:
                os.kill(os.getpid(), signal.SIGINT)
            losses: dict[str, Tensor] = forward(self, images, targets)
            return losses

        monkeypatch.setattr(of, "forward", interrupted)

    interrupt(Distillation, 2)  # of the assistant's four steps
    assert pixel(teacher, cut) == 130
    # A file that can be used, but not in place of an assistant that is trained to its end.
    assert read_header(assistant_file(cut))[1].unfinished
    monkeypatch.undo()
    interrupt(PixelDistillation, 3)  # of two that tune the assistant and four of the student
    assert pixel(teacher, cut) == 130
    assert not read_header(assistant_file(cut))[1].unfinished
    assert read_header(cut)[1].unfinished
    monkeypatch.undo()
    capsys.readouterr()
    assert run(["distill", "--resume", "--out", str(cut)]) == 0
    for one, other in ((whole, cut), (assistant_file(whole), assistant_file(cut))):
        expected, found = load_file(one), load_file(other)
        assert all(torch.equal(each, found[name]) for name, each in expected.items())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--no-distill"], "--method pixel with --no-distill"),
        (["--k", "1"], "--method pixel with --k 1"),
        (["--afp", "stretch"], "--afp stretch: unknown"),
        (["--method", "pixel,l3"], "method 'l3'"),
        (["--weight", "pkd=1"], "--weight pkd=1"),
    ],
)
def test_flags_that_do_not_go_together(
    teacher: Path, tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pixel(teacher, tmp_path / "student.safetensors", *flags) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
