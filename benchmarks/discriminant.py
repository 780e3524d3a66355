"""Linear discriminant analysis, every class against the rest: our time, scikit-learn's for one class, and the limit.

The limit is one float32 product X^T X. Beside the times stand the additional peak memory and the error of one class
against n1 n2 / n d^T S_W^{-1} d, from the within-class scatter S_W written out in float64.
"""

import resource

import torch
from timing import CLOCKS, arguments, interleaved, processor_clock, report
from torch import Tensor

from lightning_repshape.functional.discriminant import class_vs_rest_lda

CLASSES = 10


def clusters(rows: int, width: int, device: str) -> tuple[Tensor, Tensor]:
    """Correlated ReLU features in float32, filled in place, so that the peak memory so far is theirs."""
    rng = torch.Generator().manual_seed(0)
    centers, mixing = torch.randn(CLASSES, width, generator=rng), torch.randn(64, width, generator=rng) / 8
    features, labels = torch.empty(rows, width), torch.arange(rows) % CLASSES
    for part in torch.arange(rows).split(1000):
        noise = torch.randn(len(part), width, generator=rng) + torch.randn(len(part), 64, generator=rng) @ mixing
        features[part[0] : part[-1] + 1] = (0.3 * centers[labels[part]] + noise).relu_()
    return features.to(device), labels.to(device)


def peak_bytes(device: str) -> int:
    """The largest memory used so far, by this process or on its GPU."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def exact_eigenvalue(features: Tensor, member: Tensor) -> float:
    """The largest eigenvalue of one class, from the within-class scatter written out."""
    from scipy.linalg import solve

    groups = [features[rows].cpu() for rows in (member, ~member)]
    means = [group.double().mean(0) for group in groups]
    within = torch.zeros(features.shape[1], features.shape[1], dtype=torch.float64)
    for group, mean in zip(groups, means, strict=True):
        for part in group.split(4096):
            part = part.double() - mean
            within.addmm_(part.T, part)
    apart = (means[0] - means[1]).numpy()
    weight = len(groups[0]) * len(groups[1]) / len(features)
    return weight * float(apart @ solve(within.numpy(), apart, assume_a="pos"))


def main() -> None:
    """Prints the tables."""
    options = arguments(__doc__.splitlines()[0])
    rows, width = (10_000, 1024) if options.quick else (50_000, 4096)
    features, labels = clusters(rows, width, options.device)
    before = peak_bytes(options.device)
    lda = class_vs_rest_lda(features, labels, CLASSES)
    memory = peak_bytes(options.device) - before
    clock = processor_clock(options)
    seconds = interleaved(
        {
            "ours": lambda: class_vs_rest_lda(features, labels, CLASSES),
            "limit": lambda: features.T @ features,
        },
        repeats=3 if options.quick else 1,
        min_seconds=0.0,
        clock=clock,
    )
    row = {
        "ours (s)": seconds["ours"],
        "limit: float32 X^T X (s)": seconds["limit"],
        "ours / limit": seconds["ours"] / seconds["limit"],
    }
    if options.quick:  # at full size it takes a quarter of an hour
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        array, member = features.cpu().numpy(), (labels == 1).cpu().numpy()
        start = CLOCKS[clock]()
        LinearDiscriminantAnalysis(solver="eigen").fit(array, member)
        sklearn = CLOCKS[clock]() - start
        row |= {
            "scikit-learn eigen, one class (s)": sklearn,
            "scikit-learn one class / ours": sklearn / seconds["ours"],
            "all classes / ours": CLASSES * sklearn / seconds["ours"],
        }
    exact = exact_eigenvalue(features, labels == 1)
    report(f"LDA, all {CLASSES} classes against the rest, {rows} x {width}", [row])
    report(
        "Memory and accuracy",
        [
            {
                "features (GB)": features.numel() * 4 / 1e9,
                "peak beyond them (GB)": memory / 1e9,
                "eigenvalue of class 1": float(lda.eigenvalues[1]),
                "relative error": abs(float(lda.eigenvalues[1]) / exact - 1),
                "rank": lda.rank,
            }
        ],
    )


if __name__ == "__main__":
    main()
