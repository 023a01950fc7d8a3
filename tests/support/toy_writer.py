"""Writes the toy layout of toy_layout.py, as a file of its own in data/writers/ would."""

from collections.abc import Mapping
from pathlib import Path

from msad_cli.data.writers.source import Notes, Source, copy_images


def write(folder: Path, splits: Mapping[str, Source]) -> Notes:
    notes = Notes()
    lines = []
    for of in splits.values():
        copy_images(of, folder, notes)
        rows = of.records.annotations
        lines += [f"{of.places[i]} {' '.join(map(str, box))}\n" for i, box in zip(rows.images, rows.boxes, strict=True)]
        notes["names of classes, left out"] += len(rows)
    (folder / "boxes.txt").write_text("".join(lines))
    return notes
