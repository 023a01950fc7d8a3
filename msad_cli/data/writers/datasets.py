"""Datasets from Python (`torch.utils.data.Dataset`) as a COCO folder, so that everything reads them as it reads files.

An item is what torchvision's detection models take: an image, and a target with `boxes` (M, 4), corners x0, y0, x1, y1
in pixels of the image, `labels` (M,), and where there are any `masks` (M, H, W), nonzero inside, and `keypoints`
(M, K, 3), x, y and visibility; `iscrowd` (M,) is optional. Labels are category ids. A dataset's attribute `categories`,
a mapping of ids to names, names them; without it, or with `classes`, a list, label i is `classes[i]` or `class i`.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as rle
from torch.utils.data import Dataset

from msad_cli.data.images.in_memory import rgb_image
from msad_cli.errors import DataError, UsageError
from msad_cli.system.cache_folder import cache_folder, writing_cache

SPLITS = ("train2017", "val2017")
FILES = ("instances", "person_keypoints")


def written_datasets(*datasets: Dataset[Any]) -> Path:
    """The folder of a set made of two datasets, for training and validation: each item is asked for once, in order.

    What a dataset draws at random is drawn once. The folder lies in the user's cache, under a name that follows from
    what was written, so that the same items are the same set.

    Raises:
        UsageError: not two datasets that have a length.
        DataError: an item that is not an image and a target.
    """
    if len(datasets) != len(SPLITS) or not all(hasattr(each, "__len__") for each in datasets):
        raise UsageError(
            "data: not a pair of datasets that have a length",
            "data=(training, validation), or the name of a set",
            code="datasets-not-a-pair",
        )
    root = cache_folder() / "datasets"
    with writing_cache():
        root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="writing-", dir=root) as temporary:
        folder = Path(temporary) / "set"
        (folder / "annotations").mkdir(parents=True)
        digest = hashlib.blake2b(digest_size=16)
        for dataset, split in zip(datasets, SPLITS, strict=True):
            for name, document in zip(FILES, _documents(dataset, folder / split, digest), strict=True):
                text = json.dumps(document)
                digest.update(text.encode())
                if document["categories"]:
                    (folder / "annotations" / f"{name}_{split}.json").write_text(text, encoding="utf-8")
        target = root / digest.hexdigest()
        if not target.exists():
            folder.replace(target)
    return target


def _documents(dataset: Dataset[Any], folder: Path, digest: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two COCO files of a split, whose images are written on the way; the second one is empty without keypoints."""
    folder.mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(len(dataset)):  # type: ignore[arg-type]
        image, target = _item(dataset, index)
        digest.update(image.tobytes())
        name = f"{index:06d}.png"
        image.save(folder / name)
        images.append({"id": index + 1, "file_name": name, "width": image.width, "height": image.height})
        for each in _objects(target, image.size, f"item {index}"):
            annotations.append({"id": len(annotations) + 1, "image_id": index + 1, **each})
    categories = _categories(dataset, {each["category_id"] for each in annotations})
    points = max((len(each.get("keypoints", ())) // 3 for each in annotations), default=0)
    scheme = {"keypoints": [f"point {i + 1}" for i in range(points)]}
    with_points = [{**each, **scheme} for each in categories] if points else []
    return (
        {"images": images, "annotations": annotations, "categories": categories},
        {"images": images, "annotations": annotations if points else [], "categories": with_points},
    )


def _item(dataset: Dataset[Any], index: int) -> tuple[Image.Image, Mapping[str, Any]]:
    item = dataset[index]
    if not isinstance(item, Sequence) or len(item) < 2 or not isinstance(item[1], Mapping):
        raise DataError(
            f"item {index} of the dataset is no image with a target",
            "give (image, {boxes, labels})",
            code="dataset-item-malformed",
        )
    image, target = item[0], item[1]
    if isinstance(image, torch.Tensor) and image.is_floating_point():
        image = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return rgb_image(image, f"item {index} of the dataset"), target


def _objects(target: Mapping[str, Any], size: tuple[int, int], name: str) -> list[dict[str, Any]]:
    """COCO's annotations of an image of (width, height)."""
    try:
        boxes = np.asarray(target["boxes"], dtype=np.float64).reshape(-1, 4)
        labels = np.asarray(target["labels"]).reshape(-1)
        crowds = np.asarray(target.get("iscrowd", np.zeros(len(boxes)))).reshape(-1)
        objects = []
        for (x0, y0, x1, y1), label, crowd in zip(boxes.tolist(), labels.tolist(), crowds.tolist(), strict=True):
            box = [x0, y0, x1 - x0, y1 - y0]
            own = {"category_id": int(label), "bbox": box, "area": box[2] * box[3], "iscrowd": int(crowd)}
            objects.append(own)
        for each, mask in zip(objects, target.get("masks", ()), strict="masks" in target):
            inside = np.asfortranarray(np.asarray(mask).reshape(size[::-1]) != 0, dtype=np.uint8)
            encoded = rle.encode(inside)
            each["segmentation"] = {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}
            each["area"] = int(inside.sum())
        for each, points in zip(objects, target.get("keypoints", ()), strict="keypoints" in target):
            triples = np.asarray(points, dtype=np.float64).reshape(-1, 3)
            each["keypoints"] = triples.ravel().tolist()
            each["num_keypoints"] = int((triples[:, 2] > 0).sum())
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{name} of the dataset: its target cannot be read ({error})",
            "boxes (M, 4), labels (M,)",
            code="dataset-target-malformed",
        ) from None
    return objects


def _categories(dataset: Dataset[Any], labels: set[int]) -> list[dict[str, Any]]:
    """Of the ids that occur and of those that the dataset names."""
    named = getattr(dataset, "categories", None)
    classes = getattr(dataset, "classes", None)
    names: dict[int, str] = {}
    if isinstance(named, Mapping):
        names = {int(number): str(name) for number, name in named.items()}
    elif isinstance(classes, Sequence):
        names = {number: str(name) for number, name in enumerate(classes) if number in labels}
    return [{"id": number, "name": names.get(number, f"class {number}")} for number in sorted(labels | names.keys())]
