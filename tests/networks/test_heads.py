from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from lightning_repshape.errors import ConfigError
from lightning_repshape.heads import Head, LinearHead, MLPHead, NoisyMLPHead

ALL = [
    lambda: LinearHead(6, 3),
    lambda: LinearHead(6, 3, bias=False),
    lambda: MLPHead(6, 3, hidden=(5, 4)),
    lambda: MLPHead(6, 3, hidden=[5], dropout=0.2, batch_norm=True),
    lambda: MLPHead(6, 3, hidden=()),
    lambda: NoisyMLPHead(6, 3, hidden=(5, 4)),
]


def features(count: int = 7, width: int = 6) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("build", ALL)
def test_logits_and_activations(build: Callable[[], Head]) -> None:
    head = build().eval()
    logits, activations = head.forward_activations(features(), head.activation_names)
    assert logits.shape == (7, 3) and (head.num_features, head.num_classes) == (6, 3)
    assert torch.equal(logits, head(features()))
    assert list(activations) == list(head.activation_names) and activations["output"] is logits
    assert head.linears[-1] is head.output and head.output.weight.shape[0] == 3
    assert [linear.in_features for linear in head.linears[1:]] == [linear.out_features for linear in head.linears[:-1]]
    assert head.forward_activations(features(), ())[1] == {}
    with pytest.raises(ConfigError, match="has no activation named 'fc9'"):
        head.forward_activations(features(), ["fc9"])


@pytest.mark.parametrize("build", ALL)
def test_gradients_float64_and_fx(build: Callable[[], Head]) -> None:
    head = build().double()
    head(features().double()).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in head.parameters())
    head.eval()
    traced = torch.fx.symbolic_trace(head)
    assert torch.equal(traced(features().double()), head(features().double()))


def test_by_hand() -> None:
    head = MLPHead(6, 3, hidden=(5, 4))
    state, x = head.state_dict(), features()
    hidden = (x @ state["fc1.linear.weight"].T + state["fc1.linear.bias"]).clamp(min=0)
    hidden = (hidden @ state["fc2.linear.weight"].T + state["fc2.linear.bias"]).clamp(min=0)
    logits, activations = head.forward_activations(x, ["fc2"])
    torch.testing.assert_close(activations["fc2"], hidden)
    torch.testing.assert_close(logits, hidden @ state["output.weight"].T + state["output.bias"])


def test_keys_and_sizes() -> None:
    assert list(LinearHead(6, 3, bias=False).state_dict()) == ["output.weight"]
    assert list(MLPHead(6, 3, hidden=(5,)).state_dict()) == [
        "fc1.linear.weight",
        "fc1.linear.bias",
        "output.weight",
        "output.bias",
    ]
    assert MLPHead(6, 3, hidden=(5,)).state_dict().keys() == NoisyMLPHead(6, 3, hidden=(5,)).state_dict().keys()
    secondary = MLPHead(4096, 10)  # FOCA's 4096-128-128-10
    assert [tuple(linear.weight.shape) for linear in secondary.linears] == [(128, 4096), (128, 128), (10, 128)]


def test_dropout_and_batch_norm() -> None:
    head = MLPHead(6, 3, hidden=(50, 40), dropout=0.5, batch_norm=True)
    assert head.activation_names == ("fc1", "dropout1", "fc2", "dropout2", "output")
    activations = head.forward_activations(features(), ["fc1.norm", "fc1", "dropout1"])[1]
    torch.testing.assert_close(activations["fc1.norm"].mean(0), torch.zeros(50), atol=1e-5, rtol=0)
    torch.testing.assert_close(activations["fc1"], activations["fc1.norm"].relu())
    kept = activations["dropout1"] != 0
    torch.testing.assert_close(activations["dropout1"][kept], 2 * activations["fc1"][kept])
    assert kept.sum() < (activations["fc1"] > 0).sum()


@pytest.mark.parametrize("kind", [LinearHead, MLPHead, NoisyMLPHead])
def test_initial_weights(kind: Callable[..., Head]) -> None:
    torch.manual_seed(0)
    normal = kind(1000, 100, init="normal", init_std=0.3).linears[0]
    assert abs(normal.weight.std().item() - 0.3) < 5e-3 and abs(normal.weight.mean().item()) < 5e-3
    assert (normal.bias == 0).all()
    glorot = kind(1000, 100, init="glorot").linears[0]
    bound = (6 / sum(glorot.weight.shape)) ** 0.5
    assert 0.99 * bound < glorot.weight.abs().max() <= bound and (glorot.bias == 0).all()
    torch.manual_seed(2)
    left_alone = kind(9, 4).linears[0]
    torch.manual_seed(2)
    assert torch.equal(left_alone.weight, nn.Linear(9, left_alone.out_features).weight)


def test_noisy_and_clean_heads_start_alike() -> None:
    torch.manual_seed(0)
    noisy = NoisyMLPHead(6, 3, hidden=(5, 4), noise_std=0.3)
    torch.manual_seed(0)
    clean = MLPHead(6, 3, hidden=(5, 4))
    assert torch.equal(noisy.eval()(features()), clean(features()))
    clean.load_state_dict(noisy.state_dict())


def test_noise_is_fresh_at_every_training_forward_and_absent_in_evaluation() -> None:
    torch.manual_seed(0)
    head = NoisyMLPHead(6, 3, hidden=(5,), noise_std=0.1)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    first, second = head(features()), head(features())
    assert not torch.equal(first, second)
    assert torch.equal(head.eval()(features()), head(features()))
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    torch.manual_seed(5)
    again = head.train()(features())
    torch.manual_seed(5)
    assert torch.equal(again, head(features()))  # the global generator is the only source
    silent = NoisyMLPHead(6, 3, hidden=(5,), noise_std=0.0)
    assert torch.equal(silent(features()), silent(features()))


def test_noise_has_the_asked_for_standard_deviation_on_weights_and_biases() -> None:
    torch.manual_seed(0)
    head = NoisyMLPHead(4, 2, hidden=(), noise_std=0.5)
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    clean = head.eval()(x)
    head.train()
    with torch.no_grad():
        noise = torch.cat([head(x) - clean for _ in range(4000)])
        bias_noise = torch.cat([head(0 * x) - head.output.bias for _ in range(4000)])
    # var = noise_std^2 (|x|^2 + 1); standard errors of a standard deviation: 1 / sqrt(2 * 8000) = 0.8 %
    assert abs(noise.std().item() / (0.5 * 31**0.5) - 1) < 0.03
    assert abs(bias_noise.std().item() / 0.5 - 1) < 0.03
    assert abs(noise.mean().item()) < 0.1


def test_gradient_of_a_noisy_head_goes_to_the_clean_parameters() -> None:
    """The chain rule through parameter + noise: the gradient at the noisy point, given to the clean parameter."""
    head = NoisyMLPHead(6, 3, hidden=(5,), noise_std=0.2).double()
    x = features().double()
    shifted = MLPHead(6, 3, hidden=(5,)).double()
    torch.manual_seed(1)
    head(x).pow(2).sum().backward()
    torch.manual_seed(1)
    shifted.load_state_dict(
        {
            name: value + 0.2 * torch.randn_like(value)
            for name, value in head.state_dict().items()  # drawn in the order of the forward pass
        }
    )
    shifted(x).pow(2).sum().backward()
    for ours, theirs in zip(head.parameters(), shifted.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LinearHead(0, 3), "num_features"),
        (lambda: LinearHead(3, 0), "num_classes"),
        (lambda: LinearHead(3, 3, init="uniform"), "init='uniform'"),
        (lambda: MLPHead(3, 3, init="norml"), "did you mean 'normal'"),
        (lambda: MLPHead(3, 3, hidden=(0,)), "hidden must be a whole number above 0, not 0"),
        (lambda: MLPHead(3, 3, dropout=1.5), "dropout=1.5"),
        (lambda: MLPHead(3, 3, init="normal", init_std=-1.0), "init_std=-1.0"),
        (lambda: NoisyMLPHead(3, 3, noise_std=-0.1), "noise_std=-0.1"),
        (lambda: NoisyMLPHead(3, 3, noise_std=float("nan")), "noise_std=nan"),
    ],
)
def test_what_cannot_work_is_refused_with_a_reason(build: Callable[[], Head], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


# ------------------------------------------------------------------------------------------------ command line


def build(head: Callable[[int, int], nn.Module] = LinearHead) -> nn.Module:
    """Takes a head the way the modules do."""
    return head(6, 3)


def from_arguments(*arguments: str) -> nn.Module:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(build)
    parser.add_argument("--config", action="config")
    return build(parser.instantiate(parser.parse_args(list(arguments))).head)


@pytest.mark.parametrize(
    ("yaml", "kind", "widths"),
    [
        ("head: LinearHead", LinearHead, [3]),
        ("head: {class_path: MLPHead, init_args: {hidden: [64, 32], dropout: 0.5}}", MLPHead, [64, 32, 3]),
        ("head: {class_path: MLPHead}", MLPHead, [128, 128, 3]),
        (
            "head: {class_path: lightning_repshape.heads.NoisyMLPHead, init_args: {hidden: [], noise_std: 0.1}}",
            NoisyMLPHead,
            [3],
        ),
    ],
)
def test_heads_from_yaml(tmp_path: Path, yaml: str, kind: type[Head], widths: list[int]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"{yaml}\n")
    head = from_arguments("--config", str(config))
    assert type(head) is kind and [linear.out_features for linear in head.linears] == widths


def test_heads_from_the_command_line() -> None:
    head = from_arguments("--head", "MLPHead", "--head.hidden", "[7]", "--head.init=normal")
    assert isinstance(head, MLPHead) and head.linears[0].out_features == 7
