"""What `msad doctor` looks at: each check tries what a run will need, and gives a `Check`, never an error.

Nothing here imports torch before the check that does so: a broken installation is something to be found.
"""

import importlib
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import PIL
from PIL import features

from msad_cli.errors import DeviceError
from msad_cli.system import memory
from msad_cli.system.cache_folder import OTHER_FOLDER, unwritable, wanted_folder
from msad_cli.system.extras import EVALUATORS, how_to_install
from msad_cli.system.processor import cores, multiplies_bf16

if TYPE_CHECKING:
    import torch

LEAST_SHARED = 2**30
"""Bytes. Eight loader processes with two batches of 16 images each, at 800 × 1333 and at half of it, hold 1.02e9."""
LEAST_CACHE = 2**30
"""Bytes; ImageNet weights of a large backbone and a demo set are a few hundred MB."""
DRIVER = Path("/proc/driver/nvidia/version")
DISTRIBUTION, COMMAND = "msad-cli", "msad"
"""Of this package. On PyPI, `msad` is an Active Directory client, which installs a command `msad` too."""
SCRIPT = re.compile(rf"^(?:.*/)?(?:bin|Scripts)/{COMMAND}(?:\.exe|-script\.py)?,", re.MULTILINE)
"""In a distribution's list of its files."""
DEVELOPMENT = "dev"
"""The extra of those who change msad."""


@dataclass(frozen=True)
class Check:
    """A thing that was looked at, and what was found.

    Attributes:
        name: of what was looked at.
        state: `error` where msad cannot work, `warning` where it will meet its limits.
        found: in words.
        advice: what to do; empty where nothing needs to be done.
    """

    name: str
    state: Literal["ok", "warning", "error"]
    found: str
    advice: str = ""


def examine() -> Iterator[Check]:
    """All checks, one after the other."""
    yield Check("Python", "ok", f"{platform.python_version()} on {platform.platform()}")
    build = torch_build()
    yield build
    if build.state == "ok":
        yield gpu()
    width = "bf16 instructions" if multiplies_bf16() else "no bf16 instructions: float32 is computed"
    yield Check("CPU", "ok", f"{cores()} cores, {width}")
    yield decoder()
    yield from evaluators()
    yield command()
    yield from extras()
    yield shared_memory()
    yield cache()


def torch_build() -> Check:
    """Whether torch and torchvision work, and belong together."""
    try:
        import torch
        import torchvision
        from torchvision.ops import nms

        nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)  # compiled code of torchvision, for this torch
    except Exception as error:
        return Check(
            "torch", "error", _words(error), "install torch and torchvision again, of releases that belong together"
        )
    platforms = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip}
    built = [f"{name} {version}" for name, version in platforms.items() if version]
    return Check(
        "torch",
        "ok",
        f"{torch.__version__}, torchvision {torchvision.__version__}, built for {' and '.join(built) or 'the CPU'}",
    )


def gpu() -> Check:
    """The device that `--device auto` takes, after a product of two matrices on it; torch has to work."""
    import torch

    from msad_cli.system.device import choose_device

    try:
        device, _ = choose_device("auto")
        if device.type == "cpu":
            return Check("GPU", "ok", "none: everything is computed on the CPU")
        numbers = torch.arange(256.0).reshape(16, 16)
        product = (numbers.to(device) @ numbers.to(device)).cpu()
        if not torch.allclose(product, numbers @ numbers, rtol=1e-2):
            return Check("GPU", "error", f"{device} multiplies wrongly", "update its driver, or type --device cpu")
    except DeviceError as error:
        return Check("GPU", "error", error.message, error.hint)
    except Exception as error:
        return Check("GPU", "error", _words(error), "see to its driver and to other programs, or type --device cpu")
    return Check("GPU", "ok", _named(device))


def decoder() -> Check:
    """Whether Pillow reads JPEGs, and by which library."""
    found = PIL.__version__
    if not features.check("jpg"):
        return Check("Pillow", "error", f"{found}, which cannot decode JPEGs", "install pillow again, from its wheel")
    if not features.check_feature("libjpeg_turbo"):
        library = f"{found}, JPEGs by libjpeg {features.version('jpg')} without turbo"
        return Check("Pillow", "warning", library, "install pillow from its wheel: libjpeg-turbo decodes faster")
    return Check("Pillow", "ok", f"{found}, JPEGs by libjpeg-turbo {features.version_feature('libjpeg_turbo')}")


def evaluators() -> Iterator[Check]:
    """The libraries that make COCO's numbers."""
    for name in EVALUATORS:
        try:
            importlib.import_module(name)
            yield Check(name, "ok", metadata.version(name))
        except Exception as error:
            yield Check(name, "error", _words(error), f"pip install {name}")


def command() -> Check:
    """Whether `msad` in a shell is this msad."""
    owners = sorted({each.metadata["Name"] for each in metadata.distributions() if _installs_the_command(each)})
    others = [name for name in owners if name.lower().replace("_", "-") != DISTRIBUTION]
    if not others:
        return Check("command", "ok", f"{COMMAND}, of {owners[0]}" if owners else "python -m msad_cli")
    names = " and ".join(others)
    found = f"{COMMAND} may be another program: {names} installs a command of that name too"
    advice = f"pip uninstall {' '.join(others)}, then pip install --force-reinstall --no-deps the clone of msad"
    return Check("command", "warning", found, f"{advice}; or type python -m msad_cli")


def extras() -> Iterator[Check]:
    """The optional parts that msad's own metadata lists, installed or not."""
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield Check("extras", "warning", "msad runs from a folder, without metadata", "pip install its folder")
        return
    packages: dict[str, list[str]] = {}
    for line in required:
        match = re.match(r"""([\w.-]+).*;.*extra\s*==\s*['"]([\w-]+)['"]""", line)
        if match and match[2] != DEVELOPMENT:
            packages.setdefault(match[2], []).append(match[1])
    for extra, names in packages.items():
        versions = {name: _version(name) for name in names}
        found = ", ".join(f"{name} {version or 'is not installed'}" for name, version in versions.items())
        advice = "" if all(versions.values()) else f"if you want it: {how_to_install(extra)}"
        yield Check(f"extra {extra}", "ok", found, advice)


def shared_memory() -> Check:
    """Where loader processes hand over images."""
    if not memory.SHARED.is_dir():
        return Check("shared memory", "ok", "as the system has it")
    size = shutil.disk_usage(memory.SHARED).total
    found = f"{size / 2**30:.2f} GiB in {memory.SHARED}"
    if size < LEAST_SHARED:
        advice = "loader processes may die of it: --workers 0, or start the container with --shm-size 2g"
        return Check("shared memory", "warning", found, advice)
    return Check("shared memory", "ok", found)


def cache() -> Check:
    """Room for the demo set and finished checks."""
    wanted = wanted_folder()
    if wanted is None:
        return Check("cache", "warning", "this user has no home: a temporary folder is taken", OTHER_FOLDER)
    if reason := unwritable(wanted):
        return Check("cache", "warning", f"{wanted}: {reason}: a temporary folder is taken", OTHER_FOLDER)
    folder = next(each for each in (wanted.absolute(), *wanted.absolute().parents) if each.exists())
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:.1f} GiB free for {wanted}"
    if free < LEAST_CACHE:
        return Check("cache", "warning", found, "free space, or name another folder in MSAD_CACHE")
    return Check("cache", "ok", found)


def _named(device: "torch.device") -> str:
    import torch

    if device.type != "cuda":
        return f"{device.type}, usable"
    names = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        names.append(f"{properties.name} ({properties.total_memory / 2**30:.0f} GiB)")
    width = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: fp16 is computed"
    return f"{', '.join(names)}, driver {_driver()}, usable, {width}"


def _driver() -> str:
    try:
        match = re.search(r"\s(\d+\.\d[\d.]*)\s", DRIVER.read_text())
    except OSError:
        match = None
    return match[1] if match else "unknown"


def _installs_the_command(distribution: metadata.Distribution) -> bool:
    entries = distribution.entry_points.select(group="console_scripts", name=COMMAND)
    return bool(entries) or SCRIPT.search(distribution.read_text("RECORD") or "") is not None


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
