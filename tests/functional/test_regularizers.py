"""Regularizers against float64 transcriptions, printed gradients, hand-worked values, and themselves in parts."""

import doctest
import importlib
import json
import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from ddp_pool import GlooPool
from torch import Tensor, nn
from torch.nn import functional as F

import lightning_repshape.functional.regularizer_kernels as kernels
import lightning_repshape.functional.regularizers as functions
import lightning_repshape.regularizers as faces
from lightning_repshape.errors import ConfigError
from lightning_repshape.functional import cr, cw_cr, cw_vr, l1r, l1w, l2w, vr
from lightning_repshape.regularizers import (
    ClasswiseCovariance,
    ClasswiseVariance,
    Covariance,
    L1Representation,
    L1Weight,
    L2Weight,
    Variance,
)

FORMS = [kernels.class_covariance_masked, kernels.class_covariance_bins, kernels.class_covariance_loop]
SIZES = [(12, 5, 3), (6, 20, 4), (5, 4, 9), (40, 3, 2), (3, 2, 1), (70, 6, 2)]  # N, I, K


def data(
    samples: int, units: int, classes: int, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(samples, units, generator=generator, dtype=torch.float64).to(dtype)
    y = torch.randint(0, max(1, classes - 1), (samples,), generator=generator)  # the last class is always absent
    return z + 1, y


def weights_of(y: Tensor, classes: int) -> Tensor:
    return y.double() if y.is_floating_point() else F.one_hot(y, classes).double()


def transcribed(z: Tensor, y: Tensor, classes: int, kind: str) -> Tensor:
    """The definitions with explicit loops over classes and pairs."""
    units = z.shape[1]
    total = z.new_zeros(())
    for p in weights_of(y, classes).T:
        n = p.sum()
        if n == 0:
            continue
        mean = sum(p[a] * z[a] for a in range(len(z))) / n
        for i in range(units):
            if kind == "variance":
                v = sum(p[a] * (z[a, i] - mean[i]) ** 2 for a in range(len(z))) / n
                total = total + v / (classes * units)
                continue
            for j in range(i + 1, units):
                c = (p * (z[:, i] - mean[i]) * (z[:, j] - mean[j])).sum() / n
                total = total + 2 * c**2 / (classes * units * (units - 1))
    return total


def gradient(function: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    z = z.detach().clone().requires_grad_()
    value = function(z)
    return value.detach(), torch.autograd.grad(value, z)[0]


def assert_same(
    one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], z: Tensor, tol: float = 1e-11
) -> None:
    (value, grad), (value2, grad2) = gradient(one, z), gradient(other, z)
    torch.testing.assert_close(value, value2, rtol=tol, atol=tol)
    torch.testing.assert_close(grad, grad2, rtol=tol, atol=tol)


# ------------------------------------------------------------------------------------------------------------- values


def test_hand_worked_values() -> None:
    z = torch.tensor([[1.0, 0.0], [3.0, 4.0], [5.0, 1.0], [5.0, 3.0]], dtype=torch.float64)
    y = torch.tensor([0, 0, 1, 1])
    # Class 0: means 2, 2; variances 1, 4; covariance 2. Class 1: means 5, 2; variances 0, 1; covariance 0.
    # All: means 3.5, 2; variances 11/4, 5/2; covariance (-2.5*-2 + -.5*2 + 1.5*-1 + 1.5*1) / 4 = 1.
    assert float(vr(z)) == pytest.approx((2.75 + 2.5) / 2)
    assert float(cw_vr(z, y, 2)) == pytest.approx((1 + 4 + 0 + 1) / 4)
    assert float(cw_vr(z, y, 3)) == pytest.approx((1 + 4 + 0 + 1) / 6)  # an absent class counts
    assert float(cr(z)) == pytest.approx(1.0)
    assert float(cw_cr(z, y, 2)) == pytest.approx(4 / 2)
    assert float(cw_cr(z, y, 4)) == pytest.approx(4 / 4)
    assert float(l1r(-z)) == pytest.approx(22 / 8)
    assert float(l1w([z, -z])) == pytest.approx(44.0)
    assert float(l2w(z)) == pytest.approx(1 + 9 + 16 + 25 + 1 + 25 + 9)


def test_single_samples_and_absent_classes_count_nothing() -> None:
    z = torch.randn(4, 3, requires_grad=True)
    for function in (cw_vr, cw_cr):
        value = function(z, torch.arange(4), 6)
        assert float(value.detach()) == 0
        assert torch.equal(torch.autograd.grad(value, z)[0], torch.zeros(4, 3))
    assert float(vr(z[:1]).detach()) == 0
    assert float(cr(z[:1]).detach()) == 0


@pytest.mark.parametrize(("samples", "units", "classes"), SIZES)
def test_transcription(samples: int, units: int, classes: int) -> None:
    z, y = data(samples, units, classes)
    everything = torch.zeros(samples, dtype=torch.int64)
    assert_same(vr, lambda z: transcribed(z, everything, 1, "variance"), z)
    assert_same(lambda z: cw_vr(z, y, classes), lambda z: transcribed(z, y, classes, "variance"), z)
    assert_same(cr, lambda z: transcribed(z, everything, 1, "covariance"), z)
    assert_same(lambda z: cw_cr(z, y, classes), lambda z: transcribed(z, y, classes, "covariance"), z)
    assert_same(l1r, lambda z: z.abs().sum() / z.numel(), z)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@pytest.mark.parametrize(("samples", "units", "classes"), SIZES)
def test_every_form_of_class_covariance(form: Callable[..., object], samples: int, units: int, classes: int) -> None:
    z, y = data(samples, units, classes, seed=1)
    kernel = partial(form, labels=y, num_classes=classes)
    assert_same(lambda z: kernels.differentiable(z, kernel, 1.0), lambda z: transcribed(z, y, classes, "covariance"), z)


@pytest.mark.parametrize(("samples", "units", "classes"), [(8, 3, 3), (5, 9, 4)])
def test_soft_labels(samples: int, units: int, classes: int) -> None:
    z, _ = data(samples, units, classes)
    soft = torch.rand(samples, classes, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    soft[:, 1] = 0
    soft[soft < 0.3] = 0
    assert_same(lambda z: cw_vr(z, soft, classes), lambda z: transcribed(z, soft, classes, "variance"), z)
    assert_same(lambda z: cw_cr(z, soft, classes), lambda z: transcribed(z, soft, classes, "covariance"), z)
    z, y = data(samples, units, classes)
    hard = F.one_hot(y, classes).float()
    assert_same(lambda z: cw_vr(z, hard, classes), lambda z: cw_vr(z, y, classes), z)
    assert_same(lambda z: cw_cr(z, hard, classes), lambda z: cw_cr(z, y, classes), z)


def test_large_sizes_choose_other_forms() -> None:
    chosen = set()
    for samples, units, classes in [(20, 10, 3), (400, 128, 80), (3000, 8, 2)]:
        z, y = data(samples, units, classes)
        form = kernels.choose_class_covariance(z, y, classes)
        chosen.add(form)
        reference = kernels.class_covariance_masked if form in FORMS[1:] else kernels.class_covariance_loop
        kernel = partial(reference, labels=y, num_classes=classes)
        assert_same(lambda z, y=y, k=classes: cw_cr(z, y, k), lambda z, f=kernel: kernels.differentiable(z, f, 1.0), z)
    assert chosen == set(FORMS)


# ---------------------------------------------------------------------------------------------------------- gradients


def test_printed_gradients() -> None:
    """Table 1's right column, index by index."""
    z, y = data(9, 4, 3)
    n, units, classes = 9, 4, 3
    mu = z.mean(0)
    covariance = (z - mu).T @ (z - mu) / n
    expected_vr = 2 * (z - mu) / (n * units)
    expected_cr = torch.zeros_like(z)
    expected_cw_vr, expected_cw_cr = torch.zeros_like(z), torch.zeros_like(z)
    for a in range(n):
        members = z[y == y[a]]
        n_k, mu_k = len(members), members.mean(0)
        covariance_k = (members - mu_k).T @ (members - mu_k) / n_k
        expected_cw_vr[a] = 2 / (classes * units * n_k) * (z[a] - mu_k)
        for i in range(units):
            for j in set(range(units)) - {i}:
                expected_cr[a, i] += 4 / (n * units * (units - 1)) * covariance[i, j] * (z[a, j] - mu[j])
                step = 4 / (classes * units * (units - 1) * n_k) * covariance_k[i, j] * (z[a, j] - mu_k[j])
                expected_cw_cr[a, i] += step
    for function, expected in (
        (vr, expected_vr),
        (lambda z: cw_vr(z, y, classes), expected_cw_vr),
        (cr, expected_cr),
        (lambda z: cw_cr(z, y, classes), expected_cw_cr),
    ):
        torch.testing.assert_close(gradient(function, z)[1], expected, rtol=1e-12, atol=1e-14)


def test_gradcheck() -> None:
    z, y = data(7, 4, 3)
    z.requires_grad_()
    soft = torch.rand(7, 3, dtype=torch.float64)
    for function in (
        vr,
        cr,
        l1r,
        lambda z: cw_vr(z, y, 3),
        lambda z: cw_cr(z, y, 3),
        lambda z: cw_cr(z, soft, 3, scale=0.3),
        lambda z: cw_vr(z.view(7, 2, 2), y, 3, positions="samples"),
        lambda z: cw_cr(z.view(7, 2, 2), y, 3, positions="samples"),
    ):
        assert torch.autograd.gradcheck(function, (z,))


def test_gradients_scale_accumulate_and_repeat() -> None:
    z, y = data(10, 6, 3)
    grad = gradient(lambda z: cw_cr(z, y, 3), z)[1]
    torch.testing.assert_close(gradient(lambda z: 3 * cw_cr(z, y, 3), z)[1], 3 * grad)
    torch.testing.assert_close(gradient(lambda z: cw_cr(z, y, 3, scale=3), z)[1], 3 * grad)
    z.requires_grad_()
    value = cw_cr(z, y, 3)
    value.backward(retain_graph=True)
    value.backward()
    torch.testing.assert_close(z.grad, 2 * grad)


@pytest.mark.parametrize("function", [vr, cr, lambda z: cw_vr(z, torch.tensor([0, 1, 1]), 2)])
def test_differentiating_twice_is_refused(function: Callable[[Tensor], Tensor]) -> None:
    z = torch.randn(3, 4, requires_grad=True)
    (first,) = torch.autograd.grad(function(z), z, create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        first.sum().backward()


def test_in_place_changes_of_the_activations_do_not_matter() -> None:
    z, y = data(10, 6, 3)
    expected = gradient(lambda z: cw_cr(z, y, 3) + cw_vr(z, y, 3) + vr(z), z)[1]
    leaf = z.clone().requires_grad_()
    activations = leaf * 1
    value = cw_cr(activations, y, 3) + cw_vr(activations, y, 3) + vr(activations)
    activations.relu_()
    torch.testing.assert_close(torch.autograd.grad(value, leaf)[0], expected)


# -------------------------------------------------------------------------------------------------------- invariances


@pytest.mark.parametrize("samples", [9, 120])
def test_invariances(samples: int) -> None:
    z, y = data(samples, 5, 4)
    order, units = torch.randperm(samples), torch.randperm(5)
    renamed = torch.tensor([2, 0, 3, 1])[y]
    offsets = torch.randn(4, 5, dtype=torch.float64)
    for function in (cw_vr, cw_cr):
        value = function(z, y, 4)
        for z2, y2 in ((z[order], y[order]), (z[:, units], y), (z, renamed), (z + offsets[y], y)):
            torch.testing.assert_close(function(z2, y2, 4), value)
        torch.testing.assert_close(function(z, torch.zeros_like(y), 1), {cw_vr: vr, cw_cr: cr}[function](z))
    for function in (vr, cr):
        torch.testing.assert_close(function(z[order][:, units] + 5), function(z))
    torch.testing.assert_close(vr(3 * z), 9 * vr(z))
    torch.testing.assert_close(cw_cr(3 * z, y, 4), 81 * cw_cr(z, y, 4))


def test_far_from_the_origin_in_float32() -> None:
    z, y = data(200, 16, 4, dtype=torch.float32)
    z = (z * 64).round() / 64 + 1024  # exact in float32
    for function in (vr, cr, lambda z: cw_vr(z, y, 4), lambda z: cw_cr(z, y, 4)):
        torch.testing.assert_close(function(z).double(), function(z.double()), rtol=1e-4, atol=1e-8)


# -------------------------------------------------------------------------------------------- shapes, types, precision


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_convolutional_activations(memory_format: torch.memory_format) -> None:
    z = torch.randn(8, 3, 4, 5, dtype=torch.float64).contiguous(memory_format=memory_format)
    y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0])
    as_samples = lambda z: z.movedim(1, -1).reshape(-1, 3)  # noqa: E731
    repeated = y.repeat_interleave(20)
    assert_same(vr, lambda z: vr(z.flatten(1)), z)
    assert_same(cr, lambda z: cr(z.flatten(1)), z)
    assert_same(lambda z: cw_vr(z, y, 3), lambda z: cw_vr(z.flatten(1), y, 3), z)
    assert_same(lambda z: cw_cr(z, y, 3), lambda z: cw_cr(z.flatten(1), y, 3), z)
    assert_same(lambda z: vr(z, positions="samples"), lambda z: vr(as_samples(z)), z)
    assert_same(lambda z: cr(z, positions="samples"), lambda z: cr(as_samples(z)), z)
    assert_same(lambda z: cw_vr(z, y, 3, positions="samples"), lambda z: cw_vr(as_samples(z), repeated, 3), z)
    assert_same(lambda z: cw_cr(z, y, 3, positions="samples"), lambda z: cw_cr(as_samples(z), repeated, 3), z)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    z, y = data(30, 8, 3)
    z = z.to(dtype)
    for function in (vr, cr, l1r, lambda z: cw_vr(z, y, 3), lambda z: cw_cr(z, y, 3)):
        value, grad = gradient(function, z)
        value32, grad32 = gradient(function, z.float())
        assert value.dtype == torch.float32
        assert grad.dtype == dtype
        assert torch.equal(value, value32)
        assert torch.equal(grad, grad32.to(dtype))


def test_autocast_changes_nothing() -> None:
    z, y = data(30, 8, 3, dtype=torch.float32)
    for function in (vr, cr, lambda z: cw_vr(z, y, 3), lambda z: cw_cr(z, y, 3)):
        expected = gradient(function, z)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = gradient(function, z)
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_reduced_matmul_precision_does_not_shift_means() -> None:
    z, y = data(60, 8, 3, dtype=torch.float32)
    expected = gradient(lambda z: cw_vr(z + 100, y, 3), z)
    torch.set_float32_matmul_precision("medium")
    try:
        found = gradient(lambda z: cw_vr(z + 100, y, 3), z)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_label_types() -> None:
    z, y = data(12, 4, 3)
    for dtype in (torch.int32, torch.int16, torch.uint8):
        assert torch.equal(cw_vr(z, y.to(dtype), 3), cw_vr(z, y, 3))
        assert torch.equal(cw_cr(z, y.to(dtype), 3), cw_cr(z, y, 3))


def test_no_gradient_wanted() -> None:
    z, y = data(12, 4, 3)
    assert not cw_cr(z, y, 3).requires_grad
    with torch.no_grad():
        assert not cw_vr(z.requires_grad_(), y, 3).requires_grad


def test_many_more_classes_than_samples() -> None:
    z, y = data(20, 6, 10_000)
    y[:10] = y[10:]
    for function in (cw_vr, cw_cr):
        expected = function(z, torch.unique(y, return_inverse=True)[1], 20) * 20 / 10_000
        torch.testing.assert_close(function(z, y, 10_000), expected)


# ---------------------------------------------------------------------------------------------------------- bad input


def test_bad_input_of_functions() -> None:
    z, y = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    for function in (vr, cr, l1r):
        with pytest.raises(TypeError, match="floating point"):
            function(torch.ones(4, 3, dtype=torch.int64))
        with pytest.raises(ValueError, match="shape"):
            function(torch.ones(4))
        with pytest.raises(ValueError, match="empty"):
            function(torch.ones(0, 3))
    with pytest.raises(ValueError, match="two units"):
        cr(z[:, :1])
    with pytest.raises(ValueError, match="positions"):
        vr(z, positions="pixels")  # type: ignore[arg-type]
    for function in (cw_vr, cw_cr):
        for big in (z, torch.randn(4, 300_000)):  # both sides of the choice of a form
            for wrong in (torch.tensor([0, 1, 2, 0]), torch.tensor([0, -1, 1, 0])):
                with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1 for 2 classes"):
                    function(big, wrong, 2)
        with pytest.raises(ValueError, match=r"labels must lie in 0\.\.9"):
            function(z, torch.tensor([0, 1, 2, 10]), 10)
        with pytest.raises(ValueError, match="labels"):
            function(z, None, 2)
        with pytest.raises(ValueError, match="shape"):
            function(z, y[:3], 2)
        with pytest.raises(ValueError, match="shape"):
            function(z, torch.rand(4, 3), 2)
        with pytest.raises(ValueError, match="not negative"):
            function(z, torch.tensor([[1.0, -1.0]] * 4), 2)
        with pytest.raises(TypeError, match="labels must be integers"):
            function(z, y.bool(), 2)
        with pytest.raises(TypeError, match="floating point"):
            function(z.long(), y, 2)
        with pytest.raises(TypeError, match="num_classes"):
            function(z, y, 2.0)
        with pytest.raises(ValueError, match="num_classes"):
            function(z, y, 0)
    with pytest.raises(ValueError, match="two units"):
        cw_cr(z[:, :1], y, 2)
    with pytest.raises(ValueError, match="no weights"):
        l1w([])
    with pytest.raises(TypeError, match="floating-point"):
        l2w(torch.ones(2, dtype=torch.int64))


def test_bad_options_of_modules() -> None:
    for face in (Variance, ClasswiseVariance, Covariance, ClasswiseCovariance, L1Representation, L1Weight, L2Weight):
        for weight in (-0.1, float("nan"), float("inf"), "1", None, True):
            with pytest.raises(ConfigError, match="weight"):
                face(weight)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="warmup_epochs"):
            face(1.0, warmup_epochs=-1)
        with pytest.raises(ConfigError, match="layer"):
            face(1.0, layer="")
    with pytest.raises(ConfigError, match="positions"):
        Variance(1.0, positions="pixels")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="num_classes"):
        ClasswiseVariance(1.0, num_classes=0)
    with pytest.raises(ConfigError, match="scope"):
        L1Weight(1.0, scope="some")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no trained weights"):
        L1Weight.weights_of(nn.ReLU())


def test_bad_calls_of_modules_name_the_layer() -> None:
    z = torch.randn(4, 3)
    with pytest.raises(ConfigError, match=r"ClasswiseVariance on layer 'fc1' needs labels"):
        ClasswiseVariance(1.0, "fc1", num_classes=2)(z)
    with pytest.raises(ConfigError, match="number of classes"):
        ClasswiseCovariance(1.0)(z, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ConfigError, match=r"'fc1'.*labels must lie"):
        ClasswiseVariance(1.0, "fc1")(z, torch.tensor([0, 1, 2, 3]), num_classes=3)
    with pytest.raises(ConfigError, match=r"'fc1'.*two units"):
        Covariance(1.0, "fc1")(z[:, :1])
    with pytest.raises(ConfigError, match=r"'fc1'.*floating point"):
        Variance(1.0, "fc1")(z.long())


# ------------------------------------------------------------------------------------------------------------ modules


def test_modules_are_weight_times_function() -> None:
    z, y = data(12, 4, 3)
    for face, expected in (
        (Variance(0.5), vr(z)),
        (ClasswiseVariance(0.5, num_classes=3), cw_vr(z, y, 3)),
        (Covariance(0.5), cr(z)),
        (ClasswiseCovariance(0.5, num_classes=3), cw_cr(z, y, 3)),
        (L1Representation(0.5), l1r(z)),
    ):
        torch.testing.assert_close(face(z, y), expected / 2)
        torch.testing.assert_close(face.value(z, y), expected)
        torch.testing.assert_close(face.value(z, y, 3), expected)
        assert face.needs_labels == isinstance(face, ClasswiseVariance | ClasswiseCovariance)
        assert not list(face.parameters())
        assert not face.state_dict()
    torch.testing.assert_close(L1Weight(0.5)(z), l1w(z) / 2)
    torch.testing.assert_close(L2Weight(0.5)([z, z]), l2w(z))


def test_warm_up() -> None:
    z, _ = data(12, 4, 3)
    face = Variance(0.5, warmup_epochs=4)
    assert [face.weight_at(epoch) for epoch in (0, 1, 2.5, 4, 10)] == [0.0, 0.125, 0.3125, 0.5, 0.5]
    assert face.weight_at() == 0.5
    torch.testing.assert_close(face(z, epoch=1), 0.125 * vr(z))
    assert L2Weight(1.0).weight_at(0) == 1.0
    assert float(L2Weight(1.0, warmup_epochs=2)(z, epoch=1)) == pytest.approx(float(l2w(z)) / 2)


def test_weights_of_a_module() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    assert [tuple(weight.shape) for weight in L1Weight.weights_of(net)] == [(4, 3, 3, 3), (2, 4)]
    assert [tuple(weight.shape) for weight in L1Weight.weights_of(net[3])] == [(2, 4)]


def test_rare_classes_are_warned_of_once() -> None:
    face = ClasswiseVariance(1.0, num_classes=100)
    z, y = torch.randn(20, 3), torch.arange(20)
    with pytest.warns(UserWarning, match=r"batch of 20 holds 20\.0 of 100 classes on average, 1\.0 samples each"):
        for _ in range(10):
            face(z, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        face(z, y)
        plenty = ClasswiseVariance(1.0, num_classes=4)
        for _ in range(12):
            plenty(z, y % 4)


def test_a_plain_loop_learns_compact_classes() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(60, 10), torch.arange(60) % 3
    spread = {}
    for weight in (0.0, 3.0):
        torch.manual_seed(1)
        body, head = nn.Sequential(nn.Linear(10, 16), nn.ReLU()), nn.Linear(16, 3)
        penalty = ClasswiseVariance(weight, num_classes=3)
        optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=0.01)
        for _ in range(60):
            features = body(x)
            loss = F.cross_entropy(head(features), y) + penalty(features, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        spread[weight] = float(cw_vr(body(x), y, 3))
    assert spread[3.0] < 0.3 * spread[0.0]


@pytest.mark.parametrize("module", [functions, faces])
def test_examples_in_docstrings(module: object) -> None:
    failed, attempted = doctest.testmod(module, extraglobs={"torch": torch})  # type: ignore[arg-type]
    assert attempted > 0
    assert failed == 0


def test_examples_in_the_guide(capsys: pytest.CaptureFixture[str]) -> None:
    guide = Path(__file__).parents[2] / "docs" / "regularizers.md"
    blocks = re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, str(guide), "exec"), {})
    spread = float(capsys.readouterr().out.rpartition(": ")[2])
    assert 0 < spread < 0.5


# ------------------------------------------------------------------------------------------------ a script of the guide


@pytest.fixture
def layers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that chooses weights; nothing is trained."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "docs" / "examples"))
    return importlib.import_module("layer_dependency")


def curves(values: dict[str, list[float]], calls: list[tuple[str, list[str]]]) -> Callable[..., dict[str, float]]:
    """Stands in for a training: writes the validation curve of the weight in the folder's name."""

    def train(run: Path, words: list[str], seed: int, wanted: str = "test/error") -> dict[str, float]:
        calls.append((run.name, words))
        run.mkdir(parents=True, exist_ok=True)
        curve = next((curve for mark, curve in values.items() if mark in run.name), [0.5])
        rows = [f"{number},{value}," for number, value in enumerate(curve)]
        (run / "metrics.csv").write_text("\n".join(["epoch,val/error,other", *rows, "9,,1.0"]) + "\n", encoding="utf-8")
        return {"val/error": curve[-1], "test/error": min(curve)}

    return train


def test_weights_are_chosen_by_the_checkpoint_that_is_tested(
    layers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the last error is least with 1, that of the best checkpoint with 10
    monkeypatch.setattr(layers, "train", curves({"vr-1-": [0.3, 0.2], "vr-10-": [0.1, 0.4]}, []))
    layers.main([str(tmp_path), "--layers", "fc1", "--penalties", "vr=1,vr=10", "--", "--config", "base/mnist-mlp"])
    found = json.loads((tmp_path / "layers.json").read_text(encoding="utf-8"))["penalties"]["vr"]["fc1"]
    assert found == {"weight": 10, "test_error_percent": [pytest.approx(10.0)]}


def test_what_cannot_be_trained_or_drawn_ends_in_a_message(
    layers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, end = str(tmp_path / "runs"), ["--", "--config", "base/mnist-mlp", "--data.root", str(tmp_path / "nowhere")]
    with pytest.raises(SystemExit) as stopped:
        layers.main([folder, "--layers", "fc1", "--penalties", "vr=much", *end])
    assert stopped.value.code == 2 and "WEIGHT a number" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        layers.main([folder, "--layers", "fc1", "--penalties", "vr=1", *end])
    assert stopped.value.code == 1 and "it did not come to a training" in capsys.readouterr().err
    # nothing was trained, so other options may follow
    monkeypatch.setattr(layers, "train", lambda run, words, seed: None)
    with pytest.raises(SystemExit, match="no training of the baseline finished"):
        layers.main([folder, "--layers", "fc1", "--penalties", "vr=1", "--", "--config", "base/mnist-mlp"])
    assert not list(tmp_path.rglob("*.png"))


def test_best_validation_without_a_curve(layers: ModuleType, tmp_path: Path) -> None:
    assert layers.best_validation(tmp_path, "val/error") is None
    state = {"BestCheckpoint": {"monitor": "val/error", "best_model_score": torch.tensor(0.25)}, "Other": {"a": 1}}
    (tmp_path / "checkpoints").mkdir()
    torch.save({"state_dict": {}, "callbacks": state}, tmp_path / "checkpoints" / "best.ckpt")
    assert layers.best_validation(tmp_path, "val/error") == 0.25
    assert layers.best_validation(tmp_path, "val/mse") is None


# ----------------------------------------------------------------------------------------------------- many processes


def shards(world_size: int, classes: int, units: int, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Uneven batches; rank 0 has class 0 alone, the last rank a single sample of a class that others lack."""
    found = []
    for rank in range(world_size):
        z, y = data(3 + 2 * rank, units, classes, seed=rank, dtype=dtype)
        if rank == 0:
            y = torch.zeros_like(y)
        if rank == world_size - 1:
            z, y = z[:4], y[:4]
            y[0] = classes - 1
        found.append((z, y))
    return found


def penalties(classes: int, soft: bool, sync: bool) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    if soft:
        return {
            "cw_vr": lambda z, y: cw_vr(z, y, classes, sync=sync),
            "cw_cr": lambda z, y: cw_cr(z, y, classes, sync=sync),
        }
    return {
        "vr": lambda z, y: vr(z, sync=sync),
        "cw_vr": lambda z, y: cw_vr(z, y, classes, sync=sync),
        "cr": lambda z, y: cr(z, sync=sync),
        "cw_cr": lambda z, y: cw_cr(z, y, classes, sync=sync),
        "l1r": lambda z, y: l1r(z, sync=sync),
    }


def soften(y: Tensor, classes: int) -> Tensor:
    return 0.8 * F.one_hot(y, classes).double() + 0.2 * F.one_hot((y + 1) % classes, classes).double()


def ranks_penalties(
    rank: int, world_size: int, cases: list[tuple[int, int, bool]]
) -> dict[object, tuple[Tensor, Tensor]]:
    found: dict[object, tuple[Tensor, Tensor]] = {}
    for units, classes, soft in cases:
        z, y = shards(world_size, classes, units, torch.float64)[rank]
        labels = soften(y, classes) if soft else y
        for name, function in penalties(classes, soft, sync=True).items():
            found[units, classes, soft, name] = gradient(lambda z, f=function, y=labels: f(z, y), z)
    return found


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_equal_one(gloo: GlooPool, world_size: int) -> None:
    """Values equal those of the joined batch, and gradients averaged over ranks equal its gradient."""
    cases = [(2, 3, False), (5, 3, False), (30, 4, False), (3, 3, True), (20, 3, True), (2, 2, False)]
    results = gloo.run(ranks_penalties, cases, world_size=world_size)
    for units, classes, soft in cases:
        parts = shards(world_size, classes, units, torch.float64)
        z, y = torch.cat([z for z, _ in parts]), torch.cat([y for _, y in parts])
        labels = soften(y, classes) if soft else y
        for name, function in penalties(classes, soft, sync=False).items():
            value, grad = gradient(lambda z, f=function, y=labels: f(z, y), z)
            for result in results:
                torch.testing.assert_close(result[units, classes, soft, name][0], value, rtol=1e-11, atol=1e-13)
            joined = torch.cat([result[units, classes, soft, name][1] for result in results]) / world_size
            torch.testing.assert_close(joined, grad, rtol=1e-10, atol=1e-13)


def network() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


def loss_of(net: nn.Module, body: nn.Module, x: Tensor, y: Tensor, faces: list[nn.Module]) -> Tensor:
    features: list[Tensor] = []
    handle = body.register_forward_hook(lambda _module, _args, output: features.append(output))
    loss = F.cross_entropy(net(x), y)
    handle.remove()
    for face in faces:
        loss = loss + face(features[0], y)
    return loss


def all_faces() -> list[nn.Module]:
    return [
        Variance(0.3),
        ClasswiseVariance(0.5, num_classes=4),
        Covariance(0.7),
        ClasswiseCovariance(0.9, num_classes=4),
        L1Representation(0.2),
    ]


def even_shards(world_size: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of one size (so that the mean loss is the mean of the ranks' losses) in float32, classes uneven."""
    return [
        (data(12, 6, 4, seed=rank, dtype=torch.float32)[0], torch.arange(12) % (rank + 1)) for rank in range(world_size)
    ]


def ranks_gradients(rank: int, world_size: int) -> tuple[list[Tensor], bool]:
    net = network()
    parallel = nn.parallel.DistributedDataParallel(net)
    x, y = even_shards(world_size)[rank]
    loss_of(parallel, net[1], x, y, all_faces()).backward()
    evaluating = ClasswiseVariance(1.0, num_classes=4).eval()
    features = net[1](net[0](x))
    local = rank != 0 or bool(torch.isclose(evaluating(features, y), cw_vr(features, y, 4)))  # rank 0 asks alone
    return [parameter.grad for parameter in net.parameters() if parameter.grad is not None], local


@pytest.mark.parametrize("world_size", [2, 4])
def test_data_parallel_training_equals_one_process(gloo: GlooPool, world_size: int) -> None:
    net = network()
    parts = even_shards(world_size)
    x, y = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
    loss_of(net, net[1], x, y, all_faces()).backward()
    for gradients, local in gloo.run(ranks_gradients, world_size=world_size):
        assert local
        for found, parameter in zip(gradients, net.parameters(), strict=True):
            torch.testing.assert_close(found, parameter.grad, rtol=1e-5, atol=1e-6)


def empty_rank(rank: int, world_size: int) -> list[Tensor]:
    z, y = data(8, 5, 3)
    z, y = (z, y) if rank == 0 else (z[:0], y[:0])
    return [vr(z, sync=True), cw_vr(z, y, 3, sync=True), cr(z, sync=True), cw_cr(z, y, 3, sync=True), l1r(z, sync=True)]


def test_a_process_without_samples(gloo: GlooPool) -> None:
    z, y = data(8, 5, 3)
    expected = [vr(z), cw_vr(z, y, 3), cr(z), cw_cr(z, y, 3), l1r(z)]
    for found in gloo.run(empty_rank, world_size=2):
        torch.testing.assert_close(torch.stack(found), torch.stack(expected))


def per_rank(rank: int, world_size: int) -> Tensor:
    z, y = shards(world_size, 3, 4, torch.float64)[rank]
    return ClasswiseVariance(1.0, num_classes=3, sync=False)(z, y)


def test_statistics_of_each_process_on_request(gloo: GlooPool) -> None:
    for found, (z, y) in zip(gloo.run(per_rank), shards(2, 3, 4, torch.float64), strict=True):
        torch.testing.assert_close(found, cw_vr(z, y, 3))


def failing(rank: int, world_size: int) -> None:
    if rank == 1:
        cw_vr(torch.randn(2, 2), torch.tensor([0, 9]), 2, sync=True)
    cw_vr(torch.randn(2, 2), torch.tensor([0, 1]), 2, sync=True)


def test_errors_of_one_process_come_back(gloo: GlooPool) -> None:
    with pytest.raises(RuntimeError, match=r"rank 1(.|\n)*labels must lie in 0\.\.1"):
        gloo.run(failing)
    assert len(gloo.run(per_rank)) == 2  # the pool has recovered
