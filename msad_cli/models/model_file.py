"""The model file: one safetensors file whose metadata rebuilds the model with nothing else.

Metadata (strings): `format` = "msad/1", `spec` and `card` as JSON. Reading it needs neither torch nor safetensors.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msad_cli.errors import DataError, ModelFileError
from msad_cli.models.spec import DetectorSpec
from msad_cli.system.files import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from msad_cli.models.detector import Detector

OURS = "msad/"
FORMAT = f"{OURS}1"
LARGEST_HEADER = 16 * 2**20
"""Bytes; a ResNet-152's header has some 100 kB, and what two specs admit stays below."""
DTYPES = {"torch.float32": "F32", "torch.int64": "I64"}
"""What safetensors calls the types of a model's tensors."""
ITEM_SIZES = {"F32": 4, "I64": 8}
MOST_DIMENSIONS = 8
LARGEST_SCORE = 1e6
FOREIGN = {
    b"PK\x03\x04": "a zip archive, such as torch.save writes (.pt, .pth, .ckpt)",
    b"\x80": "a pickle, such as old versions of torch.save write (.pt, .pth, .pkl)",
    b"\x1f\x8b": "a gzip archive",
    b"\x08": "perhaps ONNX, whose files are known by the name .onnx",
}
"""What files that are taken for models begin with."""
ANOTHER_TOOLS = "model-file-of-another-tool"
NOT_OURS = "give a file that msad teacher or distill wrote"
WHY_SAFETENSORS = (
    "msad loads models from .safetensors alone, because loading a pickle can run code; "
    "torchvision's weights can start a training: msad teacher --init FILE"
)


REMEMBERED: dict[str, tuple[type, ...]] = {
    "epochs": (int,),
    "batch": (int,),
    "workers": (int,),
    "lr": (int, float),
    "ema": (int, float),
    "augment": (str,),
    "fliplr": (int, float),
    "flipud": (int, float),
    "turn": (int, float),
    "zoom": (str,),
    "photo": (int, float),
    "mosaic": (int, float),
    "mixup": (int, float),
    "decay": (str,),
    "optimizer": (str,),
}
"""Settings of a training that its model file remembers for its students, and what their values are."""


@dataclass(frozen=True)
class Card:
    """What is known of a model beside its architecture.

    Attributes:
        data: the folder of its training set, or `demo`; empty if it was given by single files.
        exif: whether its labels fit images that EXIF turns, as `--exif` says it.
        data_fingerprint: of the training annotations, hexadecimal.
        epochs, steps: that its weights were trained for; only whole epochs count.
        run_epochs: that its run had done when the file was written; those after `epochs` are not in the weights.
        keep: why these weights: the run's `best` by AP, or its `last`.
        unfinished: whether the run was not at its end then.
        scores: AP … of its weights by view, from 0 to 1; None if they were not evaluated.
        score_threshold: with the best F1 on the validation split; the default of predictions.
        teacher: fingerprint of the teacher's file, or empty.
        teacher_spec: what the teacher is, so that costs can be compared without its file.
        msad_version: that wrote the file.
        training: settings that it was trained by, of those in `REMEMBERED`; empty in files of older versions.
        unlabelled: fingerprint of the images without labels that it learnt from, or empty.
        unlabelled_images: how many they are.
    """

    data: str = ""
    data_fingerprint: str = ""
    epochs: int = 0
    steps: int = 0
    run_epochs: int = 0
    keep: str = "last"
    unfinished: bool = False
    scores: dict[str, dict[str, float | None]] | None = None
    score_threshold: float = 0.5
    teacher: str = ""
    teacher_spec: DetectorSpec | None = None
    msad_version: str = ""
    exif: str = "auto"
    training: dict[str, Any] = field(default_factory=dict)
    unlabelled: str = ""
    unlabelled_images: int = 0


def save_model(path: Path, detector: "Detector", card: Card, weights: "Mapping[str, Tensor] | None" = None) -> None:
    """Writes a model file atomically.

    Args:
        weights: in place of the detector's own.
    """
    from safetensors.torch import save

    state = {name: each.detach().contiguous().cpu() for name, each in (weights or detector.state_dict()).items()}
    texts = {"format": FORMAT, "spec": json.dumps(detector.spec.to_json()), "card": json.dumps(card_json(card))}
    write_bytes(path, save(state, metadata=texts))


def read_header(path: Path) -> tuple[DetectorSpec, Card, dict[str, Any]]:
    """Spec, card and the tensors' entries (dtype, shape, data_offsets) of a model file, none of them being read.

    Raises:
        ModelFileError: no such file, not safetensors, truncated, another tool's, another version's, or broken.
    """
    with _opened(path) as file:
        return _read_header(path, file)


def own_header(path: Path) -> tuple[DetectorSpec, Card] | None:
    """Spec and card of a file that msad wrote; None of any other tool's, and of a file that there is not.

    Raises:
        ModelFileError: a file of msad's, but broken, or of another version.
    """
    if path.suffix != ".safetensors" or not os.path.isfile(path):
        return None
    try:
        return read_header(path)[:2]
    except ModelFileError as error:
        if error.code == ANOTHER_TOOLS:
            return None
        raise


def load_model(path: Path) -> tuple["Detector", Card]:
    """The model of a file, on the CPU and in eval mode, and its card.

    Raises:
        ModelFileError: as `read_header`, or tensors are missing, too many, or of another shape.
    """
    import torch

    from msad_cli.models.detector import Detector

    with _opened(path) as file:
        spec, card, entries = _read_header(path, file)
        with torch.device("meta"):
            detector = Detector(spec)
        wanted = detector.state_dict()
        expected = {name: f"{DTYPES[str(each.dtype)]} {list(each.shape)}" for name, each in wanted.items()}
        found = {name: f"{each['dtype']} {each['shape']}" for name, each in entries.items()}
        if expected != found:
            raise ModelFileError(
                f"{path}: {_difference(expected, found)}",
                "the file was changed after msad wrote it",
                code="model-tensors-differ",
            )
        # Nothing of the file's size was allocated so far. Tensors of torch's own making are aligned as those of a
        # training are; a file that is mapped to memory is not, which would change results by rounding.
        state = {name: torch.empty(each.shape, dtype=each.dtype) for name, each in wanted.items()}
        for name in sorted(entries, key=lambda name: entries[name]["data_offsets"]):
            if file.readinto(state[name].reshape(-1).numpy().data) != state[name].nbytes:
                raise ModelFileError(
                    f"{path}: became shorter while it was read", "copy it again", code="model-file-truncated"
                )
    detector.load_state_dict(state, assign=True)
    return detector.eval(), card


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    try:
        # Opening a pipe would wait for a writer, and a device may have no end.
        if path.exists() and not path.is_file():
            raise ModelFileError(f"{path}: not a file", NOT_OURS, code="not-a-file")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise ModelFileError(
            f"no such model file: {path}", "train one: msad teacher --data DIR", code="model-file-missing"
        ) from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})", code="read-refused") from None


def _read_header(path: Path, file: BufferedReader) -> tuple[DetectorSpec, Card, dict[str, Any]]:
    """As `read_header`; the file stands at the first tensor then."""
    header = _safetensors_header(path, file)
    texts = header.pop("__metadata__", {})
    # Other tools write a format too: PyTorch's is "pt".
    if not isinstance(texts, dict) or not str(texts.get("format")).startswith(OURS):
        raise ModelFileError(f"{path}: a safetensors file, but not msad's", NOT_OURS, code="model-file-of-another-tool")
    if texts["format"] != FORMAT:
        raise ModelFileError(
            f"{path}: format {str(texts['format'])[:40]!r}, this msad reads {FORMAT!r}", code="model-format-unknown"
        )
    try:
        if not all(isinstance(each, str) for each in texts.values()):
            raise TypeError("not texts")
        return DetectorSpec.from_json(strict_json(texts["spec"])), parse_card(strict_json(texts["card"])), header
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise ModelFileError(
            f"{path}: broken metadata ({str(error)[:200]})", "the file was changed", code="model-metadata-broken"
        ) from None


def _safetensors_header(path: Path, file: BufferedReader) -> dict[str, Any]:
    start = file.read(8)
    size = int.from_bytes(start, "little")
    text = file.read(size) if 2 <= size <= LARGEST_HEADER else b""
    try:
        header = strict_json(text)
        whole = 8 + size + _data_size({name: each for name, each in header.items() if name != "__metadata__"})
    except (ValueError, RecursionError, AttributeError, TypeError, LookupError) as error:
        for beginning, kind in FOREIGN.items():
            if not text and start.startswith(beginning):
                raise ModelFileError(
                    f"{path}: not a safetensors file but {kind}", WHY_SAFETENSORS, code="not-a-safetensors-file"
                ) from None
        # Subclasses tell of bytes that are no JSON at all.
        reason = f" ({error})" if type(error) is ValueError else ""
        raise ModelFileError(
            f"{path}: not a safetensors file{reason}", NOT_OURS, code="not-a-safetensors-file"
        ) from None
    found = os.fstat(file.fileno()).st_size
    if found != whole:
        raise ModelFileError(
            f"{path}: truncated: {found} bytes, its header says {whole}", "copy it again", code="model-file-truncated"
        )
    return dict(header)


def _data_size(entries: dict[str, Any]) -> int:
    """Bytes of all tensors, which have to lie one behind the other.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: an entry is malformed.
    """
    end = 0
    for entry in sorted(entries.values(), key=lambda entry: entry["data_offsets"]):
        shape, (begin, stop) = entry["shape"], entry["data_offsets"]
        if not isinstance(entry["dtype"], str) or not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS:
            raise ValueError("a tensor's type or shape is none")
        if not all(type(each) is int and 0 <= each < 2**63 for each in (*shape, begin, stop)):
            raise ValueError("a tensor's shape or place is no whole number")
        size = ITEM_SIZES.get(entry["dtype"])
        if begin != end or stop < begin or (size is not None and size * math.prod(shape) != stop - begin):
            raise ValueError("its tensors do not lie one behind the other, each with the bytes of its shape")
        end = stop
    return end


def card_json(card: Card) -> dict[str, Any]:
    """A card as plain JSON values; the teacher's spec as in a file of its own."""
    teacher = None if card.teacher_spec is None else card.teacher_spec.to_json()
    return {**asdict(replace(card, teacher_spec=None)), "teacher_spec": teacher}


def strict_json(text: str | bytes) -> Any:
    """JSON without what the standard has not (NaN, Infinity) or leaves open (a name that stands twice).

    Raises:
        ValueError, TypeError, RecursionError: it is none.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a name stands twice")
        return dict(pairs)

    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is no number")

    return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)


def parse_card(values: dict[str, Any]) -> Card:
    """A card from JSON values; unknown fields are left out.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: a field has a wrong type or value.
    """
    known = {each.name for each in fields(Card)}
    values = {name: value for name, value in values.items() if name in known}
    teacher = values.pop("teacher_spec", None)
    card = Card(**values, teacher_spec=None if teacher is None else DetectorSpec.from_json(teacher))
    texts = (card.data, card.data_fingerprint, card.teacher, card.unlabelled, card.msad_version, card.exif, card.keep)
    counts = (card.epochs, card.steps, card.run_epochs, card.unlabelled_images)
    rightly = all(isinstance(each, str) for each in texts) and all(type(each) is int for each in counts)
    if not rightly or type(card.unfinished) is not bool:
        raise TypeError("card: a field has the wrong type")
    if not all(type(value) in REMEMBERED[name] for name, value in card.training.items() if name in REMEMBERED):
        raise TypeError("card: a setting of its training has the wrong type")
    card = replace(card, training={name: each for name, each in card.training.items() if name in REMEMBERED})
    if any(type(value) in (int, float) and not abs(value) <= LARGEST_SCORE for value in card.training.values()):
        raise ValueError("card: a setting of its training is out of range")
    views = {} if card.scores is None else card.scores
    numbers = [card.score_threshold, *(each for view in views.values() for each in view.values() if each is not None)]
    if not all(type(each) in (int, float) and abs(each) <= LARGEST_SCORE for each in numbers):
        raise TypeError("card: a score is no number")
    if not 0 <= card.score_threshold <= 1:
        raise ValueError(f"card: score threshold {card.score_threshold}")
    return card


def remembered_data(data: str, whose: Path) -> str:
    """The set that a model file or a run remembers, as it is; nobody typed it.

    Raises:
        DataError: it was a folder, and is not there any more.
    """
    if os.path.isabs(data) and not os.path.exists(data):
        raise DataError(
            f"{whose}: the set that it was trained on is not at {data} any more",
            "add --data DIR, where it lies now",
            code="recorded-data-missing",
        )
    return data


def _difference(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing:
        return f"{len(missing)} tensors missing, such as {missing[0]}"
    if extra:
        return f"{len(extra)} tensors too many, such as {extra[0]}"
    name = next(name for name in expected if expected[name] != found[name])
    return f"{name} is {found[name][:80]}, the spec needs {expected[name]}"
