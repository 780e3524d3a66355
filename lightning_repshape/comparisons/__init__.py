"""Several models on the same test samples, side by side."""

from lightning_repshape.comparisons.comparison import Comparison, compare
from lightning_repshape.comparisons.contender import Contender, TestSamples, contend
from lightning_repshape.comparisons.writing import write_comparison

__all__ = ["Comparison", "Contender", "TestSamples", "compare", "contend", "write_comparison"]
