"""What is shipped: the files of wheel and sdist, the wheel installed, and the licences of what it brings along."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from importlib.metadata import Distribution, PackageNotFoundError, PathDistribution, distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import msad_cli

ROOT = Path(__file__).parents[1]
DEVELOPMENT = {"dev", "docs"}
"""The extras that nobody who uses msad installs."""
PERMISSIVE = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "FreeBSD",
    "HPND",
    "ISC",
    "MIT",
    "MIT-CMU",
    "PSF-2.0",
    "Unlicense",
    "Zlib",
    # as classifiers and free texts call them
    "3-Clause BSD License",
    "Apache Software License",
    "BSD License",
    "ISC License (ISCL)",
    "Historical Permission Notice and Disclaimer (HPND)",
    "MIT License",
    "Python Software Foundation License",
    "The Unlicense (Unlicense)",
    "zlib/libpng License",
}
"""Licences that ask for their text to be kept and for nothing else."""
NVIDIA = re.compile(r"nvidia-|cuda-toolkit$")
"""The one exception: CUDA's libraries are NVIDIA's own and not free. torch's Linux wheels for NVIDIA GPUs ask for them;
torch's wheels for CPUs and for macOS do not, and msad itself never does."""


def build(source: Path, into: Path, *targets: str) -> None:
    chosen = [word for each in targets for word in ("--target", each)]
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(into), *chosen]
    subprocess.run(command, cwd=source, check=True, capture_output=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of this tree."""
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder, "wheel", "sdist")
    return folder


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def test_the_wheel_holds_the_package_its_licence_and_nothing_else(built: Path) -> None:
    wheel = only(built, "*.whl")
    assert wheel.name == f"msad_cli-{msad_cli.__version__}-py3-none-any.whl"
    described = f"msad_cli-{msad_cli.__version__}.dist-info/"
    code = {str(file.relative_to(ROOT)) for file in (ROOT / "msad_cli").rglob("*.py")}
    files = contents(wheel)
    assert files.keys() == code | {"msad_cli/py.typed", "msad_cli/cli/output/schema.json"} | {
        described + each for each in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    }
    assert files[described + "licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    metadata = message_from_bytes(files[described + "METADATA"])
    assert (metadata["Name"], metadata["License-Expression"]) == ("msad-cli", "Apache-2.0")
    # An index refuses packages whose requirements are addresses.
    assert all(Requirement(each).url is None for each in metadata.get_all("Requires-Dist", []))


def test_the_sdist_holds_what_tests_need_and_makes_the_same_wheel(built: Path, tmp_path: Path) -> None:
    with tarfile.open(only(built, "*.tar.gz")) as opened:
        # Python before 3.11.4 has no filters, and newer ones ask for one.
        safe: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        opened.extractall(tmp_path, **safe)
    source = only(tmp_path, "msad_cli-*")
    assert {each.name for each in source.iterdir()} == {
        ".gitignore",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "PKG-INFO",
        "README.md",
        "benchmarks",
        "docs",
        "examples",
        "msad_cli",
        "pyproject.toml",
        "tests",
    }
    for folder, pattern in (("tests", "*.py"), ("docs", "*.md"), ("examples", "*.*")):
        assert {each.name for each in (source / folder).glob(pattern)} == {
            each.name for each in (ROOT / folder).glob(pattern)
        }
    build(source, tmp_path / "again", "wheel")
    assert contents(only(tmp_path / "again", "*.whl")) == contents(only(built, "*.whl"))


def test_the_wheel_installs_and_answers(built: Path, tmp_path: Path) -> None:
    """Into a folder of its own, without its dependencies, which are here already, and without an index."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*pip, "--target", str(tmp_path), str(only(built, "*.whl"))], check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    where = [sys.executable, "-c", "import msad_cli; print(msad_cli.__file__)"]
    done = subprocess.run(where, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert Path(done.stdout.strip()) == tmp_path / "msad_cli" / "__init__.py"
    command = [str(tmp_path / "bin" / "msad"), "--version"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == f"msad {msad_cli.__version__}\n"


def licences(package: Distribution) -> set[str]:
    """What a distribution says of its licence: an expression, else its classifiers, else a free text."""
    metadata = package.metadata
    if stated := metadata["License-Expression"]:
        return set(re.split(r" (?:AND|OR) ", stated.translate({ord("("): "", ord(")"): ""})))
    classifiers = [each.split(" :: ") for each in metadata.get_all("Classifier") or []]
    named = {each[-1] for each in classifiers if each[0] == "License" and each[-1] != "OSI Approved"}
    return named or {metadata["License"] or "none stated"}


def own(built: Path) -> Distribution:
    """msad as its wheel states it: an installed one may be older than this tree."""
    (described,) = (each for each in zipfile.Path(only(built, "*.whl")).iterdir() if each.name.endswith(".dist-info"))
    return PathDistribution(described)


def applies(wanted: Requirement, extra: str) -> bool:
    """Whether this extra ("" is none) asks for it here, which without the extra would not be asked for."""
    if wanted.marker is None:
        return not extra
    return wanted.marker.evaluate({"extra": extra}) and not (extra and wanted.marker.evaluate({"extra": ""}))


def brought_along(msad: Distribution) -> dict[str, tuple[str, Distribution]]:
    """All that msad and its extras ask for, and what that asks for: name -> who asks for it, and what it is.

    Left out is what another platform or Python would get, and what only an extra asks for and is not installed.
    """
    found: dict[str, tuple[str, Distribution]] = {}
    extras = {*msad.metadata.get_all("Provides-Extra", []), ""} - DEVELOPMENT
    asking = [("msad-cli", msad, extra) for extra in sorted(extras)]
    asked: set[tuple[str, str]] = set()
    while asking:
        parent, package, extra = asking.pop()
        for wanted in map(Requirement, package.requires or []):
            if not applies(wanted, extra):
                continue
            name = canonicalize_name(wanted.name)
            try:
                found.setdefault(name, (parent, distribution(name)))
            except PackageNotFoundError:
                assert extra, f"{parent} needs {name}, which is not installed"
                continue
            new = {(name, each) for each in ("", *wanted.extras) if not NVIDIA.match(name)} - asked
            asked |= new
            asking += [(name, found[name][1], each) for _, each in sorted(new)]
    return found


def test_all_that_is_brought_along_is_permissive(built: Path) -> None:
    found = brought_along(own(built))
    assert {"torch", "torchvision", "pillow", "hotcoco", "sympy"} <= found.keys()  # sympy is asked for by torch
    for name, (parent, package) in found.items():
        if NVIDIA.match(name):
            assert parent == "torch", f"{name} is proprietary, and {parent} asks for it"
        else:
            assert licences(package) <= PERMISSIVE, f"{name}, which {parent} asks for"


def test_every_requirement_has_a_lower_bound(built: Path) -> None:
    for stated in map(Requirement, own(built).requires or []):
        assert any(bound.operator == ">=" for bound in stated.specifier), stated


def test_no_hint_installs_somebody_elses_msad() -> None:
    """On PyPI, msad is an Active Directory client. From a clone, `pip install '.[export]'` works."""
    old = re.compile(r"""pip install(?:\s+-\S+)*\s+['"]?msad(?![-\w.])|['"]msad\[""")
    assert old.search("pip install -U 'msad[export]'")
    assert old.search("pip install msad")
    assert not old.search("pip install '.[export]' in the clone of msad; pip install msad-cli")
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "pyproject.toml", ROOT / ".ci" / "run"]
    for folder in ("msad_cli", "examples", "benchmarks", "tests"):
        files += [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.sh")]
    files.remove(Path(__file__))
    assert [str(each.relative_to(ROOT)) for each in files if old.search(each.read_text())] == []
