"""Callbacks: records of a run, and analyses that work on any LightningModule."""

from lightning_repshape.analyses import (
    TSNE,
    ActivationPatterns,
    Analysis,
    AnalysisInputs,
    AnalysisResult,
    ClassVectorSimilarity,
    Corruptions,
    ErrorCount,
    FeatureInputs,
    FisherGeodesic,
    LDAEigenvalues,
    ModelInputs,
    NeuralCollapse,
    Outcome,
    PartialDatasetRetraining,
    PrincipalComponents,
    RepresentationCharacteristics,
    WeightSeparability,
    WeightSpace,
    corruption_errors,
    run_analyses,
)
from lightning_repshape.callbacks.feature_plots import FeaturePlots
from lightning_repshape.callbacks.feed_backward import FeedBackwardPenalty, SeparabilityCurve
from lightning_repshape.callbacks.layer_penalty import LayerPenalty
from lightning_repshape.callbacks.reconstruction import ReconstructionErrors, ReconstructionFigure
from lightning_repshape.callbacks.reseeding import Reseeding
from lightning_repshape.callbacks.threads import Threads
from lightning_repshape.features.store import FeatureStore
from lightning_repshape.modules.foca.secondary import SecondaryOptimization
from lightning_repshape.runs.checkpoints import AtomicCheckpointIO, BestCheckpoint, LastCheckpoint
from lightning_repshape.runs.predictions import PredictionWriter
from lightning_repshape.runs.record import RunRecord, SaveRunConfig
from lightning_repshape.runs.summary import ResultTable

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
