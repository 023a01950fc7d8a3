"""The floors: imports run down only, the command line stays at the top, small files stay small."""

import ast
from collections.abc import Iterator
from pathlib import Path

import msad_cli

ROOT = Path(msad_cli.__file__).parent
FLOORS = (
    "__main__",
    "cli",
    "__init__",
    "api",
    "fitting",
    "training",
    "runs",
    "inference",
    "evaluation",
    "export",
    "distillation",
    "models",
    "data",
    "system",
    "text",
    "frame",
    "errors",
)
"""From the roof down, as docs/architecture.md draws them; each may import those behind it."""
LARGEST_FILE, LARGEST_FUNCTION, LARGEST_ROOM = 350, 50, 12
TABLES = ("commands", "detectors", "layouts", "losses", "plots", "writers")
"""Rooms with a file for each row of a table, as many as there are, named as what they are of: COCO is read by
layouts/coco.py and written by writers/coco.py."""
WORDS_OF_ROOMS = ("__init__", "base", "table")
"""Names that mean the same in every room: what a row must offer, and the rows."""
FILES = sorted(ROOT.rglob("*.py"))


def floor(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(file: Path) -> Iterator[str]:
    """Dotted names of all imports of a file, those inside functions too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{each.name}" for each in node.names)


def named(faults: list[tuple[Path, str]]) -> list[str]:
    return [f"{file.relative_to(ROOT)}: {fault}" for file, fault in faults]


def test_every_file_is_on_a_floor() -> None:
    assert {floor(file) for file in FILES} == set(FLOORS)


def test_imports_run_down() -> None:
    faults = [
        (file, name)
        for file in FILES
        for name in imported(file)
        if name.startswith("msad_cli.") and name != "msad_cli.__version__"
        if FLOORS.index(name.split(".")[1]) < FLOORS.index(floor(file))
    ]
    assert named(faults) == []


def test_only_cli_knows_parsers_and_consoles() -> None:
    faults = [
        (file, name)
        for file in FILES
        if floor(file) not in ("cli", "__main__")
        for name in imported(file)
        if name.split(".")[0] in ("typer", "click", "rich")
    ]
    assert named(faults) == []


def test_only_models_imports_torchvisions_detectors_and_nobody_its_underscores() -> None:
    faults = [
        (file, name)
        for file in FILES
        for name in imported(file)
        if name.startswith("torchvision")
        if any(part.startswith("_") for part in name.split("."))
        or (name.startswith("torchvision.models") and floor(file) != "models")
    ]
    assert named(faults) == []


def test_files_functions_and_rooms_stay_small() -> None:
    faults = []
    for file in FILES:
        text = file.read_text()
        if len(text.splitlines()) > LARGEST_FILE:
            faults.append((file, f"{len(text.splitlines())} lines"))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                # A command's flags are its signature and its imports are lazy; what counts is what it does.
                work = [each for each in node.body if not isinstance(each, ast.Import | ast.ImportFrom | ast.Expr)]
                if work and (node.end_lineno or 0) - work[0].lineno >= LARGEST_FUNCTION:
                    faults.append((file, f"{node.name} is too long"))
    for folder in {file.parent for file in FILES}:
        files = [each for each in folder.glob("*.py") if each.name != "__init__.py"]
        if len(files) > LARGEST_ROOM and folder.name not in TABLES:
            faults.append((folder, f"{len(files)} files"))
    assert named(faults) == []


def test_no_two_files_have_one_name_and_none_is_a_drawer() -> None:
    stems = [file.stem for file in FILES if file.stem not in WORDS_OF_ROOMS and file.parent.name not in TABLES]
    assert {each for each in stems if stems.count(each) > 1} == set()
    assert not {"utils", "misc", "common", "helpers"} & set(stems)
