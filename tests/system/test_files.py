"""Files that are whole or absent: model files good and hostile, and the folder of a run."""

import errno
import json
import os
import pickle
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from msad_cli.errors import ModelFileError, OutputError, UsageError
from msad_cli.frame import Resolution
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import LARGEST_HEADER, Card, load_model, read_header, save_model
from msad_cli.models.spec import ClassName, DetectorSpec, Measuring
from msad_cli.runs.folder import RunFolder, Setting
from msad_cli.system.files import fingerprint, write_text

TEACHER = DetectorSpec(
    role="teacher",
    detector="fcos",
    backbone="resnet18",
    width=0.25,
    channels=64,
    head_convs=2,
    norm="group",
    scales="aligned",
    ks=(1, 2),
    resolution=Resolution(64, 96),
    classes=(ClassName(7, "red"),),
)
CARD = Card(
    data="/data/images",
    data_fingerprint="ab12",
    epochs=12,
    scores={"low": {"AP": 0.25, "APs": None}},
    score_threshold=0.31,
    teacher="cd34",
    teacher_spec=TEACHER,
    msad_version="0.1",
)

# --- whole or absent ---


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.txt"
    write_text(path, "first ×")
    assert path.read_text(encoding="utf-8") == "first ×"
    write_text(path, "second")
    assert path.read_text() == "second"
    assert os.listdir(path.parent) == ["file.txt"]


def test_a_failure_leaves_the_old_file_and_no_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def fail(handle: int) -> None:
        # The new file lies beside the old one: a rename from another file system would not be atomic.
        assert path.read_text() == "old"
        assert len(os.listdir(tmp_path)) == 2
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match=r"file\.txt: No space left on device; it takes 3 bytes"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_a_new_file_has_the_mode_of_an_ordinary_one(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_the_mask_of_rights_is_never_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to the process: another thread's file, made meanwhile, would be everybody's to write."""
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("the mask was set"))
    write_text(tmp_path / "file.txt", "text")


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 255)
    write_text(path, "long")
    assert path.read_text() == "long"


# --- the model file ---


def _views(detector: Detector) -> dict[int, list[torch.Tensor]]:
    """Random pixels for all of a detector's views, of a frame of 64 × 96."""
    generator = torch.Generator().manual_seed(1)
    return {
        k: [torch.randint(0, 256, (3, 64 // k, 96 // k), generator=generator, dtype=torch.uint8)]
        for k in detector.spec.ks
    }


KEYPOINTS = {
    "keypoints": ("nose", "left eye", "right eye"),
    "flip_pairs": ((1, 2),),
    "skeleton": ((0, 1), (0, 2)),
    "measuring": Measuring((0.026, 0.025, 0.025)),
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"role": "teacher", "ks": (1, 2)},
        {"role": "teacher", "ks": (1, 2, 4)},
        {"ks": (1,)},
        {"ks": (4,), "head_depthwise": True},
        {"ks": (1, 2), "low_backbone": "resnet34", "low_width": 0.5},
        {"role": "baseline", "scales": "vanilla", "ks": (1, 2)},
        {"detector": "retinanet"},
        {"detector": "maskrcnn", "detections_per_image": 5},
        {"detector": "keypointrcnn", "detections_per_image": 5, **KEYPOINTS},
    ],
    ids=lambda changes: ",".join(str(value) for value in changes.values())[:40],
)
def test_a_model_comes_back_as_it_was(tmp_path: Path, student_spec: DetectorSpec, changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    detector = Detector(replace(student_spec, **changes)).eval()
    if detector.spec.detector == "retinanet":  # untrained, it finds nothing
        torch.nn.init.constant_(detector.core.head.classification_head.cls_logits.bias, -2.0)
    path = tmp_path / "model.safetensors"
    save_model(path, detector, CARD)
    loaded, card = load_model(path)
    assert loaded.spec == detector.spec
    assert card == CARD
    assert not loaded.training
    state, expected = loaded.state_dict(), detector.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    trained = {name: each.requires_grad for name, each in detector.named_parameters()}
    assert {name: each.requires_grad for name, each in loaded.named_parameters()} == trained
    for view in detector.spec.views:
        with torch.inference_mode():
            before, after = (each.detect(_views(detector), view)[0] for each in (detector, loaded))
        assert len(before["boxes"]) > 0
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_spec_of_an_older_version_is_read(student_spec: DetectorSpec) -> None:
    """Version 0.1 wrote the task, which now follows from the detector, and none of the later fields."""
    values = student_spec.to_json()
    later = {"fusion", "detections_per_image", "head_depthwise", "low_backbone", "low_width", "sigmas", "rois"}
    for name in later | {"keypoints", "flip_pairs", "skeleton"}:
        values.pop(name)
    assert DetectorSpec.from_json({**values, "task": "boxes"}) == student_spec


def test_a_spec_comes_back_from_its_json(student_spec: DetectorSpec) -> None:
    spec = replace(student_spec, detector="keypointrcnn", **KEYPOINTS)  # type: ignore[arg-type]
    assert DetectorSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_the_header_tells_all_but_the_tensors(tmp_path: Path, student: Detector) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, student, CARD)
    spec, card, tensors = read_header(path)
    assert (spec, card) == (student.spec, CARD)
    assert {name: each["shape"] for name, each in tensors.items()} == {
        name: list(each.shape) for name, each in student.state_dict().items()
    }
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(path.read_bytes())
    assert fingerprint(copy) == fingerprint(path)
    save_model(copy, student, Card())
    assert fingerprint(copy) != fingerprint(path)


Change = Callable[[dict[str, Any]], object]


def _rewrite(path: Path, change: Change) -> None:
    """Changes the header of a model file, its tensors staying as they are."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])


def _text(name: str, **fields: Any) -> Change:
    """Changes fields of the spec or the card."""

    def change(header: dict[str, Any]) -> None:
        texts = header["__metadata__"]
        texts[name] = json.dumps({**json.loads(texts[name]), **fields})

    return change


def _entry(**fields: Any) -> Change:
    """Changes what the header says of the stem's weights: F32, 16 × 3 × 7 × 7 at width 0.25."""
    return lambda header: header["core.backbone.body.conv1.weight"].update(fields)


@pytest.fixture
def model(tmp_path: Path, student: Detector) -> Path:
    path = tmp_path / "student.safetensors"
    save_model(path, student, CARD)
    return path


def _assert_refused(path: Path, message: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    assert caught.value.exit_code == 4
    assert str(path) in caught.value.message
    assert message in caught.value.message


def _header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda whole: whole[:-100], "truncated"),
        (lambda whole: whole[:500], "not a safetensors file"),
        (lambda whole: whole[:5], "not a safetensors file"),
        (lambda whole: whole + b"\0", "truncated"),
        (lambda _: b"", "not a safetensors file"),
        (lambda _: b"a text that is no model at all\n", "not a safetensors file"),
        (lambda _: random.Random(0).randbytes(4096), "not a safetensors file"),
        (lambda whole: struct.pack("<Q", 2**63) + whole[8:], "not a safetensors file"),
        (lambda _: _header(b"[]"), "not a safetensors file"),
        (lambda _: _header(b"[" * 100_000), "not a safetensors file"),
        (lambda _: _header(b'{"a": 1}'), "not a safetensors file"),
        (lambda _: _header(b'{"a": {"dtype": "F32", "data_offsets": [0, 0]}}'), "not a safetensors file"),
        (lambda _: _header(b'{"a": {"shape": ["b"], "data_offsets": [0, 0]}}'), "not a safetensors file"),
        (lambda _: _header(b'{"a": {"shape": [1], "data_offsets": [0, "1"]}}'), "not a safetensors file"),
        (
            lambda _: _header(b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1000000000000000]}}'),
            "truncated",
        ),
        (lambda _: _header(b"{}"), "not msad's"),
        (lambda _: _header(b'{"__metadata__": null}'), "not msad's"),
        (lambda _: _header(b'{"__metadata__": {"format": "pt"}}'), "not msad's"),
        (lambda _: _header(b'{"__metadata__": {"format": "msad/2"}}'), "format 'msad/2', this msad reads 'msad/1'"),
    ],
)
def test_what_is_no_model_file_is_refused(model: Path, content: Callable[[bytes], bytes], message: str) -> None:
    model.write_bytes(content(model.read_bytes()))
    _assert_refused(model, message)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    _assert_refused(tmp_path / "nothing.safetensors", "no such model file")
    _assert_refused(tmp_path, "not a file")


def test_another_tools_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata={"source": "elsewhere"})
    _assert_refused(path, "a safetensors file, but not msad's")


@pytest.mark.parametrize(
    "change",
    [
        _text("spec", width="1"),
        _text("spec", width=float("nan")),
        _text("spec", width=1e9),
        _text("spec", width=True),
        _text("spec", width=None),
        _text("spec", channels=10**9),
        _text("spec", channels=65),
        _text("spec", channels=64.0),
        _text("spec", channels=float("nan")),
        _text("spec", head_convs=10**6),
        _text("spec", head_convs="1"),
        _text("spec", ks=[]),
        _text("spec", ks=[3]),
        _text("spec", ks=[2, 2]),
        _text("spec", ks=[2.0]),
        _text("spec", ks="2"),
        _text("spec", ks=None),
        _text("spec", classes=[]),
        _text("spec", classes="ab"),
        _text("spec", classes=[{"category_id": 7, "name": "a"}, {"category_id": 7, "name": "b"}]),
        _text("spec", classes=[{"category_id": "7", "name": "a"}]),
        _text("spec", classes=[{"category_id": 7}]),
        _text("spec", classes=[{"category_id": i, "name": ""} for i in range(10_001)]),
        _text("spec", resolution={"short_side": 64, "long_side": 10**9}),
        _text("spec", resolution={"short_side": float("nan"), "long_side": 96}),
        _text("spec", resolution=[64, 96]),
        _text("spec", mean=["a", "b", "c"]),
        _text("spec", std=[1.0]),
        _text("spec", detector="yolo"),
        _text("spec", backbone="resnet19"),
        _text("spec", backbone=["resnet18"]),
        _text("spec", role="pupil"),
        _text("spec", task="masks"),
        _text("spec", surprise=1),
        _text("spec", fusion="mean"),
        _text("spec", fusion=["c-ff"]),
        _text("spec", detections_per_image=0),
        _text("spec", detections_per_image=1_001),
        _text("spec", detections_per_image=10.0),
        _text("spec", detections_per_image=True),
        _text("spec", rois=0),
        _text("spec", head_depthwise=1),
        _text("spec", low_backbone="resnet18"),
        _text("spec", low_backbone=0),
        _text("spec", low_backbone=None),
        _text("spec", low_backbone="resnet19", ks=[1, 2]),
        _text("spec", low_width=0.5),
        _text("spec", low_backbone="resnet18", ks=[1, 2], low_width=1e9),
        _text("spec", low_backbone="resnet18", ks=[1, 2], low_width="1"),
        _text("spec", detector="keypointrcnn"),
        _text("spec", keypoints=["nose"]),
        *(
            _text("spec", detector="keypointrcnn", **{"keypoints": ["nose", "eye"], **fields})
            for fields in (
                {"keypoints": "ab"},
                {"keypoints": [1, 2]},
                {"keypoints": {"a": 1}},
                {"keypoints": [""] * 1_001},
                {"keypoints": ["a" * 1_001]},
                {"keypoints": ["a" * 1_000] * 1_000},
                {"flip_pairs": [[0, 2]]},
                {"flip_pairs": [[0, -1]]},
                {"flip_pairs": [[0, 0]]},
                {"flip_pairs": [[0, 1], [1, 0]]},
                {"flip_pairs": [[0]]},
                {"flip_pairs": [[0, 1.0]]},
                {"flip_pairs": [[0, True]]},
                {"flip_pairs": ["01"]},
                {"flip_pairs": 1},
                {"skeleton": [[0, 2]]},
                {"skeleton": [[0, 1]] * 1_001},
                {"skeleton": None},
                {"sigmas": [0.1]},
                {"sigmas": [0.1, 0]},
                {"sigmas": [0.1, "0.1"]},
                {"sigmas": [0.1, float("nan")]},
                {"sigmas": [0.1, 1e308]},
                {"head_depthwise": True},
                {"ks": [4]},
            )
        ),
        _text("spec", role="teacher"),
        _text("spec", role="teacher", ks=[2, 4]),
        _text("spec", ks=[2, 4]),
        _text("spec", role="teacher", ks=[1, 2], scales="vanilla"),
        _text("card", data=1),
        _text("card", epochs="many"),
        _text("card", score_threshold="high"),
        _text("card", score_threshold=float("nan")),
        _text("card", score_threshold=2),
        _text("card", scores=[1]),
        _text("card", scores={"low": {"AP": "good"}}),
        _text("card", teacher_spec={}),
        _text("card", teacher_spec="fcos"),
        lambda header: header["__metadata__"].pop("spec"),
        lambda header: header["__metadata__"].pop("card"),
        lambda header: header["__metadata__"].update(spec="{"),
        lambda header: header["__metadata__"].update(spec="[" * 100_000),
        lambda header: header["__metadata__"].update(spec=None),
        lambda header: header["__metadata__"].update(spec="[]"),
        lambda header: header["__metadata__"].update(card="[]"),
    ],
)
def test_metadata_that_is_broken_or_hostile_is_refused(model: Path, change: Change) -> None:
    _rewrite(model, change)
    _assert_refused(model, "broken metadata (")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header.update(a=header.pop("core.backbone.body.conv1.weight")), "1 tensors missing, such as"),
        (
            lambda header: header.pop("core.backbone.body.conv1.weight"),
            "not a safetensors file (its tensors do not lie",
        ),
        (_entry(shape=[16, 3, 49]), "conv1.weight is F32 [16, 3, 49], the spec needs F32 [16, 3, 7, 7]"),
        (_entry(dtype="I32"), "conv1.weight is I32 [16, 3, 7, 7], the spec needs F32"),
        (_entry(data_offsets=[0, 4]), "its tensors do not lie one behind the other"),
        (lambda header: header.update(more={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}), "such as more"),
        (lambda header: header["__metadata__"].update(format="msad/2"), "format 'msad/2', this msad reads 'msad/1'"),
        # The spec is valid, but of a model of 0.3 thousand million parameters, for which there are no tensors; it is
        # refused before any memory is taken.
        (_text("spec", backbone="resnet152", width=4.0, channels=1024), "tensors missing"),
        (_text("spec", classes=[{"category_id": 7, "name": "red"}]), "the spec needs F32"),
    ],
)
def test_tensors_that_are_not_the_specs_are_refused(model: Path, change: Change, message: str) -> None:
    _rewrite(model, change)
    _assert_refused(model, message)


def test_hostile_headers_are_read_without_torch_and_in_little_memory(tmp_path: Path, model: Path) -> None:
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    whole = model.read_bytes()
    (hostile / "length").write_bytes(struct.pack("<Q", 2**62) + whole[8:])
    # A sparse file whose header claims to be just larger than is read, and one whose tensors claim a petabyte.
    with (hostile / "sparse").open("wb") as file:
        file.write(struct.pack("<Q", LARGEST_HEADER + 1))
        file.truncate(4 * 2**30)
    (hostile / "deep").write_bytes(_header(b'{"a":' * 1_000_000))
    (hostile / "offsets").write_bytes(
        _header(b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1000000000000000]}}')
    )
    (hostile / "width").write_bytes(whole)
    _rewrite(hostile / "width", _text("spec", width=1e9))
    code = f"""
import resource, sys
from pathlib import Path
from msad_cli.models.model_file import read_header
from msad_cli.errors import ModelFileError
resource.setrlimit(resource.RLIMIT_AS, (256 * 2**20,) * 2)
print(read_header(Path({str(model)!r}))[0].backbone)
for path in sorted(Path({str(hostile)!r}).iterdir()):
    try:
        read_header(path)
    except ModelFileError:
        print("refused", path.name)
print([name for name in ("torch", "torchvision", "numpy", "safetensors") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    refused = [f"refused {name}" for name in ("deep", "length", "offsets", "sparse", "width")]
    assert (done.stdout.splitlines(), done.stderr) == (["resnet18", *refused, "[]"], "")


# --- the folder of a run ---


@pytest.fixture
def run_folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "student.safetensors")


def test_rows_of_a_repeated_epoch_are_replaced(run_folder: RunFolder) -> None:
    for epoch in (1, 2, 3):
        run_folder.add_row({"epoch": epoch, "lr": 0.5, "loss/total": 10.0 - epoch})
    # A run resumed from the end of epoch 1 repeats epoch 2: what followed is not so any more.
    rows = run_folder.add_row({"epoch": 2, "lr": 0.5, "loss/total": 4.0, "AP/low": 0.125})
    assert rows == run_folder.rows()
    assert run_folder.results.read_text() == "epoch,lr,loss/total,AP/low\n1,0.5,9.0,\n2,0.5,4.0,0.125\n"


def test_metrics_hold_null_for_what_is_not_known(run_folder: RunFolder) -> None:
    run_folder.finish({"low": {"AP": 0.5, "APs": float("nan")}, "list": [float("inf"), 1]})
    text = (run_folder.path / "metrics.json").read_text()
    assert json.loads(text) == {"low": {"AP": 0.5, "APs": None}, "list": [None, 1]}


def test_a_run_records_its_settings(run_folder: RunFolder) -> None:
    run_folder.start({"batch": Setting(4, "auto", "no GPU"), "data": Setting(Path("coco"), "flag")}, "zero")
    run_folder.log("one")
    run_folder.log("two ×")
    assert json.loads((run_folder.path / "args.json").read_text()) == {
        "batch": {"value": 4, "source": "auto", "reason": "no GPU"},
        "data": {"value": "coco", "source": "flag", "reason": ""},
    }
    assert json.loads((run_folder.path / "env.json").read_text())["torch"] == torch.__version__
    lines = (run_folder.path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split("  ")[1] for line in lines] == ["zero", "one", "two ×"]


def test_the_resume_state_comes_back(run_folder: RunFolder) -> None:
    run_folder.save_state({"weights": torch.arange(3.0), "progress": {"step": 7, "losses": None}})
    state, remark = run_folder.load_state()
    assert remark == ""
    assert torch.equal(state["weights"], torch.arange(3.0))
    assert state["progress"] == {"step": 7, "losses": None}


class _Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_hostile_resume_state_executes_nothing(run_folder: RunFolder, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    run_folder.save_state({"weights": _Hostile(mark)})
    with pytest.raises(UsageError, match="cannot resume"):
        run_folder.load_state()
    assert not mark.exists()
    pickle.loads(pickle.dumps(_Hostile(mark)))
    assert mark.exists()  # as it would be, were the state unpickled


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_resume_state_is_refused(run_folder: RunFolder, share: float) -> None:
    run_folder.save_state({"weights": torch.arange(3.0)})
    content = run_folder.state.read_bytes()
    run_folder.state.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UsageError, match=r"cannot resume: .*state\.pt is damaged"):
        run_folder.load_state()
