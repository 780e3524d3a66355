"""Linear discriminant analysis of every class against the rest, all classes from one pass over the features.

Class-against-rest scatters share the total scatter S_T: S_W(c) = S_T - S_B(c), and S_B(c) has rank one. With n1 samples
in the class, n2 in the rest and d the difference of the two means, a = n1 n2 / n d^T S_T^{-1} d is the share of the
spread along the discriminant axis that lies between the two groups, and the largest eigenvalue of S_B v = lambda S_W v
is a / (1 - a): one factorisation of S_T serves all classes. FOCA (ICML 2019), section 4.3 and Table 1, shows class 1.

Features or scores that are not floating-point and labels that are no integers are a TypeError; shapes that do not fit,
labels out of range and values that are not finite a ValueError.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_repshape.functional.checks import check_class_indices, check_columns, check_features
from lightning_repshape.functional.numerics import chunks, eigh, float64_device, rounding, unit_rows
from lightning_repshape.functional.scatter import RoughScatterState, ScatterState, centered_columns

# A factor whose squared pivots (of columns with unit spread) stay above this leaves ten digits to the float64 solve.
_REGULAR = 1e-10
# And above this, a factor of float32 products is near enough for refinement to converge at once.
_NEARLY_REGULAR = 1e-5
# Spreads of columns that differ by more than this leave too few digits to say what their range is.
_ALIKE = 1e6
# An axis within the features' range whose scores differ by no more than this, relatively, is the same axis.
_AGREES = 1e-6
# A correction of this size, relative to what it corrects, leaves an error of about its square.
_NEARLY_SOLVED = 5e-5


class ClassVsRestLDA(NamedTuple):
    """What separates each class from all others, see :func:`class_vs_rest_lda`; NaN for a class without samples.

    Attributes:
        eigenvalues: Between-class over within-class scatter along the axis, K; infinite for a separated class.
        separated: Whether class and rest have no spread at all along the axis, K booleans.
        axes: Discriminant axes, K x D, of unit length, pointing from the rest to the class. Where the scatter is
            singular, the axis within its range.
        rank: Rank of the total scatter; D at most, N - 1 at most.
        constant_features: How many features never change; they are left out.
        counts: Samples of each class, K.
        mean: Mean of all features, D.
        normalized: Whether rows were scaled to unit length first; :meth:`scores` then does so too.
    """

    eigenvalues: Tensor
    separated: Tensor
    axes: Tensor
    rank: int
    constant_features: int
    counts: Tensor
    mean: Tensor
    normalized: bool

    def scores(self, features: Tensor) -> Tensor:
        """M x K float64 coordinates of features M x D along all axes; column k is high for class k.

        The features may be of any set; the origin is the mean of those that the analysis was made of.
        """
        check_features(features)
        check_columns(features, self.axes.shape[1], "the axes have")
        parts = chunks(features, self.normalized, self.axes.device)
        return torch.cat([(chunk - self.mean) @ self.axes.T for _, chunk in parts])


class ThresholdErrors(NamedTuple):
    """The best that one threshold on the axis of each class can do, see :func:`threshold_errors`.

    Attributes:
        errors: Smallest fraction of rows on the wrong side, K; NaN for classes without rows.
        thresholds: Scores above it count as the class, K; infinite where the best is to decide one way for all.
    """

    errors: Tensor
    thresholds: Tensor


def class_vs_rest_lda(features: Tensor, labels: Tensor, num_classes: int, normalize: bool = False) -> ClassVsRestLDA:
    """The largest eigenvalue of S_B v = lambda S_W v for every class against the rest, and its axis.

    S_B and S_W are sums over samples. The eigenvalue is infinite, and ``separated`` says so, where class and rest have
    no spread along the axis: where the classes have collapsed to points, and always where there are fewer samples than
    dimensions, for then some axis keeps them apart exactly.

    Exact to float64. From D = 512 on, the products run in float32 first and another pass takes their errors out, which
    saves nearly half of the time; features so nearly dependent that this does not settle are done again in float64.
    Memory: 24 D^2 bytes, twice that where the scatter is singular; some 16 N^2 where N <= D.

    Args:
        features: N x D, of any floating dtype; computed in float64 on their device.
        labels: N integers in 0 .. K - 1.
        num_classes: K.
        normalize: Scale every row to unit length first, as FOCA's Table 1 has it.

    Returns:
        Eigenvalues first, then flags, axes and rank.

    Raises:
        TypeError: Features are not floating-point, or labels not integers.
        ValueError: Fewer than two classes with samples, no feature that changes, labels out of range, values that are
            not finite, shapes that do not fit.
    """
    check_features(features)
    rows, width = features.shape
    check_class_indices(labels, rows, num_classes)
    if rows <= width:
        return _lda_from_few(features, labels, num_classes, normalize)
    # where the products take nearly all the time, half of it can be saved, unless the features are too nearly singular
    if width >= max(512, 40 * num_classes):
        refined = _lda_refined(features, labels, num_classes, normalize)
        if refined is not None:
            return refined
    return lda_from_scatter(ScatterState(width, num_classes, normalize=normalize).update(features, labels))


def lda_from_scatter(state: ScatterState) -> ClassVsRestLDA:
    """The same from an accumulated state, see :func:`class_vs_rest_lda`.

    Args:
        state: Counts, class sums and total scatter of K >= 2 classes.

    Returns:
        Eigenvalues first, then flags, axes and rank.

    Raises:
        ValueError: Fewer than two classes with samples, or no feature that changes.
    """
    scatter, scale, varying = _scaled_scatter(state)
    right = (_differences(state)[:, varying] * scale).T
    factor, info = torch.linalg.cholesky_ex(scatter)
    if int(info) == 0 and float(factor.diagonal().min()) ** 2 > _REGULAR:
        rank = scatter.shape[0]
        half = torch.linalg.solve_triangular(factor, right, upper=False)
        solution = torch.linalg.solve_triangular(factor.T, half, upper=True)
        axes = solution.T * scale
    else:
        del factor
        values, vectors = eigh(scatter)
        kept = values > rounding(len(values)) * values[-1]
        values, vectors, rank = values[kept].unsqueeze(1), vectors[:, kept], int(kept.sum())
        half = (vectors.T @ right) / values.sqrt()
        solution = vectors @ (half / values.sqrt())
        axes = solution.T * scale
        if float(scale.max()) <= _ALIKE * float(scale.min()):
            # of all axes that agree on these rows, the one that ignores directions in which they never vary
            span = torch.linalg.qr(vectors / scale.unsqueeze(1)).Q
            axes = (axes @ span) @ span.T
    share = _weights(state) * half.square().sum(dim=0)
    # how far rounding in the scatter can move the share, to first order: x^T dS x for S x = d
    doubt = 64 * torch.finfo(torch.float64).eps * torch.linalg.matrix_norm(scatter)
    doubt = (doubt * _weights(state) * solution.square().sum(dim=0)).clamp(min=rounding(rank))
    return _result(state, share, 1 - share <= doubt, axes, varying, rank)


def threshold_errors(scores: Tensor, labels: Tensor) -> ThresholdErrors:
    """The smallest error over all thresholds on each class's axis, class against the rest.

    Rows above the threshold count as the class: which side is the class's is decided by the data that gave the axes,
    not by the rows judged here. All distinct thresholds are tried, between neighbouring scores and beyond both ends, so
    that the error is never above the rarer side's share.

    Args:
        scores: M x K, column k high for class k, as :meth:`ClassVsRestLDA.scores` gives them.
        labels: M integers in 0 .. K - 1.

    Returns:
        Errors (fractions) and thresholds of the K classes.

    Raises:
        TypeError: Scores are not floating-point, or labels not integers.
        ValueError: Shapes that do not fit, or labels out of range.
    """
    check_features(scores)
    rows, classes = scores.shape
    check_class_indices(labels, rows, classes)
    labels = labels.to(scores.device)
    errors, thresholds = [], []
    for k in range(classes):
        column, order = scores[:, k].double().sort(descending=True, stable=True)
        member = labels[order] == k
        if bool(column.isnan().any()) or not bool(member.any()):
            errors.append(column.new_tensor(torch.nan))
            thresholds.append(column.new_tensor(torch.nan))
            continue
        # taking the j highest rows for the class is wrong for the others among them and for its members below
        taken = torch.cat([member.new_zeros(1, dtype=torch.int64), member.cumsum(0)])
        wrong = torch.arange(rows + 1, device=scores.device) - 2 * taken + taken[-1]
        edges = torch.cat([column.new_tensor([torch.inf]), column, column.new_tensor([-torch.inf])])
        wrong[edges[:-1] == edges[1:]] = rows + 1  # no threshold parts equal scores
        best = int(wrong.argmin())
        errors.append(wrong[best].double() / rows)
        thresholds.append((edges[best] + edges[best + 1]) / 2)
    return ThresholdErrors(torch.stack(errors), torch.stack(thresholds))


_ALL_CONSTANT = "every feature is constant: there is nothing to discriminate by"


def _lda_from_few(features: Tensor, labels: Tensor, num_classes: int, normalize: bool) -> ClassVsRestLDA:
    """Fewer rows than columns: the rows' coordinates in the space that they span are features as good as any."""
    plain, scaled, spreads = _grams(features, normalize)
    values, vectors = eigh(scaled)
    kept = values > rounding(len(values)) * values[-1]
    if not bool(kept.any()):
        raise ValueError(_ALL_CONSTANT)
    lengths, vectors = values[kept].sqrt(), vectors[:, kept]
    small = lda_from_scatter(ScatterState(len(lengths), num_classes).update(vectors * lengths, labels))
    scores = (vectors * lengths) @ small.axes.T
    # of all axes with these scores, the one that ignores directions in which these rows never vary
    values, basis = eigh(plain)
    kept = values > rounding(len(values)) * values[-1]
    basis = basis[:, kept]
    within = basis @ ((basis.T @ scores) / values[kept].unsqueeze(1))
    agrees = (plain @ within - scores).norm(dim=0) <= _AGREES * scores.norm(dim=0)
    axes = small.axes.new_zeros(num_classes, features.shape[1])
    mean = small.mean.new_zeros(features.shape[1])
    constant = 0
    for span, columns, column_mean in centered_columns(features, normalize):
        other = (small.axes / lengths) @ (vectors.T @ (columns / spreads[span])) / spreads[span]
        axes[:, span] = torch.where(agrees.unsqueeze(1), within.T @ columns, other)
        mean[span] = column_mean
        constant += int((columns == 0).all(dim=0).sum())
    return small._replace(axes=unit_rows(axes), constant_features=constant, mean=mean, normalized=normalize)


def _grams(features: Tensor, normalize: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Inner products of the centred rows, as they are and with unit spread in every column; these spreads (1 for 0).

    What counts as singular is seen in the latter, which do not depend on the features' units.
    """
    device = float64_device(features.device)
    plain = torch.zeros(len(features), len(features), dtype=torch.float64, device=device)
    scaled, spreads = torch.zeros_like(plain), plain.new_zeros(features.shape[1])
    for span, columns, _ in centered_columns(features, normalize):
        plain.addmm_(columns, columns.T)
        largest = columns.abs().amax(dim=0)
        largest = torch.where(largest > 0, largest, 1)
        columns = columns / largest
        lengths = torch.linalg.vector_norm(columns, dim=0)
        lengths = torch.where(lengths > 0, lengths, 1)
        columns = columns / lengths
        scaled.addmm_(columns, columns.T)
        spreads[span] = largest * lengths
    return plain, scaled, spreads


def _lda_refined(features: Tensor, labels: Tensor, num_classes: int, normalize: bool) -> ClassVsRestLDA | None:
    """A factor of float32 products, and residuals in float64 that take its errors out; None where that fails."""
    # For an approximate solution x of S x = d and r = d - S x, d^T S^{-1} d = d^T x + x^T r + r^T S^{-1} r, so that an
    # error of the factor enters in the third power: one more pass over the features is nearly always enough.
    state = RoughScatterState(features.shape[1], num_classes, normalize=normalize).update(features, labels)
    squares = state.outer.diagonal()
    seen = (squares > 0) | (state.sums != 0).any(dim=0)
    if not bool(((squares > 1e-30) & (squares < 1e30) | ~seen).all()):
        return None  # units in which float32 products under- or overflow
    scatter, scale, varying = _scaled_scatter(state)
    factor, info = torch.linalg.cholesky_ex(scatter)
    del scatter
    if int(info) != 0 or float(factor.diagonal().min()) ** 2 <= _NEARLY_REGULAR:
        return None
    scale, mean, weights = scale.unsqueeze(1), state.mean(), _weights(state)
    right = _differences(state).T
    solution = torch.zeros_like(right)
    solution[varying] = scale * torch.cholesky_solve(scale * right[varying], factor)
    for _ in range(3):
        product = torch.zeros_like(right)
        for _, chunk in chunks(features, normalize, right.device):
            chunk -= mean
            product += chunk.T @ (chunk @ solution)
        residual = right - product
        correction = torch.zeros_like(right)
        correction[varying] = scale * torch.cholesky_solve(scale * residual[varying], factor)
        last = weights * (residual * correction).sum(dim=0)
        share = weights * ((right + residual) * solution).sum(dim=0) + last
        solution += correction
        # the axes' own error, in units of their length, enters in the second power
        near = correction.norm(dim=0) <= _NEARLY_SOLVED * solution.norm(dim=0)
        if bool(near.all()) and bool((last.abs() ** 1.5 <= 1e-11 * (1 - share)).all()):
            return _result(
                state, share, torch.zeros_like(share, dtype=torch.bool), solution[varying].T, varying, len(scale)
            )
    return None


def _scaled_scatter(state: ScatterState) -> tuple[Tensor, Tensor, Tensor]:
    """The total scatter of the features that vary, with unit spread; by what it was scaled, and which they are."""
    # With unit spread in every column, what counts as singular does not depend on the features' units.
    present = int((state.counts > 0).sum())
    if present < 2:
        raise ValueError(f"class against rest needs at least two classes with samples, but there is only {present}")
    varying = ~state.constant_features()
    if not bool(varying.any()):
        raise ValueError(_ALL_CONSTANT)
    scatter = state.total_scatter()
    if not bool(varying.all()):
        scatter = scatter[varying][:, varying]
    scale = scatter.diagonal().rsqrt()
    return scatter.mul_(scale).mul_(scale.unsqueeze(1)), scale, varying


def _differences(state: ScatterState) -> Tensor:
    """Mean of each class minus the mean of all others, mu_c - mu_rest, K x D; zero for classes without samples."""
    counts = state.counts.double().unsqueeze(1)
    rest = (state.sums.sum(dim=0) - state.sums) / (state.total - counts)
    return torch.where(counts > 0, state.sums / counts - rest, 0.0)


def _weights(state: ScatterState) -> Tensor:
    """n1 n2 / n of every class against the rest."""
    return state.counts.double() * (state.total - state.counts) / state.total


def _result(
    state: ScatterState, share: Tensor, separated: Tensor, axes: Tensor, varying: Tensor, rank: int
) -> ClassVsRestLDA:
    """Eigenvalues from the shares of the spread, and the axes with the constant features put back."""
    absent = state.counts == 0
    eigenvalues = torch.where(separated, torch.inf, share / (1 - share))
    eigenvalues[absent] = torch.nan
    full_axes = axes.new_zeros(state.num_classes, state.num_features)
    full_axes[:, varying] = axes
    full_axes = unit_rows(full_axes)
    full_axes[absent] = torch.nan
    constant = int((~varying).sum())
    return ClassVsRestLDA(
        eigenvalues, separated, full_axes, rank, constant, state.counts, state.mean(), state.normalize
    )
