"""What a report is made of, and how it looks as Markdown and as HTML."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lightning_repshape import page
from lightning_repshape.page import Strong
from lightning_repshape.runs import folder_name


class Heading(NamedTuple):
    """A heading of level 2 or 3; what has a name can be linked to."""

    text: str
    level: int
    name: str = ""


class Paragraph(NamedTuple):
    """Some sentences."""

    text: str


class Points(NamedTuple):
    """A list."""

    texts: Sequence[str]


class Table(NamedTuple):
    """A table, of whose columns the first ``texts`` hold no numbers."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int


class Picture(NamedTuple):
    """A file beside the report, and what it shows."""

    file: str
    alt: str


Part = Heading | Paragraph | Points | Table | Picture


def as_markdown(title: str, about: str, parts: Sequence[Part]) -> str:
    """A whole file of Markdown."""
    lines = [f"# {_plain(title)}", "", _plain(about), ""]
    for part in parts:
        match part:
            case Heading(text, level, _):
                lines += ["#" * level + " " + _plain(text)]
            case Paragraph(text):
                lines += [_plain(text)]
            case Points(texts):
                lines += [f"- {_plain(text)}" for text in texts]
            case Picture(file, alt):
                lines += [f"![{_plain(alt)}]({file})"]
            case Table(headers, rows, numbers_from):
                lines += [_row(headers), _row(["---"] * numbers_from + ["---:"] * (len(headers) - numbers_from))]
                lines += [_row(row) for row in rows]
        lines.append("")
    return "\n".join(lines)


def _row(texts: Sequence[str]) -> str:
    shown = [f"**{_plain(text)}**" if isinstance(text, Strong) else _plain(text) for text in texts]
    return f"| {' | '.join(shown)} |"


def _plain(text: str) -> str:
    """A text in one line, without what Markdown or HTML would take for markup."""
    text = " ".join(str(text).split())
    for sign, instead in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("*", "\\*"), ("`", "\\`"), ("](", "]\\(")):
        text = text.replace(sign, instead)
    return text


def as_html(title: str, about: str, parts: Sequence[Part], folder: Path) -> str:
    """A whole page, with the pictures that lie in a folder inside it."""
    names = [part.name for part in parts if isinstance(part, Heading) and part.name]
    links = [f'<a href="#{folder_name(name)}">{html.escape(name)}</a>' for name in names]
    lines = [f'<p class="about">{html.escape(about)}</p>', "<nav>", *links, "</nav>"]
    for part in parts:
        match part:
            case Heading(text, level, name):
                mark = f' id="{html.escape(folder_name(name))}"' if name else ""
                lines.append(f"<h{level}{mark}>{html.escape(text)}</h{level}>")
            case Paragraph(text):
                lines.append(f'<p class="about">{html.escape(text)}</p>')
            case Points(texts):
                lines += ['<ul class="notes">', *(f"<li>{html.escape(text)}</li>" for text in texts), "</ul>"]
            case Picture(file, alt):
                lines.append(page.image(folder / file, alt))
            case Table(headers, rows, numbers_from):
                numeric = [number >= numbers_from for number in range(len(headers))]
                lines += ['<div class="wide">', *page.table(headers, rows, numeric), "</div>"]
    return page.document(title, lines)
