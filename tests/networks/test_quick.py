"""QuickNet: its filters by the definition, its blocks by hand, and its part in a training."""

from functools import partial
from pathlib import Path

import pytest
import torch
from cli_runs import QUIET, checkpoint, rows, same
from lightning.pytorch import Trainer
from torch.nn import functional as F

from lightning_repshape import MLP, CIFAR10DataModule, QuickNet, SupervisedModule
from lightning_repshape.cli import main
from lightning_repshape.data import SplitData
from lightning_repshape.errors import ConfigError

SMALL = {"widths": (4, 6, 8), "depths": (1, 2, 3)}
SLIM = [
    *("--model.backbone.widths", "[4,4,4]", "--model.backbone.depths", "[1,1,2]", "--trainer.max_epochs", "2"),
    *("--trainer.callbacks", "null", "--data.batch_size", "20", "--data.val_size", "10", "--then_test", "false"),
]


def correlated(count: int = 40, shape: tuple[int, ...] = (3, 12, 10)) -> torch.Tensor:
    noise = torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))
    return noise.cumsum(2).cumsum(3) / 8 + noise[:, :1]


def test_filters_are_those_of_the_definition() -> None:
    net, x = QuickNet((3, 12, 10), **SMALL), correlated()
    assert net.inputs_wanted == 512_000 // 120 and QuickNet((3, 32, 32)).inputs_wanted == 500
    net.fit_inputs(x)
    patches = [x[:, :, i : i + 2, j : j + 2].flatten(1) for i in range(11) for j in range(9)]
    moments = sum(patch.double().T @ patch.double() for patch in patches) / (99 * len(x))
    weight = net.get_parameter("whiten.conv.weight").double().flatten(1)
    largest_first = torch.linalg.eigvalsh(moments).flip(0)
    wanted = (largest_first / (largest_first + 5e-4 * largest_first.mean())).diag()
    torch.testing.assert_close(weight[:12] @ moments @ weight[:12].T, wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(weight[12:], -weight[:12])
    assert net.inputs_wanted == 0 and not net.get_parameter("whiten.conv.weight").requires_grad
    assert QuickNet((1, 9, 9), **SMALL)(torch.zeros(2, 1, 30, 9)).shape == (2, 8)
    net.fit_inputs(torch.zeros(2, 3, 12, 10))
    assert net(x).isfinite().all()


def test_blocks_by_hand() -> None:
    net, x = QuickNet((3, 12, 10), **SMALL).eval(), correlated(2)

    def step(name: str, value: torch.Tensor, pool: bool = False) -> torch.Tensor:
        conv, norm = (net.get_submodule(f"{name}.{part}") for part in ("conv", "norm"))
        value = F.conv2d(value, conv.weight, padding=1)
        return F.gelu(norm(F.max_pool2d(value, 2) if pool else value))

    names = ("whiten", "block1", "block2.0", "block2", "block3.0", "block3.1", "block3", "pool")
    assert net.activation_names == names
    features, found = net.forward_activations(x, names)
    value = F.gelu(F.conv2d(x, net.get_parameter("whiten.conv.weight")))
    values = [value := step("block1.0", value, pool=True)]
    for block, depth in ((2, 2), (3, 3)):
        values.append(value := step(f"block{block}.0", value, pool=True))
        values += [value := value + step(f"block{block}.{number}", value) for number in range(1, depth)]
    values.append(value.amax(dim=(2, 3)) / 8)
    for name, wanted in zip(names[1:], values, strict=True):
        torch.testing.assert_close(found[name], wanted)
    assert torch.equal(features, found["pool"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"widths": (4, 4)}, "three blocks, so widths takes three numbers, not 2"),
        ({"depths": (1, 0, 1)}, "depths must be a whole number above 0"),
    ],
)
def test_bad_options(options: dict[str, tuple[int, ...]], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        QuickNet((3, 32, 32), **options)
    with pytest.raises(ConfigError, match="at least 9 x 9"):
        QuickNet((3, 32, 8))
    with pytest.raises(ConfigError, match="test_flip mirrors images"):
        SupervisedModule(3, (4,), MLP, test_flip=True)


def _images(self: CIFAR10DataModule, split: str) -> SplitData:
    labels = torch.arange(60 if split == "train" else 20) % 10
    return SplitData((correlated(len(labels), (32, 32, 3)) * 40 + 128).clamp(0, 255).to(torch.uint8), labels)


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The filters are computed once, from training images as they are; then they are the checkpoint's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(CIFAR10DataModule, "load_split", _images)
    fit = ["fit", "--config", "base/cifar10-quick", *SLIM, *QUIET, "--run_dir"]
    assert main([*fit, "whole"]) == 0

    def power_fails(self: SupervisedModule) -> None:
        if self.current_epoch == 1:
            raise RuntimeError("the power failed")

    with monkeypatch.context() as patch:
        patch.setattr(SupervisedModule, "on_train_epoch_start", power_fails)
        assert main([*fit, "parts"]) == 1
    drawn: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(QuickNet, "fit_inputs", lambda self, x: drawn.append(len(x)))
        assert main(["fit", "--run_dir", "parts", "--ckpt_path", "last", *QUIET]) == 0
    assert not drawn
    whole, parts = checkpoint("whole"), checkpoint("parts")
    assert same(whole["state_dict"], parts["state_dict"]) and rows("whole") == rows("parts")
    assert same(whole["optimizer_states"], parts["optimizer_states"])

    data = CIFAR10DataModule(val_size=10)
    net = QuickNet((3, 32, 32), (4, 4, 4), (1, 1, 2))
    net.fit_inputs(torch.cat([x for x, _ in data.batches("train", shuffle=False, augment=False)]))
    weight = net.get_parameter("whiten.conv.weight").flatten(1)
    found = whole["state_dict"]["backbone.whiten.conv.weight"].flatten(1)
    assert bool(whole["state_dict"]["backbone.whitened"])
    torch.testing.assert_close((found.T @ found), (weight.T @ weight), rtol=1e-3, atol=1e-3)  # signs are arbitrary


def test_loaders_without_a_data_module(tmp_path: Path) -> None:
    set_ = torch.utils.data.TensorDataset(correlated(8), torch.arange(8) % 2)
    module = SupervisedModule(2, (3, 12, 10), partial(QuickNet, **SMALL))
    trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, barebones=True)
    trainer.fit(module, torch.utils.data.DataLoader(set_, batch_size=4))
    assert bool(module.backbone.whitened)
