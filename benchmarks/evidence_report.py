"""What evidence.py found: the table, the verdicts on the paper's claims, and the image of AP over latency."""

import csv
import json
import platform
import statistics
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision

from msad_cli.cli.commands.bench import machine_in_words, measure
from msad_cli.data.annotations.split import CocoSplit
from msad_cli.evaluation.metrics import KINDS, PREFIXES
from msad_cli.evaluation.pareto import Point
from msad_cli.models.cost import cost_of_set, relatives
from msad_cli.models.model_file import read_header
from msad_cli.models.spec import View
from msad_cli.models.views import wanted_views
from msad_cli.runs.folder import RunFolder
from msad_cli.runs.plots.pareto import plot_pareto
from msad_cli.system.device import choose_compute

NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
RUNS = 30
"""Of each view, whose median is the latency."""
Files = Mapping[str, Sequence[Path]]
Key = tuple[str, View]
"""A line of the table: a row's name, and one of its model's views."""
METHODS = ("output-kd", "l1")
"""The best of the methods by docs/results-paper.md, and the paper's."""
CONTROLS: Mapping[Key, str] = {
    ("scratch-both", "low"): "is it the teacher, or is it the epochs of both trainings?",
    ("scratch-time", "low"): "is it the teacher, or is it the time of both trainings?",
    ("init-only", "low"): "is it what the student learns from its teacher, or is it the weights that it starts from?",
    ("plain-low", "low"): "is it the alignment, or is it the epochs of both trainings?",
    ("single-high-both", "high"): "is the small image as good as the large one for as many epochs?",
    ("vanilla-both", "high"): "the same, of a network that is trained on both sizes",
    ("light-alone", "low"): "is it the teacher, or is a lighter head as good without one?",
}
"""The question that a row answers beside the distilled student."""
WITHOUT_TEACHING: tuple[Key, ...] = (("scratch-both", "low"), ("init-only", "low"))
"""Students that cost as much and learn from no teacher's predictions."""
HELPS = 1.0
"""AP points from which on distillation is said to help."""
LIGHT: Key = ("light", "low")
HIGH: Key = ("vanilla", "high")


@dataclass(frozen=True)
class Line:
    """A line of the table: numbers by name, of every seed that is done; GMACs, and as a share of the stock
    detector's at HR; milliseconds an image."""

    label: str
    numbers: dict[str, list[float]]
    gmacs: float
    share: float
    milliseconds: float


@dataclass(frozen=True)
class Claim:
    """That one line's AP is at least `margin` (in AP points) above another's."""

    text: str
    better: Key
    worse: Key
    margin: float = 0.0


def claims_for(methods: Sequence[str]) -> list[Claim]:
    """The paper's claims, and the control that it leaves out.

    Those on distilled students stand there for each of the methods; the first is that of all other rows.
    """
    on_distilled = [
        claim
        for each in methods
        for claim in (
            Claim(f"L distilled by {each} − init-only L ≥ 1.0", (each, "low"), ("init-only", "low"), 1.0),
            Claim(f"L distilled by {each} − vanilla multi-scale's L ≥ 3.6", (each, "low"), ("vanilla", "low"), 3.6),
            Claim(
                f"L distilled by {each} − vanilla L of two schedules ≥ 3.6", (each, "low"), ("plain-low", "low"), 3.6
            ),
            Claim(f"L distilled by {each} ≥ vanilla multi-scale's H", (each, "low"), HIGH),
        )
    ]
    best: Key = (methods[0], "low")
    return [
        *on_distilled,
        Claim("teacher: H&L > H", ("teacher", "fused"), ("teacher", "high")),
        Claim("teacher: H > L", ("teacher", "high"), ("teacher", "low")),
        Claim("at L, aligned > vanilla multi-scale", ("teacher", "low"), ("vanilla", "low")),
        Claim("at H, aligned > vanilla multi-scale", ("teacher", "high"), HIGH),
        Claim("C-FF > concat", ("teacher", "fused"), ("concat", "fused")),
        Claim("concat > sum", ("concat", "fused"), ("sum", "fused")),
        Claim("a stronger teacher's student is stronger", ("of-stronger", "low"), best),
        Claim("an aligned student > an unaligned one, distilled", best, ("unaligned", "low")),
        Claim("an aligned student > an unaligned one, init-only", ("init-only", "low"), ("unaligned-alone", "low")),
    ]


def write_report(
    out: Path,
    files: Files,
    labels: Mapping[str, str],
    command: str,
    val: CocoSplit,
    claims: Sequence[Claim],
    drawn: Container[str],
) -> str:
    """Writes evidence.md, .csv and .png from the models that are there; the text of the first.

    Args:
        drawn: the rows that the image shows.
    """
    prefix = PREFIXES[KINDS[val.task][-1]]
    lines = dict(table_lines(files, labels, val, prefix))
    parts = [headline(command, prefix), *tables(lines), questions(lines), verdicts(lines, claims)]
    text = "\n\n".join([*parts, convergence(files, prefix)])
    (out / "evidence.md").write_text(text + "\n", encoding="utf-8")
    with (out / "evidence.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "view", "seed", *NUMBERS, "box_AP", "gmacs", "of_stock", "ms"])
        for (name, view), line in lines.items():
            for seed, values in enumerate(zip(*line.numbers.values(), strict=True)):
                writer.writerow([name, view, seed, *values, line.gmacs, line.share, line.milliseconds])
    points = {
        line.label: Point(line.milliseconds, mean(line.numbers["AP"]) / 100)
        for (name, _), line in lines.items()
        if name in drawn
    }
    plot_pareto(points, out / "evidence.png", machine_in_words(choose_compute("auto", "auto")))
    return text


def headline(command: str, prefix: str) -> str:
    """The command, and on what it ran."""
    compute = choose_compute("auto", "auto")
    device = torch.cuda.get_device_name() if compute.device.type == "cuda" else platform.processor() or "CPU"
    versions = f"{machine_in_words(compute)}, torchvision {torchvision.__version__}, Python {platform.python_version()}"
    measured = f"AP is {prefix.rstrip('_')} AP. " if prefix else ""
    return f"    {command}\n\n{measured}{device}: {versions}, {time.strftime('%Y-%m-%d')}."


def table_lines(files: Files, labels: Mapping[str, str], val: CocoSplit, prefix: str) -> Iterator[tuple[Key, Line]]:
    """Every view of every model that is done; the first seed's for cost and latency."""
    done = {name: there for name, paths in files.items() if (there := [each for each in paths if is_finished(each)])}
    models = [paths[0] for paths in done.values()]
    measured = measure(models, None, RUNS, choose_compute("auto", "auto"), view="all") if models else {}
    for name, paths in done.items():
        spec, card, _ = read_header(paths[0])
        stock = next(iter(relatives(spec, card.teacher_spec).values()))
        images = [(int(height), int(width)) for height, width in val.sizes]
        for view, suffix in wanted_views("all", spec, paths[0]).items():
            found = [metrics(path)[view] for path in paths]
            numbers = {each: [percent(one.get(prefix + each)) for one in found] for each in NUMBERS}
            numbers["box AP"] = [percent(one.get("AP")) for one in found]
            own, whole = (cost_of_set(*each, images).total / 1e9 for each in ((spec, view), stock))
            milliseconds = measured[f"{paths[0]}{suffix}"].milliseconds["p50"]
            yield (name, view), Line(f"{labels[name]}{suffix}", numbers, own, own / whole, milliseconds)


def is_finished(file: Path) -> bool:
    """Whether a row's training went to its end; one that was cut leaves a model file too."""
    return file.exists() and not read_header(file)[1].unfinished


def metrics(path: Path) -> dict[str, dict[str, float]]:
    """The numbers of a model's last evaluation, by view."""
    found: dict[str, dict[str, float]] = json.loads((RunFolder(path).path / "metrics.json").read_text(encoding="utf-8"))
    return found


def percent(value: float | None) -> float:
    """AP points; not a number where there are no objects of a size."""
    return float("nan") if value is None else 100 * value


def mean(values: Sequence[float]) -> float:
    """Of no values, not a number."""
    return statistics.mean(values) if values else float("nan")


def spread(values: Sequence[float]) -> str:
    """Mean, and deviation where there are several."""
    if not values or values[0] != values[0]:
        return "-"
    return f"{mean(values):.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else f"{mean(values):.1f}"


def tables(lines: Mapping[Key, Line]) -> Iterator[str]:
    """The table in Markdown."""
    only_boxes = all(each.numbers["AP"] == each.numbers["box AP"] for each in lines.values())
    names = NUMBERS if only_boxes else (*NUMBERS, "box AP")
    rows = [["model", "seeds", *names, "GMACs", "of stock H", "ms"], ["---"] * (len(names) + 5)]
    for line in lines.values():
        seeds = len(line.numbers["AP"])
        costs = (f"{line.gmacs:.2f}", f"{line.share:.2f}", f"{line.milliseconds:.1f}")
        rows.append([line.label, str(seeds), *(spread(line.numbers[name]) for name in names), *costs])
    yield "\n".join(f"| {' | '.join(row)} |" for row in rows)


def questions(lines: Mapping[Key, Line]) -> str:
    """What each control is there for."""
    return "\n".join(f"- {lines[key].label}: {asked}" for key, asked in CONTROLS.items() if key in lines)


def distillation_helps(lines: Mapping[Key, Line], method: str) -> list[str]:
    """A row of the verdicts for a method: the distilled student beside the better of those that cost as much without.

    It helps if it brings 1 AP or more, and more than two standard errors over the seeds.
    """
    there = [lines[key].numbers["AP"] for key in WITHOUT_TEACHING if key in lines]
    if len(there) < len(WITHOUT_TEACHING) or (method, "low") not in lines:
        return []
    distilled = lines[method, "low"].numbers["AP"]
    differences = [one - max(others) for one, *others in zip(distilled, *there, strict=False)]
    said = "yes" if mean(differences) >= HELPS else "no"
    if len(differences) < 2:
        said += " (one seed)"
    elif said == "yes" and mean(differences) <= 2 * statistics.stdev(differences) / len(differences) ** 0.5:
        said = "no: within two standard errors"
    what = f"distillation helps: L by {method} − the better of init-only and two schedules alone ≥ {HELPS}"
    return [f"| **{what}** | {spread(differences)} | {said} |"]


def verdicts(lines: Mapping[Key, Line], claims: Iterable[Claim]) -> str:
    """Each claim whose rows are there: the difference of the same seeds, and whether it is as large as claimed."""
    rows = ["| claim | difference | verdict |", "|---|---|---|"]
    rows += [row for method in METHODS for row in distillation_helps(lines, method)]
    for claim in claims:
        if claim.better not in lines or claim.worse not in lines:
            continue
        pairs = zip(lines[claim.better].numbers["AP"], lines[claim.worse].numbers["AP"], strict=False)
        differences = [better - worse for better, worse in pairs]
        rows.append(f"| {claim.text} | {spread(differences)} | {verdict(differences, claim.margin)} |")
    if LIGHT in lines and HIGH in lines:
        kept = mean(lines[LIGHT].numbers["AP"]) / mean(lines[HIGH].numbers["AP"])
        said = "yes" if kept >= 0.97 and lines[LIGHT].share <= 0.30 else "no"
        rows.append(f"| a student of cost ≤ 0.30 keeps ≥ 97% of vanilla H's AP | {kept:.0%} of it | {said} |")
    return "\n".join(rows)


def verdict(differences: Sequence[float], margin: float) -> str:
    """`yes` or `no` by the mean; `open` where it is nearer to the margin than its own standard error."""
    middle = mean(differences)
    said = "yes" if middle >= margin and middle > 0 else "no"
    if len(differences) < 2:
        return f"{said} (one seed)"
    error = statistics.stdev(differences) / len(differences) ** 0.5
    return f"open, rather {said}" if abs(middle - margin) < error else said


def convergence(files: Files, prefix: str) -> str:
    """AP of vanilla multi-scale's H at every evaluation of the first seed: flat, if it has converged."""
    path = RunFolder(files["vanilla"][0]).results
    if not path.exists():
        return ""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [(int(float(row["epoch"])), row.get(f"{prefix}AP/high")) for row in csv.DictReader(file)]
    found = ", ".join(f"{100 * float(ap):.1f} ({epoch})" for epoch, ap in rows if ap)
    return f"Vanilla multi-scale H, first seed, AP by epoch: {found}."
