"""Heads of laid-out class vectors, vectors that are turned to class means, and a probe beside a network."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from ddp_pool import GlooPool
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightning_repshape.cli import main
from lightning_repshape.errors import CheckpointError, ConfigError
from lightning_repshape.functional import class_vector_cosines, laid_out, nearest_turned
from lightning_repshape.heads import ClassVectorHead, LinearHead
from lightning_repshape.metrics import ClassMeans
from lightning_repshape.modules import ClassVectorModule
from lightning_repshape.networks import MLP
from lightning_repshape.seeding import generator

pytestmark = pytest.mark.usefixtures("in_tmp")
LAYOUTS = ("random", "etf", "hadamard", "separated", "hypercube")


@pytest.mark.parametrize("vectors", LAYOUTS)
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_the_vectors_are_those_of_the_layout(vectors: Any, similarity: Any) -> None:
    head = ClassVectorHead(16, 5, similarity=similarity, vectors=vectors, embedding=8, seed=3)
    wanted = laid_out(vectors, 5, 8, generator("class vectors", 3)).float()
    assert torch.equal(head.output.weight, wanted)
    assert [name for name, _ in head.named_parameters()] == ["embed.weight", "embed.bias"]
    assert (vectors in str(head)) == (vectors != "random")
    head.output.reset_parameters()
    assert torch.equal(head.output.weight, wanted)


def test_separated_vectors_bring_a_layer_of_their_width() -> None:
    assert ClassVectorHead(16, 5, vectors="separated").output.weight.shape == (5, 4)
    assert ClassVectorHead(4, 5, vectors="separated").activation_names == ("output",)
    assert ClassVectorHead(16, 5, vectors="separated", embedding=6).output.weight.shape == (5, 6)
    module = ClassVectorModule(10, (1, 4, 4), partial(MLP, widths=(12,)), vectors="separated")
    assert "head.embed" in module.activation_names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vectors": "simplex"}, "vectors='simplex'"),
        ({"vectors": "etf", "fixed": False}, "these are trained: fixed=True"),
        (
            {"vectors": "etf", "embedding": 8},
            "a simplex ETF of 10 classes needs at least 9 features, not 8; embedding=",
        ),
        ({"vectors": "separated", "embedding": 8}, "need at least 9 features, not 8"),
        ({"vectors": "hadamard", "embedding": 15}, "16 or more, not 15"),
        ({"vectors": "hypercube", "embedding": 3}, "4 features or more"),
    ],
)
def test_what_does_not_fit_is_a_config_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClassVectorHead(32, 10, **options)


def test_one_class_cannot_be_separated() -> None:
    with pytest.raises(ConfigError, match="need at least two classes; take vectors='random'"):
        ClassVectorHead(4, 1, vectors="separated")


@pytest.mark.parametrize("align", [-1, 1.5, True])
def test_epochs_of_turning_are_checked(align: Any) -> None:
    with pytest.raises(ConfigError, match="align_epochs must be a whole number above 0"):
        ClassVectorModule(3, (1, 2, 2), MLP, align_epochs=align)
    with pytest.raises(ConfigError, match="these are trained"):
        ClassVectorModule(3, (1, 2, 2), MLP, fixed=False, align_epochs=2)


def test_the_command_line_says_it_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--config", "quickstart", "--config", "method/class-vectors-hadamard", "--model.embedding", "8"]
    assert main(words) == 2
    assert "Hadamard vectors of 10 classes need a power of two" in capsys.readouterr().err.splitlines()[-1]


def test_a_checkpoint_of_another_layout_is_refused() -> None:
    saved = ClassVectorHead(16, 5, vectors="etf").state_dict()
    with pytest.raises(CheckpointError, match=r"\(fixed, seed, vectors\)"):
        ClassVectorHead(16, 5, vectors="hypercube").load_state_dict(saved)
    ClassVectorHead(16, 5, vectors="etf").load_state_dict(saved)
    turned = {"output.weight": saved["output.weight"].flip(1)}
    with pytest.raises(CheckpointError):
        ClassVectorHead(16, 5, vectors="etf").load_state_dict(turned)
    head = ClassVectorHead(16, 5, vectors="etf")
    head.output.turns = True
    head.load_state_dict(turned)
    with pytest.raises(CheckpointError):
        head.load_state_dict({"output.weight": 2 * saved["output.weight"]})


# -- turned to class means -------------------------------------------------------------------------------------------


def loader() -> DataLoader[tuple[Tensor, ...]]:
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 4
    return DataLoader(TensorDataset(torch.randn(60, 1, 3, 3, generator=stream) + labels.view(-1, 1, 1, 1), labels), 20)


def build(**options: Any) -> ClassVectorModule:
    torch.manual_seed(0)
    return ClassVectorModule(4, (1, 3, 3), partial(MLP, widths=(8,)), vectors="etf", **options)


def trainer(epochs: int, **options: Any) -> Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(max_epochs=epochs, accelerator="cpu", enable_checkpointing=False, **quiet, **options)


def test_vectors_are_turned_to_the_means_of_the_epoch_before() -> None:
    module = build(align_epochs=1, embedding=6)
    drawn, received = module.head.output.weight.clone(), []

    def keep(head: Any, inputs: Any, output: Tensor) -> None:
        if module.training:
            received.append(output.detach().clone())

    module.head.embed.register_forward_hook(keep)  # type: ignore[union-attr, unused-ignore]
    trainer(3).fit(module, loader())
    labels = torch.cat([y for _, y in loader()])
    first = torch.cat(received)[:60].double()
    means = torch.stack([first[labels == k].mean(dim=0) for k in range(4)])
    torch.testing.assert_close(module.head.output.weight, nearest_turned(drawn, means).float(), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        class_vector_cosines(module.head.output.weight), class_vector_cosines(drawn), atol=1e-6, rtol=0
    )
    assert not torch.allclose(drawn, module.head.output.weight, atol=0.1)
    assert not module._gathers and module.class_means is not None and not module.class_means.counts.any()
    still = build(embedding=6)
    trainer(2).fit(still, loader())
    assert torch.equal(still.head.output.weight, drawn)


def test_a_resumed_run_turns_as_an_uninterrupted_one() -> None:
    whole = build(align_epochs=3)
    trainer(5).fit(whole, loader())
    part = trainer(2)
    part.fit(build(align_epochs=3), loader())
    part.save_checkpoint("half.ckpt")
    resumed = build(align_epochs=3)
    trainer(5).fit(resumed, loader(), ckpt_path="half.ckpt", weights_only=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_memberships_and_absent_classes() -> None:
    means, soft = ClassMeans(3, 2), ClassMeans(3, 2)
    x, y = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), torch.tensor([0, 0, 2])
    means.update(x, y)
    assert means.compute()[[0, 2]].tolist() == [[2.0, 3.0], [5.0, 6.0]] and bool(means.compute()[1].isnan().all())
    soft.update(x, torch.nn.functional.one_hot(y, 3).float())
    torch.testing.assert_close(soft.compute(), means.compute(), equal_nan=True)


def means_of_rank(rank: int, world_size: int, x: Tensor, y: Tensor) -> Tensor:
    means = ClassMeans(4, x.shape[1])
    means.update(x[rank::world_size], y[rank::world_size])
    return means.compute()


def test_processes_turn_alike() -> None:
    x, y = torch.randn(13, 3, generator=torch.Generator().manual_seed(0)), torch.arange(13) % 4
    pool = GlooPool()
    try:
        one, other = pool.run(means_of_rank, x, y)
    finally:
        pool.close()
    torch.testing.assert_close(one, means_of_rank(0, 1, x, y))
    assert torch.equal(one, other)


# -- a probe ---------------------------------------------------------------------------------------------------------


def test_a_detached_head_trains_nothing_before_it() -> None:
    head = LinearHead(6, 3, detach=True)
    features = torch.randn(4, 6, requires_grad=True)
    head(features).sum().backward()
    assert features.grad is None and head.output.weight.grad is not None
    plain = LinearHead(6, 3)
    plain.load_state_dict(head.state_dict())
    assert torch.equal(plain(features), head(features))
    assert torch.equal(torch.fx.symbolic_trace(copy.deepcopy(head))(features), head(features))


def test_supcon_trains_the_network_and_its_probe() -> None:
    words = ["fit", "--config", "quickstart", "--config", "method/supcon", "--trainer.callbacks", "null"]
    words += ["--trainer.max_epochs", "2", "--trainer.enable_progress_bar", "false", "--run_dir", "run"]
    assert main(words) == 0
    text = Path("run/metrics.csv").read_text()
    assert "train/SupervisedContrastive/features_raw" in text and "train/classification_loss" in text
