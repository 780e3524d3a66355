"""Stands in for ``lightning-repshape fit`` where a test is about what happens around trainings, not in them.

Writes what a run folder of a training has: manifest, a checkpoint an epoch, curves and figures. Every epoch is noted in
``STANDIN_TRACE``, so that a test sees what was trained, and what was trained twice.
"""

import json
import os
import sys
import time
from pathlib import Path


def main(words: list[str]) -> int:
    options = dict(zip(words[::2], words[1::2], strict=False))
    run = Path(options["--run_dir"])
    checkpoint = run / "checkpoints" / "last.ckpt"
    if options.get("--ckpt_path") == "last":
        first = int(checkpoint.read_text()) + 1
        manifest = json.loads((run / "manifest.json").read_text())
    else:
        if run.exists() and any(run.iterdir()):
            raise SystemExit("error: the run folder is used")
        checkpoint.parent.mkdir(parents=True)
        first = 0
        row = options.get("--row", "")
        study = {"row": row, "seed": int(options.get("--seed_everything", 0)), "value": options.get("--row.value")}
        study |= {"epochs": float(options.get("--row.budget", 1)), "train_size": None, "retrain": False}
        manifest = {"format": 1, "study": study, "sessions": []}
    seed, value = manifest["study"]["seed"], float(manifest["study"]["value"] or 0)
    if str(seed) == os.environ.get("STANDIN_FAILS"):
        print("error: this seed fails", file=sys.stderr)
        return 1
    manifest["sessions"].append({"stage": "fit", "status": "running"})
    write(run / "manifest.json", manifest)
    try:
        for epoch in range(first, 5):
            time.sleep(float(os.environ.get("STANDIN_SECONDS", "0.01")))
            with Path(os.environ["STANDIN_TRACE"]).open("a") as trace:
                trace.write(f"{run.name} {epoch} {os.getpid()}\n")
            checkpoint.write_text(str(epoch))
    except KeyboardInterrupt:
        manifest["sessions"][-1]["status"] = "interrupted"
        write(run / "manifest.json", manifest)
        return 130
    (run / "metrics.csv").write_text(f"epoch,val/error\n0,{0.5 + abs(value - 1)}\n")
    write(run / "metrics.json", {"test/error": 0.1 * abs(value - 1) + 0.01 * seed})
    manifest["sessions"][-1]["status"] = "finished"
    manifest["sessions"].append({"stage": "test", "status": "finished"})
    write(run / "manifest.json", manifest)
    return 0


def write(path: Path, content: dict) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content))
    part.replace(path)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[2:]))
    except KeyboardInterrupt:
        sys.exit(130)
