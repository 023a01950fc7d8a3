"""A whole fit with latencies, paces and commands that are given: what it says, writes, and goes on with."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.documents import document
from support.fitting import Given, Listening, facts
from support.pages import Page, curves, write_run

import msad_cli as msad
from msad_cli.cli.app import run
from msad_cli.errors import GateMissedError, UnmetBudgetError, UsageError
from msad_cli.fitting import job
from msad_cli.fitting.choice import candidates
from msad_cli.fitting.choice.budgets import parse_budget
from msad_cli.fitting.choice.measuring import Runtimes
from msad_cli.fitting.fit_folder import FitConfig, FitFolder, FitState
from msad_cli.fitting.job import fit_model
from msad_cli.fitting.page import page
from msad_cli.fitting.scheduling import Speed
from msad_cli.fitting.verdict import Outcome, decide
from msad_cli.models.weights import initialise

APS: dict[str, float | None] = {}
LATENCIES: dict[str, float] = {}


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Given:
    """Latencies by a rule; a step of any training takes 0.1 s an epoch; trained models have 9.8 and 9.9 ms."""
    measure = Given()
    few = tuple(each for each in candidates.NETWORKS if (each.backbone, each.width) == ("resnet18", 0.5))
    monkeypatch.setattr(candidates, "NETWORKS", few)
    monkeypatch.setattr(job, "find_facts", lambda data, say: facts())
    monkeypatch.setattr(job, "find_runtimes", lambda: Runtimes(("onnxruntime", "torch"), "openvino is missing"))
    monkeypatch.setattr(job, "measure_candidate", lambda candidate, *more: measure(candidate))
    monkeypatch.setattr(job, "speed_of", lambda *of: Speed(40, 0.1))
    monkeypatch.setattr(job, "speeds_with_teacher", lambda *of: (Speed(40, 0.5), Speed(40, 0.2)))
    monkeypatch.setattr(job, "measure_files", lambda files, *more: ({name: LATENCIES[name] for name in files}, 1.0))
    monkeypatch.setattr(
        job, "ap_of", lambda file: APS[next((each for each in ("plain", "int8") if each in file.name), "student")]
    )
    APS.update(student=0.557, plain=0.432, int8=0.552)
    LATENCIES.update(student=9.8, plain=9.9, int8=6.0)
    monkeypatch.setattr(job, "measure_pace", lambda count: 4.0)
    return measure


class Writing(Listening):
    """Runs commands by writing the file that they are to write."""

    def __init__(self, stops: Sequence[int] = (), raises: str = "") -> None:
        super().__init__()
        self.stops, self.raises = list(stops), raises

    def run(self, words: Sequence[str], threads: int | None) -> tuple[int, str]:
        super().run(words, threads)
        if self.stops:
            return self.stops.pop(0), ""
        if (
            self.raises
            and words[0] == "export"
            and self.raises in (*words[2:], Path(words[1]).name[: len(self.raises)])
        ):
            raise GateMissedError("nothing was written", "train it", code="export-finds-nothing")
        if "--out" in words:
            out = Path(words[list(words).index("--out") + 1])
            out.parent.mkdir(parents=True, exist_ok=True)
            out.touch()
        return 0, '{"models": {}}' if words[0] == "bench" else ""


def begin(folder: Path, **changes: Any) -> tuple[FitFolder, FitState]:
    config = FitConfig(**{"data": "d", "budget": "10ms", "k": "2", "out": folder / "s.safetensors", **changes})
    return FitFolder(config.places.folder), FitState(config)


def test_from_a_budget_to_a_verdict(tmp_path: Path, given: Given) -> None:
    folder, state = begin(tmp_path)
    listener = Writing()
    fitted = fit_model(folder, state, listener)
    assert fitted.verdict is not None
    assert fitted.verdict.words == (
        f"student 55.7 AP in 9.8 ms (budget 10ms); in 8 bits, {tmp_path / 's.int8.onnx'}, 55.2 in 6.0 ms; the plain "
        "detector of that budget has 43.2 in 9.9 ms"
    )
    assert [words[0] for words in listener.commands] == ["teacher", "export", "export", "teacher", "export", "bench"]
    # What runs is what was shown.
    assert [f"$ {each}" for each in fitted.commands] == [line[1:] for line in listener.lines if line.startswith("\n$")]
    taken = [row["name"] for row in fitted.plan["candidates"] if row["taken"]]
    assert len(taken) == 2
    assert "plain" in taken[1]
    assert len(listener.tables[0]) == 1 + len(fitted.plan["candidates"])
    assert {"openvino is missing"} < set(listener.lines)
    written = json.loads(folder.verdict.read_text())
    assert written["student"] == {"file": str(tmp_path / "s.onnx"), "ap": 0.557, "milliseconds": 9.8, "cost": 9.8}
    assert (written["budget_met"], written["ship"]) == (True, str(tmp_path / "s.onnx"))
    report = folder.report.read_text()
    for told in (fitted.verdict.words, taken[0].split(",")[0], "msad teacher --scales alone", "onnxruntime"):
        assert told in report
    assert "://" not in report
    assert not list(folder.path.glob(".*"))


def test_a_machine_whose_speed_changed_is_told_of(
    tmp_path: Path, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    slower = iter([1.0, 1.6])
    monkeypatch.setattr(
        job,
        "measure_candidate",
        lambda candidate, *more: replace(given(candidate), slower=next(slower, 1.0)),
    )
    monkeypatch.setattr(job, "measure_files", lambda files, *more: (dict.fromkeys(files, 9.0), 0.5))
    folder, state = begin(tmp_path)
    listener = Writing()
    verdict = fit_model(folder, state, listener).verdict
    assert verdict is not None
    told = "of its speed when the fit began; ms are told as if it had all of it"
    # 1 / 1.6 is 62.5%, and twice as fast 200%.
    assert any(f"candidates were measured, this machine had 62% to 100% {told}" in line for line in listener.lines)
    assert f"; while trained models were measured, this machine had 200% {told}" in verdict.words
    assert folder.load().pace == 4.0


def test_a_dry_run_writes_nothing(tmp_path: Path, given: Given) -> None:
    folder, state = begin(tmp_path)
    listener = Writing()
    fitted = fit_model(folder, state, listener, dry_run=True)
    assert (fitted.verdict, listener.commands, list(tmp_path.iterdir())) == (None, [], [])
    assert json.loads(json.dumps(fitted.to_json()))["plan"]["epochs"] == {"teacher": 0, "student": 80, "plain": 80}


def test_a_fit_goes_on_at_the_command_that_was_stopped(tmp_path: Path, given: Given) -> None:
    folder, state = begin(tmp_path)
    assert fit_model(folder, state, Writing([0, 130])).stopped == 130
    listener, before = Writing(), list(given.asked)
    fitted = fit_model(folder, folder.load(), listener)
    assert [words[0] for words in listener.commands] == ["export", "export", "teacher", "export", "bench"]
    assert given.asked == before
    assert fitted.verdict is not None
    # And once more: there is nothing left to do but the verdict.
    again = Writing()
    assert fit_model(folder, folder.load(), again).verdict == fitted.verdict
    assert again.commands == []


def test_what_was_measured_outlives_an_interruption(
    tmp_path: Path, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(candidate: object, *more: object) -> object:
        if len(given.asked) == 2:
            raise KeyboardInterrupt
        return given(candidate)  # type: ignore[arg-type]

    monkeypatch.setattr(job, "measure_candidate", interrupted)
    folder, state = begin(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit_model(folder, state, Writing())
    measured = list(folder.load().measured)
    assert measured == given.asked
    monkeypatch.setattr(job, "measure_candidate", lambda candidate, *more: given(candidate))
    fit_model(folder, folder.load(), Writing())
    assert len(set(given.asked)) == len(given.asked) > 2


def test_weights_that_cannot_be_had_end_it_before_anything_is_measured(
    tmp_path: Path, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of networks of full width alone are asked for."""
    asked: list[str] = []

    def offline(weights: Any) -> None:
        asked.append(weights.url.rpartition("/")[2].partition("-")[0])
        raise UsageError("cannot download it", "--init none", code="download-failed")

    monkeypatch.setattr(initialise, "of_torchvision", offline)
    both = tuple(replace(candidates.NETWORKS[0], width=width) for width in (0.5, 1.0))
    monkeypatch.setattr(candidates, "NETWORKS", both)
    folder, state = begin(tmp_path, init="imagenet")
    listener = Writing()
    with pytest.raises(UsageError, match="cannot download it"):
        fit_model(folder, state, listener)
    assert (asked, given.asked, listener.commands) == (["resnet18"], [], [])
    assert "ImageNet weights of resnet18" in listener.lines[-1]
    folder, state = begin(tmp_path)
    assert fit_model(folder, state, Writing(), dry_run=True).commands
    assert asked == ["resnet18"]


def test_a_teacher_is_trained_where_it_is_asked_for(tmp_path: Path, given: Given) -> None:
    folder, state = begin(tmp_path, teacher_epochs=90, control=False)
    listener = Writing()
    fitted = fit_model(folder, state, listener)
    assert fitted.plan["epochs"] == {"teacher": 90, "student": 40, "plain": 0}
    assert [words[0] for words in listener.commands] == ["teacher", "distill", "export", "export", "bench"]
    assert fitted.verdict is not None
    assert fitted.verdict.words.endswith("no plain detector was trained")


def test_at_k_4_a_teacher_is_trained_where_the_time_holds_both_trainings(tmp_path: Path, given: Given) -> None:
    """Of 40 epochs at 0.5 s, 40 at 0.2 and 80 at 0.1, which are 36 s."""
    folder, state = begin(tmp_path, k="4", time="1m")
    fit_model(folder, state, listener := Writing())
    assert [words[0] for words in listener.commands][:2] == ["teacher", "distill"]
    folder, state = begin(tmp_path, k="4", time="30s", out=tmp_path / "other.safetensors")
    fitted = fit_model(folder, state, Writing())
    assert fitted.plan["epochs"] == {"teacher": 0, "student": 80, "plain": 80}
    assert "the time does not hold" in " ".join(fitted.plan["lines"])


def test_a_budget_that_nothing_meets(tmp_path: Path, given: Given) -> None:
    folder, state = begin(tmp_path, budget="2.1ms")
    listener = Writing()
    with pytest.raises(UnmetBudgetError, match=r"no candidate meets it.*the nearest, fcos.*takes \d\.\d ms") as error:
        fit_model(folder, state, listener)
    assert error.value.exit_code == 9
    assert listener.tables
    # The budget that it names is one.
    enough = error.value.hint.split()[1]
    again, state = begin(tmp_path, budget=enough)
    assert fit_model(again, state, Writing(), dry_run=True).plan["candidates"]


def test_a_budget_that_only_students_meet(tmp_path: Path, given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = given.latency
    monkeypatch.setattr(given, "latency", lambda each: 100.0 if each.plain else rule(each))
    folder, state = begin(tmp_path)
    fitted = fit_model(folder, state, Writing())
    assert fitted.verdict is not None
    assert fitted.verdict.words.endswith("; no plain detector meets the budget")
    assert fitted.plan["epochs"]["plain"] == 0


def test_a_plain_detector_that_finds_nothing_ends_no_fit(tmp_path: Path, given: Given) -> None:
    folder, state = begin(tmp_path)
    listener = Writing(raises="plain")
    fitted = fit_model(folder, state, listener)
    assert fitted.verdict is not None
    assert "the plain detector of that budget finds nothing" in fitted.verdict.words
    assert listener.commands[-1][:2] == ("bench", str(tmp_path / "s.onnx"))
    assert not any("plain" in Path(word).name for word in listener.commands[-1])


def test_a_student_that_has_no_graph_of_8_bits_ends_no_fit(tmp_path: Path, given: Given) -> None:
    """Nor does a file of that name which another fit has left."""
    folder, state = begin(tmp_path)
    fitted = fit_model(folder, state, listener := Writing(raises="--int8"))
    assert fitted.verdict is not None
    assert (fitted.verdict.int8, fitted.verdict.met) == (None, True)
    assert "8 bits" not in fitted.verdict.words
    assert "no graph of 8 bits: nothing was written" in listener.lines
    (tmp_path / "s.int8.onnx").touch()
    state.steps = [each for each in state.steps if each.part != "int8"]  # as older versions planned
    again = fit_model(folder, state, Writing()).verdict
    assert again is not None
    assert again.int8 is None


def test_a_student_that_finds_nothing_does_and_says_how_to_go_on(tmp_path: Path, given: Given) -> None:
    folder, state = begin(tmp_path)
    with pytest.raises(GateMissedError) as error:
        fit_model(folder, state, Writing(raises="s.safe"))
    assert error.value.hint == f"train it; then go on: msad fit --resume {folder.path}"


def outcome(ap: float | None, cost: float, name: str = "s.onnx") -> Outcome:
    return Outcome(Path(name), ap, cost, cost)


def test_the_verdict_is_on_the_users_side() -> None:
    budget = parse_budget("15ms")
    plain = outcome(0.60, 14.0, "plain.onnx")
    better = decide(budget, outcome(0.557, 9.8), plain, {})
    assert better.ship == Path("plain.onnx")
    assert better.words.endswith("The plain detector is better by 4.3 AP: ship plain.onnx")
    even = decide(budget, outcome(0.595, 9.8), plain, {})
    assert even.ship == Path("s.onnx")
    assert "They are even" in even.words
    # One that is over the budget is no rival.
    over = decide(budget, outcome(0.557, 9.8), outcome(0.60, 16.5, "plain.onnx"), {})
    assert (over.ship, over.control_met) == (Path("s.onnx"), False)
    assert "in 16.5 ms, 10% over it" in over.words
    missed = decide(budget, outcome(0.557, 18.0), None, {})
    assert not missed.met
    assert "(budget 15ms), 20% over the budget" in missed.words
    nothing = decide(budget, outcome(None, 9.8), None, {"control": "none fits"})
    assert nothing.words == "student - AP in 9.8 ms (budget 15ms); none fits"
    size = decide(parse_budget("5MB"), Outcome(Path("s"), 0.5, 9.8, 4.2e6), None, {})
    assert "(budget 5MB, it takes 4.2 MB)" in size.words


def test_the_page_of_a_fit_takes_any_text_and_shows_what_was_trained(tmp_path: Path) -> None:
    write_run(tmp_path / "s.safetensors", "low", 0.432, {"<i>": {"AP": 0.25}}, {}, curves())
    models = {"student": tmp_path / "s.safetensors", "plain": tmp_path / "no.safetensors"}
    html = page("a < b", [["k"], ["<2>"], ["4"]], [2], ["x & y"], ["msad fit"], models)
    parsed = Page(html)
    assert parsed.unclosed == []
    assert parsed.of("strong") == ["a < b"]
    assert parsed.tables[0] == [["k"], ["<2>"], ["4"]]
    assert "x & y" in parsed.of("p")
    assert parsed.tables[1][1][:4] == ["student", "low", "boxes", "43.2"]
    assert parsed.tables[2] == [["<i>", "25.0"]]
    assert html.count('<tr class="chosen">') == 1
    assert "student, low" in parsed.of("text")


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ([], 2, "no --data given"),
        (["--data", "d"], 2, "no --budget given"),
        (["--data", "d", "--budget", "soon"], 2, "not a budget"),
        (["--data", "d", "--budget", "5ms", "--time", "x"], 2, "not a time"),
        (["--data", "d", "--budget", "5ms", "--detector", "maskrcnn"], 2, "not one that msad fit chooses among"),
        (["--data", "d", "--budget", "5ms", "--backbone", "resnet19"], 2, "did you mean resnet18"),
        (["--data", "d", "--budget", "5ms", "--backbone", "resnet18", "--init", "gone.pth"], 4, "gone.pth"),
        (["--data", "d", "--budget", "5ms", "--device", "gpu"], 2, "--device gpu"),
        (["--data", "/nowhere/at/all", "--budget", "5ms"], 3, "nowhere"),
        (["--resume", "/nowhere/s.fit"], 2, "nothing to resume"),
        (["--resume", "/nowhere/s.fit", "--budget", "5ms"], 2, "--resume with --budget"),
    ],
)
def test_mistakes_are_told_and_raised(
    flags: list[str], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["fit", *flags]) == code
    assert words in capsys.readouterr().err
    settings: dict[str, Any] = {flag[2:]: value for flag, value in zip(flags[::2], flags[1::2], strict=True)}
    with pytest.raises(msad.MsadError, match=re.escape(words)) as caught:
        msad.fit(**settings)
    assert caught.value.exit_code == code
    assert capsys.readouterr() == ("", "")


def test_python_plans_what_the_command_does_and_says_nothing(
    tmp_path: Path, given: Given, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--teacher-epochs", "90", "--no-control", "--threads", "2"]
    assert run(["fit", "--data", "d", "--budget", "10ms", "--k", "2", *flags, "--dry-run", "--json"]) == 0
    told = document(capsys.readouterr().out)
    planned = msad.fit(data="d", budget="10ms", k="2", teacher_epochs=90, control=False, threads=2, dry_run=True)
    assert planned.to_json() == {name: told[name] for name in ("plan", "commands", "result")}
    named = msad.fit(data=Path("d"), budget="10ms", k="2", out="s.safetensors", dry_run=True)  # type: ignore[arg-type]
    assert named.commands[0].startswith("msad teacher --scales alone --k 2")
    assert named.commands[0].endswith("--data d --epochs 80 --out s.safetensors")
    assert planned.plan["epochs"] == {"teacher": 90, "student": 40, "plain": 0}
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    for name, wrong in {"threads": 0, "teacher_epochs": 0}.items():
        with pytest.raises(UsageError, match="0: not "):
            msad.fit(data="d", budget="10ms", **{name: wrong})  # type: ignore[arg-type]


def test_python_is_interrupted_and_goes_on(
    tmp_path: Path, given: Given, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Where a budget is missed, what was trained is there all the same."""
    monkeypatch.chdir(tmp_path)
    writing = Writing([0, 130])
    monkeypatch.setattr("msad_cli.fitting.programs.Programs.run", lambda self, *of: writing.run(*of))
    with pytest.raises(KeyboardInterrupt):
        msad.fit(data="d", budget="10ms", k="2")
    assert capsys.readouterr() == ("", "")
    with pytest.raises(UsageError, match=r"^student\.fit exists"):
        msad.fit(data="d", budget="10ms")
    assert "quiet" not in json.loads(Path("student.fit/state.json").read_text())["config"]
    LATENCIES.update(student=12.0)
    fitted = msad.fit(resume=Path("student.fit"), quiet=False)
    assert [words[0] for words in writing.commands[2:]] == ["export", "export", "teacher", "export", "bench"]
    assert fitted.verdict is not None
    assert (fitted.verdict.ship, fitted.verdict.met) == (Path("student.onnx"), False)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line[2:] for line in printed.err.splitlines() if line.startswith("$ ")] == fitted.commands[1:]
    # The rows that were taken, of the student and of the plain detector.
    assert len([line for line in printed.err.splitlines() if line.startswith("→ ")]) == 2


def test_the_command_prints_json_and_ends_by_the_budget(
    tmp_path: Path, given: Given, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = ["fit", "--data", "d", "--budget", "10ms", "--k", "2", "--dry-run", "--json"]
    assert run(typed) == 0
    told = document(capsys.readouterr().out)
    assert told["result"] is None
    assert told["commands"][0].startswith("msad teacher --scales alone --k 2")
    assert run(["fit", "--data", "d", "--budget", "2.1ms", "--json"]) == 9
    assert document(capsys.readouterr().out)["error"]["code"] == "budget-unmet"
    # What was trained may be over the budget.
    writing = Writing()
    monkeypatch.setattr("msad_cli.cli.commands.fit._Console.run", lambda self, *of: writing.run(*of))
    LATENCIES.update(student=12.0)
    assert run(["fit", "--data", "d", "--budget", "10ms", "--json", "--overwrite"]) == 9
    captured = capsys.readouterr()
    assert document(captured.out)["result"]["budget_met"] is False
    assert "20% over the budget" in captured.err
    # Without --json the verdict is on stdout, and so it was before.
    LATENCIES.update(student=9.8)
    assert run(["fit", "--data", "d", "--budget", "10ms", "--k", "2", "--overwrite"]) == 0
    assert "student 55.7 AP in 9.8 ms (budget 10ms)" in capsys.readouterr().out


def test_a_result_is_not_written_over_unasked(tmp_path: Path, given: Given) -> None:
    folder, state = begin(tmp_path)
    fit_model(folder, state, Writing())
    with pytest.raises(UsageError, match="exists"):
        FitFolder(folder.path).refuse_used(False, state.config.out)


@pytest.mark.parametrize(
    ("data", "budget", "hint"),
    [("", "5ms", "add --data DIR"), ("d", "", "add --budget, such as 15ms, 30fps, 0.5GMACs or 5MB")],
)
def test_a_missing_flag_is_named_as_it_is_typed(data: str, budget: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        FitConfig(data=data, budget=budget)
    assert raised.value.hint == hint
