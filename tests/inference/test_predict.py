"""Predictions: which images are meant, what is written for them, and what is drawn."""

import copy
import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.places import SHARED
from torch import Tensor

from msad_cli.cli.app import run
from msad_cli.data.annotations.split import read_split
from msad_cli.data.images import decode as images
from msad_cli.data.images.decode import FORMATS
from msad_cli.data.loading.dataset import EvaluationSet
from msad_cli.errors import DataError, UsageError
from msad_cli.evaluation.detect_split import view_results
from msad_cli.inference.draw import class_colour, draw_boxes
from msad_cli.inference.inputs import Input, find_inputs
from msad_cli.inference.predictor import Prediction, Wanted, predict
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, save_model
from msad_cli.models.spec import View
from msad_cli.system.device import Compute
from msad_cli.text import parse_pixels

CPU = Compute(torch.device("cpu"), "fp32")
FLAGS = ["--device", "cpu", "--precision", "fp32"]

# --- which images ---


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def _relative(inputs: Sequence[Input]) -> list[str]:
    return [each.relative.as_posix() for each in inputs]


def test_folders_are_searched_to_the_bottom_and_keep_their_tree(tmp_path: Path) -> None:
    _touch(tmp_path, "b.JPG", "a/deep/c.png", "a/b.jpeg", "notes.txt", "a/no_suffix")
    found = find_inputs([str(tmp_path)])
    assert _relative(found) == ["a/b.jpeg", "a/deep/c.png", "b.JPG"]
    assert all(each.path == tmp_path / each.relative for each in found)


def test_files_are_taken_whatever_their_suffix(tmp_path: Path) -> None:
    _touch(tmp_path, "a/image", "b.txt")
    found = find_inputs([str(tmp_path / "a" / "image"), str(tmp_path / "b.txt")])
    assert _relative(found) == ["image", "b.txt"]


def test_patterns_that_the_shell_left(tmp_path: Path) -> None:
    _touch(tmp_path, "a1.jpg", "a2.jpg", "b.jpg", "sub/a3.jpg", "axe/x.png")
    assert _relative(find_inputs([str(tmp_path / "a*")])) == ["a1.jpg", "a2.jpg"]  # the folder axe is no image
    assert _relative(find_inputs([str(tmp_path / "**" / "a?.jpg")])) == ["a1.jpg", "a2.jpg", "a3.jpg"]


def test_a_link_to_itself_is_no_image(tmp_path: Path) -> None:
    """Python 3.11 and 3.12 cannot resolve it."""
    _touch(tmp_path, "a.jpg")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    assert _relative(find_inputs([str(tmp_path)], [tmp_path / "results"])) == ["a.jpg"]
    with pytest.raises(UsageError, match="no such file, folder or pattern"):
        find_inputs([str(tmp_path / "loop.png")], [tmp_path / "results"])


def test_a_name_with_brackets_is_a_file_before_it_is_a_pattern(tmp_path: Path) -> None:
    _touch(tmp_path, "a[1].jpg", "a1.jpg")
    assert _relative(find_inputs([str(tmp_path / "a[1].jpg")])) == ["a[1].jpg"]


def test_images_of_one_name_get_numbers(tmp_path: Path) -> None:
    _touch(tmp_path, "a/x.jpg", "b/x.jpg", "c/x.jpg", "c/x-2.jpg")
    found = find_inputs([str(tmp_path / name) for name in ("a/x.jpg", "b/x.jpg", "c")])
    # The first keeps its name; of x-2.jpg, found before the third x.jpg, there is one already.
    assert _relative(found) == ["x.jpg", "x-2.jpg", "x-2-2.jpg", "x-3.jpg"]
    assert [each.path.parent.name for each in found] == ["a", "b", "c", "c"]


def test_an_image_named_twice_is_taken_once(tmp_path: Path) -> None:
    _touch(tmp_path, "sub/a.jpg")
    names = [str(tmp_path / "sub" / "a.jpg"), str(tmp_path), str(tmp_path / "sub" / ".." / "sub" / "a.jpg")]
    assert _relative(find_inputs(names)) == ["a.jpg"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.jpg", "no such file, folder or pattern"),
        ("*.png", "no such file, folder or pattern"),
        ("empty", "a folder without images"),
    ],
)
def test_a_name_that_means_nothing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    _touch(tmp_path, "empty/notes.txt", "a.jpg")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        find_inputs(["a.jpg", name])
    assert caught.value.message == f"{name}: {message}"


# --- the pixels that the model sees ---


def test_prediction_and_evaluation_show_the_detector_the_same_pixels(
    coco_folder: Path, teacher: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = read_split(coco_folder / "annotations" / "instances_val2017.json", coco_folder / "val2017")
    seen: list[dict[int, Tensor]] = []

    def detect(views: Mapping[int, Sequence[Tensor]], _view: str) -> list[dict[str, Tensor]]:
        seen.append({k: images[0] for k, images in views.items()})
        return [{"boxes": torch.tensor([[0.0, 0.0, 999.0, 32.0]]), "scores": torch.ones(1), "labels": torch.ones(1)}]

    monkeypatch.setattr(teacher, "detect", detect)
    inputs = [Input(split.folder / str(name), Path(str(name))) for name in split.file_names]
    found = list(predict(teacher, "fused", inputs, Wanted(0.5), CPU))
    expected = EvaluationSet(split, teacher.spec.resolution, teacher.spec.ks)
    assert len(seen) == len(expected) == 3
    for i, views in enumerate(seen):
        assert views.keys() == expected[i].views.keys()
        assert all(torch.equal(views[k], expected[i].views[k]) for k in views)
    for each in found:
        assert isinstance(each, Prediction)
        assert each.found["labels"].dtype == torch.int64
        assert each.found["boxes"].tolist() == [[0, 0, 64, 24]]  # HR has 64 pixels for the image's 48 in height


def test_only_scores_from_the_least_on_are_kept(
    coco_folder: Path, student: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = {
        "boxes": torch.tensor([[0.0, 0, 8, 8], [0, 0, 16, 16], [0, 0, 24, 24]]),
        "scores": torch.tensor([0.75, 0.5, 0.25]),
        "labels": torch.tensor([1, 2, 1]),
    }
    monkeypatch.setattr(student, "detect", lambda views, view: [output])
    (found,) = predict(student, "low", [Input(coco_folder / "val2017" / "a.png", Path("a.png"))], Wanted(0.5), CPU)
    assert isinstance(found, Prediction)
    assert found.found["scores"].tolist() == [0.75, 0.5]
    assert found.found["labels"].tolist() == [1, 2]


def test_an_unreadable_image_yields_its_error_and_the_next_ones_follow(coco_folder: Path, student: Detector) -> None:
    broken = coco_folder / "broken.jpg"
    broken.write_bytes(b"")
    whole = coco_folder / "val2017" / "a.png"
    first, second = predict(student, "low", [Input(broken, Path("x")), Input(whole, Path("y"))], Wanted(0.0), CPU)
    assert isinstance(first, DataError)
    assert isinstance(second, Prediction)


# --- the command ---


@pytest.fixture
def model(tmp_path: Path, student: Detector) -> Path:
    """A file of an untrained student, whose scores lie below 0.2; its card says from where on they count."""
    path = tmp_path / "model" / "student.safetensors"
    save_model(path, student, Card(score_threshold=0.06))
    return path


def _predictions(out: Path) -> list[dict[str, Any]]:
    predictions: list[dict[str, Any]] = json.loads((out / "predictions.json").read_text())
    return predictions


def test_images_and_predictions_are_written(coco_folder: Path, model: Path, tmp_path: Path, student: Detector) -> None:
    out = tmp_path / "out"
    folder = coco_folder / "train2017"
    assert (
        run(["predict", str(folder), "-m", str(model), "-o", str(out), *FLAGS, "--score", "0", "--per-class-nms"]) == 0
    )
    names = ["a.png", "b.png", "c.png", "sub/d.png"]
    found = _predictions(out)
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert written == {*names, "predictions.json"}
    for name in names:
        with Image.open(folder / name) as before, Image.open(out / name) as after:
            assert (after.format, after.mode, after.size) == ("PNG", "RGB", (64, 48))
            assert np.any(np.asarray(after) != np.asarray(before))
    for each in found:
        x, y, width, height = each["bbox"]
        assert min(x, y, width, height) >= 0
        assert x + width <= 64 + 0.01  # x and width are rounded to 0.01 each
        assert y + height <= 48 + 0.01
    # The same as evaluation finds, where folder have the ids of the file; `predict` numbers them in order.
    split = read_split(coco_folder / "annotations" / "instances_train2017.json", folder)
    ids = dict(zip(split.file_names.tolist(), split.image_ids.tolist(), strict=True))
    expected = view_results(copy.deepcopy(student).fold(), split, "low", CPU, workers=0, batch=1).results
    same = [{**each, "image_id": ids[each["file_name"]]} for each in found]
    assert [each.pop("file_name") for each in same] == [each["file_name"] for each in found]
    assert sorted(same, key=str) == sorted(expected, key=str)
    assert [names[each["image_id"] - 1] for each in found] == [each["file_name"] for each in found]


def test_categories_are_the_users_own(
    coco_folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = {
        "boxes": torch.tensor([[0.0, 0.0, 32.0, 32.0], [8.0, 8.0, 40.0, 40.0]]),
        "scores": torch.tensor([0.9, 0.8]),
        "labels": torch.tensor([2, 1]),
    }
    monkeypatch.setattr(Detector, "detect", lambda self, views, view: [output])
    image = coco_folder / "val2017" / "a.png"
    assert run(["predict", str(image), "-m", str(model), "-o", str(tmp_path), *FLAGS]) == 0
    # The spec's classes are 7 and 90; HR pixels are image pixels × 84/64 in x and × 64/48 in y.
    assert _predictions(tmp_path) == [
        {"image_id": 1, "category_id": 90, "bbox": [0.0, 0.0, 24.38, 24.0], "score": 0.9, "file_name": "a.png"},
        {"image_id": 1, "category_id": 7, "bbox": [6.1, 6.0, 24.38, 24.0], "score": 0.8, "file_name": "a.png"},
    ]


def test_the_models_own_threshold_is_the_default(coco_folder: Path, model: Path, tmp_path: Path) -> None:
    def scores(*flags: str) -> list[float]:
        image = str(coco_folder / "val2017" / "a.png")
        assert (
            run(["predict", image, "-m", str(model), "-o", str(tmp_path / "out"), "--overwrite", *FLAGS, *flags]) == 0
        )
        return [each["score"] for each in _predictions(tmp_path / "out")]

    everything = scores("--score", "0")
    assert scores() == [each for each in everything if each >= 0.06]  # as the fixture's card has it
    assert scores("--score", "0.08") == [each for each in everything if each >= 0.08]
    assert scores("--score", "1") == []


def test_a_broken_image_among_others(
    coco_folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = coco_folder / "val2017"
    (folder / "broken.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no image")
    out = tmp_path / "out"
    assert run(["predict", str(folder), "-m", str(model), "-o", str(out), *FLAGS, "--score", "0", "-q"]) == 7
    assert {each["file_name"] for each in _predictions(out)} == {"a.png", "e.png", "f.png"}
    assert {path.name for path in out.iterdir()} == {"a.png", "e.png", "f.png", "predictions.json"}
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        f"error: {folder / 'broken.jpg'}: an empty file",
        f"error: {folder / 'text.jpg'}: no image that msad knows ({', '.join(FORMATS)})",
        "error: 2 of 5 images could not be read",
        "",
        "hint: they are named above",
    ]


def test_a_text_named_as_an_image(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "text.jpg"
    file.write_text("no image")
    assert run(["predict", str(file), "-m", str(model), "-o", str(tmp_path / "out"), *FLAGS]) == 7
    assert f"error: {file}: no image that msad knows" in capsys.readouterr().err
    assert _predictions(tmp_path / "out") == []


def test_the_model_of_this_folder_is_the_default(
    coco_folder: Path,
    model: Path,
    teacher: Detector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    command = ["predict", str(coco_folder / "val2017" / "a.png"), *FLAGS]
    assert run(command) == 2
    assert "neither student.safetensors nor teacher.safetensors" in capsys.readouterr().err
    save_model(here / "teacher.safetensors", teacher, Card())
    assert run(command) == 0
    assert "by teacher.safetensors" in capsys.readouterr().err
    shutil.copy(model, here)
    assert run(command) == 0
    assert "by student.safetensors" in capsys.readouterr().err
    assert (here / "predictions" / "a.png").exists()
    assert (here / "predictions" / "predictions.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--view", "high"], "--view high"),  # a student has its low view alone
        (["--save", "image,voc"], "--save image,voc: unknown voc"),
        (["--score", "2"], "--score"),
        (["--precision", "fp16"], "--precision fp16"),
    ],
)
def test_wrong_flags(
    coco_folder: Path, model: Path, tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    image = str(coco_folder / "val2017" / "a.png")
    assert run(["predict", image, "-m", str(model), "-o", str(out), "--device", "cpu", *flags]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_broken_model_is_refused(coco_folder: Path, model: Path, tmp_path: Path) -> None:
    model.write_bytes(model.read_bytes()[:-1])
    assert run(["predict", str(coco_folder / "val2017"), "-m", str(model), "-o", str(tmp_path / "out"), *FLAGS]) == 4
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("save", "written"), [("json", {"predictions.json"}), ("image", {"a.png"})])
def test_only_what_is_asked_for_is_saved(
    coco_folder: Path, model: Path, tmp_path: Path, save: str, written: set[str]
) -> None:
    out = tmp_path / "out"
    image = str(coco_folder / "val2017" / "a.png")
    assert run(["predict", image, "-m", str(model), "-o", str(out), *FLAGS, "--save", save]) == 0
    assert {path.name for path in out.iterdir()} == written


@pytest.mark.parametrize(
    ("name", "options", "written", "kind"),
    [
        ("a.jpg", {}, "a.jpg", "JPEG"),
        ("a.JPEG", {}, "a.JPEG", "JPEG"),
        ("a.bmp", {}, "a.bmp", "BMP"),
        ("a.webp", {}, "a.webp", "WEBP"),
        ("a.tif", {"compression": "tiff_lzw"}, "a.tif", "TIFF"),
        ("a.gif", {}, "a.gif.png", "PNG"),  # 256 colours would not do
        ("a.pgm", {}, "a.pgm.png", "PNG"),  # nor would grey
        ("a.png", {"bits": 1}, "a.png", "PNG"),
    ],
)
def test_outputs_are_of_the_inputs_kind(
    model: Path, tmp_path: Path, name: str, options: dict[str, Any], written: str, kind: str
) -> None:
    # Sizes whose view is one pixel high or wide, and the smallest image of all, are images too.
    for number, size in enumerate([(40, 30), (1, 1), (200, 2)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        Image.new("L", size, 99).save(folder / name, **options)
        out = folder / "out"
        command = ["predict", str(folder / name), "-m", str(model), "-o", str(out), *FLAGS, "--score", "0"]
        assert run(command) == 0
        with Image.open(out / written) as image:
            assert (image.format, image.mode, image.size) == (kind, "RGB", size)


# --- drawing ---


def _changed(before: Image.Image, after: Image.Image) -> Any:
    """Which pixels (height, width) differ."""
    return np.any(np.asarray(before) != np.asarray(after), axis=2)


def test_the_segmentation_lies_on_the_boxs_own_outermost_pixels() -> None:
    image = Image.new("RGB", (200, 150), (9, 9, 9))
    drawn = draw_boxes(image, [(50.0, 60.0, 120.0, 110.0)], [1], ["red 0.90"])
    pixels = np.asarray(drawn)
    colour = list(class_colour(1))
    assert (pixels[60:110, [50, 119]] == colour).all()  # columns 50 to 119 belong to the box
    assert (pixels[109, 50:120] == colour).all()
    changed = _changed(image, drawn)
    assert not changed[61:109, 51:119].any()  # one pixel is enough for an image of 150 pixels
    assert not changed[110:].any()
    assert changed[:60].any()  # the text stands above
    assert not np.asarray(image).max() > 9  # the image itself stays as it was


def test_boxes_at_the_edges_are_visible() -> None:
    image = Image.new("RGB", (90, 70))
    changed = _changed(image, draw_boxes(image, [(0.0, 0.0, 90.0, 70.0)], [3], [""]))
    assert all(edge.all() for edge in (changed[0], changed[-1], changed[:, 0], changed[:, -1]))


def test_the_surest_box_is_drawn_on_top() -> None:
    image = Image.new("RGB", (90, 70))
    box = (30.0, 30.0, 60.0, 60.0)
    drawn = draw_boxes(image, [box, box], [1, 2], ["", ""])
    assert drawn.getpixel((59, 59)) == class_colour(1)


def test_classes_have_colours_of_their_own() -> None:
    assert len({class_colour(label) for label in range(1, 81)}) == 80
    assert all(max(class_colour(label)) >= 200 for label in range(1, 81))  # bright: value 0.95 of 255


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (1, 50), (50, 1), (300, 200)])
def test_any_box_can_be_drawn_on_any_image(size: tuple[int, int]) -> None:
    width, height = size
    boxes = [
        (0.0, 0.0, float(width), float(height)),
        (float(width), float(height), float(width), float(height)),
        (0.0, 0.0, 0.0, 0.0),
        (0.4, 0.4, 0.6, 0.6),
        (width - 0.5, 0.0, float(width), 0.25),
    ]
    image = Image.new("RGB", size, (9, 9, 9))
    texts = ["", "a name much longer than the image is wide 1.00", "é 漢字 🙂", "two\nlines", "x"]
    drawn = draw_boxes(image, boxes, range(1, 6), texts)
    assert drawn.size == size
    assert _changed(image, drawn).any()
    assert draw_boxes(image, [], [], []).tobytes() == image.tobytes()


def test_a_result_never_replaces_its_input(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "a.png"
    Image.new("RGB", (40, 30), "red").save(image)
    before = image.read_bytes()
    assert run(["predict", str(image), "-m", str(model), "-o", str(tmp_path)]) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert image.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "a.png"
    Image.new("RGB", (40, 30), "red").save(image)
    assert run(["predict", str(image), "-m", str(model), "-o", str(image / "below-a-file")]) == 2
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize("save", ["image", "json", "csv", "coco", "yolo", "crop"])
def test_a_file_in_place_of_the_folder_is_named_before_the_work(
    save: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "a.png"
    Image.new("RGB", (40, 30), "red").save(image)
    (tmp_path / "file").write_text("kept")
    flags = ["-m", str(model), "-o", str(tmp_path / "file"), "--save", save, *FLAGS]
    assert run(["predict", str(image), *flags]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path / 'file'} is a file, not a folder" in said
    assert str(image) not in said  # nobody looked at it
    assert (tmp_path / "file").read_text() == "kept"


# --- what a folder of the world holds ---

ROBUSTNESS = SHARED / "robustness_images"


@pytest.mark.shared("robustness_images")
def test_every_image_of_the_world_behaves_as_its_manifest_says(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = json.loads((ROBUSTNESS / "manifest.json").read_text())
    out = tmp_path / "out"
    names = [str(ROBUSTNESS / each["file"]) for each in entries]
    assert len(names) == 66
    assert run(["predict", *names, "-m", str(model), "-o", str(out), *FLAGS]) == 7
    lines = capsys.readouterr().err.splitlines()
    for entry, name in zip(entries, names, strict=True):
        refused = any(line.startswith(f"error: {name}: ") for line in lines)
        assert refused != any(line.startswith(f"{name}: ") and line.endswith(" ms") for line in lines)
        written = [path for path in (out / entry["file"], out / f"{entry['file']}.png") if path.exists()]
        assert len(written) == (0 if refused else 1)
        if entry["expect"] == "must load":
            assert not refused, entry
        if entry["expect"].startswith("must be reported and skipped"):
            assert refused, entry
        if written:
            turned = (entry["exif_orientation"] or 1) >= 5
            with Image.open(written[0]) as image:
                assert list(image.size) == (entry["size"][::-1] if turned else entry["size"])
    assert not any("Traceback" in line or "a bug in msad" in line for line in lines)


def test_the_limit_of_pixels_is_a_flag(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.png"
    Image.new("RGB", (40, 30)).save(file)
    command = ["predict", str(file), "-m", str(model), "-o", str(tmp_path / "out"), *FLAGS, "--max-pixels"]
    assert run([*command, "1198"]) == 7
    assert "exceeds limit of 1198 pixels; --max-pixels raises the limit" in capsys.readouterr().err
    assert run([*command, "2k", "--overwrite"]) == 0
    assert run([*command, "0"]) == 2
    assert run([*command, "many"]) == 2
    assert "--max-pixels many: not a number of pixels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "pixels"), [("1", 1), ("178956970", 178_956_970), ("500M", 500_000_000), ("3k", 3000), ("2g", 2 * 10**9)]
)
def test_numbers_of_pixels(text: str, pixels: int) -> None:
    assert parse_pixels(text) == pixels


@pytest.mark.parametrize("text", ["", "0", "0M", "-1", "1.5M", "M", "1T", "nan", "1" * 13, "٣"])
def test_what_is_no_number_of_pixels(text: str) -> None:
    with pytest.raises(UsageError, match="--max-pixels"):
        parse_pixels(text)


def test_results_cannot_go_to_a_link_to_itself(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    assert run(["predict", str(tmp_path), "-m", str(model), *FLAGS, "--out", str(tmp_path / "loop")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_results_of_an_earlier_run_are_no_inputs(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / "here"
    (here / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png"):
        Image.new("RGB", (40, 30)).save(here / name)
    monkeypatch.chdir(here)
    command = ["-m", str(model), *FLAGS]
    for name in (".", str(here), "**/*.png"):  # each into a folder of its own
        assert run(["predict", name, *command]) == 0
    assert run(["predict", "*/*.png", *command, "--overwrite"]) == 0
    written = {path.relative_to(here).as_posix() for path in here.rglob("*.png")}
    # The patterns keep no tree: their b.png lies at the top.
    trees = {f"{folder}/{name}" for folder in ("predictions", "predictions2") for name in ("a.png", "sub/b.png")}
    assert written == {"a.png", "sub/b.png", *trees, "predictions3/a.png", "predictions3/b.png", "predictions/b.png"}
    assert run(["predict", "a.png", *command, "-o", "predictions2"]) == 2
    assert "predictions2/predictions.json exists\n\nhint: add --overwrite" in capsys.readouterr().err
    # Who names the results, or a folder in them, means them.
    assert _relative(find_inputs(["predictions"], [Path("predictions")])) == ["a.png", "b.png", "sub/b.png"]
    assert _relative(find_inputs(["predictions/sub"], [Path("predictions")])) == ["b.png"]
    assert _relative(find_inputs(["predictions/*.png"], [Path("elsewhere")])) == ["a.png", "b.png"]
    assert _relative(find_inputs(["sub/*.png"], [Path()])) == ["b.png"]
    assert run(["predict", "predictions", *command, "--overwrite"]) == 2
    assert "would be overwritten by its own result" in capsys.readouterr().err


def test_names_command_no_terminal(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "in" / "\x1b[2J\x1b]0;title\a.png")
    (tmp_path / "in" / "\x1b[31mbroken.png").touch()
    (tmp_path / "in" / "\udcff[b].png").touch()  # a name that is no UTF-8
    command = ["predict", str(tmp_path / "in"), "-m", str(model), "-o", str(tmp_path / "out"), *FLAGS]
    assert run([*command, "--score", "1"]) == 7
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "\a" not in err
    assert "\\x1b[2J\\x1b]0;title\\x07.png: nothing  " in err
    assert "\\x1b[31mbroken.png: an empty file" in err
    assert "\\udcff[b].png: an empty file" in err
    assert run(["predict", "\x1b[31m", "-m", str(model)]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_an_image_too_long_for_its_format_is_saved_as_png(model: Path, tmp_path: Path) -> None:
    # 65,500 pixels are the most of a JPEG; the file holds a PNG.
    Image.new("RGB", (65_501, 1)).save(tmp_path / "long.jpg", format="PNG")
    out = tmp_path / "out"
    assert run(["predict", str(tmp_path / "long.jpg"), "-m", str(model), "-o", str(out), *FLAGS]) == 0
    with Image.open(out / "long.jpg.png") as image:
        assert (image.format, image.size) == ("PNG", (65_501, 1))


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (7, 13), (2000, 100), (100, 2000)])
def test_boxes_lie_inside_images_of_any_shape(student: Detector, tmp_path: Path, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    (found,) = predict(student, "low", [Input(tmp_path / "a.png", Path("a.png"))], Wanted(0.0), CPU)
    assert isinstance(found, Prediction)
    boxes = found.found["boxes"]
    assert len(boxes) > 0
    assert bool(boxes.isfinite().all())
    assert bool((boxes >= 0).all())
    assert bool((boxes <= torch.tensor([*size, *size])).all())
    assert bool((boxes[:, :2] <= boxes[:, 2:]).all())


# --- several at once ---


def test_images_of_one_size_go_together_and_all_come_back_in_order(
    tmp_path: Path, student: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [(64, 48), (64, 48), (64, 48), (48, 64), None, (64, 48), (64, 48)]
    inputs = []
    for number, size in enumerate(sizes):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", size, (number, 0, 0)).save(path) if size else path.write_bytes(b"")
        inputs.append(Input(path, Path(path.name)))
    detect, batches = student.detect, []

    def counted(views: Mapping[int, Sequence[Tensor]], view: View) -> list[dict[str, Tensor]]:
        batches.append(len(views[2]))
        return detect(views, view)

    monkeypatch.setattr(student, "detect", counted)
    # On some CPUs it sums in another order for a batch of two.
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    together = list(predict(student, "low", inputs, Wanted(0.0), CPU, batch=2))
    assert batches == [2, 1, 1, 2]
    alone = list(predict(student, "low", inputs, Wanted(0.0), CPU))
    assert batches == [2, 1, 1, 2] + [1] * 6
    for number, (one, other) in enumerate(zip(together, alone, strict=True)):
        if isinstance(one, DataError) or isinstance(other, DataError):
            assert number == 4
            continue
        assert one.source is other.source is inputs[number]
        assert one.image.getpixel((0, 0)) == (number, 0, 0)
        for name, values in other.found.items():
            torch.testing.assert_close(one.found[name], values)


def test_threads_that_decode_leave_the_warnings_as_they_were(tmp_path: Path) -> None:
    """Two readers overlap: the first comes in before, and goes out before, the second."""
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    before = list(warnings.filters)
    first, second = (images._opened(path) for _ in range(2))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert warnings.filters[0][0] == "ignore"
    second.__exit__(None, None, None)
    assert list(warnings.filters) == before


def test_a_text_that_would_cover_a_better_one_is_left_out() -> None:
    image = Image.new("RGB", (300, 200), (9, 9, 9))
    near, far = [(50.0, 60.0, 120.0, 110.0), (52.0, 61.0, 122.0, 111.0)], (200.0, 150.0, 290.0, 190.0)
    one = draw_boxes(image, [near[0]], [1], ["red 0.90"])
    both = draw_boxes(image, near, [1, 1], ["red 0.90", "blue 0.80"])
    plate = (50, 40, 122, 60)  # above the first box
    assert both.crop(plate).tobytes() == one.crop(plate).tobytes()
    # One that covers nothing is written: more is changed than by its box alone.
    plain, told = (draw_boxes(image, [near[0], far], [1, 1], ["red 0.90", text]) for text in ("", "blue 0.80"))
    assert _changed(plain, told).any()
