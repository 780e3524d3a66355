"""Table 5 against slow transcriptions and hand-worked values."""

import math

import pytest
import torch
from torch import Tensor
from toy_features import layer

import lightning_repshape.functional.characteristics as characteristics
from lightning_repshape.functional import representation_characteristics


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def transcribed(z: Tensor, y: Tensor, classes: int, positive_only: bool) -> dict[str, float]:
    """Table 5 unit by unit and pair by pair, on two-pass statistics of the samples used."""
    z = z.double()
    units = z.shape[1]
    everywhere = torch.ones(len(z), dtype=torch.bool)

    def used(i: int, where: Tensor) -> Tensor:
        return where & (z[:, i] > 0) if positive_only else where

    def varies(x: Tensor) -> bool:
        return len(x) >= 2 and float(x.max()) > float(x.min())

    alive = [i for i in range(units) if varies(z[used(i, everywhere), i])]

    def pairs(where: Tensor) -> tuple[list[float], list[float]]:
        covariances, correlations = [], []
        for i in alive:
            for j in alive:
                rows = used(i, where) & used(j, where)
                if i == j or int(rows.sum()) < 2:
                    continue
                a, b = z[rows, i], z[rows, j]
                covariance = float(((a - a.mean()) * (b - b.mean())).mean())
                covariances.append(abs(covariance))
                if varies(a) and varies(b):
                    correlations.append(abs(covariance) / float(a.std(correction=0) * b.std(correction=0)))
        return covariances, correlations

    covariances, correlations = pairs(everywhere)
    by_class = [pairs(y == k)[1] for k in range(classes)]
    class_variances, normalized = [], []
    for i in alive:
        x = z[used(i, everywhere), i]
        for k in range(classes):
            part = z[used(i, y == k), i]
            if len(part) >= 2:
                class_variances.append(float(part.var(correction=0)))
                scaled = 10 * (part - x.min()) / (x.max() - x.min())
                normalized.append(float(scaled.var(correction=0)))
    all_pairs = units * (units - 1) // 2
    return {
        "amplitude": float(z[z > 0].mean()),
        "covariance": mean(covariances),
        "correlation": mean(correlations),
        "classwise_correlation": mean([mean(found) for found in by_class if found]),
        "classwise_correlation_all": sum(map(sum, by_class)) / 2 / (classes * all_pairs),
        "variance": mean([float(z[used(i, everywhere), i].var(correction=0)) for i in alive]),
        "normalized_classwise_variance": mean(normalized),
        "classwise_variance": mean(class_variances),
        "units_left_out": units - len(alive),
        "pairs_left_out": all_pairs - len(covariances) // 2,
        "correlations_left_out": all_pairs - len(correlations) // 2,
        "class_units_left_out": classes * units - len(normalized),
        "class_pairs_left_out": classes * all_pairs - sum(len(found) // 2 for found in by_class),
        "classes_left_out": sum(not found for found in by_class),
    }


def test_hand_worked_row() -> None:
    z = torch.tensor([[1.0, 2.0, 0.0], [3.0, 6.0, 0.0], [5.0, 0.0, 4.0], [0.0, 4.0, 0.0], [3.0, 8.0, 0.0]])
    y = torch.tensor([0, 0, 1, 1, 1])
    found = representation_characteristics(z, y, 2)
    # Unit 0 is positive on 1 3 5 3 (variance 2, range 4), unit 1 on 2 6 4 8 (variance 5, range 6), unit 2 on 4 alone.
    # Units 0 and 1 are both positive on (1, 2), (3, 6), (3, 8): means 7/3, 16/3; covariance
    # (-4/3 * -10/3 + 2/3 * 2/3 + 2/3 * 8/3) / 3 = (40 + 4 + 16) / 27 = 20/9; variances 8/9 and 56/9.
    # Class 0: (1, 2), (3, 6): correlation 1. Class 1: one joint sample (3, 8), none left.
    # Class-wise variances: class 0: 1 and 4; class 1: of 5, 3: 1, of 4, 8: 4. Scaled by (10/4)^2 and (10/6)^2.
    assert found.amplitude == pytest.approx((1 + 3 + 5 + 3 + 2 + 6 + 4 + 8 + 4) / 9)
    assert found.variance == pytest.approx((2 + 5) / 2)
    assert found.covariance == pytest.approx(20 / 9)
    assert found.correlation == pytest.approx((20 / 9) / math.sqrt(8 / 9 * 56 / 9))
    assert found.classwise_correlation == pytest.approx(1)
    assert found.classwise_variance == pytest.approx((1 + 4 + 1 + 4) / 4)
    assert found.normalized_classwise_variance == pytest.approx((6.25 + 4 * 100 / 36) / 2)
    assert found.classwise_correlation_all == pytest.approx(1 / 6)  # 1 of three pairs in two classes
    assert found[8:] == (1, 2, 2, 2, 5, 1)
    everything = representation_characteristics(z, y, 2, positive_only=False)
    assert everything.amplitude == found.amplitude
    assert everything.variance == pytest.approx(float(z.var(0, correction=0).mean()))
    assert everything.units_left_out == everything.pairs_left_out == 0


@pytest.mark.parametrize("positive_only", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_transcription(positive_only: bool, seed: int) -> None:
    z, y = layer(seed=seed)
    z[:, 1] = 0  # a dead unit
    z[:, 2] = 3  # one that never varies
    z[1:, 3] = 0  # one that is positive once
    z[:3, 4] = torch.tensor([1.0, 2.0, 2.0])
    z[3:, 4] = 0
    y[y == 3] = 2  # an absent class
    found = representation_characteristics(z, y, 4, positive_only)._asdict()
    assert found == pytest.approx(transcribed(z, y, 4, positive_only), rel=1e-10, nan_ok=True)


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    z, y = layer()
    expected = representation_characteristics(z, y, 4)
    for block in (5, 20):  # one sample, one unit at a time; two of them
        monkeypatch.setattr(characteristics, "_BLOCK", block)
        assert representation_characteristics(z, y, 4) == pytest.approx(expected, rel=1e-12)
    assert representation_characteristics(z.view(60, 7, 1), y.int(), 4) == pytest.approx(expected, rel=1e-12)


def test_far_from_the_origin() -> None:
    z, y = layer()
    z = z.double() + 0.5
    near, far = (representation_characteristics(z + offset, y, 4) for offset in (0.0, 1e6))
    assert far[1:] == pytest.approx(near[1:], rel=1e-8)


def test_nothing_left() -> None:
    found = representation_characteristics(torch.zeros(4, 3), torch.tensor([0, 0, 1, 1]), 2)
    assert found.classwise_correlation_all == 0
    assert all(math.isnan(value) for value in (*found[:4], *found[5:8]))
    assert found[8:] == (3, 3, 3, 6, 6, 2)
    single = representation_characteristics(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 0]), 1)
    assert single.variance == 0.25
    assert math.isnan(single.covariance)


def test_bad_input_of_characteristics() -> None:
    z, y = layer()
    with pytest.raises(TypeError, match="floating point"):
        representation_characteristics(z.long(), y, 4)
    with pytest.raises(TypeError, match="integer labels"):
        representation_characteristics(z, torch.rand(60, 4), 4)
    with pytest.raises(ValueError, match="labels must lie in"):
        representation_characteristics(z, y, 2)
    with pytest.raises(ValueError, match="shape"):
        representation_characteristics(z[:0], y[:0], 4)
    with pytest.raises(ValueError, match="finite"):
        representation_characteristics(z / 0, y, 4)
