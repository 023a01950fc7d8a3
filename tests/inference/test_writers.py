"""What `msad predict` writes beside images and JSON, and what it makes of videos."""

import csv
import io
import json
import sys
from collections.abc import Callable, Generator, Sequence
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from msad_cli.cli.app import run
from msad_cli.data.annotations.segmentation import encode_mask
from msad_cli.data.annotations.split import read_split
from msad_cli.data.images.decode import scoped
from msad_cli.errors import DataError, UsageError
from msad_cli.inference.inputs import Input, find_inputs
from msad_cli.inference.video import Video, writing_video
from msad_cli.inference.writers import Names, class_folders, coco_document, cropped, yolo_rows
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, save_model
from msad_cli.models.spec import DetectorSpec
from msad_cli.text import parse_classes

# HR pixels of an image of 64 × 48, which are 84 × 64: two objects whose boxes are whole pixels of the image.
SCALE = torch.tensor([84 / 64, 64 / 48, 84 / 64, 64 / 48])
FOUND = {
    "boxes": torch.tensor([[8.0, 12.0, 24.0, 36.0], [32.0, 0.0, 64.0, 48.0]]) * SCALE,
    "scores": torch.tensor([0.9, 0.8]),
    "labels": torch.tensor([2, 1]),  # blue, id 90, and red, id 7
}


@pytest.fixture
def predict(tmp_path: Path, student: Detector, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`msad predict` into tmp_path/out, by a model that finds the same two objects everywhere."""
    path = tmp_path / "model" / "student.safetensors"
    save_model(path, student, Card(score_threshold=0.5))

    def detect(_: Detector, views: dict[int, Sequence[Tensor]], __: str) -> list[dict[str, Tensor]]:
        return [FOUND] * len(next(iter(views.values())))

    monkeypatch.setattr(Detector, "detect", detect)
    flags = ["-m", str(path), "-o", str(tmp_path / "out"), "--device", "cpu", "--precision", "fp32"]
    return lambda *arguments: run(["predict", *map(str, arguments), *flags])


def _image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(64 * 48 * 3, dtype=np.uint32) * 7 % 256
    Image.fromarray(pixels.astype(np.uint8).reshape(48, 64, 3)).save(path)
    return path


def _clip(path: Path, frames: int = 7, size: tuple[int, int] = (64, 48)) -> Path:
    """Grey frames, each 20 brighter than the last, 10 a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing_video(path, Fraction(10)) as write:
        for number in range(frames):
            write(Image.new("RGB", size, (20 * number + 40,) * 3))
    return path


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- formats ---


def test_every_format_of_one_folder(predict: Callable[..., int], tmp_path: Path) -> None:
    for name in ("a.png", "sub/b.png"):
        _image(tmp_path / "in" / name)
    out = tmp_path / "out"
    assert predict(tmp_path / "in", "--save", "image,json,coco,yolo,csv,crop") == 0
    crops = {f"crops/{name}" for name in ("blue/a-1.png", "red/a-2.png", "blue/sub/b-1.png", "red/sub/b-2.png")}
    tables = {"predictions.json", "predictions.csv", "coco.json", "data.yaml", "labels/a.txt", "labels/sub/b.txt"}
    assert _files(out) == {"a.png", "sub/b.png", *crops, *tables}
    # Class 1 (from 0) is blue: middle (16, 24) of 64 × 48, sides 16 and 24. Red: middle (48, 24), sides 32 and 48.
    assert (out / "labels" / "sub" / "b.txt").read_text().splitlines() == [
        "1 0.25000000 0.50000000 0.25000000 0.50000000 0.90000000",
        "0 0.75000000 0.50000000 0.50000000 1.00000000 0.80000000",
    ]
    assert (out / "data.yaml").read_text() == "names:\n  0: red\n  1: blue\n"
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [each["file"] for each in rows] == ["a.png", "a.png", "sub/b.png", "sub/b.png"]
    assert rows[2] == {
        "file": "sub/b.png",
        "frame": "",
        "image_id": "2",
        "category_id": "90",
        "category": "blue",
        "score": "0.9",
        "x": "8.0",
        "y": "12.0",
        "width": "16.0",
        "height": "24.0",
    }
    pixels = np.asarray(Image.open(tmp_path / "in" / "a.png"))
    assert np.array_equal(np.asarray(Image.open(out / "crops" / "blue" / "a-1.png")), pixels[12:36, 8:24])
    assert np.array_equal(np.asarray(Image.open(out / "crops" / "red" / "a-2.png")), pixels[:, 32:])


def test_coco_is_ground_truth_for_data(predict: Callable[..., int], tmp_path: Path) -> None:
    for name in ("a.png", "sub/b.png"):
        _image(tmp_path / "in" / name)
    assert predict(tmp_path / "in", "--save", "coco") == 0
    file = tmp_path / "out" / "coco.json"
    split = read_split(file, tmp_path / "in")
    assert split.file_names.tolist() == ["a.png", "sub/b.png"]
    assert split.categories == ((7, "red"), (90, "blue"))
    assert split.boxes.tolist() == [[8, 12, 24, 36], [32, 0, 64, 48]] * 2
    assert run(["data", "check", str(file), "--images", str(tmp_path / "in"), "--strict"]) == 0


def test_masks_and_keypoints_in_coco_and_yolo(student_spec: DetectorSpec) -> None:
    mask = np.zeros((40, 80), dtype=np.uint8)
    mask[10:20, 20:60] = 1
    runs = [encode_mask(each) for each in (mask, 0 * mask)]
    box = {"image_id": 1, "category_id": 7, "bbox": [20.0, 10.0, 40.0, 10.0], "score": 0.5}
    masked: list[dict[str, Any]] = [
        {**box, "segmentation": {"size": each["size"], "counts": each["counts"].decode()}} for each in runs
    ]
    whole, empty = ([float(each) for each in row.split()] for row in yolo_rows([1, 1], masked, (80, 40)))
    # Corners 20 and 60 of 80, 10 and 20 of 40; a mask without a pixel has those of its box.
    corners = {(0.25, 0.25), (0.75, 0.25), (0.75, 0.5), (0.25, 0.5)}
    for row in (whole, empty):
        assert (row[0], row[-1]) == (0, 0.5)
        assert set(zip(row[1:-1:2], row[2:-1:2], strict=True)) == corners
    document = coco_document([], masked, student_spec)
    assert [each["area"] for each in document["annotations"]] == [400, 0]
    # The second keypoint lies left of the image, which YOLO cannot say.
    posed = {**box, "keypoints": [20.0, 20.0, 1.0, -4.0, 20.0, 1.0]}
    (line,) = yolo_rows([1], [posed], (80, 40))
    assert [float(each) for each in line.split()] == [0, 0.5, 0.375, 0.5, 0.25, 0.25, 0.5, 1, 0, 0, 0, 0.5]
    spec = DetectorSpec(
        **{**vars(student_spec), "detector": "keypointrcnn", "keypoints": ("l", "r"), "flip_pairs": ((0, 1),)}
        | {"skeleton": ((0, 1),)}
    )
    document = coco_document([], [posed], spec)
    assert document["categories"][0] == {
        "id": 7,
        "name": "red",
        "keypoints": ["l", "r"],
        "skeleton": [[1, 2]],
        "flip_pairs": [[0, 1]],
    }
    (annotation,) = document["annotations"]
    assert (annotation["id"], annotation["area"], annotation["num_keypoints"]) == (1, 400, 2)


def test_a_crop_has_a_pixel_at_least_and_none_from_outside() -> None:
    image = Image.new("RGB", (10, 8))
    assert cropped(image, [1.5, 2.5, 3.5, 4.0]).size == (3, 2)  # columns 1 to 3, rows 2 and 3
    assert cropped(image, [10.0, 8.0, 10.0, 8.0]).size == (1, 1)
    assert cropped(image, [-3.0, -3.0, 99.0, 99.0]).size == (10, 8)


# --- names ---


def test_images_of_one_stem_never_share_a_file(predict: Callable[..., int], tmp_path: Path) -> None:
    for name in ("a.gif", "a.gif.png", "a.png", "a.jpg"):
        _image(tmp_path / "in" / name)
    assert predict(tmp_path / "in", "--save", "image,yolo,crop", "--classes", "red") == 0
    assert _files(tmp_path / "out") == {
        "data.yaml",
        # A GIF's result is a PNG; the image that has this name already is numbered.
        "a.gif.png",
        "a.gif-2.png",
        "a.jpg",
        "a.png",
        "labels/a.txt",
        "labels/a.gif.txt",
        "labels/a.jpg.txt",
        "labels/a.png.txt",
        "crops/red/a-1.gif.png",
        "crops/red/a.gif-1.png",
        "crops/red/a-1.jpg",
        "crops/red/a-1.png",
    }


def test_names_are_given_once_and_stay_below_their_folder(tmp_path: Path) -> None:
    names = Names(tmp_path, [Input(tmp_path / "in.png", Path("in.png"))])
    wanted = [PurePath("x.png"), PurePath("x.gif.png")]
    found = [names.claim(*wanted).name for _ in range(4)]
    assert found == ["x.png", "x.gif.png", "x.gif-2.png", "x.gif-3.png"]
    assert names.claim(PurePath("X.PNG")).name == "X-2.PNG"  # one file with x.png, on most Macs
    assert names.claim(PurePath("in.png")).name == "in-2.png"  # an input is never replaced
    long = [names.claim(PurePath("é" * 126 + "-1.png")).name for _ in range(2)]
    assert len(set(long)) == 2
    assert all(len(each.encode("utf-8", "surrogateescape")) <= 255 for each in long)


def test_folders_of_classes_are_folders_whatever_classes_are_called() -> None:
    hostile = ["../../etc", "/abs", "", "..", "a/b", "a\\b", "A_B", "x" * 300, "x" * 301, "nul\0", "\ud800"]
    folders = class_folders(hostile)
    assert len({each.casefold() for each in folders}) == len(hostile)
    for each in folders:
        assert PurePath(each).parts == (each,)
        assert not each.startswith(".")
        assert len(each.encode()) <= 104
    assert class_folders(["red", "blood cell"]) == ["red", "blood cell"]


# --- what is written, and where ---


def test_classes_by_name_and_id(
    predict: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = _image(tmp_path / "a.png")
    for text, ids in (("red", [7]), ("90", [90]), ("red,90", [90, 7])):
        assert predict(image, "--classes", text, "--overwrite") == 0
        found = json.loads((tmp_path / "out" / "predictions.json").read_text())
        assert [each["category_id"] for each in found] == ids
    assert predict(image, "--classes", "red,bleu") == 2
    assert "the model has no class 'bleu'\n\nhint: did you mean blue?" in capsys.readouterr().err
    assert predict(image, "--classes", "8") == 2
    assert "hint: known: red, blue" in capsys.readouterr().err


def test_a_class_named_as_anothers_id_is_meant_first() -> None:
    categories = [(1, "7"), (7, "red"), (8, "red")]
    assert parse_classes("7", categories) == {1}
    assert parse_classes("red,8", categories) == {2, 3}
    assert parse_classes(None, categories) is None
    with pytest.raises(UsageError):
        parse_classes("", categories)


def test_lines_on_stdout(predict: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = _image(tmp_path / "a.png"), _image(tmp_path / "b.png")
    assert predict(first, second, "--stdout") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["file"], each["size"]) for each in lines] == [(str(first), [64, 48]), (str(second), [64, 48])]
    assert lines[1]["detections"] == [
        {"category": "blue", "category_id": 90, "bbox": [8.0, 12.0, 16.0, 24.0], "score": 0.9},
        {"category": "red", "category_id": 7, "bbox": [32.0, 0.0, 32.0, 48.0], "score": 0.8},
    ]
    assert not (tmp_path / "out").exists()
    assert predict(first, "--stdout", "--save", "json") == 0
    assert _files(tmp_path / "out") == {"predictions.json"}


def test_paths_from_stdin(
    predict: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [_image(tmp_path / name) for name in ("a b.png", "sub/c.png")]

    def listed(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    listed("".join(f"{name}\r\n\n" for name in names))
    assert predict("-") == 0
    assert _files(tmp_path / "out") == {"a b.png", "c.png", "predictions.json"}
    listed("")
    assert predict("-") == 2
    assert "stdin, which had none" in capsys.readouterr().err
    listed("a\0b\n")
    assert predict("-") == 2
    assert "no name of a file" in capsys.readouterr().err


# --- videos ---


def test_a_video_is_drawn_and_its_frames_are_numbered(predict: Callable[..., int], tmp_path: Path) -> None:
    clip = _clip(tmp_path / "in" / "sub" / "clip.mov")
    _image(tmp_path / "in" / "sub" / "clip.png")
    out = tmp_path / "out"
    assert predict(tmp_path / "in", "--save", "image,json,csv,crop,yolo", "--classes", "blue") == 0
    found = json.loads((out / "predictions.json").read_text())
    # Images come first; the video is the second input.
    assert [(each["image_id"], each["file_name"], each.get("frame")) for each in found] == [
        (1, "sub/clip.png", None),
        *((2, "sub/clip.mov", number) for number in range(7)),
    ]
    frames = {f"clip-{number:06}" for number in range(7)}
    assert _files(out) == {
        "sub/clip.mp4",
        "sub/clip.png",
        "predictions.json",
        "predictions.csv",
        "data.yaml",
        "labels/sub/clip.txt",
        *(f"labels/sub/{name}.txt" for name in frames),
        "crops/blue/sub/clip-1.png",
        *(f"crops/blue/sub/{name}-1.jpg" for name in frames),
    }
    before, after = Video(clip), Video(out / "sub" / "clip.mp4")
    assert before.rate == after.rate == 10
    plain, drawn = ([np.asarray(image).astype(int) for _, image in each.frames()] for each in (before, after))
    assert len(plain) == len(drawn) == 7
    for number, (one, other) in enumerate(zip(plain, drawn, strict=True)):
        assert abs(one.mean() - 20 * number - 40) < 3  # encoded, to a few grey values
        assert abs(other[45:, :5] - one[45:, :5]).max() < 12  # far from the box
        assert abs(other[12:36, 8] - one[12:36, 8]).max() > 30  # its left side


def test_every_nth_frame_at_the_same_pace(predict: Callable[..., int], tmp_path: Path) -> None:
    clip = _clip(tmp_path / "clip.mp4")
    assert predict(clip, "--every", "3", "--classes", "red") == 0
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [each["frame"] for each in found] == [0, 3, 6]
    after = Video(tmp_path / "out" / "clip.mp4")
    assert abs(after.rate - Fraction(10, 3)) < 0.01
    assert len(list(after.frames())) == 3


def test_videos_of_one_stem_and_odd_sides(predict: Callable[..., int], tmp_path: Path) -> None:
    for name in ("clip.mp4", "clip.avi"):
        _clip(tmp_path / "in" / name, 2, (63, 47))
    assert predict(tmp_path / "in", "--save", "image") == 0
    assert _files(tmp_path / "out") == {"clip.mp4", "clip.mp4.mp4"}


def test_a_broken_video_ends_alone_and_leaves_no_file(
    predict: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = _clip(tmp_path / "in" / "whole.mp4")
    (tmp_path / "in" / "broken.mp4").write_bytes(whole.read_bytes()[:200])
    (tmp_path / "in" / "empty.avi").touch()
    # A list that would have FFmpeg open other files and hosts.
    (tmp_path / "in" / "list.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nwhole.mp4\n")
    assert predict(tmp_path / "in") == 7
    err = capsys.readouterr().err
    for name in ("broken.mp4", "empty.avi", "list.mp4"):
        assert f"error: {tmp_path / 'in' / name}: cannot be decoded" in err
    assert "3 of 4 images and videos could not be read" in err
    assert _files(tmp_path / "out") == {"whole.mp4", "predictions.json"}


def test_what_fails_while_a_video_is_written_leaves_nothing(tmp_path: Path) -> None:
    def half() -> Generator[None, None, None]:
        with writing_video(tmp_path / "out" / "clip.mp4", Fraction(10)) as write:
            write(Image.new("RGB", (64, 48)))
            yield

    work = half()
    next(work)
    work.close()
    assert _files(tmp_path / "out") == set()


def test_frames_of_too_many_pixels(
    predict: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scoped, "most", scoped.most)  # what the flag sets, for this test alone
    assert predict(_clip(tmp_path / "clip.mp4"), "--max-pixels", "3000") == 7
    assert "frames of 64×48 exceed the limit of 3000 pixels" in capsys.readouterr().err
    assert not (tmp_path / "out" / "clip.mp4").exists()


def test_a_phones_video_is_upright(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    image = Image.new("RGB", (64, 48))
    image.paste("white", (0, 0, 32, 48))
    with writing_video(clip, Fraction(10)) as write:
        write(image)
    # The track's matrix (a b u, c d v, x y w, in 16.16): x' = -y, y' = x is a quarter turn clockwise.
    data = clip.read_bytes()
    one, zero = (1 << 16).to_bytes(4, "big"), bytes(4)
    minus = (-(1 << 16)).to_bytes(4, "big", signed=True)
    before = one + zero * 3 + one + zero
    place = data.index(before, data.index(b"tkhd"))
    clip.write_bytes(data[:place] + zero + one + zero + minus + zero * 2 + data[place + len(before) :])
    ((_, upright),) = Video(clip).frames()
    # What was left is above.
    assert upright.size == (48, 64)
    pixels = np.asarray(upright)
    assert pixels[4:28].min() > 200
    assert pixels[36:60].max() < 50


def test_a_video_without_pyav_or_for_coco(
    predict: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = _clip(tmp_path / "clip.mp4")
    assert predict(clip, "--save", "coco") == 2
    assert f"--save coco: {clip} is a video" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "av", None)
    assert predict(clip) == 2
    assert "av is not installed\n\nhint: pip install '.[video]' in the clone of msad" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_video_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a file"):
        Video(tmp_path)
    (tmp_path / "clip.MP4").touch()
    (found,) = find_inputs([str(tmp_path)])
    assert found.is_video
