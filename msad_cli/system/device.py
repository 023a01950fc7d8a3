"""Where to compute, and in which precision."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from msad_cli.errors import DeviceError, UsageError
from msad_cli.system.distributed import on_this_machine
from msad_cli.system.processor import cores, multiplies_bf16

Precision = Literal["fp32", "bf16", "fp16"]
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
"""What torch's CPU allocators, CUDA's libraries and Apple's backend say; only CUDA's allocator has a class for it."""
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """A device and the precision of the forward pass on it; parameters and losses stay in float32."""

    device: torch.device
    precision: Precision

    @property
    def pins(self) -> bool:
        """Whether batches are to come in page-locked memory: a GPU copies them from there while it computes."""
        return self.device.type == "cuda"

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which to run a forward pass."""
        dtype = HALF.get(self.precision, torch.bfloat16)
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.precision != "fp32")

    @contextmanager
    def inference(self) -> Iterator[None]:
        """The context in which to run a forward pass that needs no gradients.

        Raises:
            DeviceError: out of memory.
        """
        try:
            with torch.inference_mode(), self.autocast():
                yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise DeviceError(
                f"out of memory on {self.device}",
                "a smaller --size or model, or --device cpu, may fit",
                code="out-of-memory",
            ) from None


def choose_device(name: str) -> tuple[torch.device, str]:
    """The device of `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, and why it was chosen.

    Raises:
        UsageError: not the name of a device.
        DeviceError: the device is not there, or torch cannot use it.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda:0"), "a GPU is there"
        if torch.backends.mps.is_available():
            return torch.device("mps"), "Apple's GPU is there"
        if Path("/proc/driver/nvidia/gpus").is_dir():
            raise DeviceError(
                f"a GPU is present, but torch {torch.__version__} cannot use it",
                "install a torch build that fits the driver, or type --device cpu",
                code="gpu-unusable",
            )
        return torch.device("cpu"), "no GPU found"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(
            f"--device {name}: no such device", "give auto, cpu, cuda, cuda:N or mps", code="unknown-device"
        ) from None
    usable = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not usable.get(device.type, False):
        raise DeviceError(
            f"--device {name}: torch {torch.__version__} cannot use it here", "try --device cpu", code="device-unusable"
        )
    return device, "asked for"


def choose_precision(name: str, device: torch.device) -> tuple[Precision, str]:
    """The precision of `auto`, `bf16`, `fp16` or `fp32` on a device, and why it was chosen.

    Raises:
        UsageError: not a precision, or fp16 off CUDA, where it has no loss scaling.
    """
    if name == "auto":
        if device.type == "cuda":
            return (
                ("bf16", "the GPU supports it") if torch.cuda.is_bf16_supported() else ("fp16", "no bf16 on this GPU")
            )
        if device.type == "cpu" and multiplies_bf16():
            return "bf16", "the CPU has bf16 instructions"
        return "fp32", "no bf16 instructions"
    if name == "fp16" and device.type != "cuda":
        raise UsageError(
            f"--precision fp16 on {device.type}: only CUDA scales the loss for it",
            "try bf16 or fp32",
            code="precision-needs-cuda",
        )
    for precision in ("fp32", "bf16", "fp16"):
        if name == precision:
            return precision, "asked for"
    raise UsageError(f"--precision {name}: unknown", "give auto, bf16, fp16 or fp32", code="unknown-value")


def choose_compute(device: str, precision: str) -> Compute:
    """The device and precision of two flags.

    Raises:
        UsageError, DeviceError: as `choose_device` and `choose_precision`.
    """
    place, _ = choose_device(device)
    return Compute(place, choose_precision(precision, place)[0])


def to_device(
    views: Mapping[int, Sequence[Tensor]], targets: Sequence[Mapping[str, Tensor]], device: torch.device
) -> tuple[dict[int, list[Tensor]], list[dict[str, Tensor]]]:
    """A batch on a device; from page-locked memory it is copied while the device computes.

    Args:
        views: by k, an image (3, h, w) for each sample.
        targets: by name, the boxes, labels, … of each sample.
    """
    moved = {k: [image.to(device, non_blocking=True) for image in images] for k, images in views.items()}
    return moved, [{name: each.to(device, non_blocking=True) for name, each in target.items()} for target in targets]


def peak_memory(device: torch.device) -> float:
    """The most memory in MiB held so far: the allocator's on a GPU, else this process's; NaN where nobody says."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB elsewhere


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def default_workers(device: torch.device) -> tuple[int, str]:
    """Loader processes, and why so many: all cores but one beside a GPU, half of them where the CPU computes too."""
    share = max(1, cores() // on_this_machine())
    return min(8, share // 2 if device.type == "cpu" else share - 1), f"{share} cores"
