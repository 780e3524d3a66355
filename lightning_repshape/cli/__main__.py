"""``python -m lightning_repshape.cli``."""

import sys

from lightning_repshape.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
