"""The layouts that `msad data convert --to` writes, a line each."""

from msad_cli.data.writers import coco, voc, yolo
from msad_cli.data.writers.source import Write

WRITERS: dict[str, Write] = {
    "coco": coco.write,
    "yolo": yolo.write,
    "voc": voc.write,
}
"""By the name that is typed."""

BOXES_ALONE = frozenset({"voc"})
"""Those that hold neither masks nor keypoints."""
