"""Images of more than 8 bits, of more pages and of more bands: read by one range for a set, or named."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.deep import write_png, write_ppm, write_tiff

from msad_cli.cli.app import run
from msad_cli.data.annotations.check import Report, check
from msad_cli.data.annotations.split import read_split
from msad_cli.data.images.decode import read_header, read_image, read_values
from msad_cli.data.images.in_memory import rgb_image
from msad_cli.data.images.scaled import open_image
from msad_cli.data.images.tone_range import read_by, tones_of, values_of
from msad_cli.data.images.tones import BY_FILE, NOT_MET, Tones, parse_bits, tones_of_bits
from msad_cli.data.layouts.splits import find_splits, records_of
from msad_cli.data.loading.dataset import EvaluationSet
from msad_cli.errors import UsageError
from msad_cli.export.sidecar import Notes, exported_spec, sidecar
from msad_cli.frame import Resolution
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, load_model, save_model
from msad_cli.models.model_file import read_header as read_model_header
from msad_cli.models.spec import DetectorSpec

WIDTH, HEIGHT = 40, 24
SMALL = Resolution(64, 96)


def drawn(seed: int, bits: int, bands: int = 1, ground: float = 0.25) -> NDArray[np.uint16]:
    """A ground of a share of the range, an object at its top, and one that goes over the levels between."""
    draw = np.random.default_rng(seed)
    top = 2**bits - 1
    shape = (HEIGHT, WIDTH) if bands == 1 else (HEIGHT, WIDTH, bands)
    pixels = np.full(shape, round(ground * top), dtype=np.uint16)
    pixels[4:12, 5:17] = top
    pixels[14:20, 20:36] = draw.integers(round(ground * top), top, pixels[14:20, 20:36].shape, endpoint=True)
    return pixels


Writer = Callable[[Path, NDArray[np.uint16]], None]
WRITERS: dict[str, tuple[str, int, Writer]] = {
    "png": ("png", 1, write_png),
    "png, colours": ("png", 3, write_png),
    "png, grey and alpha": ("png", 2, write_png),
    "png, colours and alpha": ("png", 4, write_png),
    "tiff": ("tif", 1, lambda file, pixels: write_tiff(file, [pixels])),
    "tiff, big end first": ("tif", 1, lambda file, pixels: write_tiff(file, [pixels], order=">")),
    "tiff, colours": ("tif", 3, lambda file, pixels: write_tiff(file, [pixels])),
    "tiff, colours, big end first": ("tif", 3, lambda file, pixels: write_tiff(file, [pixels], order=">")),
    "tiff, colours and alpha": ("tif", 4, lambda file, pixels: write_tiff(file, [pixels], extra=[2])),
    "pgm": ("pgm", 1, write_ppm),
    "ppm": ("ppm", 3, write_ppm),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_all_bits_are_read_and_one_range_brings_them_to_eight(tmp_path: Path, kind: str) -> None:
    suffix, bands, write = WRITERS[kind]
    pixels = drawn(1, 12, bands)
    alpha = bands in (2, 4)
    if alpha:
        pixels[..., -1] = 65535
    file = tmp_path / f"a.{suffix}"
    write(file, pixels)
    assert read_header(file).deep
    found = read_values(file)
    assert found is not None
    assert np.array_equal(found[0], pixels)
    colours = pixels[..., :-1] if alpha else pixels
    expected = np.round(colours.astype(float) * 255 / 4095).astype(int)
    if expected.ndim == 2 or expected.shape[2] == 1:
        expected = np.repeat(expected.reshape(HEIGHT, WIDTH, 1), 3, axis=2)
    read = np.asarray(read_image(file, tones=tones_of_bits(12))).astype(int)
    assert np.array_equal(read, expected)  # 1023 of 4095 is 63.7 of 255
    assert np.array_equal(np.asarray(open_image(file, tones_of_bits(12)).at(1)), read)
    # Without a range it is what it was: white is 65535.
    assert np.asarray(read_image(file)).max() <= 16


def test_what_is_transparent_is_shown_on_white_at_any_depth(tmp_path: Path) -> None:
    pixels = np.full((2, 2, 4), 1000, dtype=np.uint16)
    pixels[0, 0, 3], pixels[0, 1, 3] = 0, 4095
    pixels[1, :, 3] = 2048
    write_png(tmp_path / "a.png", pixels)
    read = np.asarray(read_image(tmp_path / "a.png", tones=tones_of_bits(12)))
    # 1000 of 4095 is 62.3 of 255, half of it on white 158.6.
    assert read[0, 0].tolist() == [255, 255, 255]
    assert read[0, 1].tolist() == [62, 62, 62]
    assert read[1, 0].tolist() == [159, 159, 159]


def test_deep_images_are_turned_too(tmp_path: Path) -> None:
    pixels = drawn(2, 12, 3)
    write_tiff(tmp_path / "a.tif", [pixels], orientation=6)
    assert read_header(tmp_path / "a.tif").size == (WIDTH, HEIGHT)
    found = read_values(tmp_path / "a.tif")
    assert found is not None
    assert np.array_equal(found[0], np.rot90(pixels, -1))
    plain = Image.fromarray(drawn(2, 12))
    exif = Image.Exif()
    exif[274] = 6
    plain.save(tmp_path / "b.png", exif=exif)
    found = read_values(tmp_path / "b.png")
    assert found is not None
    assert np.array_equal(found[0], np.rot90(drawn(2, 12), -1))


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA", "1", "CMYK"])
def test_eight_bits_stay_as_they_are(tmp_path: Path, mode: str) -> None:
    pixels = Image.fromarray(np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    file = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    pixels.convert(mode).save(file)
    assert not read_header(file).deep
    assert read_values(file) is None
    assert read_image(file, tones=tones_of_bits(12)) == read_image(file)


# --- which range ---


@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize("share", [0.6, 1.0])
def test_bits_are_whole(bits: int, share: float) -> None:
    values = np.linspace(0, share * (2**bits - 1), 5000).astype(np.uint16)
    assert tones_of([values]) == tones_of_bits(bits)
    assert tones_of([values]).bits == bits


def uniform(low: float, high: float, kind: str = "u2") -> NDArray[Any]:
    return np.linspace(low, high, 20_000).astype(kind)


@pytest.mark.parametrize(
    ("values", "tones"),
    [
        (uniform(0, 65535), BY_FILE),  # true 16 bits, as ever
        (uniform(0, 40000), BY_FILE),  # of which the brightest uses 0.6
        (uniform(0, 255), Tones(0, 255)),  # as each file's own kind would have it
        (uniform(200, 255), Tones(0, 255)),
        (uniform(0, 1, "f4"), Tones(0, 1)),
        (uniform(0, 255, "f4"), Tones(0, 255)),
        (uniform(0, 4095, "f4"), tones_of_bits(12)),
        (np.zeros(100, np.uint16), Tones(0, 255)),
        (np.full(100, 3.0, np.float32), BY_FILE),
    ],
)
def test_ranges(values: NDArray[Any], tones: Tones) -> None:
    assert tones_of([values]) == tones


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [
        (7000, 9000, "u2"),  # a thermal camera's counts
        (27315, 31315, "u2"),  # hundredths of a kelvin
        (280, 320, "f4"),  # kelvin
        (-20, 45, "f4"),  # degrees
        (-1000, 3000, "i2"),  # Hounsfield's units
    ],
)
def test_measures_go_from_their_own_least_to_their_largest(low: int, high: int, kind: str) -> None:
    tones = tones_of([uniform(low, high, kind)])
    assert [tones.black, tones.white] == pytest.approx([low, high], abs=(high - low) / 1000)


def test_dark_floats_go_to_their_largest() -> None:
    assert tones_of([uniform(3, 40, "f4")]).white == pytest.approx(40, abs=0.1)
    assert tones_of([uniform(0, 1_000_000, "i4")]).white == pytest.approx(1_000_000, rel=1e-3)


def test_a_hot_pixel_of_ten_thousand_says_nothing() -> None:
    values = np.concatenate([uniform(0, 4095), np.array([65535], np.uint16)])
    assert tones_of([values]) == tones_of_bits(12)
    assert tones_of([]) == BY_FILE


def test_what_was_not_measured_says_nothing(tmp_path: Path) -> None:
    pixels = np.full((20, 20), 300, np.float32)
    pixels[:, 10:] = 310
    pixels[0], pixels[1], pixels[2, 0] = -9999, np.nan, np.inf
    write_tiff(tmp_path / "a.tif", [pixels])
    values = values_of([tmp_path / "a.tif"])
    assert values is not None
    assert (values.least.tolist(), values.largest.tolist()) == ([300], [310])
    read = np.asarray(read_image(tmp_path / "a.tif", tones=values.tones))[..., 0]
    assert (read[5, 5], read[5, 15], read[0, 0], read[1, 0], read[2, 0]) == (0, 255, 0, 0, 255)


def test_bits_that_are_typed() -> None:
    assert parse_bits(None) is None
    assert parse_bits(12) == Tones(0, 4095)
    for wrong in (0, 33):
        with pytest.raises(UsageError):
            parse_bits(wrong)
    for wrong_pair in ((1, 0), (0, float("nan")), (0, float("inf"))):
        with pytest.raises(ValueError, match="ascending"):
            Tones(*wrong_pair)


# --- of a set ---

IDS = (7, 90)
BOXES = ([5, 4, 12, 8], [20, 14, 16, 6])


def coco_set(folder: Path, images: dict[str, dict[str, Any]], save: Callable[[Path, Any], None]) -> Path:
    """A COCO folder of these images by split and name."""
    (folder / "annotations").mkdir(parents=True)
    for split, named in images.items():
        (folder / f"{split}2017").mkdir()
        listed: list[dict[str, Any]] = []
        for number, (name, pixels) in enumerate(named.items(), start=1):
            save(folder / f"{split}2017" / name, pixels)
            listed.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        annotations = [
            {"id": 10 * each["id"] + i, "image_id": each["id"], "category_id": IDS[i], "bbox": box, "iscrowd": 0}
            | {"area": box[2] * box[3]}
            for each in listed
            for i, box in enumerate(BOXES)
        ]
        document = {
            "images": listed,
            "annotations": annotations,
            "categories": [{"id": IDS[0], "name": "red"}, {"id": IDS[1], "name": "blue"}],
        }
        (folder / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(document))
    return folder


def save(file: Path, pixels: Any) -> None:
    if isinstance(pixels, Image.Image):
        pixels.save(file)
    elif file.suffix == ".tif":
        write_tiff(file, [pixels])
    else:
        write_png(file, pixels)


def looked_at(folder: Path) -> Report:
    found, _ = find_splits(str(folder), None, None, "boxes")
    return check(records_of(found, "boxes"), SMALL, (2,))


def problems(report: Report) -> dict[str, dict[str, int]]:
    """Counts by code and split, of problems of the kinds of this file."""
    codes = ("image-levels-unused", "image-nearly-black", "image-of-several-pages", "image-bands-unread")
    found: dict[str, dict[str, int]] = {}
    for split, each in report.problems:
        if each.code in codes:
            found.setdefault(each.code, {})[split] = each.count
    return found


def eight(seed: int) -> Image.Image:
    return Image.fromarray((drawn(seed, 12) >> 4).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize(("bits", "bands", "suffix"), [(10, 1, "png"), (12, 3, "tif"), (14, 3, "png"), (12, 1, "tif")])
def test_the_check_says_how_few_levels_are_used_and_shows_the_range(
    tmp_path: Path, bits: int, bands: int, suffix: str
) -> None:
    count = {"train": 3, "val": 2}
    images = {split: {f"{split}{i}.{suffix}": drawn(i, bits, bands) for i in range(n)} for split, n in count.items()}
    report = looked_at(coco_set(tmp_path / "set", images, save))
    assert problems(report) == {"image-levels-unused": {"train": 3, "val": 2}}
    assert report.tones == tones_of_bits(bits)
    top = 2**bits - 1
    first = report.splits[0]
    assert first.counts["images of more than 8 bits"] == 3
    assert (first.counts["their least value"], first.counts["their largest value"]) == (round(top / 4), top)
    assert f"values from {round(top / 4)} to {top}" in " ".join(report.lines())
    assert f"{bits} bits" in report.depth
    assert Report.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_part_of_a_split_or_one_split_alone(tmp_path: Path) -> None:
    part: dict[str, dict[str, Any]] = {"train": {"a.png": drawn(0, 12), "b.png": eight(1)}, "val": {"c.png": eight(2)}}
    report = looked_at(coco_set(tmp_path / "part", part, save))
    assert (problems(report), report.tones) == ({"image-levels-unused": {"train": 1}}, tones_of_bits(12))
    val: dict[str, dict[str, Any]] = {"train": {"a.png": eight(0)}, "val": {"c.png": drawn(2, 14)}}
    report = looked_at(coco_set(tmp_path / "val", val, save))
    assert (problems(report), report.tones) == ({"image-levels-unused": {"val": 1}}, tones_of_bits(14))


def test_images_of_another_depth_than_the_set_are_named(tmp_path: Path) -> None:
    images = {"train": {"a.png": drawn(0, 16), "b.png": drawn(1, 12)}, "val": {"c.png": drawn(2, 10)}}
    report = looked_at(coco_set(tmp_path / "set", images, save))
    assert (problems(report), report.tones) == ({"image-nearly-black": {"train": 1, "val": 1}}, BY_FILE)


@pytest.mark.parametrize("pixels", [drawn(0, 16), drawn(0, 16, 3), eight(0)], ids=["grey", "colours", "8 bits"])
def test_honest_sets_are_not_warned_about(tmp_path: Path, pixels: Any) -> None:
    report = looked_at(coco_set(tmp_path / "set", {"train": {"a.png": pixels}, "val": {"b.png": pixels}}, save))
    assert problems(report) == {}
    assert report.tones == (NOT_MET if isinstance(pixels, Image.Image) else BY_FILE)


def test_pages_and_bands_are_counted(tmp_path: Path) -> None:
    grey = (drawn(0, 12) >> 4).astype(np.uint8)
    five = np.repeat(grey[..., None], 5, axis=2)
    files: dict[str, tuple[bool, int]] = {}

    def tiff(name: str, pages: list[Any], paged: bool, unread: int, **how: Any) -> None:
        write_tiff(tmp_path / name, pages, **how)
        files[name] = (paged, unread)

    tiff("one.tif", [grey], False, 0)
    tiff("stack.tif", [grey, grey, grey], True, 0)
    tiff("deep-stack.tif", [drawn(0, 12), drawn(1, 12)], True, 0)
    tiff("thumbnail.tif", [grey, grey[::2, ::2]], False, 0, subfiles=[0, 1])
    tiff("thumbnail-and-page.tif", [grey, grey[::2, ::2], grey], True, 0, subfiles=[0, 1, 0])
    tiff("five.tif", [five], False, 2, extra=[0, 0])
    tiff("near-infrared.tif", [five[..., :4]], False, 1, extra=[0])
    tiff("near-infrared-deep.tif", [np.repeat(drawn(0, 12)[..., None], 4, axis=2)], False, 1, extra=[0])
    tiff("undeclared.tif", [five[..., :4]], False, 1)
    tiff("alpha.tif", [five[..., :4]], False, 0, extra=[2])
    tiff("alpha-and-more.tif", [five], False, 1, extra=[2, 0])
    frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (0, 90, 200)]
    for suffix in ("gif", "webp", "png"):
        frames[0].save(tmp_path / f"moving.{suffix}", save_all=True, append_images=frames[1:])
        frames[0].save(tmp_path / f"still.{suffix}")
        files |= {f"moving.{suffix}": (True, 0), f"still.{suffix}": (False, 0)}
    for name, expected in files.items():
        header = read_header(tmp_path / name)
        assert (name, (header.paged, header.unread)) == (name, expected)


def test_the_check_names_pages_and_bands(tmp_path: Path) -> None:
    grey = (drawn(0, 12) >> 4).astype(np.uint8)

    def draw(file: Path, what: str) -> None:
        five = np.repeat(grey[..., None], 5, axis=2)
        write_tiff(
            file, [grey, grey] if what == "pages" else [five if what == "bands" else grey], [0, 0] * (what == "bands")
        )

    images = {
        "train": {"a.tif": "pages", "b.tif": "bands", "c.tif": "plain", "d.tif": "pages"},
        "val": {"e.tif": "bands", "f.tif": "plain"},
    }
    report = looked_at(coco_set(tmp_path / "set", images, draw))
    assert problems(report) == {
        "image-of-several-pages": {"train": 2},
        "image-bands-unread": {"train": 1, "val": 1},
    }


# --- training, files, evaluation, prediction, export ---


def pair_of_sets(tmp_path: Path, bits: int = 12) -> tuple[Path, Path]:
    """One set of 8 bits and the same of more; of 16, 255 becomes 65535."""
    names = {"train": ("a.png", "b.png"), "val": ("c.png",)}
    factor = 257 if bits == 16 else 2 ** (bits - 8)

    def image(seed: int, deep: bool) -> Any:
        return np.asarray(eight(seed))[..., 0].astype(np.uint16) * factor if deep else eight(seed)

    both = []
    for how in ("eight", "deep"):
        images = {
            split: {name: image(i, how == "deep") for i, name in enumerate(each)} for split, each in names.items()
        }
        both.append(coco_set(tmp_path / how, images, save))
    return both[0], both[1]


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_views_of_a_deep_set_are_those_of_the_same_set_of_eight_bits(tmp_path: Path, bits: int) -> None:
    plain, deep = pair_of_sets(tmp_path, bits)
    splits = []
    for folder, tones in ((plain, BY_FILE), (deep, looked_at(deep).tones)):
        split = read_split(folder / "annotations/instances_train2017.json", folder / "train2017")
        splits.append(EvaluationSet(replace(split, tones=tones), SMALL, (1, 2)))
    for place in range(2):
        for k in (1, 2):
            one, other = (each[place].views[k].int() for each in splits)
            # 2^b − 1 is white, and 255 · 2^(b − 8) is a little less.
            assert (one - other).abs().max() <= 1
            assert one.float().std() > 20


FLAGS = ["--size", "64,96", "--backbone", "resnet18", "--width", "0.25", "--head-channels", "64", "--head-convs", "1"]
FLAGS += ["--init", "none", "--device", "cpu", "--workers", "0"]


@pytest.mark.parametrize(
    ("typed", "said"), [([], "0 … 4095 is black to white (12 bits)"), (["--bits", "14"], "0 … 16383")]
)
def test_the_plan_says_how_deep_images_are_read(
    tmp_path: Path, typed: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, deep = pair_of_sets(tmp_path)
    command = ["teacher", "--data", str(deep), "--dry-run", "--out", str(tmp_path / "t.safetensors"), *FLAGS, *typed]
    assert run(command) == 0
    assert said in " ".join(capsys.readouterr().err.split())


def test_the_model_file_keeps_the_range_and_old_files_their_way(tmp_path: Path, student_spec: DetectorSpec) -> None:
    spec = replace(student_spec, tones=tones_of_bits(12))
    save_model(tmp_path / "a.safetensors", Detector(spec), Card())
    assert load_model(tmp_path / "a.safetensors")[0].spec.tones == Tones(0, 4095)
    assert read_model_header(tmp_path / "a.safetensors")[0] == spec
    old = spec.to_json()
    for name in ("black", "white", "deep_unseen"):
        del old[name]
    assert DetectorSpec.from_json(old).tones == BY_FILE
    for wrong in ({"black": "0"}, {"white": float("nan")}, {"white": -1}, {"deep_unseen": 1}, {"white": True}):
        with pytest.raises((TypeError, ValueError)):
            DetectorSpec.from_json({**spec.to_json(), **wrong})


def test_the_sidecar_says_how_deep_images_are_read(student_spec: DetectorSpec) -> None:
    spec = exported_spec(replace(student_spec, tones=Tones(7000, 9000)), "low")
    words = json.loads(sidecar(Notes(spec, Card())))["preprocessing"]["tones"]
    assert "(value - 7000) / (9000 - 7000)" in words
    plain = json.loads(sidecar(Notes(exported_spec(student_spec, "low"), Card())))["preprocessing"]["tones"]
    assert plain.startswith("8 bits")


def test_who_decides_how_images_are_read(tmp_path: Path) -> None:
    for i in range(3):
        write_png(tmp_path / f"{i}.png", drawn(i, 12))
        eight(i).save(tmp_path / f"{i}.bmp")
    deep, plain = sorted(tmp_path.glob("*.png")), sorted(tmp_path.glob("*.bmp"))
    assert read_by(plain, NOT_MET, of_set=True) == (NOT_MET, "")
    assert read_by(deep, tones_of_bits(12), of_set=True) == (tones_of_bits(12), "")
    tones, said = read_by(deep, NOT_MET, of_set=True)
    assert (tones, "12 bits" in said) == (tones_of_bits(12), True)
    # Models of old files, and single images: nothing is guessed, but it is said.
    for known, of_set in ((BY_FILE, True), (NOT_MET, False)):
        tones, said = read_by(deep, known, of_set)
        assert tones == known
        assert "3 of 3 images of more than 8 bits are nearly black" in said
        assert "--bits 12 takes 4095 for white" in said


def saved(tmp_path: Path, student: Detector, tones: Tones) -> Path:
    student.spec = replace(student.spec, tones=tones)
    path = tmp_path / "student.safetensors"
    save_model(path, student, Card(score_threshold=0.1))
    return path


def measured(model: Path, data: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[str, str]:
    """What eval writes of each detection, and what it says."""
    out = model.with_suffix(f".{data.name}.json")
    command = ["eval", str(model), "--data", str(data), "--device", "cpu", "--workers", "0", "--predictions", str(out)]
    assert run([*command, *flags]) == 0
    return out.read_text(), capsys.readouterr().err


def test_eval_takes_the_sets_range_where_the_model_has_none(
    tmp_path: Path, student: Detector, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, deep = pair_of_sets(tmp_path, 16)
    model = saved(tmp_path, student, NOT_MET)
    expected, said = measured(model, plain, capsys)
    assert "8 bits" not in said
    found, said = measured(model, deep, capsys)
    assert found == expected
    _, deep = pair_of_sets(tmp_path / "shallow", 12)
    _, said = measured(model, deep, capsys)
    assert "0 … 4095 is black to white (12 bits)" in " ".join(said.split())
    typed, said = measured(model, deep, capsys, "--bits", "12")
    assert "black to white" not in said
    assert typed == model.with_suffix(".deep.json").read_text()


def test_predict_says_what_is_nearly_black_and_takes_bits(
    tmp_path: Path, student: Detector, capsys: pytest.CaptureFixture[str]
) -> None:
    _, deep = pair_of_sets(tmp_path)
    command = ["predict", str(deep / "val2017"), "--score", "0", "--stdout", "--device", "cpu", "-m"]
    command += [str(saved(tmp_path, student, NOT_MET))]
    assert run(command) == 0
    dark = capsys.readouterr()
    assert "--bits 12 takes 4095 for white" in " ".join(dark.err.split())
    assert run([*command, "--bits", "12"]) == 0
    light = capsys.readouterr()
    assert "nearly black" not in light.err
    assert light.out != dark.out
    saved(tmp_path, student, tones_of_bits(12))
    assert run(command) == 0
    kept = capsys.readouterr()
    assert (kept.out, "nearly black" in kept.err) == (light.out, False)


def test_deep_images_in_memory_are_read_alike() -> None:
    image = Image.fromarray(drawn(0, 12))
    read = np.asarray(rgb_image(image, "image 1", tones_of_bits(12)))
    assert read[0, 0].tolist() == [64, 64, 64]
    assert read.max() == 255
    assert np.asarray(rgb_image(image, "image 1")).max() == 16
    plain = eight(0)
    assert rgb_image(plain, "image 1", tones_of_bits(12)) == plain
