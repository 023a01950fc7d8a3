"""msad distill: the student that sees only the small image."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msad_cli.commands import options
from msad_cli.commands.resuming import all_settings, resumable
from msad_cli.structures.errors import UsageError

if TYPE_CHECKING:
    from msad_cli.models.spec import DetectorSpec


@resumable(lambda values: "plain.safetensors" if values["no_distill"] else "student.safetensors")
def distill(
    context: typer.Context,
    teacher: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The teacher's model file; a resumed run knows it.")
    ] = None,
    data: options.Data = None,
    init: Annotated[
        str, typer.Option(metavar="teacher|imagenet|none|FILE", help="Where weights start from.")
    ] = "teacher",
    no_distill: Annotated[
        bool, typer.Option("--no-distill", help="The baseline: same student and schedule, no teacher.")
    ] = False,
    gamma: Annotated[float, typer.Option(min=0.0, help="γ of the distillation's weight γ·τ.")] = 0.2,
    tau: Annotated[float, typer.Option(min=0.0, help="τ of the distillation's weight γ·τ.")] = 3.0,
    distill_warmup: Annotated[int, typer.Option(min=0, help="Steps until distillation has its full weight.")] = 500,
    train_json: options.TrainJson = None,
    val_json: options.ValJson = None,
    train_images: options.TrainImages = None,
    val_images: options.ValImages = None,
    epochs: options.Epochs = None,
    batch: options.BatchSize = None,
    lr: options.LearningRate = None,
    decay: options.Decay = "steps",
    warmup: options.Warmup = None,
    clip: options.Clip = 10.0,
    ema: options.Ema = 0.0,
    eval_every: options.EvalEvery = None,
    device: options.Device = "auto",
    precision: options.PrecisionName = "auto",
    workers: options.Workers = None,
    max_pixels: options.MaxPixels = options.MOST_PIXELS,
    seed: options.Seed = 0,
    out: options.Out = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    time: options.Time = None,
    checkpoint: options.Checkpoint = "5m",
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
) -> None:
    """Distil a teacher into a student that sees only the image reduced k times."""
    import torch

    from msad_cli.commands.console import announce_result, announce_student, print_plan
    from msad_cli.commands.fit import Clock, Run, fit
    from msad_cli.commands.settings import choose, claim_output, lasting, read_data
    from msad_cli.data.images import limit_pixels
    from msad_cli.data.loading import TrainingSet
    from msad_cli.engine.model_file import Card, fingerprint, load_model
    from msad_cli.methods.distillation import Distillation
    from msad_cli.models.detector import Detector
    from msad_cli.models.init import copy_matching, initialise
    from msad_cli.models.normalisation import of_view

    assert out is not None
    if teacher is None:
        raise UsageError("no teacher given", "add --teacher FILE; msad teacher trains one")
    clock = Clock.of(time, checkpoint)
    limit_pixels(options.parse_pixels(max_pixels))
    folder = claim_output(out, resume, overwrite or dry_run)
    master, card = load_model(teacher)
    if master.spec.role != "teacher":
        raise UsageError(f"--teacher {teacher}: a {master.spec.role}, not a teacher", "train one with msad teacher")
    spec = replace(master.spec, role="student", ks=master.spec.ks[-1:])
    source = data or card.data
    train, val, found = read_data(
        source, train_json, val_json, train_images, val_images, spec.resolution, spec.ks, spec.categories, quiet
    )
    choices = choose(
        len(train), device=device, precision=precision, batch=batch, workers=workers, epochs=epochs, lr=lr,
        decay=decay, warmup=warmup, eval_every=eval_every,
    )  # fmt: skip
    settings = all_settings(context, {"data": found, **choices.settings})
    if not quiet:
        print_plan(f"plan of {out}", settings)
    if dry_run:
        return
    torch.manual_seed(seed)
    student = Detector(spec)

    def start() -> str:
        if init == "teacher":
            return f"weights from the teacher: {copy_matching(student, of_view(master.state_dict(), spec.ks[0]))}"
        return initialise(student, init)

    module = Distillation(
        student, None if no_distill else master.to(choices.compute.device), gamma, tau, distill_warmup
    )
    # A plain student is trained on its own small pixels; the large ones are not even decoded.
    training = TrainingSet(train, spec.resolution, spec.ks if no_distill else master.spec.ks, jitter=True, seed=seed)
    own = Card(data=lasting(source), data_fingerprint=fingerprint(train.file), teacher=fingerprint(teacher))
    scores = fit(
        Run(
            "distill", module, student, start, training, val, choices, settings, folder, own, clip, ema, clock, resume,
            quiet,
        )
    )  # fmt: skip
    if not quiet:
        announce_student(scores["low"].numbers, card.scores or {}, _cost_shares(spec))
        announce_result(out, scores, f"msad predict IMAGE -m {out}")


def _cost_shares(spec: "DetectorSpec") -> dict[str, float]:
    """MACs of a student as a share of its teacher's and of torchvision's stock detector at HR."""
    from msad_cli.models.cost import count_cost, relatives

    frame = [spec.resolution.frame_size(spec.resolution.short_side, spec.resolution.long_side)]
    totals = {name: count_cost(of, view, frame).total for name, (of, view) in relatives(spec).items()}
    *others, student = totals
    return {name: totals[student] / totals[name] for name in others}
