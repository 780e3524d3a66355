"""Self-contained HTML pages: what those of ``analyze`` and of ``study report`` have in common."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; border-top: 1px solid #8886; padding-top: 1rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p.about, p.files { color: #777; margin-top: .2rem; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid #8884; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
img { max-width: 100%; height: auto; background: white; margin: .8rem 0; display: block; }
.failure { border-left: 4px solid #D55E00; padding: .3rem .8rem; }
ul.notes { color: #777; }
pre { overflow-x: auto; font-size: .82rem; }
div.wide { overflow-x: auto; }
nav a { margin-right: 1rem; }
"""


class Strong(str):
    """A table's text that stands out, such as the best value of a column."""


def document(title: str, body: Sequence[str]) -> str:
    """The text of a whole page: a heading, and lines of HTML below it. Nothing is loaded from elsewhere."""
    lines = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
        *body,
        "</body></html>",
    ]
    return "\n".join(lines) + "\n"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> list[str]:
    """Lines of HTML; texts that are :class:`Strong` stand out, columns that are ``numeric`` stand at their right."""

    def line(tag: str, texts: Sequence[str]) -> str:
        cells = []
        for text, number in zip(texts, numeric, strict=True):
            shown = f"<strong>{html.escape(text)}</strong>" if isinstance(text, Strong) else html.escape(text)
            kind = ' class="number"' if number else ""
            cells.append(f"<{tag}{kind}>{shown}</{tag}>")
        return f"<tr>{''.join(cells)}</tr>"

    return [f"<table>{line('th', headers)}", *(line("td", row) for row in rows), "</table>"]


def image(png: Path, alt: str) -> str:
    """A line of HTML with a picture inside it, and what it shows."""
    data = base64.b64encode(png.read_bytes()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'
