"""msad distill: the student that sees only the small image."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msad_cli.cli import options
from msad_cli.cli.processes import together
from msad_cli.cli.training_flags import configured
from msad_cli.training.config import Asked, DistillConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from msad_cli.models.spec import DetectorSpec
    from msad_cli.training.run import Outcome

METHODS_HELP = (
    "output-kd (default of dense detectors), l1 (default of the others), fgfi, podnet, skd, pkd, cwd, fgd, freekd, "
    "crosskd, mgd, amd, dmkd, dsamkd, samkd, isrd; several: a,b; or pixel, in two stages. docs/methods.md says what "
    "each is."
)
OWN: dict[str, Any] = {
    "teacher": Annotated[
        Path | None, typer.Option(metavar="FILE", help="The teacher's model file; a resumed run knows it.")
    ],
    "k": Annotated[
        str | None,
        typer.Option(metavar="1|2|4|1,2", help="What the student sees; of several, a fusion. Default: the smallest."),
    ],
    "detector": Annotated[
        str | None, typer.Option(metavar="NAME", help="One with the levels of the teacher's. Default: the teacher's.")
    ],
    "backbone": Annotated[str | None, typer.Option(metavar="NAME", help="Default: the teacher's.")],
    "width": Annotated[float | None, typer.Option(help="Factor on its channels. Default: the teacher's.")],
    "low_backbone": Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a fusion student's small image. Default: one for both.")
    ],
    "low_width": Annotated[float | None, typer.Option(help="Of a fusion student's small image.")],
    "head_channels": Annotated[int | None, typer.Option(help="Channels of pyramid and head. Default: the teacher's.")],
    "head_convs": Annotated[int | None, typer.Option(help="Of each tower. Default: the teacher's.")],
    "head_depthwise": options.Depthwise,
    "init": Annotated[
        str,
        typer.Option(metavar="auto|teacher|imagenet|none|FILE", help="Where weights start from, in turn: a,b."),
    ],
    "init_partial": options.InitPartial,
    "norm": Annotated[str, typer.Option(metavar="auto|frozen|batch|group", help="Of another backbone.")],
    "head_norm": options.HeadNorm,
    "no_distill": Annotated[
        bool, typer.Option("--no-distill", help="The baseline: same student and schedule, no teacher.")
    ],
    "method": Annotated[
        str | None,
        typer.Option(metavar="METHOD,…", help=METHODS_HELP),
    ],
    "weight": Annotated[str | None, typer.Option(metavar="l1=1,…", help="Their weights.")],
    "aligned": Annotated[
        bool,
        typer.Option(
            "--aligned/--unaligned", help="Unaligned: an ordinary network of the small image, as the rivals have it."
        ),
    ],
    "cache_teacher": Annotated[
        str | None,
        typer.Option(metavar="ram|DIR", help="Teacher cache: pyramids are computed once, and kept there."),
    ],
    "afp": Annotated[
        str, typer.Option("--afp", metavar="shift|resize", help="Of pixel: how the assistant gets the student's grid.")
    ],
    "assistant_method": Annotated[
        str | None, typer.Option(metavar="l1,…", help="Of pixel: what its assistant learns by.")
    ],
    "detection_weight": Annotated[
        float, typer.Option(help="Of the detection loss; 0: the student learns from its teacher alone.")
    ],
    "gamma": Annotated[float, typer.Option(help="γ of l1's weight γ·τ.")],
    "tau": Annotated[float, typer.Option(help="τ of l1's weight γ·τ.")],
    "distill_warmup": Annotated[
        int | None, typer.Option(help="Steps until distillation has its full weight. Default: as --warmup.")
    ],
    "unlabelled": Annotated[
        str | None,
        typer.Option(metavar="DIR|video", help="Images without labels, on which the student learns from the teacher."),
    ],
    "unlabelled_share": Annotated[float, typer.Option(help="Of each batch, how much is unlabelled.")],
}
FLAGS = {**OWN, **options.TRAINING}


def _distill(asked: Asked[DistillConfig]) -> None:
    """Distil a teacher into a student that sees only the image downsampled by k."""
    with together():
        from msad_cli.cli.progress import exit_code, observer
        from msad_cli.training.students.train_student import train_student

        watching = observer(asked.config)
        outcome = train_student(asked, watching)
        if outcome.scores and not watching.silent:
            _announce(outcome)
        raise typer.Exit(exit_code(outcome, watching))


distill = configured(DistillConfig, FLAGS, _distill)


def _announce(outcome: "Outcome") -> None:
    """The end of a run: the new model beside its teacher and, if it lies here, the control; then the next command."""
    from msad_cli.cli.commands.compare import print_rows
    from msad_cli.cli.output.ending import print_end, print_model
    from msad_cli.cli.output.scores import print_scores
    from msad_cli.export.formats import images_of
    from msad_cli.runs.comparison import add_gap, read_comparison, several_sets
    from msad_cli.runs.members import find_control
    from msad_cli.runs.report import compared

    out, run = outcome.model, outcome.run
    assert run is not None
    spec, first = run.detector.spec, run.card.teacher_spec
    assert first is not None
    rows = read_comparison(run.folder).rows
    remarks = []
    if rows:
        remarks = [several_sets(compared(out)), add_gap(rows) if find_control(out) else ""]
        print_rows(rows)
    else:
        print_scores("", {view: each.numbers for view, each in outcome.scores.items()})
    print_model(outcome)
    shares = (f"{share:.2f} of {name}" for name, share in _cost_shares(spec, first, images_of(out)).items())
    said = f"cost of {out.stem}, head included: {', '.join(shares)}"
    print_end(outcome, [*remarks, said], f"msad predict IMAGE -m {out}")


def _cost_shares(
    spec: "DetectorSpec", teacher: "DetectorSpec", images: "Sequence[tuple[int, int]]"
) -> dict[str, float]:
    """MACs of a student as a share of its teacher's and of torchvision's stock detector like it at HR."""
    from msad_cli.models.cost import cost_of_set, relatives

    own = cost_of_set(spec, spec.views[0], images).total
    stock, fused, *_ = relatives(spec, teacher).items()
    return {name: own / cost_of_set(of, view, images).total for name, (of, view) in (stock, fused)}
