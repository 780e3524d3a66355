"""Models side by side: the same samples or none, aligned views, differences, and what is written."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_repshape.analyses import FeatureInputs, LDAEigenvalues, NeuralCollapse, PartialDatasetRetraining
from lightning_repshape.comparisons import Contender, TestSamples, compare, contend, write_comparison
from lightning_repshape.comparisons.gathering import Gathering
from lightning_repshape.errors import DataError
from lightning_repshape.features.passes import Features
from lightning_repshape.functional import linear_cka, mutual_neighbours, procrustes_distance, regression_score

CLASSES = 3


def data(noise: float, seed: int = 0, turn: bool = False) -> dict[str, Features]:
    source = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(9))).Q
    splits = {}
    for split, count in (("train", 90), ("test", 60)):
        labels = torch.arange(count) % CLASSES
        means = 3 * torch.eye(CLASSES, 4)[labels]
        features = means + noise * torch.randn(count, 4, generator=source)
        logits = features[:, :CLASSES].clone()
        splits[split] = Features(5 * features @ basis + 1 if turn else features, labels, logits)
    return splits


def model(name: str, noise: float, content: str = "same", names: list[str] | None = None, **options: bool) -> Contender:
    analyses = [LDAEigenvalues(), PartialDatasetRetraining(sizes=[3, 30], repeats=[2, 2], updates=5, hidden=[])]
    return contend(name, FeatureInputs(data(noise, **options)), [*analyses, NeuralCollapse()], names, content)


def test_a_turned_copy_is_the_same_representation() -> None:
    found = compare([model("one", 0.5), model("turned", 0.5, turn=True), model("other", 2.0)])
    one, turned, other = found.points
    assert torch.allclose(one, turned, atol=1e-4), "scaled and turned to lie as the first"
    assert float((one - other).square().mean()) > 0.01
    assert found.cka.tolist()[0][1] == pytest.approx(1, abs=1e-5)
    features = [own.features for own in found.contenders]
    assert float(found.cka[0, 2]) == pytest.approx(float(linear_cka(features[0], features[2])))
    assert float(found.distance[0, 2]) == pytest.approx(float(procrustes_distance(features[0], features[2])))
    assert found.labels.tolist() == [at % CLASSES for at in range(60)]
    assert float(found.neighbours[0, 2]) == pytest.approx(float(mutual_neighbours(features[0], features[2])))
    assert float(found.regression[0, 1]) == pytest.approx(1) and found.neighbours.diag().tolist() == [1, 1, 1]
    wanted = float(regression_score(features[2], features[0], adjusted=True))
    assert float(found.regression[2, 0]) == pytest.approx(wanted)


def test_errors_are_compared_sample_by_sample() -> None:
    first, second = model("good", 0.5), model("bad", 2.5)
    found = compare([first, second])
    assert first.wrong is not None and second.wrong is not None
    wanted = float(second.wrong.float().mean() - first.wrong.float().mean())
    difference = found.differences["good", "bad"]
    assert difference.difference == pytest.approx(wanted) and difference.low < wanted < difference.high
    assert found.scalars["test/error"] == pytest.approx(
        [float(own.wrong.float().mean()) for own in (first, second) if own.wrong is not None]
    )
    assert set(found.scalars) >= {"lda/eigenvalue", "partial_retraining/error_30", "collapse/test_nc1"}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (TestSamples(torch.arange(61) % 3, None, "same"), "60 and 61 samples"),
        (TestSamples((torch.arange(60) + 1) % 3, None, "same"), "60 of 60 labels differ"),
        (TestSamples(torch.arange(60) % 3, None, "else"), "by their hashes"),
        (TestSamples(torch.arange(60) % 3), "nothing says.*test_ids.*--same_samples"),
    ],
)
def test_other_samples_are_refused(other: TestSamples, words: str) -> None:
    import dataclasses

    first = model("one", 0.5)
    second = dataclasses.replace(first, name="two", samples=other)
    with pytest.raises(DataError, match=f"(?s)one and two were not tested on the same samples.*{words}"):
        compare([first, second])
    if "nothing" in words:
        compare([first, second], same_samples=True)


def test_names_of_samples_count_where_hashes_are_not_known() -> None:
    names = [f"a/{at}" for at in range(60)]
    compare([model("one", 0.5, "", names), model("two", 0.5, "", names)])
    for others, words in ((names[::-1], "another order"), ([f"b/{at}" for at in range(60)], "other names")):
        with pytest.raises(DataError, match=words):
            compare([model("one", 0.5, "", names), model("two", 0.5, "", others)])
    with pytest.raises(DataError, match="two models are called 'one'"):
        compare([model("one", 0.5), model("one", 0.5)])
    with pytest.raises(DataError, match="at least two"):
        compare([model("one", 0.5)])


def test_what_is_written(tmp_path: Path) -> None:
    found = compare([model("<plain>", 1.5), model("=shaped", 0.5)])
    page = write_comparison(found, tmp_path / "out", ["a line"]).read_text(encoding="utf-8")
    assert "&lt;plain&gt;" in page and "<plain>" not in page
    assert "Kornblith" in page and "Sato et al., ICML 2019" in page
    record = json.loads((tmp_path / "out/comparison.json").read_text())
    assert [own["name"] for own in record["models"]] == ["<plain>", "=shaped"]
    assert len(record["mutual_neighbours"]) == len(record["linear_regression"]) == 2
    assert record["linear_cka"][0][0] == 1 and record["test_samples"] == 60
    with (tmp_path / "out/figures.csv").open(newline="") as file:
        head, *rows = list(csv.reader(file))
    assert head == ["figure", "<plain>", "'=shaped"], "no cell is a formula"
    cells = {row[0]: row[1] for row in rows}  # empty where a model has no such figure
    assert float(cells["test/error"]) == pytest.approx(found.scalars["test/error"][0])
    for name in ("features", "retraining", "similarity"):
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 1000


class Foreign(LightningModule):
    """A module without names for its activations, whose ReLU works in place, twice; its batches are mappings."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.relu, self.narrow = nn.Linear(6, 5000), nn.ReLU(inplace=True), nn.Linear(5000, 4)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.drop(self.relu(self.narrow(self.relu(self.wide(x))))))
        return found

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None: ...


def test_layers_of_a_module_that_names_none_and_equal_ones_once() -> None:
    torch.manual_seed(0)
    module, x = Foreign(), torch.randn(150, 6)
    samples = [{"x": one, "y": at % CLASSES} for at, one in enumerate(x)]
    collapse = NeuralCollapse("narrow", unpack=("x", "y"))
    gathering = Gathering("own", "narrow", [collapse])
    trainer = Trainer(
        callbacks=[gathering], logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.test(module, DataLoader(samples, batch_size=40), verbose=False)
    assert gathering.contender is not None
    layers = gathering.contender.layers
    assert list(layers) == ["wide", "relu", "narrow", "head"], (
        "the dropout gives what the ReLU gives, which works in place"
    )
    module.eval()
    with torch.no_grad():
        wide = module.wide(x)
        narrow = module.narrow(wide.relu())
    torch.testing.assert_close(layers["narrow"], narrow)
    torch.testing.assert_close(layers["relu"], narrow.relu())
    assert layers["wide"].shape == (150, 4096)
    assert float(linear_cka(layers["wide"], wide)) == pytest.approx(1, abs=0.01)


def test_features_that_never_change_are_drawn_as_a_point() -> None:
    from lightning_repshape.comparisons.comparison import _plane

    assert not bool(_plane(torch.ones(5, 3)).any())
    line: Tensor = _plane(torch.arange(5.0)[:, None])
    assert line.shape == (5, 2) and float(line.square().sum(1).mean()) == pytest.approx(1)
    assert np.isfinite(line.numpy()).all()
