"""FOCA: feature-extractor optimization through classifier anonymization."""

from lightning_repshape.functional.stacked_heads import HeadRecipe
from lightning_repshape.modules.foca.module import FOCAModule
from lightning_repshape.modules.foca.recipes import Draw, PhiUpdates, WeakRecipe

__all__ = ["Draw", "FOCAModule", "HeadRecipe", "PhiUpdates", "WeakRecipe"]
