"""msad compare: models side by side, in accuracy, cost and latency, and which of them fits a budget."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msad_cli.commands import options
from msad_cli.structures.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from msad_cli.engine.model_file import Card
    from msad_cli.engine.pareto import Point
    from msad_cli.models.spec import DetectorSpec

Row = dict[str, float | str | None]
ACCURACY = ("AP", "APs", "APm", "APl")


def compare(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Model files; the first is the reference.")],
    inputs: options.Pictures = None,
    runs: Annotated[int, typer.Option(min=0, help="Counted runs of each for the latency; 0 measures none.")] = 30,
    budget: Annotated[
        float | None, typer.Option(metavar="MS", help="Say which model to ship for so many milliseconds a picture.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw AP over latency, and which models none beats.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown on stdout.")] = False,
    device: options.Device = "auto",
    precision: options.PrecisionName = "auto",
    as_json: options.Json = False,
) -> None:
    """Compare models: AP at the end of training, GMACs by part, latency, and the share of the gap that is closed."""
    from msad_cli.commands.bench import measure
    from msad_cli.commands.console import print_json, print_line
    from msad_cli.engine.device import choose_compute
    from msad_cli.engine.model_file import read_header
    from msad_cli.engine.pareto import Point, plot_pareto, within

    if (budget is not None or plot is not None) and not runs:
        raise UsageError("--budget and --plot need latencies", "leave --runs 0 out")
    names = _short(models)
    rows = {name: _row(*read_header(path)[:2]) for path, name in names.items()}
    _add_gap(rows)
    measured = measure(models, inputs, runs, choose_compute(device, precision)) if runs else {}
    points = {}
    for path, name in names.items():
        rows[name]["ms"] = milliseconds = measured.get(str(path), {}).get("p50_ms")
        ap = rows[name]["AP"]
        if milliseconds is not None and isinstance(ap, float):
            points[name] = Point(milliseconds, ap)
    if as_json:
        print_json(rows)
    elif markdown:
        typer.echo(_markdown(rows))
    else:
        _print(rows)
    if plot is not None:
        plot_pareto(points, plot, budget)
        print_line(f"drawn: {plot}")
    if budget is not None:
        _advise(within(points, budget), points, budget)


def _short(models: list[Path]) -> dict[Path, str]:
    """A name for each file: its own without folder and suffix, if no other has the same."""
    stems = [path.stem for path in models]
    return {path: path.stem if stems.count(path.stem) == 1 else str(path) for path in models}


def _row(spec: "DetectorSpec", card: "Card") -> Row:
    """What the file says of a model, and its cost; GMACs of one image of its own size, padding included."""
    from msad_cli.models.cost import count_cost

    resolution, view = spec.resolution, spec.views[0]
    scores = (card.scores or {}).get(view, {})
    cost = count_cost(spec, view, [resolution.frame_size(resolution.short_side, resolution.long_side)])
    parts = {f"{part}_gmacs": macs / 1e9 for part, macs in cost.macs.items() if macs}
    sees = " + ".join("HR" if k == 1 else f"1/{k}" for k in spec.ks_of(view))
    network = f"{spec.role}, {spec.detector} {spec.backbone} × {spec.width:g}, {sees}"
    return {"what": network, **{name: scores.get(name) for name in ACCURACY}, "GMACs": cost.total / 1e9, **parts}


def _add_gap(rows: "Mapping[str, Row]") -> None:
    """Adds to each row the share of the way from the first model's AP to the best one's."""
    first = next(iter(rows.values()))["AP"]
    best = max((row["AP"] for row in rows.values() if isinstance(row["AP"], float)), default=0.0)
    for row in rows.values():
        ap = row["AP"]
        possible = isinstance(ap, float) and isinstance(first, float) and best > first
        row["gap_closed"] = (ap - first) / (best - first) if possible else None  # type: ignore[operator]


def _columns(rows: "Mapping[str, Row]") -> list[str]:
    """The names of all rows' values; parts of the cost beside its sum, which only some models have."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    parts = [name for name in names if name.endswith("_gmacs")]
    others = [name for name in names if name not in parts]
    after = others.index("GMACs") + 1
    return [*others[:after], *parts, *others[after:]]


def _text(name: str, value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or "-"
    if name == "gap_closed":
        return f"{100 * value:.0f}%"
    return f"{100 * value:.1f}" if name in ACCURACY else f"{value:.2f}"


def _markdown(rows: "Mapping[str, Row]") -> str:
    columns = _columns(rows)
    table = [["model", *columns], ["---"] * (len(columns) + 1)]
    table += [[name, *(_text(each, row.get(each)) for each in columns)] for name, row in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)


def _print(rows: "Mapping[str, Row]") -> None:
    from rich.table import Table

    from msad_cli.commands.console import cell, console

    table = Table(header_style="bold")
    columns = _columns(rows)
    for name in ("model", *columns):
        table.add_column(name.removesuffix("_gmacs").replace("_", " "), overflow="fold")
    for name, row in rows.items():
        table.add_row(cell(name), *(cell(_text(each, row.get(each))) for each in columns))
    console.print(table)


def _advise(name: str | None, points: "Mapping[str, Point]", budget: float) -> None:
    from msad_cli.commands.console import print_line

    if name is None:
        fastest = min(points, key=lambda each: points[each].milliseconds)
        print_line(f"none takes {budget:g} ms; the fastest, {fastest}, takes {points[fastest].milliseconds:.1f}")
    else:
        point = points[name]
        print_line(f"for {budget:g} ms: {name}, AP {100 * point.ap:.1f} in {point.milliseconds:.1f} ms")
