"""msad compare: models side by side, in accuracy, cost and latency, and which of them fits a budget."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msad_cli.cli import options
from msad_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    from msad_cli.cli.commands.bench import machine_in_words, measure
    from msad_cli.cli.console import print_line, print_result
    from msad_cli.cli.json_output import print_json
    from msad_cli.evaluation.pareto import within
    from msad_cli.runs.comparison import Comparison, add_gap, advice, points_of, several_sets, table_rows
    from msad_cli.runs.pages.comparison_page import comparison_page
    from msad_cli.runs.plots.pareto import plot_pareto
    from msad_cli.system.device import choose_compute
    from msad_cli.system.files import refuse_unwritable, write_text

    if (budget is not None or plot is not None) and not runs:
        raise UsageError("--budget and --plot need latencies", "leave --runs 0 out", code="latencies-not-measured")
    if report is not None:
        refuse_unwritable(report)
    measured, where = {}, ""
    if runs:
        compute = choose_compute(device, precision)
        measured = measure(models, inputs, runs, compute, view=view)
        where = machine_in_words(compute)
    rows = table_rows(models, view, measured)
    remarks = [add_gap(rows), several_sets(models)]
    if as_json:
        print_json(rows)
    elif markdown:
        typer.echo(_markdown(rows))
    else:
        print_rows(rows)
        for line in filter(None, (*remarks[::-1], where)):
            print_line(line)
    points = points_of(rows)
    if plot is not None:
        plot_pareto(points, plot, where, budget)
        print_line(f"drawn: {plot}")
    advised = "" if budget is None else advice(rows, within(points, budget), points, budget)
    if report is not None:
        page = comparison_page(models, Comparison(rows, where), budget, advised, remarks)
        write_text(report, page)
        print_line(f"written: {report}")
    if advised:
        print_result(advised)


def _markdown(rows: "Mapping[str, Row]") -> str:
    from msad_cli.runs.comparison import cell_text, columns_of

    columns = columns_of(rows)
    table = [["model", *columns], ["---"] * (len(columns) + 1)]
    table += [[name, *(cell_text(each, row.get(each)) for each in columns)] for name, row in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in table)


def print_rows(rows: "Mapping[str, Row]") -> None:
    """A table for people."""
    from msad_cli.cli.console import print_table
    from msad_cli.runs.comparison import cell_text, columns_of

    columns = columns_of(rows)
    head = ["model", *(name.removesuffix("_gmacs").replace("_", " ") for name in columns)]
    print_table(
        "", [head, *([name, *(cell_text(each, row.get(each)) for each in columns)] for name, row in rows.items())]
    )
