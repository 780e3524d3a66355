"""All benchmarks, one after the other, each in a process of its own: one table a line, as JSON and Markdown if asked.

``python benchmarks/all.py --quick`` takes minutes, on the CPU or a GPU; ``--only NAME`` takes some of them. One that
fails is named at the end, and the status is 1 then.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from timing import TABLES

HERE = Path(__file__).parent
NAMES = sorted(
    path.stem for path in HERE.glob("*.py") if "def main" in (text := path.read_text("utf-8")) and "report(" in text
)
NO_TIMES = {"all", "kill_sweep", "mutated_files", "mutation_score"}  # what proves instead of timing


def main() -> int:
    """Runs them; 1 where one failed."""
    names = [name for name in NAMES if name not in NO_TIMES]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer and smaller measurements")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--limit", type=float, default=1800, help="seconds of one benchmark (default: 1800)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where all tables go")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the same for people, as in docs/performance.md")
    options = parser.parse_args()
    words = ["--threads", str(options.threads), "--device", options.device, *(["--quick"] if options.quick else [])]
    found = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": _machine(options.device),
        "torch": torch.__version__,
        "threads": options.threads,
        "quick": options.quick,
        "benchmarks": [_run(name, words, options.limit) for name in options.only],
    }
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(_markdown(found), encoding="utf-8")
    failed = [one["name"] for one in found["benchmarks"] if one["status"]]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str, words: Sequence[str], limit: float) -> dict[str, Any]:
    print(f"\n== {name}", flush=True)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tables = Path(folder) / "tables.jsonl"
        tables.touch()
        try:
            status = subprocess.run(
                [sys.executable, str(HERE / f"{name}.py"), *words],
                env={**os.environ, TABLES: str(tables)},
                timeout=limit,
            ).returncode
        except subprocess.TimeoutExpired:
            status = 124
        lines = tables.read_text(encoding="utf-8").splitlines()
    return {
        "name": name,
        "status": status,
        "seconds": round(time.perf_counter() - began, 1),
        "tables": [json.loads(line) for line in lines],
    }


def _machine(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    models = [line for line in _cpuinfo() if line.startswith("model name")]
    return f"{models[0].partition(':')[2].strip() if models else platform.machine()}, {os.cpu_count()} cores"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def _markdown(found: dict[str, Any]) -> str:
    quick = " --quick" if found["quick"] else ""
    lines = [
        "# Performance, as measured",
        "",
        f"Made by `python benchmarks/all.py{quick} --markdown docs/performance.md` on {found['date']}: "
        f"{found['machine']}, PyTorch {found['torch']}, {found['threads']} CPU thread. What each line is and what it "
        "should reach: [benchmarks](benchmarks.md).",
    ]
    for one in found["benchmarks"]:
        state = "" if not one["status"] else f"; it ended with status {one['status']}"
        lines += ["", f"## {one['name']}", f"{one['seconds']:.0f} s{state}."]
        for table in one["tables"]:
            names = list(table["rows"][0])
            lines += ["", f"**{table['title']}**", "", f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
            lines += [f"| {' | '.join(_cell(row.get(name)) for name in names)} |" for row in table["rows"]]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
