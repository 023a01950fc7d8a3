"""msad compare: models side by side, in accuracy, cost and latency, and which of them fits a budget."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msad_cli.cli import options
from msad_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from msad_cli.cli.commands.bench import Timed
    from msad_cli.evaluation.pareto import Point
    from msad_cli.models.model_file import Card
    from msad_cli.models.spec import DetectorSpec, View

Row = dict[str, float | str | None]
ACCURACY = ("AP", "APs", "APm", "APl")
OTHER_KINDS = ("mask_AP", "keypoint_AP")
"""Of models that find more than boxes."""
COPIED = "AP is that of its model"
"""Of an exported model whose AP was not measured: msad export --data measures it."""
LEAST_GAP = 0.01
"""AP. Shares of a smaller gap would be shares of chance."""


def compare(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Model files; the first is the reference.")],
    inputs: options.TimedImages = None,
    runs: Annotated[int, typer.Option(min=0, help="Counted runs of each for the latency; 0 measures none.")] = 30,
    view: Annotated[
        str | None,
        typer.Option(metavar="high|middle|low|fused|all", help="Default: each model's best; all: a row for each."),
    ] = None,
    budget: Annotated[
        float | None, typer.Option(metavar="MS", help="Say which model to ship for so many milliseconds an image.")
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
    from msad_cli.cli.commands.bench import machine_in_words, machine_json, measure
    from msad_cli.cli.console import print_line, print_result
    from msad_cli.cli.output.json_output import print_models
    from msad_cli.evaluation.pareto import Point, within
    from msad_cli.runs.plots.pareto import plot_pareto
    from msad_cli.system.device import choose_compute

    if (budget is not None or plot is not None) and not runs:
        raise UsageError("--budget and --plot need latencies", "leave --runs 0 out", code="latencies-not-measured")
    measured, where, machine = {}, "", None
    if runs:
        compute = choose_compute(device, precision)
        measured = measure(models, inputs, runs, compute, view=view)
        where, machine = machine_in_words(compute), machine_json(compute)
    rows = table_rows(models, view, measured)
    gap = add_gap(rows)
    points = {
        name: Point(row["ms"], row["AP"])
        for name, row in rows.items()
        if isinstance(row["ms"], float) and isinstance(row["AP"], float)
    }
    ship = None if budget is None else within(points, budget)
    if as_json:
        models_json = (_as_json(name, row, measured.get(str(row["timed"]))) for name, row in rows.items())
        print_models("compare", models_json, runs=runs, machine=machine, budget_ms=budget, ship=ship)
    elif markdown:
        typer.echo(_markdown(rows))
    else:
        print_rows(rows)
        for line in filter(None, (several_sets(models), gap, where)):
            print_line(line)
    if plot is not None:
        plot_pareto(points, plot, where, budget)
        print_line(f"drawn: {plot}")
    if budget is not None and not as_json:
        print_result(_advice(rows, ship, points, budget))


def table_rows(models: "Sequence[Path]", view: str | None, measured: "Mapping[str, Timed]") -> dict[str, Row]:
    """What the files say of models, and their latencies as `bench.measure` gives them, by short names.

    Args:
        view: None for each model's best, `all` for each of its views.

    Raises:
        ModelFileError: a model cannot be read.
        UsageError: one has no such view.
    """
    from msad_cli.cli.commands.bench import wanted_views
    from msad_cli.export.formats import is_exported, read_description
    from msad_cli.export.sidecar import read_exported

    rows: dict[str, Row] = {}
    for path, name in _short(models).items():
        spec, card = read_description(path)
        copied = card.scores is not None and is_exported(path) and read_exported(path).copied
        for each, suffix in wanted_views(view, spec, path).items():
            timed = measured.get(f"{path}{suffix}")
            where: Row = {"file": str(path), "view": each, "timed": f"{path}{suffix}"}
            row = {**where, **_row(spec, card, each), "ms": timed.milliseconds["p50"] if timed else None}
            # Nobody has measured what the graph makes of it.
            rows[f"{name}{suffix}"] = {**row, "what": f"{row['what']}; {COPIED}"} if copied else row
    return rows


def _short(models: "Sequence[Path]") -> dict[Path, str]:
    """A name for each file: its own without folder and suffix, or with its suffix, if no other has the same."""
    stems, names = [path.stem for path in models], [path.name for path in models]
    return {
        path: path.stem if stems.count(path.stem) == 1 else path.name if names.count(path.name) == 1 else str(path)
        for path in models
    }


def _row(spec: "DetectorSpec", card: "Card", view: "View") -> Row:
    """What the file says of a model's view, and its cost: as `msad flops` has it, the mean of its set's images."""
    from msad_cli.cli.commands.flops import image_sizes_of
    from msad_cli.models.cost import count_cost

    resolution = spec.resolution
    shapes = image_sizes_of(card.data) or [(resolution.short_side, resolution.long_side)]
    scores = (card.scores or {}).get(view, {})
    cost = count_cost(spec, view, [resolution.frame_size(*each) for each in shapes])
    parts = {f"{part}_gmacs": macs / 1e9 for part, macs in cost.macs.items() if macs}
    sees = " + ".join("HR" if k == 1 else f"1/{k}" for k in spec.ks_of(view))
    head = f"head {spec.channels} × {spec.head_convs}{' depthwise' if spec.head_depthwise else ''}"
    network = f"{spec.role}, {spec.detector} {spec.backbone} × {spec.width:g}, {head}, {sees}"
    accuracy = {name: scores.get(name) for name in (*ACCURACY, *(each for each in OTHER_KINDS if each in scores))}
    return {"what": network, **accuracy, "GMACs": cost.total / 1e9, **parts}


def add_gap(rows: "Mapping[str, Row]") -> str:
    """Adds to each row the share of the way from the first one's AP to the best one's; says what way that is."""
    known = {name: row["AP"] for name, row in rows.items() if isinstance(row["AP"], float)}
    first, best = next(iter(rows)), max(known, key=lambda name: known[name], default="")
    way = known[best] - known[first] if first in known else 0.0
    for name, row in rows.items():
        row["gap_closed"] = (known[name] - known[first]) / way if name in known and way >= LEAST_GAP else None
    if way <= 0:
        return ""
    verdict = "" if way >= LEAST_GAP else ": too little to say what share of it is closed"
    return f"the gap is that from {first}, AP {100 * known[first]:.1f}, to {best}, AP {100 * known[best]:.1f}{verdict}"


def several_sets(models: "Sequence[Path]") -> str:
    """What there is to say of models that were trained on different sets; empty where all were on one."""
    from msad_cli.export.formats import read_description

    sets = {read_description(path)[1].data_fingerprint: path for path in models}
    sets.pop("", None)  # nobody knows
    if len(sets) < 2:
        return ""
    one, other, *_ = sets.values()
    return f"{one} and {other} were trained on different sets: their AP is of different images"


def _as_json(name: str, row: Row, timed: "Timed | None") -> dict[str, Any]:
    from msad_cli.cli.output.json_output import model_json

    parts = {each.removesuffix("_gmacs"): row[each] for each in row if each.endswith("_gmacs")}
    return model_json(
        name,
        Path(str(row["file"])),
        str(row["view"]),
        network=row["what"],
        scores={each: row[each] for each in (*ACCURACY, *OTHER_KINDS) if each in row},
        macs={each: 1e9 * float(giga or 0) for each, giga in {**parts, "total": row["GMACs"]}.items()},
        gap_closed=row["gap_closed"],
        **({} if timed is None else timed.to_json()),
    )


def _columns(rows: "Mapping[str, Row]") -> list[str]:
    """The names of all rows' values, what matters most first; what only some models have stands where it belongs."""
    names = dict.fromkeys(name for row in rows.values() for name in row)
    # Of the first model and the best one it is 0 and 1, which says nothing.
    gap = ["gap_closed"] if sum(row.get("gap_closed") is not None for row in rows.values()) > 2 else []
    time = ["ms"] if any(row.get("ms") is not None for row in rows.values()) else []
    first, *sizes = ACCURACY
    kinds = [name for name in OTHER_KINDS if name in names]
    parts = [name for name in names if name.endswith("_gmacs")]
    return [first, *kinds, *sizes, "GMACs", *time, *gap, "what", *parts]


def _text(name: str, value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or "-"
    if name == "gap_closed":
        return f"{100 * value:.0f}%"
    return f"{100 * value:.1f}" if name in (*ACCURACY, *OTHER_KINDS) else f"{value:.2f}"


def _markdown(rows: "Mapping[str, Row]") -> str:
    columns = _columns(rows)
    table = [["model", *columns], ["---"] * (len(columns) + 1)]
    table += [[name, *(_text(each, row.get(each)) for each in columns)] for name, row in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)


def print_rows(rows: "Mapping[str, Row]") -> None:
    """A table for people."""
    from msad_cli.cli.output.tables import print_table

    columns = _columns(rows)
    head = ["model", *(name.removesuffix("_gmacs").replace("_", " ") for name in columns)]
    print_table("", [head, *([name, *(_text(each, row.get(each)) for each in columns)] for name, row in rows.items())])


def _advice(rows: "Mapping[str, Row]", name: str | None, points: "Mapping[str, Point]", budget: float) -> str:
    if not points:
        return "no model says its AP: there is none to ship"
    if name is None:
        fastest = min(points, key=lambda each: points[each].milliseconds)
        return f"none takes {budget:g} ms; the fastest, {fastest}, takes {points[fastest].milliseconds:.1f}"
    point = points[name]
    return f"for {budget:g} ms: {name}, AP {100 * point.ap:.1f} in {point.milliseconds:.1f} ms ({rows[name]['what']})"
