"""Pixel Distillation's first stage: the assistant, trained by `msad distill --k 1` on its own, before the student."""

from pathlib import Path
from typing import get_args

import typer

from msad_cli.cli.calling import typed
from msad_cli.cli.console import print_line
from msad_cli.distillation.losses.table import build_distillers
from msad_cli.distillation.pixel import AFP
from msad_cli.errors import UsageError
from msad_cli.models.model_file import read_header
from msad_cli.models.spec import DetectorSpec
from msad_cli.runs.folder import RunFolder
from msad_cli.system.files import fingerprint
from msad_cli.training.plan import invalid_values_named
from msad_cli.training.student import choose_methods, default_k, student_spec

OF_THE_STUDENT = {"k", "method", "weight", "gamma", "tau", "aligned", "assistant_method", "afp", "init", "out",
                  "resume", "no_distill"}  # fmt: skip
"""Flags that the assistant's command does not take over from the student's."""


def assistant_file(out: Path) -> Path:
    """Where the assistant of a student is kept: `student.assistant.safetensors`."""
    return out.with_name(f"{out.stem}.assistant{out.suffix}")


def second_stage(context: typer.Context, teacher: DetectorSpec, file: Path, out: Path) -> tuple[Path, str]:
    """The assistant's model file, trained if there is none, and the k of its student.

    Args:
        context: of the student's command, whose other flags are the assistant's too.
        teacher, file: what the assistant learns from.
        out: the student's model file.

    Raises:
        UsageError: flags that do not go together, or an assistant that learnt from another teacher.
        MsadError, typer.Exit: as `msad distill`, whose first stage may be interrupted; with --dry-run after its plan.
    """
    flags = context.params
    k = flags["k"] or str(default_k(teacher))
    if k not in ("2", "4") or flags["no_distill"]:
        raise UsageError(
            f"--method pixel with {'--no-distill' if flags['no_distill'] else f'--k {k}'}: its student learns from an "
            "assistant and sees one small image",
            "leave it out, or give --k 2 or --k 4",
        )
    if flags["afp"] not in get_args(AFP):
        raise UsageError(f"--afp {flags['afp']}: unknown", f"give {' or '.join(get_args(AFP))}")
    with invalid_values_named("msad distill --help lists the values"):
        # What is wrong with the second stage is said before the first one trains.
        student, _ = student_spec(teacher, k, {}, "none", "auto", aligned=False)
        typed_ones = (flags[name] for name in ("method", "weight", "gamma", "tau"))
        build_distillers(student, teacher, choose_methods(student, *typed_ones)[0])
    assistant = assistant_file(out)
    if not assistant.exists() or flags["overwrite"]:
        _train(context, assistant)
        if not assistant.exists():
            raise typer.Exit(0)
    elif read_header(assistant)[1].teacher != fingerprint(file):
        raise UsageError(f"{assistant}: learnt from another teacher than {file}", "add --overwrite to train it anew")
    if not flags["quiet"]:
        print_line(f"stage 2: from the assistant {assistant} to the student {out}")
    return assistant, k


def _train(context: typer.Context, assistant: Path) -> None:
    """Runs `msad distill --k 1` with the flags of the student's command; goes on where that was interrupted."""
    flags, command = context.params, context.command
    if RunFolder(assistant).resumable and not flags["overwrite"]:
        values: dict[str, object] = {"resume": True}
    else:
        defaults = {parameter.name: parameter.default for parameter in command.params}
        shared = {name: value for name, value in flags.items() if name not in OF_THE_STUDENT}
        values = {name: value for name, value in shared.items() if value != defaults[name]}
        values |= {"k": "1", "method": flags["assistant_method"]}
    if not flags["quiet"]:
        print_line(f"stage 1: the assistant {assistant}; interrupted, it goes on with the same command")
    arguments = typed(command, {**values, "out": assistant})
    with command.make_context("distill", arguments, parent=context.parent) as own:
        command.invoke(own)
