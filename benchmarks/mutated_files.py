"""Reads damaged files of every format and counts what becomes of them: the right read or one DataError, nothing else.

    python benchmarks/mutated_files.py [--count 1000] [--seed 0] [--only NAME ...]

The exit status is 1 where a reader raised another exception, hung, or read other content than a checksum promises.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from mutations import READERS, damage_in

KINDS = ("refused", "same", "other", "other exception", "hangs")


def main() -> int:
    """Runs the readers and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="damaged files a reader")
    parser.add_argument("--seed", type=int, default=0, help="decides the damages")
    parser.add_argument("--only", nargs="*", default=[], help="names of readers, or parts of them")
    options = parser.parse_args()
    print(f"{'reader':26}{'files':>7}" + "".join(f"{kind:>17}" for kind in KINDS) + f"{'faults':>8}{'s':>7}")
    faults: list[str] = []
    for reader in READERS:
        if options.only and not any(part.lower() in reader.name.lower() for part in options.only):
            continue
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            outcome = damage_in(reader, Path(folder), options.count, options.seed)
        counts = "".join(f"{outcome.counts[kind]:17,}" for kind in KINDS)
        seconds = time.monotonic() - start
        print(f"{reader.name:26}{options.count:7,}{counts}{len(outcome.faults):8}{seconds:7.0f}", flush=True)
        faults += outcome.faults
    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
