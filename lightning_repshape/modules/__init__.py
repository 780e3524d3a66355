"""LightningModules, one a method."""

from lightning_repshape.modules.autoencoder import AutoencoderModule, AutoencoderOutput
from lightning_repshape.modules.base import ClassifierModule, ModelOutput
from lightning_repshape.modules.class_vectors import ClassVectorModule
from lightning_repshape.modules.feed_backward import FeedBackwardModule
from lightning_repshape.modules.foca.module import FOCAModule
from lightning_repshape.modules.foca.recipes import Draw, PhiUpdates, WeakRecipe
from lightning_repshape.modules.pof import PoFModule
from lightning_repshape.modules.regularized import RegularizedModule
from lightning_repshape.modules.supervised import SupervisedModule
from lightning_repshape.modules.verification import VerificationModule, VerifiesPairs, verify_pairs

__all__ = [
    "AutoencoderModule",
    "AutoencoderOutput",
    "ClassVectorModule",
    "ClassifierModule",
    "Draw",
    "FOCAModule",
    "FeedBackwardModule",
    "ModelOutput",
    "PhiUpdates",
    "PoFModule",
    "RegularizedModule",
    "SupervisedModule",
    "VerificationModule",
    "VerifiesPairs",
    "WeakRecipe",
    "verify_pairs",
]
