"""Records recording.svg, the screen of quickstart.md: `python docs/make_recording.py` (some minutes on a CPU).

The commands run as they stand here, on the drawn set, in a folder that is thrown away. The SVG shows what they print,
and a mark where lines are left out. Commands appear one after another, once; for readers who want no motion, at once.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from io import StringIO
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

RECORDING = Path(__file__).parent / "recording.svg"


class Shot(NamedTuple):
    """A command, and which lines of its output are shown: those in which a pattern is found, of an empty one all."""

    command: str
    kept: str


SHOTS = (
    Shot("msad data demo -o shapes", ""),
    Shot(
        "msad teacher --data shapes --detector fcos --size 96,96 --width 0.25 --epochs 4",
        r"^epoch \d|^best view|^report|^next",
    ),
    Shot("msad distill --teacher teacher.safetensors --epochs 2", r"^weights|^epoch \d|^student\.|^cost|^report|^next"),
    Shot("msad eval student.safetensors", ""),
    Shot("msad predict shapes/val2017/000000000001.jpg", ""),
)
COLUMNS = 56
LINE, CELL, MARGIN = 24.4, 12.2, 14
"""Pixels: a line's height and a character's width as rich draws them, and the space around all."""
PAUSE = 1.5
"""Seconds from one command to the next."""
PROMPT = "\x1b[1;32m$\x1b[0m "
STYLE = """
.paper { fill: #292929 }
text { font: 20px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre }
.shot { animation: appear 0.3s backwards }
@keyframes appear { from { opacity: 0 } }
@media (prefers-reduced-motion: reduce) { .shot { animation: none } }"""
PART = "<style>{styles}</style>{backgrounds}{matrix}"
SPARE = re.compile(r' clip-path="[^"]*"|<text [^>]*>\n</text>')
"""What of rich's own SVG is taken, and what of that is not needed. Its fonts would come from elsewhere."""


def printed(command: str, folder: Path) -> str:
    """What a command writes to a screen of `COLUMNS` characters, with its colours."""
    screen = {"FORCE_COLOR": "1", "TTY_INTERACTIVE": "0", "COLUMNS": str(COLUMNS)}
    words = [sys.executable, "-m", "msad_cli", *command.split()[1:]]
    environment = {**os.environ, **screen, "PYTHONPATH": str(Path(__file__).parents[1])}
    pipe, out = subprocess.PIPE, subprocess.STDOUT
    done = subprocess.run(words, cwd=folder, env=environment, encoding="utf-8", check=True, stdout=pipe, stderr=out)
    return done.stdout


def shown(shot: Shot, output: str) -> list[Text]:
    """The lines of a shot: its command, and of its output what is shown, with a mark where lines are left out."""
    console = Console(width=COLUMNS)
    wanted = Text.from_ansi(PROMPT + shot.command).wrap(console, COLUMNS)
    lines = Text.from_ansi(output.strip()).split()
    for kept, group in groupby(lines, lambda line: re.search(shot.kept, line.plain) is not None):
        if kept:
            wanted.extend(part for line in group for part in line.wrap(console, COLUMNS))
        else:
            wanted.append(Text("⋮", style="dim"))
    return list(wanted)


def drawn(number: int, lines: list[Text]) -> str:
    """Lines as an SVG's group, whose ids and classes no other shot has."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), color_system="truecolor", force_terminal=True)
    for line in lines:
        console.print(line, no_wrap=True, crop=True)
    return SPARE.sub("", console.export_svg(code_format=PART, unique_id=f"shot{number}"))


def recording(outputs: list[str]) -> str:
    """The SVG of what the commands wrote, in their order."""
    groups, top = [], float(MARGIN)
    for number, (shot, output) in enumerate(zip(SHOTS, outputs, strict=True)):
        lines = shown(shot, output)
        place = f'style="animation-delay: {number * PAUSE}s" transform="translate({MARGIN} {top:.1f})"'
        groups.append(f'<g class="shot" {place}>{drawn(number, lines)}</g>')
        top += LINE * (len(lines) + 1)
    width, height = COLUMNS * CELL + 2 * MARGIN, top - LINE + MARGIN
    told = "; ".join(each.command for each in SHOTS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
        f"<title>A terminal: {told}</title>",
        f"<style>{STYLE}\n</style>",
        f'<rect class="paper" width="{width:.0f}" height="{height:.0f}" rx="12"/>',
        *groups,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def recorded() -> Iterator[str]:
    """Runs the commands one after another, and gives what each wrote."""
    with tempfile.TemporaryDirectory() as folder:
        for shot in SHOTS:
            print(shot.command, flush=True)
            yield printed(shot.command, Path(folder))


if __name__ == "__main__":
    RECORDING.write_text(recording(list(recorded())), encoding="utf-8")
