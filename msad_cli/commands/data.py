"""msad data: looking after data sets."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Data sets: the built-in demo set.")


@app.callback()
def data() -> None:
    """Data sets: the built-in demo set."""


@app.command()
def demo(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Draw it here, not in the cache.")
    ] = None,
    train: Annotated[int, typer.Option(min=1, help="Training pictures.")] = 400,
    val: Annotated[int, typer.Option(min=1, help="Validation pictures.")] = 100,
    seed: Annotated[int, typer.Option(help="Other seeds draw other sets.")] = 0,
) -> None:
    """Draw the demo set, a COCO folder; print where it lies."""
    from msad_cli.data.demo import demo_folder, draw_demo
    from msad_cli.structures.errors import UsageError

    if out is None:
        typer.echo(demo_folder(train=train, val=val, seed=seed))
        return
    if out.exists():
        raise UsageError(f"{out} exists", "give a folder that does not exist yet")
    draw_demo(out, train=train, val=val, seed=seed)
    typer.echo(out)
