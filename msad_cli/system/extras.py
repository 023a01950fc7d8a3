"""Packages that do one thing of msad each, by name, so that nobody needs to import them to say it."""

from typing import Literal, get_args

from msad_cli.errors import UsageError

Evaluator = Literal["hotcoco", "pycocotools"]
"""Evaluates as COCO does: hotcoco is the fast one, pycocotools COCO's own."""
EVALUATORS: tuple[Evaluator, ...] = get_args(Evaluator)


def how_to_install(extra: str) -> str:
    """The command, as it works today: on the index the name msad is somebody else's."""
    return f"pip install '.[{extra}]' in the clone of msad"


def missing_extra(package: str, extra: str) -> UsageError:
    """What to say where a package of an extra is not installed."""
    return UsageError(f"{package} is not installed", how_to_install(extra), code="package-missing")
