"""Model files and a run folder of the layout before the rooms (commit e8b838a): they load, find the same, and go on.

`tests/files/before_the_rooms` holds the headers of four model files as that commit wrote them, an interrupted run's
args.json, and its state with zeros in the place of weights. Weights are put in here: they follow from the tensors'
names (`weights`), then as now. What that commit found and learnt with them is in expected.json.
"""

import io
import json
import lzma
import shutil
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor

import msad_cli as msad
from msad_cli.data.images.tones import Tones
from msad_cli.data.layouts.demo import draw_demo
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, load_model, read_header, save_model
from msad_cli.models.spec import DetectorSpec, Learning, Measuring
from msad_cli.runs.folder import RunFolder
from msad_cli.system.files import fingerprint

FILES = Path(__file__).parents[1] / "files" / "before_the_rooms"
EXPECTED = json.loads((FILES / "expected.json").read_text())
TYPES = {"F32": torch.float32, "I64": torch.int64}


def weights(name: str, like: Tensor) -> Tensor:
    """A tensor of the shape of `like` that follows from a name; what is no floating point stays."""
    if not like.is_floating_point():
        return like
    drawn = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(like.shape))
    return torch.from_numpy(np.asarray(drawn * 0.05, dtype=np.float32)).reshape(like.shape)


def filled(value: Any, name: str) -> Any:
    if isinstance(value, Tensor):
        return weights(name, value)
    if isinstance(value, dict):
        return {key: filled(each, f"{name}/{key}") for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, f"{name}/{place}") for place, each in enumerate(value)]
    return value


@pytest.mark.parametrize("name", ["teacher", "student", "masks", "keypoints"])
def test_an_old_model_file_finds_what_it_found(name: str, tmp_path: Path) -> None:
    header = json.loads((FILES / f"{name}.header.json").read_text())
    metadata = header.pop("__metadata__")
    tensors = {
        key: weights(key, torch.zeros(each["shape"], dtype=TYPES[each["dtype"]])) for key, each in header.items()
    }
    file = tmp_path / "old.safetensors"
    file.write_bytes(save(tensors, metadata=metadata))
    model, card = load_model(file)
    assert isinstance(model, Detector)
    assert card.msad_version == "0.1.0"
    pixels = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (3, 64, 64)).astype(np.uint8))
    views = {1: pixels, 2: pixels[:, ::2, ::2].contiguous()}
    expected = EXPECTED[name]
    with torch.inference_mode():
        view = model.spec.views[0]
        (found,) = model.detect({k: [views[k]] for k in model.spec.ks_of(view)}, view)
    assert view == expected["view"]
    assert len(found["scores"]) == expected["count"]
    torch.testing.assert_close(found["scores"][:3], torch.tensor(expected["scores"]), rtol=0.0, atol=2e-4)
    torch.testing.assert_close(found["boxes"][:3], torch.tensor(expected["boxes"]), rtol=0.0, atol=2e-2)


def test_an_old_run_goes_on_as_it_went_on(tmp_path: Path) -> None:
    """From the state after the first of two epochs, the losses of the second."""
    drawn, out = tmp_path / "drawn", tmp_path / "stopped.safetensors"
    draw_demo(drawn, train=4, val=2, seed=0, size=(64, 64))
    folder = RunFolder(out)
    folder.state.parent.mkdir(parents=True)
    shutil.copy(FILES / "stopped.args.json", folder.path / "args.json")
    state = torch.load(io.BytesIO(lzma.decompress((FILES / "stopped.state.pt.xz").read_bytes())), weights_only=True)
    state |= {name: filled(state[name], name) for name in ("module", "optimiser")}
    # Another version of Pillow may draw another set.
    state["identity"]["training annotations (SHA-256)"] = fingerprint(
        drawn / "annotations" / "instances_train2017.json"
    )
    torch.save(state, folder.state)
    scores = msad.train_teacher(out=out, resume=True, data=str(drawn)).scores
    assert list(scores) == ["fused", "high", "low"]
    (row,) = folder.rows()
    assert row["epoch"] == 2
    assert {name: row[name] for name in EXPECTED["resumed"]} == pytest.approx(EXPECTED["resumed"], rel=1e-3)


def test_a_card_keeps_its_teachers_whole_spec(tmp_path: Path, student: Detector, teacher_spec: DetectorSpec) -> None:
    """What is learnt by, measured by and read by stands among the fields of a spec of its own, and in a card too."""
    teacher = replace(
        teacher_spec, learning=Learning(32), measuring=Measuring(()), tones=Tones(3.0, 4095.0, deep_unseen=True)
    )
    path = tmp_path / "m.safetensors"
    save_model(path, student, Card(teacher_spec=teacher))
    assert read_header(path)[1].teacher_spec == teacher
