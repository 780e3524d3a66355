"""Small numerical helpers that the analyses share: chunks, and dense decompositions in float64."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lightning_repshape.functional.class_statistics import class_sums, memberships

CHUNK_ELEMENTS = 2**22
"""How many float64 numbers a chunk of features holds at most (32 MiB): large enough for full speed of the products."""

CHUNK_ROWS = 1024
"""How many rows it has at most: long sums lose digits, and sums of a thousand rows, summed up, hardly any."""


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision as float32, anything else as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def float64_device(device: torch.device) -> torch.device:
    """The device itself, or the CPU where the device has no float64 (Apple's MPS)."""
    return torch.device("cpu") if device.type == "mps" else device


def unit_rows(rows: Tensor) -> Tensor:
    """Rows divided by their lengths, however short; rows of zeros stay zeros, and get a gradient of zeros."""
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    units: Tensor = rows / torch.where(lengths > 0, lengths, torch.inf)
    return units


def chunks(
    features: Tensor, normalize: bool = False, device: torch.device | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Yields (slice of the rows, a copy of them in float64), a bounded number of rows at a time.

    Features may be of any floating dtype and on any device (a memory map too); None: chunks are wanted on theirs, if it
    has float64. The copy may be changed in place; the next chunk overwrites it. Rows of zeros stay zeros when rows are
    scaled to unit length; a row that is not finite is a ValueError.
    """
    device = float64_device(features.device) if device is None else device
    rows = max(1, min(CHUNK_ELEMENTS // features.shape[1], CHUNK_ROWS))
    rows = min(rows, features.shape[0])
    buffer = torch.empty(rows, features.shape[1], dtype=torch.float64, device=device)
    for start in range(0, features.shape[0], rows):
        span = slice(start, min(start + rows, features.shape[0]))
        chunk = buffer[: span.stop - start].copy_(features[span].detach())
        lengths = torch.linalg.vector_norm(chunk, dim=1, keepdim=True)  # finite only if every value of the row is
        if not bool(lengths.isfinite().all()):
            broken = int((~lengths.isfinite()).sum())
            raise ValueError(f"features must be finite, but {broken} of the rows {start} .. {span.stop - 1} are not")
        if normalize:
            chunk /= lengths.masked_fill_(lengths == 0, 1)
        yield span, chunk


def sums_by_class(rows: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Sums of rows (N x D, float64) by class (N integers on their device), K x D, the same at every call."""
    # on a GPU, adding by index happens in whatever order the threads come; a product with one-hot rows does not
    groups = labels if rows.device.type == "cpu" else memberships(labels, num_classes, rows.dtype)
    return class_sums(rows, groups, num_classes)[1]


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No autocast, and float32 products with all of float32's digits, whatever the caller has set."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (ascending) and eigenvectors of a symmetric matrix; on the CPU where the device's solver fails."""
    try:
        values, vectors = torch.linalg.eigh(matrix)
    except RuntimeError:
        if matrix.device.type == "cpu":
            raise
        values, vectors = (part.to(matrix.device) for part in torch.linalg.eigh(matrix.cpu()))
    return values, vectors


def eigvalsh(matrix: Tensor) -> Tensor:
    """Eigenvalues (ascending) of a symmetric matrix; on the CPU where the device's solver fails."""
    try:
        values: Tensor = torch.linalg.eigvalsh(matrix)
    except RuntimeError:
        if matrix.device.type == "cpu":
            raise
        values = torch.linalg.eigvalsh(matrix.cpu()).to(matrix.device)
    return values


def leading_eigenvectors(matrix: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest eigenvalues (descending) and their eigenvectors (as rows) of a symmetric float64 matrix.

    Vectors have length one; the largest entry of each is positive. The whole decomposition of a large matrix takes far
    longer than the few directions of a plot, hence Lanczos iterations from a fixed start there, and the whole
    decomposition where they do not converge.
    """
    if matrix.shape[0] > max(512, 8 * k):
        from scipy.sparse.linalg import ArpackError, eigsh

        start = torch.randn(matrix.shape[0], generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
        try:
            found = eigsh(matrix.cpu().numpy(), k=k, which="LA", v0=start)
            values, vectors = (torch.from_numpy(part.copy()) for part in found)
        except ArpackError:
            values, vectors = eigh(matrix)
    else:
        values, vectors = eigh(matrix)
    order = values.argsort(descending=True)[:k]
    return values[order].to(matrix.device), orient(vectors[:, order].T.to(matrix.device))


def orient(rows: Tensor) -> Tensor:
    """Fixes the sign that a decomposition leaves open: each row's entry of the largest magnitude becomes positive."""
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
    return torch.where(largest < 0, -rows, rows)


def rounding(size: int) -> float:
    """The relative size below which an eigenvalue of a scatter matrix of so many rows is rounding, not data.

    That is ``size`` times float64's epsilon, but at least 512 times: sums over many equal rows come out that wrong (130
    times were seen), and the variance that storing a feature in float32 makes (64 times) is below it too.
    """
    return max(size, 512) * torch.finfo(torch.float64).eps
