"""Models that find something: trained for some seconds on four images of one large square each."""

import fcntl
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from msad_cli.cli.app import run
from support.flags import EXACT, SMALLEST

SIDE = 128
SQUARES = ((8, 8, 64, 64), (48, 40, 72, 72), (20, 44, 56, 64), (56, 8, 64, 56))
"""x, y, width, height: one an image, of sides from 56 to 72 pixels, which FCOS and RetinaNet assign to one level."""
COPIES = 4
"""Of each training image: an epoch of 16 images in batches of 4 has 4 steps."""
SIZE = f"--size={SIDE},{SIDE}"
RECIPE = ["--batch=4", "--epochs=15", "--eval-every=15", "--lr=0.02", "--warmup=5", "--ema=0"]
"""60 steps. AP of the low view was 0.35 after 40 steps of FCOS and 0.73 after 100."""
OF_RTMDET = ["--detector=rtmdet", "--optimizer=sgd", "--decay=steps", "--norm=group", "--lr=0.01"]
"""By FCOS's recipe at half its rate: batch statistics, of momentum 0.03, take more steps than there are."""
OF_TWO_STAGES = {
    "fasterrcnn": ["--detector=fasterrcnn", "--rois=32"],
    "maskrcnn": ["--detector=maskrcnn", "--rois=32"],
    "cascade_maskrcnn": ["--detector=cascade_maskrcnn", "--rois=32"],
    "keypointrcnn": ["--detector=keypointrcnn", "--rois=32"],
}


def draw_squares(folder: Path) -> None:
    """A COCO folder whose validation images are the training images; the squares have masks and corners."""
    (folder / "annotations").mkdir(parents=True)
    category = {"id": 7, "name": "square", "keypoints": ["left", "right", "bottom", "top"], "skeleton": []}
    for split, copies in (("train2017", COPIES), ("val2017", 1)):
        (folder / split).mkdir()
        images, annotations = [], []
        for number, (x, y, width, height) in enumerate(SQUARES * copies, start=1):
            image = Image.new("RGB", (SIDE, SIDE), (110, 110, 110))
            right, bottom = x + width, y + height
            ImageDraw.Draw(image).rectangle((x, y, right - 1, bottom - 1), fill=(230, 30, 30))
            image.save(folder / split / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
            corners = [x, y, 2, right, y, 2, right, bottom, 2, x, bottom, 2]
            annotations.append(
                {"id": number, "image_id": number, "category_id": 7, "bbox": [x, y, width, height], "iscrowd": 0}
                | {"area": width * height, "segmentation": [[x, y, right, y, right, bottom, x, bottom]]}
                | {"keypoints": corners, "num_keypoints": 4}
            )
        document = {"images": images, "annotations": annotations, "categories": [category]}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that one worker of pytest-xdist makes, and all have."""
    root = factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / name).exists():
            make(root / f"{name}.unfinished")
            (root / f"{name}.unfinished").rename(root / name)
    return root / name


def squares(factory: pytest.TempPathFactory) -> Path:
    """The set of squares."""
    return once(factory, "squares", draw_squares)


def overfit(factory: pytest.TempPathFactory, flags: Sequence[str] = ()) -> Path:
    """A teacher with these flags, overfitted to the squares."""
    data = squares(factory)

    def train(folder: Path) -> None:
        folder.mkdir()
        out = folder / "teacher.safetensors"
        command = ["teacher", f"--data={data}", *SMALLEST, SIZE, *RECIPE, *EXACT, "--quiet", *flags]
        assert run([*command, f"--out={out}"]) == 0

    return once(factory, "-".join(["overfit", *(each.lstrip("-") for each in flags)]), train) / "teacher.safetensors"
