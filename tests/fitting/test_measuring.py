"""What a candidate is measured by: a head that finds as much as a trained one, runtimes that are there, its graph."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.fitting import facts
from support.specs import spec
from torch import Tensor

from msad_cli.errors import DataError
from msad_cli.export.base import Run
from msad_cli.export.sidecar import InputShape
from msad_cli.fitting.choice import measuring
from msad_cli.fitting.choice.candidates import Candidate, Network
from msad_cli.fitting.choice.facts import find_facts, usual_size
from msad_cli.fitting.choice.measuring import (
    find_runtimes,
    measure_candidate,
    shape_for,
    threads,
    time_runs,
)
from msad_cli.fitting.choice.planted import CELLS, FOUND, plant
from msad_cli.fitting.choice.yardstick import yardstick
from msad_cli.frame import Resolution
from msad_cli.models.detector import Detector


@pytest.mark.parametrize(("detector", "backbone"), [("fcos", "resnet18"), ("rtmdet", "cspnext_nano")])
@pytest.mark.parametrize("objects", [1, 12])
def test_an_untrained_head_finds_as_many_cells_as_objects_take_up(detector: str, backbone: str, objects: int) -> None:
    """Whatever it found before: FCOS's everything, RTMDet's nothing."""
    torch.manual_seed(0)
    width = 0.25 if detector == "fcos" else 0.5
    of = spec(detector=detector, backbone=backbone, width=width, head_convs=2, role="student", ks=(2,))
    model = Detector(of).eval()
    generator = torch.Generator().manual_seed(1)
    images = [torch.randint(0, 256, (3, 64, 96), generator=generator, dtype=torch.uint8) for _ in range(4)]

    def sure() -> list[int]:
        """Pairs of cell and class of each image that a found object's score has."""
        with torch.inference_mode():
            logits = [model.look({2: [each]}, "low").outputs["cls_logits"][..., -2:] for each in images]
        return [int((each.sigmoid() >= FOUND).sum()) for each in logits]

    assert sure() == [0] * 4
    plant(model, images, objects)
    found = sure()
    assert sum(found) / 4 == pytest.approx(CELLS * objects, rel=0.3)


def test_heads_of_two_stages_stay_as_they_are() -> None:
    model = Detector(spec(detector="maskrcnn", role="student", ks=(2,))).eval()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    plant(model, [torch.zeros(3, 64, 64, dtype=torch.uint8)], 3)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


def test_the_usual_image_and_whether_others_are_like_it() -> None:
    def of(*sizes: tuple[int, int]) -> tuple[tuple[int, int], bool]:
        return usual_size(torch.tensor(sizes, dtype=torch.int64).numpy())

    assert of(*[(480, 640)] * 30) == ((480, 640), True)
    assert of(*[(480, 640)] * 30, (640, 480)) == ((480, 640), True)  # one of 31
    assert of(*[(480, 640)] * 30, *[(640, 480)] * 3) == ((480, 640), False)
    assert of(*[(640, 480)] * 30) == ((640, 480), True)
    # Nearly square ones may lie or stand.
    assert of(*[(300, 300)] * 10, *[(302, 300)] * 10) == ((300, 301), True)
    assert of(*[(100, 200)] * 10, *[(100, 150)] * 9) == ((100, 200), False)


def test_facts_of_a_set(coco_folder: Path) -> None:
    """4 + 3 images of 64 × 48; 4 objects to learn from, as one is a crowd and one has no width; 4 in the 3 of val."""
    said: list[str] = []
    found = find_facts(str(coco_folder), said.append)
    assert (found.size, found.alike, found.objects) == ((48, 64), True, 2)
    # The medians of √(20·16), √(16·20), √(16·12) and √(14·18) over 48.
    assert found.side == pytest.approx((252**0.5 + 320**0.5) / 2 / 48)
    assert found.resolution(36) == Resolution(36, 48)
    assert said[0].startswith("checking 4 + 3 images")


def test_a_faulty_set_is_refused_before_anything(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        find_facts(str(tmp_path), lambda line: None)


def tiny(k: int = 2) -> Candidate:
    of = spec(role="student", ks=(k,), resolution=Resolution(64, 96), detections_per_image=10)
    return Candidate(Network("fcos", "resnet18", 0.25, 64, 1), of, (32, 48), 1e8, 1e8, 1_000_000)


def test_a_candidate_is_measured_in_every_runtime_that_is_there(
    coco_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "RUNS", 2)
    monkeypatch.setattr(measuring, "LEAST_SECONDS", 0.0)
    known, runtimes = find_facts(str(coco_folder), lambda line: None), find_runtimes()
    found = measure_candidate(tiny(), known, runtimes, 1, 4.0)
    assert set(found.milliseconds) == set(runtimes.names)
    assert list(found.milliseconds.values()) == sorted(found.milliseconds.values())
    assert found.latency == min(found.milliseconds.values()) > 0
    # Its parameters in float32, and the graph beside them.
    assert 4 * sum(each.numel() for each in Detector(tiny().spec).parameters()) < found.size < 2e7


def test_without_packages_torch_runs_it_and_that_is_said(coco_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    gone = {"onnx", "onnxscript", "onnxruntime", "openvino"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name in gone else find(name, *more))
    monkeypatch.setattr(measuring, "RUNS", 2)
    monkeypatch.setattr(measuring, "LEAST_SECONDS", 0.0)
    runtimes = find_runtimes()
    assert runtimes.names == ("torch",)
    assert "onnx is not installed" in runtimes.missing
    found = measure_candidate(tiny(), find_facts(str(coco_folder), lambda line: None), runtimes, 1, 4.0)
    assert (list(found.milliseconds), found.size) == (["torch"], 4_000_000)


def test_one_missing_runtime_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "openvino" else find(name))
    found = find_runtimes()
    assert found.names == ("onnxruntime", "torch")
    assert found.missing == "openvino not installed: not tried"


def test_sides_are_fixed_where_images_are_alike() -> None:
    assert shape_for(tiny(), facts()) == InputShape(1, (32, 48))
    assert shape_for(tiny(), replace(facts(), alike=False)) == InputShape()


def test_runs_take_turns_and_threads_come_back() -> None:
    calls: list[tuple[str, int]] = []

    def named(name: str) -> Run:
        def run(pixels: Tensor) -> list[Tensor]:
            calls.append((name, torch.get_num_threads()))
            return []

        return run

    before = torch.get_num_threads()
    images = [torch.full((3, 4, 4), each, dtype=torch.uint8) for each in (1, 2)]
    with threads(3):
        timed = time_runs({"a": named("a"), "b": named("b")}, images, 3, 0.0)
    assert torch.get_num_threads() == before
    assert calls == [("a", 3), ("b", 3)] * (measuring.RUNS + measuring.WARMUP)
    assert set(timed.yardsticks) == {"a", "b"}
    assert timed.busy == 1.0


def test_times_are_told_by_a_network_that_takes_turns_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class Clock:
        """Of a machine that is twice as slow in every second turn."""

        @staticmethod
        def perf_counter() -> float:
            return now

        process_time = perf_counter

    turn = 0

    def taking(milliseconds: float, ends_turn: bool = False) -> Run:
        def run(pixels: Tensor) -> list[Tensor]:
            nonlocal now, turn
            now += milliseconds / 1000 * (1 + turn % 2)
            turn += ends_turn
            return []

        return run

    monkeypatch.setattr(measuring, "time", Clock)
    monkeypatch.setattr(measuring, "yardstick", lambda: taking(4))
    images = [torch.zeros(3, 4, 4, dtype=torch.uint8)]
    timed = time_runs({"a": taking(6), "b": taking(10, ends_turn=True)}, images, 1, 0.0)
    assert timed.yardsticks == pytest.approx({"a": 1.5, "b": 2.5})
    # Of the 20 turns that count, ten have 4 ms and ten 8.
    assert timed.yardstick == pytest.approx(6.0)
    assert timed.busy == pytest.approx(1.0)


def test_the_yardstick_is_the_same_every_time_and_leaves_no_trace() -> None:
    state = torch.random.get_rng_state()
    image = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    first, second = yardstick()(image)[0], yardstick()(image + 9)[0]
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), state)
