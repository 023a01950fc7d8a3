"""The layouts of data sets that msad reads, a line each."""

from msad_cli.data.layouts import coco, demo, named_json, roboflow, single_json, voc, voc_flat, yolo, yolo_plain
from msad_cli.data.layouts.base import Layout

LAYOUTS: tuple[Layout, ...] = (
    demo.LAYOUT,
    coco.LAYOUT,
    roboflow.LAYOUT,
    yolo.LAYOUT,
    voc.LAYOUT,
    yolo_plain.LAYOUT,
    named_json.LAYOUT,
    single_json.LAYOUT,
    voc_flat.LAYOUT,
)
"""In the order in which they are asked whether a path is theirs."""
