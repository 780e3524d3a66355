"""Feed-backward reconstruction: metric, module, callbacks, analyses and the command line."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_runs import ONE, QUIET, TWO, checkpoint, rows, run_process, same
from ddp_pool import GlooPool
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_repshape import plots
from lightning_repshape.callbacks import (
    ActivationPatterns,
    FeatureInputs,
    FeedBackwardPenalty,
    SeparabilityCurve,
    WeightSpace,
)
from lightning_repshape.cli import main
from lightning_repshape.errors import ConfigError
from lightning_repshape.features.last_layer import find_last_linear
from lightning_repshape.features.passes import Features
from lightning_repshape.functional import (
    cw_vr,
    dependent_class_vectors,
    feed_backward_loss,
    orthonormal_class_vectors,
    weight_separability,
)
from lightning_repshape.heads import ClassVectorHead, LinearHead, MLPHead, NoisyMLPHead
from lightning_repshape.losses import ArcFace, CenterLoss, CosFace, FeedBackwardReconstruction, LargeMarginSoftmax
from lightning_repshape.metrics import WeightSeparabilityMetric
from lightning_repshape.modules import FeedBackwardModule, SupervisedModule
from lightning_repshape.networks import MLP
from lightning_repshape.regularizers import ClasswiseVariance, L2Weight

SHAPE = (1, 2, 3)
BACKBONE = partial(MLP, widths=(8, 5))
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def samples(count: int = 36) -> tuple[Tensor, Tensor]:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1)), torch.arange(count) % 3


def build(kind: Any = FeedBackwardModule, **options: Any) -> Any:
    torch.manual_seed(0)
    return kind(3, SHAPE, BACKBONE, optimizer=SGD, **options)


def train(module: LightningModule, callbacks: Any = (), epochs: int = 2, **options: Any) -> Trainer:
    trainer = Trainer(
        max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(callbacks), accelerator="cpu", **options,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(*samples()), batch_size=12))
    return trainer


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


# ---------------------------------------------------------------------------------------- class vectors, metric


def test_fixed_class_vectors() -> None:
    source = torch.Generator().manual_seed(3)
    orthonormal = orthonormal_class_vectors(10, 10, source)
    assert weight_separability(orthonormal.double()) < 1e-12
    assert weight_separability(orthonormal_class_vectors(4, 9, source).double()) < 1e-12
    for rank in (1, 2, 5):
        vectors = dependent_class_vectors(10, 10, rank, source)
        assert int(torch.linalg.matrix_rank(vectors.double(), rtol=1e-5)) == rank
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(10))
    with pytest.raises(ValueError, match="cannot be orthonormal"):
        orthonormal_class_vectors(10, 9)
    with pytest.raises(ValueError, match="rank must be"):
        dependent_class_vectors(3, 9, 3)


def share_of_metric(rank: int, world_size: int) -> dict[str, Tensor]:
    metric = WeightSeparabilityMetric()
    for number in range(rank, 4, world_size):
        metric.update((number + 1) * torch.eye(2, 5))
    return metric.compute()


def test_metric_is_the_mean_of_the_function_over_updates_and_processes(gloo: GlooPool) -> None:
    expected = {"raw": sum((n * n - 1) ** 2 for n in (1, 2, 3, 4)) / 4, "unit": 0.0}
    for found in (share_of_metric(0, 1), *gloo.run(share_of_metric)):
        assert {key: float(value) for key, value in found.items()} == expected


def test_metric_says_once_that_there_are_too_few_features() -> None:
    metric = WeightSeparabilityMetric()
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="4 features for 6 classes") as caught:
        metric.update(weight)
        metric.update(weight)
    assert len(caught) == 1
    assert float(metric.compute()["raw"]) == pytest.approx(float(weight_separability(weight.double())))


# ------------------------------------------------------------------------------------------------------ module


def by_hand(alpha: Tensor, weight: Tensor, logits: Tensor, y: Tensor, factor: float) -> float:
    total = 0.0
    for a, w, out, label in zip(alpha.tolist(), weight[y].tolist(), logits.tolist(), y.tolist(), strict=True):
        p, q = [math.exp(v) for v in a], [math.exp(v) for v in w]
        total += factor * sum(u / sum(p) * math.log(u / sum(p) * sum(q) / v) for u, v in zip(p, q, strict=True))
        total += math.log(sum(math.exp(v) for v in out)) - out[label]
    return total / len(y)


@pytest.mark.parametrize(
    "head", [LinearHead, partial(MLPHead, hidden=(7, 4)), partial(MLPHead, hidden=(7,), dropout=0.5)]
)
def test_loss_is_equation_10_on_what_enters_the_last_layer(head: Any) -> None:
    module = build(head=head, reconstruction_weight=0.3).double().eval()
    x, y = samples()
    output = module(x.double(), module.training_activations())
    loss, terms = module.loss(output, y)
    alpha = output.features
    for linear in module.head.linears[:-1]:
        alpha = linear(alpha).relu()
    weight = module.head.output.weight
    expected = by_hand(alpha, weight, output.logits, y, 0.3)
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    assert terms["feed_backward"].item() == pytest.approx(0.3 * terms["feed_backward_raw"].item())
    torch.testing.assert_close(loss, F.cross_entropy(output.logits, y) + 0.3 * feed_backward_loss(alpha, weight, y))
    assert torch.equal(module.class_vectors, weight)


@pytest.mark.parametrize("stopped", ["features", "weight"])
def test_gradients_can_be_stopped(stopped: str) -> None:
    module = build(reconstruction_weight=1.0, stop_gradient=stopped, temperature=2.0)
    x, y = samples()
    _, terms = module.loss(module(x, module.training_activations()), y)
    names = ["backbone.fc2.linear.weight", "head.output.weight"]
    found = torch.autograd.grad(
        terms["feed_backward"], [module.get_parameter(name) for name in names], allow_unused=True
    )
    assert [gradient is None for gradient in found] == [stopped == "features", stopped == "weight"]


def test_regularizers_and_other_losses_add_up() -> None:
    term = ClasswiseVariance(weight=0.7, layer="fc1")
    module = build(
        head=partial(LinearHead, bias=False), regularizers=[term], classification_loss=CenterLoss, label_smoothing=0.1
    )
    assert module.training_activations() == ("fc1", "features")
    x, y = samples()
    output = module(x, module.training_activations())
    centers = module.criterion.centers.clone()
    loss, terms = module.loss(output, y)
    expected = (
        F.cross_entropy(output.logits, y, label_smoothing=0.1)
        + 0.7 * cw_vr(output.activations["fc1"], y, 3)
        + 0.0015 * (output.features - centers[y]).square().sum(1).mean()
        + 0.001 * feed_backward_loss(output.features, module.class_vectors, y)
    )
    torch.testing.assert_close(loss, expected)
    assert {"CenterLoss", "feed_backward", "feed_backward_raw", "ClasswiseVariance/fc1"} <= set(terms)
    assert module.criterion.centers.abs().sum() > 0


@pytest.mark.parametrize("loss", [CosFace, ArcFace])
def test_cosine_losses_predict_from_cosines(loss: Any) -> None:
    module = build(head=partial(LinearHead, bias=False), classification_loss=loss, reconstruction_weight=0.0)
    x, y = samples()
    output = module(x, ("fc1", "logits"))
    cosine = F.normalize(output.features, dim=1) @ F.normalize(module.class_vectors, dim=1).T
    torch.testing.assert_close(output.logits, 64 * cosine)
    assert list(output.activations) == ["fc1", "logits"] and output.activations["logits"] is output.logits
    inner = module(x, module.training_activations())
    torch.testing.assert_close(
        module.loss(inner, y)[0], module.criterion(inner.features, module.class_vectors, None, y)
    )


def test_margin_is_trained_and_plain_logits_are_evaluated() -> None:
    module = build(head=partial(LinearHead, bias=False), classification_loss=partial(LargeMarginSoftmax, annealing=0.0))
    x, y = samples()
    output = module(x, module.training_activations())
    _, terms = module.loss(output, y)
    assert terms["classification_loss"] > module.classification_loss(output.logits, y)


@pytest.mark.parametrize("kind", ["orthonormal", "dependent"])
def test_a_fixed_last_layer_stays(kind: str) -> None:
    module = build(last_layer=kind, reconstruction_weight=0.5)
    before = {name: value.clone() for name, value in module.named_parameters()}
    train(module)
    assert torch.equal(module.class_vectors, before["head.output.weight"])
    assert not module.head.output.bias.any()
    assert not torch.equal(module.get_parameter("backbone.fc1.linear.weight"), before["backbone.fc1.linear.weight"])
    separability = float(weight_separability(module.class_vectors.double()))
    assert (separability < 1e-12) == (kind == "orthonormal")


def share_of_gradient(rank: int, world_size: int) -> list[Tensor]:
    module = build(reconstruction_weight=1.0).double()
    x, y = samples()
    loss, _ = module.loss(module(x[rank::world_size].double(), module.training_activations()), y[rank::world_size])
    return list(torch.autograd.grad(loss, list(module.parameters())))


def test_averaged_gradients_of_two_processes_are_those_of_the_joined_batch(gloo: GlooPool) -> None:
    one, two = gloo.run(share_of_gradient)
    for first, second, joined in zip(one, two, share_of_gradient(0, 1), strict=True):
        torch.testing.assert_close((first + second) / 2, joined)


def test_checkpoints_hold_centers_and_load_with_weights_only(tmp_path: Path) -> None:
    module = build(classification_loss=CenterLoss)
    trainer = train(module, default_root_dir=tmp_path)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(content["state_dict"]["criterion.centers"], module.criterion.centers)
    assert module.criterion.centers.any()


def test_few_features_are_said_once_and_still_measured(tmp_path: Path) -> None:
    module = FeedBackwardModule(3, SHAPE, partial(MLP, widths=(2,)), optimizer=SGD)
    with pytest.warns(UserWarning, match=r"2 features for 3 classes.* below 0\.333 \(of unit length: 0\.5\)") as caught:
        module.separability_figures()
        found = module.separability_figures()
    assert len(caught) == 1
    assert found["weight_separability_unit"] >= 0.5
    with pytest.warns(UserWarning, match="SeparabilityCurve: .* 8 features for 8 classes"):
        foreign = Foreign()
        foreign.classifier = nn.Linear(8, 8)
        train(foreign, [SeparabilityCurve()], default_root_dir=tmp_path)
    part, weight = features(3)
    assert "3 features for 3 classes" in WeightSpace().compute(FeatureInputs({"test": part}, weight=weight)).notes[-1]


def test_bad_options_of_the_module() -> None:
    class Opaque(nn.Module):
        def __init__(self, num_features: int, num_classes: int) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(num_classes))

    for options, message in (
        ({"head": Opaque}, "no last linear layer with a weight matrix"),
        ({"classification_loss": CosFace}, "bias: false"),
        ({"classification_loss": ArcFace, "head": partial(ClassVectorHead, fixed=False)}, "a way of its own"),
        ({"last_layer": "orthonormal", "head": ClassVectorHead}, "fixed already"),
        ({"last_layer": "orthonormal", "head": partial(MLPHead, hidden=(2,))}, "cannot be orthonormal"),
        ({"last_layer": "dependent", "last_layer_rank": 3}, "rank must be"),
        ({"reconstruction_weight": -1.0}, "weight must be"),
        ({"temperature": 0.0}, "temperature must be"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(**options)
    assert build(head=partial(NoisyMLPHead, hidden=(4,))).alpha_name == "head.fc1"
    assert build(head=nn.Linear).alpha_name == "features"


# --------------------------------------------------------------------------------------------------- callbacks


class Foreign(LightningModule):
    """A module of somebody else's; ``extra`` adds the term by hand, which is what the callback has to equal."""

    def __init__(self, extra: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.ReLU())
        self.classifier = nn.Linear(8, 3)
        self.extra = extra

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        z = self.encoder(x)
        loss = F.cross_entropy(self.classifier(z), y)
        return loss + self.extra * feed_backward_loss(z, self.classifier.weight, y) if self.extra else loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_penalty_equals_the_added_term_to_the_bit(accumulate: int) -> None:
    by_hand, found, without = Foreign(0.7), Foreign(), Foreign()
    penalty = FeedBackwardPenalty(FeedBackwardReconstruction(0.7), num_classes=3)
    train(by_hand, accumulate_grad_batches=accumulate)
    train(found, [penalty], accumulate_grad_batches=accumulate)
    train(without, accumulate_grad_batches=accumulate)
    assert equal(by_hand, found) and not equal(found, without)
    assert not found.classifier._forward_hooks


def test_penalty_on_a_supervised_module_equals_the_feed_backward_module() -> None:
    one, other = build(reconstruction_weight=0.5), build(SupervisedModule)
    train(one)
    train(other, [FeedBackwardPenalty(FeedBackwardReconstruction(0.5))])
    assert equal(one, other)


def test_a_module_that_does_not_know_its_classes_leaves_them_to_the_data() -> None:
    class Data(LightningDataModule):
        num_classes = 3

        def train_dataloader(self) -> Any:
            return DataLoader(TensorDataset(*samples()), batch_size=12)

    class Unknown(Foreign):
        num_classes = None

        def __init__(self) -> None:
            super().__init__()
            self.other = nn.Linear(8, 5)  # the last one, but no classifier

    module = Unknown()
    trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                      enable_model_summary=False, accelerator="cpu")  # fmt: skip
    trainer.fit(module, Data())
    assert find_last_linear(trainer, module, None) == "classifier"


def test_bad_options_of_the_callbacks() -> None:
    for callback, message in (
        (FeedBackwardPenalty(layer="clasifier"), "did you mean 'classifier'"),
        (FeedBackwardPenalty(layer="encoder"), "without a weight matrix"),
        (FeedBackwardPenalty(num_classes=7), "no linear layer with 7 outputs"),
        (SeparabilityCurve(head="encoder"), "without a weight matrix"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(Foreign(), [callback])
    with pytest.raises(ConfigError, match="every_n_steps"):
        SeparabilityCurve(every_n_steps=0)


def test_curve_of_a_module_of_this_package(tmp_path: Path) -> None:
    class Watch(FeedBackwardModule):
        seen: list[tuple[float, float]] = []  # noqa: RUF012 - this test's own

        def loss(self, output: Any, target: Tensor) -> Any:
            found = super().loss(output, target)
            right = float((output.logits.argmax(1) == target).double().mean())
            self.seen.append((float(found[0].detach()), right))
            return found

    module = build(Watch)
    initial = float(weight_separability(module.class_vectors.detach().double()))
    curve = SeparabilityCurve(every_n_steps=2)
    train(module, [curve], default_root_dir=tmp_path)
    points = curve.points
    assert points["step"] == [0, 2, 4, 6]
    assert points["raw"][0] == pytest.approx(initial)
    assert points["raw"][-1] == pytest.approx(float(weight_separability(module.class_vectors.detach().double())))
    assert math.isnan(points["loss"][0])
    # batches 1 and 2; batch 4 alone, since the sums begin anew with the epoch; 5 and 6
    for place, batches in ((1, (0, 1)), (2, (3,)), (3, (4, 5))):
        losses, rights = zip(*(Watch.seen[batch] for batch in batches), strict=True)
        assert points["loss"][place] == pytest.approx(sum(losses) / len(losses), rel=1e-6)
        assert points["accuracy"][place] == pytest.approx(sum(rights) / len(rights))
    (file,) = tmp_path.rglob("separability_curve.json")
    assert json.loads(file.read_text())["step"] == [0, 2, 4, 6]
    assert file.with_suffix(".png").is_file()
    again = SeparabilityCurve()
    again.load_state_dict(curve.state_dict())
    assert again.points["step"] == points["step"]


def test_curve_of_a_foreign_module(tmp_path: Path) -> None:
    curve = SeparabilityCurve(every_n_steps=3, name="foreign")
    module = Foreign()
    train(module, [curve], default_root_dir=tmp_path)
    assert curve.points["step"] == [0, 3, 6]
    assert all(0 <= value <= 1 for value in curve.points["accuracy"][1:])
    assert all(math.isfinite(value) for value in curve.points["loss"][1:])
    assert not module.classifier._forward_hooks
    assert list(tmp_path.rglob("foreign.png"))


# ---------------------------------------------------------------------------------------------------- analyses


def features(width: int = 5) -> tuple[Features, Tensor]:
    source = torch.Generator().manual_seed(4)
    labels = torch.arange(60) % 3
    weight = torch.randn(3, width, generator=source)
    x = weight[labels] + 0.1 * torch.randn(60, width, generator=source)
    return Features(x, labels, x @ weight.T), weight


def test_activation_patterns_by_hand() -> None:
    part, weight = features()
    found = ActivationPatterns(classes=["b", 2]).compute(
        FeatureInputs({"train": part, "test": part}, class_names=["a", "b", "c"], weight=weight)
    )
    rows = found.tables["mean activation against class vector"]
    for label, row in enumerate(rows):
        mean, vector = part.features[part.labels == label].double().mean(0), weight[label].double()
        assert row["Euclidean"] == pytest.approx(float((mean - vector).norm()))
        assert row["cosine"] == pytest.approx(float(mean @ vector / (mean.norm() * vector.norm())))
        unit = mean / mean.norm() - vector / vector.norm()
        assert row["Euclidean, unit length"] == pytest.approx(float(unit.norm()))
    assert found.scalars["cosine"] == pytest.approx(sum(row["cosine"] for row in rows) / 3)
    assert found.content["drawn"] == ["b", "c"]
    assert len(found.figures[""]().axes) == 2
    wide = plots.patterns_figure(np.ones((1, 300)), np.ones((1, 300)), ["a"], [0.0], [1.0], "wide")
    assert len(wide.axes) == 1


def test_weight_space_keeps_angles_and_prints_its_figures() -> None:
    part, weight = features(3)
    found = WeightSpace(max_points=40).compute(FeatureInputs({"train": part}, weight=weight))
    # three features in three components: a rotation
    vectors = found.arrays["vectors"]
    np.testing.assert_allclose(vectors @ vectors.T, (weight @ weight.T).numpy(), rtol=1e-5)
    assert found.arrays["points"].shape == (40, 3)
    assert found.scalars["vectors_explained"] == pytest.approx(1.0)
    assert found.scalars["separability"] == pytest.approx(float(weight_separability(weight.double())))
    assert found.scalars["accuracy"] == pytest.approx(float((part.logits.argmax(1) == part.labels).double().mean()))
    assert "there is no test set" in found.notes[0]
    assert "accuracy" in found.figures[""]().axes[0].get_title(loc="left")


def test_analyses_say_what_is_missing() -> None:
    part, weight = features()
    inputs = FeatureInputs({"train": part, "test": part})
    assert "no weight" in WeightSpace().run(inputs).failure
    assert "no weight" in ActivationPatterns().run(inputs).failure
    other = FeatureInputs({"train": part, "test": part}, weight=weight[:, :4])
    assert "have 4 entries" in ActivationPatterns().run(other).failure
    known = FeatureInputs({"train": part, "test": part}, weight=weight, class_names=["cat", "dog", "emu"])
    assert "did you mean 'emu'" in ActivationPatterns(classes=["emus"]).run(known).failure
    assert (
        "at least 3 features"
        in WeightSpace()
        .run(FeatureInputs({"train": Features(part.features[:, :2], part.labels, None)}, weight=weight[:, :2]))
        .failure
    )


# ------------------------------------------------------------------------------------------------ command line


@pytest.mark.proof
def test_losses_terms_and_analyses_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--config", "quickstart", "--config", "method/center-loss", "--config", "method/feed-backward"]
    analyses = ["--trainer.callbacks+=SeparabilityCurve", "--trainer.callbacks.every_n_steps", "5"]
    assert main(["fit", *words, *QUIET, *analyses, "--trainer.max_epochs", "2", "--run_dir", "run"]) == 0
    figures = json.loads(Path("run/metrics.json").read_text())
    assert figures["test/weight_separability"] > 0
    state = torch.load("run/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert state["criterion.centers"].any()
    assert len(json.loads(Path("run/analysis/separability_curve.json").read_text())["step"]) > 2
    assert main(["analyze", "--run_dir", "run", *QUIET, "--analyses", "weight_space,activation_patterns"]) == 0
    for name in ("weight_space", "activation_patterns"):
        assert Path(f"run/analysis/{name}.png").is_file()
    assert "accuracy" in json.loads(Path("run/analysis/weight_space.json").read_text())["scalars"]


LOSSES = {
    "centers": "{class_path: CenterLoss, init_args: {weight: 0.003}}",
    "batches": "{class_path: LargeMarginSoftmax, init_args: {margin: 2, annealing: 10, gamma: 0.1, power: 1}}",
}
TRAINED = """
model:
  class_path: FeedBackwardModule
  init_args:
    backbone: {class_path: MLP, init_args: {widths: [32]}}
    head: {class_path: LinearHead, init_args: {bias: false}}
    classification_loss: LOSS
    reconstruction_weight: 0.01
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1, momentum: 0.9}}
data: {class_path: DigitsDataModule, init_args: {batch_size: 100, augment: shift}}
trainer:
  max_epochs: 3
  log_every_n_steps: 5
  callbacks: [{class_path: SeparabilityCurve, init_args: {every_n_steps: 4}}]
then_test: true
"""


@pytest.mark.parametrize("kept", LOSSES)
def test_interrupted_and_resumed_losses_equal_an_uninterrupted_run(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(TRAINED.replace("LOSS", LOSSES[kept]))
    assert main(["fit", "--config", "config.yaml", *QUIET, "--run_dir", "whole"]) == 0

    step = FeedBackwardModule.training_step

    def interrupt(self: FeedBackwardModule, batch: Any, batch_idx: int) -> Any:
        if self.current_epoch == 1 and batch_idx == 5:
            raise RuntimeError("the power failed")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(FeedBackwardModule, "training_step", interrupt)
        assert main(["fit", "--config", "config.yaml", *QUIET, "--run_dir", "parts"]) == 1
    before = checkpoint("parts")
    assert main(["fit", "--run_dir", "parts", "--ckpt_path", "last", *QUIET]) == 0
    whole, parts = checkpoint("whole"), checkpoint("parts")
    assert before["epoch"] == 0 and whole["epoch"] == 2
    for key in ("state_dict", "optimizer_states", "global_step"):
        assert same(whole[key], parts[key]), key
    state = whole["state_dict"][f"criterion.{kept}"]
    assert bool(state.any()) and not torch.equal(state, before["state_dict"][f"criterion.{kept}"])
    if kept == "batches":
        assert int(state) == whole["global_step"]
    assert rows("whole") == rows("parts")
    curves = [json.loads(Path(run, "analysis/separability_curve.json").read_text()) for run in ("whole", "parts")]
    assert curves[0] == curves[1] and curves[0]["step"][-1] == whole["global_step"] // 4 * 4


@pytest.mark.proof
def test_two_processes_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(TRAINED.replace("LOSS", LOSSES["centers"]))
    done = run_process("fit", "--config", "config.yaml", *TWO, "--run_dir", "two")
    assert done.returncode == 0, done.stdout + done.stderr
    two = json.loads(Path("two/metrics.json").read_text())
    assert torch.load("two/checkpoints/best.ckpt", weights_only=True)["state_dict"]["criterion.centers"].any()
    curve = json.loads(Path("two/analysis/separability_curve.json").read_text())
    assert all(0 <= value <= 1 for value in curve["accuracy"][1:])
    assert main(["test", "--run_dir", "two", *QUIET, *ONE]) == 0
    one = json.loads(Path("two/metrics.json").read_text())
    assert one["test/error"] == two["test/error"] < 0.7
    for name in ("test/loss", "test/weight_separability", "test/weight_separability_unit"):
        assert one[name] == pytest.approx(two[name], rel=1e-6)


def test_penalties_and_terms_on_fixed_vectors_are_refused() -> None:
    def build(**options: Any) -> FeedBackwardModule:
        return FeedBackwardModule(3, (1, 4, 4), partial(MLP, widths=(8,)), **options)

    with pytest.raises(ConfigError):
        build(last_layer="orthonormal", regularizers=[L2Weight(weight=0.1, layer="logits")])
    with pytest.raises(ConfigError, match="they are fixed"):
        build(last_layer="orthonormal", stop_gradient="features")
    assert build(last_layer="orthonormal", stop_gradient="weight").class_vectors.requires_grad is False
