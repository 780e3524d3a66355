"""Callbacks: records of a run, and analyses that work on any LightningModule."""

from lightning_repshape import analyses
from lightning_repshape.analyses import *  # noqa: F403 - all that it exports
from lightning_repshape.callbacks.feature_plots import FeaturePlots
from lightning_repshape.callbacks.feed_backward import FeedBackwardPenalty, SeparabilityCurve
from lightning_repshape.callbacks.layer_penalty import LayerPenalty
from lightning_repshape.callbacks.reconstruction import ReconstructionErrors, ReconstructionFigure
from lightning_repshape.callbacks.reseeding import Reseeding
from lightning_repshape.callbacks.roc import ROCCurves
from lightning_repshape.callbacks.threads import Threads
from lightning_repshape.features.store import FeatureStore
from lightning_repshape.modules.foca.secondary import SecondaryOptimization
from lightning_repshape.runs.checkpoints import AtomicCheckpointIO, BestCheckpoint, LastCheckpoint
from lightning_repshape.runs.predictions import PredictionWriter
from lightning_repshape.runs.record import RunRecord, SaveRunConfig
from lightning_repshape.runs.summary import ResultTable

__all__ = [
    "AtomicCheckpointIO",
    "BestCheckpoint",
    "FeaturePlots",
    "FeatureStore",
    "FeedBackwardPenalty",
    "LastCheckpoint",
    "LayerPenalty",
    "PredictionWriter",
    "ROCCurves",
    "ReconstructionErrors",
    "ReconstructionFigure",
    "Reseeding",
    "ResultTable",
    "RunRecord",
    "SaveRunConfig",
    "SecondaryOptimization",
    "SeparabilityCurve",
    "Threads",
]
__all__ += analyses.__all__
