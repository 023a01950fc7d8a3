"""What a user would pick instead: YOLO, trained from scratch on the same images, beside msad's exported students.

    python benchmarks/peers.py SET [--out DIR] [--model yolo11n] [--sizes 320,160] [--epochs 72] [--seeds 0]
        [--nbs 8,64] [--beside student.onnx …] [--yolo COMMAND]

YOLO is Ultralytics' (AGPL-3.0) and runs as a program of its own: in an environment that this script makes in DIR, or by
the command that `--yolo` names. Nothing of it is imported. It is trained with its defaults but for the batch, and with
`nbs`, the number of images after which weights are updated, as said. What its best epoch finds in the images of val
is scored by pycocotools as msad's is, 100 an image. Then its graph, suppression included, and those `--beside` take
turns in onnxruntime and in OpenVINO, in float32: CPU time of one thread and one image. A model that is in DIR is not
trained again. `--epochs 0` trains nothing, and times a network of random weights.
"""

import argparse
import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from deployed import RUNTIMES, Run, images_of, in_turns
from mistakes import told

from msad_cli.data.annotations.split import CocoSplit, read_split
from msad_cli.data.layouts.splits import find_split
from msad_cli.export.sidecar import sidecar_path

DETECTIONS = 100
LEAST = 0.001
"""Score of the weakest detection that counts for AP, YOLO's own."""
MULTIPLE = 32
"""Its images' sides."""


def main() -> None:
    """Trains what is missing, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("--out", type=Path, default=Path("peers"))
    parser.add_argument("--model", default="yolo11n")
    parser.add_argument("--sizes", default="320,160")
    parser.add_argument("--epochs", type=int, default=72)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--nbs", default="8,64")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--beside", type=Path, nargs="*", default=[])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--yolo", help="as a shell would read it; by default an environment is made")
    given = parser.parse_args()
    if missing := [str(path) for path in given.beside if not path.is_file()]:
        parser.error(f"--beside {' '.join(missing)}: no such file")  # before hours of training
    out: Path = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    yolo = shlex.split(given.yolo) if given.yolo else installed(out / "environment")
    data = out / "set" / "data.yaml"
    if not data.exists():
        convert = ("data", "convert", str(given.set), "--to", "yolo", "--out", str(data.parent))
        subprocess.run([sys.executable, "-m", "msad_cli", *convert], check=True)
    found = find_split(given.set, "val")
    split = read_split(found.annotations, found.images)
    rows, graphs = [], {}
    for size in map(int, given.sizes.split(",")):
        if given.epochs == 0:
            graphs[f"{given.model} at {size}"] = exported(yolo, f"{given.model}.yaml", out / "untrained", size, split)
            continue
        for nbs in map(int, given.nbs.split(",")):
            folders = [
                trained(yolo, given, out, data, f"{given.model}-{size}-nbs{nbs}-{seed}", size, nbs, seed)
                for seed in map(int, given.seeds.split(","))
            ]
            scores = [scored(yolo, folder, data, size, split) for folder in folders]
            rows.append((f"{given.model} at {size}, nbs {nbs}", scores))
        best = folders[0] / "weights"
        graphs[f"{given.model} at {size}"] = exported(yolo, str(best / "best.pt"), best, size, split)
    if rows:
        print("| trained | epochs | AP by seed | mean |\n|---|---|---|---|")
    for name, scores in rows:
        print(f"| {name} | {given.epochs} | {', '.join(f'{each:.1f}' for each in scores)} | {np.mean(scores):.1f} |")
    timed({**graphs, **{path.stem: path for path in given.beside}}, split, given.runs)


def installed(place: Path) -> list[str]:
    """The command of an environment with ultralytics, which is made if it is not there."""
    command = place / "bin" / "yolo"
    if not command.exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        subprocess.run(
            [str(place / "bin" / "pip"), "install", "--quiet", "ultralytics", "onnx", "onnxscript"], check=True
        )
    return [str(command)]


def called(yolo: list[str], out: Path, *words: str) -> None:
    """Runs one of its commands in `out`, where its settings lie; it sends nothing anywhere.

    Raises:
        CalledProcessError: it failed; its last words are printed.
    """
    settings = {"YOLO_CONFIG_DIR": str(out), "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
    env = {**os.environ, **settings}
    done = subprocess.run([*yolo, *words], env=env, cwd=out, capture_output=True, text=True, check=False)
    if done.returncode:
        print((done.stdout + done.stderr)[-2000:], file=sys.stderr)
    done.check_returncode()


def trained(
    yolo: list[str], given: argparse.Namespace, out: Path, data: Path, name: str, size: int, nbs: int, seed: int
) -> Path:
    """The folder of a training, which is done if it is not there."""
    folder = out / name
    if not (folder / "done").exists():
        network = (f"model={given.model}.yaml", "pretrained=False", f"data={data}", f"imgsz={size}", "device=cpu")
        schedule = (f"epochs={given.epochs}", f"batch={given.batch}", f"nbs={nbs}", f"seed={seed}", "workers=1")
        place = (f"project={out}", f"name={name}", "exist_ok=True", "plots=False", "amp=False")
        begun = time.time()
        called(yolo, out, "detect", "train", *network, *schedule, *place)
        (folder / "done").write_text(f"{time.time() - begun:.0f} s\n")
    return folder


def scored(yolo: list[str], folder: Path, data: Path, size: int, split: CocoSplit) -> float:
    """AP on val by pycocotools, in percent."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    results = folder / "val" / "predictions.json"
    if not results.exists():
        words = (f"model={folder / 'weights' / 'best.pt'}", f"data={data}", f"imgsz={size}", "device=cpu", "batch=1")
        asked = (f"conf={LEAST}", f"max_det={DETECTIONS}", "save_json=True", "plots=False")
        called(yolo, folder.parent, "detect", "val", *words, *asked, f"project={folder}", "name=val", "exist_ok=True")
    ids = {Path(str(name)).stem: int(each) for name, each in zip(split.file_names, split.image_ids, strict=True)}
    categories = [each for each, _ in split.categories]
    found: list[dict[str, Any]] = json.loads(results.read_text())
    for each in found:
        each["image_id"] = ids[Path(each["file_name"]).stem]
        each["category_id"] = categories[each["category_id"] - 1]
    with contextlib.redirect_stdout(sys.stderr):
        truth = COCO(str(split.file))
        judge = COCOeval(truth, truth.loadRes(found), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return 100 * float(judge.stats[0])


def exported(yolo: list[str], model: str, folder: Path, size: int, split: CocoSplit) -> Path:
    """Its graph for the usual image of the set, suppression included; kept in a folder.

    Args:
        model: a file of weights, or the name of a network, whose weights are then random.
    """
    height, width = sides_of(split, size)
    place = folder / f"{Path(model).stem}-{height}x{width}.onnx"
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shape = ("format=onnx", f"imgsz={height},{width}", "nms=True", f"max_det={DETECTIONS}", "simplify=False")
        called(yolo, folder, "export", f"model={model}", *shape, "device=cpu")
        (folder / model).with_suffix(".onnx").rename(place)  # beside the weights, or where the program was called
    return place


def sides_of(split: CocoSplit, size: int) -> tuple[int, int]:
    """(height, width) that an image of median sides has, padded."""
    height, width = np.median(split.sizes, axis=0)
    factor = size / max(height, width)
    down, across = (-(-round(float(side) * factor) // MULTIPLE) * MULTIPLE for side in (height, width))
    return down, across


def timed(files: dict[str, Path], split: CocoSplit, runs: int) -> None:
    """Prints the CPU time of an image by each file, whole, in turns."""
    paths = [split.path(index) for index in range(min(20, len(split)))]
    turns: dict[tuple[str, str], tuple[Run, list[Any]]] = {}
    for name, file in files.items():
        images = images_of(file, paths) if sidecar_path(file).exists() else theirs(file, paths)
        for runtime, opened in RUNTIMES.items():
            turns[name, runtime] = opened(file.read_bytes()), images
    middle = in_turns(turns, runs)
    print(f"\n| graph | {' | '.join(f'{each}, ms | : first' for each in RUNTIMES)} |")
    print("|---" * (1 + 2 * len(RUNTIMES)) + "|")
    first = next(iter(files))
    for name in files:
        own = (f"{middle[name, each]:.2f} | {middle[name, each] / middle[first, each]:.2f}" for each in RUNTIMES)
        print(f"| {name} | {' | '.join(own)} |")


def theirs(file: Path, paths: list[Path]) -> list[Any]:
    """What YOLO's graph is given of images: (1, 3, h, w) from 0 to 1, padded in grey."""
    import onnx
    from PIL import Image

    shape = onnx.load(file).graph.input[0].type.tensor_type.shape.dim
    height, width = (each.dim_value for each in shape[2:])
    found = []
    for path in paths:
        with Image.open(path) as image:
            factor = min(height / image.height, width / image.width)
            small = image.convert("RGB").resize((round(image.width * factor), round(image.height * factor)))
        pixels = np.full((height, width, 3), 114, dtype=np.uint8)
        pixels[: small.height, : small.width] = small
        found.append(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32) / 255)
    return found


if __name__ == "__main__":
    told(main)
