"""msad fit: from a set and a budget to a model that is ready to ship, by the other commands."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msad_cli.cli import options
from msad_cli.errors import UnmetBudgetError
from msad_cli.models.detectors.kinds import DETECTORS

if TYPE_CHECKING:
    from msad_cli.fitting.job import Fitted

DENSE = "|".join(name for name, entry in DETECTORS.items() if entry.family == "dense")


def fit(
    context: typer.Context,
    data: options.Data = None,
    budget: Annotated[
        str | None, typer.Option(metavar="15ms|30fps|0.5GMACs|5MB", help="What the model may cost at most, deployed.")
    ] = None,
    time: Annotated[str, typer.Option(metavar="6h", help="All trainings together take at most so long.")] = "6h",
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE.safetensors", help="The student's model file.")
    ] = Path("student.safetensors"),
    teacher: Annotated[
        str, typer.Option(metavar="auto|yes|no", help="Whether the student learns from one. auto: where that pays.")
    ] = "auto",
    teacher_epochs: Annotated[int | None, typer.Option(min=1, help="Of a teacher that learns for longer.")] = None,
    teacher_backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a larger teacher. Default: the student's.")
    ] = None,
    control: Annotated[
        bool, typer.Option("--control/--no-control", help="Train the plain detector of that budget, too.")
    ] = True,
    detector: Annotated[str | None, typer.Option(metavar=DENSE, help="Choose among this one's networks alone.")] = None,
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Choose among this one's networks alone.")
    ] = None,
    k: Annotated[str, typer.Option("--k", metavar="2|4|2,4", help="Choose among these.")] = "2,4",
    init: Annotated[
        str | None,
        typer.Option(metavar="imagenet|none|FILE", help="Where networks of full width start from. Default: none."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Of the deployed model.")] = 1,
    device: options.Device = "auto",
    seed: options.Seed = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show candidates, plan and commands, and end.")] = False,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="DIR", help="Go on with the fit of this folder, FILE.fit.")
    ] = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """From a set and a budget to a shipped model: choose, train, export, check, measure, and say what to ship."""
    from msad_cli.cli.console import one_document
    from msad_cli.cli.output.json_output import expect_json, print_json
    from msad_cli.cli.training_flags import is_typed
    from msad_cli.fitting.fit_folder import FitConfig, begin
    from msad_cli.fitting.job import fit_model

    config = FitConfig(
        data=data or "",
        budget=budget or "",
        time=time,
        out=out,
        teacher=teacher,
        teacher_epochs=teacher_epochs,
        teacher_backbone=teacher_backbone,
        control=control,
        detector=detector,
        backbone=backbone,
        k=k,
        init=init,
        threads=threads,
        device=device,
        seed=seed,
        resume=resume,
        overwrite=overwrite,
        dry_run=dry_run,
        quiet=quiet,
    )
    folder, state = begin(config, [each.name for each in fields(config) if is_typed(context, each.name)])
    console = _Console(quiet)
    with one_document(as_json):
        try:
            fitted = fit_model(folder, state, console, dry_run)
        except KeyboardInterrupt:
            console.say(f"\nGo on with:\n  msad fit --resume {folder.path}")
            raise
        expect_json()  # what commands printed was theirs
        if as_json:
            print_json("fit", **fitted.to_json())
        _end(fitted, folder.path, console)


def _end(fitted: "Fitted", folder: Path, console: "_Console") -> None:
    """The last lines, and the exit code."""
    if fitted.stopped:
        console.say(f"Go on with:\n  msad fit --resume {folder}")
        raise typer.Exit(fitted.stopped)
    verdict = fitted.verdict
    if verdict is None:
        return
    console.result(verdict.words)
    console.say(f"{folder / 'report.html'} has all of it; next: msad predict IMAGE -m {verdict.ship}")
    if not verdict.met:
        raise UnmetBudgetError(
            verdict.words,
            f"what was trained is there, and {folder / 'report.html'}; a smaller --budget leaves more room",
            code="budget-missed",
        )


class _Console:
    """Prints what a fit tells, and runs its commands by msad's own parser."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet

    def say(self, line: str) -> None:
        from msad_cli.cli.console import print_line

        if not self._quiet:
            print_line(line)

    def result(self, line: str) -> None:
        from msad_cli.cli.console import print_result

        if not self._quiet:
            print_result(line)

    def table(self, title: str, rows: Sequence[Sequence[str]], taken: Sequence[int]) -> None:
        from msad_cli.cli.output.tables import print_table

        if not self._quiet:
            marked = (["→ " + row[0] if place in taken else row[0], *row[1:]] for place, row in enumerate(rows))
            print_table(title, list(marked))

    def run(self, words: Sequence[str], threads: int | None) -> tuple[int, str]:
        from msad_cli.cli.app import app
        from msad_cli.fitting.choice import measuring
        from msad_cli.fitting.commands import quietly

        printed = io.StringIO()
        own = contextlib.nullcontext() if threads is None else measuring.threads(threads)
        # What is for programs is for this one.
        aside = contextlib.redirect_stdout(printed) if "--json" in words else contextlib.nullcontext()
        with own, aside:
            code = app(args=list(quietly(words) if self._quiet else words), prog_name="msad", standalone_mode=False)
        return code if isinstance(code, int) else 0, printed.getvalue()
