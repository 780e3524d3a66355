"""Formulas as pure functions on tensors; they need nothing but torch.

Every name is loaded at its first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import Any

# File of this package -> the public names that it defines.
_NAMES = {
    "regularizers": "vr cw_vr cr cw_cr l1r l1w l2w",
    "class_statistics": "ClassMoments class_counts class_groups class_moments class_sums memberships",
    "characteristics": "Characteristics representation_characteristics",
    "reconstruction": "dependent_class_vectors feed_backward_loss orthonormal_class_vectors weight_separability",
    "class_vectors": "class_vector_cosines confusion_counts confusion_pairs cosine_logits "
    "largest_class_cosine random_class_vectors sample_cosines spearman",
    "discriminant": "ClassVsRestLDA ThresholdErrors class_vs_rest_lda lda_from_scatter threshold_errors",
    "geodesic": "FisherGeodesic FisherLengths fisher_geodesic fisher_geodesic_module",
    "collapse": "NeuralCollapse SimplexDeviation neural_collapse simplex_deviation",
    "projection": "Projection discriminant_plane effective_rank effective_rank_from_scatter pca pca_from_scatter",
    "scatter": "ScatterState scatter_state",
    "stacked_heads": "StackedHeads HeadSolution EarlyStopping gradient_descent init_heads "
    "ridge solve_head solve_heads feature_scale classification_error",
    "partial_retraining": "PartialRetrainingResult balanced_subset partial_retraining",
    "verification": "ROCCurve VerificationResult area_under_curve best_threshold "
    "pair_cosines roc_curve tar_at_far fold_verification",
}
_HOME = {name: file for file, names in _NAMES.items() for name in names.split()}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Loads a public name from the file that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Names of the package, the lazy ones included."""
    return sorted({*globals(), *_HOME})
