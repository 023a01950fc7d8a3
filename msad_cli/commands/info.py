"""msad info: what a model file says of itself, read without torch."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from msad_cli.commands import options


def info(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file.")],
    as_json: options.Json = False,
) -> None:
    """Show what a model file remembers: architecture, classes, data, AP."""
    import math

    from msad_cli.engine.model_file import read_header
    from msad_cli.engine.run_folder import json_text
    from msad_cli.structures.printable import printable

    spec, card, tensors = read_header(model)
    values = {
        **spec.to_json(),
        **asdict(card),
        "parameters": sum(math.prod(each["shape"]) for each in tensors.values()),
    }
    if as_json:
        typer.echo(json_text(values), nl=False)
        return
    values["classes"] = ", ".join(f"{each.category_id} {each.name}" for each in spec.classes)
    values["resolution"] = f"HR {spec.resolution.short_side},{spec.resolution.long_side}, reduced by k = {spec.ks}"
    if card.teacher_spec:
        of = card.teacher_spec
        values["teacher_spec"] = f"{of.backbone} × {of.width:g}, {of.channels} channels, k = {of.ks}"
    aps = {view: numbers.get("AP") for view, numbers in (card.scores or {}).items()}
    values["scores"] = "  ".join(f"{view} AP {100 * ap:.1f}" for view, ap in aps.items() if ap is not None)
    for name, value in values.items():
        typer.echo(printable(f"{name:17} {value}"), err=True)
