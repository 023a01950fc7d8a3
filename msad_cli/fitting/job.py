"""`msad fit` from a set and a budget to a verdict: choosing, then one command after another."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from msad_cli.errors import MsadError, UnmetBudgetError
from msad_cli.fitting.choice.budgets import Budget, parse_budget
from msad_cli.fitting.choice.candidates import PLAIN, Candidate, Network, candidates_for, chosen_networks
from msad_cli.fitting.choice.choosing import Choice, choose_candidate
from msad_cli.fitting.choice.evidence import Teaching, choose_teaching, may_teach, strength
from msad_cli.fitting.choice.facts import Facts, find_facts
from msad_cli.fitting.choice.measuring import (
    Measured,
    Runtimes,
    find_runtimes,
    measure_candidate,
    measure_files,
    measure_pace,
    shape_for,
)
from msad_cli.fitting.commands import Recipe, Step, deployed, shown, steps_for
from msad_cli.fitting.fit_folder import FitConfig, FitFolder, FitState, marked
from msad_cli.fitting.outline import (
    how_chosen,
    how_long,
    how_measured,
    nearest_words,
    pace_words,
    rows_of,
    table_of,
)
from msad_cli.fitting.page import page
from msad_cli.fitting.scheduling import (
    Epochs,
    fit_epochs,
    refused_if_longer,
    speed_of,
    speeds_with_teacher,
    teacher_spec,
)
from msad_cli.fitting.verdict import Outcome, Verdict, ap_of, decide
from msad_cli.models.weights.initialise import fetch_imagenet
from msad_cli.runs.folder import json_text
from msad_cli.system.device import choose_device
from msad_cli.system.files import write_text
from msad_cli.text import parse_duration, parse_ks

FINDS_NOTHING = "export-finds-nothing"
"""The code of an export that is refused because the model finds nothing."""


class Listener(Protocol):
    """Who a fit tells what it does, and who runs its commands."""

    def say(self, line: str) -> None:
        """A line for people."""

    def table(self, title: str, rows: Sequence[Sequence[str]], taken: Sequence[int]) -> None:
        """A table, its first row being the head; `taken` are places of rows, from 1."""

    def run(self, words: Sequence[str], threads: int | None) -> tuple[int, str]:
        """Runs what stands behind `msad`: its exit code, and what it prints on stdout.

        Args:
            threads: how many it may have; None for its own number.

        Raises:
            MsadError: whatever it raises.
        """


@dataclass(frozen=True)
class Fitted:
    """What came of a fit.

    Attributes:
        plan: as `FitState` has it.
        commands: as they are typed.
        verdict: after all of them.
        stopped: the exit code of one that was stopped.
    """

    plan: dict[str, Any]
    commands: list[str]
    verdict: Verdict | None = None
    stopped: int = 0

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "plan": self.plan,
            "commands": self.commands,
            "result": None if self.verdict is None else self.verdict.to_json(),
        }


def fit_model(folder: FitFolder, state: FitState, listener: Listener, dry_run: bool = False) -> Fitted:
    """Chooses, trains, exports and measures; goes on with what a state has begun.

    Args:
        dry_run: the plan is shown, and nothing is written.

    Raises:
        UsageError, DeviceError, ModelFileError: a network, a device or weights that cannot be used.
        DataError: the set cannot be used.
        UnmetBudgetError: no candidate is within the budget.
        MsadError: whatever a command raises.
    """
    config = state.config
    budget = parse_budget(config.budget)
    choose_device(config.device)
    networks = chosen_networks(config.detector, config.backbone, config.init)
    facts = find_facts(config.data, listener.say)

    def save() -> None:
        if not dry_run:
            folder.save(state)

    if not state.steps:
        _plan(budget, facts, networks, state, save, listener)
        save()
    else:
        _show(state, listener)
    commands = [_typed(config, step) for step in state.steps]
    if dry_run:
        return Fitted(state.plan, commands)
    for place in range(len(state.steps)):
        code = _do(place, folder, state, listener)
        if code:
            return Fitted(state.plan, commands, stopped=code)
    verdict = _judge(budget, facts, folder, state, commands)
    return Fitted(state.plan, commands, verdict)


def _plan(
    budget: Budget,
    facts: Facts,
    networks: Sequence[Network],
    state: FitState,
    save: Callable[[], None],
    listener: Listener,
) -> None:
    """Fills in what is chosen, why, and the commands.

    Raises:
        UnmetBudgetError: no candidate is within the budget.
    """
    config = state.config
    _fetch(networks, listener)
    choice, control, runtimes = _choose(budget, facts, networks, state, save, listener)
    state.plan = {
        "budget": budget.text,
        "threads": config.threads,
        "candidates": [row for each in (choice, control) if each is not None for row in rows_of(each, facts, budget)],
        "lines": [
            *how_chosen([each for each in (choice, control) if each is not None]),
            *how_measured(facts, runtimes, config.threads, state.measured),
        ],
    }
    _show(state, listener)
    if choice.chosen is None:
        nearest, enough = nearest_words(choice, budget)
        raise UnmetBudgetError(
            f"--budget {budget.text}: no candidate meets it on this machine; the nearest, {nearest}",
            f"--budget {enough} is met by it; else other networks (--backbone), another runtime or machine",
            code="budget-unmet",
        )
    plain = control.chosen if control is not None else None
    if control is not None and plain is None:
        state.notes["control"] = "no plain detector meets the budget"
    epochs, teaching = _schedule(config, choice.chosen, plain, facts)
    recipe = Recipe(
        data=config.data,
        device=config.device,
        seed=config.seed,
        runtime=state.measured[choice.chosen.name].runtime,
        shape=shape_for(choice.chosen, facts),
    )
    backbone = (config.teacher_backbone or "") if teaching.wanted else None
    state.steps = steps_for(recipe, config.places, choice.chosen, plain, epochs, backbone)
    more = how_long(epochs, config.time, teaching.why, state.notes.get("control", ""))
    state.plan |= {
        "lines": [*state.plan["lines"], *more],
        "runtime": recipe.runtime,
        "epochs": {"teacher": epochs.teacher, "student": epochs.student, "plain": epochs.control},
        "seconds": epochs.seconds,
        "macs": {"student": choice.chosen.macs, "plain": None if plain is None else plain.macs},
    }
    for line in (*more, "commands:", *(f"  {_typed(config, step)}" for step in state.steps)):
        listener.say(line)


def _fetch(networks: Sequence[Network], listener: Listener) -> None:
    """Has published weights here before anything is measured for minutes.

    Raises:
        UsageError: they cannot be downloaded.
    """
    names = sorted({each.backbone for each in networks if each.init == "imagenet"})
    if names:
        listener.say(f"ImageNet weights of {', '.join(names)}: downloaded, where they are not kept here")
        fetch_imagenet(names)


def _choose(
    budget: Budget,
    facts: Facts,
    networks: Sequence[Network],
    state: FitState,
    save: Callable[[], None],
    listener: Listener,
) -> tuple[Choice, Choice | None, Runtimes]:
    """The student, the plain detector where one is wanted, and what they were measured by; what is taken is measured
    whatever the budget is of."""
    config, runtimes = state.config, find_runtimes()
    state.pace = state.pace or measure_pace(config.threads)

    def measure(candidate: Candidate) -> Measured:
        listener.say(f"measuring {candidate.name}")
        found = measure_candidate(candidate, facts, runtimes, config.threads, state.pace)
        state.measured[candidate.name] = found
        save()
        return found

    def choose(ks: tuple[int, ...]) -> Choice:
        candidates = candidates_for(facts, networks, ks)
        kind = "plain" if ks == (PLAIN,) else f"k = {', '.join(map(str, ks))}"
        listener.say(f"{len(candidates)} candidates: {len(networks)} networks, {kind}, up to the images' own size")
        choice = choose_candidate(candidates, budget, lambda each: strength(each, facts), measure, state.measured)
        if choice.chosen is not None and choice.chosen.name not in choice.measured:
            choice.measured[choice.chosen.name] = measure(choice.chosen)
        return choice

    choice = choose(parse_ks("--k", config.k, "24"))
    wanted = config.control and choice.chosen is not None
    return choice, choose((PLAIN,)) if wanted else None, runtimes


def _show(state: FitState, listener: Listener) -> None:
    rows = state.plan["candidates"]
    taken = [place for place, row in enumerate(rows, start=1) if row["taken"]]
    listener.table(f"candidates for {state.plan['budget']}", table_of(rows), taken)
    for line in state.plan["lines"]:
        listener.say(line)


def _schedule(config: FitConfig, chosen: Candidate, plain: Candidate | None, facts: Facts) -> tuple[Epochs, Teaching]:
    """The epochs of every training by three timed steps of each, and whether there is a teacher."""
    seconds = parse_duration("--time", config.time)
    control = None if plain is None else speed_of(plain, facts, config.device)
    whole = False
    if may_teach(config.wanted_teacher, chosen):
        spec = teacher_spec(chosen, config.teacher_backbone)
        own, taught = speeds_with_teacher(spec, facts, config.device, chosen.network.init)
        epochs = fit_epochs(taught, control, seconds, own, config.teacher_epochs)
        whole = epochs.share == 1
        if (teaching := choose_teaching(config.wanted_teacher, chosen, whole)).wanted:
            return refused_if_longer(epochs, seconds), teaching
    epochs = fit_epochs(speed_of(chosen, facts, config.device), control, seconds)
    return refused_if_longer(epochs, seconds), choose_teaching(config.wanted_teacher, chosen, whole)


def _typed(config: FitConfig, step: Step) -> str:
    """A step as it is typed; what is timed has the threads that were asked for."""
    return shown(step.words, config.threads if step.part == "both" else None)


def _do(place: int, folder: FitFolder, state: FitState, listener: Listener) -> int:
    """Runs a step that is not done; its exit code."""
    step = state.steps[place]
    if step.state == "done":
        return 0
    words = step.now()
    threads = state.config.threads if step.part == "both" else None
    state.steps = marked(state.steps, place, state="begun")
    folder.save(state)
    listener.say(f"\n$ {shown(words, threads)}")
    try:
        code, printed = listener.run(words, threads)
    except MsadError as error:
        code, printed = 0, ""
        if error.code == FINDS_NOTHING and step.part == "control":
            state.notes["control"] = "the plain detector of that budget finds nothing"
        elif step.part == "int8":  # the model itself is there
            listener.say(f"no graph of 8 bits: {error.message}")
        else:
            goes_on = f"msad fit --resume {folder.path}"
            raise type(error)(
                error.message, f"{error.hint}; then go on: {goes_on}" if error.hint else goes_on, code=error.code
            ) from error
    if code:
        return code
    if printed:
        state.notes["bench"] = printed
    state.steps = marked(state.steps, place, state="done")
    if "control" in state.notes:  # there is nothing of it to be timed
        gone = str(deployed(state.config.places.control, state.plan["runtime"]))
        state.steps = [
            replace(each, words=tuple(word for word in each.words if word != gone)) if each.part == "both" else each
            for each in state.steps
        ]
    folder.save(state)
    return 0


def _judge(budget: Budget, facts: Facts, folder: FitFolder, state: FitState, commands: Sequence[str]) -> Verdict:
    """Measures what was trained, and writes verdict and page."""
    config, runtime = state.config, state.plan["runtime"]
    places = config.places
    models = {"student": places.student}
    if state.plan["epochs"]["plain"] and "control" not in state.notes:
        models["plain"] = places.control
    files = {name: deployed(model, runtime) for name, model in models.items()}
    if places.int8.exists() and any(each.part == "int8" for each in state.steps):
        files["int8"] = places.int8
    milliseconds, slower = measure_files(files, runtime, facts, config.threads, state.pace)
    if words := pace_words("while trained models were measured", [slower]):
        state.notes["pace"] = words
    outcomes = {}
    for name, file in files.items():
        costs = {
            "latency": milliseconds[name],
            "macs": state.plan["macs"]["student" if name == "int8" else name],
            "size": float(file.stat().st_size),
        }
        outcomes[name] = Outcome(file, ap_of(file), milliseconds[name], costs[budget.kind])
    verdict = decide(budget, outcomes["student"], outcomes.get("plain"), state.notes, outcomes.get("int8"))
    bench = json.loads(state.notes["bench"]) if "bench" in state.notes else None
    write_text(folder.verdict, json_text({**verdict.to_json(), "bench": bench, "runtime": runtime}))
    rows = state.plan["candidates"]
    taken = [place for place, row in enumerate(rows, start=1) if row["taken"]]
    text = page(verdict.words, table_of(rows), taken, state.plan["lines"], commands, models)
    write_text(folder.report, text)
    return verdict
