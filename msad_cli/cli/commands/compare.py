"""msad compare: models side by side, in accuracy, cost and latency, and which of them fits a budget."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msad_cli.cli import options
from msad_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from msad_cli.cli.commands.bench import Timed
    from msad_cli.runs.comparison import Row


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
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="Write one page of all: table, curves, classes, what each finds."),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown on stdout.")] = False,
    device: options.Device = "auto",
    precision: options.PrecisionName = "auto",
    as_json: options.Json = False,
) -> None:
    """Compare models: AP at the end of training, GMACs by part, latency, and the share of the gap that is closed."""
    from msad_cli.cli.commands.bench import machine_in_words, machine_json, measure, medians
    from msad_cli.cli.console import print_line, print_result
    from msad_cli.cli.output.json_output import print_models
    from msad_cli.evaluation.pareto import within
    from msad_cli.runs.comparison import Comparison, add_gap, advice, points_of, several_sets, table_rows
    from msad_cli.runs.pages.comparison_page import comparison_page
    from msad_cli.runs.plots.pareto import plot_pareto
    from msad_cli.system.device import choose_compute
    from msad_cli.system.files import refuse_unwritable, write_text

    if (budget is not None or plot is not None) and not runs:
        raise UsageError("--budget and --plot need latencies", "leave --runs 0 out", code="latencies-not-measured")
    for written in filter(None, (plot, report)):
        refuse_unwritable(written)
    measured, where, machine = {}, "", None
    if runs:
        compute = choose_compute(device, precision)
        measured = measure(models, inputs, runs, compute, view=view)
        where, machine = machine_in_words(compute), machine_json(compute)
    rows = table_rows(models, view, medians(measured))
    remarks = [add_gap(rows), several_sets(models)]
    points = points_of(rows)
    ship = None if budget is None else within(points, budget)
    if as_json:
        of_models = _as_json(models, view, rows, measured)
        print_models("compare", of_models, runs=runs, machine=machine, budget_ms=budget, ship=ship)
    elif markdown:
        typer.echo(_markdown(rows))
    else:
        print_rows(rows)
        for line in filter(None, (*remarks[::-1], where)):
            print_line(line)
    if plot is not None:
        plot_pareto(points, plot, where, budget)
        print_line(f"drawn: {plot}")
    advised = "" if budget is None else advice(rows, ship, points, budget)
    if report is not None:
        page = comparison_page(models, Comparison(rows, where), budget, advised, remarks)
        write_text(report, page)
        print_line(f"written: {report}")
    if advised and not as_json:
        print_result(advised)


def _as_json(
    models: "Sequence[Path]", view: str | None, rows: "Mapping[str, Row]", measured: "Mapping[str, Timed]"
) -> "Iterator[dict[str, Any]]":
    """The rows for programs."""
    from msad_cli.cli.output.json_output import model_json
    from msad_cli.export.formats import read_description
    from msad_cli.models.views import wanted_views
    from msad_cli.runs.comparison import ACCURACY, OTHER_KINDS, short_names

    for path, name in short_names(models).items():
        for each, suffix in wanted_views(view, read_description(path)[0], path).items():
            row, timed = rows[f"{name}{suffix}"], measured.get(f"{path}{suffix}")
            parts = {key.removesuffix("_gmacs"): row[key] for key in row if key.endswith("_gmacs")}
            yield model_json(
                f"{name}{suffix}",
                path,
                each,
                network=row["what"],
                scores={key: row[key] for key in (*ACCURACY, *OTHER_KINDS) if key in row},
                macs={part: 1e9 * float(giga or 0) for part, giga in {**parts, "total": row["GMACs"]}.items()},
                gap_closed=row["gap_closed"],
                **({} if timed is None else timed.to_json()),
            )


def _markdown(rows: "Mapping[str, Row]") -> str:
    from msad_cli.runs.comparison import columns_of, table_cells

    columns = columns_of(rows)
    table = [["model", *columns], ["---"] * (len(columns) + 1), *table_cells(rows, columns)[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)


def print_rows(rows: "Mapping[str, Row]") -> None:
    """A table for people."""
    from msad_cli.cli.output.tables import print_table
    from msad_cli.runs.comparison import columns_of, table_cells

    print_table("", table_cells(rows, columns_of(rows)))
