"""Pixel Distillation's first stage: the assistant, a student that sees the large image."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

from msad_cli.distillation.losses.table import build_distillers
from msad_cli.distillation.pixel import AFP
from msad_cli.errors import UsageError
from msad_cli.models.model_file import read_header
from msad_cli.models.spec import DetectorSpec
from msad_cli.runs.folder import RunFolder, assistant_file
from msad_cli.system.files import fingerprint
from msad_cli.training.config import Asked, DistillConfig
from msad_cli.training.observer import Observer
from msad_cli.training.plan import invalid_values_named
from msad_cli.training.run import Outcome
from msad_cli.training.students.plan_student import choose_methods, default_k, student_spec

OF_THE_STUDENT = frozenset(
    {
        "k",
        "method",
        "weight",
        "gamma",
        "tau",
        "aligned",
        "assistant_method",
        "afp",
        "init",
        "init_partial",
        "out",
        "resume",
    }
    | {"no_distill", "losses"}
)
"""Settings that the assistant does not take over from its student."""
OF_THE_CALL = ("time", "checkpoint", "quiet", "dry_run", "on_step")
"""Settings that hold for both stages, also where the first one goes on."""

Train = Callable[[Asked[DistillConfig], Observer], Outcome]


def student_k(config: DistillConfig, teacher: DetectorSpec) -> str:
    """The k of an assistant's student.

    Raises:
        UsageError: settings that do not go together.
    """
    k = config.k or str(default_k(teacher))
    if k not in ("2", "4") or config.no_distill:
        raise UsageError(
            f"--method pixel with {'--no-distill' if config.no_distill else f'--k {k}'}: its student learns from an "
            "assistant and sees one small image",
            "leave it out, or give --k 2 or --k 4",
            code="pixel-needs-one-small-image",
        )
    if config.afp not in get_args(AFP):
        raise UsageError(f"--afp {config.afp}: unknown", f"give {' or '.join(get_args(AFP))}", code="unknown-value")
    with invalid_values_named("msad distill --help lists the values"):
        # What is wrong with the second stage is said before the first one trains.
        student, _ = student_spec(teacher, k, {}, "none", "auto", aligned=False)
        build_distillers(student, teacher, choose_methods(student, config)[0])
    return k


def first_stage(asked: Asked[DistillConfig], file: Path, train: Train, observer: Observer) -> tuple[Path, Outcome]:
    """The assistant's model file, and how its training ended; a finished one is not trained again.

    Args:
        asked: for the student; its other settings are the assistant's too.
        file: of the teacher.
        train: trains a student.

    Raises:
        UsageError: an assistant that learnt from another teacher.
        MsadError: as `train`.
    """
    config = asked.config
    assert config.out is not None
    assistant = assistant_file(config.out)
    outcome = Outcome(assistant)
    there = read_header(assistant)[1] if assistant.exists() else None
    if there is None or there.unfinished or config.overwrite:
        observer.say(f"stage 1: the assistant {assistant}; interrupted, it goes on with the same command")
        outcome = train(_for_assistant(config, assistant), observer)
    elif there.teacher != fingerprint(file):
        raise UsageError(
            f"{assistant}: learnt from another teacher than {file}",
            "add --overwrite to train it anew",
            code="assistant-of-another-teacher",
        )
    if not outcome.unfinished and assistant.exists():
        observer.say(f"stage 2: from the assistant {assistant} to the student {config.out}")
    return assistant, outcome


def _for_assistant(config: DistillConfig, assistant: Path) -> Asked[DistillConfig]:
    """What `msad distill --k 1` is asked for with a student's settings; a run that was interrupted goes on."""
    usual = DistillConfig()
    now = {name: getattr(config, name) for name in OF_THE_CALL}
    if RunFolder(assistant).resumable and not config.overwrite:
        return Asked(DistillConfig(resume=True, out=assistant, **now), frozenset())
    shared = {
        each.name: getattr(config, each.name)
        for each in fields(config)
        if each.name not in OF_THE_STUDENT and getattr(config, each.name) != getattr(usual, each.name)
    }
    own = DistillConfig(**shared)
    typed = frozenset({*shared, "k"} | ({"method"} if config.assistant_method else set()))
    return Asked(replace(own, k="1", method=config.assistant_method, out=assistant), typed)
