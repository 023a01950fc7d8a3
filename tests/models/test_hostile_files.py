"""Model files and weights that somebody made to do harm: refused with a reason, no code run, little memory taken."""

import json
import os
import pickle
import resource
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from msad_cli.cli.app import run
from msad_cli.errors import ModelFileError
from msad_cli.inference.inputs import Input
from msad_cli.inference.predictor import Prediction, Wanted, predict
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import LARGEST_HEADER, Card, load_model, read_header, save_model
from msad_cli.models.spec import LONGEST_NAMES, ClassName, DetectorSpec
from msad_cli.models.weights.initialise import from_file
from msad_cli.system.device import Compute
from msad_cli.text import printable

STEM = "core.backbone.body.conv1.weight"  # F32, 16 × 3 × 7 × 7 at width 0.25


@pytest.fixture
def model(tmp_path: Path, student: Detector) -> Path:
    path = tmp_path / "model" / "student.safetensors"
    save_model(path, student, Card(scores={"low": {"AP": 0.25}}))
    return path


def _split(path: Path) -> tuple[str, bytes]:
    """The header of a model file, and its data."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return content[8 : 8 + size].decode(), content[8 + size :]


def _join(path: Path, header: str, data: bytes) -> None:
    text = header.encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def _rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    text, data = _split(path)
    header = json.loads(text)
    change(header)
    _join(path, json.dumps(header), data)


def _refused(path: Path) -> str:
    """The message of loading a file; what `msad info` says is no traceback either."""
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    assert str(path) in caught.value.message
    assert run(["info", str(path)]) in (0, 4)
    return caught.value.message


# --- the header ---


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (f'"{STEM}":', f'"{STEM}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}},"{STEM}":'),
        ('{"__metadata__"', '{"__metadata__":{"format":"msad/1"},"__metadata__"'),
        (r"\"width\": 0.25", r"\"width\": 0.25, \"width\": 0.25"),
        (r"\"epochs\": 0", r"\"epochs\": 0, \"epochs\": 0"),
        (r"\"AP\": 0.25", r"\"AP\": 0.25, \"AP\": 0.25"),
        (r"\"short_side\": 64", r"\"short_side\": 64, \"short_side\": 32"),
    ],
)
def test_a_name_that_stands_twice_is_refused(model: Path, old: str, new: str) -> None:
    header, data = _split(model)
    header = json.dumps(json.loads(header)).replace(": {", ":{").replace('": ', '":') if old not in header else header
    assert header.count(old) == 1
    _join(model, header.replace(old, new), data)
    assert "a name stands twice" in _refused(model)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"\"width\": 0.25", r"\"width\": NaN"),
        (r"[0.485,", r"[0.485, NaN, 0.4], \"rest\": ["),
        (r"0.456, 0.406]", r"NaN, 0.406]"),  # not the first, where comparing with it would show
        (r"0.224, 0.225]", r"0.224, Infinity]"),
        (r"0.224, 0.225]", r"0.224, 1e999]"),
        (r"0.224, 0.225]", r"0.224, 1" + 400 * "0" + "]"),
        (r"\"white\": 0.0", r"\"white\": 1" + 400 * "0"),
        (r"0.224, 0.225]", r"0.224, true]"),
        (r"0.224, 0.225]", r"0.224, 0]"),
        (r"0.456, 0.406]", r"-1e7, 0.406]"),
        (r"\"category_id\": 7", r"\"category_id\": 9223372036854775808"),
        (r"\"category_id\": 7", r"\"category_id\": true"),
        (r"\"AP\": 0.25", r"\"AP\": NaN"),
        (r"\"AP\": 0.25", r"\"AP\": -Infinity"),
        (r"\"AP\": 0.25", r"\"AP\": 1e999"),
        (r"\"AP\": 0.25", r"\"AP\": 1" + 4000 * "0"),
        (r"\"AP\": 0.25", r"\"AP\": " + 5000 * "1"),
        (r"\"AP\": 0.25", r"\"AP\": true"),
        (r"\"epochs\": 0", r"\"epochs\": false"),
        (r"{\"low\": {\"AP\": 0.25}}", r"[]"),
        (r"{\"low\": {\"AP\": 0.25}}", r"0"),
        (r"{\"low\": {\"AP\": 0.25}}", 200_000 * "["),
        (r"\"score_threshold\": 0.5", r"\"score_threshold\": true"),
        (r"\"resnet18\"", 200_000 * "["),
        (r"\"resnet18\"", 50_000 * r"{\"a\": " + "1" + 50_000 * "}"),
        (r"\"red\"", r"\"" + 10_000_000 * "r" + r"\""),
        (r"\"red\"", r"\"" + 1001 * "r" + r"\""),
    ],
    ids=lambda text: str(text)[:40],
)
def test_numbers_and_texts_that_are_none_are_refused(model: Path, old: str, new: str) -> None:
    header, data = _split(model)
    assert old in header
    _join(model, header.replace(old, new), data)
    message = _refused(model)
    assert "broken metadata (" in message or "not a safetensors file" in message
    assert len(message) < 500


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["__metadata__"].update(more=5),
        lambda header: header["__metadata__"].update(spec=json.loads(header["__metadata__"]["spec"])),
        lambda header: header["__metadata__"].update(card=None),
        lambda header: header.update(__metadata__=[]),
        lambda header: header.update(__metadata__="format"),
        lambda header: header["__metadata__"].update(format=["msad/1"]),
    ],
)
def test_metadata_that_are_no_texts_are_refused(model: Path, change: Callable[[dict[str, Any]], object]) -> None:
    _rewrite(model, change)
    _refused(model)


@pytest.mark.parametrize(
    "fields",
    [
        {"data_offsets": [-4, 9404]},
        {"data_offsets": [9408, 0]},
        {"data_offsets": [0, 9412]},
        {"data_offsets": [4, 9412]},
        {"data_offsets": [False, 9408]},
        {"data_offsets": [0, 9408.0]},
        {"data_offsets": [0, 2**70]},
        {"data_offsets": [0]},
        {"data_offsets": {}},
        {"data_offsets": [[], {}]},
        {"shape": [16, 3, 7, 8]},
        {"shape": [16, 3, 7, -7]},
        {"shape": [16, 3, 7, True]},
        {"shape": [2**62, 2**62, 2**62]},
        {"shape": [2**62] * 100_000},
        {"shape": 16 * 3 * 7 * 7},
        {"shape": "F32"},
        {"dtype": "F16"},
        {"dtype": "F64"},
        {"dtype": "I64"},
        {"dtype": "U8"},
        {"dtype": ["F32"]},
        {"dtype": None},
        {"dtype": "\x1b[31m" * 1000},
    ],
)
def test_tensors_that_lie_about_themselves_are_refused(model: Path, fields: dict[str, Any]) -> None:
    _rewrite(model, lambda header: next(each for name, each in header.items() if name == _first(header)).update(fields))
    assert len(_refused(model)) < 600


def _first(header: dict[str, Any]) -> str:
    """The tensor at the beginning of the data."""
    entries = {name: each for name, each in header.items() if name != "__metadata__"}
    return min(entries, key=lambda name: entries[name]["data_offsets"])


def test_tensors_that_share_bytes_are_refused(model: Path) -> None:
    def overlap(header: dict[str, Any]) -> None:
        names = [name for name, each in header.items() if each.get("shape") == [64] and name != "__metadata__"]
        header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]

    _rewrite(model, overlap)
    assert "do not lie one behind the other" in _refused(model)


def test_an_absurd_spec_takes_no_memory(model: Path) -> None:
    # A ResNet-152 of width 4 with 1024 channels and 10,000 classes: more than 4 GB of tensors, which are not there.
    def absurd(header: dict[str, Any]) -> None:
        spec = json.loads(header["__metadata__"]["spec"])
        classes = [{"category_id": number, "name": ""} for number in range(10_000)]
        spec |= {"backbone": "resnet152", "width": 4.0, "channels": 1024, "head_convs": 16, "classes": classes}
        header["__metadata__"]["spec"] = json.dumps(spec)

    _rewrite(model, absurd)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "tensors missing" in _refused(model)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # KiB at the worst moment


def test_the_largest_class_names_can_be_read_again(tmp_path: Path, student_spec: DetectorSpec) -> None:
    names = tuple(ClassName(number, "🙂" * (LONGEST_NAMES // 2000)) for number in range(2000))
    path = tmp_path / "m.safetensors"
    save_model(path, Detector(replace(student_spec, classes=names)), Card())
    assert len(_split(path)[0]) < LARGEST_HEADER  # 500,000 characters of 14 bytes: two surrogates, escaped twice
    assert read_header(path)[0].classes == names
    with pytest.raises(ValueError, match="characters of all class names"):
        replace(student_spec, classes=(*names, ClassName(2000, "a")))


# --- the file ---


def test_weights_that_are_no_numbers_find_nothing(tmp_path: Path, student: Detector) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    path = tmp_path / "m.safetensors"
    for part, value in (("", torch.nan), ("bbox_reg", torch.nan), ("bbox_reg", torch.inf), ("cls_logits", torch.inf)):
        broken = {
            name: torch.full_like(each, value) if part in name and each.is_floating_point() else each
            for name, each in student.state_dict().items()
        }
        whole = student.state_dict()
        whole = {name: each.clone() for name, each in whole.items()}
        student.load_state_dict(broken)
        save_model(path, student, Card())
        student.load_state_dict(whole)
        loaded, _ = load_model(path)
        compute = Compute(torch.device("cpu"), "fp32")
        (found,) = predict(loaded, "low", [Input(tmp_path / "a.png", Path("a.png"))], Wanted(0.0), compute)
        assert isinstance(found, Prediction)
        assert bool(found.found["boxes"].isfinite().all())
        if value is torch.nan:
            assert len(found.found["boxes"]) == 0
        command = ["predict", str(tmp_path / "a.png"), "-m", str(path), "-o", str(tmp_path / "out"), "-q"]
        assert run([*command, "--overwrite"]) == 0
        json.loads((tmp_path / "out" / "predictions.json").read_text(), parse_constant=pytest.fail)


def test_what_is_no_regular_file_is_refused(
    tmp_path: Path, student: Detector, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    for path in (tmp_path / "pipe.safetensors", tmp_path, Path("/dev/zero"), Path("/dev/full")):
        assert run(["info", str(path)]) == 4
        assert f"error: {path}: not a file" in capsys.readouterr().err
        with pytest.raises(ModelFileError, match="not a file"):
            from_file(student, path)
    assert run(["info", str(tmp_path / ("a" * 300))]) == 4
    assert "cannot be read (File name too long)" in capsys.readouterr().err
    with pytest.raises(ModelFileError, match="no such weights file"):
        from_file(student, tmp_path / ("a" * 300))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model.chmod(0)
    assert run(["info", str(model)]) == 4
    assert "cannot be read (Permission denied)" in capsys.readouterr().err


def test_a_link_to_a_model_is_a_model(model: Path, tmp_path: Path) -> None:
    (tmp_path / "link.safetensors").symlink_to(model)
    assert load_model(tmp_path / "link.safetensors")[0].spec == load_model(model)[0].spec
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    _refused(tmp_path / "loop")


def test_a_file_that_gets_shorter_while_it_is_read(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Detector.__init__

    def cut_then_build(self: Detector, spec: DetectorSpec) -> None:
        os.truncate(model, model.stat().st_size - 1000)  # the header has been read by now, the tensors have not
        build(self, spec)

    monkeypatch.setattr(Detector, "__init__", cut_then_build)
    with pytest.raises(ModelFileError, match="became shorter while it was read"):
        load_model(model)


def test_a_file_that_is_replaced_while_it_is_read_is_read_as_it_was(
    model: Path, student: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = Detector.__init__

    def replace_then_build(self: Detector, spec: DetectorSpec) -> None:
        (model.parent / "other").write_bytes(b"another file")
        (model.parent / "other").replace(model)
        build(self, spec)

    monkeypatch.setattr(Detector, "__init__", replace_then_build)
    loaded, _ = load_model(model)
    assert torch.equal(loaded.state_dict()[STEM], student.state_dict()[STEM])


# --- files of other tools ---


class _Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")


@pytest.mark.parametrize(
    ("name", "write", "kind"),
    [
        ("m.pt", lambda path: torch.save({"a": torch.zeros(2)}, path), "a zip archive, such as torch.save writes"),
        ("m.ckpt", _zip, "a zip archive"),
        ("m.pth", lambda path: torch.save({}, path, _use_new_zipfile_serialization=False), "a pickle"),
        ("m.pkl", lambda path: path.write_bytes(pickle.dumps(list(range(99)))), "a pickle"),
        ("m.gz", lambda path: path.write_bytes(b"\x1f\x8b\x08\0" + bytes(range(99))), "a gzip archive"),
        ("m.bin", lambda path: path.write_bytes(b"\x08\x0a\x12\x07pytorch\x1a\x052.0.0"), "perhaps ONNX"),
    ],
)
def test_models_of_other_tools_are_refused_with_an_explanation(
    tmp_path: Path, name: str, write: Callable[[Path], object], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    write(path)
    image = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(image)
    for command in (
        ["info", str(path)],
        ["flops", str(path)],
        ["eval", str(path)],
        ["predict", str(image), "-m", str(path), "-o", str(tmp_path / "out")],
        ["distill", "--teacher", str(path), "--out", str(tmp_path / "s.safetensors")],
    ):
        assert run(command) == 4
        err = capsys.readouterr().err
        assert err.startswith(f"error: {path}: not a safetensors file but {kind}")
        assert "hint: msad loads models from .safetensors alone, because loading a pickle can run code" in err
        assert "--init FILE" in err


# --- weights to start from ---


@pytest.fixture
def backbone(student: Detector) -> dict[str, torch.Tensor]:
    """Weights of the backbone, as torchvision's classifiers name them."""
    return {name: torch.ones_like(each) for name, each in student.core.backbone.body.state_dict().items()}


def test_hostile_weights_execute_nothing(tmp_path: Path, student: Detector) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "w.pth"
    for new in (True, False):
        torch.save({"conv1.weight": _Hostile(mark)}, path, _use_new_zipfile_serialization=new)
        with pytest.raises(ModelFileError, match="not a file of weights"):
            from_file(student, path)
    path.write_bytes(pickle.dumps(_Hostile(mark)))
    with pytest.raises(ModelFileError, match="one of more than tensors, which could run code"):
        from_file(student, path)
    assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists()  # as it would be, were it unpickled


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}, "args": [1, "two", None]},
        lambda state: {"state_dict": {f"module.{name}": each for name, each in state.items()}},
        lambda state: {**state, "epoch": 3, 7: torch.zeros(2), "note": "text"},
    ],
)
def test_usual_wrappers_of_weights_are_known(
    tmp_path: Path, student: Detector, backbone: dict[str, torch.Tensor], wrap: Callable[[Any], Any]
) -> None:
    torch.save(wrap(backbone), tmp_path / "w.pth")
    assert from_file(student, tmp_path / "w.pth").tensors == len(backbone)
    assert torch.equal(student.core.backbone.body.conv1.weight, backbone["conv1.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_other_types_are_converted(
    tmp_path: Path, student: Detector, backbone: dict[str, torch.Tensor], dtype: torch.dtype, suffix: str
) -> None:
    path = tmp_path / f"w{suffix}"
    state = {name: each.to(dtype) for name, each in backbone.items()}
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    from_file(student, path)
    assert student.core.backbone.body.conv1.weight.dtype == torch.float32
    assert torch.equal(student.core.backbone.body.conv1.weight, backbone["conv1.weight"])


@pytest.mark.parametrize(
    "strange",
    [
        lambda each: each.to(torch.complex64),
        lambda each: each.to_sparse(),
        lambda each: each.to("meta"),
        lambda each: each.tolist(),
        lambda each: None,
    ],
)
@pytest.mark.filterwarnings("ignore")  # torch's remarks on its own prototypes
def test_weights_that_cannot_be_copied_are_passed_over(
    tmp_path: Path, student: Detector, backbone: dict[str, torch.Tensor], strange: Callable[[torch.Tensor], Any]
) -> None:
    before = student.core.backbone.body.conv1.weight.clone()
    torch.save({**backbone, "conv1.weight": strange(backbone["conv1.weight"])}, tmp_path / "w.pth")
    copied = from_file(student, tmp_path / "w.pth")
    assert "conv1.weight" in copied.left
    assert torch.equal(student.core.backbone.body.conv1.weight, before)
    torch.save({"conv1.weight": strange(backbone["conv1.weight"])}, tmp_path / "w.pth")
    with pytest.raises(ModelFileError, match="none of its tensors fits"):
        from_file(student, tmp_path / "w.pth")


def _overwritten(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert content.count(old) >= 1
    path.write_bytes(content.replace(old, new))


def _compressed(path: Path) -> None:
    """The records of a whole file, one of them a hundred million zeros that take 100 kB."""
    with (
        zipfile.ZipFile(path) as whole,
        zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in whole.namelist():
            archive.writestr(name, bytes(10**8) if name.endswith("/data/0") else whole.read(name))
    path.with_suffix(".zip").replace(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-40]),
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)),
        lambda path: path.write_bytes(b"\x80\x02" + bytes(100)),
        lambda path: path.write_text("no weights"),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({}, path),
        _zip,
        _compressed,
        # Every size in the archive that is that of the stem's weights (9,408 bytes) becomes one of 2 GB.
        lambda path: _overwritten(path, struct.pack("<II", 9408, 9408), struct.pack("<II", 2**31 - 9, 2**31 - 9)),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_damaged_weights_are_refused_in_little_memory(
    tmp_path: Path, student: Detector, backbone: dict[str, torch.Tensor], damage: Callable[[Path], object], name: str
) -> None:
    path = tmp_path / name
    torch.save(backbone, path)
    damage(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelFileError) as caught:
        from_file(student, path)
    assert str(path) in caught.value.message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 80 * 1024  # KiB at the worst moment


# --- what is printed of it ---


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünïcödé 漢字 🙂", "plain, ünïcödé 漢字 🙂"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x9b31m\x7f\0\r\b", "\\x9b31m\\x7f\\x00\\r\\x08"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
    ],
)
def test_texts_command_no_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_class_names_command_no_terminal(
    tmp_path: Path, coco_folder: Path, student_spec: DetectorSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("\x1b[31mred\x1b[0m", "[bold]\ud800[/nothing]")
    classes = tuple(ClassName(number, name) for number, name in zip((7, 90), names, strict=True))
    path = tmp_path / "[x]\x1b[2Jm.safetensors"
    save_model(path, Detector(replace(student_spec, classes=classes)), Card(data="\x1b[31m"))
    file = coco_folder / "annotations" / "instances_val2017.json"
    document = json.loads(file.read_text())
    document["categories"] = [{"id": each.category_id, "name": each.name} for each in classes]
    file.write_text(json.dumps(document))
    for command in (
        ["info", str(path)],
        ["info", str(path), "--json"],
        ["flops", str(path)],
        ["eval", str(path), "--data", str(coco_folder), "--per-class", "--workers", "0"],
        ["eval", str(path), "--data", str(coco_folder), "--json", "--workers", "0"],
        ["predict", str(coco_folder / "val2017"), "-m", str(path), "-o", str(tmp_path / "out"), "--score", "0"],
    ):
        assert run(command) == 0
        captured = capsys.readouterr()
        assert "\x1b" not in captured.err + captured.out
        assert "\ud800" not in captured.err + captured.out
