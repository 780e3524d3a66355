"""Callbacks: records of a run, and analyses that work on any LightningModule."""

from lightning_repshape.callbacks.analysis import (
    Analysis,
    AnalysisInputs,
    AnalysisResult,
    FeatureInputs,
    ModelInputs,
    Outcome,
    run_analyses,
)
from lightning_repshape.callbacks.characteristics import RepresentationCharacteristics
from lightning_repshape.callbacks.checkpoints import AtomicCheckpointIO, BestCheckpoint, LastCheckpoint
from lightning_repshape.callbacks.class_vectors import TSNE, ClassVectorSimilarity
from lightning_repshape.callbacks.collapse import NeuralCollapse, WeightSeparability
from lightning_repshape.callbacks.corruptions import Corruptions, ErrorCount, corruption_errors
from lightning_repshape.callbacks.discriminant import LDAEigenvalues, PrincipalComponents
from lightning_repshape.callbacks.feature_plots import FeaturePlots
from lightning_repshape.callbacks.feature_store import FeatureStore
from lightning_repshape.callbacks.feed_backward import FeedBackwardPenalty, SeparabilityCurve
from lightning_repshape.callbacks.layer_penalty import LayerPenalty
from lightning_repshape.callbacks.predictions import PredictionWriter
from lightning_repshape.callbacks.reconstruction import ReconstructionErrors, ReconstructionFigure
from lightning_repshape.callbacks.reseeding import Reseeding
from lightning_repshape.callbacks.retraining import FisherGeodesic, PartialDatasetRetraining
from lightning_repshape.callbacks.run_record import RunRecord, SaveRunConfig
from lightning_repshape.callbacks.secondary import SecondaryOptimization
from lightning_repshape.callbacks.separability import ActivationPatterns, WeightSpace
from lightning_repshape.callbacks.summary import ResultTable
from lightning_repshape.callbacks.threads import Threads

__all__ = [
    "TSNE",
    "ActivationPatterns",
    "Analysis",
    "AnalysisInputs",
    "AnalysisResult",
    "AtomicCheckpointIO",
    "BestCheckpoint",
    "ClassVectorSimilarity",
    "Corruptions",
    "ErrorCount",
    "FeatureInputs",
    "FeaturePlots",
    "FeatureStore",
    "FeedBackwardPenalty",
    "FisherGeodesic",
    "LDAEigenvalues",
    "LastCheckpoint",
    "LayerPenalty",
    "ModelInputs",
    "NeuralCollapse",
    "Outcome",
    "PartialDatasetRetraining",
    "PredictionWriter",
    "PrincipalComponents",
    "ReconstructionErrors",
    "ReconstructionFigure",
    "RepresentationCharacteristics",
    "Reseeding",
    "ResultTable",
    "RunRecord",
    "SaveRunConfig",
    "SecondaryOptimization",
    "SeparabilityCurve",
    "Threads",
    "WeightSeparability",
    "WeightSpace",
    "corruption_errors",
    "run_analyses",
]
