"""The main job in every variant: teacher → distil → eval → predict → flops, each with its own flags."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from support.documents import by_name, by_view, document
from support.flags import EXACT, SMALLEST
from support.overfit import OF_RTMDET, OF_TWO_STAGES, SIZE, SQUARES, overfit, squares

from msad_cli.cli.app import run
from msad_cli.models.detectors.kinds import DETECTORS

SHORT = ["--batch=8", "--epochs=1", *EXACT, "--quiet"]
GENTLE = [*SHORT, "--lr=0.001"]
"""Of a student that begins with its teacher's weights and shall not lose what these find."""
SURE = ["--score=0.05", "--precision=fp32"]
"""The default threshold is that of the best F1, above which one image or another may have nothing."""
LEAST = 0.3
"""AP that an overfitted model and its student have at least: that two models find nothing proves nothing."""
AP_OF = {"maskrcnn": "mask_AP", "cascade_maskrcnn": "mask_AP", "keypointrcnn": "keypoint_AP"}
ALIGNED = {"fused", "high", "low"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return squares(tmp_path_factory)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plain one: FCOS, k = 2, C-FF."""
    return overfit(tmp_path_factory)


def metrics(model: Path) -> dict[str, dict[str, float]]:
    """What was measured at the end of a training, by view."""
    scores: dict[str, dict[str, float]] = json.loads((model.with_suffix(".run") / "metrics.json").read_text())
    return scores


def spec_of(model: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """What `msad info` says of a model."""
    capsys.readouterr()
    assert run(["info", str(model), "--json"]) == 0
    facts: dict[str, object] = document(capsys.readouterr().out)["card"]
    return facts


def use(model: Path, data: Path, folder: Path, capsys: pytest.CaptureFixture[str], ap: str = "AP") -> None:
    """A model that finds something: evaluation agrees with the end of the training, prediction finds the squares."""
    recorded = metrics(model)
    for name in {"AP", ap}:
        assert next(iter(recorded.values()))[name] > LEAST, (name, recorded)
    capsys.readouterr()
    assert run(["eval", str(model), "--json", "--precision=fp32", "--workers=0"]) == 0
    scores = {view: each["scores"] for view, each in by_view(capsys.readouterr().out).items()}
    assert scores.keys() == recorded.keys()
    for view, numbers in recorded.items():
        for name in {"AP", "AP50", ap}:
            assert scores[view][name] == pytest.approx(numbers[name], abs=1e-9), (view, name)
    predictions = folder / "predictions"
    assert (
        run(["predict", str(data / "val2017"), "-m", str(model), "-o", str(predictions), "--save=json", "-q", *SURE])
        == 0
    )
    found = json.loads((predictions / "predictions.json").read_text())
    best = {name: max(each["score"] for each in found if each["file_name"] == name) for name in names_of(data)}
    for each in found:
        if each["score"] == best[each["file_name"]]:
            wanted = SQUARES[int(each["file_name"].removesuffix(".png")) - 1]
            assert each["bbox"] == pytest.approx(wanted, abs=24), each  # where the square is, if not to the pixel


def names_of(data: Path) -> set[str]:
    return {each.name for each in (data / "val2017").iterdir()}


def costs(model: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The names of the models whose costs `msad flops` gives beside each other."""
    capsys.readouterr()
    assert run(["flops", str(model), "--json"]) == 0
    models = by_name(capsys.readouterr().out)
    assert all(each["macs"]["total"] > 0 for each in models.values())
    return list(models)


def distil(teacher: Path, out: Path, *flags: str) -> Path:
    assert run(["distill", "--teacher", str(teacher), *SHORT, *flags, "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize(
    "detector",
    [
        "fcos",
        *(pytest.param(each, marks=pytest.mark.slow) for each in DETECTORS if each != "fcos"),
    ],
)
def test_from_the_teacher_to_what_its_student_finds(
    detector: str,
    data: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ap = AP_OF.get(detector, "AP")
    known = OF_TWO_STAGES | {"fcos": [], "rtmdet": OF_RTMDET}
    flags = known.get(detector, [f"--detector={detector}"])
    teacher = overfit(tmp_path_factory, flags)
    assert metrics(teacher).keys() == ALIGNED
    use(teacher, data, tmp_path / "teacher", capsys, ap)
    student = distil(teacher, tmp_path / "student.safetensors", *GENTLE)
    assert metrics(student).keys() == {"low"}
    use(student, data, tmp_path / "student", capsys, ap)
    assert costs(student, capsys) == [f"stock {detector}, HR", "teacher, fused", "student, 1/2"]


VARIANTS = [
    (["--k=4"], ALIGNED),
    (["--k=2,4"], ALIGNED | {"middle"}),
    (["--fusion=sigmoid"], ALIGNED),
    (["--fusion=channel"], ALIGNED),
    (["--fusion=sum"], ALIGNED),
    (["--fusion=concat"], ALIGNED),
    (["--backbone=mobilenet_v2", "--width=0.35"], ALIGNED),
    (["--norm=batch"], ALIGNED),
    (["--strategy=two-step"], ALIGNED),
    (["--head-depthwise"], ALIGNED),
    (["--scales=single", "--k=2"], {"low"}),
    (["--scales=single"], {"high"}),
    (["--scales=vanilla"], {"high", "low"}),
]
COMBINED = [
    (["--k=2,4", "--fusion=sigmoid", "--norm=batch"], ALIGNED | {"middle"}),
    (["--k=4", "--fusion=sum", "--head-depthwise"], ALIGNED),
    (["--fusion=channel", "--backbone=mobilenet_v2", "--width=0.35", "--strategy=two-step", "--epochs=2"], ALIGNED),
    (["--fusion=concat"], ALIGNED),
    (["--scales=single", "--k=2"], {"low"}),
    *(pytest.param(flags, ALIGNED, marks=pytest.mark.slow) for flags in OF_TWO_STAGES.values()),
]


def spelt(value: object) -> str:
    return " ".join(value) if isinstance(value, list) else ""


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "views"), VARIANTS, ids=spelt)
def test_teachers_find_what_they_learnt(
    flags: list[str],
    views: set[str],
    data: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    teacher = overfit(tmp_path_factory, ["--epochs=30", "--eval-every=30", *flags])
    assert metrics(teacher).keys() == views
    use(teacher, data, tmp_path / "teacher", capsys)


@pytest.mark.parametrize(("flags", "views"), COMBINED, ids=spelt)
def test_teachers_of_every_kind_have_students(flags: list[str], views: set[str], data: Path, tmp_path: Path) -> None:
    """Two steps each, a variant of each part of the model at once; the slow set has one at a time, and trains it."""
    out = tmp_path / "teacher.safetensors"
    assert run(["teacher", f"--data={data}", *SMALLEST, SIZE, *SHORT, *flags, "--out", str(out)]) == 0
    assert metrics(out).keys() == views
    if "high" in views:
        student = distil(out, tmp_path / "student.safetensors")
        assert metrics(student).keys() == {"low"}


@pytest.mark.parametrize(
    ("flags", "view", "expected", "finds"),
    [
        (["--k", "1"], "high", {"ks": [1]}, True),
        (["--k", "4"], "low", {"ks": [4]}, False),
        pytest.param(["--width", "0.5"], "low", {"width": 0.5}, False, marks=pytest.mark.slow),
        pytest.param(["--backbone", "resnet34"], "low", {"backbone": "resnet34"}, False, marks=pytest.mark.slow),
        (
            ["--backbone", "mobilenet_v2", "--width", "0.35"],
            "low",
            {"backbone": "mobilenet_v2", "norm": "group"},
            False,
        ),
        pytest.param(["--head-channels", "96"], "low", {"channels": 96}, False, marks=pytest.mark.slow),
        (["--head-depthwise", "--head-convs", "2"], "low", {"head_depthwise": True, "head_convs": 2}, False),
        (["--k", "1,2"], "fused", {"ks": [1, 2], "low_backbone": ""}, True),
        pytest.param(
            ["--k", "1,2", "--width", "0.25", "--low-width", "0.5"],
            "fused",
            {"width": 0.25, "low_width": 0.5, "low_backbone": "resnet18"},
            False,
            marks=pytest.mark.slow,
        ),
        (["--method", "l1,output-kd", "--weight", "l1=0.3"], "low", {}, True),
        (["--detector", "retinanet"], "low", {"detector": "retinanet"}, False),
        (["--unaligned", "--method", "l1,output-kd"], "low", {"scales": "single", "ks": [2]}, False),
        (["--unaligned", "--no-distill", "--init", "none"], "low", {"scales": "single", "ks": [2]}, False),
    ],
    ids=spelt,
)
def test_students_of_one_teacher(
    teacher: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    view: str,
    expected: dict[str, object],
    finds: bool,
) -> None:
    """What has its teacher's architecture begins with its weights, and finds what it finds."""
    out = distil(teacher, tmp_path / "student.safetensors", *GENTLE, *flags)
    assert next(iter(metrics(out))) == view
    facts = spec_of(out, capsys)
    assert {name: facts[name] for name in expected} == expected
    with safe_open(out, "pt") as file:
        assert not [name for name in file.keys() if "adapter" in name]  # noqa: SIM118
    assert costs(out, capsys)[-1].startswith("student")
    if finds:
        use(out, data, tmp_path, capsys)


@pytest.mark.slow
def test_freekd_reads_the_masks_that_its_teacher_needs(
    data: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its prompts learn by the detection loss of the teacher, a Mask R-CNN, while the student finds boxes alone."""
    teacher = overfit(tmp_path_factory, OF_TWO_STAGES["maskrcnn"])
    flags = ["--detector=fasterrcnn", "--method=freekd"]
    student = distil(teacher, tmp_path / "student.safetensors", *GENTLE, *flags)
    assert metrics(student).keys() == {"low"}
    assert "mask_AP" not in metrics(student)["low"]
    rows = (student.with_suffix(".run") / "results.csv").read_text()
    assert "loss/distil/freekd/prompt_detection" in rows


@pytest.mark.parametrize(
    ("flags", "student"),
    [
        pytest.param(["--k", "4"], "student, 1/4", marks=pytest.mark.slow),
        pytest.param(["--k", "1"], "student, HR", marks=pytest.mark.slow),
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
    models = by_name(capsys.readouterr().out)
    assert list(models)[-1] == student
    costs = models[student]["macs"]
    if "--head-depthwise" in flags:
        # A 3×3 convolution of 256 channels has 256·9 products a value, a separable one 9 + 256: 0.115. The rest of the
        # head, its three last convolutions, stays.
        dense = models["stock fcos, HR"]["macs"]["head"]
        last = 9 * 256 * (81 + 4 + 1)
        towers = 8 * 256 * 256 * 9
        assert costs["head"] / dense == pytest.approx((towers * 265 / 2304 + last) / (towers + last), rel=1e-3)


@pytest.mark.slow
def test_ap_over_input_size(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sizes of what the model sees: of a teacher the HR image's, of its student half of that."""
    student, image = distil(teacher, tmp_path / "student.safetensors", *GENTLE), tmp_path / "sizes.png"
    assert run(["eval", str(student), "--size", "64,56,48", "--plot", str(image), "--workers", "0"]) == 0
    table = capsys.readouterr().out
    assert all(f"{side} low" in table for side in (64, 56, 48))
    assert image.read_bytes().startswith(b"\x89PNG")
    arguments = ["eval", str(student), "--json", "--precision", "fp32", "--workers", "0"]
    assert run([*arguments, "--size", "64,56", "--plot", str(image)]) == 0
    several = {each["input_side"]: each["scores"] for each in by_name(capsys.readouterr().out).values()}
    assert list(several) == [64, 56]
    assert several[64]["AP"] == pytest.approx(metrics(student)["low"]["AP"], abs=1e-9)
    assert several[56]["AP"] > 0
    assert run([*arguments, "--size", "112,112"]) == 0  # 2 × 56
    assert by_view(capsys.readouterr().out)["low"]["scores"] == several[56]
    assert run([*arguments, "--size", "40,32,36"]) == 2
    assert run([*arguments, "--size", "40,32,30", "--fail-under", "AP=0"]) == 2


@pytest.mark.parametrize("scales", ["single", "vanilla"])
def test_a_teacher_without_fusion(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], scales: str) -> None:
    """The paper's row of a teacher that knows the large image alone (published: 38.2 instead of 39.9)."""
    out = tmp_path / "teacher.safetensors"
    command = ["teacher", f"--data={data}", *SMALLEST, SIZE, *SHORT, "--scales", scales]
    assert run([*command, "--out", str(out)]) == 0
    student = distil(out, tmp_path / "student.safetensors")
    facts = spec_of(student, capsys)
    assert (facts["role"], facts["scales"], facts["ks"]) == ("student", "aligned", [2])
    assert costs(student, capsys) == ["stock fcos, HR", "teacher, high", "student, 1/2"]


@pytest.mark.slow
def test_a_student_of_the_small_image_teaches_nobody(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = distil(teacher, tmp_path / "student.safetensors")
    assert run(["distill", "--teacher", str(student), *SHORT, "--out", str(tmp_path / "next.safetensors")]) == 2
    assert "sees only images downsampled by 2" in capsys.readouterr().err


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
        ("teacher --scales single --k 2,4", "it has one view, and so one k"),
        ("teacher --rois 64", "--rois: fcos has no RoIs"),
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
    teacher: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, message: str
) -> None:
    name, *flags = command.split()
    start = [f"--data={data}", *SMALLEST, SIZE] if name == "teacher" else ["--teacher", str(teacher)]
    assert run([name, *start, *SHORT, *flags, "--out", str(tmp_path / "out.safetensors")]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []
