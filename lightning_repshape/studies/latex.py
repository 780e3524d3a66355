"""A study's tables for a paper: LaTeX with booktabs."""

import re
from collections.abc import Sequence

from lightning_repshape.page import Strong
from lightning_repshape.studies.formats import Heading, Paragraph, Part, Points, Table

# One pass over the text, so that no sign of a replacement is replaced.
_SIGNS = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"},
    **{"±": r"$\pm$", "−": "$-$", "–": "--", "—": "---", "’": "'", "×": r"$\times$", "≥": r"$\geq$", "≤": r"$\leq$"},
    **{"→": r"$\to$", "·": r"$\cdot$", "∞": r"$\infty$", "…": r"\dots{}", "“": "``", "”": "''"},
    **dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹", (f"$^{{{digit}}}$" for digit in range(10)), strict=True)),
    **dict(zip("₀₁₂₃₄₅₆₇₈₉", (f"$_{{{digit}}}$" for digit in range(10)), strict=True)),
    **{"α": r"$\alpha$", "β": r"$\beta$", "θ": r"$\theta$", "λ": r"$\lambda$", "σ": r"$\sigma$", "φ": r"$\phi$"},
}
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


def _table(caption: str, table: Table, below: Sequence[str]) -> list[str]:
    columns = "l" * table.texts + "r" * (len(table.headers) - table.texts)
    rows = [r"    " + " & ".join(map(_cell, row)) + r" \\" for row in table.rows]
    return [
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{escaped(caption)}}}",
        f"  \\begin{{tabular}}{{{columns}}}",
        r"    \toprule",
        r"    " + " & ".join(map(_cell, table.headers)) + r" \\",
        r"    \midrule",
        *rows,
        r"    \bottomrule",
        r"  \end{tabular}",
        *(f"  \\par\\footnotesize {escaped(text)}" for text in below),
        r"\end{table}",
    ]


def _cell(text: str) -> str:
    return f"\\textbf{{{escaped(text)}}}" if isinstance(text, Strong) else escaped(text)


def escaped(text: str) -> str:
    """A text in one line, without what LaTeX would take for a command."""
    return _SPECIAL.sub(lambda found: _SIGNS[found[0]], " ".join(str(text).split()))
