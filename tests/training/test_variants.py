"""The main job in every variant: teacher → distil → eval → predict → flops, each with its own flags."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from msad_cli.cli.app import run
from msad_cli.data.layouts.demo import draw_demo

MODEL = ["--init", "none", "--backbone", "resnet18", "--width", "0.25", "--head-channels", "64", "--head-convs", "1"]
SHORT = ["--batch", "2", "--epochs", "1", "--device", "cpu", "--precision", "fp32", "--workers", "0", "--quiet"]
SIZE = ["--size", "96,128"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "demo"
    draw_demo(folder, train=4, val=2, seed=1, size=(128, 96))
    return folder


@pytest.fixture(scope="module")
def teacher(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plain one: FCOS, k = 2, C-FF."""
    out = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    assert run(["teacher", "--data", str(demo), *MODEL, *SIZE, *SHORT, "--out", str(out)]) == 0
    return out


def metrics(model: Path) -> dict[str, dict[str, float]]:
    """What was measured at the end of a training, by view."""
    scores: dict[str, dict[str, float]] = json.loads((model.with_suffix(".run") / "metrics.json").read_text())
    return scores


def spec_of(model: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """What `msad info` says of a model."""
    capsys.readouterr()
    assert run(["info", str(model), "--json"]) == 0
    facts: dict[str, object] = json.loads(capsys.readouterr().out)
    return facts


def use(model: Path, demo: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Evaluation agrees with the end of the training; prediction answers, and of students the costs do."""
    capsys.readouterr()
    assert run(["eval", str(model), "--json", "--precision", "fp32", "--workers", "0"]) == 0
    scores = json.loads(capsys.readouterr().out)
    recorded = metrics(model)
    assert scores.keys() == recorded.keys()
    for view, numbers in recorded.items():
        for name in ("AP", "mask_AP", "keypoint_AP"):
            assert scores[view].get(name, 0.0) == pytest.approx(numbers.get(name, 0.0), abs=1e-9), (view, name)
    predictions = folder / "predictions"
    assert run(["predict", str(demo / "val2017"), "-m", str(model), "-o", str(predictions), "--score", "0", "-q"]) == 0
    assert isinstance(json.loads((predictions / "predictions.json").read_text()), list)
    capsys.readouterr()
    if model.stem == "student":
        assert run(["flops", str(model), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("flags", "views"),
    [
        (["--detector", "retinanet"], {"fused", "high", "low"}),
        (["--detector", "maskrcnn"], {"fused", "high", "low"}),
        (["--detector", "keypointrcnn"], {"fused", "high", "low"}),
        (["--k", "4"], {"fused", "high", "low"}),
        (["--k", "2,4"], {"fused", "high", "middle", "low"}),
        (["--fusion", "sigmoid"], {"fused", "high", "low"}),
        (["--fusion", "channel"], {"fused", "high", "low"}),
        (["--fusion", "sum"], {"fused", "high", "low"}),
        (["--fusion", "concat"], {"fused", "high", "low"}),
        (["--backbone", "mobilenet_v2", "--width", "0.35"], {"fused", "high", "low"}),
        (["--norm", "batch"], {"fused", "high", "low"}),
        (["--strategy", "two-step", "--epochs", "2"], {"fused", "high", "low"}),
        (["--head-depthwise"], {"fused", "high", "low"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_teachers(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], views: set[str]
) -> None:
    out, student = tmp_path / "teacher.safetensors", tmp_path / "student.safetensors"
    assert run(["teacher", "--data", str(demo), *MODEL, *SIZE, *SHORT, *flags, "--out", str(out)]) == 0
    assert metrics(out).keys() == views
    use(out, demo, tmp_path / "teacher", capsys)
    assert run(["distill", "--teacher", str(out), *SHORT, "--out", str(student)]) == 0
    assert metrics(student).keys() == {"low"}
    use(student, demo, tmp_path / "student", capsys)


@pytest.mark.parametrize(
    ("flags", "view", "expected"),
    [
        (["--k", "1"], "high", {"ks": [1]}),
        (["--k", "4"], "low", {"ks": [4]}),
        (["--width", "0.5"], "low", {"width": 0.5}),
        (["--backbone", "resnet34"], "low", {"backbone": "resnet34"}),
        (["--backbone", "mobilenet_v2", "--width", "0.35"], "low", {"backbone": "mobilenet_v2", "norm": "group"}),
        (["--head-channels", "96"], "low", {"channels": 96}),
        (["--head-depthwise", "--head-convs", "2"], "low", {"head_depthwise": True, "head_convs": 2}),
        (["--k", "1,2"], "fused", {"ks": [1, 2], "low_backbone": ""}),
        (
            ["--k", "1,2", "--width", "0.125", "--low-width", "0.5"],
            "fused",
            {"width": 0.125, "low_width": 0.5, "low_backbone": "resnet18"},
        ),
        (["--method", "l1,output-kd", "--weight", "l1=0.3"], "low", {}),
        (["--unaligned", "--method", "l1,output-kd"], "low", {"scales": "single", "ks": [2]}),
        (["--unaligned", "--no-distill", "--init", "none"], "low", {"scales": "single", "ks": [2]}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_students_of_one_teacher(
    teacher: Path, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    flags: list[str], view: str, expected: dict[str, object],
) -> None:  # fmt: skip
    out = tmp_path / "student.safetensors"
    assert run(["distill", "--teacher", str(teacher), *SHORT, *flags, "--out", str(out)]) == 0
    assert next(iter(metrics(out))) == view
    facts = spec_of(out, capsys)
    assert {name: facts[name] for name in expected} == expected
    with safe_open(out, "pt") as file:
        assert not [name for name in file.keys() if "adapter" in name]  # noqa: SIM118
    use(out, demo, tmp_path, capsys)


@pytest.mark.parametrize(
    ("flags", "student"),
    [
        (["--k", "4"], "student, 1/4"),
        (["--k", "1"], "student, HR"),
        (["--k", "1,2", "--width", "0.5", "--low-backbone", "resnet18"], "student, fused"),
        (["--head-depthwise"], "student, 1/2"),
        (["--unaligned"], "student, 1/2, unaligned"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_costs_of_students_that_do_not_exist_yet(
    capsys: pytest.CaptureFixture[str], flags: list[str], student: str
) -> None:
    assert run(["flops", "--backbone", "resnet18", "--size", "256,256", *flags, "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert list(report["models"])[-1] == student
    costs = report["models"][student]["macs"]
    if "--head-depthwise" in flags:
        # A 3×3 convolution of 256 channels has 256·9 products a value, a separable one 9 + 256: 0.115. The rest of the
        # head, its three last convolutions, stays.
        dense = report["models"]["stock fcos, HR"]["macs"]["head"]
        last = 9 * 256 * (81 + 4 + 1)
        towers = 8 * 256 * 256 * 9
        assert costs["head"] / dense == pytest.approx((towers * 265 / 2304 + last) / (towers + last), rel=1e-3)


def test_ap_over_input_size(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sizes of what the model sees: of a teacher the HR image's, of its student half of that."""
    student, image = tmp_path / "student.safetensors", tmp_path / "sizes.png"
    assert run(["distill", "--teacher", str(teacher), *SHORT, "--out", str(student)]) == 0
    assert run(["eval", str(student), "--size", "48,40,32", "--plot", str(image), "--workers", "0"]) == 0
    table = capsys.readouterr().err
    assert all(f"{side} low" in table for side in (48, 40, 32))
    assert image.read_bytes().startswith(b"\x89PNG")
    arguments = ["eval", str(student), "--json", "--precision", "fp32", "--workers", "0"]
    assert run([*arguments, "--size", "40,32", "--plot", str(image)]) == 0
    several = json.loads(capsys.readouterr().out)
    assert list(several) == ["40", "32"]
    assert run([*arguments, "--size", "80,107"]) == 0  # 2 × 40, and 128 / 96 of it
    assert json.loads(capsys.readouterr().out) == several["40"]
    assert run([*arguments, "--size", "40,32,36"]) == 2
    assert run([*arguments, "--size", "40,32,30", "--fail-under", "AP=0"]) == 2


def test_single_scale_at_the_low_resolution(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "single.safetensors"
    flags = ["--scales", "single", "--k", "2", *MODEL, *SIZE, *SHORT]
    assert run(["teacher", "--data", str(demo), *flags, "--out", str(out)]) == 0
    assert metrics(out).keys() == {"low"}
    use(out, demo, tmp_path, capsys)


@pytest.mark.parametrize("scales", ["single", "vanilla"])
def test_a_teacher_without_fusion(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], scales: str) -> None:
    """The paper's row of a teacher that knows the large image alone (published: 38.2 instead of 39.9)."""
    out, student = tmp_path / "teacher.safetensors", tmp_path / "student.safetensors"
    assert run(["teacher", "--data", str(demo), *MODEL, *SIZE, *SHORT, "--scales", scales, "--out", str(out)]) == 0
    assert run(["distill", "--teacher", str(out), *SHORT, "--out", str(student)]) == 0
    facts = spec_of(student, capsys)
    assert (facts["role"], facts["scales"], facts["ks"]) == ("student", "aligned", [2])
    use(student, demo, tmp_path, capsys)
    assert run(["flops", str(student), "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert list(report["models"]) == ["stock fcos, HR", "teacher, high", "student, 1/2"]


def test_a_student_of_the_small_image_teaches_nobody(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = tmp_path / "student.safetensors"
    assert run(["distill", "--teacher", str(teacher), *SHORT, "--out", str(student)]) == 0
    assert run(["distill", "--teacher", str(student), *SHORT, "--out", str(tmp_path / "next.safetensors")]) == 2
    assert "sees only images reduced 2 times" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("teacher --k 3", "--k 3: grids of two resolutions agree where one is 2 or 4 times the other"),
        ("teacher --k 6", "--k 6"),
        ("teacher --k 2,2", "--k 2,2"),
        ("teacher --detector maskrcnn --k 4", "P1 is the finest"),
        ("teacher --fusion mean", "fusion 'mean'"),
        ("teacher --strategy one-step", "--strategy one-step"),
        ("teacher --strategy two-step", "a single epoch has no two steps"),
        ("teacher --scales single --k 2,4", "a single scale has one k"),
        ("teacher --rois 64", "--rois: fcos has no regions"),
        ("teacher --scales vanilla --fusion sum", "--fusion, --lambda: --scales vanilla fuses nothing"),
        ("teacher --scales single --lambda 1", "--fusion, --lambda: --scales single fuses nothing"),
        ("teacher --detector yolo", "detector 'yolo'"),
        ("distill --k 3", "--k 3"),
        ("distill --low-width 0.5", "low width"),
        ("distill --method l3", "method 'l3': not one of l1, output-kd"),
        ("distill --weight l1=much", "--weight l1=much: not METHOD=NUMBER"),
        ("distill --weight l1=1", "--weight l1=1"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(
    teacher: Path, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    name, *flags = command.split()
    start = ["--data", str(demo), *MODEL, *SIZE] if name == "teacher" else ["--teacher", str(teacher)]
    assert run([name, *start, *SHORT, *flags, "--out", str(tmp_path / "out.safetensors")]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []
