"""Shared by tests: run folders of a student, its teacher and its control, which nobody trained; and pages, parsed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from msad_cli.evaluation.curves import STEPS, OverScore, PrecisionRecall
from msad_cli.models.detector import Detector
from msad_cli.models.model_file import Card, save_model
from msad_cli.runs.comparison import Comparison, Row, write_comparison
from msad_cli.runs.folder import RunFolder
from msad_cli.runs.run_curves import SIZE_EDGES, RunCurves, write_curves
from msad_cli.system.files import fingerprint

VOID = ("meta", "link", "img", "br")
CLASSES = ("red", "blue")
COUNTS = ((6, 1, 3), (0, 4, 4), (2, 5, 0))
"""Of ten red objects six are found, one is taken for a blue one, three are missed; of eight blue ones half are."""
ROWS: dict[str, Row] = {
    "student": {"what": "small", "AP": 0.557, "GMACs": 0.25, "ms": 10.0},
    "teacher, fused": {"what": "large", "AP": 0.564, "GMACs": 1.0, "ms": 20.0},
}


class Page(HTMLParser):
    """A page's elements and texts.

    Attributes:
        elements: names and attributes, in order.
        tables: rows of texts of each table.
        texts: of each element without elements inside, by the name of the element.
        unclosed: elements that were not closed, or not in order.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.unclosed: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        self.unclosed += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unclosed.append(tag)

    def handle_data(self, data: str) -> None:
        if not data.strip() or not self.open:
            return
        self.texts.append((self.open[-1], data.strip()))
        if {"td", "th"} & set(self.open):
            cell = self.tables[-1][-1]
            cell[-1] = f"{cell[-1]} {data.strip()}".strip()

    def of(self, tag: str) -> list[str]:
        """The texts of all elements of a name."""
        return [text for name, text in self.texts if name == tag]


def curves(classes: Sequence[str] = CLASSES, counts: Any = COUNTS, view: str = "low") -> RunCurves:
    """Of a model that finds less and less, in as many shares as there are classes."""
    falling = np.linspace(1, 0, len(STEPS))
    return RunCurves(
        view=view,
        precision={"boxes": PrecisionRecall(falling, falling / 2, dict.fromkeys(classes, falling))},
        over_score=OverScore(falling, falling, falling),
        threshold=0.4,
        f1=0.6,
        classes=tuple(classes),
        confusion=np.array(counts),
        sizes=np.arange(len(SIZE_EDGES) - 1),
        size_ap={view: np.array([0.1, 0.2, 0.3])},
        fusion=None,
    )


def write_run(
    model: Path,
    view: str,
    ap: float,
    per_class: Mapping[str, Mapping[str, float | None]],
    settings: dict[str, Any],
    found: RunCurves | None,
) -> RunFolder:
    """A run folder of two epochs that ended at this AP."""
    folder = RunFolder(model)
    for epoch, share in ((1, 0.5), (2, 1.0)):
        folder.add_row({"epoch": epoch, "loss/total": 2 - share, f"val_loss/{view}": 1.5, f"AP/{view}": share * ap})
    numbers = {"AP": ap, "AP50": ap, "AP75": ap / 2, "APs": None, "APm": ap / 2, "APl": ap}
    folder.finish({view: {**numbers, "per_class": per_class, "threshold": 0.4}})
    values = {name: {"value": value, "source": "flag", "reason": ""} for name, value in settings.items()}
    (folder.path / "args.json").write_text(json.dumps(values))
    (folder.path / "env.json").write_text(json.dumps({"msad": "1", "command": ["/x/msad", "distill", "--k", "2"]}))
    folder.log("the weights of nobody")
    if found is not None:
        write_curves(folder.curves, found)
    return folder


def family(folder: Path, student: Detector, teacher: Detector, classes: Sequence[str] = CLASSES) -> Path:
    """A student's file of 55.7 AP with its run folder, its teacher's of 56.4, and its control's of 55.6."""
    places = {name: folder / f"{name}.safetensors" for name in ("student", "teacher", "plain")}
    save_model(places["teacher"], teacher, Card(scores={"fused": {"AP": 0.564}}))
    card = Card(teacher=fingerprint(places["teacher"]), data_fingerprint="d", teacher_spec=teacher.spec)
    for name, view, ap in (("student", "low", 0.557), ("plain", "low", 0.556), ("teacher", "fused", 0.564)):
        if name != "teacher":
            save_model(places[name], student, replace(card, scores={view: {"AP": ap}}))
        found = {of: {"AP": ap / (2 + place), "AP50": ap} for place, of in enumerate(classes)}
        known = {} if name == "teacher" else {"teacher": str(places["teacher"])}
        write_run(places[name], view, ap, found, known, curves(classes) if name == "student" else None)
    write_comparison(RunFolder(places["student"]), Comparison(ROWS, "device cpu"))
    return places["student"]
