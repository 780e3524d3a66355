"""Layers by name."""

import torch
from analysis_data import inputs
from torch import nn
from torch.nn import functional as F

from lightning_repshape.callbacks import (
    LDAEigenvalues,
    ModelInputs,
    PrincipalComponents,
)
from lightning_repshape.features.passes import extract_features


def test_values_before_the_activation_function_of_any_model() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Sequential(nn.Linear(6, 5), nn.ReLU6()), nn.Flatten()
    )
    x = torch.randn(9, 4)
    batches = [(x, torch.arange(9) % 3)]
    hidden = F.linear(x, net[0].weight, net[0].bias)
    for layer in ("1.pre", "0"):  # the ReLU works in place on what layer 0 returned
        torch.testing.assert_close(extract_features(net, batches, layer).features, hidden.detach())
    top = F.linear(hidden.relu(), net[2][0].weight, net[2][0].bias).detach()
    torch.testing.assert_close(extract_features(net, batches, "2.pre").features, top)
    failures = {layer: LDAEigenvalues().run(ModelInputs(net, {"train": batches}, layer)).failure
                for layer in ("3.pre", "7.pre", "2.per")}  # fmt: skip
    assert "layer '3' of Sequential does not end in an activation function" in failures["3.pre"]
    assert "has no layer '7.pre'" in failures["7.pre"] and "did you mean" in failures["2.per"]
    figure = PrincipalComponents(before="2.pre").compute(ModelInputs(net, {"test": batches}, "2")).figures["3d"]()
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "before the activation function: 2.pre",
        "after it: 2",
    ]
    of_tensors = PrincipalComponents(before="features.pre").run(inputs())
    assert "needs the model, and there are only saved features" in of_tensors.failure
