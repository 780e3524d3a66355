"""Analyses as functions, as callbacks, and inside other people's LightningModules."""

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ddp_pool import GlooPool
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lightning_repshape.callbacks import (
    Analysis,
    AnalysisInputs,
    AnalysisResult,
    FeatureInputs,
    FisherGeodesic,
    LDAEigenvalues,
    ModelInputs,
    NeuralCollapse,
    PartialDatasetRetraining,
    PrincipalComponents,
    RepresentationCharacteristics,
    WeightSeparability,
    run_analyses,
)
from lightning_repshape.data import DigitsDataModule
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.features.passes import Features, extract_features
from lightning_repshape.features.store import FeatureStore, analysis_loader, gather_features
from lightning_repshape.functional import class_vs_rest_lda
from lightning_repshape.metrics import LDAEigenvalueMetric, ScatterMetric
from lightning_repshape.modules import SupervisedModule
from lightning_repshape.networks import MLP

QUIET: dict[str, Any] = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "logger": False,
}
FAST = {"updates": 10, "hidden": (8,)}


@pytest.fixture(autouse=True)
def quick_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures without layout, but for the tests that look at files: drawing is most of the time."""
    if "real_figures" in request.fixturenames:
        return

    def save(figure: Any, path: Path, vector: bool = True) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.set_layout_engine("none")
        figure.savefig(path, dpi=20)
        return path

    monkeypatch.setattr("lightning_repshape.plots.save_figure", save)


@pytest.fixture
def real_figures() -> None:
    """Asks for figures as they are."""


def every(**shared: Any) -> list[Analysis]:
    """One of each, quick."""
    return [
        LDAEigenvalues(**shared),
        PrincipalComponents(**shared),
        NeuralCollapse(**shared),
        WeightSeparability(**shared),
        RepresentationCharacteristics(**shared),
        FisherGeodesic(few=10, segments=3, part=0.5, **FAST, **shared),
        PartialDatasetRetraining(sizes=[10, 30], repeats=[3, 2], **FAST, **shared),
    ]


def clusters(seed: int = 0, count: int = 120, width: int = 6, classes: int = 3, spread: float = 0.5) -> Features:
    """Gaussian classes around fixed points, with logits of a linear layer."""
    stream = torch.Generator().manual_seed(seed)
    centers = torch.randn(classes, width, generator=torch.Generator().manual_seed(99)).relu() * 2 + 0.5
    labels = torch.arange(count) % classes
    features = centers[labels] + spread * torch.randn(count, width, generator=stream)
    return Features(features, labels, features @ centers.T)


def inputs(**changes: Any) -> FeatureInputs:
    return FeatureInputs({"train": clusters(0), "test": clusters(1, 60)}, **changes)


def outcome_of(analysis: Analysis, features: Features, test: Features | None = None, **more: Any) -> str:
    """The message of an analysis that these data do not allow."""
    given = {"train": features, **({"test": test} if test is not None else {})}
    done = analysis.run(FeatureInputs(given, **more))
    assert done.result is None, done.result
    return done.failure


# -- results -----------------------------------------------------------------------------------------------------------


def test_lda_agrees_with_scipy() -> None:
    from scipy.linalg import eigh

    given = inputs()
    found = LDAEigenvalues(label=2, normalize=False).compute(given)
    x, y = given.features("train").features.double().numpy(), given.features("train").labels.numpy()
    means = [x[y == 2].mean(0), x[y != 2].mean(0)]
    parts = [x[y == 2] - means[0], x[y != 2] - means[1]]
    within = sum(part.T @ part for part in parts)
    gap = means[0] - means[1]
    between = np.outer(gap, gap) * len(parts[0]) * len(parts[1]) / len(x)
    assert found.scalars["eigenvalue"] == pytest.approx(eigh(between, within, eigvals_only=True)[-1], rel=1e-8)
    assert found.scalars["rank"] == 6
    assert 0 <= found.scalars["threshold_error"] < 0.2
    assert len(found.tables["each class against the rest"]) == 3


def test_lda_does_not_depend_on_order_names_or_rotation() -> None:
    train, test = clusters(0), clusters(1, 60)
    first = LDAEigenvalues(label=1).compute(FeatureInputs({"train": train, "test": test}))
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))).Q.float()
    order = torch.randperm(120, generator=torch.Generator().manual_seed(4))
    names = torch.tensor([2, 0, 1])
    moved = Features(train.features[order] @ turn, names[train.labels[order]], None)
    moved_test = Features(test.features @ turn, names[test.labels], None)
    second = LDAEigenvalues(label=0).compute(FeatureInputs({"train": moved, "test": moved_test}, num_classes=3))
    assert second.scalars["eigenvalue"] == pytest.approx(first.scalars["eigenvalue"], rel=1e-5)
    assert second.scalars["threshold_error"] == first.scalars["threshold_error"]


def test_geodesic_is_that_of_the_function_and_starts_both_heads_alike() -> None:
    found = FisherGeodesic(few=9, segments=4, **FAST).compute(inputs(seed=3))
    assert set(found.scalars) == {"layer_1", "layer_2", "full", "length_full", "error_all", "error_few"}
    segments = found.content["segments"]["full"]
    assert found.scalars["full"] == pytest.approx(float(segments.square().sum().sqrt()))
    assert found.scalars["length_full"] == pytest.approx(float(segments.sum()))
    assert len(found.content["errors"]) == 5
    # without a single update both heads are their common start: the line has no length
    still = FisherGeodesic(few=9, segments=4, updates=0, hidden=(8,)).compute(inputs())
    assert still.scalars["full"] == 0
    again = FisherGeodesic(few=9, segments=4, **FAST).compute(inputs(seed=3))
    assert again.scalars == found.scalars
    assert FisherGeodesic(few=9, segments=4, **FAST).compute(inputs(seed=4)).scalars != found.scalars


def test_retraining_knows_the_joint_error_and_its_sizes() -> None:
    given = inputs()
    found = PartialDatasetRetraining(sizes=[3, 60], repeats=[4, 2], **FAST).compute(given)
    test = given.features("test")
    assert found.scalars["joint_error"] == float((test.logits.argmax(1) != test.labels).double().mean())
    assert found.content["repeats"] == [4, 2]
    assert found.scalars["error_60"] == float(found.content["errors"][60].mean())
    by_default = PartialDatasetRetraining(**FAST).compute(given)
    assert by_default.content["sizes"] == [10, 120]
    assert by_default.content["repeats"] == [150, 1]


def test_collapse_of_a_simplex_is_exactly_zero() -> None:
    etf = torch.eye(4) - 0.25
    train = Features(
        etf.repeat_interleave(5, 0), torch.arange(4).repeat_interleave(5), etf.repeat_interleave(5, 0) @ etf.T
    )
    found = NeuralCollapse().compute(FeatureInputs({"train": train}, weight=etf))
    for measure in ("nc1", "nc2_norms", "nc2_angles", "nc2_simplex", "nc3"):
        assert found.scalars[f"train_{measure}"] == pytest.approx(0, abs=1e-6), measure
    assert found.scalars["train_nc4"] == 1
    assert found.scalars["train_nc3_cosine"] == pytest.approx(1)
    assert found.scalars["train_lda_eigenvalue"] == math.inf
    assert any("infinite" in note for note in found.notes)
    lda = LDAEigenvalues().compute(FeatureInputs({"train": train}))
    assert lda.scalars["eigenvalue"] == math.inf
    assert any("infinite for every class" in note for note in lda.notes)


def test_calibration_error_of_a_hand_worked_case() -> None:
    # ten samples with confidence 0.9, eight of them right; ten with 0.6, six right: (0.1 + 0) / 2
    logits = torch.log(torch.tensor([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10))
    labels = torch.tensor([0] * 8 + [1] * 2 + [0] * 6 + [1] * 4)
    train = Features(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), labels, logits)
    found = NeuralCollapse(bins=10).compute(FeatureInputs({"train": train}))
    assert found.scalars["train_calibration_error"] == pytest.approx(0.05, abs=1e-6)
    assert found.scalars["train_accuracy"] == pytest.approx(0.7)
    assert found.content["reliability"]["train"]["share"] == [0.5, 0.5]


def test_class_vectors_are_found_and_held_against_the_logits() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    x, y = torch.randn(40, 5), torch.arange(40) % 3
    loaders = {"train": [(x, y)]}
    last = ModelInputs(model, loaders, layer="3").class_vectors()
    assert last is not None and last.name == "4" and last.takes_features
    before = ModelInputs(model, loaders, layer="1").class_vectors()
    assert before is not None and not before.takes_features  # of the same width, but not what the layer receives
    assert "train_nc3" not in NeuralCollapse().compute(ModelInputs(model, loaders, layer="1")).scalars
    separability = WeightSeparability(head="4").compute(ModelInputs(model, loaders, layer="3"))
    w = model[4].weight.detach().double()
    assert separability.scalars["raw"] == pytest.approx(float((w @ w.T - torch.eye(3)).square().sum() / 3))
    assert "did you mean" in WeightSeparability(head="44").run(ModelInputs(model, loaders, layer="3")).failure


def test_additive_metrics_agree_with_the_function() -> None:
    part = clusters()
    metric, scatter = LDAEigenvalueMetric(3, 6, normalize=True), ScatterMetric(3, 6, shift=1.0)
    for rows in torch.arange(120).split(50):
        metric.update(part.features[rows], part.labels[rows])
        scatter.update(part.features[rows], part.labels[rows])
    expected = class_vs_rest_lda(part.features, part.labels, 3, normalize=True).eigenvalues
    torch.testing.assert_close(metric.compute(), expected, rtol=1e-9, atol=0)
    centered = part.features.double() - part.features.double().mean(0)
    torch.testing.assert_close(scatter.compute().total_scatter(), centered.T @ centered, rtol=1e-9, atol=1e-9)
    metric.reset()
    metric.update(part.features, part.labels)
    torch.testing.assert_close(metric.compute(), expected, rtol=1e-9, atol=0)


def metric_on_ranks(rank: int, world_size: int) -> Tensor:
    part = clusters()
    own = slice(0, 50) if rank == 0 else slice(50, 120)
    metric = LDAEigenvalueMetric(3, 6)
    metric.update(part.features[own], part.labels[own])
    return metric.compute()


def gathered_on_ranks(rank: int, world_size: int) -> tuple[Tensor, Tensor, Tensor | None, int]:
    from unittest.mock import patch

    from lightning_repshape.callbacks import feature_store

    part = clusters(count=61)
    own = Features(*(values[rank::world_size] for values in part if values is not None))
    sent: list[int] = []
    gather = torch.distributed.all_gather_object

    def measured(into: list[Any], given: Any) -> None:
        sent.append(max((len(value) for value in given if isinstance(value, Tensor)), default=0))
        gather(into, given)

    class Ranks:  # all that gathering asks a trainer for
        pass

    trainer: Any = Ranks()
    trainer.world_size = world_size
    with patch.object(torch.distributed, "all_gather_object", measured), patch.object(feature_store, "_ROWS", 7):
        whole = gather_features(own, trainer)
    return whole.features, whole.labels, whole.logits, max(sent)


def test_two_ranks_see_what_one_sees() -> None:
    pool = GlooPool()
    try:
        values = pool.run(metric_on_ranks, world_size=2)
        shards = pool.run(gathered_on_ranks, world_size=2)
    finally:
        pool.close()
    part = clusters()
    for value in values:
        torch.testing.assert_close(
            value, class_vs_rest_lda(part.features, part.labels, 3).eigenvalues, rtol=1e-9, atol=0
        )
    whole = clusters(count=61)
    for features, labels, logits, most in shards:
        assert torch.equal(features, whole.features) and torch.equal(labels, whole.labels)
        assert torch.equal(logits, whole.logits)
        assert most == 7  # no process sends its whole share at once


def test_large_arrays_are_mapped_to_memory() -> None:
    from lightning_repshape.features.passes import room_for

    for dtype in (torch.float32, torch.int64):
        small, large = room_for((50, 3), dtype), room_for((50, 3), dtype, spill_gb=1e-9)
        values = torch.arange(150).reshape(50, 3).to(dtype)
        for room in (small, large):
            assert room.shape == (50, 3) and room.dtype == dtype
            room[:] = values
            assert torch.equal(room, values)


# -- one way or the other ----------------------------------------------------------------------------------------------


class Draws(LightningModule):
    """Draws random numbers at every training step, so that any change of the generators shows."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 12), nn.Dropout(0.3), nn.ReLU())
        self.top = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.body(x.flatten(1)))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1]) + 0 * (random.random() + np.random.rand())

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test/error", (self(batch[0]).argmax(1) != batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 5e-3)


def digits() -> DigitsDataModule:
    return DigitsDataModule(batch_size=100, train_size=400)


def module(data: DigitsDataModule) -> SupervisedModule:
    torch.manual_seed(0)
    return SupervisedModule(data.num_classes, data.input_shape, backbone=lambda shape: MLP(shape, widths=(16, 12)))


def test_callback_function_and_model_give_the_same(tmp_path: Path, real_figures: None) -> None:
    data = digits()
    net = module(data)
    analyses = every()
    trainer = Trainer(max_epochs=2, default_root_dir=tmp_path, callbacks=list(analyses), **QUIET)
    trainer.fit(net, data)
    assert not (tmp_path / "analysis").exists()
    logged = trainer.test(net, data, verbose=False)[0]
    stages = {split: list(data.batches(split, augment=False, shuffle=False)) for split in ("train", "test")}
    of_model = ModelInputs(net, stages, "features", num_classes=10, class_names=data.class_names)
    found = {split: extract_features(net, batches) for split, batches in stages.items()}
    last = next(part for part in net.head.modules() if isinstance(part, nn.Linear))
    weight, bias = last.weight.detach(), last.bias.detach()
    of_tensors = FeatureInputs(found, num_classes=10, class_names=data.class_names, weight=weight, bias=bias)
    for given in (of_model, of_tensors):
        for ours, done in zip(every(), analyses, strict=True):
            result = ours.compute(given)
            assert done.outcome is not None and done.outcome.result is not None
            assert result.scalars == pytest.approx(done.outcome.result.scalars, rel=1e-5, nan_ok=True), ours.name
    for done in analyses:
        saved = json.loads((tmp_path / "analysis" / f"{done.name}.json").read_text())
        assert saved["analysis"] == done.name and saved["layer"] == "features"
        assert (tmp_path / "analysis" / f"{done.name}.png").stat().st_size > 5000
        assert (tmp_path / "analysis" / f"{done.name}.pdf").is_file()
        for name, value in saved["scalars"].items():
            assert logged[f"test/{done.name}/{name}"] == pytest.approx(value, rel=1e-5)


def test_training_is_the_same_with_and_without_analyses(tmp_path: Path) -> None:
    def train(callbacks: list[Any]) -> dict[str, Tensor]:
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        net = Draws()
        x, y = torch.randn(90, 64), torch.arange(90) % 10
        loader = DataLoader(TensorDataset(x, y), batch_size=30, shuffle=True)
        Trainer(max_epochs=3, default_root_dir=tmp_path, callbacks=callbacks, **QUIET).fit(net, loader)
        assert net.training
        random_numbers = torch.tensor([random.random(), np.random.rand(), float(torch.rand(()))])
        return {**net.state_dict(), "numbers": random_numbers}

    plain = train([])
    watched = train([
        LDAEigenvalues(layer="body", every_n_epochs=1, when="fit"),
        PartialDatasetRetraining("body", when="fit", sizes=[10], repeats=[2], loaders={"test": _batches()}, **FAST),
    ])  # fmt: skip
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
    folders = sorted(path.name for path in (tmp_path / "analysis").iterdir() if path.is_dir())
    assert folders == ["epoch-000", "epoch-001", "epoch-002", "epoch-003"]
    assert json.loads((tmp_path / "analysis/partial_retraining.json").read_text())["scalars"]["error_10"] >= 0
    first, last = (
        json.loads((tmp_path / f"analysis/{name}/lda.json").read_text()) for name in ("epoch-000", "epoch-003")
    )
    assert first["scalars"] != last["scalars"]
    assert json.loads((tmp_path / "analysis/lda.json").read_text())["scalars"] == last["scalars"]


def test_initialisation_beside_the_trained_weights(tmp_path: Path) -> None:
    data = digits()
    net = module(data)
    start = extract_features(net, list(data.batches("test", augment=False, shuffle=False)), "fc2.pre")
    options: dict[str, Any] = {"units": (1, 3), "positive_only": False, "layer": "fc2"}
    watching = [
        RepresentationCharacteristics(when="fit_start", **options),
        RepresentationCharacteristics(when="fit", **options),
        PrincipalComponents(when="fit_start", before="features.pre"),
    ]
    assert [analysis.name for analysis in watching] == ["characteristics-init", "characteristics", "pca-init"]
    trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=list(watching), **QUIET)
    trainer.fit(net, data)
    saved = {name: np.load(tmp_path / f"analysis/{name}.npz") for name in ("characteristics-init", "characteristics")}
    first = saved["characteristics-init"]["values"]
    np.testing.assert_array_equal(first, start.features.relu()[:, [1, 3]].numpy())
    assert not np.array_equal(first, saved["characteristics"]["values"])
    assert saved["characteristics"]["units"].tolist() == [1, 3]
    before = np.load(tmp_path / "analysis/pca-init.npz")["before_points"]
    centered = start.features.double() - start.features.double().mean(0)
    spread = torch.linalg.svdvals(centered)[:3]
    np.testing.assert_allclose(np.linalg.norm(before, axis=0), spread.numpy(), rtol=1e-4)
    scalars = json.loads((tmp_path / "analysis/pca-init.json").read_text())["scalars"]
    assert scalars["before_explained_3"] == pytest.approx(float(spread.square().sum() / centered.square().sum()))
    # what went on from a checkpoint has no initial weights to look at
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    again = RepresentationCharacteristics(when="fit_start", **options)
    more = Trainer(max_epochs=2, default_root_dir=tmp_path / "more", callbacks=[again], **QUIET)
    more.fit(module(data), data, ckpt_path=tmp_path / "one.ckpt")
    assert again.outcome is None


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


def _batches() -> DataLoader[Any]:
    stream = torch.Generator().manual_seed(1)
    return DataLoader(TensorDataset(torch.randn(40, 64, generator=stream), torch.arange(40) % 10), batch_size=20)


def test_one_pass_a_split_serves_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_repshape.callbacks import feature_store

    passes: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> Features:
        passes.append(1)
        return extract_features(*args, **kwargs)

    monkeypatch.setattr(feature_store, "extract_features", counted)
    data = digits()
    trainer = Trainer(
        default_root_dir=tmp_path, callbacks=[LDAEigenvalues(), NeuralCollapse(), WeightSeparability()], **QUIET
    )
    trainer.test(module(data), data, verbose=False)
    assert len(passes) == 2  # train and test
    assert sum(isinstance(callback, FeatureStore) for callback in trainer.callbacks) == 1


def test_two_of_a_kind_need_two_names(tmp_path: Path) -> None:
    data = digits()
    twice = [LDAEigenvalues(), LDAEigenvalues(layer="logits")]
    with pytest.raises(ConfigError, match="two analyses are called 'lda'"):
        Trainer(default_root_dir=tmp_path, callbacks=list(twice), **QUIET).test(module(data), data, verbose=False)
    twice = [LDAEigenvalues(), LDAEigenvalues(layer="logits", name="lda-logits")]
    Trainer(default_root_dir=tmp_path, callbacks=list(twice), **QUIET).test(module(data), data, verbose=False)
    assert json.loads((tmp_path / "analysis/lda-logits.json").read_text())["layer"] == "logits"


# -- other people's modules --------------------------------------------------------------------------------------------


class DictData(Dataset[dict[str, Tensor]]):
    """Samples as dictionaries."""

    def __init__(self, count: int, seed: int) -> None:
        stream = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(count) % 4
        self.images = torch.randn(count, 3, 8, 8, generator=stream) + self.labels[:, None, None, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": self.images[index], "label": self.labels[index], "other": torch.zeros(2)}


class Foreign(LightningModule):
    """A module of another project: dictionaries as batches, a forward pass that returns one, its own loaders."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Linear(5, 4)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"scores": self.classifier(self.stem(images).flatten(1))}

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch["image"])["scores"], batch["label"])

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self(batch["image"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(DictData(60, 0), batch_size=16, shuffle=True)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(DictData(31, 1), batch_size=16)


def test_a_foreign_module_needs_layer_and_unpack_only(tmp_path: Path) -> None:
    analyses = every(layer="stem", unpack=("image", "label"))
    trainer = Trainer(default_root_dir=tmp_path, callbacks=list(analyses), **QUIET)
    trainer.test(Foreign(), verbose=False)
    for analysis in analyses:
        assert analysis.outcome is not None and analysis.outcome.result is not None, analysis.outcome
    collapse = json.loads((tmp_path / "analysis/collapse.json").read_text())
    assert "train_nc4" in collapse["scalars"]
    assert any("no logits" in note for note in collapse["notes"])


def test_plain_torchvision_model() -> None:
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    net = squeezenet1_1(weights=None, num_classes=4)
    stream = torch.Generator().manual_seed(0)
    batches = {
        split: [(torch.rand(20, 3, 32, 32, generator=stream), torch.arange(20) % 4)] * 2 for split in ("train", "test")
    }
    given = ModelInputs(net, batches, layer="features.6.squeeze")
    outcomes = run_analyses([LDAEigenvalues(), NeuralCollapse(), RepresentationCharacteristics()], given)
    assert [outcome.failure for outcome in outcomes] == ["", "", ""]
    assert net.training  # as it was
    assert outcomes[1].result is not None and 0 <= outcomes[1].result.scalars["test_accuracy"] <= 1


def images(count: int, seed: int) -> TensorDataset:
    data = DictData(count, seed)
    return TensorDataset(data.images, data.labels)


def test_inside_torch_uncertainty(tmp_path: Path) -> None:
    routines = pytest.importorskip("torch_uncertainty.routines")
    body = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 4))
    net = routines.ClassificationRoutine(body, num_classes=4, loss=nn.CrossEntropyLoss())
    analyses = every(layer="model.2")
    trainer = Trainer(default_root_dir=tmp_path, callbacks=list(analyses), **QUIET)
    data = _Images()
    trainer.test(net, data, verbose=False)
    assert [analysis.outcome.failure for analysis in analyses if analysis.outcome] == [""] * len(analyses)


def test_inside_torchgeo(tmp_path: Path) -> None:
    trainers = pytest.importorskip("torchgeo.trainers")
    net = trainers.ClassificationTask(model="resnet18", weights=None, in_channels=3, num_classes=4)
    analyses = every(layer="model.global_pool", unpack=("image", "label"))
    trainer = Trainer(default_root_dir=tmp_path, callbacks=list(analyses), **QUIET)
    trainer.test(net, _Images(as_dictionaries=True), verbose=False)
    assert [analysis.outcome.failure for analysis in analyses if analysis.outcome] == [""] * len(analyses)


def _Images(as_dictionaries: bool = False) -> Any:
    from lightning.pytorch import LightningDataModule

    kind = DictData if as_dictionaries else images

    class Data(LightningDataModule):
        def setup(self, stage: str) -> None:
            if stage == "fit":
                self.train = kind(64, 0)
            else:
                self.test = kind(40, 1)

        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(self.train, batch_size=16, shuffle=True)

        def test_dataloader(self) -> DataLoader[Any]:
            return DataLoader(self.test, batch_size=16)

    return Data()


class Staged(LightningDataModule):
    """Prepares what a stage needs alone, splits at random, and augments while the trainer trains."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def setup(self, stage: str) -> None:
        self.calls.append(stage)
        if stage == "fit":
            self.train, self.val = torch.utils.data.random_split(images(80, 0), [64, 16])
        else:
            self.test = images(40, 1)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train, batch_size=16, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.val, batch_size=16)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.test, batch_size=16)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        x, y = batch
        return (x + 100 if self.trainer is not None and self.trainer.training else x), y


class Plain(Foreign):
    """The same on tensors."""

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.stem(images).flatten(1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])


@pytest.mark.parametrize("options", [{"when": "fit"}, {"when": "fit_start"}, {"every_n_epochs": 1}])
def test_a_fit_analyses_the_test_set_that_it_has_not_prepared(tmp_path: Path, options: dict[str, Any]) -> None:
    analyses: list[Any] = [LDAEigenvalues("stem", **options), NeuralCollapse("stem", **options)]
    data = Staged()
    Trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=analyses, **QUIET).fit(Plain(), data)
    assert data.calls == ["fit", "test"]
    assert [analysis.outcome.failure for analysis in analyses] == ["", ""]
    assert "test_accuracy" in analyses[1].outcome.result.scalars


def test_a_test_prepares_the_other_sets_once(tmp_path: Path) -> None:
    analyses = [kind(layer="stem") for kind in (LDAEigenvalues, NeuralCollapse, RepresentationCharacteristics)]
    data = Staged()
    trainer = Trainer(default_root_dir=tmp_path, callbacks=list(analyses), **QUIET)
    trainer.test(Plain(), data, verbose=False)
    assert data.calls == ["test", "fit"]
    trainer.test(Plain(), data, verbose=False)
    assert data.calls == ["test", "fit"] * 2  # nothing is held on to


def test_augmentation_of_a_training_trainer_stays_out(tmp_path: Path) -> None:
    class Keeps(Analysis):
        kind = "keeps"

        def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
            return AnalysisResult({"mean": float(inputs.features("train").features.mean())})

    net, data, analysis = Plain(), Staged(), Keeps("stem", when="fit")
    trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=[analysis], **QUIET)
    trainer.fit(net, data)
    assert analysis.outcome is not None and analysis.outcome.result is not None
    batches = [next(iter(DataLoader(data.train, batch_size=64)))]
    wanted = float(extract_features(net, batches, "stem").features.mean())
    assert analysis.outcome.result.scalars["mean"] == pytest.approx(wanted, rel=1e-5)


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_fewer_samples_than_classes() -> None:
    train, test = clusters(), clusters(1, 60)
    assert "needs n' >= 3 samples, got 2" in outcome_of(PartialDatasetRetraining(sizes=[2], repeats=[1]), train, test)
    assert "needs n' >= 3 samples, got 2" in outcome_of(FisherGeodesic(few=2), train, test)


def test_unknown_layer_and_layer_without_a_tensor(tmp_path: Path) -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    net = nn.Sequential(nn.Linear(4, 6), Pair())
    batches = {"train": [(torch.randn(9, 4), torch.arange(9) % 3)]}
    assert "has no layer '00'" in LDAEigenvalues().run(ModelInputs(net, batches, layer="00")).failure
    failure = LDAEigenvalues().run(ModelInputs(net, batches, layer="1")).failure
    assert "layer '1' of Sequential returns tuple, not a tensor" in failure
    # in a run: a message, and the analyses of other layers go on
    data = digits()
    wrong, right = LDAEigenvalues(layer="featurs", name="wrong"), LDAEigenvalues(layer="features")
    Trainer(default_root_dir=tmp_path, callbacks=[wrong, right], **QUIET).test(module(data), data, verbose=False)
    failure = json.loads((tmp_path / "analysis/wrong.json").read_text())["failure"]
    assert "did you mean 'features'" in failure
    assert "eigenvalue" in json.loads((tmp_path / "analysis/lda.json").read_text())["scalars"]


def test_one_class_only() -> None:
    one = clusters()._replace(labels=torch.ones(120, dtype=torch.int64), logits=None)
    for analysis in (LDAEigenvalues(), NeuralCollapse(), FisherGeodesic(), PartialDatasetRetraining()):
        assert "all 120 train samples are of class '1'" in outcome_of(analysis, one, one)
    assert PrincipalComponents().run(FeatureInputs({"train": one})).result is not None


def test_class_with_one_sample() -> None:
    part = clusters()
    labels = part.labels.clone()
    labels[0] = 3
    lonely = Features(part.features, labels, None)
    results = run_analyses([LDAEigenvalues(label=3), NeuralCollapse(), RepresentationCharacteristics()],
                           FeatureInputs({"train": lonely, "test": lonely}))  # fmt: skip
    assert [outcome.failure for outcome in results] == ["", "", ""]
    assert any("1 of 4 classes have too few samples" in note for note in results[2].result.notes)
    assert "class 3 has 1" in outcome_of(PartialDatasetRetraining(sizes=[8], repeats=[1]), lonely, lonely)


def test_constant_features() -> None:
    flat = clusters()._replace(features=torch.ones(120, 6), logits=None)
    assert "every feature is constant" in outcome_of(LDAEigenvalues(), flat)
    assert "never change" in outcome_of(PrincipalComponents(), flat)
    assert "class means coincide" in outcome_of(NeuralCollapse(), flat)
    assert "none of the layer's 6 units varies" in outcome_of(RepresentationCharacteristics(), flat)


def test_collapsed_features_are_said_to_be() -> None:
    part = clusters(spread=0.0)
    done = LDAEigenvalues().run(FeatureInputs({"train": part, "test": clusters(1, 60)}))
    assert done.result is not None and done.result.scalars["eigenvalue"] == math.inf
    assert any("eigenvalue infinite" in note for note in done.result.notes)
    done.result.figures[""]()
    done.result.figures["classes"]()


def test_more_features_than_samples() -> None:
    wide = clusters(count=30, width=50)
    done = LDAEigenvalues().run(FeatureInputs({"train": wide, "test": clusters(1, 60, 50)}))
    assert done.result is not None, done.failure
    assert any("no more samples than features" in note for note in done.result.notes)
    assert done.result.scalars["rank"] <= 29
    done.result.figures[""]()


def test_nan_features_stop_what_needs_them_only(tmp_path: Path) -> None:
    features = clusters().features.clone()
    features[7, 2] = torch.nan
    broken = Features(features, clusters().labels, None)
    given = FeatureInputs({"train": broken, "test": clusters(1, 60)}, num_classes=3, weight=torch.eye(3, 6))
    outcomes = {outcome.name: outcome for outcome in run_analyses(every(), given, tmp_path)}
    assert "features of 1 of 120 samples of the train set hold NaN" in outcomes["lda"].failure
    assert outcomes["geodesic"].failure == outcomes["lda"].failure
    assert {name for name, outcome in outcomes.items() if outcome.result is not None} == {
        "pca", "characteristics", "weight_separability"
    }  # fmt: skip
    assert "failure" in json.loads((tmp_path / "lda.json").read_text())
    assert json.loads((tmp_path / "weight_separability.json").read_text())["scalars"]["raw"] == 0


def test_a_failure_takes_an_earlier_figure_away(tmp_path: Path) -> None:
    run_analyses([LDAEigenvalues()], inputs(), tmp_path)
    assert (tmp_path / "lda-classes.png").is_file()
    (tmp_path / "lda-logits.json").write_text("{}")
    run_analyses([LDAEigenvalues(label=7)], inputs(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lda-logits.json", "lda.json"]
    assert "label=7" in json.loads((tmp_path / "lda.json").read_text())["failure"]


def test_only_the_analysis_s_own_stale_files_are_taken_away(tmp_path: Path) -> None:
    run_analyses([LDAEigenvalues(name="lda-2")], inputs(), tmp_path)
    others = sorted(path.name for path in tmp_path.iterdir())
    run_analyses([PrincipalComponents(name="lda")], inputs(), tmp_path)
    assert (tmp_path / "lda-3d.png").is_file()
    listed = json.loads((tmp_path / "lda.json").read_text())["files"]
    assert {path.name for path in tmp_path.glob("lda*.png")} - set(others) <= set(listed)
    run_analyses([LDAEigenvalues()], inputs(), tmp_path)  # a success takes away what it does not write either
    assert not (tmp_path / "lda-3d.png").exists() and (tmp_path / "lda.png").is_file()
    run_analyses([LDAEigenvalues(label=7)], inputs(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "lda.json"])
    # what is listed elsewhere stays
    (tmp_path / "kept.png").write_text("")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/lda.json").write_text(json.dumps({"files": ["../kept.png", 3, "lda.json"]}))
    run_analyses([LDAEigenvalues(label=7)], inputs(), tmp_path / "in")
    assert (tmp_path / "kept.png").is_file()
    (tmp_path / "in/lda.json").write_text("{half")
    assert run_analyses([LDAEigenvalues()], inputs(), tmp_path / "in")[0].failure == ""


@pytest.mark.parametrize(
    "wrong", [{"weight": torch.zeros(3)}, {"weight": torch.zeros(2, 6)}, {"weight": torch.zeros(3, 6).long()},
              {"weight": torch.zeros(3, 6), "bias": torch.zeros(2)}]
)  # fmt: skip
def test_a_weight_of_the_wrong_shape(wrong: dict[str, Tensor]) -> None:
    done = NeuralCollapse().run(inputs(**wrong))
    assert "floating-point numbers for K = 3 classes" in done.failure


def test_rows_of_a_weight_count_as_classes() -> None:
    part = clusters()._replace(logits=None)
    given = FeatureInputs({"train": part}, weight=torch.randn(5, 6, generator=torch.Generator().manual_seed(0)))
    assert given.num_classes() == 5 and NeuralCollapse().run(given).failure == ""


def test_logits_that_are_not_finite() -> None:
    part = clusters()
    logits = part.logits.clone()
    logits[[3, 8], 1] = torch.nan
    given = FeatureInputs({"train": part._replace(logits=logits), "test": clusters(1, 60)}, num_classes=3)
    collapse, lda = run_analyses([NeuralCollapse(), LDAEigenvalues()], given)
    assert collapse.result is not None and lda.result is not None
    assert "train_accuracy" not in collapse.result.scalars and "test_accuracy" in collapse.result.scalars
    assert any("logits of 2 of 120 samples hold NaN" in note for note in collapse.result.notes)


def test_outputs_that_are_no_logits() -> None:
    train, test = (part._replace(logits=part.features @ torch.ones(6, 32)) for part in (clusters(), clusters(1, 60)))
    given = FeatureInputs({"train": train, "test": test}, num_classes=3)
    done = NeuralCollapse().run(given)
    assert done.result is not None and not {"train_accuracy", "test_calibration_error"} & set(done.result.scalars)
    assert any("returns 32 values a sample, which are no logits of 3 classes" in note for note in done.result.notes)
    retrained = PartialDatasetRetraining(sizes=[10], repeats=[1], **FAST).run(given)
    assert retrained.result is not None and "joint_error" not in retrained.result.scalars


@pytest.mark.parametrize("num_classes", [2, None])
def test_a_single_output_of_two_classes(num_classes: int | None) -> None:
    part = clusters(classes=2)
    z = part.features[:, :1] - part.features[:, :1].mean()
    given = FeatureInputs({"train": part._replace(logits=z), "test": part._replace(logits=z)}, num_classes=num_classes)
    torch.testing.assert_close(given.features("test").logits.softmax(dim=1)[:, 1], torch.sigmoid(z[:, 0]))
    wrong = float(((z[:, 0] > 0).long() != part.labels).double().mean())
    found = PartialDatasetRetraining(sizes=[10], repeats=[1], **FAST).compute(given).scalars
    assert found["joint_error"] == pytest.approx(wrong)
    assert NeuralCollapse().compute(given).scalars["test_accuracy"] == pytest.approx(1 - wrong)


def test_fewer_test_classes_and_fewer_training_classes() -> None:
    train, test = clusters(), clusters(1, 60)
    some = test.labels < 2
    fewer = Features(test.features[some], test.labels[some], None)
    outcomes = run_analyses(every(), FeatureInputs({"train": train, "test": fewer}, weight=torch.eye(3, 6)))
    assert [outcome.failure for outcome in outcomes] == [""] * 7
    assert any("no test samples of class 2" in note for note in outcomes[0].result.notes)
    some = train.labels < 2
    fewer = Features(train.features[some], train.labels[some], None)
    outcomes = run_analyses(every(), FeatureInputs({"train": fewer, "test": test}, num_classes=3))
    assert [outcome.name for outcome in outcomes if outcome.failure] == ["weight_separability"]
    assert any("20 test samples of other classes are left out" in note for note in outcomes[-1].result.notes)


def test_labels_of_the_wrong_kind_and_batches_without_labels() -> None:
    net = nn.Linear(4, 3)
    net = nn.Sequential(net)
    x = torch.randn(6, 4)

    def failure(batch: Any, unpack: tuple[int | str, int | str] = (0, 1)) -> str:
        return LDAEigenvalues().run(ModelInputs(net, {"train": [batch]}, "0", unpack)).failure

    assert "labels must be one integer a sample, got torch.float32" in failure((x, torch.rand(6)))
    assert "one integer a sample" in failure((x, torch.zeros(6, 3, dtype=torch.int64)))
    assert "unpack=(0, 1) does not fit the batches, which are list of 1 entries" in failure([x])
    assert "unpack=('image', 'label')" in failure({"image": x, "target": 1}, ("image", "label"))
    assert "have a label below 0" in failure((x, torch.tensor([0, 1, -1, 0, 1, 2])))
    assert "label 5, but there are only 3 classes" in LDAEigenvalues().run(
        ModelInputs(net, {"train": [(x, torch.tensor([0, 5, 1, 0, 1, 2]))]}, "0", num_classes=3)
    ).failure  # fmt: skip
    assert "no loader of the train set" in LDAEigenvalues().run(ModelInputs(net, {"test": []}, "0")).failure


def test_options_that_cannot_work() -> None:
    with pytest.raises(ConfigError, match="when='end'"):
        LDAEigenvalues(when="end")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="every_n_epochs is -1"):
        LDAEigenvalues(every_n_epochs=-1)
    with pytest.raises(ConfigError, match="part is 0"):
        FisherGeodesic(part=0)
    with pytest.raises(ConfigError, match="repeats must be one number"):
        PartialDatasetRetraining(sizes=[10, 20], repeats=[1])
    wrong: list[dict[str, Any]] = [{"sizes": [2.5]}, {"sizes": [0]}, {"updates": 0}, {"sizes": [9], "repeats": [-1]}]
    for options in wrong:
        with pytest.raises(ConfigError, match="no whole number above 0"):
            PartialDatasetRetraining(**options)
    with pytest.raises(ConfigError, match="two positions or keys"):
        LDAEigenvalues(unpack=(0, 1, 2))  # type: ignore[arg-type]


def test_a_missing_set_is_a_data_error() -> None:
    trainer = Trainer(**QUIET)
    trainer.strategy.connect(Foreign())
    with pytest.raises(DataError, match="there is no val set"):
        analysis_loader(trainer, "val")


def test_an_error_of_the_program_is_not_hidden() -> None:
    class Broken(Analysis):
        kind = "broken"

        def compute(self, inputs: AnalysisInputs) -> AnalysisResult:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Broken().run(inputs())
