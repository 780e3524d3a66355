"""Debiased CKA of all layers of a ResNet-18 from one pass, against scripts that go pair by pair.

Peers, both with the same batches and the same estimator: a script that runs the model for every pair of layers (timed
on some pairs, and scaled to all), and one that runs it once a batch, but makes both Gram matrices anew for every pair.
"""

from itertools import combinations, islice

import torch
from timing import arguments, interleaved, report
from torch import Tensor

from lightning_repshape.features.layers import EachLayer
from lightning_repshape.functional.similarity import MinibatchCKA, unbiased_gram
from lightning_repshape.networks import ResNet18


def gram(x: Tensor) -> Tensor:
    """Products of centred rows, without those with themselves."""
    x = x - x.mean(dim=0)
    return (x @ x.T).fill_diagonal_(0)


def criterion(k: Tensor, m: Tensor) -> Tensor:
    """The unbiased Hilbert-Schmidt criterion of Gram matrices as scripts write it (Song et al. 2012, Eq. 5)."""
    n = len(k)
    sums = k.sum() * m.sum() / ((n - 1) * (n - 2))
    return ((k * m).sum() + sums - 2 / (n - 2) * (k.sum(0) @ m.sum(0))) / (n * (n - 3))


def cka(pairs: list[tuple[Tensor, Tensor]]) -> float:
    """CKA of two layers from their values in each batch."""
    xy, xx, yy = 0.0, 0.0, 0.0
    for x, y in pairs:
        k, m = gram(x), gram(y)
        xy, xx, yy = xy + criterion(k, m), xx + criterion(k, k), yy + criterion(m, m)
    return float(xy / (xx * yy) ** 0.5)


def main() -> None:
    """Prints the table."""
    options = arguments(__doc__.splitlines()[0])
    count, batch, some = (100, 50, 2) if options.quick else (500, 100, 4)
    torch.manual_seed(0)
    model = ResNet18((3, 32, 32)).to(options.device).eval()
    names = list(model.activation_names)
    batches = torch.randn(count, 3, 32, 32, device=options.device).split(batch)
    pairs = list(combinations(range(len(names)), 2))
    layers = EachLayer(Hands(model))

    def ours() -> Tensor:
        state = MinibatchCKA()
        for x in batches:
            grams: dict[str, Tensor] = {}
            layers(x, len(x), lambda name, value, grams=grams: grams.__setitem__(name, unbiased_gram(value)))
            state.update([grams[name] for name in names])
        return state.matrix()

    def values(x: Tensor, wanted: list[str]) -> list[Tensor]:
        found = model.forward_activations(x, wanted)[1]
        return [found[name].flatten(1) for name in wanted]

    def a_pass_a_pair() -> list[float]:
        chosen = islice(pairs, 0, None, len(pairs) // some)
        return [cka([tuple(values(x, [names[i], names[j]])) for x in batches]) for i, j in chosen]

    def grams_anew() -> list[float]:
        kept = [values(x, names) for x in batches]
        return [cka([(own[i], own[j]) for own in kept]) for i, j in pairs]

    with torch.no_grad():
        found, one, all_ = ours(), a_pass_a_pair(), grams_anew()
        timed = interleaved(
            {
                "ours": ours,
                "pass": lambda: [values(x, names[-1:]) for x in batches],
                "pairwise": a_pass_a_pair,
                "anew": grams_anew,
            },
            repeats=1 if options.quick else 3,
            min_seconds=0.0,
        )
    scale = len(pairs) / len(one)
    error = max(abs(float(found[i, j]) - value) for (i, j), value in zip(pairs, all_, strict=True))
    report(
        f"CKA of {len(names)} layers of a ResNet-18, {count} images of 3 x 32 x 32 in batches of {batch}",
        [
            {
                "ours (s)": timed["ours"],
                "bare pass (s)": timed["pass"],
                f"a pass a pair (s, {len(one)} of {len(pairs)} scaled)": scale * timed["pairwise"],
                "Gram matrices anew (s)": timed["anew"],
                "a pass a pair / ours": scale * timed["pairwise"] / timed["ours"],
                "anew / ours": timed["anew"] / timed["ours"],
                "ours / pass": timed["ours"] / timed["pass"],
                "largest difference": error,
            }
        ],
    )


class Hands(torch.nn.Module):
    """A backbone as a model that hands out its named activations."""

    def __init__(self, backbone: ResNet18) -> None:
        super().__init__()
        self.backbone, self.activation_names = backbone, backbone.activation_names

    def forward(self, x: Tensor, names: tuple[str, ...]) -> "Hands":
        """Keeps the activations where :class:`EachLayer` looks for them."""
        self.activations = self.backbone.forward_activations(x, list(names))[1]
        return self


if __name__ == "__main__":
    main()
