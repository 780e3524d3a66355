"""An analysis of one's own: how long features are, for docs/howto/own-analysis.md."""

from dataclasses import dataclass

from lightning_repshape import Analysis, AnalysisInputs, AnalysisResult


@dataclass(eq=False)
class FeatureLengths(Analysis):
    """Lengths of the test images' features, all together and by class.

    Args:
        quantile: Of the lengths, beside their mean.
    """

    kind = "lengths"
    title = "Lengths of features"

    quantile: float = 0.9

    def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
        """The mean and the quantile as figures, a table with a row a class."""
        test = inputs.labelled("test", classes=1)
        lengths = test.features.double().norm(dim=1)
        means = {name: lengths[test.labels == label].mean() for label, name in enumerate(inputs.class_names())}
        rows = [{"class": name, "mean length": float(mean)} for name, mean in means.items()]
        scalars = {"mean": float(lengths.mean()), "quantile": float(lengths.quantile(self.quantile))}
        return AnalysisResult(scalars, {"quantile": self.quantile}, {"mean length by class": rows})
