"""The comparison with YOLO, but for what needs YOLO."""

from pathlib import Path
from typing import Any

import pytest
from support.scripts import script


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Any:
    return script(monkeypatch, "benchmarks/peers.py")


def test_graphs_of_one_name_are_told_apart_by_their_folders(peers: Any) -> None:
    a, b, c = Path("a/student.onnx"), Path("b/student.onnx"), Path("b/other.onnx")
    assert peers.told_apart([a, b, c]) == {"a/student.onnx": a, "b/student.onnx": b, "other": c}


def test_lists_of_numbers_are_read_and_others_refused(peers: Any) -> None:
    assert peers.numbers("320,160") == [320, 160]
    assert peers.numbers("") == []
    with pytest.raises(ValueError, match="3a"):
        peers.numbers("3a")


def test_of_trainings_at_one_size_the_best_is_timed(peers: Any) -> None:
    def peer(seen: int, nbs: int, aps: list[float]) -> Any:
        return peers.Peer("yolo11n", 320, seen, nbs, [], aps)

    weak, strong, smaller = peer(320, 64, [57.0, 58.0]), peer(320, 8, [60.0, 61.0]), peer(160, 8, [46.0, 47.0])
    assert peers.best_of([weak, strong, smaller]) == [smaller, strong]
    assert [str(each) for each in (strong, smaller)] == [
        "yolo11n at 320, nbs 8",
        "yolo11n at 160, trained at 320, nbs 8",
    ]
