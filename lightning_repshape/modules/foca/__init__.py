"""FOCA: feature-extractor optimization through classifier anonymization."""

from lightning_repshape.modules.foca.module import FOCAModule

__all__ = ["FOCAModule"]
