"""msad compare: what the files say, the gap, the frontier, the advice."""

import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.documents import by_name
from support.pages import Page, curves, write_run
from support.specs import spec

from msad_cli.cli.app import run
from msad_cli.cli.console import results
from msad_cli.evaluation.pareto import Point, frontier, within
from msad_cli.export.sidecar import InputShape, Notes, exported_spec, read_sidecar, sidecar, sidecar_path
from msad_cli.models.cost import count_cost
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, save_model
from msad_cli.runs.plots.pareto import plot_pareto

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLAGS = ["--device", "cpu", "--precision", "fp32"]


@pytest.fixture
def models(tmp_path: Path, coco_folder: Path, student: Detector, teacher: Detector) -> list[str]:
    """A student of AP 0.3, a better one of 0.36, and a teacher of 0.4."""
    files = []
    for name, detector, ap in (("plain", student, 0.3), ("student", student, 0.36), ("teacher", teacher, 0.4)):
        scores: dict[str, dict[str, float | None]] = {
            str(detector.spec.views[0]): {"AP": ap, "APs": None, "APm": ap / 2, "APl": ap}
        }
        files.append(str(tmp_path / f"{name}.safetensors"))
        save_model(Path(files[-1]), detector, Card(data=str(coco_folder), scores=scores))
    return files


@pytest.mark.parametrize("copied", [True, False])
def test_an_ap_that_is_the_models_and_not_the_graphs_says_so(
    copied: bool, tmp_path: Path, student: Detector, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = tmp_path / "m.onnx"
    graph.write_bytes(b"not looked at without latencies")
    notes = Notes(exported_spec(student.spec, "low"), Card(scores={"low": {"AP": 0.3}}), copied=copied)
    sidecar_path(graph).write_text(sidecar(notes))
    assert read_sidecar(sidecar_path(graph)).copied is copied
    assert run(["compare", str(graph), "--runs", "0", "--json"]) == 0
    row = by_name(capsys.readouterr().out)["m"]
    assert row["scores"]["AP"] == 0.3
    assert row["network"].endswith("AP is that of its model") is copied


def test_a_student_has_one_number_of_multiply_accumulates(
    tmp_path: Path, coco_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That of its set's images, of 3:4: 128 × 172 pixels, padded to 192. Where the set is gone, of 128 × 256."""
    detector = Detector(spec(role="student", ks=(2,), divisor=32))
    wide, narrow = (count_cost(detector.spec, "low", [(128, width)]).total for width in (256, 172))
    assert wide > 1.3 * narrow
    file = tmp_path / "s.safetensors"
    for data, expected in ((coco_folder, narrow), (tmp_path / "gone", wide)):
        save_model(file, detector, Card(data=str(data)))
        found = []
        for flags in ([], ["--data", str(coco_folder)]):
            assert run(["flops", str(file), "--json", *flags]) == 0
            found.append(by_name(capsys.readouterr().out)["student, 1/2"]["macs"]["total"])
        assert run(["compare", str(file), "--runs", "0", "--json"]) == 0
        found.append(by_name(capsys.readouterr().out)["s"]["macs"]["total"])
        assert found == pytest.approx([expected, narrow, expected])


def test_a_graph_of_fixed_sides_costs_what_these_cost(
    tmp_path: Path, coco_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """128 × 256 HR pixels, of which images of 3:4 fill two thirds."""
    student = spec(role="student", ks=(2,), divisor=32)
    graph = tmp_path / "m.onnx"
    graph.write_bytes(b"not looked at without latencies")
    fixed = (64, 128)
    notes = Notes(exported_spec(student, "low", fixed), Card(data=str(coco_folder)), shape=InputShape(1, fixed))
    sidecar_path(graph).write_text(sidecar(notes))
    expected = count_cost(student, "low", [(128, 256)]).total
    assert run(["compare", str(graph), "--runs", "0", "--json"]) == 0
    assert by_name(capsys.readouterr().out)["m"]["macs"]["total"] == pytest.approx(expected)
    for flags in ([], ["--data", str(coco_folder)]):
        assert run(["flops", str(graph), "--json", *flags]) == 0
        assert by_name(capsys.readouterr().out)["student, 1/2"]["macs"]["total"] == pytest.approx(expected)


def test_the_frontier_by_hand() -> None:
    points = {"a": Point(10, 0.3), "b": Point(20, 0.25), "c": Point(30, 0.4), "d": Point(30, 0.35), "e": Point(40, 0.4)}
    assert frontier(points) == ["a", "c"]  # b is slower and worse than a, d worse than c, e slower than c
    assert [within(points, budget) for budget in (5, 10, 29, 30, 99)] == [None, "a", "a", "c", "c"]
    assert frontier({}) == []


def test_a_table_without_latency(models: list[str], student: Detector, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", *models, "--runs", "0", "--json"]) == 0
    rows = by_name(capsys.readouterr().out)
    assert list(rows) == ["plain", "student", "teacher"]
    # 0.36 is 6 of the 10 points from 0.30 to 0.40.
    assert [row["gap_closed"] for row in rows.values()] == pytest.approx([0.0, 0.6, 1.0])
    assert not any("latency_ms" in row for row in rows.values())
    cost = count_cost(student.spec, "low", [(64, 96)])
    assert rows["plain"]["macs"]["total"] == pytest.approx(cost.total)
    assert rows["plain"]["macs"]["head"] == pytest.approx(cost.macs["head"])
    assert run(["compare", *models, "--runs", "0", "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| model | AP | APs | APm | APl | GMACs | gap_closed | what |")
    assert len(lines) == 2 + 3
    assert "| student | 36.0 | - | 18.0 | 36.0 |" in lines[3]
    assert "| 60% |" in lines[3]


def test_a_budget_names_the_model_to_ship(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "pareto.png"
    assert run(["compare", *models, "--runs", "1", "--plot", str(image), "--budget", "1e6", *FLAGS]) == 0
    assert "for 1e+06 ms: teacher, AP 40.0" in capsys.readouterr().out
    assert image.read_bytes().startswith(b"\x89PNG")
    assert run(["compare", *models, "--runs", "1", "--budget", "0.001", *FLAGS]) == 0
    assert "none takes 0.001 ms or less; the fastest" in capsys.readouterr().out
    assert run(["compare", *models, "--runs", "0", "--budget", "30"]) == 2


@pytest.mark.parametrize("flag", ["--plot", "--report"])
@pytest.mark.parametrize(("place", "why"), [("file/a.out", "is a file, not a folder"), ("folder", "Is a directory")])
def test_what_cannot_be_written_is_said_before_the_measuring(
    flag: str, place: str, why: str, models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    assert run(["compare", *models, "--runs", "1", flag, str(tmp_path / place), *FLAGS]) == 2
    shown = capsys.readouterr()
    assert f"cannot write {tmp_path / place}: " in shown.err
    assert why in shown.err
    assert shown.out == ""


def test_a_gap_that_chance_could_make_is_not_shared_out(
    tmp_path: Path, student: Detector, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / name) for name in ("a.safetensors", "b.safetensors")]
    for file, ap, data in zip(files, (0.5, 0.509), ("one", "other"), strict=True):
        save_model(Path(file), student, Card(data_fingerprint=data, scores={"low": {"AP": ap, "mask_AP": ap / 2}}))
    assert run(["compare", *files, "--runs", "0", "--json"]) == 0
    rows = by_name(capsys.readouterr().out)
    assert [row["scores"]["mask_AP"] for row in rows.values()] == [0.25, 0.2545]
    assert not any("gap_closed" in row for row in rows.values())
    assert "head 64 × 1, 1/2" in rows["a"]["network"]
    assert run(["compare", *files, "--runs", "0"]) == 0
    said = capsys.readouterr().err
    assert "the gap is that from a, AP 50.0, to b, AP 50.9: too little" in said
    assert f"{files[0]} and {files[1]} were trained on different sets" in said


def test_every_view_is_a_row_of_its_own(
    models: list[str], teacher: Detector, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", *models, "--view", "all", "--runs", "1", "--json", *FLAGS]) == 0
    rows = by_name(capsys.readouterr().out)
    assert list(rows) == ["plain", "student", "teacher, fused", "teacher, high", "teacher, low"]
    assert rows["teacher, low"]["macs"]["total"] == pytest.approx(count_cost(teacher.spec, "low", [(64, 96)]).total)
    assert all(row["latency_ms"]["p50"] > 0 for row in rows.values())
    assert run(["compare", *models, "--view", "high", "--runs", "0"]) == 2
    assert "--view high: " in capsys.readouterr().err


def test_on_a_narrow_screen_what_matters_less_stands_below(
    models: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "width", 60)
    assert run(["compare", *models, "--runs", "0"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 60
    first, second, _ = text.split("\n\n", 2)
    assert first.split()[:8] == ["model", "AP", "APs", "APm", "APl", "GMACs", "gap", "closed"]
    assert re.search(r"^student +36.0 +- +18.0 +36.0 .* 60%", first, re.MULTILINE)
    assert second.split()[:2] == ["model", "what"]
    # Of two models the gap is theirs.
    assert run(["compare", *models[:2], "--runs", "0"]) == 0
    assert "gap" not in capsys.readouterr().out


def test_no_name_covers_another_or_a_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr("msad_cli.runs.plots.pareto.write_figure", lambda figure, path: drawn.append(figure))
    points = {f"model {i}": Point(20 + i % 3, 0.5 + i // 3 / 1000) for i in range(12)}
    points["the slowest, whose name is long"] = Point(40, 0.501)
    plot_pareto(points, tmp_path / "p.png", "cpu", budget=21)
    (axes,) = drawn[0].axes
    boxes = [each.get_window_extent() for each in axes.texts if each.get_text()]
    assert len(boxes) == 13
    assert all(axes.bbox.x0 <= each.x0 and each.x1 <= axes.bbox.x1 for each in boxes)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    places = axes.transData.transform([(each.milliseconds, 100 * each.ap) for each in points.values()])
    assert not any(box.contains(*place) for box in boxes for place in places)
    # The frontier: 20 ms, 50.3; 21 ms and more bring nothing.
    legend = axes.get_legend()
    assert legend is not None
    assert [each.get_text() for each in legend.get_texts()] == ["21 ms", "the best for it: model 9"]


def test_models_of_one_name_keep_their_folders(
    models: list[str], tmp_path: Path, teacher: Detector, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "b" / "plain.safetensors"
    other.parent.mkdir()
    save_model(other, Detector(replace(teacher.spec)), Card())
    assert run(["compare", models[0], str(other), "--runs", "0", "--json"]) == 0
    rows = by_name(capsys.readouterr().out)
    assert list(rows) == [models[0], str(other)]
    assert rows[str(other)]["scores"]["AP"] is None


def test_a_page_of_models_side_by_side(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain 30, student 36, teacher 40 AP by their files; the student alone has a run folder."""
    found = {"red": {"AP": 0.5, "AP50": 0.6}, "blue": {"AP": 0.0, "AP50": 0.0}}
    write_run(Path(models[1]), "low", 0.36, found, {}, curves())
    report = tmp_path / "compared.html"
    assert run(["compare", *models, "--runs", "0", "--report", str(report)]) == 0
    assert f"written: {report}" in capsys.readouterr().err.replace("\n", "")
    page = Page(report.read_text(encoding="utf-8"))
    assert page.unclosed == []
    text = " ".join(each for _, each in page.texts)
    assert "Of 3 teacher has the most AP, 40.0; plain, the reference, has 30.0." in text
    assert "latencies were not measured" in text
    assert page.of("strong") == ["blue: nothing found by student"]
    place = page.tables[0][0].index("AP")
    assert [(row[0], row[place]) for row in page.tables[0][1:]] == [
        ("plain", "30.0"),
        ("student", "36.0"),
        ("teacher", "40.0"),
    ]
    assert [row[:4] for row in page.tables[1][1:]] == [
        ["plain", "low", "boxes", "30.0"],
        ["student", "low", "boxes", "36.0"],
        ["teacher", "fused", "boxes", "40.0"],
    ]
    labels = page.of("text")
    assert {"plain, low (its file)", "student, low", "teacher, fused (its file)"} <= set(labels)
    assert "student: true and predicted" in page.of("h2")
    assert "://" not in report.read_text(encoding="utf-8")


def test_a_page_draws_what_was_timed(models: list[str], coco_folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "compared.html"
    words = ["--runs", "1", "--input", str(coco_folder / "val2017"), *FLAGS, "--budget", "100000"]
    assert run(["compare", *models, *words, "--report", str(report)]) == 0
    page = Page(report.read_text(encoding="utf-8"))
    assert "latency of one image, ms (median)" in page.of("text")
    verdict = next(each for each in page.of("p") if "reference" in each)
    assert "For 100000 ms: teacher, AP 40.0 in " in verdict
    assert "the best for it: teacher" in page.of("text")


def test_a_model_and_its_graph_are_shown_once(models: list[str], tmp_path: Path, student: Detector) -> None:
    """They have one run folder; each has its own row."""
    write_run(Path(models[1]), "low", 0.36, {}, {}, curves())
    graph = tmp_path / "student.onnx"
    graph.write_bytes(b"not looked at without latencies")
    notes = Notes(exported_spec(student.spec, "low"), Card(scores={"low": {"AP": 0.35}}))
    sidecar_path(graph).write_text(sidecar(notes))
    report = tmp_path / "compared.html"
    assert run(["compare", models[1], str(graph), "--runs", "0", "--report", str(report)]) == 0
    page = Page(report.read_text(encoding="utf-8"))
    assert [row[0] for row in page.tables[0][1:]] == ["student.safetensors", "student.onnx"]
    assert page.of("h2").count("student.safetensors: true and predicted") == 1
    assert "student.onnx: true and predicted" not in page.of("h2")
