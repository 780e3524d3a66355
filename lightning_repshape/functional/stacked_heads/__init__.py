"""E small classifier heads at once on fixed features: initial numbers, forward pass, and solve.

FOCA's weak classifiers, the head of the secondary optimisation and the heads of partial-dataset retraining are all this
one thing. :func:`solve_heads` is the door for most uses; :func:`init_heads`, :func:`gradient_descent` and :func:`ridge`
are its parts. What makes it fast is told in the documentation page on stacked heads.

Features that are not floating-point, and labels or indices that are no integers, are a TypeError; a value, a shape or a
combination that cannot work is a ValueError that says which.
"""

from lightning_repshape.functional.stacked_heads.descent import EarlyStopping, HeadSolution, gradient_descent
from lightning_repshape.functional.stacked_heads.heads import (
    GramWeight,
    StackedHeads,
    classification_error,
    head_seeds,
    held_out_scores,
    init_heads,
)
from lightning_repshape.functional.stacked_heads.recipe import HeadRecipe
from lightning_repshape.functional.stacked_heads.ridge import ridge
from lightning_repshape.functional.stacked_heads.solve import feature_scale, solve_head, solve_heads, train_heads

__all__ = [
    "EarlyStopping",
    "GramWeight",
    "HeadRecipe",
    "HeadSolution",
    "StackedHeads",
    "classification_error",
    "feature_scale",
    "gradient_descent",
    "head_seeds",
    "held_out_scores",
    "init_heads",
    "ridge",
    "solve_head",
    "solve_heads",
    "train_heads",
]
