"""msad flops: what student, teacher and the stock detector cost, head included."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msad_cli.cli import options
from msad_cli.models.detectors.kinds import DETECTORS, PUBLISHED_HEAD, task_of, usual_head
from msad_cli.text import parse_ks, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from msad_cli.models.cost import Cost
    from msad_cli.models.spec import DetectorSpec


COCO_CLASSES = 80
PERSON = tuple(str(number) for number in range(1, 18))
"""Without MODEL: as many keypoints as a person has in COCO."""


def flops(
    model: Annotated[
        Path | None, typer.Argument(metavar="[MODEL]", help="A model file; or describe one by flags.")
    ] = None,
    detector: Annotated[str, typer.Option(metavar="|".join(DETECTORS), help="Without MODEL: the detector.")] = "fcos",
    backbone: Annotated[str, typer.Option(metavar="NAME", help="Without MODEL: the backbone.")] = "resnet50",
    width: Annotated[float, typer.Option(help="Without MODEL: factor on the backbone's channels.")] = 1.0,
    head_channels: Annotated[int | None, typer.Option(help="Without MODEL: channels of pyramid and head.")] = None,
    head_convs: Annotated[int | None, typer.Option(help="Without MODEL: convolutions of each tower.")] = None,
    head_depthwise: options.Depthwise = False,
    k: Annotated[
        str, typer.Option(metavar="1|2|4|1,2", help="Without MODEL: what the student sees; of several, a fusion.")
    ] = "2",
    unaligned: Annotated[
        bool, typer.Option("--unaligned", help="Without MODEL: an ordinary student of the small image.")
    ] = False,
    low_backbone: Annotated[
        str, typer.Option(metavar="NAME", help="Without MODEL: of a fusion student's small image.")
    ] = "",
    low_width: Annotated[float, typer.Option(help="Without MODEL: of a fusion student's small image.")] = 1.0,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Without MODEL: number of classes. Default: those of --data, else 80.")
    ] = None,
    size: Annotated[list[str] | None, typer.Option(metavar="SHORT,LONG", help="HR size; may be repeated.")] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="DIR|demo", help="Average over its validation images. Default: the model's own set."),
    ] = None,
    unpadded: Annotated[
        bool, typer.Option("--unpadded", help="Count image pixels without padding, as papers do.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Count parameters and GMACs by part: student beside teacher beside torchvision's stock model."""
    from msad_cli.cli.console import console
    from msad_cli.cli.output.json_output import cost_json, model_json, print_models
    from msad_cli.cli.output.tables import print_table
    from msad_cli.data.layouts.image_sizes import image_sizes
    from msad_cli.export.formats import images_of, read_description
    from msad_cli.models.cost import cost_of_set, relatives
    from msad_cli.models.spec import ClassName, DetectorSpec, usual_divisor
    from msad_cli.training.plan import invalid_values_named

    teacher, own, own_head = None, data or "", usual_head(detector, backbone, width, PUBLISHED_HEAD)
    if model is not None:
        spec, card = read_description(model)
        teacher, own, images = card.teacher_spec, data or card.data, images_of(model, data)
    else:
        images = image_sizes(data) if data else []
        with invalid_values_named("msad flops --help lists the values"):
            spec = DetectorSpec(
                role="student",
                detector=detector,
                backbone=backbone,
                width=width,
                channels=head_channels or own_head[0],
                head_convs=head_convs or own_head[1],
                norm="frozen",
                scales="single" if unaligned else "aligned",
                ks=parse_ks("--k", k),
                divisor=usual_divisor("single" if unaligned else "aligned", parse_ks("--k", k)),
                resolution=parse_size("800,1333"),
                classes=tuple(
                    ClassName(i, str(i)) for i in range(1, (classes or classes_of(data) or COCO_CLASSES) + 1)
                ),
                head_depthwise=head_depthwise,
                low_backbone=low_backbone,
                low_width=low_width,
                keypoints=PERSON if task_of(detector) == "keypoints" else (),
            )
    rows = relatives(spec, teacher)
    models, count = [], len(images) or 1
    for text in size or [f"{spec.resolution.short_side},{spec.resolution.long_side}"]:
        of_size = {name: (replace(of, resolution=parse_size(text)), view) for name, (of, view) in rows.items()}
        costs = {name: cost_of_set(of, view, images, not unpadded) for name, (of, view) in of_size.items()}
        for name, cost in costs.items():
            of, view = rows[name]
            file = model if of == spec else None  # the others are what it is compared with
            models.append(model_json(name, file, view, size=text, images=count, **cost_json(cost)))
        if not as_json:
            over = f"mean of {count} images of {own}" if count > 1 else "one image"
            print_table(f"{spec.detector}, {spec.backbone} × {spec.width:g}, HR {text}, {over}", _rows(costs))
    if as_json:
        print_models("flops", models)
    else:
        for line in _remarks(spec, unpadded):
            console.print(line)


def _remarks(spec: "DetectorSpec", unpadded: bool) -> "Iterator[str]":
    """What is counted, in words."""
    kind = "the pixels of the images alone" if unpadded else f"padding to {spec.divisor} HR pixels included"
    yield f"GMACs, one image, {kind}; GFLOPs = 2 × GMACs. The aligned head runs on the HR grid at every k."
    if spec.two_stage:
        from msad_cli.models.detectors.two_stage import PROPOSALS

        yield (
            f"roi: {PROPOSALS} RoIs for boxes, {spec.detections_per_image} for {spec.task}. They cost the same at "
            "every k: where they are most of the cost, a student saves little of it."
        )


def classes_of(data: str | None) -> int:
    """How many classes a set has; 0 for none."""
    from msad_cli.data.annotations.records import read_records
    from msad_cli.data.layouts.splits import find_split

    if data is None:
        return 0
    files = find_split(data, "train")
    return len(read_records(files.annotations, files.images, root=files.root).categories)


def _rows(costs: dict[str, "Cost"]) -> list[list[str]]:
    """The table, its first row being the head."""
    first = next(iter(costs.values()))
    rows = [["model", "GMACs", "GFLOPs", "ratio", "params, M", *first.macs]]
    for name, cost in costs.items():
        giga, parameters = cost.total / 1e9, sum(cost.parameters.values()) / 1e6
        numbers = (giga, 2 * giga, cost.total / first.total, parameters, *(each / 1e9 for each in cost.macs.values()))
        rows.append([name, *(f"{each:.2f}" for each in numbers)])
    return rows
