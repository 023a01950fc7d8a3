"""What a user would pick instead: YOLO, trained from scratch on the same images, beside msad's exported students.

    python benchmarks/peers.py SET [--out DIR] [--model yolo11n] [--sizes 320,160] [--also 256,224] [--epochs 72]
        [--seeds 0] [--nbs 8,64] [--beside student.onnx …] [--yolo COMMAND]

YOLO is Ultralytics' (AGPL-3.0) and runs as a program of its own: in an environment that this script makes in DIR, or by
the command that `--yolo` names. Nothing of it is imported. It is trained with its defaults but for the batch, and with
`nbs`, the number of images after which weights are updated, as said. What its best epoch finds in the images of val
is scored by pycocotools as msad's is, 100 an image. `--also` looks at smaller images by the weights of the first of
`--sizes`, as users do who want more speed. Then its graphs, suppression included, and those `--beside` take turns in
onnxruntime and in OpenVINO, in float32: CPU time of one thread and one image. DIR/peers.png has AP over the time of the
former. A model that is in DIR is not trained again. `--epochs 0` trains nothing, and times a network of random weights.
"""

import argparse
import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from deployed import RUNTIMES, Run, images_of, in_turns
from mistakes import told

from msad_cli.data.annotations.split import CocoSplit, read_split
from msad_cli.data.layouts.splits import find_split
from msad_cli.evaluation.pareto import Point
from msad_cli.export.sidecar import sidecar_path
from msad_cli.runs.plots.pareto import plot_pareto

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
    parser.add_argument("--sizes", type=numbers, default="320,160")
    parser.add_argument("--also", type=numbers, default="")
    parser.add_argument("--epochs", type=int, default=72)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--nbs", type=numbers, default="8,64")
    parser.add_argument("--seeds", type=numbers, default="0")
    parser.add_argument("--beside", type=Path, nargs="*", default=[])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--yolo", help="as a shell would read it; by default an environment is made")
    given = parser.parse_args()
    if missing := [str(path) for path in given.beside if not path.is_file()]:
        parser.error(f"--beside {' '.join(missing)}: no such file")  # before hours of training
    beside: dict[str, tuple[float | None, Path]] = {
        name: (of_msad(path, given.set), path) for name, path in told_apart(given.beside).items()
    }
    out: Path = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    yolo = shlex.split(given.yolo) if given.yolo else installed(out / "environment")
    data = out / "set" / "data.yaml"
    if not data.exists():
        convert = ("data", "convert", str(given.set), "--to", "yolo", "--out", str(data.parent))
        subprocess.run([sys.executable, "-m", "msad_cli", *convert], check=True)
    found = find_split(given.set, "val")
    split = read_split(found.annotations, found.images)
    models: dict[str, tuple[float | None, Path]] = {}
    if given.epochs:
        peers = [each for size in given.sizes for each in peers_of(yolo, given, out, data, size, split)]
        first = [each for each in peers if each.trained == given.sizes[0]]
        peers += [each.at(seen, yolo, data, split) for seen in given.also for each in first]
        print("| network | epochs | AP by seed | mean |\n|---|---|---|---|")
        for peer in peers:
            print(f"| {peer} | {given.epochs} | {', '.join(f'{ap:.1f}' for ap in peer.aps)} | {peer.ap:.1f} |")
        for peer in best_of(peers):
            weights = peer.folders[0] / "weights"
            models[str(peer)] = peer.ap, exported(yolo, str(weights / "best.pt"), weights, peer.seen, split)
    else:
        for size in (*given.sizes, *given.also):
            graph = exported(yolo, f"{given.model}.yaml", out / "untrained", size, split)
            models[f"{given.model} at {size}"] = None, graph
    timed(models | beside, split, given.runs, out / "peers.png")


def told_apart(paths: list[Path]) -> dict[str, Path]:
    """Files by what tells them apart: the stem, or the whole path where another has that stem too."""
    stems = [path.stem for path in paths]
    return {path.stem if stems.count(path.stem) == 1 else str(path): path for path in paths}


def numbers(text: str) -> list[int]:
    """Of a list such as 320,160.

    Raises:
        ValueError: there is something else in it.
    """
    return [int(each) for each in text.split(",") if each]


@dataclass(frozen=True)
class Peer:
    """A network's trainings of all seeds, as they look at images of a size.

    Attributes:
        trained, seen: long sides in pixels, of the images for training and of those looked at.
        nbs: images after which weights were updated.
        aps: on val, in percent, by seed.
    """

    network: str
    trained: int
    seen: int
    nbs: int
    folders: list[Path]
    aps: list[float]

    def __str__(self) -> str:
        elsewhere = "" if self.seen == self.trained else f", trained at {self.trained}"
        return f"{self.network} at {self.seen}{elsewhere}, nbs {self.nbs}"

    @property
    def ap(self) -> float:
        return float(np.mean(self.aps))

    def at(self, size: int, yolo: list[str], data: Path, split: CocoSplit) -> "Peer":
        """The same trainings, looking at images of another size."""
        return replace(self, seen=size, aps=[scored(yolo, each, data, size, split) for each in self.folders])


def peers_of(
    yolo: list[str], given: argparse.Namespace, out: Path, data: Path, size: int, split: CocoSplit
) -> list[Peer]:
    """What is trained at a size, which is done where it is missing: one for each `nbs`."""
    found = []
    for nbs in given.nbs:
        folders = [trained(yolo, given, out, data, size, nbs, seed) for seed in given.seeds]
        found.append(Peer(given.model, size, size, nbs, folders, []).at(size, yolo, data, split))
    return found


def best_of(peers: list[Peer]) -> list[Peer]:
    """Of the trainings at one size that look at images of one size, the one with the highest AP."""
    best: dict[tuple[int, int], Peer] = {}
    for peer in sorted(peers, key=lambda each: each.ap):
        best[peer.trained, peer.seen] = peer
    return list(best.values())


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


def trained(yolo: list[str], given: argparse.Namespace, out: Path, data: Path, size: int, nbs: int, seed: int) -> Path:
    """The folder of a training, which is done if it is not there."""
    name = f"{given.model}-{size}-nbs{nbs}-{given.epochs}epochs-{seed}"
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

    results = folder / f"val-{size}" / "predictions.json"
    if not results.exists():
        words = (f"model={folder / 'weights' / 'best.pt'}", f"data={data}", f"imgsz={size}", "device=cpu", "batch=1")
        asked = (f"conf={LEAST}", f"max_det={DETECTIONS}", "save_json=True", "plots=False")
        place = (f"project={folder}", f"name=val-{size}", "exist_ok=True")
        called(yolo, folder.parent, "detect", "val", *words, *asked, *place)
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


def of_msad(graph: Path, data: Path) -> float:
    """AP of an exported student on val, in percent."""
    words = [sys.executable, "-m", "msad_cli", "eval", str(graph), "--data", str(data), "--json"]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    return 100 * float(json.loads(done.stdout)["best"]["scores"]["AP"])


def timed(models: dict[str, tuple[float | None, Path]], split: CocoSplit, runs: int, picture: Path) -> None:
    """Prints the CPU time of an image by each graph, whole, in turns, and draws AP over that of the first runtime.

    Args:
        models: AP, if it is known, and the graph by what is printed.
        picture: is not written where no AP is known.
    """
    paths = [split.path(index) for index in range(min(20, len(split)))]
    turns: dict[tuple[str, str], tuple[Run, list[Any]]] = {}
    for name, (_, file) in models.items():
        images = images_of(file, paths) if sidecar_path(file).exists() else theirs(file, paths)
        for runtime, opened in RUNTIMES.items():
            turns[name, runtime] = opened(file.read_bytes()), images
    middle = in_turns(turns, runs)
    print(f"\n| graph | AP | {' | '.join(f'{each}, ms | : first' for each in RUNTIMES)} |")
    print("|---" * (2 + 2 * len(RUNTIMES)) + "|")
    first = next(iter(models))
    for name, (ap, _) in models.items():
        own = (f"{middle[name, each]:.2f} | {middle[name, each] / middle[first, each]:.2f}" for each in RUNTIMES)
        print(f"| {name} | {'' if ap is None else f'{ap:.1f}'} | {' | '.join(own)} |")
    runtime = next(iter(RUNTIMES))
    if points := {name: Point(middle[name, runtime], ap / 100) for name, (ap, _) in models.items() if ap is not None}:
        plot_pareto(points, picture, f"CPU time of one thread, {runtime}, float32")
        print(f"\n{picture} written")


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
