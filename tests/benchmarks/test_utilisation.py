"""benchmarks/utilisation.py: it counts what models cost, and its groups are a step's whole time."""

import re
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from support.scripts import script

from msad_cli.models.cost import count_cost
from msad_cli.models.spec import DetectorSpec
from msad_cli.system.device import Compute

TINY = ("resnet18", "64,96", 2)
"""As the command line has them; the model is that of `teacher_spec`."""


@pytest.fixture
def utilisation(monkeypatch: pytest.MonkeyPatch, teacher_spec: DetectorSpec) -> ModuleType:
    module: ModuleType = script(monkeypatch, "benchmarks/utilisation.py")
    monkeypatch.setattr(module, "teacher_spec", lambda *_: teacher_spec)
    monkeypatch.setattr(module, "SIDES", {"cpu": (64,)})
    return module


def test_flops_are_those_of_the_model(utilisation: ModuleType) -> None:
    """Two a MAC, for two images. Backward, a convolution costs twice what it costs forward, but the stem only once,
    whose input is no map: of the student 3 · 16 · 7² MACs at each of 32 × 32 places."""
    works, (teacher, _, student, _) = utilisation.build(*TINY, Compute(torch.device("cpu"), "fp32"))
    once = 4 * count_cost(student.spec, "low", [(64, 96)]).total
    inference, step = works["student inference"], works["distil step"]
    assert utilisation.counted(inference.whole) == utilisation.counted(inference.network) == once
    fused = count_cost(teacher.spec, "fused", [(64, 96)])
    looked = 4 * (fused.total - fused.macs["head"])
    stem = 4 * 3 * 16 * 49 * 32 * 32
    assert utilisation.counted(step.whole) == utilisation.counted(step.network) == looked + 3 * once - stem


def test_shares_add_up(utilisation: ModuleType) -> None:
    compute = Compute(torch.device("cpu"), "bf16")
    works, _ = utilisation.build(*TINY, compute)
    works["student inference"].whole()
    found = utilisation.shares(works["student inference"], compute)
    assert sum(found.values()) == pytest.approx(1)
    assert found["convolutions"] > 0
    assert found[utilisation.CHOICE] > 0
    assert found["clipping, update"] == 0


def test_groups(utilisation: ModuleType) -> None:
    """An operation belongs to what it is part of."""

    def group(*names: str) -> str:
        event = None
        for name in names:
            event = SimpleNamespace(name=name, cpu_parent=event)
        found: str = utilisation.group_of(event)
        return found

    assert group("aten::conv2d", "aten::convolution", "aten::mkldnn_convolution") == "convolutions"
    assert group("aten::conv2d", "aten::to", "aten::copy_") == "copies, casts"
    assert group("Optimizer.step#SGD.step", "aten::_foreach_add_") == "clipping, update"
    assert group(utilisation.LOSSES, "aten::mul") == utilisation.LOSSES
    assert group("aten::native_group_norm") == "normalisation"
    assert group("aten::add_") == "elementwise, others"


@pytest.mark.slow
def test_it_prints_what_it_measured(
    utilisation: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["utilisation.py", "--backbone", "resnet18", "--size", "64,96", "--batch", "1", "--rounds", "1"]
    )
    utilisation.main()
    said = capsys.readouterr().out
    assert len(re.findall(r"% of peak$", said, re.MULTILINE)) == 6
