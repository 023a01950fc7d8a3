"""The layouts that `msad data convert --to` writes, a line each."""

from msad_cli.data.writers import coco, yolo
from msad_cli.data.writers.source import Write

WRITERS: dict[str, Write] = {
    "coco": coco.write,
    "yolo": yolo.write,
}
"""By the name that is typed."""
