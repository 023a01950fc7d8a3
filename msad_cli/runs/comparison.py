"""Models side by side: what their files say, what they cost, and how long they were measured to take."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from msad_cli.evaluation.pareto import Point
from msad_cli.export.formats import images_of, is_exported, read_description
from msad_cli.export.sidecar import read_exported
from msad_cli.models.model_file import Card
from msad_cli.models.spec import DetectorSpec, View
from msad_cli.models.views import image_of_k, wanted_views
from msad_cli.runs.folder import RunFolder, json_text
from msad_cli.runs.members import read_record
from msad_cli.system.files import write_text

Row = dict[str, float | str | None]
ACCURACY = ("AP", "APs", "APm", "APl")
OTHER_KINDS = ("mask_AP", "keypoint_AP")
"""Of models that find more than boxes."""
COPIED = "AP is that of its model"
"""Of an exported model whose AP was not measured: msad export --data measures it."""
LEAST_GAP = 0.01
"""AP. Shares of a smaller gap would be shares of chance."""


@dataclass(frozen=True)
class Comparison:
    """Models side by side.

    Attributes:
        rows: by name of a model and, where it has several, its view: `student`, `teacher, fused`.
        where: on what machine latencies were measured; empty where none were.
    """

    rows: Mapping[str, Row]
    where: str = ""


def write_comparison(folder: RunFolder, comparison: Comparison) -> None:
    """Writes compared.json."""
    write_text(folder.compared, json_text(asdict(comparison)))


def read_comparison(folder: RunFolder) -> Comparison:
    """That of compared.json; one without rows where there is none.

    Raises:
        UsageError: it is damaged.
    """
    values = read_record(folder.compared)
    rows = values.get("rows")
    return Comparison(
        {
            str(name): {
                str(column): each
                for column, each in row.items()
                if each is None or (isinstance(each, int | float | str) and not isinstance(each, bool))
            }
            for name, row in (rows.items() if isinstance(rows, dict) else ())
            if isinstance(row, dict)
        },
        str(values.get("where", "")),
    )


def table_rows(models: Sequence[Path], view: str | None, measured: Mapping[str, float]) -> dict[str, Row]:
    """What the files say of models, and their latencies, by short names.

    Args:
        measured: milliseconds, by a model's file and what `wanted_views` has behind it.
        view: None for each model's best, `all` for each of its views.

    Raises:
        ModelFileError: a model cannot be read.
        UsageError: one has no such view.
    """
    rows: dict[str, Row] = {}
    for path, name in short_names(models).items():
        spec, card = read_description(path)
        images = images_of(path)
        copied = card.scores is not None and is_exported(path) and read_exported(path).copied
        for each, suffix in wanted_views(view, spec, path).items():
            row = {**_row(spec, card, each, images), "ms": measured.get(f"{path}{suffix}")}
            # Nobody has measured what the graph makes of it.
            rows[f"{name}{suffix}"] = {**row, "what": f"{row['what']}; {COPIED}"} if copied else row
    return rows


def short_names(models: Sequence[Path]) -> dict[Path, str]:
    """A name for each file: its own without folder and suffix, or with its suffix, if no other has the same."""
    stems, names = [path.stem for path in models], [path.name for path in models]
    return {
        path: path.stem if stems.count(path.stem) == 1 else path.name if names.count(path.name) == 1 else str(path)
        for path in models
    }


def _row(spec: DetectorSpec, card: Card, view: View, images: Sequence[tuple[int, int]]) -> Row:
    """What the file says of a model's view, and its cost."""
    from msad_cli.models.cost import cost_of_set

    scores = (card.scores or {}).get(view, {})
    cost = cost_of_set(spec, view, images)
    parts = {f"{part}_gmacs": macs / 1e9 for part, macs in cost.macs.items() if macs}
    sees = " + ".join(map(image_of_k, spec.ks_of(view)))
    head = f"head {spec.channels} × {spec.head_convs}{' depthwise' if spec.head_depthwise else ''}"
    network = f"{spec.role}, {spec.detector} {spec.backbone} × {spec.width:g}, {head}, {sees}"
    accuracy = {name: scores.get(name) for name in (*ACCURACY, *(each for each in OTHER_KINDS if each in scores))}
    return {"what": network, **accuracy, "GMACs": cost.total / 1e9, **parts}


def add_gap(rows: Mapping[str, Row]) -> str:
    """Adds to each row the share of the way from the first one's AP to the best one's; says what way that is."""
    known = {name: row["AP"] for name, row in rows.items() if isinstance(row["AP"], float)}
    first, best = next(iter(rows)), max(known, key=lambda name: known[name], default="")
    way = known[best] - known[first] if first in known else 0.0
    for name, row in rows.items():
        row["gap_closed"] = (known[name] - known[first]) / way if name in known and way >= LEAST_GAP else None
    if way <= 0:
        return ""
    verdict = "" if way >= LEAST_GAP else ": too little to say what share of it is closed"
    return f"the gap is that from {first}, AP {100 * known[first]:.1f}, to {best}, AP {100 * known[best]:.1f}{verdict}"


def points_of(rows: Mapping[str, Row]) -> dict[str, Point]:
    """AP and latency of those of which both are known."""
    both = {name: (row.get("ms"), row.get("AP")) for name, row in rows.items()}
    return {name: Point(ms, ap) for name, (ms, ap) in both.items() if isinstance(ms, float) and isinstance(ap, float)}


def several_sets(models: Sequence[Path]) -> str:
    """What there is to say of models that were trained on different sets; empty where all were on one."""
    sets = {read_description(path)[1].data_fingerprint: path for path in models}
    sets.pop("", None)  # nobody knows
    if len(sets) < 2:
        return ""
    one, other, *_ = sets.values()
    return f"{one} and {other} were trained on different sets: their AP is of different images"


def columns_of(rows: Mapping[str, Row]) -> list[str]:
    """The names of what is known of rows, what matters most first."""
    names = dict.fromkeys(name for row in rows.values() for name in row)
    time = ["ms"] if any(row.get("ms") is not None for row in rows.values()) else []
    # Of the first model and the best one it is 0 and 1, which says nothing.
    gap = ["gap_closed"] if sum(row.get("gap_closed") is not None for row in rows.values()) > 2 else []
    first, *sizes = ACCURACY
    kinds = [name for name in OTHER_KINDS if name in names]
    parts = [name for name in names if name.endswith("_gmacs")]
    return [first, *kinds, *sizes, "GMACs", *time, *gap, "what", *parts]


def table_cells(rows: Mapping[str, Row], columns: Sequence[str]) -> list[list[str]]:
    """These columns as a table of texts, models down, its first row being the head."""
    head = ["model", *(name.removesuffix("_gmacs").replace("_", " ") for name in columns)]
    return [head, *([name, *(_cell(each, row.get(each)) for each in columns)] for name, row in rows.items())]


def _cell(name: str, value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or "-"
    if name == "gap_closed":
        return f"{100 * value:.0f}%"
    return f"{100 * value:.1f}" if name in (*ACCURACY, *OTHER_KINDS) else f"{value:.2f}"


def advice(rows: Mapping[str, Row], name: str | None, points: Mapping[str, Point], budget: float) -> str:
    """Which model to ship for a budget of milliseconds, in words; `name` is the one, if there is one."""
    if not points:
        return "no model says its AP: there is none to ship"
    if name is None:
        fastest = min(points, key=lambda each: points[each].milliseconds)
        return f"none takes {budget:g} ms or less; the fastest, {fastest}, takes {points[fastest].milliseconds:.1f}"
    point = points[name]
    return f"for {budget:g} ms: {name}, AP {100 * point.ap:.1f} in {point.milliseconds:.1f} ms ({rows[name]['what']})"
