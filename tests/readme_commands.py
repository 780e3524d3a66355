"""Finds the shell blocks of README and docs; ``python tests/readme_commands.py test`` prints the test command."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"^```(?:bash|console|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def shell_blocks(path: Path) -> list[str]:
    """The shell commands of a Markdown file, a line each, continuation lines joined."""
    lines: list[str] = []
    for block in _BLOCK.findall(path.read_text(encoding="utf-8")):
        joined = block.replace("\\\n", " ")
        lines += [line.strip() for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return lines


def pages() -> list[Path]:
    """README and docs pages."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def readme_command(which: str) -> str:
    """The README's first command (``"run"``) or second one (``"test"``)."""
    wanted = "pytest" if which == "test" else "lightning-repshape compare"
    return next(line for line in shell_blocks(ROOT / "README.md") if wanted in line and "venv" in line)


if __name__ == "__main__":
    print(readme_command(sys.argv[1]))
