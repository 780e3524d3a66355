"""SupervisedModule and RegularizedModule: forward pass, losses, hyper-parameters, optimizers."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn import functional as F

from lightning_repshape import (
    MLP,
    VGG16,
    ClassifierModule,
    ClassVectorModule,
    ClasswiseCovariance,
    ClasswiseVariance,
    ConvNet,
    DenseNet40,
    DigitsDataModule,
    FOCAModule,
    L2Weight,
    MLPHead,
    RegularizedModule,
    ResNet32,
    SupervisedModule,
    Variance,
)
from lightning_repshape.errors import ConfigError
from lightning_repshape.functional import cw_cr, cw_vr, vr
from lightning_repshape.networks import Backbone


def network(shape: tuple[int, ...]) -> MLP:
    return MLP(shape, widths=(16, 12))


def head(features: int, classes: int) -> MLPHead:
    return MLPHead(features, classes, hidden=(8,))


def quiet(**options: object) -> Trainer:
    settings = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**{**settings, "max_epochs": 1, **options})  # type: ignore[arg-type]


def test_activations_are_return_values() -> None:
    module = SupervisedModule(10, (1, 8, 8), network, head)
    assert module.activation_names == ("fc1", "fc2", "features", "head.fc1", "head.output", "logits") or set(
        ("fc1", "fc2", "features", "logits")
    ) < set(module.activation_names)
    x = torch.randn(5, 1, 8, 8)
    output = module(x, ("logits", "fc1", "features", "head.fc1"))
    assert list(output.activations) == ["logits", "fc1", "features", "head.fc1"]
    assert output.activations["fc1"].shape == (5, 16)
    assert output.activations["features"] is output.features
    assert torch.equal(module(x).logits, output.logits)
    assert module(x).activations == {}


def test_squared_loss_and_label_smoothing() -> None:
    logits, target = torch.randn(6, 10), torch.tensor([0, 1, 2, 3, 4, 5])
    squared = SupervisedModule(10, (1, 8, 8), network, classification_loss="squared")
    wanted = sum(((logits[i] - F.one_hot(target[i], 10)) ** 2).sum() for i in range(6)) / 6
    assert torch.allclose(squared.classification_loss(logits, target), wanted)
    smooth = SupervisedModule(10, (1, 8, 8), network, label_smoothing=0.1)
    assert torch.equal(smooth.classification_loss(logits, target), F.cross_entropy(logits, target, label_smoothing=0.1))


@pytest.mark.parametrize("kind", [SupervisedModule, ClassVectorModule, FOCAModule])
def test_evaluations_take_the_mean_over_an_image_and_its_mirror_image(kind: type[ClassifierModule]) -> None:
    module = kind(10, (1, 8, 8), network, test_flip=True).eval()
    x, y = torch.randn(30, 1, 8, 8), torch.arange(30) % 10
    of_image, of_mirrored = module(x), module(torch.stack([image[:, :, range(7, -1, -1)] for image in x]))
    logits = (of_image.logits + of_mirrored.logits) / 2
    torch.testing.assert_close(module.evaluated(x).logits, logits)
    torch.testing.assert_close(module.predict_step((x, y), 0)["probability"], logits.softmax(dim=1))
    module.test_step((x, y), 0)
    figures = module.test_sums.compute()
    torch.testing.assert_close(figures["loss"].float(), module.classification_loss(logits, y))
    assert float(figures["error"]) == pytest.approx(float((logits.argmax(dim=1) != y).double().mean()))
    assert torch.equal(module.evaluated(x, ("features",)).activations["features"], of_image.features)


def test_the_loss_is_the_sum_of_its_terms() -> None:
    regularizers = [
        ClasswiseVariance(weight=0.5, layer="fc2"),
        Variance(weight=2.0, layer="head.fc1"),
        ClasswiseCovariance(weight=3.0, layer="features"),
        L2Weight(weight=0.1, layer="fc1"),
    ]
    module = RegularizedModule(10, (1, 8, 8), network, regularizers, head)
    assert module.training_activations() == ("fc2", "head.fc1", "features")
    assert module.statistics_layer == "fc2"
    x, y = torch.randn(20, 1, 8, 8), torch.arange(20) % 10
    output = module(x, module.training_activations())
    total, terms = module.loss(output, y)
    fc2, hidden = output.activations["fc2"], output.activations["head.fc1"]
    weight = module.backbone.get_submodule("fc1").linear.weight
    expected = (
        F.cross_entropy(output.logits, y)
        + 0.5 * cw_vr(fc2, y, 10)
        + 2.0 * vr(hidden)
        + 3.0 * cw_cr(fc2, y, 10)
        + 0.1 * weight.square().sum()
    )
    assert torch.allclose(total, expected, rtol=1e-6)
    assert torch.allclose(terms["ClasswiseVariance/fc2_raw"], cw_vr(fc2, y, 10), rtol=1e-6)
    total.backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_warm_up_reaches_the_full_weight() -> None:
    module = RegularizedModule(10, (1, 8, 8), network, [Variance(weight=4.0, layer="fc2", warmup_epochs=2)])
    x, y = torch.randn(20, 1, 8, 8), torch.arange(20) % 10
    output = module(x, module.training_activations())
    raw = vr(output.activations["fc2"])
    for done, factor in ((0.0, 0.0), (1.0, 2.0), (2.0, 4.0), (5.0, 4.0)):
        module._epochs_done = done
        assert torch.allclose(module.loss(output, y)[1]["Variance/fc2"], factor * raw)


def test_every_penalty_is_logged_under_a_name_of_its_own() -> None:
    """Also at a weight of 0, as at the first step of a warm-up."""
    regularizers = [
        Variance(weight=4.0, layer="fc2"),
        Variance(weight=3.0, layer="fc2", warmup_epochs=2),
        Variance(weight=0.0, layer="fc2"),
        L2Weight(weight=0.0, layer="fc1"),
    ]
    module = RegularizedModule(10, (1, 8, 8), network, regularizers)
    x, y = torch.randn(20, 1, 8, 8), torch.arange(20) % 10
    output = module(x, module.training_activations())
    total, terms = module.loss(output, y)
    raw = vr(output.activations["fc2"])
    weight = module.backbone.get_submodule("fc1").linear.weight
    for name in ("Variance/fc2", "Variance/fc2_2", "Variance/fc2_3"):
        assert torch.allclose(terms[f"{name}_raw"], raw)
        assert torch.equal(terms[name], terms["Variance/fc2"] if name == "Variance/fc2" else torch.tensor(0.0))
    assert torch.allclose(terms["L2Weight/fc1_raw"], weight.square().sum())
    assert torch.allclose(total, F.cross_entropy(output.logits, y) + 4.0 * raw)
    total.backward()


def test_a_regularizers_own_number_of_classes_counts() -> None:
    own = ClasswiseVariance(weight=1.0, layer="fc2", num_classes=2)
    module = RegularizedModule(10, (1, 8, 8), network, [own])
    x = torch.randn(20, 1, 8, 8)
    output = module(x, module.training_activations())
    found = module.loss(output, torch.arange(20) % 2)[1]["ClasswiseVariance/fc2"]
    assert torch.allclose(found, cw_vr(output.activations["fc2"], torch.arange(20) % 2, 2))
    with pytest.raises(ConfigError, match="labels must lie in"):
        module.loss(output, torch.arange(20) % 10)


def test_epochs_done_of_data_without_a_length() -> None:
    module = RegularizedModule(10, (1, 8, 8), network, [Variance(weight=4.0, layer="fc2", warmup_epochs=4)])

    class Stream(torch.utils.data.IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
        def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            return iter([(torch.randn(1, 8, 8), torch.tensor(number % 10)) for number in range(20)])

    quiet(max_epochs=2).fit(module, torch.utils.data.DataLoader(Stream(), batch_size=5))
    assert module._epochs_done == 1.0


def test_layers_that_do_not_exist() -> None:
    with pytest.raises(ConfigError, match="fc2"):
        RegularizedModule(10, (1, 8, 8), network, [Variance(weight=1.0, layer="fc22")])
    with pytest.raises(ConfigError, match="no activation 'fc9'"):
        SupervisedModule(10, (1, 8, 8), network, statistics_layer="fc9")
    with pytest.raises(ConfigError, match="num_classes is 0"):
        SupervisedModule(0, (1, 8, 8), network)


def test_regularized_training_lowers_the_penalty() -> None:
    figures = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        data = DigitsDataModule(batch_size=100, seed=0)
        module = RegularizedModule(
            10,
            data.input_shape,
            network,
            [ClasswiseVariance(weight=weight, layer="fc2")],
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=5e-3),
        )
        trainer = quiet(max_epochs=8)
        trainer.fit(module, data)
        figures[weight] = trainer.validate(module, data, verbose=False)[0]
    assert figures[1.0]["val/classwise_variance"] < 0.3 * figures[0.0]["val/classwise_variance"]
    assert figures[1.0]["val/error"] < 0.25


def test_checkpoints_from_python_load_with_weights_only(tmp_path: Path) -> None:
    data = DigitsDataModule()
    for module in (
        SupervisedModule(10, data.input_shape, network, head, optimizer=torch.optim.SGD),
        RegularizedModule(10, data.input_shape, network, [ClasswiseVariance(weight=1.0)]),
    ):
        trainer = quiet(max_steps=2)
        trainer.fit(module, data)
        path = tmp_path / f"{type(module).__name__}.ckpt"
        trainer.save_checkpoint(path)
        content = torch.load(path, weights_only=True)
        assert content["hyper_parameters"]["num_classes"] == 10
        assert "backbone" not in content["hyper_parameters"]


def test_optimizers_are_fused_unless_told_otherwise() -> None:
    def built(optimizer: object) -> torch.optim.Optimizer:
        return SupervisedModule(10, (1, 8, 8), network, optimizer=optimizer).configure_optimizers()  # type: ignore

    assert built(torch.optim.Adam).param_groups[0]["fused"]
    kept = built(lambda parameters: torch.optim.SGD(parameters, lr=0.3, momentum=0.8, weight_decay=0.1, nesterov=True))
    assert kept.param_groups[0]["fused"] and kept.param_groups[0]["lr"] == 0.3
    assert kept.defaults["momentum"] == 0.8 and kept.param_groups[0]["nesterov"]
    assert not built(lambda parameters: torch.optim.Adam(parameters, foreach=True)).param_groups[0]["fused"]
    assert isinstance(built(torch.optim.RMSprop), torch.optim.RMSprop)


def test_channels_last_weights_and_equal_results() -> None:
    from lightning_repshape import ConvNet

    torch.manual_seed(0)
    module = SupervisedModule(10, (3, 16, 16), ConvNet)
    weight = next(
        parameter for parameter in module.backbone.parameters() if parameter.dim() == 4 and parameter.shape[1] > 3
    )
    assert weight.is_contiguous(memory_format=torch.channels_last)
    torch.manual_seed(0)
    plain = SupervisedModule(10, (3, 16, 16), ConvNet, channels_last=False)
    x = torch.randn(4, 3, 16, 16)
    assert torch.allclose(module(x).logits, plain(x).logits, atol=1e-5)


def test_training_figures_are_those_of_every_batch() -> None:
    """Batches are counted in groups; the epoch's figures are those of counting each at once."""
    data = DigitsDataModule(batch_size=9, train_size=1000, seed=3)  # 112 batches, the last one smaller
    module = SupervisedModule(10, data.input_shape, network)
    losses, wrong, count = [], 0, 0
    step = module.training_step

    def counted(batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        nonlocal wrong, count
        loss = step(batch, batch_idx)
        with torch.no_grad():
            wrong += int((module(batch[0]).logits.argmax(dim=1) != batch[1]).sum())
        count += len(batch[1])
        losses.append(float(loss.detach()) * len(batch[1]))
        return loss

    module.training_step = counted  # type: ignore[method-assign]
    trainer = quiet()
    trainer.fit(module, data)
    assert count == 1000
    assert float(trainer.callback_metrics["train/error"]) == pytest.approx(wrong / count, abs=1e-7)
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(sum(losses) / count, rel=1e-6)


@pytest.mark.parametrize(
    ("backbone", "layer", "owner"),
    [
        (ResNet32, "features", "layer3.4.conv2"),
        (ResNet32, "layer1.0.relu1", "layer1.0.conv1"),
        (VGG16, "features", "conv5_3.conv"),
        (DenseNet40, "features", "block3.11.conv"),
        (ConvNet, "features", "fc.linear"),
    ],
)
def test_weights_of_what_has_none_are_those_of_the_layer_before(
    backbone: Callable[[tuple[int, ...]], Backbone], layer: str, owner: str
) -> None:
    module = RegularizedModule(10, (3, 32, 32), backbone, [L2Weight(weight=1.0, layer=layer)])
    (found,) = module._penalties.weights.values()
    assert [tuple(weight.shape) for weight in found] == [tuple(module.backbone.get_submodule(owner).weight.shape)]
    assert found[0] is module.backbone.get_submodule(owner).weight


def test_layers_of_weight_penalties_are_checked_even_where_all_count() -> None:
    with pytest.raises(ConfigError, match="no activation 'fc99'"):
        RegularizedModule(10, (1, 8, 8), network, [L2Weight(weight=1.0, layer="fc99", scope="all")])
    with pytest.raises(ConfigError, match="list of penalties, such as"):
        RegularizedModule(10, (1, 8, 8), network, Variance(weight=1.0))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="list of penalties, such as"):
        RegularizedModule(10, (1, 8, 8), network, [torch.nn.ReLU()])  # type: ignore[list-item]


def test_terms_of_short_epochs_are_logged_at_their_end() -> None:
    """Twelve steps an epoch, and a row of steps every fifty: the last step's terms."""
    module = RegularizedModule(10, (1, 8, 8), network, [Variance(weight=4.0), L2Weight(weight=0.1)])
    trainer = quiet(log_every_n_steps=50)
    trainer.fit(module, DigitsDataModule(batch_size=100))
    logged = trainer.logged_metrics
    for name, weight in (("Variance", 4.0), ("L2Weight", 0.1)):
        assert float(logged[f"train/{name}/features_raw"]) > 0
        assert float(logged[f"train/{name}/features"]) == pytest.approx(
            weight * float(logged[f"train/{name}/features_raw"])
        )
