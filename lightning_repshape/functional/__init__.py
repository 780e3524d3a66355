"""Formulas as pure functions on tensors; they need nothing but torch.

Every name is loaded at its first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import Any

# Public name -> the module of this package that defines it.
_HOME = {
    "vr": "regularizers",
    "cw_vr": "regularizers",
    "cr": "regularizers",
    "cw_cr": "regularizers",
    "l1r": "regularizers",
    "l1w": "regularizers",
    "l2w": "regularizers",
    "cw_rr": "further_regularizers",
    "rr": "further_regularizers",
    "supcon": "further_regularizers",
    "vcreg": "further_regularizers",
    "ClassMoments": "class_statistics",
    "class_counts": "class_statistics",
    "class_groups": "class_statistics",
    "class_moments": "class_statistics",
    "class_sums": "class_statistics",
    "memberships": "class_statistics",
    "Characteristics": "characteristics",
    "representation_characteristics": "characteristics",
    "dependent_class_vectors": "reconstruction",
    "feed_backward_loss": "reconstruction",
    "orthonormal_class_vectors": "reconstruction",
    "weight_separability": "reconstruction",
    "class_vector_cosines": "class_vectors",
    "confusion_counts": "class_vectors",
    "confusion_pairs": "class_vectors",
    "cosine_logits": "class_vectors",
    "largest_class_cosine": "class_vectors",
    "random_class_vectors": "class_vectors",
    "sample_cosines": "class_vectors",
    "spearman": "class_vectors",
    "hadamard_vectors": "fixed_vectors",
    "hypercube_vectors": "fixed_vectors",
    "laid_out": "fixed_vectors",
    "nearest_turned": "fixed_vectors",
    "separated_vectors": "fixed_vectors",
    "simplex_etf": "fixed_vectors",
    "ClassVsRestLDA": "discriminant",
    "ThresholdErrors": "discriminant",
    "class_vs_rest_lda": "discriminant",
    "lda_from_scatter": "discriminant",
    "threshold_errors": "discriminant",
    "FisherGeodesic": "geodesic",
    "FisherLengths": "geodesic",
    "fisher_geodesic": "geodesic",
    "fisher_geodesic_module": "geodesic",
    "NeuralCollapse": "collapse",
    "SimplexDeviation": "collapse",
    "neural_collapse": "collapse",
    "simplex_deviation": "collapse",
    "Projection": "projection",
    "discriminant_plane": "projection",
    "effective_rank": "projection",
    "effective_rank_from_scatter": "projection",
    "pca": "projection",
    "pca_from_scatter": "projection",
    "ScatterState": "scatter",
    "scatter_state": "scatter",
    "StackedHeads": "stacked_heads",
    "HeadSolution": "stacked_heads",
    "HeadRecipe": "stacked_heads",
    "EarlyStopping": "stacked_heads",
    "gradient_descent": "stacked_heads",
    "init_heads": "stacked_heads",
    "ridge": "stacked_heads",
    "solve_head": "stacked_heads",
    "solve_heads": "stacked_heads",
    "feature_scale": "stacked_heads",
    "classification_error": "stacked_heads",
    "PartialRetrainingResult": "partial_retraining",
    "balanced_subset": "partial_retraining",
    "partial_retraining": "partial_retraining",
    "ROCCurve": "verification",
    "VerificationResult": "verification",
    "area_under_curve": "verification",
    "best_threshold": "verification",
    "pair_cosines": "verification",
    "roc_curve": "verification",
    "tar_at_far": "verification",
    "fold_verification": "verification",
    "PowerLaw": "dimension",
    "class_distance_variance": "dimension",
    "mle_dimension": "dimension",
    "nearest_distances": "dimension",
    "participation_ratio": "dimension",
    "spectral_decay": "dimension",
    "twonn_dimension": "dimension",
    "linear_cka": "similarity",
    "linear_cka_matrix": "similarity",
    "procrustes_distance": "similarity",
    "procrustes_rotation": "similarity",
    "PairedDifference": "bootstrap",
    "paired_bootstrap": "bootstrap",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Loads a public name from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Names of the package, the lazy ones included."""
    return sorted({*globals(), *_HOME})
