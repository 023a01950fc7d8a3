"""msad teacher: the multi-scale fused teacher, or one of the paper's baselines."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from msad_cli.cli import options
from msad_cli.cli.processes import together
from msad_cli.cli.training_flags import configured
from msad_cli.models.detectors.kinds import DETECTORS
from msad_cli.training.config import Asked, TeacherConfig

if TYPE_CHECKING:
    from msad_cli.training.run import Outcome

OWN: dict[str, Any] = {
    "k": Annotated[
        str | None, typer.Option(metavar="2|4|2,4", help="By what the low views are downsampled. Default: 2.")
    ],
    "detector": Annotated[
        str | None,
        typer.Option(
            metavar="|".join(DETECTORS), help="What to build on. Default: fcos; on a CPU from scratch rtmdet."
        ),
    ],
    "backbone": Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="resnet18…152, resnext50_32x4d…, mobilenet_v2, cspnext_nano…x. By detector and machine.",
        ),
    ],
    "width": Annotated[float | None, typer.Option(help="Factor on its channels. Default: 1, on a CPU 0.5.")],
    "head_channels": Annotated[
        int | None,
        typer.Option(help="Channels of pyramid and head. Default: 256, on a CPU 64; rtmdet on cspnext: its C3's."),
    ],
    "head_convs": Annotated[
        int | None,
        typer.Option(help="Convolutions of each tower of the head. Default: 4, on a CPU 2; rtmdet 2, reppoints 3."),
    ],
    "head_depthwise": options.Depthwise,
    "size": Annotated[
        str | None,
        typer.Option(
            metavar="SHORT,LONG",
            help="Sides of the large (HR) image in pixels. Default: the images' own, up to 800,1333, on a CPU 320,533.",
        ),
    ],
    "init": Annotated[
        str | None,
        typer.Option(
            metavar="imagenet|coco|none|FILE", help="Where weights start from. Default: imagenet at width 1, else none."
        ),
    ],
    "init_partial": options.InitPartial,
    "norm": Annotated[str, typer.Option(metavar="auto|frozen|batch|group", help="Normalisation of the backbone.")],
    "head_norm": options.HeadNorm,
    "scales": Annotated[
        str,
        typer.Option(
            metavar="aligned|alone|vanilla|single", help="alone: a student without a teacher. Others: the baselines."
        ),
    ],
    "phase": Annotated[
        str, typer.Option(metavar="centre|grid", help="How low views lie in the large image (docs/methods.md).")
    ],
    "fusion": Annotated[
        str, typer.Option(metavar="c-ff|sigmoid|channel|sum|concat", help="How the views' pyramids become one.")
    ],
    "strategy": Annotated[
        str, typer.Option(metavar="joint|two-step", help="The fusion together with the rest, or alone afterwards.")
    ],
    "lambda_": Annotated[float, typer.Option("--lambda", help="Weight λ of the fused view's loss.")],
    "rois": Annotated[
        int | None, typer.Option(help="RoIs an image that two-stage detectors learn from. Default: 512, on a CPU 64.")
    ],
    "sigmas": Annotated[
        str | None, typer.Option(metavar="0.05,…", help="Of keypoints, for OKS. Default: COCO's of 17, else 0.05.")
    ],
}
FLAGS = {**OWN, **options.TRAINING}


def _teacher(asked: Asked[TeacherConfig]) -> None:
    """Train the teacher: one network on an image and on the same image downsampled by k, and their fusion."""
    with together():
        from msad_cli.cli.output.ending import print_end, print_model
        from msad_cli.cli.output.scores import print_scores
        from msad_cli.cli.progress import exit_code, observer
        from msad_cli.training.judging.nothing_found import of_scores
        from msad_cli.training.train_teacher import train_teacher

        watching = observer(asked.config)
        outcome = train_teacher(asked, watching)
        out = outcome.model
        if outcome.scores and not watching.silent:
            aligned = asked.config.scales == "aligned"
            following = f"msad distill --teacher {out}" if aligned else f"msad eval {out}"
            remark = _best(outcome) if aligned else ""
            if of_scores(outcome.scores):
                following = ""  # what is likely wrong was said; a student of this would learn nothing
            print_scores("", {view: each.numbers for view, each in outcome.scores.items()})
            print_model(outcome)
            print_end(outcome, [remark], following)
        raise typer.Exit(exit_code(outcome, watching))


def _best(outcome: "Outcome") -> str:
    """Which view is the best, and what follows from that."""
    from msad_cli.models.views import view_of_best_ap
    from msad_cli.text import percent

    assert outcome.run is not None
    spec, scores = outcome.run.detector.spec, {view: each.numbers for view, each in outcome.scores.items()}
    best, own = view_of_best_ap(spec, scores), spec.views[0]
    line = f"best view: {best}, AP {percent(scores[best]['AP'])}"
    if best == own:
        return line
    worse = f"{own}, the model's own, has {percent(scores[own]['AP'])}"
    return f"{line}; {worse}: distill teaches by {best}, and predict takes --view {best}"


teacher = configured(TeacherConfig, FLAGS, _teacher)
