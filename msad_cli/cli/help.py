"""How commands show their flags: in panels, the same in every command, with an example below."""

from typing import Any

from typer.core import TyperCommand, TyperGroup

PANELS = {
    "Data": """data train_json val_json train_images val_images split images task inputs
        crowd_as_objects join_classes max_pixels bits exif cache sigmas decode tile overlap every train val""",
    "Network": """k detector backbone width low_backbone low_width head_channels head_convs head_depthwise size init
        init_partial norm head_norm scales phase fusion aligned unaligned classes model view stock score nms_iou
        agnostic max_detections lowest_score candidates int8 fixed""",
    "Distillation": """teacher teacher_epochs teacher_backbone control no_distill method weight cache_teacher afp
        assistant_method detection_weight gamma tau distill_warmup unlabelled unlabelled_share""",
    "Schedule": """epochs time budget_time batch lr decay warmup clip freeze class_weights optimizer ema eval_every
        patience strategy lambda_ rois""",
    "Augmentation": "augment fliplr flipud turn zoom photo mosaic mixup",
    "Machine": "device precision workers threads compile_ runtime",
    "Run": """out to form save stdout budget runs plot markdown report predictions evaluator per_class fail_under
        unpadded strict fix seed keep resume finish overwrite checkpoint log dry_run quiet as_json""",
}
"""The parameters of all commands, by the title that they stand under."""
_PANEL_OF = {name: title for title, names in PANELS.items() for name in names.split()}
FIRST, LAST = ("Arguments",), ("Options", "Commands")
"""Panels of what a command is called with, and of what every command has."""
WIDEST = 100
"""Columns, beyond which lines are hard to read."""
NUMBER = "N"
"""What stands for a value, unless a flag says more."""


def _print_help(command: Any, context: Any) -> None:
    """Usage, panels and an example. Names of flags stay whole, which Typer cuts on a narrow screen."""
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    from msad_cli.cli.console import results

    panels: dict[str, list[tuple[str, str]]] = {title: [] for title in (*FIRST, *PANELS, *LAST)}
    for each in command.get_params(context):
        if not each.hidden:
            panels[_title(each)].append(_row(each, context))
    for name in getattr(command, "commands", ()):
        panels["Commands"].append((name, command.commands[name].get_short_help_str(limit=1000)))
    width = min(results.width, WIDEST)
    results.print(Text(f"{command.get_usage(context)}\n\n{command.help}\n"), width=width)
    for title, rows in panels.items():
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, style="bold cyan")
        table.add_column()
        for name, words in rows:
            table.add_row(Text(name), Text(words))
        if rows:
            results.print(Panel(table, title=title, title_align="left", border_style="dim", width=width))
    if command.epilog:
        results.print(Text(f"\n{command.epilog}"), width=width)


def _title(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return FIRST[0]
    return parameter.rich_help_panel or _PANEL_OF.get(parameter.name, LAST[0])


def _row(parameter: Any, context: Any) -> tuple[str, str]:
    """The names of a parameter, and what it takes and does."""
    if parameter.param_type_name == "argument":
        return parameter.metavar, parameter.help
    _, words = parameter.get_help_record(context)
    names = "/".join(", ".join(each) for each in (parameter.opts, parameter.secondary_opts) if each)
    # A switch takes nothing, whatever Typer writes behind it.
    taken = "" if parameter.is_flag else f"{parameter.metavar or NUMBER}: "
    return names, taken + words.replace("\\[", "[")


class Command(TyperCommand):
    """A command whose flags stand in panels."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _print_help(self, ctx)


class Group(TyperGroup):
    """A command that has others, and shows its help where none of these is typed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _print_help(self, ctx)
