"""What a report is made of, and how it looks as Markdown and as HTML."""

import dataclasses
import html
from collections.abc import Sequence
from pathlib import Path

from lightning_repshape import page
from lightning_repshape.page import Strong
from lightning_repshape.runs import folder_name
from lightning_repshape.studies.cells import StudyResult


@dataclasses.dataclass(frozen=True)
class _Heading:
    text: str
    level: int
    anchor: str = ""


@dataclasses.dataclass(frozen=True)
class _Paragraph:
    text: str


@dataclasses.dataclass(frozen=True)
class _Points:
    texts: Sequence[str]


@dataclasses.dataclass(frozen=True)
class _Table:
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int  # so many columns, from the left, are no numbers


@dataclasses.dataclass(frozen=True)
class _Picture:
    file: str
    alt: str


_Part = _Heading | _Paragraph | _Points | _Table | _Picture


_TITLE = "Results of studies"


def _markdown(about: str, parts: Sequence[_Part]) -> str:
    lines = [f"# {_TITLE}", "", _plain(about), ""]
    for part in parts:
        match part:
            case _Heading(text, level, _):
                lines += ["#" * level + " " + _plain(text)]
            case _Paragraph(text):
                lines += [_plain(text)]
            case _Points(texts):
                lines += [f"- {_plain(text)}" for text in texts]
            case _Picture(file, alt):
                lines += [f"![{_plain(alt)}]({file})"]
            case _Table(headers, rows, texts):
                lines += [_row(headers), _row(["---"] * texts + ["---:"] * (len(headers) - texts))]
                lines += [_row(row) for row in rows]
        lines.append("")
    return "\n".join(lines)


def _row(texts: Sequence[str]) -> str:
    shown = [f"**{_plain(text)}**" if isinstance(text, Strong) else _plain(text) for text in texts]
    return f"| {' | '.join(shown)} |"


def _plain(text: str) -> str:
    """A text in one line, without what Markdown or HTML would take for markup."""
    text = " ".join(str(text).split())
    for sign, instead in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("*", "\\*"), ("`", "\\`")):
        text = text.replace(sign, instead)
    return text


def _html(about: str, parts: Sequence[_Part], folder: Path, studies: Sequence[StudyResult]) -> list[str]:
    links = [f'<a href="#{folder_name(study.study.id)}">{html.escape(study.study.id)}</a>' for study in studies]
    lines = [f'<p class="about">{html.escape(about)}</p>', "<nav>", *links, "</nav>"]
    for part in parts:
        match part:
            case _Heading(text, level, anchor):
                mark = f' id="{html.escape(anchor)}"' if anchor else ""
                lines.append(f"<h{level}{mark}>{html.escape(text)}</h{level}>")
            case _Paragraph(text):
                lines.append(f'<p class="about">{html.escape(text)}</p>')
            case _Points(texts):
                lines += ['<ul class="notes">', *(f"<li>{html.escape(text)}</li>" for text in texts), "</ul>"]
            case _Picture(file, alt):
                lines.append(page.image(folder / file, alt))
            case _Table(headers, rows, texts):
                numeric = [number >= texts for number in range(len(headers))]
                lines += ['<div class="wide">', *page.table(headers, rows, numeric), "</div>"]
    return lines
