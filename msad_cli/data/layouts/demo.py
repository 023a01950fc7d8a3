"""The built-in demo data set: drawn scenes in the COCO folder layout, to try everything without a download.

Category ids have gaps on purpose, as those of COCO do. demo_scenes.py draws.
"""

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from msad_cli.data.layouts import coco
from msad_cli.data.layouts.base import Files, Layout
from msad_cli.data.layouts.demo_scenes import CATEGORY_IDS, KEYPOINTS, SKELETON, DrawnObject, Owner, photograph, scene
from msad_cli.system.cache_folder import cache_folder, writing_cache

DEMO = "demo"
"""The word that stands for the built-in set wherever a folder is asked for."""
VERSION = 5  # part of the cache folder's name: raise it whenever the drawn pixels or the json change
SPLITS = ("train2017", "val2017")


def demo_folder(*, train: int = 400, val: int = 100, seed: int = 0, cache: Path | None = None) -> Path:
    """The folder of the demo set, drawn on first use into `cache`, by default that of the user."""
    root = cache or cache_folder()
    target = root / f"demo-v{VERSION}-train{train}-val{val}-seed{seed}"
    if target.is_dir():
        return target
    with writing_cache():
        root.mkdir(parents=True, exist_ok=True)
    with writing_cache(), tempfile.TemporaryDirectory(prefix="drawing-", dir=root) as temporary:
        drawn = Path(temporary) / target.name
        draw_demo(drawn, train=train, val=val, seed=seed)
        try:
            os.replace(drawn, target)
        except OSError:
            # A folder that is not empty cannot be replaced: another process has finished the same drawing first.
            if not target.is_dir():
                raise
    return target


def draw_demo(
    folder: Path, *, train: int = 400, val: int = 100, seed: int = 0, size: tuple[int, int] = (256, 256)
) -> None:
    """Draw `train` and `val` images of `size` (width, height) pixels into `folder`, in the layout of COCO 2017.

    Image i of a split depends on (seed, split, i, size) only: a smaller set is the beginning of a larger one.
    """
    if min(size) < 32:
        raise ValueError(f"the demo images must be at least 32 pixels wide and high, not {size[0]}x{size[1]}")
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for number, (split, count) in enumerate(zip(SPLITS, (train, val), strict=True)):
        _draw_split(folder, split, [np.random.default_rng([seed, number, i]) for i in range(count)], size)


def _draw_split(folder: Path, split: str, generators: list[np.random.Generator], size: tuple[int, int]) -> None:
    """Write the images of one split, one per generator, and its two annotation files."""
    (folder / split).mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, rng in enumerate(generators, start=1):
        canvas, owner, objects = scene(rng, size)
        name = f"{image_id:012d}.jpg"
        photograph(rng, canvas).save(folder / split / name, quality=int(rng.integers(70, 96)))
        images.append({"id": image_id, "file_name": name, "width": size[0], "height": size[1]})
        for index in range(len(objects)):
            annotations.append(_annotation(len(annotations) + 1, image_id, owner, objects, index))

    categories = [{"id": i, "name": name, "supercategory": "shape"} for name, i in CATEGORY_IDS.items()]
    plain = [{key: a[key] for key in a if key not in ("keypoints", "num_keypoints")} for a in annotations]
    _write(folder / "annotations" / f"instances_{split}.json", images, plain, categories)

    figure = {**categories[-1], "keypoints": KEYPOINTS, "skeleton": SKELETON}
    figures = [a for a in annotations if "keypoints" in a]
    _write(folder / "annotations" / f"person_keypoints_{split}.json", images, figures, [figure])


def _write(path: Path, images: list[Any], annotations: list[Any], categories: list[Any]) -> None:
    content = {"info": {"version": VERSION}, "images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content), encoding="utf-8")


def _annotation(number: int, image_id: int, owner: Owner, objects: list[DrawnObject], index: int) -> dict[str, Any]:
    """The COCO annotation of object `index`: of what is seen of it."""
    encoded = rle.encode(np.asfortranarray(owner == index, dtype=np.uint8))
    annotation = {
        "id": number,
        "image_id": image_id,
        "category_id": CATEGORY_IDS[objects[index].name],
        "bbox": rle.toBbox(encoded).tolist(),
        "area": int(rle.area(encoded)),
        "iscrowd": 0,
        "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")},
    }
    if len(objects[index].keypoints):
        triples = [_keypoint(x, y, owner, index) for x, y in objects[index].keypoints.round(2).tolist()]
        annotation["keypoints"] = [value for triple in triples for value in triple]
        annotation["num_keypoints"] = sum(flag > 0 for _, _, flag in triples)
    return annotation


def _keypoint(x: float, y: float, owner: Owner, index: int) -> tuple[float, float, int]:
    """(x, y, flag): flag 2 in view, 1 under an object drawn later than `index`, and 0 with x = y = 0 off the image."""
    height, width = owner.shape
    if not (0 <= x < width and 0 <= y < height):
        return 0, 0, 0
    return x, y, 1 if owner[int(y), int(x)] > index else 2


def _find(place: Path, split: str, images: Path | None, task: str) -> Files:
    """Of the demo set in the cache; at the first call it is drawn."""
    return replace(coco.LAYOUT.find(demo_folder(), split, images, task), recognised="the built-in demo set")


LAYOUT = Layout("", lambda _: False, _find, word=DEMO)
