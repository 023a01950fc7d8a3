"""The model file: one safetensors file whose metadata rebuilds the model with nothing else.

Metadata (strings): `format` = "msad/1", `spec` and `card` as JSON. Reading it needs neither torch nor safetensors.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msad_cli.engine.files import replacing
from msad_cli.models.spec import DetectorSpec
from msad_cli.structures.errors import ModelFileError

if TYPE_CHECKING:
    from msad_cli.models.detector import Detector

FORMAT = "msad/1"
LARGEST_HEADER = 16 * 2**20
"""Bytes; a ResNet-152's header has some 100 kB."""
DTYPES = {"torch.float32": "F32", "torch.int64": "I64"}
"""What safetensors calls the types of a model's tensors."""


@dataclass(frozen=True)
class Card:
    """What is known of a model beside its architecture.

    Attributes:
        data: the folder of its training set, or `demo`; empty if it was given by single files.
        data_fingerprint: of the training annotations, hexadecimal.
        epochs: that it was trained for.
        scores: AP … by view at the end of training, from 0 to 1.
        score_threshold: with the best F1 on the validation split; the default of predictions.
        teacher: fingerprint of the teacher's file, or empty.
        msad_version: that wrote the file.
    """

    data: str = ""
    data_fingerprint: str = ""
    epochs: int = 0
    scores: dict[str, dict[str, float | None]] | None = None
    score_threshold: float = 0.5
    teacher: str = ""
    msad_version: str = ""


def save_model(path: Path, detector: "Detector", card: Card) -> None:
    """Writes a model file atomically."""
    from safetensors.torch import save_file

    state = {name: each.detach().contiguous().cpu() for name, each in detector.state_dict().items()}
    texts = {"format": FORMAT, "spec": json.dumps(detector.spec.to_json()), "card": json.dumps(asdict(card))}
    with replacing(path) as temporary:
        save_file(state, temporary, metadata=texts)


def read_header(path: Path) -> tuple[DetectorSpec, Card, dict[str, Any]]:
    """Spec, card and the tensors' entries (dtype, shape) of a model file, none of its tensors being read.

    Raises:
        ModelFileError: no such file, not safetensors, truncated, another tool's, another version's, or broken.
    """
    header = _safetensors_header(path)
    texts = header.pop("__metadata__", {})
    if not isinstance(texts, dict) or "format" not in texts:
        raise ModelFileError(
            f"{path}: a safetensors file, but not msad's", "give a file that msad teacher or distill wrote"
        )
    if texts["format"] != FORMAT:
        raise ModelFileError(f"{path}: format {str(texts['format'])[:40]!r}, this msad reads {FORMAT!r}")
    try:
        spec = DetectorSpec.from_json(json.loads(texts["spec"]))
        return spec, _card(json.loads(texts["card"])), header
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ModelFileError(f"{path}: broken metadata ({error})") from None


def load_model(path: Path) -> tuple["Detector", Card]:
    """The model of a file, on the CPU and in eval mode, and its card.

    Raises:
        ModelFileError: as `read_header`, or tensors are missing, too many, or of another shape.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from msad_cli.models.detector import Detector, anchor_generator

    spec, card, header = read_header(path)
    with torch.device("meta"):
        detector = Detector(spec)
    expected = {name: f"{DTYPES[str(each.dtype)]} {list(each.shape)}" for name, each in detector.state_dict().items()}
    found = {name: f"{each.get('dtype')} {each.get('shape')}" for name, each in header.items()}
    if expected != found:
        raise ModelFileError(f"{path}: {_difference(expected, found)}", "the file was changed after msad wrote it")
    try:
        # The file's mapping is not aligned as torch's own tensors are, which would change results by rounding.
        state = {name: each.clone() for name, each in load_file(path).items()}
        detector.load_state_dict(state, assign=True)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise ModelFileError(f"{path}: {error}", "the file is damaged; train again or copy it again") from None
    # The generator keeps its cells outside the state, where the meta device left nothing.
    detector.core.anchor_generator = anchor_generator()
    return detector.eval(), card


def fingerprint(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _safetensors_header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            start = file.read(8)
            size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            text = file.read(size) if 2 <= size <= LARGEST_HEADER else b""
    except FileNotFoundError:
        raise ModelFileError(f"no such model file: {path}", "train one: msad teacher --data DIR") from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        header = json.loads(text)
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        whole = 8 + size + max((entry["data_offsets"][1] for entry in entries), default=0)
        if any(type(side) is not int for entry in entries for side in entry["shape"]):
            raise TypeError
    except (ValueError, RecursionError, AttributeError, TypeError, LookupError):
        raise ModelFileError(
            f"{path}: not a safetensors file", "give a file that msad teacher or distill wrote"
        ) from None
    if path.stat().st_size != whole:
        raise ModelFileError(
            f"{path}: truncated: {path.stat().st_size} bytes, its header says {whole}", "copy it again"
        )
    return dict(header)


def _card(values: dict[str, Any]) -> Card:
    known = {field.name for field in fields(Card)}
    card = Card(**{name: value for name, value in values.items() if name in known})
    texts = (card.data, card.data_fingerprint, card.teacher, card.msad_version)
    numbers = [each for view in (card.scores or {}).values() for each in view.values() if each is not None]
    if not all(isinstance(each, str) for each in texts) or not isinstance(card.epochs, int):
        raise TypeError("card: a field has the wrong type")
    if not all(isinstance(each, int | float) for each in (card.score_threshold, *numbers)):
        raise TypeError("card: a score has the wrong type")
    if not 0 <= card.score_threshold <= 1:
        raise ValueError(f"card: score threshold {card.score_threshold}")
    return card


def _difference(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing:
        return f"{len(missing)} tensors missing, such as {missing[0]}"
    if extra:
        return f"{len(extra)} tensors too many, such as {extra[0]}"
    name = next(name for name in expected if expected[name] != found[name])
    return f"{name} is {found[name][:80]}, the spec needs {expected[name]}"
