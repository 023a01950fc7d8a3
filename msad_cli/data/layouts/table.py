"""The layouts of data sets that msad reads, a line each."""

from msad_cli.data.layouts import coco, demo, named_json, roboflow, single_json, voc, yolo
from msad_cli.data.layouts.base import Layout

LAYOUTS: tuple[Layout, ...] = (
    demo.LAYOUT,
    coco.LAYOUT,
    roboflow.LAYOUT,
    yolo.LAYOUT,
    voc.LAYOUT,
    named_json.LAYOUT,
    single_json.LAYOUT,
)
"""In the order in which they are asked whether a path is theirs."""
