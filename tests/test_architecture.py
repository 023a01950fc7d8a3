"""The floors: imports run down only, and small files stay small."""

import ast
from pathlib import Path

import pytest

import msad_cli

ROOT = Path(msad_cli.__file__).parent
BELOW = {
    "__main__": {"cli"},
    "cli": {"commands", "structures"},
    "api": {"cli", "commands", "engine", "models", "data", "structures"},
    "commands": {"engine", "methods", "models", "data", "structures"},
    "engine": {"models", "data", "structures"},
    "methods": {"models", "structures"},
    "models": {"structures"},
    "data": {"structures"},
    "structures": set(),
    "__init__": {"api", "engine", "structures"},
}
"""What each floor may import, beside itself; docs/architecture.md draws it."""
FILES = sorted(ROOT.rglob("*.py"))


def floor(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(file: Path) -> set[str]:
    """Dotted names of all imports of a file, those inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{each.name}" for each in node.names}
    return names


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_down(file: Path) -> None:
    own = floor(file)
    floors = {name.split(".")[1] for name in imported(file) if name.startswith("msad_cli.")} - {"__version__"}
    assert floors <= BELOW[own] | {own}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_only_models_imports_torchvisions_detectors_and_nobody_its_underscores(file: Path) -> None:
    for name in imported(file):
        if name.startswith("torchvision"):
            assert not any(part.startswith("_") for part in name.split("."))
        if name.startswith("torchvision.models"):
            assert floor(file) == "models"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_and_functions_stay_small(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            # A command's flags are its signature and its imports are lazy; what counts is what it does.
            work = [each for each in node.body if not isinstance(each, ast.Import | ast.ImportFrom | ast.Expr)]
            assert not work or (node.end_lineno or 0) - work[0].lineno < 50, node.name
