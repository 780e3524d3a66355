"""Self-contained HTML pages: the one design of those of ``analyze``, ``compare`` and ``study report``.

Texts are escaped here. A page loads nothing, from anywhere: its own script is the only one that its policy lets run,
and all it does is sort tables and enlarge figures, without which the page can be read just as well.
"""

import base64
import hashlib
import html
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1f24; --soft: #5c6570; --line: #d9dde2; --card: #f5f7f9;
  --accent: #0063a0; --bad: #c04c00; }
@media (prefers-color-scheme: dark) { :root { --back: #15181c; --text: #e4e7ea; --soft: #a0a8b1; --line: #363c43;
  --card: #1e2227; --accent: #6cb8ee; --bad: #f08c4a; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 1rem; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 72rem; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 0 0 .6rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
a { color: var(--accent); }
p { margin: .3rem 0 .7rem; max-width: 46rem; }
p.about, p.files, ul.notes, figcaption, footer { color: var(--soft); }
p.files, figcaption, footer { font-size: .86rem; }
ul.notes { padding-left: 1.2rem; margin: .4rem 0 .8rem; max-width: 46rem; }
.failure { border-left: 4px solid var(--bad); padding: .3rem .8rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(13rem, 100%), 1fr)); gap: .8rem;
  margin: 1.2rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem;
  max-width: 28rem; }
.card p { margin: 0; font-size: .86rem; line-height: 1.4; }
.card p.label { color: var(--soft); font-weight: 600; }
.card p.value { font-size: 1.5rem; line-height: 1.4; font-variant-numeric: tabular-nums; }
.card p.source { color: var(--soft); margin-top: .4rem; }
nav { margin: 1rem 0; padding: .6rem 0; border: solid var(--line); border-width: 1px 0; font-size: .92rem; }
nav a { display: inline-block; margin-right: 1.1rem; padding: .15rem 0; text-decoration: none; }
nav a:hover { text-decoration: underline; }
section { border-top: 1px solid var(--line); margin-top: 2rem; padding-top: 1.2rem; }
main { min-width: 0; }
main > section:first-child { border: 0; margin-top: 0; padding-top: 0; }
div.wide { overflow-x: auto; margin: .3rem 0 1rem; }
div.long { overflow-y: auto; max-height: 36rem; }
thead th { position: sticky; top: 0; background: var(--back); }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
td { min-width: 4rem; }
th { vertical-align: bottom; }
.number { text-align: right; }
td.number { white-space: nowrap; }
th[tabindex] { cursor: pointer; }
th[tabindex]:hover { color: var(--accent); }
th[aria-sort="ascending"]::after { content: " ▲"; font-size: .7em; }
th[aria-sort="descending"]::after { content: " ▼"; font-size: .7em; }
.gallery { display: grid; grid-template-columns: minmax(0, 1fr); gap: 1rem; margin: .8rem 0; align-items: start; }
figure { margin: 0; min-width: 0; break-inside: avoid; }
figure img { display: block; width: 100%; max-height: 34rem; object-fit: contain; background: #fff; padding: .5rem;
  border: 1px solid var(--line); border-radius: 8px; }
.gallery:not(.two) figure { max-width: 56rem; }
figure img[role] { cursor: zoom-in; }
dialog { border: 0; border-radius: 8px; padding: .5rem; background: #fff; color: #1b1f24; max-width: 96vw;
  max-height: 96vh; }
dialog::backdrop { background: #000a; }
dialog img { display: block; max-width: 100%; max-height: calc(96vh - 4rem); margin: auto; cursor: zoom-out; }
dialog button { font: inherit; font-size: .86rem; display: block; margin: .3rem 0 0 auto; }
pre { overflow-x: auto; font-size: .82rem; }
summary { cursor: pointer; color: var(--soft); }
details { margin: .6rem 0; }
footer { border-top: 1px solid var(--line); margin-top: 2.5rem; padding-top: .8rem; }
@media screen and (prefers-color-scheme: dark) { figure img { filter: brightness(.86); } }
@media (min-width: 900px) { .gallery.two { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
@media (min-width: 1200px) {
  body { max-width: 92rem; padding: 2rem; }
  .beside { display: grid; grid-template-columns: 13rem minmax(0, 1fr); gap: 2.5rem; align-items: start; }
  nav { position: sticky; top: 1rem; max-height: calc(100vh - 2rem); overflow-y: auto; margin: 0; padding: 0;
    border: 0; }
  nav a { display: block; margin: 0; padding: .25rem 0; }
}
@media print {
  :root { color-scheme: light; --back: #fff; --text: #000; --soft: #444; --line: #bbb; --card: #fff; }
  html { font-size: 9pt; }
  body { max-width: none; padding: 0; font-size: 1rem; }
  .beside { display: block; }
  nav, dialog, summary { display: none; }
  .card, tr { break-inside: avoid; }
  th, td { padding-right: .5rem; }
  td { min-width: 0; }
  h2, h3 { break-after: avoid; }
  div.wide { overflow: visible; max-height: none; }
}
"""

_SCRIPT = """
"use strict";
const number = text => {
  const plain = text.replace(/,/g, "").replace(/\\u2212/g, "-");
  const found = plain.match(/[-+]?(\\u221e|\\d+\\.?\\d*(e[-+]?\\d+)?|\\.\\d+)/i);
  if (!found) return null;
  return found[1] === "\\u221e" ? (found[0][0] === "-" ? -Infinity : Infinity) : Number(found[0]);
};
const value = (row, column, numeric) => {
  const text = row.cells[column].textContent.trim();
  if (text === "" || text === "\\u2013") return null;
  return numeric ? number(text) : text;
};
const sort = head => {
  const down = head.getAttribute("aria-sort") === "ascending", column = head.cellIndex;
  const body = head.closest("table").tBodies[0], numeric = head.classList.contains("number");
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...body.rows].map(row => [value(row, column, numeric), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    const order = numeric ? (a > b) - (a < b) : a.localeCompare(b, undefined, { numeric: true });
    return down ? -order : order;
  });
  body.append(...rows.map(([, row]) => row));
};
const dialog = document.createElement("dialog"), large = document.createElement("img");
const close = document.createElement("button");
close.textContent = "close (Esc)";
dialog.append(large, close);
document.body.append(dialog);
dialog.addEventListener("click", () => dialog.close());
const enlarge = image => {
  large.src = image.src;
  large.alt = image.alt;
  dialog.setAttribute("aria-label", image.alt);
  dialog.showModal();
};
const answer = (element, what) => {
  element.tabIndex = 0;
  element.addEventListener("click", () => what(element));
  element.addEventListener("keydown", event => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); what(element); }
  });
};
for (const head of document.querySelectorAll("thead th")) answer(head, sort);
for (const image of document.querySelectorAll("figure img")) {
  image.setAttribute("role", "button");
  image.title = "enlarge";
  answer(image, enlarge);
}
"""
_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_POLICY = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{_HASH}'"


_LONG = 30  # rows, from which on a table scrolls


class Strong(str):
    """A table's text that stands out, such as the best value of a column."""


class Card(NamedTuple):
    """One of at most five figures at the top."""

    label: str
    value: str
    meaning: str  #: a sentence
    source: str = ""  #: the paper's reference


class Shown(NamedTuple):
    """A figure of a gallery."""

    png: Path
    alt: str
    caption: str = ""


class Section(NamedTuple):
    """A part of a page that the navigation leads to."""

    name: str  #: the anchor
    title: str
    lines: Sequence[str]  #: of HTML


def document(title: str, sections: Sequence[Section], *, about: Sequence[str] = (), cards: Sequence[Card] = ()) -> str:
    """The text of a whole page.

    Args:
        title: Its heading.
        sections: What it consists of, in order; from two on, a navigation leads to them.
        about: Sentences below the heading.
        cards: The figures that matter, at the top.
    """
    links = [f'<a href="#{html.escape(quote(part.name))}">{html.escape(part.title)}</a>' for part in sections]
    lines = [
        f"<h1>{html.escape(title)}</h1>",
        *(paragraph(text) for text in about),
        *_cards(cards),
        '<div class="beside">',
        *(['<nav aria-label="sections">', *links, "</nav>"] if len(sections) > 1 else ["<div></div>"]),
        "<main>",
    ]
    for part in sections:
        lines += [f'<section id="{html.escape(part.name)}"><h2>{html.escape(part.title)}</h2>', *part.lines]
        lines += ["</section>"]
    lines += ["</main></div>"]
    body = "\n".join(lines)
    size = len(body.encode()) + len(_STYLE) + len(_SCRIPT)
    head = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
    ]
    foot = [
        f"<footer>{_size(size)} in one file, which loads nothing from elsewhere.</footer>",
        f"<script>{_SCRIPT}</script></body></html>",
    ]
    return "\n".join([*head, body, *foot]) + "\n"


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{max(1, round(size / 1e3))} kB"


def _cards(cards: Sequence[Card]) -> list[str]:
    lines = []
    for card in cards:
        value = card.value.replace(" %", "\N{NO-BREAK SPACE}%")
        texts = {"label": card.label, "value": value, "meaning": card.meaning, "source": card.source}
        shown = "".join(f'<p class="{kind}">{html.escape(text)}</p>' for kind, text in texts.items() if text)
        lines.append(f'<div class="card">{shown}</div>')
    return ['<div class="cards">', *lines, "</div>"] if lines else []


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> list[str]:
    """Lines of HTML; a click on a heading sorts, dashes last.

    Texts that are :class:`Strong` stand out; columns that are ``numeric`` stand at their right and are sorted as
    numbers, by the first one in each text.
    """

    def line(tag: str, texts: Sequence[str]) -> str:
        cells = []
        for text, number in zip(texts, numeric, strict=True):
            shown = f"<strong>{html.escape(text)}</strong>" if isinstance(text, Strong) else html.escape(text)
            kind = ' class="number"' if number else ""
            cells.append(f"<{tag}{kind}>{shown}</{tag}>")
        return f"<tr>{''.join(cells)}</tr>"

    head = f"<thead>{line('th', headers)}</thead><tbody>"
    kind = "wide long" if len(rows) > _LONG else "wide"
    return [f'<div class="{kind}"><table>', head, *(line("td", row) for row in rows), "</tbody></table></div>"]


def gallery(figures: Sequence[Shown]) -> list[str]:
    """Lines of HTML with pictures inside them, two abreast where there is room; a click enlarges one, Esc closes it."""
    lines = []
    for figure in figures:
        caption = f"<figcaption>{html.escape(figure.caption)}</figcaption>" if figure.caption else ""
        lines.append(f"<figure>{image(figure.png, figure.alt)}{caption}</figure>")
    if not lines:
        return []
    return [f'<div class="gallery{" two" if len(lines) > 1 else ""}">', *lines, "</div>"]


def image(png: Path, alt: str) -> str:
    """A line of HTML with a picture file inside it, and what it shows."""
    return picture(png.read_bytes(), alt)


def picture(png: bytes, alt: str) -> str:
    """A line of HTML with a picture inside it, and what it shows."""
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def heading(text: str) -> str:
    """A line of HTML: a heading inside a section."""
    return f"<h3>{html.escape(text)}</h3>"


def paragraph(text: str, kind: str = "about") -> str:
    """A line of HTML; ``kind`` is its class in the page's style (``about``, ``files``, or none)."""
    return f'<p class="{html.escape(kind)}">{html.escape(text)}</p>'


def link(text: str, file: str) -> str:
    """A line of HTML: a link to a file beside the page."""
    return f'<p><a href="{html.escape(quote(file))}">{html.escape(text)}</a></p>'


def notes(texts: Sequence[str]) -> list[str]:
    """Lines of HTML: a list of remarks; nothing where there are none."""
    return ['<ul class="notes">', *(f"<li>{html.escape(text)}</li>" for text in texts), "</ul>"] if texts else []


def failure(text: str) -> str:
    """A line of HTML that says what could not be done."""
    return paragraph(text, "failure")


def details(summary: str, lines: Sequence[str]) -> list[str]:
    """Lines of HTML that are folded away under a summary."""
    return [f"<details><summary>{html.escape(summary)}</summary>", *lines, "</details>"]


def preformatted(text: str) -> str:
    """A line of HTML: text as it is, such as JSON."""
    return f"<pre>{html.escape(text)}</pre>"
