"""AutoencoderModule: layers, losses, figures of a stage, resuming, several processes, the command line."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from cli_runs import QUIET
from ddp_pool import GlooPool
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn import functional as F

from lightning_repshape import (
    AutoencoderModule,
    ClasswiseCovariance,
    ClasswiseVariance,
    DigitsDataModule,
    L1Weight,
    L2Weight,
    ReconstructionFigure,
    SupervisedModule,
    Variance,
)
from lightning_repshape.callbacks import ModelInputs, WeightSeparability
from lightning_repshape.callbacks.reconstruction import by_class_in_turn, draw_reconstructions
from lightning_repshape.cli import main
from lightning_repshape.errors import ConfigError
from lightning_repshape.features.last_layer import find_class_vectors
from lightning_repshape.features.passes import extract_features
from lightning_repshape.functional import cw_vr, vr
from lightning_repshape.networks import MLP

CONFIG = """
model:
  class_path: AutoencoderModule
  init_args:
    widths: [24, 12, 6]
    regularizers:
      - {class_path: ClasswiseVariance, init_args: {weight: 0.01, layer: fc3}}
    optimizer: {class_path: torch.optim.Adam, init_args: {lr: 3.0e-3}}
data: {class_path: DigitsDataModule, init_args: {batch_size: 100, normalize: unit}}
trainer:
  max_epochs: 3
  log_every_n_steps: 5
  callbacks:
    - class_path: ReconstructionFigure
      init_args: {num_images: 4, when: both}
then_test: true
"""


pytestmark = pytest.mark.usefixtures("in_tmp")


def small(*regularizers: Any, shape: tuple[int, ...] = (1, 4, 4), **options: Any) -> AutoencoderModule:
    torch.manual_seed(0)
    return AutoencoderModule(3, shape, regularizers, widths=(7, 5), **options)


def batch(count: int = 12, shape: tuple[int, ...] = (1, 4, 4)) -> tuple[Tensor, Tensor]:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1)), torch.arange(count) % 3


def quiet(**options: Any) -> Trainer:
    names = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return Trainer(**{**dict.fromkeys(names, False), "max_epochs": 1, **options})


def test_the_paper_s_network() -> None:
    module = AutoencoderModule(10, (1, 28, 28))
    shapes = [tuple(weight.shape) for name, weight in module.named_parameters() if name.endswith("weight")]
    assert shapes == [(400, 784), (200, 400), (100, 200), (200, 100), (400, 200), (784, 400)]
    assert module.activation_names == ("fc1", "fc2", "fc3", "features", "fc4", "fc5", "reconstruction")
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        else:  # Glorot: uniform in +- sqrt(6 / (fan in + fan out))
            bound = (6 / sum(parameter.shape)) ** 0.5
            assert 0.99 * bound < parameter.abs().max() <= bound
    output = module(torch.rand(3, 1, 28, 28), ("fc2", "features", "reconstruction"))
    assert output.reconstruction.shape == (3, 1, 28, 28) and output.features.shape == (3, 100)
    assert output.logits is None
    assert list(output.activations) == ["fc2", "features", "reconstruction"]
    assert (output.features >= 0).all() and (output.reconstruction < 0).any()  # ReLU, and a linear output


def test_forward_and_error_by_hand() -> None:
    module = small(shape=(2, 3))
    x = batch(5, (2, 3))[0]
    z = x.reshape(5, 6).double()
    layers = {name: parameter.detach() for name, parameter in module.double().named_parameters()}
    for path in ("backbone.fc1", "backbone.fc2", "head.fc3", "head.reconstruction"):
        z = z @ layers[f"{path}.linear.weight"].T + layers[f"{path}.linear.bias"]
        if not path.endswith("reconstruction"):
            z = z * (z > 0)
    output = module(x.double())
    assert torch.allclose(output.reconstruction, z.reshape(5, 2, 3), atol=1e-12)
    wanted = sum((float(z[n, p]) - float(x.reshape(5, 6)[n, p])) ** 2 for n in range(5) for p in range(6)) / 30
    assert float(module.reconstruction_loss(output)) == pytest.approx(wanted, rel=1e-9)
    found = module.predict_step((x.double(), torch.zeros(5, dtype=torch.int64)), 0)
    assert float(found["mse"].mean()) == pytest.approx(wanted, rel=1e-9) and found["mse"].shape == (5,)


def test_the_decoder_may_differ() -> None:
    module = AutoencoderModule(2, (2, 2), widths=(3,), decoder_widths=(8, 9), activation="tanh")
    assert module.activation_names == ("fc1", "features", "fc2", "fc3", "reconstruction")
    assert [layer.out_features for layer in module.modules() if isinstance(layer, torch.nn.Linear)] == [3, 8, 9, 4]
    assert AutoencoderModule(2, (2, 2), widths=(3,)).activation_names == ("fc1", "features", "reconstruction")


def test_the_loss_is_the_sum_of_its_terms_and_so_is_its_gradient() -> None:
    module = small(
        ClasswiseVariance(weight=0.5, layer="fc2"),
        Variance(weight=2.0, layer="fc3"),
        L2Weight(weight=0.1, layer="features"),
        L1Weight(weight=0.2, layer="reconstruction"),
    ).double()
    x, y = batch()
    output = module(x.double(), module.training_activations())
    assert set(output.activations) == {"fc2", "fc3"}
    total, terms = module.loss(output, y)
    code, last = module.encoder.get_submodule("fc2.linear"), module.decoder.get_submodule("reconstruction.linear")
    wanted = (
        F.mse_loss(output.reconstruction, x.double())
        + 0.5 * cw_vr(output.features, y, 3)
        + 2.0 * vr(output.activations["fc3"])
        + 0.1 * code.weight.square().sum()
        + 0.2 * last.weight.abs().sum()
    )
    assert torch.allclose(total, wanted, rtol=1e-12)
    assert torch.allclose(terms["ClasswiseVariance/fc2_raw"], cw_vr(output.features, y, 3))
    assert torch.allclose(terms["reconstruction_loss"], F.mse_loss(output.reconstruction, x.double()))
    parameters = list(module.parameters())
    ours = torch.autograd.grad(total, parameters, retain_graph=True)
    theirs = torch.autograd.grad(wanted, parameters)
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-14) for a, b in zip(ours, theirs, strict=True))


def test_labels_serve_penalties_alone() -> None:
    x, y = batch()
    unknown = torch.full_like(y, -1)
    module = small(Variance(weight=1.0, layer="features"))
    total = [module.loss(module(x, module.training_activations()), labels)[0] for labels in (y, unknown)]
    assert torch.equal(*total)
    trainer = quiet()
    loader = torch.utils.data.DataLoader([(image, -1) for image in x], batch_size=5)
    figures = trainer.validate(module, loader, verbose=False)[0]
    with torch.no_grad():
        assert figures["val/mse"] == pytest.approx(float(F.mse_loss(module(x).reconstruction, x)), rel=1e-6)
    assert set(figures) == {"val/mse"}


def test_warm_up_and_logged_figures() -> None:
    module = AutoencoderModule(
        10, (1, 8, 8), [ClasswiseVariance(weight=4.0, layer="fc3", warmup_epochs=2)], widths=(9, 8, 7)
    )
    trainer = quiet(max_epochs=2, log_every_n_steps=1)
    trainer.fit(module, DigitsDataModule(normalize="unit", batch_size=300))
    figures = trainer.callback_metrics
    weight = figures["train/ClasswiseVariance/fc3"] / figures["train/ClasswiseVariance/fc3_raw"]
    batches = trainer.num_training_batches
    assert float(weight) == pytest.approx(4.0 * (1 + (batches - 1) / batches) / 2, rel=1e-5)
    assert {"train/loss", "train/mse", "val/mse"} <= set(figures)
    assert float(figures["train/loss"]) > float(figures["train/mse"])
    assert "train/error" not in figures and "val/error" not in figures


def test_training_learns_and_a_penalty_shapes_the_code() -> None:
    data = DigitsDataModule(normalize="unit", batch_size=50)
    data.setup("fit")
    images = next(iter(data.batches("train", batch_size=2000)))[0]
    of_the_mean = float((images - images.mean(dim=0)).square().mean())
    spread = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        module = AutoencoderModule(
            10,
            data.input_shape,
            [ClasswiseVariance(weight=weight)],
            widths=(40, 20),
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3),
        )
        trainer = quiet(max_epochs=6)
        trainer.fit(module, data)
        assert float(trainer.callback_metrics["val/mse"]) < 0.8 * of_the_mean
        part = extract_features(module, data.batches("val"), "features")
        assert part.logits is None
        spread[weight] = float(cw_vr(part.features, part.labels, 10))
    assert spread[1.0] < 0.3 * spread[0.0]


def ranks_figures(rank: int, world_size: int) -> tuple[float, float]:
    """Uneven shares of twelve samples; every rank computes the figures of all of them."""
    module = small().eval()
    x = batch()[0][slice(0, 5) if rank == 0 else slice(5, None)]
    for part in x.split(3):
        module._add_error((part,), module.test_errors)
    figures = module.test_errors.compute()
    return float(figures["mse"]), float(figures["loss"])


def ranks_gradients(rank: int, world_size: int) -> list[Tensor]:
    """What averaging over ranks makes of the gradients, for classes that one rank lacks."""
    module = small(ClasswiseVariance(0.5, "features"), ClasswiseCovariance(0.5, "fc1")).train()
    x, y = batch()
    y = y.sort().values
    half = slice(rank * 6, rank * 6 + 6)
    loss = module.loss(module(x[half], module.training_activations()), y[half])[0]
    gradients = torch.autograd.grad(loss, list(module.parameters()))
    for gradient in gradients:
        torch.distributed.all_reduce(gradient)
    return [gradient / world_size for gradient in gradients]


def test_two_ranks_give_what_one_gives(gloo: GlooPool) -> None:
    module = small(ClasswiseVariance(0.5, "features"), ClasswiseCovariance(0.5, "fc1"))
    x, y = batch()
    with torch.no_grad():
        alone = float(F.mse_loss(module.double()(x.double()).reconstruction, x.double()))
    for mse, loss in gloo.run(ranks_figures):
        assert mse == loss == pytest.approx(alone, rel=1e-6)
    assert len({mse for mse, _ in gloo.run(ranks_figures)}) == 1
    module.float()
    loss = module.loss(module(x, module.training_activations()), y.sort().values)[0]
    wanted = torch.autograd.grad(loss, list(module.parameters()))
    for gradients in gloo.run(ranks_gradients):
        for ours, theirs in zip(gradients, wanted, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.proof
def test_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.yaml").write_text(CONFIG)
    assert main(["fit", "--config", "config.yaml", *QUIET, "--run_dir", "run"]) == 0
    out = capsys.readouterr().out
    assert "mse" in out and "analysis: reconstruction" in out
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert {"train/mse", "val/mse", "test/mse"} <= set(metrics)
    for name in ("reconstruction", "reconstruction-fit"):
        for suffix in (".png", ".pdf"):
            assert Path(f"run/analysis/{name}{suffix}").stat().st_size > 1000
    best = torch.load("run/checkpoints/best.ckpt", weights_only=True)
    kept = best["callbacks"]["BestCheckpoint"]
    assert kept["monitor"] == "val/mse"
    with Path("run/metrics.csv").open() as file:
        found = [float(row["val/mse"]) for row in csv.DictReader(file) if row.get("val/mse")]
    assert len(found) == 3 and float(kept["best_model_score"]) == pytest.approx(min(found), rel=1e-5)

    assert main(["test", "--run_dir", "run", *QUIET]) == 0
    assert json.loads(Path("run/metrics.json").read_text())["test/mse"] == pytest.approx(metrics["test/mse"], rel=1e-6)
    assert main(["predict", "--run_dir", "run", *QUIET]) == 0
    with Path("run/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    data = DigitsDataModule(normalize="unit")
    data.setup("test")
    assert len(rows) == len(next(iter(data.batches("test", batch_size=10000)))[1])
    assert sum(float(row["mse"]) for row in rows) / len(rows) == pytest.approx(metrics["test/mse"], rel=1e-5)
    assert rows[0]["true_class"] in data.class_names

    words = ["analyze", "--run_dir", "run", *QUIET, "--analyses", "lda,pca,collapse,characteristics"]
    assert main(words) == 0
    assert json.loads(Path("run/analysis/lda.json").read_text())["scalars"]["eigenvalue"] > 0
    assert json.loads(Path("run/analysis/characteristics.json").read_text())["num_units"] == 6
    assert "accuracy" not in json.loads(Path("run/analysis/collapse.json").read_text())["scalars"]


def test_a_code_with_k_units_is_no_class_vectors() -> None:
    module = AutoencoderModule(3, (1, 4, 4), widths=(7, 3))
    assert find_class_vectors(module, 3) is None
    # nor are the weights of anything but a linear layer
    assert find_class_vectors(torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Embedding(3, 5)), 3) is None
    done = WeightSeparability().run(ModelInputs(module, {"train": [batch()]}, "features", num_classes=3))
    assert "the model has no layer with a K x D weight" in done.failure


def test_interrupted_and_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_repshape.callbacks import Reseeding

    content = yaml.safe_load(CONFIG)
    content["trainer"]["callbacks"] = []
    content["then_test"] = False
    Path("config.yaml").write_text(yaml.safe_dump(content))
    assert main(["fit", "--config", "config.yaml", *QUIET, "--run_dir", "whole"]) == 0
    seed = Reseeding.on_train_batch_start

    def interrupt(self: Any, trainer: Any, module: Any, given: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 1 and batch_idx == 4:
            raise RuntimeError("the power failed")
        seed(self, trainer, module, given, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Reseeding, "on_train_batch_start", interrupt)
        assert main(["fit", "--config", "config.yaml", *QUIET, "--run_dir", "parts"]) == 1
    assert main(["fit", "--run_dir", "parts", "--ckpt_path", "last", *QUIET]) == 0
    whole, parts = (torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True) for run in ("whole", "parts"))
    assert whole["global_step"] == parts["global_step"]
    assert all(torch.equal(whole["state_dict"][key], parts["state_dict"][key]) for key in whole["state_dict"])
    assert Path("whole/metrics.csv").read_text() == Path("parts/metrics.csv").read_text()


def test_checkpoints_from_python_load_with_weights_only() -> None:
    module = AutoencoderModule(10, (1, 8, 8), [Variance(weight=1.0)], widths=(9, 4))
    trainer = quiet(max_steps=2)
    trainer.fit(module, DigitsDataModule())
    trainer.save_checkpoint("module.ckpt")
    kept = torch.load("module.ckpt", weights_only=True)["hyper_parameters"]
    assert list(kept["widths"]) == [9, 4] and "regularizers" not in kept
    again = AutoencoderModule.load_from_checkpoint("module.ckpt")
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(again.eval()(x).features, module.eval()(x).features)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: small(Variance(1.0, layer="fc33")), "no activation 'fc33'.*fc3"),
        (lambda: small(L1Weight(1.0, layer="logits")), "no activation 'logits'"),
        (lambda: AutoencoderModule(3, (4,), widths=()), "at least one"),
        (lambda: AutoencoderModule(3, (4,), widths=(3, 0)), "widths must be a whole number above 0"),
        (lambda: AutoencoderModule(3, (4,), widths=(3,), decoder_widths=(-1,)), "decoder_widths must be"),
        (lambda: AutoencoderModule(0, (4,)), "num_classes is 0"),
        (lambda: AutoencoderModule(3, (4,), activation="gelu"), "activation='gelu'"),  # type: ignore[arg-type]
        (lambda: small()(torch.rand(2, 1, 5, 5)), "built for inputs of 1 x 4 x 4"),
        (lambda: ReconstructionFigure(num_images=0), "num_images is 0"),
        (lambda: ReconstructionFigure(when="never"), "when is 'never'"),  # type: ignore[arg-type]
        (lambda: ReconstructionFigure(split="all"), "split is 'all'"),  # type: ignore[arg-type]
    ],
)
def test_bad_input(build: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


def test_class_wise_penalties_name_labels_that_are_out_of_range() -> None:
    module = small(ClasswiseVariance(weight=1.0))
    x, y = batch()
    with pytest.raises(ConfigError, match="ClasswiseVariance on layer 'features'"):
        module.loss(module(x, module.training_activations()), y + 1)


def test_figure_of_reconstructions() -> None:
    assert by_class_in_turn(torch.tensor([2, 2, 0, 1, 0]), 4).tolist() == [2, 3, 0, 4]
    images = torch.tensor([[[[-1.0, 1.0], [0.0, 3.0]]], [[[1.0, 1.0], [1.0, 1.0]]]])
    figure = draw_reconstructions(images, images.roll(1, 0), ["a", "b"], (0.5,), (0.25,))
    drawn = [axes.images[0].get_array() for axes in figure.axes]
    assert len(drawn) == 4
    assert drawn[0].tolist() == [[0.25, 0.75], [0.5, 1.0]]  # mean and deviation undone, cut off at white
    assert drawn[2].tolist() == drawn[1].tolist()
    assert figure.axes[0].get_title() == "a" and figure.axes[1].get_title() == "b"
    colour = draw_reconstructions(torch.rand(12, 3, 4, 4), torch.rand(12, 3, 4, 4), [str(n) for n in range(12)])
    assert len(colour.axes) == 40 and sum(bool(axes.images) for axes in colour.axes) == 24
    with pytest.raises(ConfigError, match="C = 1 or 3"):
        draw_reconstructions(torch.rand(1, 2, 4, 4), torch.rand(1, 2, 4, 4), ["a"])


def test_the_figure_is_for_autoencoders() -> None:
    module = SupervisedModule(10, (1, 8, 8), lambda shape: MLP(shape, widths=(4,)))
    with pytest.raises(ConfigError, match="SupervisedModule returns no reconstruction"):
        quiet(callbacks=[ReconstructionFigure()]).test(module, DigitsDataModule(), verbose=False)
