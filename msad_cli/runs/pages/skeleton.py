"""What all pages are made of: the document with its style, headings, tables, images, charts.

Whatever is text is escaped here, or says in its name that it is HTML. A policy in the document's head forbids the
browser to load anything or to run anything, whatever a name of a class or a file holds.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from msad_cli.runs.plots.figures import svg_element
from msad_cli.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")
"""Of models, in the order of matplotlib's own."""
STYLE = """
:root{color-scheme:light dark;--text:#1f2328;--paper:#fff;--faint:#59636e;--line:#d1d9e0;--shade:#f6f8fa;--blue:#0969da}
@media(prefers-color-scheme:dark){
:root{--text:#f0f6fc;--paper:#0d1117;--faint:#9198a1;--line:#3d444d;--shade:#151b23;--blue:#4493f8}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;color:var(--text);background:var(--paper);max-width:64rem;margin:0 auto;
padding:1.5rem 1rem}
h1{font-size:1.6rem;margin:0 0 .5rem}h2{font-size:1.25rem;margin:2.2rem 0 .6rem;border-bottom:1px solid var(--line)}
h1,h2,p,figcaption{overflow-wrap:anywhere}
.verdict{font-size:1.15rem}.faint,figcaption{color:var(--faint);font-size:.9rem}figure{margin:1rem 0}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid var(--line)}
.text{text-align:left;vertical-align:top;min-width:4.5rem;max-width:32rem;overflow-wrap:break-word}
tr.chosen{font-weight:bold}
pre{background:var(--shade);padding:.8rem;overflow-x:auto;font-size:.85rem;white-space:pre-wrap;overflow-wrap:anywhere}
svg{max-width:max(100%,34rem);height:auto;color:var(--text);display:block}
svg *{stroke-linejoin:round;stroke-linecap:butt}svg text{font-family:system-ui,sans-serif!important;fill:currentColor}
img{max-width:100%;height:auto}
.bars{width:100%}.bars td{width:100%}.bars td,.bars th{padding:.3rem .5rem;text-align:left;white-space:nowrap}
.bars th{min-width:min(11rem,25vw);max-width:12rem;white-space:normal;overflow-wrap:anywhere;font-weight:normal}
.bar{display:flex;align-items:center;gap:.4rem;line-height:1.2}.bar i{display:block;height:.8rem;min-width:1px}
.key{display:inline-block;width:.8rem;height:.8rem;margin:0 .3rem 0 1rem}.key:first-child{margin-left:0}
.confusion td,.confusion th{padding:.3rem;text-align:center;border:1px solid var(--line);font-weight:normal}
.confusion td{min-width:3rem}
.confusion th{max-width:9rem;overflow-wrap:break-word}.confusion small{display:block;color:var(--faint)}
@media print{
:root{--text:#000;--paper:#fff;--faint:#444;--line:#bbb;--shade:#f4f4f4;color-scheme:light}
body{max-width:none;padding:0;font-size:11pt}h2,h2+p,h2+p+p{break-after:avoid}figure,tr,svg,img{break-inside:avoid}
.wide{overflow:visible}svg{max-width:100%}table{font-size:8pt}.text{overflow-wrap:anywhere}
.bar i,.key,.confusion td{print-color-adjust:exact;-webkit-print-color-adjust:exact}
details::details-content{content-visibility:visible;height:auto}}
"""


def document(title: str, *parts_html: str) -> str:
    """The whole page."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n<body>\n{chr(10).join(parts_html)}\n</body></html>\n"
    )


def text(words: str) -> str:
    """A text as HTML: nothing in it is a tag, ends an attribute, or turns the direction of reading."""
    return escape(printable(words))


def heading(words: str, verdict_html: Sequence[str]) -> str:
    """The top of a page: what it is of, and its verdict, sentence by sentence."""
    return f'<h1>{text(words)}</h1>\n<p class="verdict">{" ".join(verdict_html)}</p>'


def section(title: str, *parts_html: str) -> str:
    """A part of a page under its heading; nothing where it has nothing to show."""
    inside = "\n".join(filter(None, parts_html))
    return f"<section><h2>{text(title)}</h2>\n{inside}\n</section>" if inside else ""


def paragraph(words: str) -> str:
    """A remark."""
    return f'<p class="faint">{text(words)}</p>' if words else ""


def commands(lines: Sequence[str]) -> str:
    """What is typed, a line each."""
    return f"<pre>{text(chr(10).join(lines))}</pre>"


def folded(title: str, inside_html: str) -> str:
    """What is opened by a click, and printed."""
    return f"<details><summary>{text(title)}</summary>\n{inside_html}\n</details>"


def table(rows: Sequence[Sequence[str]], texts: int, chosen: Sequence[int] = ()) -> str:
    """A table whose first row is its head.

    Args:
        texts: how many of its columns, from the left, are texts; the others are numbers.
        chosen: places of rows in bold, from 1.
    """
    head, *others = rows
    body = (_row("td", row, texts, ' class="chosen"' * (place in chosen)) for place, row in enumerate(others, start=1))
    inside = f"<thead>{_row('th', head, texts)}</thead><tbody>{''.join(body)}</tbody>"
    return f'<div class="wide"><table>{inside}</table></div>'


def bars(rows: Mapping[str, Sequence[tuple[float | None, str]]], keys: Sequence[str]) -> str:
    """A group of bars for each row: shares of the whole width, each with its number; no bar where it is None.

    Args:
        keys: what the first, second … bar of each group is of.
    """
    legend = "".join(
        f'<span class="key" style="background:{COLOURS[place % len(COLOURS)]}"></span>{text(key)}'
        for place, key in enumerate(keys)
    )
    body = "".join(
        f"<tr><th>{text(name)}</th><td>{''.join(map(_bar, range(len(group)), group))}</td></tr>"
        for name, group in rows.items()
    )
    return f'<p class="faint">{legend}</p>\n<table class="bars"><tbody>{body}</tbody></table>'


def chart(draw: "Callable[[], Figure]", salt: str, caption: str = "") -> str:
    """A plot, or what is missing for it.

    Args:
        salt: as `svg_element` takes it.
    """
    try:
        inside = f'<div class="wide">{svg_element(draw(), salt)}</div>'
    except ImportError as error:
        inside = f'<p class="missing">no plot here: {text(str(error))}; pip install matplotlib, then msad plot</p>'
    return f"<figure>{inside}{_caption(caption)}</figure>"


def image(file: Path, caption: str) -> str:
    """A PNG or JPEG, inside the page; nothing where it is not there."""
    if not file.is_file():
        return ""
    kind = "png" if file.suffix == ".png" else "jpeg"
    content = base64.b64encode(file.read_bytes()).decode()
    return f'<figure><img alt="{text(caption)}" src="data:image/{kind};base64,{content}">{_caption(caption)}</figure>'


def _caption(words: str) -> str:
    return f"<figcaption>{text(words)}</figcaption>" if words else ""


def _row(tag: str, cells: Sequence[str], texts: int, of_row: str = "") -> str:
    kinds = [' class="text"'] * texts + [""] * (len(cells) - texts)
    inside = "".join(f"<{tag}{kind}>{text(each)}</{tag}>" for kind, each in zip(kinds, cells, strict=True))
    return f"<tr{of_row}>{inside}</tr>"


def _bar(place: int, of: tuple[float | None, str]) -> str:
    share, number = of
    # Beside a bar of the whole width its number has to have room.
    width = f"calc({100 * share:.2f}% - {3 * share:.2f}rem)" if share is not None else "0"
    colour = COLOURS[place % len(COLOURS)] if share is not None else "transparent"
    return f'<div class="bar"><i style="width:{width};background:{colour}"></i>{text(number)}</div>'
