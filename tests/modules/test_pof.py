"""PoF: the search in closed form, the moved theta and a step written out, and what it refuses."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_runs import QUIET, checkpoint
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_repshape import ClassVectorHead, FOCAModule, MLPHead, NoisyMLPHead, PoFModule, SupervisedModule
from lightning_repshape.cli import main
from lightning_repshape.errors import CheckpointError, ConfigError
from lightning_repshape.functional.stacked_heads import HeadRecipe
from lightning_repshape.heads import LinearHead
from lightning_repshape.modules.foca.source import DatasetSource
from lightning_repshape.modules.pof import line_search
from lightning_repshape.networks import MLP
from lightning_repshape.runs.checkpoints import load_weights
from lightning_repshape.seeding import generator

K, SHAPE = 3, (1, 3, 3)
NET = partial(MLP, widths=(8, 5), batch_norm=True)
SGD = partial(torch.optim.SGD, lr=0.1)


def samples(count: int = 12, dtype: torch.dtype = torch.float32) -> TensorDataset:
    source = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(count, *SHAPE, generator=source).to(dtype), torch.arange(count) % K)


def trained(**options: Any) -> PoFModule:
    """A module that has weights of its own to start from."""
    torch.manual_seed(0)
    start = SupervisedModule(K, SHAPE, options.get("backbone", NET), options.get("head", LinearHead))
    module = PoFModule(K, SHAPE, **{"backbone": NET, "optimizer": SGD, "weak_batch": 7, **options})
    module.load_state_dict(start.state_dict())
    return module


def fit(module: Any, epochs: int = 1, ckpt_path: Path | None = None, **options: Any) -> Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(**{"max_epochs": epochs, "accelerator": "cpu", **quiet, **options})
    trainer.fit(module, DataLoader(samples(), batch_size=6), ckpt_path=ckpt_path, weights_only=True)
    return trainer


# -- the search -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lowest", "end", "step"),
    [
        (0.2, 1.0, 3 / 16),  # a quadratic is as high as at 0 again at twice its lowest place: S is the first above
        (0.45, 1.0, 7 / 16),
        (0.5, 2.0, 0.5),  # at S = 1 it is as high, not higher
        (1.5, 4.0, 1.5),
        (20.3, 64.0, 20.0),
        (1000.0, 128.0, 128.0),  # 2^7, where the search ends
        (0.001, 1.0, 1 / 16),  # 0 is not on the grid
        (-1.0, 1.0, 1 / 16),
    ],
)
def test_search_on_a_quadratic(lowest: float, end: float, step: float) -> None:
    found = line_search(lambda steps: 3.0 * (steps - lowest).double() ** 2 + 0.1)
    assert [float(value) for value in found] == [step, end]


def test_search_with_other_options() -> None:
    found = line_search(lambda steps: (steps - 40.0) ** 2, partitions=4, doublings=4)
    assert [float(value) for value in found] == [16.0, 16.0]
    # a loss that falls for good, and one that does not change
    assert [float(value) for value in line_search(lambda steps: -steps, doublings=3)] == [8.0, 8.0]
    assert [float(value) for value in line_search(torch.zeros_like, doublings=3)] == [0.5, 8.0]


# -- the moved theta --------------------------------------------------------------------------------------------------


def written_out(
    weight: Tensor, bias: Tensor | None, alpha: Tensor, target: Tensor, factor: float
) -> tuple[Tensor, Tensor | None]:
    """Theta moved as the docstring has it, by loops, with the gradient of softmax cross entropy by hand."""

    def loss(step: float) -> float:
        logits = alpha @ (weight - step * grad_weight).T
        logits = logits if bias is None else logits + bias - step * grad_bias
        return float(F.cross_entropy(logits, target))

    logits = alpha @ weight.T + (0 if bias is None else bias)
    residual = (logits.softmax(dim=1) - F.one_hot(target, K)) / len(alpha)
    grad_weight, grad_bias = residual.T @ alpha, residual.sum(dim=0)
    end = 1.0
    while end < 128 and not loss(end) > loss(0.0):
        end *= 2
    steps = [end * part / 16 for part in range(1, 17)]
    step = factor * min(steps, key=loss)
    return weight - step * grad_weight, None if bias is None else bias - step * grad_bias


@pytest.mark.parametrize("head", [LinearHead, partial(LinearHead, bias=False), partial(MLPHead, hidden=(4,))])
def test_moved_theta_written_out(head: Any) -> None:
    module = trained(head=head).double()
    alpha = torch.randn(9, module.theta[0].shape[1], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    target = torch.arange(9) % K
    theta = [parameter.detach().clone() for parameter in module.theta]
    wanted = written_out(theta[0], theta[1] if len(theta) == 2 else None, alpha, target, 1.3)
    for found, value in zip(module.move_theta(alpha, target, 1.3), wanted, strict=False):
        torch.testing.assert_close(found, value)
        assert found.dtype == torch.float64 and not found.requires_grad
    for kept, value in zip(module.theta, theta, strict=True):
        assert torch.equal(kept, value)


def test_search_under_the_squared_loss_in_closed_form() -> None:
    module = trained(classification_loss="squared", partitions=1000).double()
    alpha = torch.randn(9, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    target = torch.arange(9) % K
    weight, bias = (parameter.detach() for parameter in module.theta)
    moved = module.move_theta(alpha, target, 2.0)
    step, end, length = (float(module._figures[name]) for name in ("search_step", "search_end", "perturbation"))
    residual = alpha @ weight.T + bias - F.one_hot(target, K)
    gradient = [2 / 9 * residual.T @ alpha, 2 / 9 * residual.sum(dim=0)]
    change = F.linear(alpha, *gradient)
    lowest = float((residual * change).sum() / change.square().sum())  # of |residual - step change|^2
    assert step == pytest.approx(lowest, abs=end / 2000)
    assert end == 1.0 or end / 2 <= 2 * lowest < end
    assert length == pytest.approx(2 * step * float(torch.cat([part.flatten() for part in gradient]).norm()))
    torch.testing.assert_close(moved[0], weight - 2 * step * gradient[0])


# -- the step ---------------------------------------------------------------------------------------------------------


def test_a_step_written_out() -> None:
    module = trained(head=partial(MLPHead, hidden=(4,))).double()
    start, theta = {name: value.clone() for name, value in module.state_dict().items()}, module.theta
    other = SupervisedModule(K, SHAPE, NET, partial(MLPHead, hidden=(4,))).double()
    other.load_state_dict(start)
    data = samples(dtype=torch.float64)
    key = (0, 0, 0, 0)  # seed, epoch, batch, rank
    source = DatasetSource(data, data.tensors[1], K, torch.device("cpu"))
    x, y = source.uniform(7, generator("pof-weak", *key))
    factor = 2.0 * float(torch.rand((), generator=generator("pof-factor", *key), dtype=torch.float64))
    with torch.no_grad():
        alpha = other.train()(x, ("head.fc1",)).activations["head.fc1"]
        weight, bias = written_out(theta[0], theta[1], alpha, y, factor)
    x, y = (part[:6] for part in data.tensors)
    loss = F.cross_entropy(F.linear(other(x, ("head.fc1",)).activations["head.fc1"], weight, bias), y)
    loss.backward()
    fit(module, precision="64-true", limit_train_batches=1)
    for (name, found), wanted in zip(module.named_parameters(), other.parameters(), strict=True):
        moves = 0 if wanted.grad is None else 0.1 * wanted.grad
        torch.testing.assert_close(found, start[name] - moves)
        assert name.startswith("head.output") == (wanted.grad is None)
    assert torch.equal(module.backbone.fc1.norm.running_mean, other.backbone.fc1.norm.running_mean)


def test_without_a_factor_it_is_training_under_a_fixed_head() -> None:
    net = partial(MLP, widths=(8, 5))  # no statistics that the weak pass would move
    module = trained(backbone=net, max_factor=0.0)
    other = SupervisedModule(K, SHAPE, net, optimizer=SGD)
    other.load_state_dict(module.state_dict())
    other.head.requires_grad_(False)
    for each in (module, other):
        fit(each, epochs=2)
    for one, two in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def test_bf16_takes_the_same_way() -> None:
    moves = []
    for precision in ("32-true", "bf16-mixed"):
        module = trained()
        before = nn.utils.parameters_to_vector(module.backbone.parameters()).detach().clone()
        trainer = fit(module, precision=precision, log_every_n_steps=1)
        moves.append(nn.utils.parameters_to_vector(module.backbone.parameters()).detach() - before)
        assert float(trainer.callback_metrics["train/perturbation"]) > 0
        assert float(trainer.callback_metrics["train/search_end"]) >= float(
            trainer.callback_metrics["train/search_step"]
        )
    assert float(F.cosine_similarity(*moves, dim=0)) > 0.98


def test_ranks_and_batches_draw_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, float]] = []
    uniform, move = DatasetSource.uniform, PoFModule.move_theta

    def watched(self: DatasetSource, count: int, source: torch.Generator, **options: Any) -> tuple[Tensor, Tensor]:
        x, y = uniform(self, count, source, **options)
        drawn.append((count, float(x.sum())))
        return x, y

    def moved(self: PoFModule, alpha: Tensor, target: Tensor, factor: float) -> list[Tensor]:
        drawn.append((0, factor))
        return move(self, alpha, target, factor)

    monkeypatch.setattr(DatasetSource, "uniform", watched)
    monkeypatch.setattr(PoFModule, "move_theta", moved)
    for rank in (0, 1, 0):
        monkeypatch.setattr(PoFModule, "global_rank", rank)
        fit(trained(), epochs=8)
    ranks = [drawn[:32], drawn[32:64], drawn[64:]]
    assert ranks[0] == ranks[2] and not set(ranks[0]) & set(ranks[1])
    assert len(set(drawn)) == 64 and {count for count, _ in drawn} == {0, 7}
    factors = torch.tensor([value for count, value in drawn[:64] if count == 0])
    assert 0 <= factors.min() < 0.4 and 1.6 < factors.max() < 2  # uniform in [0, 2)


# -- what it refuses --------------------------------------------------------------------------------------------------


def test_fresh_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="these weights are fresh: give --init_from CHECKPOINT"):
        fit(PoFModule(K, SHAPE, NET))


@pytest.mark.parametrize("head", [ClassVectorHead, NoisyMLPHead, lambda features, classes: nn.Identity()])
def test_heads_that_are_not_linear_are_refused(head: Any) -> None:
    with pytest.raises(ConfigError, match="LinearHead"):
        PoFModule(K, SHAPE, NET, head=head)


@pytest.mark.parametrize("options", [{"weak_batch": 0}, {"partitions": 0}, {"doublings": -1}, {"max_factor": -1.0}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        PoFModule(K, SHAPE, NET, **options)


MLP4 = partial(MLPHead, hidden=(4,))


@pytest.mark.parametrize(
    ("head", "configured", "message"),
    [
        (ClassVectorHead, partial(LinearHead, bias=False), r"has none \(class vectors\): .*--model.head LinearHead"),
        (partial(ClassVectorHead, embedding=4), LinearHead, r"--model.head LinearHead or --model.head MLPHead"),
        (MLP4, LinearHead, r"set --model.head MLPHead --model.head.hidden '\[4\]'$"),
        (partial(MLPHead, hidden=(6,), batch_norm=True), MLP4, r"hidden '\[6\]' --model.head.batch_norm true$"),
        (partial(LinearHead, bias=False), LinearHead, r"set --model.head LinearHead --model.head.bias false$"),
        (NoisyMLPHead, MLPHead, ""),  # the same weights
        (None, MLP4, ""),  # FOCA: its secondary head
        (None, LinearHead, r"set --model.head MLPHead --model.head.hidden '\[4\]'$"),
    ],
)
def test_what_it_starts_from(tmp_path: Path, head: Any, configured: Any, message: str) -> None:
    if head is None:
        start: Any = FOCAModule(K, SHAPE, NET, weak={"hidden": [4]}, secondary=HeadRecipe(hidden=(4,)))
        start.head_trained.fill_(True)
    else:
        start = SupervisedModule(K, SHAPE, NET, head)
    kind = getattr(head, "func", head)
    options = {"head": {"class_path": f"lightning_repshape.{kind.__name__}"}} if head is not None else {}
    torch.save({"state_dict": start.state_dict(), "hyper_parameters": options}, tmp_path / "a.ckpt")
    module = PoFModule(K, SHAPE, NET, configured)
    if message:
        with pytest.raises(CheckpointError, match=message):
            load_weights(module, tmp_path / "a.ckpt")
        return
    load_weights(module, tmp_path / "a.ckpt")
    for name, value in module.state_dict().items():
        assert torch.equal(value, start.state_dict()[name])


def test_focas_head_must_be_trained(tmp_path: Path) -> None:
    start = FOCAModule(K, SHAPE, NET, weak={"hidden": [4]}, secondary=HeadRecipe(hidden=(4,)))
    torch.save({"state_dict": start.state_dict()}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"secondary head of the FOCA checkpoint .* is not trained"):
        load_weights(PoFModule(K, SHAPE, NET, MLP4), tmp_path / "a.ckpt")


def test_a_resumed_run_needs_no_other_start(tmp_path: Path) -> None:
    whole, part = trained(), trained()
    fit(whole, epochs=2)
    fit(part).save_checkpoint(tmp_path / "a.ckpt")
    resumed = PoFModule(K, SHAPE, NET, optimizer=SGD, weak_batch=7)
    fit(resumed, epochs=2, ckpt_path=tmp_path / "a.ckpt")
    for one, two in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.usefixtures("quick_figures")
def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--then_test", "false", *QUIET]
    words = ["fit", "--config", "base/digits-mlp", *small, "--trainer.callbacks", "[]"]
    post, start = [*words, "--config", "method/pof", *small], ["--init_from", "plain/checkpoints/last.ckpt"]
    assert main([*words, "--run_dir", "plain"]) == 0
    assert main([*post, *start, "--run_dir", "pof"]) == 0
    before, after = (checkpoint(run)["state_dict"] for run in ("plain", "pof"))
    for name, value in before.items():
        assert torch.equal(value, after[name]) == name.startswith("head.output"), name
    capsys.readouterr()
    for wrong, message in (([], "these weights are fresh"), (["--model.head", "NoisyMLPHead"], "moves a linear layer")):
        assert main([*post, *(start if wrong else []), *wrong, "--run_dir", "other"]) == 2
        assert message in " ".join(capsys.readouterr().err.split()) and not Path("other").exists()
