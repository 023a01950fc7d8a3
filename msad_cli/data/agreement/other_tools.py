"""JSON files that are not COCO's: by which tool, and which of its exports msad reads."""

from collections.abc import Callable
from typing import Any

COCO = "export the set as COCO there, or as YOLO or Pascal VOC"


def _keys(value: Any) -> set[str]:
    """The keys of an object, or of the first object of a list or of another object's values."""
    if isinstance(value, dict):
        return set(map(str, value))
    first = value[0] if isinstance(value, list) and value else None
    return set(map(str, first)) if isinstance(first, dict) else set()


def _entries(value: Any) -> set[str]:
    """The keys of the first value of an object, if it is an object."""
    first = next(iter(value.values()), None) if isinstance(value, dict) else None
    return set(map(str, first)) if isinstance(first, dict) else set()


def _is_via(value: Any) -> bool:
    return "_via_img_metadata" in _keys(value) or {"filename", "regions"} <= _entries(value)


TOOLS: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("VGG Image Annotator (VIA)", "there, Annotation, Export Annotations (COCO format)", _is_via),
    (
        "labelme, which writes a file for each image",
        "make one COCO file of them: the command labelme2coco does",
        lambda value: {"shapes", "imagePath"} <= _keys(value),
    ),
    (
        "Label Studio (its own JSON)",
        COCO,
        lambda value: isinstance(value, list) and bool({"data", "annotation_id"} & _keys(value)),
    ),
    (
        "CreateML",
        "convert it to COCO, or export the set as COCO from the tool that wrote it",
        lambda value: isinstance(value, list) and {"image", "annotations"} <= _keys(value),
    ),
    (
        "a detector: COCO's results, not its annotations",
        "give the annotation file, such as instances_val2017.json",
        lambda value: isinstance(value, list) and {"image_id", "score"} <= _keys(value),
    ),
    ("Scalabel or BDD100K", COCO, lambda value: isinstance(value, list) and {"name", "labels"} <= _keys(value)),
    ("Labelbox (its own JSON)", COCO, lambda value: bool({"Labeled Data", "data_row"} & _keys(value))),
    (
        "datumaro (its own JSON)",
        "datum convert … -f coco_instances",
        lambda value: {"items", "categories"} <= _keys(value),
    ),
    (
        "Supervisely (its own JSON)",
        COCO,
        lambda value: (
            isinstance(value, dict) and ({"objects", "size"} <= set(value) or {"classes", "tags"} <= set(value))
        ),
    ),
    ("V7 Darwin (its own JSON)", COCO, lambda value: {"item", "annotations"} <= _keys(value)),
    (
        "a GIS: GeoJSON",
        "export the set as COCO from the tool that cut the images",
        lambda value: isinstance(value, dict) and value.get("type") == "FeatureCollection",
    ),
)
"""What wrote a file, which export to take, and how it is known; the first that fits."""


def other_tool(value: Any) -> tuple[str, str] | None:
    """Whose a JSON document is and what to take in its place; None where nobody knows."""
    return next(((name, advice) for name, advice, fits in TOOLS if fits(value)), None)
