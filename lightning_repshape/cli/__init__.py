"""The command ``lightning-repshape``."""

from lightning_repshape.cli.main import TRAINER_COMMANDS, main

__all__ = ["TRAINER_COMMANDS", "main"]
