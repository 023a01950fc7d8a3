"""`--cache-teacher`: a teacher looks at every image once, and its student learns as if it looked at every step."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.flags import SMALLEST
from torch import Tensor

from msad_cli.cli.app import run
from msad_cli.data.annotations.split import CocoSplit, read_split
from msad_cli.data.loading.augment import ONE_SCALE
from msad_cli.data.loading.dataset import EvaluationSet, TrainingSet, training_loader
from msad_cli.distillation.cached_teacher import CachedTeacher
from msad_cli.distillation.distillation import Distillation, Teach, teaching
from msad_cli.distillation.knowledge import best_view
from msad_cli.distillation.losses.table import DISTILLERS, build_distillers
from msad_cli.errors import DataError
from msad_cli.models.detector import Detector, Views
from msad_cli.models.model_file import read_header
from msad_cli.models.spec import DetectorSpec
from msad_cli.system.device import Compute
from msad_cli.training.students import teacher_cache
from msad_cli.training.students.pyramid_store import InFolder, InMemory, Look, Store, keep_all, key, predicted_bytes

BF16 = Compute(torch.device("cpu"), "bf16")


@pytest.fixture
def split(coco_folder: Path) -> CocoSplit:
    """Four images of 48×64 pixels, in HR frames of 64×84, padded to 128×128."""
    return read_split(coco_folder / "annotations" / "instances_train2017.json", coco_folder / "train2017")


def look(teacher: Detector, seen: list[int] | None = None) -> Look:
    """A teacher's look at views, which counts its images."""

    def pyramid(views: Views) -> Sequence[Tensor]:
        if seen is not None:
            seen.append(len(views[1]))
        return best_view(teacher, views).pyramid

    return pyramid


def kept(store: Store, teacher: Detector, split: CocoSplit, seen: list[int] | None = None) -> Store:
    keep_all(store, teacher.spec, look(teacher, seen), split, BF16, 0, lambda made: None)
    return store


def losses_of(
    student: Detector, teach: Teach, teacher: DetectorSpec, views: Views, targets: list[dict[str, Tensor]]
) -> dict[str, float]:
    """By the methods that draw nothing at random, all of them at once."""
    torch.manual_seed(0)
    methods = {
        name: 1.0 for name in DISTILLERS if name not in ("mgd", "amd", "dmkd", "dsamkd", "samkd", "isrd", "freekd")
    }
    module = Distillation(copy.deepcopy(student), teach, build_distillers(student.spec, teacher, methods), 1)
    with BF16.autocast():
        return {name: loss.item() for name, loss in module(views, targets).items()}


@pytest.mark.parametrize("place", ["memory", "folder"])
def test_losses_are_those_of_a_teacher_that_looks_at_every_step(
    split: CocoSplit, teacher: Detector, student: Detector, tmp_path: Path, place: str
) -> None:
    """To the last digit: under bfloat16 its maps are bfloat16 anyway. Mirrored images, and no large pixels."""
    store = kept(InMemory() if place == "memory" else InFolder(tmp_path), teacher, split)
    training = TrainingSet(split, teacher.spec.resolution, (1, 2), seed=1, augmentation=ONE_SCALE)
    batches = list(training_loader(training, 2, 0, 0, 4))
    assert {int(target["image"][1]) for batch in batches for target in batch.targets} == {0, 1}
    for batch in batches:
        expected = losses_of(student, teaching(teacher, student), teacher.spec, batch.views, batch.targets)
        found = losses_of(student, CachedTeacher(teacher, store), teacher.spec, {2: batch.views[2]}, batch.targets)
        assert found == expected
        assert len(found) > 12


def test_beyond_a_images_own_frame_nothing_is_compared(teacher: Detector, student: Detector) -> None:
    """Frames of 128×128 and 128×256: a mean over a batch is that over each image's own cells, by their number."""
    torch.manual_seed(3)
    low = {2: [torch.randint(0, 256, (3, 32, width), dtype=torch.uint8) for width in (40, 90)]}
    maps = [[torch.randn(64, 128 >> n, width >> n).bfloat16() for n in teacher.spec.levels] for width in (128, 256)]
    teach = CachedTeacher(teacher, lambda image, mirrored: maps[image])
    targets = [{"image": torch.tensor([place, 0])} for place in (0, 1)]
    known = teach(low, targets)
    with torch.no_grad():
        mine = best_view(student, low)
    l1 = build_distillers(student.spec, teacher.spec, {"l1": 1.0})["l1"].distiller
    assert known.inside is not None
    found = l1(mine.where(known.inside), known, [])["pyramid"].item()
    expected = 0.0
    for level, each in enumerate(mine.pyramid):
        sums = [
            (each[i, :, :, : theirs[level].shape[-1]] - theirs[level].float()).abs().sum()
            for i, theirs in enumerate(maps)
        ]
        expected += float(sum(sums)) / each.numel()
    assert found == pytest.approx(expected, rel=1e-5)
    assert [each.shape[-2:] for each in known.pyramid] == [each.shape[-2:] for each in mine.pyramid]
    alone = teach({2: low[2][1:]}, targets[1:])
    assert alone.inside is None
    assert all(torch.equal(a[0], b.float()) for a, b in zip(alone.pyramid, maps[1], strict=True))


def test_a_share_without_images_has_maps_of_its_stand_in(teacher: Detector) -> None:
    teach = CachedTeacher(teacher, lambda image, mirrored: pytest.fail("no image"))
    blank = {2: [torch.zeros(3, 64, 64, dtype=torch.uint8)]}
    known = teach(blank, [{"image": torch.zeros(0, dtype=torch.int64)}])
    assert known.inside is None
    assert [tuple(each.shape) for each in known.pyramid] == [(1, 64, n, n) for n in (16, 8, 4, 2, 1)]


def test_a_mirrored_image_has_the_pixels_that_training_mirrors(split: CocoSplit, teacher: Detector) -> None:
    resolution = teacher.spec.resolution
    training = TrainingSet(split, resolution, (1, 2), seed=0, augmentation=ONE_SCALE)
    ways = {}
    for epoch in range(8):
        sample = training[epoch, 1]
        ways[int(sample.target["image"][1])] = sample.views
    assert ways.keys() == {0, 1}
    for mirrored, views in ways.items():
        plain = EvaluationSet(split, resolution, (1, 2), bool(mirrored))[1].views
        assert all(torch.equal(plain[k], views[k]) for k in (1, 2))


def test_a_folder_is_filled_once_and_goes_on_where_it_was_left(
    split: CocoSplit, teacher: Detector, tmp_path: Path
) -> None:
    seen: list[int] = []
    store = InFolder(tmp_path)
    kept(store, teacher, split, seen)
    assert sum(seen) == 8  # four images, plain and mirrored
    before = store(2, True)
    store._file(2, True).unlink()
    seen.clear()
    kept(store, teacher, split, seen)
    assert seen == [1]
    assert all(torch.equal(a, b) for a, b in zip(before, store(2, True), strict=True))
    store._file(2, True).write_bytes(b"cut")
    with pytest.raises(DataError, match="damaged"):
        store(2, True)
    with pytest.raises(DataError, match="image 9 of the split"):
        store(9, False)


def test_a_folder_is_of_one_teacher_size_precision_and_state_of_the_images(
    split: CocoSplit, student_spec: DetectorSpec
) -> None:
    own = key("teacher", split, student_spec, "bf16")
    assert own == key("teacher", split, student_spec, "bf16")
    assert own != key("another", split, student_spec, "bf16")
    assert own != key("teacher", split, student_spec, "fp32")
    image = split.folder / str(split.file_names[0])
    Image.new("RGB", (64, 48)).save(image)
    os.utime(image, ns=(1, 1))
    assert own != key("teacher", split, student_spec, "bf16")


def test_the_predicted_room_is_what_is_taken(split: CocoSplit, teacher: Detector) -> None:
    """4 images, 2 ways, 64 channels, (16² + 8² + 4² + 2² + 1) cells, 2 bytes."""
    assert predicted_bytes(teacher.spec, split) == 4 * 2 * 64 * 341 * 2
    store = kept(InMemory(), teacher, split)
    maps = [each for i in range(4) for mirrored in (False, True) for each in store(i, mirrored)]
    assert sum(each.numel() * each.itemsize for each in maps) == predicted_bytes(teacher.spec, split)


# --- the command ---

MODEL = SMALLEST
SHORT = ["--device", "cpu", "--precision", "bf16", "--workers", "0", "--batch", "3", "--epochs", "2"]


@pytest.fixture(scope="module")
def taught(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "teacher.safetensors"
    assert run(["teacher", "--data", str(demo), *MODEL, "--size", "96,128", *SHORT, "--out", str(out)]) == 0
    return out


def distil(taught: Path, out: Path, *flags: str) -> int:
    return run(["distill", "--teacher", str(taught), *SHORT, "--out", str(out), *flags])


def test_memory_and_folder_train_the_same_student_and_the_plan_says_the_size(
    taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"ram": "ram", "new": str(tmp_path / "kept"), "old": str(tmp_path / "kept")}
    students = {}
    for name, place in places.items():
        assert distil(taught, tmp_path / f"{name}.safetensors", "--cache-teacher", place, "--precision", "fp32") == 0
        students[name] = load_file(tmp_path / f"{name}.safetensors")
        said = capsys.readouterr().err
        assert "plain and mirrored" in said
        assert ("teacher cache: 12 images added" in said) == (name != "old")
    for name, each in students["ram"].items():
        assert torch.equal(each, students["new"][name])
        assert torch.equal(each, students["old"][name])


@pytest.mark.slow
def test_a_run_with_a_teacher_cache_resumes(taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    assert distil(taught, whole, "--cache-teacher", "ram") == 0
    assert distil(taught, cut, "--cache-teacher", "ram", "--time", "0s") == 0
    assert read_header(cut)[1].unfinished
    assert run(["distill", "--resume", "--out", str(cut)]) == 0
    assert "teacher cache: 12 images added" in capsys.readouterr().err
    assert all(torch.equal(each, load_file(cut)[name]) for name, each in load_file(whole).items())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--no-distill"], "there is no teacher to keep anything of"),
        (["--unaligned"], "the cache is of aligned pyramids"),
    ],
)
def test_what_has_no_use_for_it_is_refused(
    taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    assert distil(taught, tmp_path / "s.safetensors", "--cache-teacher", "ram", *flags) == 2
    assert words in capsys.readouterr().err


def test_without_room_it_is_refused_with_both_sizes(
    taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_cache, "available_memory", lambda shared: 2**17)
    assert distil(taught, tmp_path / "s.safetensors", "--cache-teacher", "ram") == 2
    said = capsys.readouterr().err
    assert "0.00 GiB are free" in said
    assert "leave --cache-teacher away" in said
    monkeypatch.setattr(teacher_cache, "available_memory", lambda shared: 2**30)
    assert distil(taught, tmp_path / "s.safetensors", "--cache-teacher", "ram", "--dry-run") == 0


def test_several_processes_do_not_each_keep_all(
    taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_cache, "size", lambda: 2)
    assert distil(taught, tmp_path / "s.safetensors", "--cache-teacher", "ram") == 2
    assert "--cache-teacher DIR" in capsys.readouterr().err
