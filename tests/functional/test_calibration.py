"""Calibration: against torchmetrics, SciPy and the definitions written out."""

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from lightning_repshape.functional.calibration import (
    area_under_risk_coverage,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    risk_coverage,
)


def outputs(scale: float = 1.0, count: int = 800, classes: int = 5) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(count, classes, generator=stream)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=stream).flatten()
    return scale * logits, labels


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_error_is_torchmetrics(bins: int) -> None:
    logits, labels = outputs(3.0)
    wanted = multiclass_calibration_error(logits.double().softmax(dim=1), labels, num_classes=5, n_bins=bins)
    assert float(expected_calibration_error(logits, labels, bins)) == pytest.approx(float(wanted), abs=1e-6)


@pytest.mark.parametrize("scale", [0.05, 1.0, 3.0, 40.0])
def test_the_temperature_is_that_of_a_line_search(scale: float) -> None:
    logits, labels = outputs(scale)
    found = fit_temperature(logits, labels)
    peer = minimize_scalar(
        lambda inverse: float(F.cross_entropy(inverse * logits.double(), labels)), bounds=(1e-3, 100), method="bounded",
        options={"xatol": 1e-12},
    )  # fmt: skip
    assert found == pytest.approx(1 / peer.x, rel=1e-4)
    assert found == pytest.approx(scale, rel=0.15)  # labels were drawn at scale 1
    before, after = (float(negative_log_likelihood(logits / t, labels.int())) for t in (1.0, found))
    assert after <= before
    assert fit_temperature(logits / found, labels) == pytest.approx(1.0, abs=1e-6)


def test_temperatures_at_the_ends() -> None:
    right = torch.eye(3)
    assert fit_temperature(right, torch.arange(3)) == pytest.approx(1e-3)  # all right: ever more confident
    assert fit_temperature(right, (torch.arange(3) + 1) % 3) == pytest.approx(1e3)  # all wrong: never
    assert fit_temperature(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)) == 1  # nothing to say


def test_risk_against_coverage_by_hand() -> None:
    confidence = torch.tensor([0.9, 0.5, 0.8, 0.5])
    wrong = torch.tensor([False, True, True, False])
    curve = risk_coverage(confidence, wrong)  # of the two at 0.5 half is wrong, whichever comes first
    torch.testing.assert_close(curve, torch.tensor([0, 1 / 2, 1.5 / 3, 2 / 4]).double())
    assert float(area_under_risk_coverage(confidence, wrong)) == pytest.approx(1.5 / 4)
    same = torch.full((4,), 0.3)
    assert float(area_under_risk_coverage(same, wrong)) == pytest.approx(0.5)  # says nothing: the error


def test_risk_against_coverage_is_the_sum_written_out() -> None:
    stream = torch.Generator().manual_seed(1)
    confidence, wrong = torch.rand(300, generator=stream), torch.rand(300, generator=stream) < 0.3
    order = sorted(range(300), key=lambda place: -float(confidence[place]))
    total, area = 0, 0.0
    for count, place in enumerate(order, 1):
        total += bool(wrong[place])
        area += total / count / 300
    assert float(area_under_risk_coverage(confidence, wrong)) == pytest.approx(area)


def test_bad_arguments_are_refused() -> None:
    logits, labels = outputs()
    nan = logits.clone()
    nan[2, 1] = torch.nan
    for call, words in (
        (lambda: fit_temperature(nan, labels), "finite"),
        (lambda: fit_temperature(logits, labels + 1), "labels must lie in"),
        (lambda: expected_calibration_error(logits, labels[:3]), "rows"),
        (lambda: expected_calibration_error(logits, labels, 0), "bins"),
        (lambda: risk_coverage(nan[:, 1], labels > 0), "NaN"),
        (lambda: risk_coverage(logits[:, 1], labels[:3] > 0), "need N"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(TypeError, match="booleans"):
        risk_coverage(logits[:, 0], labels)
