"""Latency of exported models, whole and without their post-processing, by onnxruntime and by OpenVINO.

    OMP_NUM_THREADS=1 python benchmarks/deployed.py student.onnx other.onnx [--images FOLDER] [--runs 100]

CPU time of one thread and one image; files, parts and runtimes take turns. The network alone is what comes before the
last convolutions. Images are sized as the JSON beside each file says. Compare rows of one table.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from msad_cli.data.images.scaled import open_image
from msad_cli.data.loading.transforms import render
from msad_cli.export.sidecar import fitting, read_exported

Run = Callable[[NDArray[Any]], object]
Name = TypeVar("Name")
WARMUP = 3


def network_of(model: Any) -> Any:
    """A graph that ends with the convolutions from whose outputs no other convolution is computed."""
    graph = model.graph
    before: set[str] = set()
    for node in reversed(graph.node):  # which is in order of computation
        if node.op_type == "Conv" or before & set(node.output):
            before |= {*node.input}
    last = [node for node in graph.node if node.op_type == "Conv" and not before & set(node.output)]
    found = onnx.ModelProto()
    found.CopyFrom(model)
    del found.graph.node[:], found.graph.output[:]
    needed = before | {node.output[0] for node in last}
    found.graph.node.extend(node for node in graph.node if needed & set(node.output))
    found.graph.output.extend(onnx.helper.make_empty_tensor_value_info(node.output[0]) for node in last)
    return found


def by_onnxruntime(model: bytes) -> Run:
    """A run of a graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})


def by_openvino(model: bytes) -> Run:
    """A run of a graph, in float32."""
    import openvino

    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()
    return lambda pixels: request.infer({0: pixels})


RUNTIMES = {"onnxruntime": by_onnxruntime, "openvino": by_openvino}


def images_of(path: Path, files: list[Path]) -> list[NDArray[np.uint8]]:
    """What a graph is given of images: (1, 3, h, w)."""
    notes = read_exported(path)
    (k,), found = notes.spec.ks, []
    for file in files:
        image = open_image(file, notes.spec.tones)
        pixels = render(image, fitting(notes.spec, notes.shape).frame_size(*image.size), k, phase=notes.spec.phase)
        if notes.shape.sides is not None:
            whole = torch.zeros(3, *notes.shape.sides, dtype=torch.uint8)
            whole[:, : pixels.shape[1], : pixels.shape[2]] = pixels
            pixels = whole
        found.append(pixels[None].numpy())
    return found


def in_turns(runs: Mapping[Name, tuple[Run, Sequence[NDArray[Any]]]], count: int) -> dict[Name, float]:
    """Median milliseconds of CPU time by name, of `count` runs on the images beside it; all take turns."""
    taken: dict[Name, list[float]] = {name: [] for name in runs}
    for number in range(count + WARMUP):
        for name, (run, images) in runs.items():
            begun = time.process_time()
            run(images[number % len(images)])
            taken[name].append(time.process_time() - begun)
    return {name: 1000 * float(np.median(each[WARMUP:])) for name, each in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--runtimes", default=",".join(RUNTIMES))
    given = parser.parse_args()
    files = sorted(given.images.iterdir())[:20]
    pixels = {path: images_of(path, files) for path in given.models}
    runs: dict[tuple[Path, str, str], tuple[Run, list[NDArray[np.uint8]]]] = {}
    for path in given.models:
        model = onnx.load(path)
        for part, graph in {"whole": model, "network": network_of(model)}.items():
            for name in given.runtimes.split(","):
                runs[path, name, part] = RUNTIMES[name](graph.SerializeToString()), pixels[path]
    middle = in_turns(runs, given.runs)
    print("| model | runtime | whole, ms | network | post-processing | whole : first |\n|---|---|---|---|---|---|")
    first = next(iter(middle.values()))
    for path, name, part in runs:
        if part == "whole":
            whole, network = middle[path, name, "whole"], middle[path, name, "network"]
            print(
                f"| {path.name} | {name} | {whole:.2f} | {network:.2f} | {whole - network:.2f} | {whole / first:.2f} |"
            )


if __name__ == "__main__":
    main()
