"""Memory of the loader's processes over a COCO-sized annotation file: it has to stay flat.

    python benchmarks/loader_memory.py [--images 118000] [--boxes 860000] [--workers 2] [--batches 3000] [--folder DIR]

Draws the set (its images are links to a few small files), reads it, and prints what reading takes and what the main
process and its workers hold while batches pass: the proportional set size (PSS) of Linux, in which memory that
processes share counts once, and each worker's private memory, which grows where a page is written to after the fork.
"""

import argparse
import json
import multiprocessing
import os
import random
import resource
import tempfile
import time
from pathlib import Path

from PIL import Image

from msad_cli.data.annotations.split import read_split
from msad_cli.data.loading.dataset import TrainingSet, training_loader
from msad_cli.frame import Resolution

SIDE = 64
CATEGORIES = 80
LINKS = 50_000
"""To one file; ext4 allows 65,000."""


def main() -> None:
    """Draws, reads, loads, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=118_000)
    parser.add_argument("--boxes", type=int, default=860_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        file = draw(folder, arguments.images, arguments.boxes)
        print(f"{arguments.images} images, {arguments.boxes} boxes, {file.stat().st_size / 2**20:.0f} MiB of JSON")
        began = time.monotonic()
        split = read_split(file, folder / "images")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(f"read in {time.monotonic() - began:.1f} s, peak {peak:.0f} MiB; now {pss(os.getpid())[0]:.0f} MiB")
        data = TrainingSet(split, Resolution(SIDE, SIDE), (1, 2), seed=0)
        steps = min(arguments.batches, arguments.images // arguments.batch * 100)
        for step, _ in enumerate(training_loader(data, arguments.batch, arguments.workers, 0, steps)):
            if step % max(1, steps // 6) == 0 or step == steps - 1:
                report(step)


def draw(folder: Path, images: int, boxes: int) -> Path:
    """A COCO file with so many images and boxes, and the images, nearly all of them links."""
    generator = random.Random(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    image = Image.effect_noise((SIDE, SIDE), 64).convert("RGB")
    records = []
    for number in range(images):
        name = f"{number:012}.jpg"
        if number % LINKS == 0:
            original = folder / "images" / name
            image.save(original)
        elif not (folder / "images" / name).exists():
            os.link(original, folder / "images" / name)
        records.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
    annotations = []
    for number in range(boxes):
        x, y = generator.uniform(0, SIDE / 2), generator.uniform(0, SIDE / 2)
        w, h = generator.uniform(2, SIDE / 2), generator.uniform(2, SIDE / 2)
        # A polygon of some length, as COCO's files have, most of which is skipped on reading.
        segmentation = [[round(generator.uniform(0, SIDE), 2) for _ in range(40)]]
        annotations.append(
            {"id": number, "image_id": generator.randrange(images), "category_id": 1 + generator.randrange(CATEGORIES)}
            | {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0, "segmentation": segmentation}
        )
    categories = [{"id": 1 + number, "name": f"class {number}"} for number in range(CATEGORIES)]
    file = folder / "instances.json"
    file.write_text(json.dumps({"images": records, "annotations": annotations, "categories": categories}))
    return file


def report(step: int) -> None:
    """One line of the processes' memory."""
    workers = [pss(each.pid) for each in multiprocessing.active_children() if each.pid]
    total = pss(os.getpid())[0] + sum(each[0] for each in workers)
    private = "  ".join(f"{each[1]:.0f}" for each in workers)
    print(f"batch {step:6}: total {total:.0f} MiB; private to each worker: {private} MiB")


def pss(process: int) -> tuple[float, float]:
    """Proportional and private memory of a process in MiB."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    kibibytes = {name: float(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if rest}
    return kibibytes["Pss"] / 2**10, (kibibytes["Private_Clean"] + kibibytes["Private_Dirty"]) / 2**10


if __name__ == "__main__":
    main()
