"""Two processes on the CPU do what one does: losses, weights, evaluation, endings.

Sums go in another order over two processes than over one. In float32 that is an error of 1e-7 of a number at a time,
and a few steps of SGD carry it on: numbers are compared to 5e-5 of their size, or to 2e-6 where they are near zero.
"""

import csv
import multiprocessing
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from msad_cli.cli.app import run
from msad_cli.data.annotations.split import read_split
from msad_cli.data.layouts.demo import draw_demo
from msad_cli.data.loading.dataset import Batch, Sample
from msad_cli.data.loading.sampler import MixedSampler, StepSampler
from msad_cli.distillation.aligned_teacher import AlignedTraining
from msad_cli.distillation.distillation import Distillation, teaching
from msad_cli.distillation.labelled_part import LabelledPart
from msad_cli.distillation.losses.table import build_distillers
from msad_cli.distillation.pixel import PixelDistillation
from msad_cli.distillation.two_step import TwoStepTraining
from msad_cli.evaluation.detect_split import put_together, view_results
from msad_cli.frame import Resolution
from msad_cli.models.detector import Detector
from msad_cli.models.spec import ClassName, DetectorSpec, Scales
from msad_cli.runs.folder import RunFolder
from msad_cli.system import distributed
from msad_cli.system.device import Compute
from msad_cli.training.steps.loop import Step, train
from msad_cli.training.steps.optimiser import sgd
from msad_cli.training.steps.schedule import Schedule

RELATIVE, ABSOLUTE = 5e-5, 1e-5
close = partial(pytest.approx, rel=RELATIVE, abs=ABSOLUTE)
CPU = Compute(torch.device("cpu"), "fp32")
CONSTANT = Schedule(0.01, 1000, 0, "steps")
TINY = shlex.split(
    "--init none --backbone resnet18 --width 0.125 --head-channels 64 --head-convs 1 --size 64,96 --device cpu "
    "--precision fp32 --workers 0 --ema 0.9 --lr 0.0025"
)
PATIENCE = 120
"""Seconds until two processes are taken to wait for each other for ever."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As the processes have it: with another number sums have other last digits, and near ties another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# A server that has torch loaded forks the processes: what takes time is training, not importing.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["test_distributed", "msad_cli.training.trainer", "msad_cli.models.weights.initialise"]
)


def _member(rank: int, port: int, folder: Path, environment: Mapping[str, str], work: Callable[[], Any]) -> None:
    """One of two processes, as torchrun would start it; its words go to a file, its result to another."""
    place = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update(environment, **{name: str(each) for name, each in place.items()})
    torch.set_num_threads(1)
    with (folder / f"{rank}.txt").open("w") as said:
        os.dup2(said.fileno(), 2)
        code: Any = 0
        try:
            result = work()
            code = result if isinstance(result, int) else 0
            torch.save(result, folder / f"{rank}.pt")
            # One that outlives the run may abort the interpreter at its end, after all went well.
            names = [each.read_text() for each in Path("/proc/self/task").glob("*/comm")]
            assert code not in (0, 128 + signal.SIGTERM) or not any("gloo" in each for each in names), names
        except SystemExit as error:
            code = error.code
        sys.stderr.flush()
        os._exit(code)


def in_two(folder: Path, work: Callable[[], Any], hung: bool = False) -> list[int]:
    """The exit codes of two processes that do some work; the second is killed in the end where it is to hang."""
    folder.mkdir(exist_ok=True)
    # As with torchrun, what they meet at lives on when one of them ends.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    environment = {"MSAD_CACHE": os.environ["MSAD_CACHE"], "TORCHELASTIC_USE_AGENT_STORE": "True"}
    both = [PROCESSES.Process(target=_member, args=(rank, store.port, folder, environment, work)) for rank in range(2)]
    for each in both:
        each.start()
    end = time.monotonic() + PATIENCE
    for each in both[: 1 if hung else 2]:
        each.join(timeout=max(0.0, end - time.monotonic()))
    if hung:
        both[1].kill()
        both[1].join()
    stuck = [each for each in both if each.exitcode is None]
    for each in stuck:
        each.kill()
        each.join()
    said = "\n".join((folder / f"{rank}.txt").read_text() for rank in range(2))
    assert not stuck, said
    return [int(each.exitcode or 0) for each in both]


def _joined(work: Callable[[], Any]) -> Any:
    distributed.join()
    result = work()
    distributed.wait_for_all()
    distributed.leave()
    return result


def results_of_two(folder: Path, work: Callable[[], Any]) -> list[Any]:
    """What two processes give back that know of each other."""
    codes = in_two(folder, partial(_joined, work))
    assert codes == [0, 0], "\n".join((folder / f"{rank}.txt").read_text() for rank in range(2))
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


# --- losses and gradients ---


def spec(
    detector: str = "fcos", role: Literal["teacher", "student"] = "teacher", k: int = 1, scales: Scales = "aligned"
) -> DetectorSpec:
    """A teacher of the views 1 and 2, or a student of one."""
    ks = (1, 2) if role == "teacher" else (k,)
    return DetectorSpec(
        role=role,
        detector=detector,
        backbone="resnet18",
        width=0.125,
        channels=64,
        head_convs=1,
        norm="group",
        scales=scales,
        ks=ks,
        resolution=Resolution(64, 96),
        classes=(ClassName(7, "red"), ClassName(90, "blue")),
    )


def images(count: int) -> list[Sample]:
    """Noise of 128×128 pixels; the first has no object, the second one, the third seven, and so on."""
    draw = torch.Generator().manual_seed(3)
    samples = []
    for index in range(count):
        high = torch.randint(0, 256, (3, 128, 128), dtype=torch.uint8, generator=draw)
        objects = (0, 1, 7)[index % 3]
        corners = torch.rand(objects, 2, generator=draw) * 80
        boxes = torch.cat([corners, corners + 12 + 30 * torch.rand(objects, 2, generator=draw)], dim=1)
        target = {"boxes": boxes, "labels": torch.randint(1, 3, (objects,), generator=draw)}
        samples.append(Sample(index, (128, 128), (128, 128), {1: high, 2: high[:, ::2, ::2]}, target))
    return samples


def share(samples: Sequence[Sample]) -> Batch:
    """What this process gets of a batch."""
    sampler = StepSampler(len(samples), len(samples), 0, 0, 1, (distributed.rank(), distributed.size()))
    return Batch(tuple(samples[sampler.slice]))


def method(name: str) -> nn.Module:
    torch.manual_seed(1)
    if name in ("fcos", "retinanet"):
        return AlignedTraining(Detector(spec(name)))
    if name == "two-step":
        return TwoStepTraining(Detector(spec()), 1)
    if name == "pixel":
        small, assistant = Detector(spec(role="student", k=2, scales="single")), Detector(spec(role="student"))
        distillers = build_distillers(small.spec, assistant.spec, {"l1": 0.6, "output-kd": 1.0})
        return PixelDistillation(small, assistant, "shift", distillers, 1, 1)
    teacher, student = Detector(spec()), Detector(spec(role="student", k=2))
    distillers = build_distillers(student.spec, teacher.spec, dict.fromkeys(name.split(","), 1.0))
    return Distillation(student, teaching(teacher, student), distillers, 0)


def steps_of(module: nn.Module, count: int, steps: int = 2) -> list[Step]:
    return list(train(module, [share(images(count))] * steps, sgd(module, 0.01), CONSTANT, CPU))


LOSSES = "l1,output-kd,fgfi,fgd,skd,podnet,cwd,amd,dmkd,dsamkd,samkd"
"""Not pkd and crosskd, which standardise maps over the images at hand, nor what draws at random."""
LONG = 10
"""Steps in which a teacher learns something."""


def trained(name: str, count: int, steps: int = 2) -> tuple[list[Step], dict[str, Tensor]]:
    module = method(name)
    return steps_of(module, count, steps), module.state_dict()


def all_trained(cases: Sequence[tuple[str, int]]) -> list[tuple[list[Step], dict[str, Tensor]]]:
    return [trained(name, count) for name, count in cases]


def learnt() -> tuple[list[Step], dict[str, Tensor]]:
    return trained("fcos", 2, LONG)


def assert_close(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, each in one.items():
        torch.testing.assert_close(other[name], each, rtol=RELATIVE, atol=ABSOLUTE, msg=name)


@pytest.mark.parametrize(
    "cases",
    [
        [("fcos", 3), (LOSSES, 3), ("fcos", 1)],
        pytest.param(
            [("retinanet", 3), ("two-step", 3), ("pixel", 3), (LOSSES, 1)], marks=pytest.mark.slow, id="the rest"
        ),
    ],
)
def test_losses_gradients_and_weights_are_those_of_one_process(cases: list[tuple[str, int]], tmp_path: Path) -> None:
    """Two steps of teachers and of students, of so many images.

    Of three images, the first process has the one without objects. Of a single one, it has none.
    """
    first, second = results_of_two(tmp_path, partial(all_trained, cases))
    for alone, here, there in zip(all_trained(cases), first, second, strict=True):
        for expected, got, other in zip(alone[0], here[0], there[0], strict=True):
            assert got.losses == close(expected.losses)
            assert got.gradient_norm == close(expected.gradient_norm)
            assert expected.indices == got.indices
            assert (got.losses, got.gradient_norm, got.indices) == (other.losses, other.gradient_norm, other.indices)
        assert_close(alone[1], here[1])
        assert all(torch.equal(each, there[1][name]) for name, each in here[1].items())


# --- batches with images that nobody has labelled ---


def mixed_batch(labelled: int, others: int) -> Batch:
    """What this process gets of a batch of labelled images and others behind them."""
    place = (distributed.rank(), distributed.size())
    own = StepSampler(labelled, labelled, 0, 0, 1, place)
    (keys,) = MixedSampler(own, range(labelled, labelled + others), others, place)
    # From the second image on, as the first has no object.
    every = images(1 + labelled + others)[1:]
    unlabelled = [replace(each, target={}) for each in every[labelled:]]
    return Batch(tuple([*every[:labelled], *unlabelled][index] for _, index in keys))


def mixed(cases: Sequence[tuple[str, int, int]]) -> list[tuple[list[Step], dict[str, Tensor]]]:
    """Two steps of students on so many labelled images and others."""
    found = []
    for detector, labelled, others in cases:
        torch.manual_seed(1)
        teacher, student = Detector(spec(detector)), Detector(spec(detector, role="student", k=2))
        distillers = build_distillers(student.spec, teacher.spec, {"output-kd": 1.0, "l1": 1.0})
        detection = LabelledPart(labelled / (labelled + others))
        module = Distillation(student, teaching(teacher, student), distillers, 0, detection)
        batches = [mixed_batch(labelled, others)] * 2
        found.append((list(train(module, batches, sgd(module, 0.01), CONSTANT, CPU)), module.state_dict()))
    return found


def test_mixed_batches_are_those_of_one_process(tmp_path: Path) -> None:
    """Of three labelled images and two others the first process has one of each, the second two and one; of one and
    three, the first has no labelled image. The losses of all are means and sums over the labelled ones."""
    cases = [("fcos", 3, 2), ("retinanet", 3, 2), ("fcos", 1, 3), ("retinanet", 1, 3)]
    first, second = results_of_two(tmp_path, partial(mixed, cases))
    for alone, here, there in zip(mixed(cases), first, second, strict=True):
        for expected, got, other in zip(alone[0], here[0], there[0], strict=True):
            assert expected.losses["student/classification"] > 0
            assert expected.losses["student/bbox_regression"] > 0
            assert got.losses == close(expected.losses)
            assert got.gradient_norm == close(expected.gradient_norm)
            assert sorted(got.indices) == sorted(expected.indices)
            assert got.losses == other.losses
        assert_close(alone[1], here[1])


@pytest.mark.slow
def test_what_is_learnt_is_what_one_process_learns(tmp_path: Path) -> None:
    """Over ten steps, in which the losses fall by a third, differences grow: to 1e-2 of a number, or to 1e-3."""
    (here, weights), (_, others) = results_of_two(tmp_path, learnt)
    alone, expected = learnt()
    first, last = (sum(step.losses.values()) for step in (alone[0], alone[-1]))
    assert last < 0.67 * first
    for one, two in zip(alone, here, strict=True):
        assert two.losses == pytest.approx(one.losses, rel=1e-2, abs=1e-3)
    for name, each in expected.items():
        torch.testing.assert_close(weights[name], each, rtol=1e-2, atol=1e-3, msg=name)
        assert torch.equal(weights[name], others[name])


class Line(nn.Module):
    """Loss = weight × mean of the images' first pixels; a second parameter never has a gradient."""

    passes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.unused = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, views: Mapping[int, Sequence[Tensor]], _targets: object) -> dict[str, Tensor]:
        self.passes += 1
        return {"line": self.weight * self.seen(torch.stack([each[0, 0, 0].float() for each in views[1]])).mean()}

    def seen(self, values: Tensor) -> Tensor:
        return values


class Broken(Line):
    """In the second process the loss is not finite, in the second step."""

    calls = 0

    def seen(self, values: Tensor) -> Tensor:
        self.calls += 1
        return values * (torch.inf if distributed.rank() == 1 and self.calls == 2 else 1)


class Drawing(Line):
    """Weights its images by what all three global generators draw."""

    def seen(self, values: Tensor) -> Tensor:
        self.drawn = (float(torch.rand(())), float(np.random.rand()), random.random())
        return values


def lines() -> dict[str, Any]:
    """What the two processes agree on, in each of them."""
    found: dict[str, Any] = {}
    for name, line in {"plain": Line(), "broken": Broken()}.items():
        found[name] = ([each.updated for each in steps_of(line, 4, steps=3)], line.state_dict())
    drawing = Drawing()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    draws = []
    for first in (0, 0, 1):
        list(train(drawing, [share(images(2))], sgd(drawing, 0.1), CONSTANT, CPU, first_step=first, seed=5))
        draws.append(drawing.drawn)
    found["draws"] = draws
    torn = Batch((), {4: "torn"}) if distributed.rank() == 1 else share(images(2))
    both = [torn, Batch((), {5 + distributed.rank(): "torn"})]
    found["torn"] = [(each.indices, each.unreadable) for each in train(Line(), both, sgd(Line(), 0.1), CONSTANT, CPU)]
    return found


def test_processes_agree_on_what_one_of_them_meets(tmp_path: Path) -> None:
    """A loss that is not finite, images that cannot be read; and each draws for itself."""
    here, there = results_of_two(tmp_path, lines)
    plain = Line()
    steps_of(plain, 4, steps=3)
    assert here["plain"] == there["plain"]
    assert_close({**plain.state_dict(), "unused": torch.tensor(2.0)}, here["plain"][1])  # no decay without a gradient
    assert here["broken"] == there["broken"]
    assert here["broken"][0] == [True, False, True]
    assert here["broken"][1]["passes"] == 2  # of three steps, one of which left no trace
    assert len({*here["draws"], *there["draws"]}) == 3 + 2  # the second process draws by step, the first one goes on
    assert there["draws"][0] == there["draws"][1]
    assert here["torn"] == there["torn"] == [((0,), {4: "torn"}), ((), {5: "torn", 6: "torn"})]


# --- evaluation ---


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "demo"
    draw_demo(folder, train=7, val=5, seed=1, size=(128, 96))
    return folder


def detected(folder: Path) -> Any:
    split = read_split(folder / "annotations" / "instances_val2017.json", folder / "val2017")
    torch.manual_seed(0)
    model = Detector(spec(role="student", k=2))
    found = view_results(model, split, "low", CPU, workers=0, batch=2)
    cut = put_together(None if distributed.rank() else found, split) if distributed.size() > 1 else None
    whole = put_together(found, split) if distributed.size() > 1 else found
    return whole and whole.results, cut


def test_what_is_found_in_shares_is_what_one_process_finds(demo: Path, tmp_path: Path) -> None:
    """Five images in batches of two: the first process has three of them. The same results in the same order."""
    (here, cut), (there, also_cut) = results_of_two(tmp_path, partial(detected, demo))
    expected, _ = detected(demo)
    assert len({each["image_id"] for each in expected}) == 5
    assert [(each["image_id"], each["category_id"]) for each in here] == [
        (each["image_id"], each["category_id"]) for each in expected
    ]
    for got, wanted in zip(here, expected, strict=True):
        # Results have two decimals of a pixel and five of a score; rounding may tip the last one.
        assert got["bbox"] == pytest.approx(wanted["bbox"], abs=0.0101)
        assert got["score"] == pytest.approx(wanted["score"], abs=0.0000101)
    assert there == []
    assert cut is also_cut is None


# --- whole runs ---


def rows(out: Path) -> list[dict[str, float]]:
    """results.csv without what depends on the machine's mood."""
    lines = (out.with_suffix(".run") / "results.csv").read_text().splitlines()
    timed = ("images/s", "memory_mib")
    return [{name: float(value) for name, value in row.items() if name not in timed} for row in csv.DictReader(lines)]


def assert_same_run(one: Path, other: Path) -> None:
    """Parameters and results.csv, but for rounding, which may exchange detections of nearly one score: AP of another
    order of two moves by some 1e-4."""
    assert_close(load_file(one), load_file(other))
    assert [row["epoch"] for row in rows(one)] == [1.0, 2.0]
    for expected, got in zip(rows(one), rows(other), strict=True):
        judged = [name for name in expected if name.startswith(("AP", "AR"))]
        assert [got.pop(name) for name in judged] == pytest.approx([expected.pop(name) for name in judged], abs=1e-3)
        assert got == close(expected)


def flags(demo: Path, out: Path) -> list[str]:
    """Batches of three do not divide evenly, and seven images leave one over."""
    return ["teacher", "--data", str(demo), *TINY, "--batch", "3", "--epochs", "2", "--out", str(out)]


@pytest.fixture(scope="module")
def whole(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    out = tmp_path_factory.mktemp("whole") / "whole.safetensors"
    assert run(flags(demo, out)) == 0
    return out


@pytest.mark.slow
def test_torchrun_trains_what_one_process_trains_and_writes_once(demo: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "two.safetensors"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "msad_cli"]
    done = subprocess.run(
        [*command, *flags(demo, out)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "find_unused_parameters" not in done.stderr  # torch's advice in every process
    assert_same_run(whole, out)
    names = [
        {str(each.relative_to(of.parent)).replace(of.stem, "") for each in of.parent.rglob("*")} for of in (whole, out)
    ]
    # In this process no plots are drawn, see conftest.py.
    names = [{each for each in of if not each.startswith(".run/plots")} for of in names]
    assert names[0] == names[1]
    log = (out.with_suffix(".run") / "log.txt").read_text()
    assert log.count("epoch 1/2") == log.count("epoch 2/2") == 1
    for words in ("plan of", "epoch 1/2", "next: msad distill"):
        assert done.stderr.count(words) == 1


def stopping(number: signal.Signals, of: int, step: int, arguments: list[str]) -> int:
    """A run in which one process gets a signal in a step."""
    forward = AlignedTraining.forward
    calls: list[int] = []

    def signalled(self: Any, views: Any, targets: Any) -> dict[str, Tensor]:
        calls.append(1)
        if len(calls) == step and int(os.environ["RANK"]) == of:
            os.kill(os.getpid(), number)
        return forward(self, views, targets)

    AlignedTraining.forward = signalled  # type: ignore[method-assign]
    return run(arguments)


def test_a_run_goes_on_with_fewer_and_with_more_processes(demo: Path, whole: Path, tmp_path: Path) -> None:
    """A signal to the second process stops both after the same step; one goes on, is stopped, and two finish."""
    out = tmp_path / "cut.safetensors"
    assert in_two(tmp_path / "first", partial(stopping, signal.SIGTERM, 1, 1, flags(demo, out))) == [143, 143]
    assert RunFolder(out).load_state()[0]["progress"]["step"] == 1
    assert "module.detector.core.backbone.body.conv1.weight" not in RunFolder(out).load_state()[0]["module"]
    resume = ["teacher", "--resume", "--out", str(out)]
    assert run([*resume, "--time", "0s"]) == 0
    assert RunFolder(out).load_state()[0]["progress"]["step"] == 2
    assert in_two(tmp_path / "second", partial(run, resume)) == [0, 0]
    said = [(tmp_path / "second" / f"{rank}.txt").read_text() for rank in range(2)]
    assert "going on after step 2" in said[0]
    assert "changed: processes" not in said[0]  # one process records no number of them
    assert said[1] == ""
    assert_same_run(whole, out)


def impatient(work: Callable[[], int]) -> int:
    """Work in which no process waits long for another."""
    distributed.TIMEOUT = timedelta(seconds=10)
    return work()


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)], ids=["killed", "hung"]
)
def test_a_lost_process_ends_the_other_with_a_message_and_a_state(
    number: signal.Signals, demo: Path, whole: Path, tmp_path: Path
) -> None:
    """One that is gone is noticed at once, one that stands still after the time-out."""
    out = tmp_path / "lost.safetensors"
    work: Callable[[], int] = partial(stopping, number, 1, 2, flags(demo, out))
    hung = number is signal.SIGSTOP
    codes = in_two(tmp_path / "said", partial(impatient, work) if hung else work, hung)
    assert codes == [6, -signal.SIGKILL]
    said = (tmp_path / "said" / "0.txt").read_text()
    assert "error: another process of this run has ended" in said
    assert f"msad teacher --resume --out {out}" in said
    assert RunFolder(out).load_state()[0]["progress"]["step"] == 1
    assert run(["teacher", "--resume", "--out", str(out)]) == 0
    assert_same_run(whole, out)


class _Bursting(torch.autograd.Function):
    @staticmethod
    def forward(_context: Any, loss: Tensor) -> Tensor:
        return loss.clone()

    @staticmethod
    def backward(_context: Any, *_: Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")


def crowded(back: bool, arguments: list[str]) -> int:
    """A run in which the second process has memory for a single image, in the second step and from then on."""
    forward = AlignedTraining.forward
    calls: list[int] = []

    def crowding(self: Any, views: Any, targets: Any) -> dict[str, Tensor]:
        calls.append(1)
        losses = forward(self, views, targets)
        if len(calls) < 2 or len(targets) < 2 or distributed.rank() == 0:
            return losses
        if not back:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {name: _Bursting.apply(each) for name, each in losses.items()}

    AlignedTraining.forward = crowding  # type: ignore[method-assign]
    return run(arguments)


@pytest.mark.parametrize("back", [pytest.param(False, marks=pytest.mark.slow), True], ids=["forward", "backward"])
def test_memory_that_runs_out_in_one_process_ends_the_run_with_the_batch_to_take(
    back: bool, demo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "crowded.safetensors"
    assert in_two(tmp_path / "said", partial(crowded, back, flags(demo, out))) == [6, 5]
    said = [(tmp_path / "said" / f"{rank}.txt").read_text() for rank in range(2)]
    assert "error" not in said[0]
    assert said[1].count("error: rank 1: out of memory on cpu with 2 images a process\n") == 1
    assert f"--batch 2; then go on: msad teacher --resume --out {out}" in said[1]
    state = RunFolder(out).load_state()[0]
    assert state["progress"]["step"] == 1
    if not back:  # the slow one goes on as the message says
        resume = ["teacher", "--resume", "--out", str(out), "--batch", "2"]
        assert in_two(tmp_path / "again", partial(crowded, back, resume)) == [0, 0]


def test_an_error_is_said_once(demo: Path, whole: Path, tmp_path: Path) -> None:
    """What all processes find is told by one of them; what one finds, by that one, with its rank."""
    assert in_two(tmp_path / "said", partial(run, flags(demo, whole))) == [2, 2]
    said = [(tmp_path / "said" / f"{rank}.txt").read_text() for rank in range(2)]
    assert "".join(said).count("exists") == 1
    assert said[1] == "" or said[1].startswith("error: rank 1: ")


def test_what_takes_one_process_is_refused(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert run(["info", str(whole)]) == 2
    assert "error: rank 1: msad info runs in one process, not in 2" in capsys.readouterr().err


THREADS = """
from pathlib import Path
import torch
from msad_cli.system import distributed

def gloo():
    return [each.read_text() for each in Path("/proc/self/task").glob("*/comm") if "gloo" in each.read_text()]

distributed.join()
torch.distributed.barrier()  # a thread has its name once it works
assert gloo()
module = torch.nn.Linear(1, 1)
replica = torch.nn.parallel.DistributedDataParallel(module)
optimiser = torch.optim.SGD(module.parameters())
replica(torch.ones(1, 1)).sum().backward()
optimiser.step()
del replica
distributed.leave()
assert not gloo(), gloo()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="threads' names are in /proc")
def test_no_thread_outlives_leaving() -> None:
    """One that does may abort the interpreter at its end, after all went well."""
    place = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-c", THREADS],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, **place},
    )
    assert done.returncode == 0, done.stderr


# --- shares ---


@pytest.mark.parametrize(("batch", "size"), [(7, 3), (4, 2), (2, 5), (1, 2)])
def test_shares_make_up_the_batch(batch: int, size: int) -> None:
    shares = [list(StepSampler(20, batch, 3, 0, 9, (rank, size))) for rank in range(size)]
    together = [[key for keys in step for key in keys] for step in zip(*shares, strict=True)]
    assert together == list(StepSampler(20, batch, 3, 0, 9))
    lengths = {len(keys) for steps in shares for keys in steps}
    assert max(lengths) - min(lengths) <= 1
