"""`msad doctor` finds what it is shown, `msad info` says what a file holds."""

import hashlib
import importlib
import math
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import features
from support.documents import document

from msad_cli.cli.app import run
from msad_cli.errors import DeviceError
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, save_model
from msad_cli.models.spec import DetectorSpec
from msad_cli.system import device, examination, memory
from msad_cli.system.examination import Check


def raising(error: Exception) -> Any:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_a_sound_machine_passes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MSAD_CACHE", str(tmp_path / "new"))
    assert run(["doctor", "--json"]) == 0
    findings = {each["name"]: each for each in document(capsys.readouterr().out)["checks"]}
    assert {"Python", "torch", "GPU", "CPU", "Pillow", "hotcoco", "pycocotools", "shared memory", "cache"} <= set(
        findings
    )
    assert torch.__version__ in findings["torch"]["found"]
    assert findings["hotcoco"]["found"] == metadata.version("hotcoco")
    assert str(tmp_path / "new") in findings["cache"]["found"]
    assert not (tmp_path / "new").exists()
    assert run(["doctor"]) == 0
    printed = capsys.readouterr().out
    for name, each in findings.items():
        assert f"{each['state']:8} {name}" in printed


def test_a_gpu_that_torch_cannot_use_is_exit_5(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        device,
        "choose_device",
        raising(DeviceError("a GPU is present, but", "install a torch build", code="gpu-unusable")),
    )
    assert run(["doctor"]) == 5
    printed = capsys.readouterr()
    assert "error    GPU" in printed.out
    assert "error: GPU: a GPU is present, but\n\nhint: install a torch build\n" in printed.err


def test_a_gpu_that_fails_or_multiplies_wrongly_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """`meta` stands for a device without results; where the product is another, a device that gives wrong ones."""
    monkeypatch.setattr(device, "choose_device", lambda _: (torch.device("meta"), ""))
    assert examination.gpu().state == "error"
    fake = SimpleNamespace(type="cuda")
    monkeypatch.setattr(device, "choose_device", lambda _: (fake, ""))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, _: self + 1)
    assert examination.gpu() == Check(
        "GPU", "error", f"{fake} multiplies wrongly", "update its driver, or type --device cpu"
    )


def test_a_usable_gpu_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a stand-in that multiplies as the CPU does; the driver's file as NVIDIA's kernel modules write it."""
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n")
    properties = SimpleNamespace(name="Some GPU", total_memory=80 * 2**30)
    monkeypatch.setattr(examination, "DRIVER", version)
    monkeypatch.setattr(device, "choose_device", lambda _: (SimpleNamespace(type="cuda"), ""))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, _: self)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert examination.gpu() == Check("GPU", "ok", "Some GPU (80 GiB), driver 580.95.05, usable, bf16")
    monkeypatch.setattr(examination, "DRIVER", tmp_path / "none")
    assert "driver unknown" in examination.gpu().found


def test_broken_installations_are_findings(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torchvision", None)  # as if it could not be imported
        assert run(["doctor", "--json"]) == 5
        states = {each["name"]: each["state"] for each in document(capsys.readouterr().out)["checks"]}
        assert states["torch"] == "error"
        assert "GPU" not in states
    monkeypatch.setattr(importlib, "import_module", raising(ImportError("no")))
    assert [each.state for each in examination.evaluators()] == ["error", "error"]
    assert next(examination.evaluators()).advice == "pip install hotcoco"


def test_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check_feature", lambda _: False)
    assert examination.decoder().state == "warning"
    monkeypatch.setattr(features, "check", lambda _: False)
    assert examination.decoder().state == "error"


def test_extras_are_those_of_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    required = ["torch>=2", 'pytest>=8; extra == "dev"', "here>=1 ; extra == 'one'", "gone[x]>=2; extra == 'two'"]
    versions = {"here": "1.5"}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "requires", lambda _: required)
    monkeypatch.setattr(metadata, "version", version)
    advice = "if you want it: pip install '.[two]' in the clone of msad"
    assert list(examination.extras()) == [
        Check("extra one", "ok", "here 1.5"),
        Check("extra two", "ok", "gone is not installed", advice),
    ]
    monkeypatch.setattr(metadata, "requires", raising(metadata.PackageNotFoundError("msad-cli")))
    assert [each.state for each in examination.extras()] == ["warning"]


def installed(site: Path, name: str, **files: str) -> Path:
    """A distribution's metadata in a folder of packages."""
    folder = site / f"{name.replace('-', '_')}-1.0.dist-info"
    folder.mkdir(parents=True)
    for file, text in {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", **files}.items():
        (folder / file.replace("_txt", ".txt")).write_text(text)
    return folder


def test_another_distribution_with_the_command_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PyPI's msad is an Active Directory client; a distribution may install scripts without an entry point."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert examination.command() == Check("command", "ok", "python -m msad_cli")
    installed(tmp_path, "msad-cli", entry_points_txt="[console_scripts]\nmsad = msad_cli.cli.app:main\n")
    installed(tmp_path, "quiet", RECORD="quiet/msad.py,,\n../../../bin/msadx,,\n")
    assert examination.command() == Check("command", "ok", "msad, of msad-cli")
    for files in (
        {"entry_points_txt": "[console_scripts]\nmsad = msad:main\n"},
        {"RECORD": "msad/__init__.py,,\n../../../bin/msad,sha256=x,10\n"},
        {"RECORD": "../../Scripts/msad.exe,sha256=x,10\n"},
    ):
        folder = installed(tmp_path, "msad", **files)
        found = examination.command()
        assert (found.name, found.state) == ("command", "warning")
        assert found.found == "msad may be another program: msad installs a command of that name too"
        assert found.advice.startswith("pip uninstall msad, then pip install ")
        shutil.rmtree(folder)


def test_little_shared_memory_and_a_full_or_absent_cache_are_warnings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """64 MiB is what Docker gives a container."""
    usage = SimpleNamespace(total=64 * 2**20, free=10 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(memory, "SHARED", tmp_path)
    assert (examination.shared_memory().state, examination.shared_memory().found[:8]) == ("warning", "0.06 GiB")
    assert "--shm-size" in examination.shared_memory().advice
    monkeypatch.setattr(memory, "SHARED", tmp_path / "none")
    assert examination.shared_memory().state == "ok"
    monkeypatch.setenv("MSAD_CACHE", str(tmp_path))
    assert examination.cache().state == "warning"
    usage.free = 2**30
    assert examination.cache().state == "ok"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert examination.cache().state == "warning"


def test_info_says_what_a_file_is_without_torch(
    student: Detector, student_spec: DetectorSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "student.safetensors"
    save_model(path, student, Card(data="demo", scores={"low": {"AP": 0.25, "AR1": 0.5}}, teacher="abc"))
    assert run(["info", str(path), "--json"]) == 0
    told = document(capsys.readouterr().out)
    facts = told["card"]
    assert (facts["format"], facts["task"], facts["views"]) == ("msad/1", "boxes", ["low"])
    assert facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts["bytes"] == path.stat().st_size
    assert told["models"][0]["parameters"]["total"] == sum(
        math.prod(each.shape) for each in student.state_dict().values()
    )
    assert DetectorSpec.from_json({name: facts[name] for name in student_spec.to_json()}) == student_spec
    assert run(["info", str(path)]) == 0
    text = capsys.readouterr().out
    for line in (
        "classes              7 red, 90 blue",
        "scores               low: AP 25.0",
        "ks                   2: sees 32,48",
    ):
        assert line in text
    assert "keypoints" not in text  # what is empty is left out
    code = (
        f"import sys\nfrom msad_cli.cli.app import run\nrun(['info', {str(path)!r}])\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
