"""msad bench: the parts add up, models take turns, and what is missing is said."""

from pathlib import Path

import pytest
from support.documents import by_name

from msad_cli.cli.app import run
from msad_cli.cli.commands.bench import WARMUP, summary
from msad_cli.evaluation import latency
from msad_cli.evaluation.latency import PARTS
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, save_model

FLAGS = ["--device", "cpu", "--precision", "fp32"]


def test_summary_by_hand() -> None:
    """Sums of 0.1, 0.2 and 0.3 s: the median is 0.2, the 95th percentile nine tenths of the way from it to 0.3."""
    taken = [dict.fromkeys(PARTS, each / 4) for each in (0.1, 0.3, 0.2)]
    milliseconds, images_per_second = summary(taken, batch=2)
    assert milliseconds == pytest.approx({"p50": 200.0, "p95": 290.0, **dict.fromkeys(PARTS, 50.0)})
    assert images_per_second == pytest.approx(10.0)


def test_models_take_turns_over_the_images(
    tmp_path: Path,
    coco_folder: Path,
    student: Detector,
    teacher: Detector,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = [str(tmp_path / f"{name}.safetensors") for name in ("student", "teacher")]
    for file, detector in zip(files, (student, teacher), strict=True):
        save_model(Path(file), detector, Card(data=str(coco_folder)))
    seen: list[tuple[int, list[str]]] = []
    timed = latency.timed_parts

    def counted(detector: Detector, view: object, paths: list[Path], compute: object) -> dict[str, float]:
        seen.append((len(detector.spec.ks), [path.name for path in paths]))
        return timed(detector, view, paths, compute)  # type: ignore[arg-type]

    monkeypatch.setattr(latency, "timed_parts", counted)
    assert run(["bench", *files, "--stock", "--runs", "2", "--batch", "2", "--json", *FLAGS]) == 0
    report = by_name(capsys.readouterr().out)
    assert list(report) == [files[0], "stock fcos, HR, resnet18", files[1]]
    for numbers in report.values():
        assert all(numbers["latency_ms"][part] > 0 for part in PARTS)
        assert numbers["images_per_second"] == pytest.approx(2000 / numbers["latency_ms"]["p50"])
    # Student, stock, teacher, and again; each turn two images of the validation split, over and over.
    assert [views for views, _ in seen] == [1, 1, 2] * (2 + WARMUP)
    names = [name for _, paths in seen[::3] for name in paths]
    assert names == [names[i % 3] for i in range(len(names))]
    assert len(set(names)) == 3


def test_images_may_be_named_and_have_to_be_somewhere(
    tmp_path: Path, coco_folder: Path, student: Detector, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "student.safetensors"
    save_model(file, student, Card(data=str(tmp_path / "gone")))
    assert run(["bench", str(file), "--runs", "1", *FLAGS]) == 2
    assert "name some with --input" in capsys.readouterr().err
    assert run(["bench", str(file), "--runs", "1", "--input", str(coco_folder / "val2017"), *FLAGS]) == 0
    table = capsys.readouterr().out
    assert "1 runs of 1" in table
    assert "postprocess" in table
