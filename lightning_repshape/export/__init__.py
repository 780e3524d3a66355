"""Trained models taken along: one object for images, and files for other programs."""

from lightning_repshape.export.formats import export_model
from lightning_repshape.export.model import Predictions, RepshapeModel

__all__ = ["Predictions", "RepshapeModel", "export_model"]
