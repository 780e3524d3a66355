"""Draws the error of several runs against severity, a panel a corruption, from their analysis/corruptions.json.

Usage: python docs/examples/compare_corruptions.py runs/fixed runs/learned --out compare.png
"""

import argparse
import json
from pathlib import Path

from lightning_repshape.plots import save_figure, severities_figure


def main() -> None:
    """Reads the arguments and draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="Run folders that were tested with Corruptions.")
    parser.add_argument("--set", default="test", help="The set to compare on.")
    parser.add_argument("--out", type=Path, default=Path("corruptions-compared.png"), help="The PNG file.")
    options = parser.parse_args()
    panels: dict[str, dict[str, tuple[list[int], list[float]]]] = {}
    clean: dict[str, dict[str, float]] = {}
    for run in options.runs:
        path = run / "analysis" / "corruptions.json"
        if not path.is_file():
            parser.error(
                f"there is no {path}: lightning-repshape test --run_dir {run} --trainer.callbacks+=Corruptions"
            )
        sets = json.loads(path.read_text()).get("sets", {})
        if options.set not in sets:
            parser.error(f"{path} has no set {options.set!r}, but {', '.join(map(repr, sets)) or 'none'}")
        found = sets[options.set]
        for corruption, errors in found["errors"].items():
            panels.setdefault(corruption, {})[run.name] = ([int(severity) for severity in errors], [*errors.values()])
            if found["clean_error"] is not None:
                clean.setdefault(corruption, {})[run.name] = found["clean_error"]
    print(save_figure(severities_figure(panels, clean), options.out, vector=False))


if __name__ == "__main__":
    main()
