"""Heads of fixed and trained class vectors, their module, and the analyses of class vectors."""

import copy
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from cli_runs import QUIET
from ddp_pool import GlooPool
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_repshape.callbacks import TSNE, ClassVectorSimilarity, FeatureInputs, ModelInputs, NeuralCollapse
from lightning_repshape.cli import main
from lightning_repshape.data import DigitsDataModule
from lightning_repshape.errors import CheckpointError, ConfigError, DataError
from lightning_repshape.features.last_layer import find_class_vectors
from lightning_repshape.features.passes import Features, save_features
from lightning_repshape.functional import (
    class_vector_cosines,
    confusion_counts,
    confusion_pairs,
    cosine_logits,
    largest_class_cosine,
    random_class_vectors,
    sample_cosines,
    spearman,
)
from lightning_repshape.heads import ClassVectorHead
from lightning_repshape.metrics import ClassCosines
from lightning_repshape.modules import ClassVectorModule, RegularizedModule, SupervisedModule
from lightning_repshape.networks import MLP
from lightning_repshape.regularizers import ClasswiseVariance, L2Weight
from lightning_repshape.runs.checkpoints import load_weights
from lightning_repshape.seeding import generator

SMALL = {"backbone": {"class_path": "MLP", "init_args": {"widths": [24, 16]}}}


def draw(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


pytestmark = pytest.mark.usefixtures("in_tmp")


@pytest.fixture(autouse=True)
def _quick_figures(quick_figures: None) -> None:
    """Figures are not what these tests are about."""


# -- formulas --------------------------------------------------------------------------------------------------------


def test_cosine_logits_against_a_transcription() -> None:
    f, w = draw(7, 5, dtype=torch.float64), draw(3, 5, seed=2, dtype=torch.float64)
    wanted = [[float(a @ b) / (math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))) for b in w] for a in f]
    torch.testing.assert_close(cosine_logits(f, w), torch.tensor(wanted, dtype=torch.float64))
    torch.testing.assert_close(cosine_logits(1e-3 * f, 1e3 * w), cosine_logits(f, w))
    assert torch.autograd.gradcheck(cosine_logits, (f.requires_grad_(), w.requires_grad_()))
    with pytest.raises(ValueError, match="N x D and class vectors K x D"):
        cosine_logits(f, w[:, :4])


@pytest.mark.parametrize("zero", [0.0, 1e-30])
def test_zero_length_features_have_cosine_and_gradient_zero(zero: float) -> None:
    f = draw(4, 6)
    f[2] = zero
    f.requires_grad_()
    head = ClassVectorHead(6, 3, fixed=False, scale=20.0)
    logits = head(f)
    assert torch.equal(logits[2], torch.zeros(3))
    F.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    assert f.grad is not None and bool(f.grad.isfinite().all()) and torch.equal(f.grad[2], torch.zeros(6))
    assert bool((f.grad[[0, 1, 3]].abs().sum(dim=1) > 0).all())
    assert bool(head.output.weight.grad.isfinite().all())


def test_cosine_is_float32_under_16_bits() -> None:
    head, f = ClassVectorHead(64, 10), draw(5, 64)
    exact = head(f)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(f), exact)
        assert ClassVectorHead(64, 10, similarity="dot")(f).dtype == torch.bfloat16
    low = copy.deepcopy(head).bfloat16()(f.bfloat16())
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, exact, atol=5e-3, rtol=0)


def test_random_vectors_are_uniform_on_the_sphere() -> None:
    w = random_class_vectors(2000, 3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(w.square().sum(dim=1), torch.ones(2000, dtype=torch.float64))
    # a coordinate of a uniform point on the sphere in three dimensions is uniform in [-1, 1]
    for k in range(3):
        assert scipy.stats.kstest(w[:, k].numpy(), "uniform", (-1, 2)).pvalue > 0.01
    with pytest.raises(ValueError, match="at least one class"):
        random_class_vectors(0, 3, torch.Generator())


def test_cosine_matrix_and_largest() -> None:
    w = draw(40, 7)
    cosines = class_vector_cosines(w)
    units = w.double().numpy() / np.linalg.norm(w.double().numpy(), axis=1, keepdims=True)
    np.testing.assert_allclose(cosines.numpy(), units @ units.T, atol=1e-14)
    assert torch.equal(cosines, cosines.T)
    assert float(largest_class_cosine(w)) == float(cosines[~torch.eye(40, dtype=torch.bool)].max())
    assert torch.equal(class_vector_cosines(torch.tensor([[3.0, 4.0], [0.0, 0.0]])), torch.diag(torch.tensor([1.0, 0])))
    assert math.isnan(largest_class_cosine(w[:1]))
    with pytest.raises(ValueError, match="K x D matrix"):
        class_vector_cosines(w[0])


def test_sample_cosines_by_hand() -> None:
    f = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]])
    got = sample_cosines(f, torch.tensor([[2.0, 0.0], [0.0, -5.0]]), torch.tensor([1, 0, 0]))
    assert got.tolist() == pytest.approx([-0.8, 0.0, 1.0])
    assert sample_cosines(f[:0], torch.eye(2), torch.tensor([], dtype=torch.int64)).shape == (0,)
    long = draw(9000, 4)  # more rows than are taken at a time
    classes = torch.arange(9000) % 3
    wanted = F.cosine_similarity(long.double(), draw(3, 4, seed=5).double()[classes], dim=1)
    torch.testing.assert_close(sample_cosines(long, draw(3, 4, seed=5), classes), wanted)
    with pytest.raises(ValueError, match="as many classes"):
        sample_cosines(f, torch.eye(2), torch.tensor([0]))


def test_confusions_by_hand() -> None:
    counts = confusion_counts(torch.tensor([0, 0, 0, 2]), torch.tensor([0, 1, 1, 0]), 3)
    assert counts.tolist() == [[1, 2, 0], [0, 0, 0], [1, 0, 0]]
    pairs, cosines, numbers = confusion_pairs(torch.arange(9.0).view(3, 3), counts)
    assert pairs.tolist() == [[0, 1], [0, 2], [2, 0], [2, 1]]  # class 1 has no samples
    assert cosines.tolist() == [1.0, 2.0, 6.0, 7.0] and numbers.tolist() == [2, 0, 1, 0]
    with pytest.raises(ValueError, match=r"predictions must lie in 0 .. 2"):
        confusion_counts(torch.tensor([0]), torch.tensor([3]), 3)


@pytest.mark.parametrize("seed", range(5))
def test_spearman_with_ties_against_scipy(seed: int) -> None:
    numbers = np.random.default_rng(seed)
    x, y = numbers.integers(0, 6, 60), np.round(numbers.normal(size=60), 1)
    wanted = scipy.stats.spearmanr(x, y).statistic
    assert spearman(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(wanted, abs=1e-12)
    assert spearman(torch.from_numpy(x), torch.from_numpy(np.exp(x))) == pytest.approx(1.0)
    assert math.isnan(spearman(torch.ones(4), torch.arange(4.0))) and math.isnan(spearman(torch.ones(1), torch.ones(1)))
    with pytest.raises(ValueError, match="same length"):
        spearman(torch.ones(3), torch.ones(4))


def test_symmetric_cosines_tie_in_the_ranks() -> None:
    cosines = class_vector_cosines(draw(30, 11))
    _, near, _ = confusion_pairs(cosines, torch.ones(30, 30, dtype=torch.int64))
    assert len(torch.unique(near)) == 30 * 29 / 2


def test_where_the_loss_of_one_sample_is_least() -> None:
    # With orthonormal w, S = 1: p - q is largest at q = -p / (K - 1), so p^2 (1 + 1 / (K - 1)) = 1: the paper's 0.95.
    f, w, y = draw(10, 10, dtype=torch.float64).requires_grad_(), torch.eye(10, dtype=torch.float64), torch.arange(10)
    optimizer = torch.optim.LBFGS([f], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(cosine_logits(f, w), y)
        value.backward()
        return value

    optimizer.step(loss)
    assert sample_cosines(f, w, y).tolist() == pytest.approx([math.sqrt(0.9)] * 10, abs=1e-4)


# -- heads -----------------------------------------------------------------------------------------------------------


def test_fixed_vectors_depend_on_seed_and_size_alone() -> None:
    torch.manual_seed(1)
    first = ClassVectorHead(16, 4)
    torch.manual_seed(2)
    second = ClassVectorHead(16, 4)
    assert torch.equal(first.output.weight, second.output.weight)
    assert torch.equal(first.output.weight, ClassVectorHead(16, 4, seed=np.int64(0)).output.weight)  # type: ignore[arg-type]
    assert not torch.equal(first.output.weight, ClassVectorHead(16, 4, seed=1).output.weight)
    torch.testing.assert_close(first.output.weight.norm(dim=1), torch.ones(4))
    drawn = torch.randn(4, 16, generator=generator("class vectors", 0), dtype=torch.float64)
    torch.testing.assert_close(first.output.weight, (drawn / drawn.norm(dim=1, keepdim=True)).float())


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_fixed_vectors_take_no_gradient_decay_or_optimizer_state(similarity: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 8), ClassVectorHead(8, 4, similarity=similarity))
    head = model[1]
    before = head.output.weight.clone()
    model.requires_grad_(True)  # what "unfreeze" does to a whole model
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(draw(5, 6)), torch.tensor([0, 1, 2, 3, 0])).backward()
        optimizer.step()
    assert torch.equal(head.output.weight, before) and head.output.weight.grad is None
    assert len(optimizer.state) == 2  # weight and bias of the layer below
    assert head.output.bias is None and list(model.state_dict()) == ["0.weight", "0.bias", "1.output.weight"]
    head.output.reset_parameters()
    assert torch.equal(head.output.weight, before)


def test_logits_by_hand() -> None:
    f = draw(5, 6)
    dot = ClassVectorHead(6, 3, similarity="dot", scale=2.0)
    torch.testing.assert_close(dot(f), 2 * f @ dot.output.weight.T)
    trained = ClassVectorHead(6, 3, similarity="dot", fixed=False)
    torch.testing.assert_close(trained(f), f @ trained.output.weight.T + trained.output.bias)
    cosine = ClassVectorHead(6, 3, fixed=False, scale=20.0, embedding=4)
    rows = f @ cosine.linears[0].weight.T + cosine.linears[0].bias
    wanted = 20 * F.normalize(rows, dim=1) @ F.normalize(cosine.output.weight, dim=1).T
    torch.testing.assert_close(cosine(f), wanted)
    assert cosine.activation_names == ("embed", "output") and cosine.output.bias is None
    torch.manual_seed(3)
    plain = nn.Linear(6, 3)
    torch.manual_seed(3)
    assert torch.equal(ClassVectorHead(6, 3, similarity="dot", fixed=False).output.weight, plain.weight)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_a_learned_scale_is_trained_and_stays_positive(similarity: Any) -> None:
    head = ClassVectorHead(6, 4, similarity=similarity, scale=0.01, learn_scale=True)
    assert float(head.scale.detach()) == pytest.approx(0.01)
    assert [name for name, _ in head.named_parameters()] == ["output.log_scale"]
    f, y = head.output.weight.clone(), torch.arange(4)
    optimizer = torch.optim.SGD(head.parameters(), lr=5.0)
    for step in range(40):
        loss = F.cross_entropy(head(f), y if step < 30 else 3 - y)  # then labels that pull S down
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == 29:
            assert float(head.scale.detach()) > 0.5
    assert 0 < float(head.scale.detach()) < 0.5


@pytest.mark.parametrize("options", [{}, {"similarity": "dot"}, {"learn_scale": True, "scale": 5.0}, {"embedding": 5}])
@pytest.mark.parametrize("fixed", [True, False])
def test_fx_compile_copies_and_names(options: Any, fixed: bool) -> None:
    torch.compiler.reset()  # other tests of the process have compiled heads of other options
    head = ClassVectorHead(6, 3, fixed=fixed, **options).double()
    f = draw(5, 6, dtype=torch.float64)
    assert torch.equal(torch.fx.symbolic_trace(head)(f), head(f))
    assert torch.equal(torch.compile(head, backend="eager", fullgraph=True)(f), head(f))
    assert torch.equal(copy.deepcopy(head)(f), head(f))
    logits, found = head.forward_activations(f, head.activation_names)
    assert found["output"] is logits and head.linears[-1] is head.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.0}, "scale=0.0 must be a finite number above 0"),
        ({"scale": -1.0}, "above 0"),
        ({"scale": math.inf}, "finite"),
        ({"scale": math.nan}, "finite"),
        ({"scale": None}, "scale=None must be a finite number"),
        ({"fixed": None}, "fixed=None must be true or false"),
        ({"seed": None}, "seed=None must be a whole number"),
        ({"similarity": "cosin"}, "did you mean 'cosine'"),
        ({"embedding": 0}, "embedding must be"),
        ({"num_features": 0}, "num_features must be"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClassVectorHead(**{"num_features": 8, "num_classes": 4, **options})


def test_fewer_features_than_classes_are_allowed_but_said() -> None:
    with pytest.warns(UserWarning, match=r"10 fixed class vectors of width 4.*largest cosine between two is 0\.\d\d"):
        head = ClassVectorHead(4, 10)
    assert head(draw(2, 4)).shape == (2, 10)
    with pytest.warns(UserWarning, match=r"10 trained class vectors of width 4.*at right angles\. Wider"):
        ClassVectorHead(4, 10, fixed=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ClassVectorHead(4, 10, embedding=16)
        ClassVectorHead(10, 10)


def test_vectors_that_do_not_fit_a_checkpoint() -> None:
    head = ClassVectorHead(8, 4)
    state = head.state_dict()
    copy.deepcopy(head).load_state_dict(state)
    half = {name: value.bfloat16() for name, value in state.items()}
    head.load_state_dict(half)  # rounding is no other draw
    with pytest.raises(CheckpointError, match=r"output\.weight: 4 fixed class vectors of width 8, of seed 1, are not"):
        ClassVectorHead(8, 4, seed=1).load_state_dict(state)
    with pytest.raises(CheckpointError, match=r"do not fit the checkpoint, which has \(4, 8\)"):
        ClassVectorHead(9, 4).load_state_dict(state)
    trained = ClassVectorHead(8, 4, fixed=False)
    with pytest.raises(CheckpointError, match="trained or drawn with another seed"):
        head.load_state_dict(trained.state_dict())
    head.output.weight.copy_(trained.output.weight.detach())  # vectors of one's own
    head.load_state_dict(trained.state_dict())
    trained.load_state_dict(state)  # trained vectors may start from any


# -- modules ---------------------------------------------------------------------------------------------------------


def small_module(**options: Any) -> ClassVectorModule:
    return ClassVectorModule(10, (1, 8, 8), lambda shape: MLP(shape, widths=(24, 16)), **options)


def trainer(folder: Path, **options: Any) -> Trainer:
    return Trainer(
        **{
            "max_epochs": 1,
            "limit_train_batches": 3,
            "default_root_dir": folder,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **options,
        }
    )


def test_defaults_are_the_papers_setting() -> None:
    module = small_module()
    head = module.head
    assert (head.similarity, head.fixed, float(head.scale), head.output.log_scale) == ("cosine", True, 1.0, None)
    assert module.hparams["similarity"] == "cosine" and module.hparams["seed"] == 0
    assert not any(name.startswith("head") for name, _ in module.named_parameters())


@pytest.mark.parametrize("options", [{}, {"similarity": "dot", "fixed": False}, {"embedding": 12, "learn_scale": True}])
def test_logged_cosines(tmp_path: Path, options: Any) -> None:
    module, data = small_module(**options), DigitsDataModule(batch_size=50, eval_batch_size=77)
    fit = trainer(tmp_path)
    fit.fit(module, data)
    assert 0 < float(fit.callback_metrics["val/cosine_predicted"]) <= 1
    fit.test(module, data, verbose=False)
    figures = {key: float(value) for key, value in fit.callback_metrics.items()}
    data.setup("test")
    module.eval()
    x, y = (torch.cat(parts) for parts in zip(*data.batches("test"), strict=True))
    output = module(x)
    received = output.features if "embedding" not in options else module.head.linears[0](output.features)
    cosines = F.cosine_similarity(received.double().unsqueeze(1), module.head.output.weight.double(), dim=2)
    rows = torch.arange(len(y))
    assert figures["test/cosine_own"] == pytest.approx(float(cosines[rows, y].mean().detach()), abs=1e-6)
    predicted = output.logits.argmax(dim=1)
    assert figures["test/cosine_predicted"] == pytest.approx(float(cosines[rows, predicted].mean().detach()), abs=1e-6)
    units = F.normalize(module.head.output.weight.detach(), dim=1)
    largest = float((units @ units.T - 2 * torch.eye(10)).max())
    assert figures["test/largest_class_cosine"] == pytest.approx(largest, abs=1e-5)
    assert ("test/scale" in figures) == bool(options.get("learn_scale"))


def test_heads_in_the_other_modules(tmp_path: Path) -> None:
    def head(features: int, classes: int) -> ClassVectorHead:
        return ClassVectorHead(features, classes)

    def backbone(shape: tuple[int, ...]) -> MLP:
        return MLP(shape, widths=(24, 16))

    vectors = head(16, 10).output.weight
    penalties = [ClasswiseVariance(weight=1.0, layer="features"), L2Weight(weight=1e-3, scope="all")]
    for module in (
        SupervisedModule(10, (1, 8, 8), backbone, head=head),
        RegularizedModule(10, (1, 8, 8), backbone, penalties, head=head),
    ):
        trainer(tmp_path).fit(module, DigitsDataModule(batch_size=50))
        assert torch.equal(module.head.output.weight, vectors)
    with pytest.raises(ConfigError, match="no trained weights"):
        RegularizedModule(10, (1, 8, 8), backbone, [L2Weight(weight=1e-3, layer="logits")], head=head)


def test_checkpoints_of_another_seed(tmp_path: Path) -> None:
    module, fit = small_module(), trainer(tmp_path)
    fit.fit(module, DigitsDataModule(batch_size=50))
    fit.save_checkpoint(tmp_path / "a.ckpt")
    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["hyper_parameters"]["scale"] == 1.0
    again = small_module()
    load_weights(again, tmp_path / "a.ckpt")
    assert torch.equal(again(draw(3, 1, 8, 8)).logits, module(draw(3, 1, 8, 8)).logits)
    with pytest.raises(CheckpointError, match=r"head\.output\.weight.*of seed 5, are not those of the checkpoint"):
        load_weights(small_module(seed=5), tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="checkpoint of another model"):
        load_weights(ClassVectorModule(10, (1, 8, 8), lambda shape: MLP(shape, widths=(24, 20))), tmp_path / "a.ckpt")


def test_metric_in_parts_and_in_low_precision() -> None:
    f, w, y, p = draw(50, 6), draw(4, 6, seed=2), torch.arange(50) % 4, torch.arange(50) % 3
    whole, parts = ClassCosines(), ClassCosines().half()
    whole.update(f, w, y, p)
    for rows in torch.arange(50).split(7):
        parts.update(f[rows], w, y[rows], p[rows])
    for name, value in whole.compute().items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(parts.compute()[name], value, rtol=1e-12, atol=1e-14)
    assert float(whole.compute()["cosine_own"]) == pytest.approx(
        float(F.cosine_similarity(f.double(), w.double()[y]).mean())
    )


def on_a_rank(rank: int, world_size: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    torch.manual_seed(100 + rank)  # ranks whose global generators differ
    body = nn.Linear(6, 8)
    model = nn.parallel.DistributedDataParallel(nn.Sequential(body, ClassVectorHead(8, 4)))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=0.1)
    x, y = draw(8, 6), torch.arange(8) % 4
    mine = slice(rank, None, world_size)
    F.cross_entropy(model(x[mine]), y[mine]).backward()
    optimizer.step()
    metric = ClassCosines()
    metric.update(x[mine], draw(4, 6, seed=2), y[mine], y[mine])
    return model.module[1].output.weight.clone(), body.weight.detach().clone(), metric.compute()


def test_ranks_hold_the_same_vectors(gloo: GlooPool) -> None:
    (first, weight, figures), (second, other, same) = gloo.run(on_a_rank)
    assert torch.equal(first, second) and torch.equal(first, ClassVectorHead(8, 4).output.weight)
    assert torch.equal(weight, other)
    alone = ClassCosines()
    alone.update(draw(8, 6), draw(4, 6, seed=2), torch.arange(8) % 4, torch.arange(8) % 4)
    assert figures == same
    assert float(figures["cosine_own"]) == pytest.approx(float(alone.compute()["cosine_own"]), abs=1e-14)


# -- analyses --------------------------------------------------------------------------------------------------------


def inputs(count: int = 300, classes: int = 5, width: int = 8, **options: Any) -> FeatureInputs:
    w = draw(classes, width, seed=3)
    y = torch.arange(count) % classes
    f = 0.7 * w[y] + draw(count, width, seed=4)
    options = {"weight": w, **options}
    return FeatureInputs({"test": Features(f, y, None)}, num_classes=classes, **options)


def test_similarity_analysis_against_scipy() -> None:
    given = inputs(class_names=["a", "b", "c", "d", "e"])
    found = ClassVectorSimilarity().compute(given)
    part, w = given.features("test"), given.weight
    assert w is not None
    predicted = (part.features @ w.T).argmax(dim=1)
    units = F.normalize(w.double(), dim=1)
    cosines, counts = [], []
    for i in range(5):
        for j in range(5):
            if i != j:
                cosines.append(round(float(units[i] @ units[j]), 12))
                counts.append(int(((part.labels == i) & (predicted == j)).sum()))
    assert sum(counts) > 30
    assert found.scalars["spearman"] == pytest.approx(scipy.stats.spearmanr(cosines, counts).statistic)
    assert found.scalars["largest_cosine"] == pytest.approx(max(cosines))
    assert found.scalars["mean_cosine"] == pytest.approx(np.mean(cosines))
    assert found.scalars["error"] == pytest.approx(sum(counts) / 300)
    wanted = F.cosine_similarity(part.features.double(), w.double()[predicted]).mean()
    assert found.scalars["cosine_predicted"] == pytest.approx(float(wanted))
    top = found.tables["most confused pairs"][0]
    assert top["samples"] == max(counts) and top["class"] in "abcde"
    assert set(found.figures) == {"", "confusions"} and found.arrays["confusions"].sum() == 300
    for draw_figure in found.figures.values():
        draw_figure()


def test_similarity_of_other_layers_absent_classes_and_errors() -> None:
    w = draw(5, 8, seed=3)
    other = FeatureInputs({"test": Features(draw(20, 3), torch.arange(20) % 2, draw(20, 5))}, weight=w)
    found = ClassVectorSimilarity().compute(other)
    assert "cosine_own" not in found.scalars and "spearman" in found.scalars
    assert any("receives other features" in note for note in found.notes)
    assert any("3 classes have no test samples" in note for note in found.notes)
    right = FeatureInputs({"test": Features(w.clone(), torch.arange(5), None)}, weight=w)
    perfect = ClassVectorSimilarity().compute(right)
    assert perfect.scalars["error"] == 0 and "spearman" not in perfect.scalars
    assert perfect.scalars["cosine_own"] == pytest.approx(1.0)
    perfect.figures["confusions"]()
    train = ClassVectorSimilarity().compute(FeatureInputs({"train": right.given["test"]}, weight=w))
    assert any("training set is shown" in note for note in train.notes)
    with pytest.raises(DataError, match="no model and no weight"):
        ClassVectorSimilarity().compute(FeatureInputs(right.given, num_classes=5))
    with pytest.raises(DataError, match="NaN"):
        ClassVectorSimilarity().compute(FeatureInputs(right.given, weight=w * torch.nan))


class Foreign(nn.Module):
    def __init__(self, cosine: bool) -> None:
        super().__init__()
        self.body = nn.Linear(6, 8)
        self.classifier = nn.Linear(8, 4, bias=not cosine)
        self.cosine = cosine

    def forward(self, x: Tensor) -> Tensor:
        f = self.body(x)
        return 16 * F.linear(F.normalize(f), F.normalize(self.classifier.weight)) if self.cosine else self.classifier(f)


@pytest.mark.parametrize("cosine", [True, False])
def test_foreign_models(cosine: bool) -> None:
    torch.manual_seed(0)
    model = Foreign(cosine)
    with torch.no_grad():
        model.classifier.weight.mul_(torch.tensor([[1.0], [9.0], [0.2], [3.0]]))
    loader = [(draw(60, 6), torch.arange(60) % 4)]
    given = ModelInputs(model, {"train": loader, "test": loader}, "body", num_classes=4)
    found = ClassVectorSimilarity().compute(given)
    vectors = given.class_vectors()
    assert vectors is not None and vectors.takes_features and vectors.cosine is cosine
    predicted = model(loader[0][0]).argmax(dim=1)
    assert found.scalars["error"] == pytest.approx(float((predicted != loader[0][1]).double().mean()))
    own = F.cosine_similarity(model.body(loader[0][0]), model.classifier.weight[loader[0][1]]).mean()
    assert found.scalars["cosine_own"] == pytest.approx(float(own), abs=1e-6)
    # the agreement with the nearest class mean counts the model's own predictions, so lengths only where they matter
    collapse = NeuralCollapse().compute(given).scalars
    features = model.body(loader[0][0]).detach().double()
    means = torch.stack([features[loader[0][1] == k].mean(dim=0) for k in range(4)])
    nearest = torch.cdist(features, means).argmin(dim=1)
    assert collapse["train_nc4"] == pytest.approx(float((nearest == predicted).double().mean()))
    named = ClassVectorSimilarity(head="classifier").compute(given)
    assert named.scalars == found.scalars
    elsewhere = ClassVectorSimilarity(head="body").compute(given)
    assert "cosine_own" not in elsewhere.scalars or elsewhere.scalars != found.scalars


@pytest.mark.parametrize("options", [{}, {"scale": 30.0}, {"similarity": "dot", "scale": 3.0}, {"fixed": False}])
def test_our_own_heads_are_recognised(options: Any) -> None:
    head = ClassVectorHead(8, 4, **options)
    f = draw(40, 8)
    found = find_class_vectors(head, 4, Features(f, torch.zeros(40, dtype=torch.int64), head(f).detach()))
    assert found is not None and found.takes_features and found.name == "output"
    assert found.cosine == (options.get("similarity") != "dot")
    strange = find_class_vectors(head, 4, Features(draw(40, 8, seed=9), torch.zeros(40).long(), head(f).detach()))
    assert strange is not None and not strange.takes_features


def test_tsne_is_deterministic_and_keeps_neighbours() -> None:
    y = torch.arange(90) % 3
    f = 20 * F.one_hot(y, 5).float() + draw(90, 5)
    given = FeatureInputs({"test": Features(f, y, None)}, class_names=["a", "b", "c"])
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = (TSNE(max_samples=60).compute(given) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state[0]) and (np.random.get_state()[1] == state[1]).all()
    np.testing.assert_array_equal(first.arrays["points"], second.arrays["points"])
    assert first.scalars == second.scalars and first.arrays["points"].shape == (60, 2)
    assert any("perplexity" in note for note in first.notes)
    points, labels = first.arrays["points"], first.arrays["point_labels"]
    apart = np.linalg.norm(points[:, None] - points[None], axis=2) + np.diag([np.inf] * 60)
    assert (labels[apart.argmin(axis=1)] == labels).all()
    other = FeatureInputs(given.given, class_names=["a", "b", "c"], seed=1)
    assert (TSNE(max_samples=60).compute(other).arrays["rows"] != first.arrays["rows"]).any()
    first.figures[""]()
    for f, message in ((torch.ones(20, 5), "same features"), (draw(20, 1), "2 features"), (draw(3, 5), "4 samples")):
        with pytest.raises(DataError, match=message):
            TSNE().compute(FeatureInputs({"test": Features(f, torch.arange(len(f)) % 2, None)}))
    with pytest.raises(ConfigError, match="perplexity"):
        TSNE(perplexity=0)
    with pytest.raises(ConfigError, match="max_samples"):
        TSNE(max_samples=3)


# -- command line ----------------------------------------------------------------------------------------------------


def test_fit_resume_and_analyze(capsys: pytest.CaptureFixture[str]) -> None:
    model = {"class_path": "ClassVectorModule", "init_args": {**SMALL, "seed": 3}}
    config = {"model": model, "data": {"class_path": "DigitsDataModule"}, "trainer": {"max_epochs": 2}}
    Path("cv.yaml").write_text(json.dumps(config))
    assert main(["fit", "--config", "cv.yaml", *QUIET, "--run_dir", "a"]) == 0
    assert main(["fit", "--config", "cv.yaml", *QUIET, "--run_dir", "b", "--trainer.max_epochs", "1"]) == 0
    resume = ["fit", "--run_dir", "b", "--ckpt_path", "last", "--config", "b/config.yaml"]
    assert main([*resume, "--trainer.max_epochs", "2", *QUIET]) == 0
    whole, resumed = (torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True) for run in "ab")
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name
    assert torch.equal(whole["state_dict"]["head.output.weight"], ClassVectorHead(16, 10, seed=3).output.weight)
    words = ["analyze", "--run_dir", "a", *QUIET, "--analyses", "class_vectors,tsne,collapse"]
    assert main([*words, "--tsne.max_samples", "80"]) == 0
    found = json.loads(Path("a/analysis/class_vectors.json").read_text())
    metrics = json.loads(Path("a/metrics.json").read_text())
    assert found["scalars"]["cosine_own"] == pytest.approx(metrics["test/cosine_own"], rel=1e-5)
    assert found["scalars"]["error"] == pytest.approx(metrics["test/error"])
    for name in ("class_vectors", "class_vectors-confusions", "tsne"):
        assert Path(f"a/analysis/{name}.png").is_file()
    assert "train_nc4" in json.loads(Path("a/analysis/collapse.json").read_text())["scalars"]
    capsys.readouterr()
    assert main(["test", "--run_dir", "a", *QUIET, "--model.seed", "4", "--ckpt_path", "none"]) == 0
    words = ["fit", "--config", "cv.yaml", "--init_from", "a/checkpoints/last.ckpt", "--model.seed", "4", *QUIET]
    assert main([*words, "--run_dir", "c"]) != 0
    assert "of seed 4, are not those of the checkpoint" in " ".join(capsys.readouterr().err.split())
    assert main(["fit", "--config", "cv.yaml", "--model.scale", "0", *QUIET, "--run_dir", "d"]) != 0
    assert "scale=0.0 must be a finite number above 0" in " ".join(capsys.readouterr().err.split())


def test_analyze_saved_features() -> None:
    given = inputs()
    part = given.features("test")
    save_features("f.npz", part, part)
    arrays = dict(np.load("f.npz"))
    np.savez("g.npz", **arrays, weight=given.weight.numpy())  # type: ignore[union-attr]
    words = ["analyze", "--features", "g.npz", "--run_dir", "r", "--analyses", "class_vectors,tsne"]
    assert main([*words, "--tsne.max_samples", "50", "--class_vectors.split", "train"]) == 0
    found = json.loads(Path("r/analysis/class_vectors.json").read_text())
    assert found["split"] == "train" and "spearman" in found["scalars"]
