"""msad distill: the student that sees only the small image."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msad_cli.cli import options
from msad_cli.errors import MsadError, UsageError
from msad_cli.training.resume import all_settings, resumable

METHODS_HELP = (
    "output-kd (default of fcos and retinanet), l1 (default of the others), fgfi, podnet, skd, pkd, cwd, fgd, freekd, "
    "crosskd, mgd, amd, dmkd, dsamkd, isrd; several: a,b; or pixel, in two stages. docs/methods.md says what each is."
)

CONTROL = "plain.safetensors"
"""Where the student goes that learns without its teacher."""
COMPARED = 10
"""Images on which the latency of what is compared at the end is measured."""

if TYPE_CHECKING:
    from msad_cli.data.annotations.split import CocoSplit
    from msad_cli.models.spec import DetectorSpec
    from msad_cli.system.device import Compute


@resumable(lambda values: CONTROL if values["no_distill"] else "student.safetensors")
def distill(
    context: typer.Context,
    teacher: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The teacher's model file; a resumed run knows it.")
    ] = None,
    data: options.Data = None,
    k: Annotated[
        str | None,
        typer.Option(metavar="1|2|4|1,2", help="What the student sees; of several, a fusion. Default: the smallest."),
    ] = None,
    backbone: Annotated[str | None, typer.Option(metavar="NAME", help="Default: the teacher's.")] = None,
    width: Annotated[float | None, typer.Option(help="Factor on its channels. Default: the teacher's.")] = None,
    low_backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a fusion student's small image. Default: one for both.")
    ] = None,
    low_width: Annotated[float | None, typer.Option(help="Of a fusion student's small image.")] = None,
    head_channels: Annotated[
        int | None, typer.Option(help="Channels of pyramid and head. Default: the teacher's.")
    ] = None,
    head_convs: Annotated[int | None, typer.Option(help="Of each tower. Default: the teacher's.")] = None,
    head_depthwise: options.Depthwise = False,
    init: Annotated[
        str,
        typer.Option(metavar="auto|teacher|imagenet|none|FILE", help="Where weights start from, in turn: a,b."),
    ] = "auto",
    norm: Annotated[str, typer.Option(metavar="auto|frozen|batch|group", help="Of another backbone.")] = "auto",
    no_distill: Annotated[
        bool, typer.Option("--no-distill", help="The baseline: same student and schedule, no teacher.")
    ] = False,
    method: Annotated[
        str | None,
        typer.Option(metavar="METHOD,…", help=METHODS_HELP),
    ] = None,
    weight: Annotated[str | None, typer.Option(metavar="l1=1,…", help="Their weights.")] = None,
    aligned: Annotated[
        bool,
        typer.Option(
            "--aligned/--unaligned", help="Unaligned: an ordinary network of the small image, as the rivals have it."
        ),
    ] = True,
    cache_teacher: Annotated[
        str | None,
        typer.Option(metavar="ram|DIR", help="Keep the teacher's pyramids: it looks at each image once."),
    ] = None,
    afp: Annotated[
        str, typer.Option("--afp", metavar="shift|resize", help="Of pixel: how the assistant gets the student's grid.")
    ] = "shift",
    assistant_method: Annotated[
        str | None, typer.Option(metavar="l1,…", help="Of pixel: what its assistant learns by.")
    ] = None,
    gamma: Annotated[float, typer.Option(min=0.0, help="γ of l1's weight γ·τ.")] = 0.2,
    tau: Annotated[float, typer.Option(min=0.0, help="τ of l1's weight γ·τ.")] = 3.0,
    distill_warmup: Annotated[
        int | None, typer.Option(min=0, help="Steps until distillation has its full weight. Default: as --warmup.")
    ] = None,
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
    compile_: options.Compile = False,
    workers: options.Workers = None,
    cache: options.Cache = "off",
    max_pixels: options.MaxPixels = options.MOST_PIXELS,
    seed: options.Seed = 0,
    out: options.Out = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    time: options.Time = None,
    checkpoint: options.Checkpoint = "5m",
    log: options.Log = None,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
) -> dict[str, Any]:
    """Distil a teacher into a student that sees only the image reduced k times."""
    import torch

    from msad_cli.cli.console import print_plan
    from msad_cli.data.images.decode import limit_pixels
    from msad_cli.data.loading.dataset import TrainingSet
    from msad_cli.distillation.losses.table import build_distillers
    from msad_cli.models.detector import Detector
    from msad_cli.models.model_file import Card, load_model
    from msad_cli.system.files import fingerprint
    from msad_cli.training.assistant import second_stage
    from msad_cli.training.clock import Clock
    from msad_cli.training.plan import choose, claim_output, invalid_values_named, keep_decoded, lasting, read_data
    from msad_cli.training.student import (
        choose_methods,
        is_pixel,
        of_distillation,
        rendered,
        start_student,
        student_spec,
        training_module,
    )
    from msad_cli.training.teacher_cache import cannot_keep, choose_store, keep_pyramids
    from msad_cli.training.trainer import Run, fit

    assert out is not None
    if teacher is None:
        raise UsageError("no teacher given", "add --teacher FILE; msad teacher trains one")
    clock = Clock.of(time, checkpoint)
    limit_pixels(options.parse_pixels(max_pixels))
    folder = claim_output(out, resume, overwrite or dry_run, log, quiet)
    first, card = load_model(teacher)
    file, master, pixel = teacher, first, is_pixel(method)
    if pixel:
        file, k = second_stage(context, first.spec, teacher, out)
        master, init, aligned = load_model(file)[0], "teacher", False
    torch.manual_seed(seed)  # what distillers train starts at random
    with invalid_values_named("msad distill --help lists the values"):
        trunk = {"backbone": backbone, "width": width, "low_backbone": low_backbone, "low_width": low_width}
        head = {"channels": head_channels, "head_convs": head_convs, "head_depthwise": head_depthwise or None}
        spec, computed = student_spec(master.spec, k, {**trunk, **head}, init, norm, aligned)
        weights, computed["method"] = choose_methods(spec, method, weight, gamma, tau)
        distillers = build_distillers(spec, master.spec, {} if no_distill else weights)
    train, val, computed["data"] = read_data(
        data or card.data, train_json, val_json, train_images, val_images,
        spec.resolution, spec.ks, spec.task, quiet, spec,
    )  # fmt: skip
    choices = of_distillation(choose(
        len(train), device=device, precision=precision, batch=batch, workers=workers, epochs=epochs, lr=lr,
        decay=decay, warmup=warmup, eval_every=eval_every,
    ), distill_warmup, pixel)  # fmt: skip
    store, computed["cache_teacher"] = choose_store(
        cache_teacher, cannot_keep(no_distill, pixel, aligned), file, master.spec, train, choices.compute.precision
    )
    ks = rendered(spec, master.spec, distillers, store is not None)
    training = TrainingSet(train, spec.resolution, ks, jitter=store is None, seed=seed)
    computed["cache"] = keep_decoded(training, cache, choices.workers)
    settings = all_settings(context, {**computed, **choices.settings})
    print_plan(f"plan of {out}", settings, quiet)
    if dry_run:
        return {}
    torch.manual_seed(seed)
    student = Detector(spec)
    keep_pyramids(store, master.to(choices.compute.device), train, choices.compute, choices.workers, quiet)
    module = training_module(student, master, store, distillers, choices, afp)
    scores = fit(Run(
        "distill", module, student, lambda: start_student(student, master, computed["init"].value), training, val,
        choices, settings, folder,
        Card(lasting(data or card.data), fingerprint(train.file), teacher=fingerprint(file), teacher_spec=first.spec),
        clip, ema, clock, resume, quiet, (student, master) if compile_ else (),
    ))  # fmt: skip
    if not quiet:
        _announce(out, scores, file, spec, first.spec, val, choices.compute)
    return scores


def _announce(
    out: Path, scores: dict[str, Any], teacher: Path, spec: "DetectorSpec", first: "DetectorSpec", val: "CocoSplit",
    compute: "Compute",
) -> None:  # fmt: skip
    """The end of a run: the new model beside its teacher and, if it lies here, the control; then the next command.

    Args:
        first: the spec of the teacher that was named.
        val: its images are what latency is measured on.
    """
    from msad_cli.cli.commands.bench import measure
    from msad_cli.cli.commands.compare import add_gap, print_rows, several_sets, table_rows
    from msad_cli.cli.console import announce_result, console, print_line
    from msad_cli.system.distributed import rank

    if rank() > 0:
        return
    control = _control(out)
    following = f"msad predict IMAGE -m {out}"
    models = [*([control] if control else []), out, teacher]
    images = [str(val.path(place)) for place in range(min(len(val), COMPARED))]
    try:
        rows = table_rows(models, "all", measure(models, images, COMPARED, compute, view="all"))
    except (MsadError, RuntimeError) as error:  # the model is written, whatever became of the others
        print_line(f"not compared with its teacher: {error}")
        announce_result(out, scores, following)
        return
    remarks = [several_sets(models), add_gap(rows) if control else ""]
    print_rows(rows)
    for name, share in _cost_shares(spec, first).items():
        console.print(f"cost of {out.stem}, head included: {share:.2f} of {name}")
    for line in filter(None, (*remarks, f"next: {following}")):
        print_line(line)


def _control(out: Path) -> Path | None:
    """The model that `--no-distill` wrote beside this one by its default name, if it is one of this teacher and set."""
    from msad_cli.models.model_file import read_header

    plain = out.with_name(CONTROL)
    if plain == out or not plain.exists():
        return None
    try:
        own, other = read_header(out)[1], read_header(plain)[1]
    except MsadError:
        return None
    alike = (own.teacher, own.data_fingerprint) == (other.teacher, other.data_fingerprint)
    return plain if alike else None


def _cost_shares(spec: "DetectorSpec", teacher: "DetectorSpec") -> dict[str, float]:
    """MACs of a student as a share of its teacher's and of torchvision's stock detector like it at HR."""
    from msad_cli.models.cost import count_cost, relatives

    frame = [spec.resolution.frame_size(spec.resolution.short_side, spec.resolution.long_side)]
    own = count_cost(spec, spec.views[0], frame).total
    stock, fused, *_ = relatives(spec, teacher).items()
    return {name: own / count_cost(of, view, frame).total for name, (of, view) in (stock, fused)}
