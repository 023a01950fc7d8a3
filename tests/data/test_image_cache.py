"""--cache ram: the batches of the run without it, nothing decoded twice, and a refusal where it does not fit."""

import csv
import multiprocessing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.flags import EXACT, SMALLEST

from msad_cli.cli.app import run
from msad_cli.data.annotations.split import CocoSplit, read_split
from msad_cli.data.images.decode import read_image
from msad_cli.data.images.tones import BY_FILE, Tones
from msad_cli.data.layouts.demo import draw_demo
from msad_cli.data.loading import image_cache as kept
from msad_cli.data.loading.augment import ONE_SCALE, Augmentation
from msad_cli.data.loading.dataset import Batch, TrainingSet, first_batch, training_loader
from msad_cli.frame import Resolution
from msad_cli.system import memory
from msad_cli.system.memory import available_memory
from msad_cli.training import observer, sets

forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
RESOLUTION = Resolution(64, 96)
EPOCHS = 12


@pytest.fixture
def split(coco_folder: Path) -> CocoSplit:
    """Four images: JPEGs of two sizes, one of them turned by EXIF, a PNG, and a torn file."""
    found = read_split(coco_folder / "annotations" / "instances_train2017.json", coco_folder / "train2017")
    for index, (height, width) in enumerate([(485, 643), (215, 301), (48, 64), (48, 64)]):
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        exif = Image.Exif()
        exif[274] = 6 if index == 1 else 1
        Image.fromarray(pixels).save(found.path(index), "PNG" if index == 2 else "JPEG", exif=exif)
    found.path(3).write_bytes(found.path(3).read_bytes()[:1500])
    return found


def _batches(split: CocoSplit, workers: int, cache: bool, jitter: bool = True, epochs: int = 2) -> Iterator[Batch]:
    data = TrainingSet(split, RESOLUTION, (1, 2), seed=0, augmentation=Augmentation(jitter=jitter))
    if cache:
        data.keep_decoded()
    return training_loader(data, 4, workers, 0, epochs)


def _assert_same(one: Batch, other: Batch) -> None:
    assert one.indices == other.indices
    assert one.unreadable == other.unreadable
    for mine, its in zip(one.samples, other.samples, strict=True):
        assert (mine.original, mine.frame_size) == (its.original, its.frame_size)
        assert all(torch.equal(mine.views[k], its.views[k]) for k in (1, 2))
        assert all(torch.equal(mine.target[name], its.target[name]) for name in its.target)


@forks
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_without_a_cache(split: CocoSplit, workers: int) -> None:
    plain = list(_batches(split, 0, cache=False))
    cached = list(_batches(split, workers, cache=True))
    assert len(plain) == len(cached) == 2
    for one, other in zip(cached, plain, strict=True):
        _assert_same(one, other)
        assert set(one.unreadable) == {3}


def test_the_first_batch_is_there_before_the_memory_is_taken(split: CocoSplit) -> None:
    """The plan times steps on it."""
    data = TrainingSet(split, RESOLUTION, (1, 2), seed=0)
    data.keep_decoded()
    _assert_same(first_batch(data, 4, 4), first_batch(TrainingSet(split, RESOLUTION, (1, 2), seed=0), 4, 4))


def test_nothing_is_decoded_twice(split: CocoSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jitter asks for sides of 51 to 64 pixels at k = 1 and 25 to 32 at k = 2. Of 485 pixels, 8 · 1.5 · 32 are fewer
    and 8 · 1.5 · 41 more: 1/4 or 1/8. Of 215 upright across, 2 · 1.5 · 64 are fewer and 4 · 1.5 · 36 more.
    """
    decoded: Counter[tuple[str, int]] = Counter()

    def read(path: Path, scale: int = 1, tones: Tones = BY_FILE) -> Image.Image:
        decoded[path.name, scale] += 1
        return read_image(path, scale, tones)

    monkeypatch.setattr(kept, "read_image", read)
    epochs = list(_batches(split, 0, cache=True, epochs=EPOCHS))
    assert len(epochs) == EPOCHS
    torn = split.path(3).name
    assert decoded.pop((torn, 1)) == EPOCHS  # it is tried again, as it may have been mended
    assert set(decoded.values()) == {1}
    assert {name: {scale for each, scale in decoded if each == name} for name, _ in decoded} == {
        "a.png": {4, 8},
        "b.png": {2, 4},
        "c.png": {1},
    }


@forks
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_what_one_worker_decodes_the_others_have(
    split: CocoSplit, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """After the first batches the files are gone; each of two workers makes every second batch, ahead of time."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    expected = list(_batches(split, 0, cache=False, jitter=False, epochs=EPOCHS))
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(method, force=True)
    try:
        batches = _batches(split, 2, cache=True, jitter=False, epochs=EPOCHS)
        found = [next(batches)]
        for index in range(3):
            split.path(index).unlink()
        found += list(batches)
    finally:
        multiprocessing.set_start_method(before, force=True)
    for one, other in zip(found, expected, strict=True):
        _assert_same(one, other)


def test_the_size_by_hand(split: CocoSplit) -> None:
    """Without jitter: 1/4 of 485 × 643 for 64 × 84 and 1/8 for 32 × 42; of 301 × 215 (turned) 1/2 for 88 × 64 and 1/4
    for 44 × 32; the PNG whole; the torn one whole, as its header is sound. Sides are rounded up, 3 bytes a pixel.
    """
    data = TrainingSet(split, RESOLUTION, (1, 2), seed=0, augmentation=ONE_SCALE)
    pixels = 122 * 161 + 61 * 81 + 151 * 108 + 76 * 54 + 48 * 64 + 48 * 64
    assert data.keep_decoded() == 3 * pixels


def test_an_image_that_changes_during_the_run_is_passed_over(split: CocoSplit) -> None:
    data = TrainingSet(split, RESOLUTION, (1, 2), seed=0, augmentation=ONE_SCALE)
    data.keep_decoded()
    Image.new("RGB", (50, 40)).save(split.path(2), "PNG")
    (batch,) = training_loader(data, 4, 0, 0, 1)
    assert "another image than when the run began" in batch.unreadable[2]


# --- the command ---

TINY = SMALLEST
SHORT = ["--size=64,96", "--batch=2", "--epochs=2", *EXACT]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "demo"
    draw_demo(folder, train=5, val=2, seed=1, size=(128, 96))
    return folder


def test_a_run_with_it_ends_as_one_without(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for cache in ("off", "ram"):
        out = tmp_path / f"{cache}.safetensors"
        assert run(["teacher", "--data", str(demo), *TINY, *SHORT, "--cache", cache, "--out", str(out)]) == 0
        with (tmp_path / f"{cache}.run" / "results.csv").open() as file:
            rows.append(
                [{name: row[name] for name in row if name.startswith(("loss", "AP"))} for row in csv.DictReader(file)]
            )
    assert len(rows[0]) == 2
    assert rows[0] == rows[1]
    assert "GiB of decoded images" in capsys.readouterr().err


def test_advice_is_given_once(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Due after two of four steps and at the end of each epoch of two, if any waiting is too much."""
    monkeypatch.setattr(observer, "STARVED", 0.0)
    monkeypatch.setattr(observer, "FIRST_LOOK", 2)
    out = tmp_path / "t.safetensors"
    assert run(["teacher", "--data", str(demo), *TINY, *SHORT, "--out", str(out)]) == 0
    log = (tmp_path / "t.run" / "log.txt").read_text()
    assert log.count("of the time is spent waiting for data") == 1


def test_what_does_not_fit_is_refused(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five JPEGs of 128 × 96 the views of at most 84 × 64 take whole ones, those of half the sides 64 × 48."""
    needed = 5 * (128 * 96 + 64 * 48) * 3
    command = ["teacher", "--data", str(demo), *TINY, *SHORT, "--cache", "ram", "--dry-run"]
    command += ["--out", str(tmp_path / "t.safetensors")]
    monkeypatch.setattr(sets, "available_memory", lambda shared: int(needed / 0.8) + 1)
    assert run(command) == 0
    monkeypatch.setattr(sets, "available_memory", lambda shared: int(needed / 0.8) - 1)
    assert run(command) == 2
    error = capsys.readouterr().err
    assert "--cache ram does not fit" in error
    assert "hint: --cache off" in error
    assert run([*command, "--cache", "disk"]) == 2
    assert "--cache disk: unknown" in capsys.readouterr().err


def test_available_memory_is_the_least_of_what_machine_and_container_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 900 kB\nMemFree: 100 kB\nMemAvailable:   500 kB\n")
    for name in ("MEMINFO", "CGROUP", "SHARED"):
        monkeypatch.setattr(memory, name, tmp_path / name.lower())
    assert available_memory(shared=True) == 500 * 1024
    (tmp_path / "cgroup").mkdir()
    for name, text in {"max": "300000", "current": "250000", "stat": "anon 1\ninactive_file 40000"}.items():
        (tmp_path / "cgroup" / f"memory.{name}").write_text(f"{text}\n")
    assert available_memory(shared=False) == 300_000 - 250_000 + 40_000
    (tmp_path / "cgroup" / "memory.max").write_text("max\n")
    assert available_memory(shared=False) == 500 * 1024
    (tmp_path / "meminfo").unlink()
    assert available_memory(shared=False) > 2**20  # the machine's whole memory
