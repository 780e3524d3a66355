"""Analyses of a representation: computations on features, whatever model they come from."""

from lightning_repshape.analyses.analysis import Analysis, run_analyses
from lightning_repshape.analyses.calibration import Calibration
from lightning_repshape.analyses.characteristics import RepresentationCharacteristics
from lightning_repshape.analyses.class_vectors import ClassVectorSimilarity
from lightning_repshape.analyses.collapse import NeuralCollapse
from lightning_repshape.analyses.components import TSNE, PrincipalComponents
from lightning_repshape.analyses.dimension import RepresentationDimension
from lightning_repshape.analyses.discriminant import LDAEigenvalues
from lightning_repshape.analyses.error_counts import ErrorCount, corruption_errors
from lightning_repshape.analyses.geodesic import FisherGeodesic
from lightning_repshape.analyses.inputs import AnalysisInputs, FeatureInputs, ModelInputs
from lightning_repshape.analyses.ood import OutOfDistribution
from lightning_repshape.analyses.probes import Probes
from lightning_repshape.analyses.result import AnalysisResult, Outcome
from lightning_repshape.analyses.retraining import PartialDatasetRetraining
from lightning_repshape.analyses.robustness import Corruptions
from lightning_repshape.analyses.separability import ActivationPatterns, WeightSeparability, WeightSpace
from lightning_repshape.analyses.similarity import LayerSimilarity

ANALYSES: tuple[type[Analysis], ...] = (
    PartialDatasetRetraining,
    Probes,
    NeuralCollapse,
    Calibration,
    PrincipalComponents,
    TSNE,
    LDAEigenvalues,
    RepresentationDimension,
    LayerSimilarity,
    OutOfDistribution,
    RepresentationCharacteristics,
    FisherGeodesic,
    ClassVectorSimilarity,
    WeightSeparability,
    WeightSpace,
    ActivationPatterns,
    Corruptions,
)
"""All of them, what says most first: the order in which ``lightning-repshape analyze`` runs and shows them."""

__all__ = [
    "TSNE",
    "ActivationPatterns",
    "Analysis",
    "AnalysisInputs",
    "AnalysisResult",
    "Calibration",
    "ClassVectorSimilarity",
    "Corruptions",
    "ErrorCount",
    "FeatureInputs",
    "FisherGeodesic",
    "LDAEigenvalues",
    "LayerSimilarity",
    "ModelInputs",
    "NeuralCollapse",
    "OutOfDistribution",
    "Outcome",
    "PartialDatasetRetraining",
    "PrincipalComponents",
    "Probes",
    "RepresentationCharacteristics",
    "RepresentationDimension",
    "WeightSeparability",
    "WeightSpace",
    "corruption_errors",
    "run_analyses",
]
