"""`import msad_cli as msad`: the functions are the commands, the detections those of `msad predict`."""

import inspect
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import load_file

import msad_cli as msad
from msad_cli.cli.app import app, run
from msad_cli.data.layouts.demo import draw_demo
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, save_model
from msad_cli.models.spec import DetectorSpec, Learning

if TYPE_CHECKING:
    from collections.abc import Callable

TINY = {
    "init": "none",
    "backbone": "resnet18",
    "width": 0.25,
    "head_channels": 64,
    "head_convs": 1,
    "size": "96,128",
    "batch": 2,
    "epochs": 1,
    "device": "cpu",
    "precision": "fp32",
    "workers": 0,
}
EXAMPLE = Path(__file__).parents[1] / "examples" / "from_python.py"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "demo"
    draw_demo(folder, train=4, val=2, seed=1, size=(128, 96))
    return folder


@pytest.fixture
def file(tmp_path: Path, student: Detector) -> Path:
    """A model file whose threshold lets some of an untrained student's detections pass."""
    path = tmp_path / "student.safetensors"
    save_model(path, student, Card(score_threshold=0.08))
    return path


@pytest.fixture
def image() -> Image.Image:
    """96 × 64 pixels, another at each place."""
    pixels = torch.randint(0, 256, (64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Image.fromarray(pixels.numpy())


def test_importing_it_and_listing_its_names_does_not_import_torch() -> None:
    code = "import sys, msad_cli; dir(msad_cli); assert 'torch' not in sys.modules; import msad_cli.cli.app"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"], check=True)


def test_every_public_name_is_there_and_no_other() -> None:
    assert sorted(msad.__all__) == msad.__all__
    for name in msad.__all__:
        assert getattr(msad, name).__module__.startswith("msad_cli.")
    with pytest.raises(AttributeError, match="no attribute 'predict'"):
        msad.predict  # noqa: B018
    assert (Path(inspect.getfile(msad)).parent / "py.typed").exists()


@pytest.mark.parametrize(
    ("function", "command", "from_python", "typed_alone"),
    [
        ("train_teacher", "teacher", {"on_step"}, set()),
        ("distill", "distill", {"on_step", "losses"}, set()),
        ("fit", "fit", set(), {"as_json"}),
        ("evaluate", "eval", set(), {"plot", "per_class", "fail_under", "as_json", "quiet"}),
    ],
)
def test_keywords_are_the_commands_flags(
    function: str, command: str, from_python: set[str], typed_alone: set[str]
) -> None:
    keywords = set(inspect.signature(getattr(msad, function)).parameters)
    parameters = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    flags = {each.name for each in parameters if each.name != "help"}
    assert keywords - flags == from_python
    assert flags - keywords == typed_alone
    for each in parameters:
        if each.param_type_name == "option" and each.name != "help":
            spelt = {"as_json": "json"}.get(each.name, each.name.rstrip("_")).replace("_", "-")
            assert f"--{spelt}" in each.opts


def test_a_training_from_python_is_the_typed_one(demo: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The same weights to the bit, the same recorded settings, and not a word."""
    typed, called = tmp_path / "typed.safetensors", tmp_path / "called.safetensors"
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    assert run(["teacher", "--data", str(demo), "--lambda", "0.5", *flags, "--out", str(typed), "-q"]) == 0
    capfd.readouterr()
    trained = msad.train_teacher(data=str(demo), lambda_=0.5, **TINY, out=called)  # type: ignore[arg-type]
    assert capfd.readouterr() == ("", "")
    assert trained.model == called
    assert list(trained.scores) == ["fused", "high", "low"]
    wanted, found = load_file(typed), load_file(called)
    assert wanted.keys() == found.keys()
    assert all(torch.equal(each, found[name]) for name, each in wanted.items())
    settings = [json.loads((each.with_suffix(".run") / "args.json").read_text()) for each in (typed, called)]
    assert settings[0] == settings[1]
    assert settings[1]["lambda"] == {"value": 0.5, "source": "flag", "reason": ""}


class Items(torch.utils.data.Dataset[Any]):
    """The images of the demo set, as tensors, with their boxes as torchvision's detectors take them."""

    def __init__(self, demo: Path, split: str) -> None:
        document = json.loads((demo / "annotations" / f"instances_{split}2017.json").read_text())
        self.folder, self.images = demo / f"{split}2017", document["images"]
        self.objects = document["annotations"]
        self.categories = {each["id"]: each["name"] for each in document["categories"]}
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        self.asked.append(index)
        image = self.images[index]
        own = [each for each in self.objects if each["image_id"] == image["id"]]
        boxes = torch.tensor([each["bbox"] for each in own], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor([each["category_id"] for each in own], dtype=torch.int64)
        pixels = np.array(Image.open(self.folder / image["file_name"]).convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1), {"boxes": boxes, "labels": labels}


def test_datasets_train_as_the_files_do_that_they_read(demo: Path, tmp_path: Path) -> None:
    """The pixels are those of the JPEGs, so the weights are the same to the bit; each item is asked for once."""
    files, items = tmp_path / "files.safetensors", tmp_path / "items.safetensors"
    train, val = Items(demo, "train"), Items(demo, "val")
    msad.train_teacher(data=str(demo), **TINY, out=files)  # type: ignore[arg-type]
    msad.train_teacher(data=(train, val), **TINY, out=items)  # type: ignore[arg-type]
    assert (train.asked, val.asked) == ([0, 1, 2, 3], [0, 1])
    wanted, found = load_file(files), load_file(items)
    assert all(torch.equal(each, found[name]) for name, each in wanted.items())
    assert msad.load(items).spec.categories == msad.load(files).spec.categories
    assert msad.train_teacher(out=items, resume=True, epochs=2).scores.keys() == {"fused", "high", "low"}


def test_a_dataset_that_is_none_is_refused(demo: Path, tmp_path: Path) -> None:
    train = Items(demo, "train")
    with pytest.raises(msad.MsadError, match="not a pair of datasets"):
        msad.train_teacher(data=(train,), **TINY, out=tmp_path / "t.safetensors")  # type: ignore[arg-type]
    with pytest.raises(msad.MsadError, match="item 0 of the dataset is no image with a target"):
        msad.train_teacher(data=([1, 2], train), **TINY, out=tmp_path / "t.safetensors")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


class Distance(torch.nn.Module):
    """A loss of one's own, with a parameter: the student's finest map, scaled, from the teacher's."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, student: Any, teacher: Any, targets: Any) -> dict[str, torch.Tensor]:
        return {"finest": (self.scale * student.pyramid[0] - teacher.pyramid[0]).abs().mean()}


def test_a_loss_of_ones_own_and_a_callback(demo: Path, tmp_path: Path) -> None:
    teacher, own = tmp_path / "t.safetensors", Distance()
    steps: list[Any] = []
    msad.train_teacher(data=str(demo), **TINY, out=teacher, on_step=steps.append)  # type: ignore[arg-type]
    assert [each.number for each in steps] == [1, 2]  # 4 images, 2 a step
    steps.clear()
    fast = {name: TINY[name] for name in ("batch", "epochs", "device", "precision", "workers")}
    student = tmp_path / "s.safetensors"
    weighed = {"losses": {"mine": own}, "weight": "mine=2", "distill_warmup": 0, "lr": 0.1}
    msad.distill(teacher=teacher, out=student, on_step=steps.append, **fast, **weighed)  # type: ignore[arg-type]
    assert [name for name in steps[0].losses if name.startswith("distil")] == ["distil/mine/finest"]
    # The student begins as its teacher is; where that teaches by the low view, they differ from the second step on.
    assert steps[-1].losses["distil/mine/finest"] > 0
    assert own.scale.item() != 1.0
    recorded = json.loads((tmp_path / "s.run" / "args.json").read_text())
    assert recorded["method"]["reason"] == "mine × 2"
    assert "losses" not in recorded
    assert not any("scale" in name for name in load_file(student) if "mine" in name)


def test_the_example_trains_evaluates_and_predicts(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(EXAMPLE))["main"]
    found = main(tmp_path, str(demo), "96,96", 1)
    assert "the student's low view: AP " in capsys.readouterr().out
    assert len(found.boxes) == len(found.scores) == len(found.names)
    scores = msad.evaluate(tmp_path / "student.safetensors", workers=0)
    recorded = json.loads((tmp_path / "student.run" / "metrics.json").read_text())
    assert list(scores) == ["low"]
    assert scores["low"].numbers["AP"] == pytest.approx(recorded["low"]["AP"], abs=1e-9)


def test_a_run_without_time_is_no_error_and_goes_on(demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.safetensors"
    stopped = msad.train_teacher(data=str(demo), **TINY, out=out, time="0s")  # type: ignore[arg-type]
    assert stopped == msad.Trained(out, {}, "the weights after step 1, which were not evaluated")
    assert msad.load(out, device="cpu").card.unfinished
    assert msad.train_teacher(out=out, resume=True).scores.keys() == {"fused", "high", "low"}


def test_a_signal_acts_after_the_state_is_written(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from msad_cli.distillation.aligned_teacher import AlignedTraining

    forward = AlignedTraining.forward

    def interrupted(self, views, targets):  # type: ignore[no-untyped-def]
        os.kill(os.getpid(), signal.SIGINT)
        return forward(self, views, targets)

    monkeypatch.setattr(AlignedTraining, "forward", interrupted)
    out = tmp_path / "t.safetensors"
    with pytest.raises(KeyboardInterrupt):
        msad.train_teacher(data=str(demo), **TINY, out=out)  # type: ignore[arg-type]
    assert (tmp_path / "t.run" / "resume" / "state.pt").exists()


def test_a_training_runs_in_any_thread(demo: Path, tmp_path: Path) -> None:
    """Only the main thread may ask for signals."""
    trained: list[msad.Trained] = []

    def work() -> None:
        trained.append(msad.train_teacher(data=str(demo), **TINY, out=tmp_path / "t.safetensors"))  # type: ignore[arg-type]

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert trained[0].model.exists()


def test_mistakes_are_raised(demo: Path, tmp_path: Path, file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cases: list[tuple[Callable[[], object], int, str]] = [
        (msad.train_teacher, 2, "no data given"),
        (lambda: msad.train_teacher(data="demo", epochs=0), 2, "--epochs"),
        (lambda: msad.train_teacher(data=str(demo), out=file), 2, "exists"),
        (lambda: msad.distill(teacher=tmp_path / "no.safetensors"), 4, "no such model file"),
        (lambda: msad.load(tmp_path / "no.safetensors"), 4, "no such model file"),
        (lambda: msad.load(file, device="abacus"), 2, "--device abacus"),
        (lambda: msad.load(file, device="cpu").predict("nowhere.jpg"), 3, "nowhere.jpg"),
        (lambda: msad.load(file, device="cpu").predict([3]), 2, "image 1: int"),  # type: ignore[list-item]
        (lambda: msad.load(file, device="cpu").predict("a.png", view="high"), 2, "--view high"),
    ]
    for act, code, words in cases:
        with pytest.raises(msad.MsadError) as caught:
            act()
        assert caught.value.exit_code == code
        assert words in caught.value.message
    with pytest.raises(TypeError, match="epoch"):
        msad.train_teacher(data="demo", epoch=3)  # type: ignore[call-arg]
    assert capfd.readouterr() == ("", "")


def test_an_image_is_the_same_in_every_form(file: Path, image: Image.Image, tmp_path: Path) -> None:
    """And what is found in it is what `msad predict` writes, which has boxes as x, y, width, height to 0.01 pixels."""
    path = tmp_path / "image.png"
    image.save(path)
    pixels = np.asarray(image)
    model = msad.load(file, device="cpu", precision="fp32")
    found = model.predict(path)
    assert len(found.boxes) > 0
    assert (np.diff(found.scores) <= 0).all()
    forms: list[Any] = [
        str(path),
        image,
        pixels,
        torch.from_numpy(pixels.copy()).permute(2, 0, 1),
        pixels[::-1][::-1],
    ]
    for each in [*model.predict(forms), *(model.predict(form) for form in forms)]:
        for name in ("boxes", "scores", "labels"):
            np.testing.assert_array_equal(getattr(each, name), getattr(found, name))
        assert each.names == found.names
        assert each.masks is None
        assert each.keypoints is None

    command = ["predict", str(path), "-m", str(file), "-o", str(tmp_path / "seen"), "--device", "cpu"]
    assert run([*command, "--precision", "fp32", "-q"]) == 0
    written = json.loads((tmp_path / "seen" / "predictions.json").read_text())
    assert [each["category_id"] for each in written] == found.labels.tolist()
    corners = np.array([each["bbox"] for each in written])
    corners[:, 2:] += corners[:, :2]
    np.testing.assert_allclose(corners, found.boxes, atol=0.011)
    assert set(zip(found.labels.tolist(), found.names, strict=True)) <= {(7, "red"), (90, "blue")}


def test_masks_and_keypoints_come_in_the_images_pixels(
    student_spec: DetectorSpec, image: Image.Image, tmp_path: Path
) -> None:
    other = {
        "maskrcnn": {"detector": "maskrcnn", "learning": Learning(32)},
        "keypointrcnn": {"detector": "keypointrcnn", "learning": Learning(32), "keypoints": ("head", "tail")},
    }
    for name, fields in other.items():
        spec = DetectorSpec(**{**vars(student_spec), **fields, "detections_per_image": 5})
        torch.manual_seed(0)
        path = tmp_path / f"{name}.safetensors"
        save_model(path, Detector(spec).eval(), Card(score_threshold=0.0))
        found = msad.load(path, device="cpu", precision="fp32").predict(image)
        assert 0 < len(found.boxes) <= 5
        if name == "maskrcnn":
            assert found.masks is not None
            assert found.masks.shape == (len(found.boxes), 64, 96)
            assert found.masks.dtype == np.bool_
            assert found.masks.any()
            for mask, (x0, y0, x1, y1) in zip(found.masks, found.boxes, strict=True):
                rows, columns = np.nonzero(mask)
                assert ((rows >= y0 - 2) & (rows <= y1 + 2) & (columns >= x0 - 2) & (columns <= x1 + 2)).all()
        else:
            assert found.keypoints is not None
            assert found.keypoints.shape == (len(found.boxes), 2, 3)
            assert (found.keypoints[..., 0] <= 96).all()
            assert (found.keypoints[..., 1] <= 64).all()


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((8, 8, 3), dtype=np.float32),
        np.zeros((8, 8), dtype=np.uint8),
        np.zeros((8, 8, 4), dtype=np.uint8),
        np.zeros((0, 8, 3), dtype=np.uint8),
        torch.zeros((8, 8, 3), dtype=torch.uint8),
        torch.zeros((1, 3, 8, 8), dtype=torch.uint8),
        torch.zeros((3, 8, 8)),
        None,
    ],
)
def test_pixels_of_another_form_are_refused(file: Path, pixels: object) -> None:
    with pytest.raises(msad.MsadError, match="image 1: ") as caught:
        msad.load(file, device="cpu").predict(pixels)  # type: ignore[call-overload]
    assert "uint8 array" in caught.value.hint
