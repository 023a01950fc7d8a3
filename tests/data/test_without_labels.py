"""Images without labels: which of those that are found are learnt from, and in which batches they are."""

import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msad_cli.data.annotations.split import CocoSplit, read_split, with_unlabelled
from msad_cli.data.images.without_labels import look_at_unlabelled
from msad_cli.data.loading.augment import LEVELS
from msad_cli.data.loading.dataset import TrainingSet, training_loader
from msad_cli.data.loading.sampler import MixedSampler, StepSampler
from msad_cli.frame import Resolution
from msad_cli.inference import frames
from msad_cli.inference.frames import frames_as_images
from msad_cli.inference.video import writing_video


@pytest.fixture
def train(coco_folder: Path) -> CocoSplit:
    """Four images."""
    return read_split(coco_folder / "annotations" / "instances_train2017.json", coco_folder / "train2017")


@pytest.fixture
def found(tmp_path: Path) -> list[Path]:
    """Two images of 20×30 pixels."""
    paths = [tmp_path / "found" / name for name in ("one.png", "two.png")]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        Image.new("RGB", (30, 20), (100 * number, 0, 200)).save(path)
    return paths


def test_what_another_split_has_is_left_out_under_any_name(
    train: CocoSplit, found: list[Path], coco_folder: Path
) -> None:
    """By its bytes, or because it is the same file; of two splits that have it, the first is named."""
    known = {"val": [coco_folder / "val2017" / "e.png", coco_folder / "val2017" / "gone.png"], "train": train.paths}
    copy, link = (found[0].with_name(name) for name in ("copy.png", "link.png"))
    shutil.copy(known["val"][0], copy)
    link.symlink_to(train.paths[0])
    broken = found[0].with_name("broken.png")
    broken.write_bytes(found[0].read_bytes()[:20])
    seen = look_at_unlabelled([broken, copy, link, *found], known)
    assert seen.twins == {"val": [(known["val"][0], copy)], "train": [(train.paths[0], link)]}
    assert [each.name for each in seen.paths] == ["one.png", "two.png"]
    assert seen.sizes.tolist() == [[20, 30], [20, 30]]
    assert len(seen.unreadable) == 1
    assert "broken.png" in seen.unreadable[0]
    assert seen.fingerprint == look_at_unlabelled(found, {}).fingerprint
    assert seen.fingerprint != look_at_unlabelled(found[:1], {}).fingerprint


def test_a_folder_that_is_moved_stays_what_it_is(found: list[Path], tmp_path: Path) -> None:
    before = look_at_unlabelled(found, {}).fingerprint
    moved = found[0].parent.rename(tmp_path / "elsewhere")
    assert look_at_unlabelled(sorted(moved.iterdir()), {}).fingerprint == before


def test_a_split_goes_on_with_images_that_have_no_target(train: CocoSplit, found: list[Path]) -> None:
    split = with_unlabelled(train, found, np.full((2, 2), 20))
    assert (len(split), split.labelled, split.unlabelled) == (6, 4, 2)
    assert split.paths == [*train.paths, *found]
    data = TrainingSet(split, Resolution(64, 96), (1, 2), seed=3)
    plain = TrainingSet(train, Resolution(64, 96), (1, 2), seed=3)
    batches = list(training_loader(data, 2, 0, 0, 6, unlabelled=1))
    ways = set()
    for batch, own in zip(batches, training_loader(plain, 2, 0, 0, 6), strict=True):
        assert batch.indices[:2] == own.indices
        assert [each.keys() for each in batch.targets] == [{"boxes", "labels", "image"}] * 2 + [{"image"}]
        ways.add((batch.samples[2].frame_size, int(batch.targets[2]["image"][1])))
    assert {mirrored for _, mirrored in ways} == {0, 1}
    assert len({size for size, _ in ways}) > 1  # jitter


def test_unlabelled_images_go_round_in_a_cycle_of_their_own() -> None:
    """Seven of them, two a batch: after seven steps each came twice. A later start gives the same batches."""
    whole = list(MixedSampler(StepSampler(10, 3, 1, 0, 14), range(10, 17), 2))
    plain = list(StepSampler(10, 3, 1, 0, 14))
    assert [keys[:3] for keys in whole] == plain
    others = [key for keys in whole for key in keys[3:]]
    rounds = [[index for number, index in others if number == each] for each in range(4)]
    assert [sorted(each) for each in rounds] == [list(range(10, 17))] * 4
    assert len({tuple(each) for each in rounds}) == 4
    assert list(MixedSampler(StepSampler(10, 3, 1, 5, 14), range(10, 17), 2)) == whole[5:]
    other_seed = list(MixedSampler(StepSampler(10, 3, 2, 0, 14), range(10, 17), 2))
    assert [keys[3:] for keys in other_seed] != [keys[3:] for keys in whole]


def test_fewer_unlabelled_images_than_a_batch_takes_come_again_in_it() -> None:
    """Two images, five a batch: no pair of round and image comes twice."""
    for keys in MixedSampler(StepSampler(4, 1, 0, 0, 6), range(4, 6), 5):
        assert len(keys) == len(set(keys)) == 6
        assert {index for _, index in keys[1:]} == {4, 5}


@pytest.mark.parametrize("size", [2, 3, 5])
def test_processes_share_both_parts_of_a_batch(size: int) -> None:
    """Together they have what one has; a process's labelled images come first."""

    def sampled(rank: int, of: int) -> list[list[tuple[int, int]]]:
        share = (rank, of)
        return list(MixedSampler(StepSampler(20, 4, 3, 0, 9, share), range(20, 31), 3, share))

    shares = [sampled(rank, size) for rank in range(size)]
    for whole, *parts in zip(sampled(0, 1), *shares, strict=True):
        together = [key for part in parts for key in part]
        assert sorted(together) == sorted(whole)
        assert [key for key in together if key[1] < 20] == whole[:4]
        assert [key for key in together if key[1] >= 20] == whole[4:]


def test_a_frame_a_second_is_drawn_out_of_a_video_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """25 frames at 10 a second: those at 0, 1 and 2 s, which get lighter."""
    pytest.importorskip("av")
    clip = tmp_path / "clip.mp4"
    with writing_video(clip, Fraction(10)) as write:
        for number in range(25):
            write(Image.new("RGB", (64, 48), (10 * number,) * 3))
    drawn = frames_as_images(clip)
    assert [each.name for each in drawn] == ["000000000.jpg", "000000010.jpg", "000000020.jpg"]
    greys = [int(np.asarray(Image.open(each)).mean()) for each in drawn]
    assert greys == pytest.approx([0, 100, 200], abs=4)  # two codecs round
    with monkeypatch.context() as patch:
        patch.setattr(frames, "MOST", 2)
        assert [each.name for each in frames_as_images(clip)] == ["000000000.jpg", "000000010.jpg"]
    monkeypatch.setattr(frames, "Video", None)  # it is not opened again
    assert frames_as_images(clip) == drawn


def test_mosaics_are_of_images_with_labels(train: CocoSplit, found: list[Path]) -> None:
    """A tile that nobody labelled would pass for background. Images without labels are shown by themselves."""
    split = with_unlabelled(train, found, np.full((2, 2), 20))
    always = replace(LEVELS["strong"], mosaic=1.0)
    data = TrainingSet(split, Resolution(64, 96), (1, 2), 3, always)
    samples = [data[epoch, index] for epoch in range(8) for index in range(len(split))]
    shown = {other for sample in samples for other in sample.others}
    assert shown == set(range(split.labelled))
    assert {len(sample.others) for sample in samples if sample.index < split.labelled} == {3}
    assert {len(sample.others) for sample in samples if sample.index >= split.labelled} == {0}
    assert {frozenset(sample.target) for sample in samples if sample.index >= split.labelled} == {frozenset({"image"})}
