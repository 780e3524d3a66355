"""What a report is made of, and how it looks as Markdown and as HTML."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from lightning_repshape import page
from lightning_repshape.page import Card, Strong
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


class Summary(NamedTuple):
    """The figures that matter, for the top."""

    cards: Sequence[Card]


Part = Heading | Paragraph | Points | Table | Picture | Summary


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
            case Summary(cards):
                lines += [f"- {_plain(f'{card.label}: {card.value}. {card.meaning}')}" for card in cards]
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
    chapters = 2 if sum(isinstance(part, Heading) and part.level == 2 for part in parts) > 1 else 3
    sections: list[page.Section] = []
    lines: list[str] = []
    for _, group in groupby(parts, type):
        members = list(group)
        pictures = [page.Shown(folder / own.file, own.alt) for own in members if isinstance(own, Picture)]
        lines += page.gallery(pictures)  # side by side
        for part in members:
            match part:
                case Heading(text, level, name) if level <= chapters:
                    lines = []
                    sections.append(page.Section(folder_name(name or text), text, lines))
                case Heading(text, _, _):
                    lines.append(page.heading(text))
                case Paragraph(text):
                    lines.append(page.paragraph(text))
                case Points(texts):
                    lines += page.notes(texts)
                case Table(headers, rows, numbers_from):
                    lines += page.table(headers, rows, [number >= numbers_from for number in range(len(headers))])
    cards = [card for part in parts if isinstance(part, Summary) for card in part.cards]
    return page.document(title, sections, about=[about], cards=cards)
