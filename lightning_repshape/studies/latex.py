"""A study's tables for a paper: LaTeX with booktabs."""

import re
import textwrap
from collections.abc import Iterator, Sequence

from lightning_repshape.page import Strong
from lightning_repshape.studies.formats import Heading, Paragraph, Part, Points, Table

_GREEK = (
    "alpha beta gamma delta varepsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"
)
# One pass over the text, so that no sign of a replacement is replaced.
_SIGNS = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "[": "{[}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\char34{}"},  # in every encoding
    **{"±": r"$\pm$", "–": "--", "—": "---", "’": "'", "×": r"$\times$", "≥": r"$\geq$", "≤": r"$\leq$"},
    **{"→": r"$\to$", "·": r"$\cdot$", "∞": r"$\infty$", "…": r"\dots{}", "“": "``", "”": "''"},
    **dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹", (f"$^{{{digit}}}$" for digit in range(10)), strict=True)),
    **dict(zip("₀₁₂₃₄₅₆₇₈₉", (f"$_{{{digit}}}$" for digit in range(10)), strict=True)),
    **{"′": "$'$", "½": r"$\frac{1}{2}$", "−": "$-$", "√": r"$\surd$", "∈": r"$\in$", "≈": r"$\approx$", "µ": r"$\mu$"},
    **{letter: f"$\\{name}$" for letter, name in zip("αβγδεζηθικλμνξπρστφχψωΓΔΘΛΞΠΣΦΨΩ", _GREEK.split(), strict=True)},
}
_LINE, _NAME = 86, 30  # signs across a page of the class article; of a row's name before it breaks
_SPECIAL = re.compile("|".join(map(re.escape, _SIGNS)))


def as_latex(title: str, parts: Sequence[Part]) -> str:
    """Parts of a report as floats for a document that loads ``booktabs``.

    Args:
        title: What every caption begins with.
        parts: Tables; a heading above one is added to its caption, other texts become lines below it or comments.

    Returns:
        The text, whose first line says what it needs.
    """
    lines = [r"% \usepackage{booktabs}"]
    caption, below = title, list[str]()
    for part in parts:
        if isinstance(part, Paragraph):
            below.append(part.text)
        elif isinstance(part, Points):
            below += part.texts
    for part in parts:
        if isinstance(part, Heading):
            caption = title if part.level == 2 else f"{title}: {part.text}"
        elif isinstance(part, Table):
            lines += _table(caption, part, below)
    return "\n".join(lines) + "\n"


def _table(caption: str, table: Table, below: Sequence[str]) -> Iterator[str]:
    groups = list(_side_by_side(table))
    for number, columns in enumerate(groups, 1):
        part = f" ({number} of {len(groups)})" if len(groups) > 1 else ""
        yield from (
            r"\begin{table}",
            r"  \centering",
            f"  \\caption{{{escaped(caption + part)}}}",
            r"  \footnotesize\setlength{\tabcolsep}{4pt}",
            *_tabular(table, columns),
            *(f"  \\par {escaped(text)}" for text in below),
            r"\end{table}",
        )


def _side_by_side(table: Table) -> Iterator[list[int]]:
    """Columns that a page has room for, each with the names of the rows; the paper's stay beside ours."""
    names = list(range(table.texts))
    room = _LINE - sum(_width(table, at) for at in names)
    columns, left = list(names), room
    for at, head in enumerate(table.headers):
        if at >= table.texts and head != "paper":
            pair = [at, at + 1] if table.headers[at + 1 : at + 2] == ["paper"] else [at]
            width = sum(_width(table, own) for own in pair)
            if width > left and columns != names:
                yield columns
                columns, left = list(names), room
            columns, left = [*columns, *pair], left - width
    yield columns


def _width(table: Table, column: int) -> int:
    """Signs of a column whose heading is broken where its cells end, and the space beside it."""
    widest = max((len(row[column]) for row in table.rows), default=0)
    longest_word = max(map(len, table.headers[column].split()), default=0)
    return 2 + (min(widest, _NAME) if column < table.texts else max(widest, longest_word))


def _tabular(table: Table, columns: Sequence[int]) -> list[str]:
    sides = ["l" if at < table.texts else "r" for at in columns]
    heads = [_stacked(table.headers[at], side, _width(table, at) - 2) for at, side in zip(columns, sides, strict=True)]
    rows = [
        [_stacked(row[at], side, _NAME if side == "l" else 0) for at, side in zip(columns, sides, strict=True)]
        for row in table.rows
    ]
    return [
        f"  \\begin{{tabular}}{{{''.join(sides)}}}",
        r"    \toprule",
        r"    " + " & ".join(heads) + r" \\",
        r"    \midrule",
        *(r"    " + " & ".join(row) + r" \\" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
    ]


def _stacked(text: str, side: str, width: int) -> str:
    """A cell, broken into lines above each other where it is longer than ``width``; 0: in one line."""
    lines = textwrap.wrap(text, width, break_long_words=False) if 0 < width < len(text) else [text]
    cell = r" \\ ".join(map(escaped, lines))
    if len(lines) > 1:
        cell = rf"\shortstack[{side}]{{{cell}}}"
    return rf"\textbf{{{cell}}}" if isinstance(text, Strong) else cell


def escaped(text: str) -> str:
    """A text in one line, without what LaTeX would take for a command."""
    return _SPECIAL.sub(lambda found: _SIGNS[found[0]], " ".join(str(text).split()))
