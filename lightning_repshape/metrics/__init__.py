"""Metrics whose states are additive, so that several processes give the result of one."""

from lightning_repshape.metrics.base import ExactSums
from lightning_repshape.metrics.class_vectors import ClassCosines, ClassMeans
from lightning_repshape.metrics.classification import ClassificationSums
from lightning_repshape.metrics.reconstruction import ReconstructionSums
from lightning_repshape.metrics.representation import RepresentationStatistics
from lightning_repshape.metrics.scatter import LDAEigenvalueMetric, ScatterMetric
from lightning_repshape.metrics.separability import WeightSeparabilityMetric
from lightning_repshape.metrics.verification import PairFeatures, VerificationMetric

__all__ = [
    "ClassCosines",
    "ClassMeans",
    "ClassificationSums",
    "ExactSums",
    "LDAEigenvalueMetric",
    "PairFeatures",
    "ReconstructionSums",
    "RepresentationStatistics",
    "ScatterMetric",
    "VerificationMetric",
    "WeightSeparabilityMetric",
]
