"""What is written of predictions: drawn images, crops, and files of results, a function a format."""

import csv
import io
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import yaml
from PIL import Image

from msad_cli.data.annotations.segmentation import Rle, decode, pixels_inside
from msad_cli.data.images.decode import scoped
from msad_cli.data.writers.tracing import one_ring
from msad_cli.data.writers.yolo import label_row
from msad_cli.errors import UsageError
from msad_cli.evaluation.detect_split import coco_results
from msad_cli.evaluation.metrics import Result
from msad_cli.inference.draw import draw_objects
from msad_cli.inference.inputs import Input, resolved
from msad_cli.inference.predictor import Prediction
from msad_cli.inference.video import writing_video
from msad_cli.models.decode.paste_masks import paste_masks
from msad_cli.models.spec import DetectorSpec
from msad_cli.system.files import refuse_unwritable, write_bytes, write_text

LONGEST_SIDE = {"JPEG": 65_500, "PNG": 2**31 - 1, "WEBP": 16_383, "BMP": 2**31 - 1, "TIFF": 2**31 - 1}
"""In pixels, by what images are saved as; an image beyond it becomes a PNG."""
LONGEST_NAME = 255
"""Bytes of a file's name."""
LONGEST_CLASS = 100
"""Bytes of the folder of a class."""
NO_FOLDER = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]|^\.+|[. ]+$')
"""What a folder's name must not have, on one system or another."""
SUMMARIES = {"json": "predictions.json", "csv": "predictions.csv", "coco": "coco.json", "yolo": "data.yaml"}
"""Files of all images together."""
COLUMNS = ("file", "frame", "image_id", "category_id", "category", "score", "x", "y", "width", "height")


class Names:
    """Names of results below a folder, none of which is given twice or is that of an input."""

    def __init__(self, out: Path, inputs: Iterable[Input]) -> None:
        self._root = resolved(out)
        self._taken = {_key(resolved(each.path)) for each in inputs}

    def claim(self, *wanted: PurePath) -> Path:
        """The first of the wanted names, relative to the folder, that is free; else the last with a number."""
        numbered = (_fitting(wanted[-1], f"-{number}{wanted[-1].suffix}") for number in itertools.count(2))
        for name in itertools.chain((_fitting(each, each.suffix) for each in wanted), numbered):
            path = self._root / name
            if _key(path) not in self._taken:
                break
        self._taken.add(_key(path))
        return path


class Saver:
    """Writes predictions into a folder, in the formats that are asked for.

    Args:
        out: the folder.
        saves: some of image, json, coco, yolo, csv and crop.
        spec: of the model, with its classes.
        inputs: all that will be looked at; their places, from 1, are the ids of the images.
    """

    def __init__(self, out: Path, saves: set[str], spec: DetectorSpec, inputs: Sequence[Input]) -> None:
        self._out, self._saves, self.spec = out, saves, spec
        self._names = Names(out, inputs)
        self._ids = {each.relative: number for number, each in enumerate(inputs, start=1)}
        self._folders = class_folders([name for _, name in spec.categories])
        self._images: list[dict[str, Any]] = []
        self._results: list[Result] = []

    @property
    def draws(self) -> bool:
        """Whether whole images are asked for."""
        return bool(self._saves & {"image", "crop"})

    def _standing(self) -> Path | None:
        """A result of an earlier run that one of this run would replace, if there is any."""
        files = [self._out / name for kind, name in SUMMARIES.items() if kind in self._saves]
        if "image" in self._saves:
            files += [self._out / name for name in self._ids]
        return next((each for each in files if each.exists()), None)

    def begin(self, overwrite: bool) -> None:
        """Makes the folder if there is anything to be saved.

        Raises:
            UsageError: a result would be written over unasked.
            OutputError: nothing can be written there; said before the work whose results would be lost.
        """
        if not overwrite and (there := self._standing()) is not None:
            raise UsageError(f"{there} exists", "add --overwrite, or choose another --out", code="result-exists")
        if self._saves:
            refuse_unwritable(self._out / SUMMARIES["json"])

    def add(self, seen: Prediction) -> list[Result]:
        """Writes what there is of one image, or frame; its detections in COCO's result form."""
        category_ids = [category_id for category_id, _ in self.spec.categories]
        number, name = self._ids[seen.source.relative], seen.source.relative.as_posix()
        results = coco_results(seen.found, number, category_ids, seen.scaled.size)
        frame = {} if seen.frame is None else {"frame": seen.frame}
        named = [{**each, "file_name": name, **frame} for each in results]
        height, width = seen.scaled.size
        if self._saves & {"json", "coco", "csv"}:
            self._images.append({"id": number, "file_name": name, "width": width, "height": height})
            self._results += named
        if "image" in self._saves and seen.frame is None:
            save_image(drawn(seen, self.spec), self._names, seen.source.relative)
        labels = seen.found["labels"].tolist()
        stems = _stems(seen)
        if "yolo" in self._saves:
            text = "".join(f"{row}\n" for row in yolo_rows(labels, results, (width, height)))
            write_text(self._names.claim(*("labels" / _ending(each, ".txt") for each in stems)), text)
        if "crop" in self._saves:
            suffix = ".jpg" if seen.source.is_video else seen.source.path.suffix
            for place, (label, box) in enumerate(zip(labels, seen.found["boxes"].tolist(), strict=True), start=1):
                folder = PurePath("crops", self._folders[label - 1])
                wanted = [folder / _ending(each, f"-{place}{suffix}") for each in stems]
                save_image(cropped(seen.image, box), self._names, *wanted)
        return results

    @contextmanager
    def video(self, source: Input, rate: Fraction) -> Iterator[Callable[[Prediction], None]]:
        """Takes the frames of a video, `rate` of them a second, to be drawn; does nothing where no image is saved."""
        if "image" not in self._saves:
            yield lambda _: None
            return
        name = source.relative
        path = self._names.claim(name.with_suffix(".mp4"), name.with_name(f"{name.name}.mp4"))
        with writing_video(path, rate) as write:
            yield lambda seen: write(drawn(seen, self.spec))

    def finish(self) -> None:
        """Writes what there is of all images together."""
        if "json" in self._saves:
            write_text(self._out / SUMMARIES["json"], json_rows(self._results))
        if "csv" in self._saves:
            write_bytes(self._out / SUMMARIES["csv"], csv_table(self._results, self.spec.categories))
        if "coco" in self._saves:
            document = coco_document(self._images, self._results, self.spec)
            write_text(self._out / SUMMARIES["coco"], json.dumps(document) + "\n")
        if "yolo" in self._saves:
            names = dict(enumerate(name for _, name in self.spec.categories))
            text = yaml.safe_dump({"names": names}, sort_keys=False, allow_unicode=True)
            write_text(self._out / SUMMARIES["yolo"], text)


def drawn(seen: Prediction, spec: DetectorSpec) -> Image.Image:
    """The image with what was found in it."""
    image, found = seen.image, seen.found
    labels, masks, keypoints = found["labels"].tolist(), None, None
    if "masks" in found:
        masks = paste_masks(found["masks"], found["mask_boxes"], (image.height, image.width))
    if "keypoints" in found:
        keypoints = found["keypoints"].tolist()
    # The name of the only class would cover small objects and say nothing.
    names = [f"{name} " if len(spec.categories) > 1 else "" for _, name in spec.categories]
    texts = [f"{names[i - 1]}{score:.2f}" for i, score in zip(labels, found["scores"].tolist(), strict=True)]
    return draw_objects(image, found["boxes"].tolist(), labels, texts, masks, keypoints, spec.skeleton)


def cropped(image: Image.Image, box: Sequence[float]) -> Image.Image:
    """The pixels that a box (corners) touches; one at least."""
    left, top = min(math.floor(box[0]), image.width - 1), min(math.floor(box[1]), image.height - 1)
    right, bottom = min(math.ceil(box[2]), image.width), min(math.ceil(box[3]), image.height)
    left, top = max(0, left), max(0, top)
    with scoped:  # Pillow looks at the size of what is cropped too
        return image.crop((left, top, max(left + 1, right), max(top + 1, bottom)))


def save_image(image: Image.Image, names: Names, *wanted: PurePath) -> None:
    """Writes an image as the format that its suffix names; as PNG where that holds no such image."""
    Image.init()
    kind = Image.EXTENSION.get(wanted[0].suffix.lower(), "")
    if max(image.size) > LONGEST_SIDE.get(kind, 0):
        wanted, kind = tuple(_ending(each, ".png") for each in wanted), "PNG"
    written = io.BytesIO()
    image.save(written, format=kind, quality=92)
    write_bytes(names.claim(*wanted), written.getbuffer())


def json_rows(results: Sequence[Result]) -> str:
    """A list with a detection a line."""
    return "[\n" + ",\n".join(json.dumps(each) for each in results) + "\n]\n"


def json_line(seen: Prediction, results: Sequence[Result], categories: Iterable[tuple[int, str]]) -> str:
    """What was found in one image, or frame.

    Args:
        results: in COCO's form.
        categories: (id, name) of the classes.
    """
    names = dict(categories)
    height, width = seen.scaled.size
    frame = {} if seen.frame is None else {"frame": seen.frame}
    detections = [
        {"category": names[each["category_id"]], **{name: each[name] for name in each if name != "image_id"}}
        for each in results
    ]
    return json.dumps({"file": str(seen.source.path), **frame, "size": [width, height], "detections": detections})


def csv_table(results: Sequence[Result], categories: Iterable[tuple[int, str]]) -> bytes:
    """A row a detection, boxes in pixels of the image, as UTF-8."""
    names = dict(categories)
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(COLUMNS)
    for each in results:
        category_id = each["category_id"]
        about = (each["file_name"], each.get("frame", ""), each["image_id"], category_id, names[category_id])
        table.writerow((*about, each["score"], *each["bbox"]))
    # Names of files need not be UTF-8, and names of classes may hold halves of surrogate pairs.
    return text.getvalue().encode("utf-8", "backslashreplace")


def coco_document(images: Sequence[Mapping[str, Any]], results: Sequence[Result], spec: DetectorSpec) -> dict[str, Any]:
    """Detections as annotations, which `--data` and other tools take for ground truth; each keeps its score."""
    categories: list[dict[str, Any]] = [{"id": number, "name": name} for number, name in spec.categories]
    if spec.keypoints:
        own = {
            "keypoints": list(spec.keypoints),
            "skeleton": [[start + 1, end + 1] for start, end in spec.skeleton],
            "flip_pairs": [list(pair) for pair in spec.flip_pairs],
        }
        categories = [each | own for each in categories]
    annotations = []
    for number, each in enumerate(results, start=1):
        own = {name: value for name, value in each.items() if name != "file_name"}
        area = round(each["bbox"][2] * each["bbox"][3], 2)
        if encoded := _rle(each):
            area = pixels_inside(encoded)
        if "keypoints" in each:
            own["num_keypoints"] = sum(visibility > 0 for visibility in each["keypoints"][2::3])
        annotations.append({"id": number, **own, "area": area, "iscrowd": 0})
    return {"images": list(images), "categories": categories, "annotations": annotations}


def yolo_rows(labels: Sequence[int], results: Sequence[Result], size: tuple[int, int]) -> Iterator[str]:
    """Rows `class x y width height score` of an image of (width, height) pixels; of masks `class x y x y … score`, of
    keypoints `class x y width height x y v … score`. Places are shares of the image's sides."""
    for label, each in zip(labels, results, strict=True):
        x, y, width, height = each["bbox"]
        corners = np.array([(x, y), (x + width, y + height)]).clip(0, size) / size
        numbers = [*corners.mean(axis=0), *(corners[1] - corners[0])]
        if encoded := _rle(each):
            # A mask without a pixel has no segmentation; its box's stands for it.
            (left, top), (right, bottom) = corners
            of_box = [left, top, right, top, right, bottom, left, bottom]
            segmentation = one_ring(encoded) / size if decode(encoded).any() else of_box
            numbers = list(np.ravel(segmentation))
        if "keypoints" in each:
            points = np.array(each["keypoints"]).reshape(-1, 3) / (*size, 1)
            points[((points[:, :2] < 0) | (points[:, :2] > 1)).any(axis=1)] = 0
            numbers += points.ravel().tolist()
        yield label_row(label, [*numbers, each["score"]])


def class_folders(names: Sequence[str]) -> list[str]:
    """A folder's name for each class, all different, whatever the classes are called."""
    folders: dict[str, str] = {}
    for name in names:
        plain = NO_FOLDER.sub("_", name).encode("utf-8", "replace")[:LONGEST_CLASS].decode("utf-8", "ignore") or "_"
        choices = itertools.chain([plain], (f"{plain}-{number}" for number in itertools.count(2)))
        folder = next(each for each in choices if each.casefold() not in folders)
        folders[folder.casefold()] = folder
    return list(folders.values())


def _rle(result: Result) -> Rle | None:
    """The RLE of a result's mask."""
    encoded = result.get("segmentation")
    return encoded and {"size": encoded["size"], "counts": encoded["counts"].encode()}


def _stems(seen: Prediction) -> tuple[PurePath, PurePath]:
    """What results of one image or frame are called, without suffixes: short, and where that is taken in full."""
    name = seen.source.relative
    frame = "" if seen.frame is None else f"-{seen.frame:06}"
    return _ending(name.with_suffix(""), frame), _ending(name, frame)


def _ending(name: PurePath, ending: str) -> PurePath:
    return name.with_name(f"{name.name}{ending}")


def _fitting(name: PurePath, ending: str) -> PurePath:
    """The name with `ending` in place of its suffix, cut before it to what systems take."""
    room = LONGEST_NAME - len(os.fsencode(ending))
    return name.with_name(os.fsdecode(os.fsencode(name.stem)[:room]) + ending)


def _key(path: Path) -> str:
    # Where upper case is lower case, as on most Macs, both are one file.
    return str(path).casefold()
