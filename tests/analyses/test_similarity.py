"""The layers of one model against each other: from one pass, the same as from features at hand."""

from typing import Any

import pytest
import torch
from analysis_data import QUIET, clusters, digits, inputs, module
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_repshape.analyses import LayerSimilarity, ModelInputs
from lightning_repshape.errors import ConfigError
from lightning_repshape.features import extract_features
from lightning_repshape.functional import linear_cka, mutual_neighbours, procrustes_distance, regression_score
from lightning_repshape.functional.similarity import similarity_matrices


class Odd(nn.Module):
    """Layers that return tuples, numbers for the whole batch, the same values again, and constants."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Dropout(0.5))
        self.recurrent: nn.Module = nn.GRU(8, 5, batch_first=True)
        self.flat, self.dead, self.head = nn.Flatten(), nn.Linear(6, 2), nn.Linear(5, 3)
        nn.init.zeros_(self.dead.weight)

    def forward(self, x: Tensor) -> Tensor:
        self.dead(x)
        found, _ = self.recurrent(self.body(x).unsqueeze(1))
        return self.head(self.flat(found))


def pairs(count: int = 200) -> list[tuple[Tensor, Tensor]]:
    part = clusters(0, count)
    return list(zip(part.features.split(50), part.labels.split(50), strict=True))


def test_all_layers_of_another_model_but_those_that_say_nothing() -> None:
    torch.manual_seed(0)
    net = Odd()
    net.train()
    found = LayerSimilarity().compute(ModelInputs(net, {"test": pairs()}, layer="flat"))
    assert found.content["names"] == ["body.0", "body", "flat", "head"], "the ReLU and dropout give what the body gives"
    assert net.training, "the mode is as before"
    left_out = " ".join(found.notes)
    assert "recurrent (tuple)" in left_out and "never changes: dead" in left_out
    x = torch.cat([part for part, _ in pairs()])
    with torch.no_grad():
        net.eval()
        first = net.body[0](x)
        last = net(x)
    assert found.scalars["first_last"] == pytest.approx(float(linear_cka(first, last)), abs=0.05)
    assert found.content["cka"].shape == (4, 4) and found.figures[""]().axes
    assert found.tables["layers"][0]["width"] == 8
    net.recurrent = nn.LSTM(8, 5, batch_first=True)
    found = LayerSimilarity().compute(ModelInputs(net, {"test": pairs()}, layer="flat"))
    assert found.content["names"] == ["body.0", "body", "recurrent", "head"], "a tuple with one tensor is that tensor"


def test_one_batch_is_the_cka_itself() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    whole = [(torch.cat([x for x, _ in pairs()]), torch.cat([y for _, y in pairs()]))]
    found = LayerSimilarity(layers=["2", "1"]).compute(ModelInputs(net, {"train": whole}, layer="1"))
    with torch.no_grad():
        wanted = float(linear_cka(net[:2](whole[0][0]), net(whole[0][0])))
    assert found.content["names"] == ["2", "1"] and found.scalars["adjacent"] == pytest.approx(wanted, abs=1e-4)
    last, middle = net(whole[0][0]).detach()[:150], net[:2](whole[0][0]).detach()[:150]
    net2 = ModelInputs(net, {"train": pairs()}, layer="1")  # kept over several batches
    again = LayerSimilarity(layers=["2", "1"], kept=150).compute(net2)
    for one, count in ((again, 150), (found, 200)):
        assert one.content["kept"] == count
    for name, way in (("distance", procrustes_distance), ("neighbours", mutual_neighbours)):
        assert again.scalars[f"{name}_first_last"] == pytest.approx(float(way(last, middle)), abs=1e-6)
    for (i, j), pair in (((0, 1), (last, middle)), ((1, 0), (middle, last))):
        score = float(regression_score(*pair, adjusted=True))
        assert float(again.content["regression"][i, j]) == pytest.approx(score, abs=1e-6)
    assert set(again.figures) == {"", "distance", "neighbours", "regression"} and again.figures["distance"]().axes
    assert "distance" not in LayerSimilarity(layers=["2", "1"], kept=0).compute(net2).content
    few = LayerSimilarity(layers=["2", "1"], kept=6).compute(net2)
    assert "regression from 1 is left out" in " ".join(few.notes) and few.scalars["distance_adjacent"] > 0
    assert "there is no test set" in found.notes[0] and found.content["split"] == "train"


class Twice(nn.Module):
    """One ReLU after both of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.second, self.head = nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.second(self.relu(self.first(x)))))


def test_of_a_module_that_is_called_twice_the_last_call_counts() -> None:
    torch.manual_seed(0)
    net = Twice()
    layers = ["first", "relu", "head"]
    for kept, count in ((120, 200), (500, 60)):
        found = LayerSimilarity(layers=layers, kept=kept, batch=50).compute(
            ModelInputs(net, {"test": pairs(count)}, "head")
        )
        kept = min(kept, count)
        x = torch.cat([part for part, _ in pairs(count)])[:kept]
        wanted = [extract_features(net, [(x, torch.zeros(kept).long())], name).features for name in layers]
        assert found.content["kept"] == kept and not found.notes
        for key, own in similarity_matrices(wanted)._asdict().items():
            torch.testing.assert_close(found.content[key], own, equal_nan=True)


def test_in_a_trainer_and_with_other_batches() -> None:
    data = digits()
    results = []
    for batch in (100, 50):
        analysis = LayerSimilarity(batch=batch, max_samples=250)
        Trainer(callbacks=[analysis], **QUIET).test(module(data), datamodule=data, verbose=False)
        assert analysis.outcome is not None and analysis.outcome.result is not None, analysis.outcome
        results.append(analysis.outcome.result)
    assert results[0].content["names"] == ["fc1", "features", "logits"]
    assert results[0].content["samples"] == 250
    assert torch.allclose(results[0].content["cka"], results[1].content["cka"], atol=0.1)


def failure(net: nn.Module, batches: list[Any], **options: Any) -> str:
    return LayerSimilarity(**options).run(ModelInputs(net, {"test": batches}, layer="0")).failure


def test_what_cannot_be_compared_is_told() -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    assert "only saved features" in LayerSimilarity().run(inputs()).failure
    assert "at least 4 samples" in failure(net, [(torch.randn(3, 6), torch.arange(3))])
    broken = torch.randn(9, 6)
    broken[4, 1] = torch.nan
    assert "layer '0': x must be finite" in failure(net, [(broken, torch.arange(9))])
    assert "has no layer '7'" in failure(net, pairs(), layers=["0", "7"])
    assert "fewer than two layers can be compared" in failure(nn.Sequential(nn.Linear(6, 2)), pairs())
    assert "fewer than two layers can be compared" in failure(nn.Sequential(nn.LSTM(6, 2)), pairs())
    with pytest.raises(ConfigError, match="two layers or more"):
        LayerSimilarity(layers=["0"])
    with pytest.raises(ConfigError, match="kept"):
        LayerSimilarity(kept=3)
    with pytest.raises(ConfigError, match="at least 4"):
        LayerSimilarity(batch=3)
