"""Random input, valid, nearly valid and garbage: whatever comes, an error of ours or a result; no traceback, no hang.

Every test runs with a few examples, and with 10,000 under `-m slow`. What they found stands as a test of its own beside
the other tests of the file that was at fault.
"""

import contextlib
import copy
import io
import json
import math
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from msad_cli.cli.app import run
from msad_cli.data.annotations.split import read_split
from msad_cli.data.images.decode import FORMATS, limit_pixels, scoped
from msad_cli.errors import DataError, MsadError
from msad_cli.evaluation.ground_truth import ground_truth
from msad_cli.evaluation.metrics import score
from msad_cli.inference.draw import draw_boxes
from msad_cli.inference.inputs import Input
from msad_cli.inference.predictor import Prediction, Wanted, predict
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, load_model, read_header, save_model
from msad_cli.system.device import Compute

MANY = pytest.param(10_000, marks=pytest.mark.slow)
LONGEST_SECONDS = 60  # of one example; the usual one takes some hundredths
CPU = Compute(torch.device("cpu"), "fp32")
SUPPRESSED = (
    HealthCheck.too_slow,  # an example runs a detector
    HealthCheck.data_too_large,  # a mutation may draw many values
    HealthCheck.large_base_example,  # a document has dozens of values
)


def fuzz(examples: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Runs a check on many examples, the same ones each time, and ends one that hangs."""

    @settings(max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=SUPPRESSED)
    @given(strategy)
    def guarded(example: Any) -> None:
        with at_most(LONGEST_SECONDS):
            check(example)

    guarded()


class HangError(BaseException):
    """Not an Exception, which the code under test may take for damaged data."""


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raises where the program is when it has computed for so long; the time that others take does not count."""

    def hang(*_: object) -> None:
        raise HangError(f"{seconds} s")

    before = signal.signal(signal.SIGVTALRM, hang)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def quietly(arguments: list[str]) -> tuple[int, str]:
    """Runs a command; its exit code and all that it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
        code = run(arguments)
    return code, printed.getvalue()


def refused(read: Callable[..., object], *arguments: object) -> MsadError | None:
    """The error of ours that a reader answers with, if it does."""
    try:
        read(*arguments)
    except MsadError as error:
        return error
    return None


# --- what is made of valid input ---

# Drawn is only what to change: Hypothesis keeps every example, and 10,000 model files fill the memory.
PLACES = st.sampled_from(range(65_521))
"""Any number, all alike; taken modulo what there is."""
TEXTS = ["", "7", "NaN", "a/b", "../x", "/", "\x1b[31m", "\0", "\ud800", "é" * 300, "fcos"]
ODD: st.SearchStrategy[Any] = st.sampled_from([None, True, False, *TEXTS, [], {}, [[]], [0, 0, 8, 8]])
ODD |= st.sampled_from([0, 1, -1, 2, 7, 0.5, 2**31, 2**53 + 1, 2**63, 10**400, 1e308, -0.0, float("nan"), float("inf")])
VALUES = ODD | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
VALUE_CHANGES = st.tuples(
    st.sampled_from(["replace", "replace", "delete", "rename", "nest", "copy"]), PLACES, VALUES, st.text(max_size=6)
)
BYTE_CHANGES = st.tuples(
    st.sampled_from(["set", "set", "cut", "put", "repeat"]),
    st.booleans(),  # whether in the head of the file
    PLACES,
    st.sampled_from([0, 1, 1, 1, 4, 16, 1000, 10**6]),
    st.binary(min_size=1, max_size=16),
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    pairs = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [place for key, each in pairs for place in ((value, key), *places(each))]


def change_values(text: str, changes: list[tuple[str, int, Any, str]]) -> Any:
    """The JSON value of a text, in which values are replaced, deleted, renamed, nested, or stand twice."""
    value = json.loads(text)
    for kind, number, new, name in changes:
        found = places(value)
        if not found:
            break
        container, key = found[number % len(found)]
        match kind:
            case "replace":
                container[key] = copy.deepcopy(new)
            case "delete":
                del container[key]
            case "rename" if isinstance(container, dict):
                container[name] = container.pop(key)
            case "copy" if isinstance(container, list):
                container.insert(number % (len(container) + 1), container[key])
            case "copy" if isinstance(container, dict):
                container[key] = list(container.values())[number % len(container)]
            case _:
                container[key] = {name: container[key]} if number % 2 else [container[key]]
    return value


def change_bytes(content: bytes, head: int, changes: list[tuple[str, bool, int, int, bytes]]) -> bytes:
    """A file in which a few bytes or ranges are set, cut out, put in or repeated."""
    for kind, early, number, length, new in changes:
        start = number % (head + 1) if early else number * len(content) // 65_521
        middle = {"set": new[:length], "cut": b"", "put": new, "repeat": 2 * content[start : start + length]}[kind]
        end = start + (len(middle) if kind == "set" else 0 if kind == "put" else length)
        content = content[:start] + middle + content[end:]
    return content


# --- model files ---

MODEL_CHANGES = st.tuples(
    st.sampled_from(["bytes", "header", "twice", "spec", "card"]),
    st.lists(VALUE_CHANGES, min_size=1, max_size=3),
    st.lists(BYTE_CHANGES, min_size=1, max_size=4),
)


def change_model(whole: bytes, kind: str, values: list[Any], ranges: list[Any]) -> bytes:
    """A variation of a model file: of its bytes, its header, or the spec or the card in it."""
    (size,) = struct.unpack("<Q", whole[:8])
    text, data = whole[8 : 8 + size].decode(), whole[8 + size :]
    header = json.loads(text)
    match kind:
        case "bytes":
            return change_bytes(whole, 8 + size, ranges)
        case "header":
            text = json.dumps(change_values(text, values))
        case "twice":
            pairs = [f"{json.dumps(name)}: {json.dumps(each)}" for name, each in header.items()]
            pairs.insert(len(values[0][3]), pairs[values[0][1] % len(pairs)])
            text = "{" + ", ".join(pairs) + "}"
        case _:
            header["__metadata__"][kind] = json.dumps(change_values(header["__metadata__"][kind], values))
            text = json.dumps(header)
    return struct.pack("<Q", len(text)) + text.encode() + data


@pytest.mark.parametrize("examples", [20, MANY])
def test_model_files(tmp_path: Path, student: Detector, examples: int) -> None:
    path = tmp_path / "m.safetensors"
    save_model(path, student, Card(scores={"low": {"AP": 0.25, "APs": None}}))
    whole = path.read_bytes()
    loaded = 0

    def check(changes: tuple[str, list[Any], list[Any]]) -> None:
        nonlocal loaded
        path.write_bytes(change_model(whole, *changes))
        readable = refused(read_header, path) is None
        code, printed = quietly(["info", str(path)])
        assert code == (0 if readable else 4), printed
        assert "\x1b" not in printed
        if refused(load_model, path) is not None:
            return
        assert readable
        loaded += 1
        detector, _ = load_model(path)
        with torch.inference_mode():
            for view in detector.spec.views:
                ks = detector.spec.ks_of(view)
                pixels = {k: [torch.full((3, 64 // k, 96 // k), 99, dtype=torch.uint8)] for k in ks}
                (found,) = detector.detect(pixels, view)
                assert bool(found["boxes"].isfinite().all())

    fuzz(examples, MODEL_CHANGES, check)
    assert loaded > 0  # a change of a score or of a weight is none of the format


# --- images ---

BITS = {"1": 1, "L": 8, "P": 8, "LA": 16, "I;16": 16, "RGB": 24, "YCbCr": 24, "LAB": 24, "HSV": 24, "RGBA": 32}
BITS |= {"CMYK": 32, "I": 32, "F": 32}
Image.init()
EXIF = st.dictionaries(
    st.sampled_from([270, 271, 274, 282, 305, 306, 34665, 34853, 36864, 40961]) | st.integers(0, 65535),
    st.integers(0, 70_000) | st.text(max_size=9) | st.binary(max_size=9) | st.floats(0, 9) | st.integers(1, 8),
    max_size=3,
)


@st.composite
def images(draw: st.DrawFn) -> tuple[bytes, str]:
    """An image in any mode and format that Pillow writes, whole or damaged; and its format, or nothing if damaged."""
    mode = draw(st.sampled_from(list(BITS)))
    side = st.integers(1, 40) | st.sampled_from([1, 2, 300])
    frames = []
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        width, height = draw(side), draw(side)
        pattern = draw(st.binary(min_size=1, max_size=64))
        size = (width * BITS[mode] + 7) // 8 * height
        frames.append(Image.frombytes(mode, (width, height), (pattern * (size // len(pattern) + 1))[:size]))
        if mode == "P":
            frames[-1].putpalette(
                draw(st.binary(min_size=3, max_size=768).map(lambda each: each[: len(each) // 3 * 3]))
            )
    kind = draw(st.sampled_from([*FORMATS, *FORMATS, "MPO", *sorted(Image.SAVE)]))
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        options["exif"] = Image.Exif()
        for tag, value in draw(EXIF).items():
            options["exif"][tag] = value
    if draw(st.booleans()):
        options["transparency"] = draw(st.integers(0, 255) | st.binary(max_size=9))
    if kind == "TIFF":
        options["compression"] = draw(
            st.sampled_from([None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"])
        )
    if kind in Image.SAVE_ALL and len(frames) > 1:
        options |= {"save_all": True, "append_images": frames[1:]}
    written = io.BytesIO()
    try:
        frames[0].save(written, kind, **options)
    except Exception:  # of Pillow: a format that has no such mode or value
        written, kind = io.BytesIO(), "PNG"
        frames[0].convert("RGB").save(written, kind)
    content = written.getvalue()
    if draw(st.booleans()):
        return change_bytes(content, 200, draw(st.lists(BYTE_CHANGES, min_size=1, max_size=4))), ""
    return content, kind


@pytest.mark.filterwarnings("ignore")  # Pillow's, when it writes images that it would not read without a remark
@pytest.mark.parametrize("examples", [100, MANY])
def test_images(tmp_path: Path, student: Detector, monkeypatch: pytest.MonkeyPatch, examples: int) -> None:
    monkeypatch.setattr(scoped, "most", scoped.most)  # set back afterwards
    limit_pixels(10**6)  # larger ones take time
    names = [".jpg", ".png", ".webp", ".tif", ".gif", ".bmp", ".pgm", ""]
    garbage = st.tuples(st.binary(max_size=200), st.just(""))
    seen = 0

    def check(example: tuple[tuple[bytes, str], str]) -> None:
        nonlocal seen
        (content, kind), suffix = example
        path = tmp_path / f"image{suffix}"
        path.write_bytes(content)
        (found,) = predict(student, "low", [Input(path, Path(path.name))], Wanted(0.0), CPU)
        if isinstance(found, DataError):
            assert str(path) in found.message
            assert kind not in FORMATS, found.message
            return
        assert isinstance(found, Prediction)
        seen += 1
        boxes, scores, labels = (found.found[name] for name in ("boxes", "scores", "labels"))
        assert len(boxes) == len(scores) == len(labels)
        assert bool(boxes.isfinite().all())
        assert bool(((boxes >= 0) & (boxes <= torch.tensor(2 * found.image.size))).all())
        assert bool(((scores >= 0) & (scores <= 1)).all())
        assert set(labels.tolist()) <= {1, 2}
        drawn = draw_boxes(found.image, boxes.tolist(), labels.tolist(), ["é 0.50"] * len(boxes))
        assert (drawn.size, drawn.mode) == (found.image.size, "RGB")

    fuzz(examples, st.tuples(images() | images() | garbage, st.sampled_from(names)), check)
    assert seen > examples / 4


# --- annotation files ---

FILES = ("a.png", "b.png", "turned.png", "empty.png", "missing.png")
NUMBERS = st.integers(0, 50) | st.floats(-10, 60, allow_nan=False)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A valid COCO document."""
    ids = st.lists(st.integers(0, 99) | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4, unique=True)
    images, categories = draw(ids), draw(ids)
    annotations = [
        {
            "id": number,
            "image_id": draw(st.sampled_from(images)),
            "category_id": draw(st.sampled_from(categories)),
            "bbox": [draw(NUMBERS) for _ in range(4)],
            "area": draw(NUMBERS),
            "iscrowd": draw(st.sampled_from([0, 0, 1])),
        }
        for number in range(draw(st.integers(0, 5)))
    ]
    return {
        "images": [
            {
                "id": each,
                "file_name": draw(st.sampled_from(FILES)),
                "width": 64,
                "height": draw(st.sampled_from([48, 49])),
            }
            for each in images
        ],
        "annotations": annotations,
        "categories": [{"id": each, "name": draw(st.text(max_size=5))} for each in categories],
    }


@st.composite
def annotation_files(draw: st.DrawFn) -> bytes:
    """A COCO document, mostly with changes, or garbage."""
    text = json.dumps(draw(documents()))
    match draw(st.sampled_from(["values", "values", "values", "bytes", "garbage", "noise"])):
        case "values":
            return json.dumps(change_values(text, draw(st.lists(VALUE_CHANGES, max_size=3)))).encode()
        case "bytes":
            return change_bytes(text.encode(), len(text), draw(st.lists(BYTE_CHANGES, min_size=1, max_size=4)))
        case "garbage":
            return json.dumps(draw(VALUES)).encode()
        case _:
            return draw(st.binary(max_size=100))


DETECTIONS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.lists(NUMBERS, min_size=4, max_size=4), st.floats(0, 1)),
    max_size=4,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The images that documents name, all but one."""
    exif = Image.Exif()
    exif[274] = 6
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 48)).save(tmp_path / name)
    Image.new("RGB", (64, 48)).save(tmp_path / "turned.png", exif=exif)
    (tmp_path / "empty.png").touch()
    return tmp_path


@pytest.mark.parametrize("examples", [100, MANY])
def test_annotation_files(folder: Path, examples: int) -> None:
    file = folder / "instances.json"
    scored = 0

    def check(example: tuple[bytes, list[tuple[int, int, list[float], float]]]) -> None:
        nonlocal scored
        content, detections = example
        file.write_bytes(content)
        if (error := refused(read_split, file, folder)) is not None:
            assert str(file) in error.message
            return
        split = read_split(file, folder)
        assert len(split.boxes) == len(split.labels) == split.starts[-1]
        assert set(split.labels.tolist()) <= set(range(1, len(split.categories) + 1))
        results = [
            {
                "image_id": int(split.image_ids[image % len(split)]),
                "category_id": split.categories[category % len(split.categories)][0],
                "bbox": box,
                "score": value,
            }
            for image, category, box, value in detections
            if split.categories
        ]
        numbers = score(ground_truth(split), results).numbers
        assert all(math.isnan(value) or 0 <= value <= 1 for value in numbers.values())
        scored += 1

    fuzz(examples, st.tuples(annotation_files(), DETECTIONS), check)
    assert scored > examples / 20


@pytest.mark.parametrize("examples", [50, MANY])
def test_checks_and_repairs(folder: Path, monkeypatch: pytest.MonkeyPatch, examples: int) -> None:
    file, repaired = folder / "instances.json", folder / "repaired.json"
    monkeypatch.setenv("MSAD_CACHE", str(folder / "a.png"))  # no folder: nothing is kept
    fine = 0

    def check(content: bytes) -> None:
        nonlocal fine
        file.write_bytes(content)
        repaired.unlink(missing_ok=True)
        command = ["data", "check", str(file), "--images", str(folder)]
        usable, printed = quietly(command)
        assert usable in (0, 3), printed
        assert "\x1b" not in printed
        code, printed = quietly([*command, "--fix", "--out", str(repaired)])
        assert code in (0, 3), printed
        assert repaired.exists() == (code == 0)
        if usable == 0:
            read_split(file, folder)
        if code == 0:
            code, printed = quietly(["data", "check", str(repaired), "--images", str(folder)])
            assert code == 0, printed
            assert code == 3 or len(read_split(repaired, folder).boxes) > 0
            fine += 1

    fuzz(examples, annotation_files(), check)
    assert fine > examples / 20
