"""Approximate geodesic distance between two solutions of a head (FOCA, ICML 2019, section 4.2, Eq. 14-16).

The straight line from theta_LD to theta_SD is cut into P segments of equal length. The squared length of segment a in
the Fisher metric is delta^T I_a delta with delta = theta_{a+1} - theta_a and I_a the Fisher matrix at theta_a, that is
the mean over samples of (gradient of the sample's loss . delta)^2. So a directional derivative of the loss is all that
is needed, and no gradient, let alone a matrix, is ever formed.

In a head of linear layers with ReLU between, a layer's input times the weights at theta_a is linear in the position on
the line: the products with W_LD and with W_SD - W_LD give the layer's output and its derivative. In the first layer,
where nearly all the work is, they serve all segments at once. Heads of any other kind take forward-mode automatic
differentiation, :func:`fisher_geodesic_module`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_repshape.functional.checks import (
    check_at_least,
    check_class_indices,
    check_columns,
    check_features,
    check_floating,
)
from lightning_repshape.functional.modes import evaluating
from lightning_repshape.functional.numerics import full_precision
from lightning_repshape.terminal.progress import task

Layers = Sequence[tuple[Tensor, Tensor | None]]
"""A head: (weight, out x in, and bias, out, or None) of every linear layer in forward order, ReLU between them."""

Loss = Literal["cross_entropy", "squared"]
Fisher = Literal["empirical", "model"]

# How many activations of one layer are held at once, over all segments: 1 MiB in float32, so that they stay in cache.
_CHUNK_ELEMENTS = 2**18


class FisherLengths(NamedTuple):
    """Lengths along the line, of one layer or of all together.

    Attributes:
        segments: d(theta_a, theta_{a+1}) for a = 0 .. P - 1 (Eq. 16).
        total: Square root of the sum of their squares (Eq. 15). It falls with 1/sqrt(P).
        length: Their plain sum, which tends to the line's length in the Fisher metric as P grows.
    """

    segments: Tensor
    total: float
    length: float


class FisherGeodesic(NamedTuple):
    """The approximate geodesic distance, see :func:`fisher_geodesic`.

    Attributes:
        layers: With delta restricted to one layer after the other, by the layer's name, in forward order.
        full: With the whole delta; cross terms between layers count, so that it is not the sum of the layers.
        errors: Test error (a fraction) at theta_0 .. theta_P, P + 1 values, or None without test data.
    """

    layers: dict[str, FisherLengths]
    full: FisherLengths
    errors: Tensor | None


def fisher_geodesic(
    features: Tensor,
    labels: Tensor,
    start: Layers,
    end: Layers,
    *,
    segments: int = 15,
    loss: Loss = "cross_entropy",
    fisher: Fisher = "empirical",
    test_features: Tensor | None = None,
    test_labels: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> FisherGeodesic:
    """Fisher lengths of the line between two heads that are stacks of linear layers with ReLU between.

    Args:
        features: N x D, the samples over which the Fisher matrix is a mean [a random 5 % of the training set].
        labels: N integers in 0 .. K - 1.
        start: theta_LD, the head trained on everything. Everything is computed on its device.
        end: theta_SD, the head trained on the smallest subset, from the same initial numbers.
        segments: P. Default: 15 (the paper's).
        loss: ``"cross_entropy"``, or ``"squared"``: summed over the outputs, targets one-hot, or -1 and +1 for heads
            with one output and two classes.
        fisher: Over which labels the mean is taken: ``"empirical"`` takes the samples' own (the paper's),
            ``"model"`` all that the head at theta_a itself holds possible, by their probability there (for the squared
            loss: normal with variance 1/2), which makes it the information metric.
        test_features: M x D, for the test error along the line.
        test_labels: M integers.
        dtype: Precision of the computation; sums over samples are in float64 in any case. Default: the features'
            (float32 for half precision).

    Returns:
        Lengths by layer (named ``"1"``, ``"2"`` and so on), for all layers together, and the test errors.

    Raises:
        TypeError: Features are not floating-point, or labels not integers.
        ValueError: Heads of different shapes or that do not fit the features, fewer than one segment, unknown options,
            labels out of range, values that are not finite.
    """
    _check_options(segments, loss, fisher)
    check_features(features)
    line = _StackLine(start, end, segments, features.dtype if dtype is None else dtype)
    return _measure(line, features, labels, loss, fisher, test_features, test_labels)


def fisher_geodesic_module(
    features: Tensor,
    labels: Tensor,
    head: nn.Module,
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    *,
    segments: int = 15,
    loss: Loss = "cross_entropy",
    fisher: Fisher = "empirical",
    test_features: Tensor | None = None,
    test_labels: Tensor | None = None,
    chunk_size: int = 1024,
) -> FisherGeodesic:
    """The same for any head, by forward-mode automatic differentiation; some ten times slower.

    The head runs in evaluation mode. A layer is what belongs to one submodule (``"net.0"`` has ``net.0.weight`` and
    ``net.0.bias``). Parameters move along the line; so do floating-point buffers (batch normalisation's running
    statistics), that both ends be the heads as they were trained, but these are no coordinates of the metric.

    Args:
        features: N x D (or of any shape that the head takes), converted to the head's device and dtype.
        labels: N integers in 0 .. K - 1.
        head: A module from features to logits; its own parameters stay as they are.
        start: State of theta_LD, as from ``state_dict()``.
        end: State of theta_SD.
        segments: P. Default: 15 (the paper's).
        loss: As in :func:`fisher_geodesic`.
        fisher: As in :func:`fisher_geodesic`.
        test_features: M samples for the test error along the line.
        test_labels: M integers.
        chunk_size: Samples at a time.

    Returns:
        Lengths by layer (named by submodule), for all layers together, and the test errors.

    Raises:
        TypeError: Features are not floating-point, or labels not integers.
        ValueError: States that do not fit the head, fewer than one segment or sample in a chunk, unknown options,
            labels out of range, values that are not finite.
    """
    _check_options(segments, loss, fisher)
    check_at_least("chunk_size", chunk_size, 1)
    with evaluating(head):
        line = _ModuleLine(head, start, end, segments, chunk_size)
        return _measure(line, features, labels, loss, fisher, test_features, test_labels)


class _Line(ABC):
    """The heads on the line, and how to run all of them at once."""

    names: list[str]
    segments: int
    device: torch.device
    dtype: torch.dtype
    chunk_size: int

    @abstractmethod
    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits at theta_0 .. theta_{P-1}, P x n x K, and their change over a segment by layer, P x L x n x K."""

    @abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """Logits at theta_0 .. theta_P, (P + 1) x n x K."""

    def chunks(self, features: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Samples on the heads' device, some at a time."""
        for at in range(0, len(features), self.chunk_size):
            x = features[at : at + self.chunk_size].detach().to(self.device, self.dtype)
            if not bool(x.sum().isfinite()):
                raise ValueError(f"features must be finite, but some of the rows {at} .. {at + len(x) - 1} are not")
            yield x, labels[at : at + self.chunk_size].to(self.device, torch.int64)


class _StackLine(_Line):
    """Linear layers with ReLU between: both ends go through one product, and what lies between is their mixture."""

    def __init__(self, start: Layers, end: Layers, segments: int, dtype: torch.dtype) -> None:
        if not start or [weight.shape for weight, _ in start] != [weight.shape for weight, _ in end]:
            raise ValueError("the two heads must have one or more layers of the same shapes")
        self.names = [str(number + 1) for number in range(len(start))]
        self.segments = segments
        self.device = start[0][0].device
        self.dtype = dtype if dtype in (torch.float32, torch.float64) else torch.float32
        self.widths = [len(weight) for weight, _ in start]
        self.chunk_size = max(16, _CHUNK_ELEMENTS // (segments + 1) // max(self.widths))
        self.steps = torch.arange(segments + 1, device=self.device, dtype=self.dtype)[:, None, None] / segments
        self.ends: list[tuple[Tensor, Tensor]] = []  # of each layer: (W, change of W), stacked, and the biases likewise
        self.between: list[Tensor] = []  # W^T at theta_0 .. theta_P, of all layers but the first
        for (w0, b0), (w1, b1) in zip(start, end, strict=True):
            if w0.dim() != 2 or (self.ends and w0.shape[1] != self.widths[len(self.ends) - 1]):
                raise ValueError(f"the layers do not follow on each other: {[tuple(w.shape) for w, _ in start]}")
            first, last = self._convert(w0), self._convert(w1)
            zero = first.new_zeros(len(first))
            first_bias, last_bias = (zero if b is None else self._convert(b) for b in (b0, b1))
            weights, biases = torch.cat([first, last - first]), torch.cat([first_bias, last_bias - first_bias])
            if self.ends:
                self.between.append((first + self.steps * (last - first)).mT)
            self.ends.append((weights, biases))

    def _convert(self, tensor: Tensor) -> Tensor:
        return tensor.detach().to(self.device, self.dtype)

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, tangents = self._run(x, self.segments, with_tangents=True)
        return logits, torch.stack(tangents, dim=1)

    def logits(self, x: Tensor) -> Tensor:
        return self._run(x, self.segments + 1, with_tangents=False)[0]

    def _run(self, x: Tensor, points: int, with_tangents: bool) -> tuple[Tensor, list[Tensor]]:
        check_columns(x, self.ends[0][0].shape[1], "the heads take")
        hidden, tangents = x, list[Tensor]()
        for number, (weights, biases) in enumerate(self.ends):
            at_start, change = F.linear(hidden, weights, biases).chunk(2, dim=-1)
            z = torch.addcmul(at_start, self.steps[:points], change)
            if with_tangents:
                # what earlier layers' changes do here, and what this layer's own does
                tangents = [torch.bmm(tangent, self.between[number - 1][:points]) for tangent in tangents]
                tangents.append((change / self.segments).expand_as(z))
            if number + 1 < len(self.ends):
                hidden = z.relu_()
                active = hidden.sign()  # 1 where the unit passes on, 0 where not
                tangents = [tangent * active for tangent in tangents]
            else:
                hidden = z
        return hidden, tangents


class _ModuleLine(_Line):
    """Any head, by forward-mode automatic differentiation."""

    def __init__(
        self, head: nn.Module, start: Mapping[str, Tensor], end: Mapping[str, Tensor], segments: int, chunk_size: int
    ) -> None:
        own: dict[str, Tensor] = dict(head.state_dict())
        for which, state in (("start", start), ("end", end)):
            if state.keys() != own.keys():
                odd = sorted(state.keys() ^ own.keys())
                raise ValueError(f"the state of {which} does not fit the head: only one of them has {odd}")
            if any(state[name].shape != own[name].shape for name in own):
                raise ValueError(f"the state of {which} does not fit the head: the shapes differ")
        self.parameters = [name for name, _ in head.named_parameters()]
        if not self.parameters:
            raise ValueError("the head has no parameters: there is no line to go along")
        self.head = head
        self.segments, self.chunk_size = segments, chunk_size
        self.device, self.dtype = own[self.parameters[0]].device, own[self.parameters[0]].dtype
        self.names = list(dict.fromkeys(map(_owner, self.parameters)))
        self.first = {name: start[name].detach().to(value) for name, value in own.items()}
        self.change = {
            name: end[name].detach().to(value) - self.first[name]
            for name, value in own.items()
            if value.is_floating_point()
        }

    def _state(self, step: int) -> dict[str, Tensor]:
        moved = {name: self.first[name] + step / self.segments * change for name, change in self.change.items()}
        return {**self.first, **moved}

    def _call(self, state: dict[str, Tensor], x: Tensor) -> Tensor:
        logits: Tensor = torch.func.functional_call(self.head, state, (x,))
        return logits

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        points = [self._derivatives(self._state(step), x) for step in range(self.segments)]
        return torch.stack([logits for logits, _ in points]), torch.stack([tangents for _, tangents in points])

    def _derivatives(self, state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
        tangents = []
        for layer in self.names:
            here = [name for name in self.parameters if _owner(name) == layer]
            logits, tangent, *_ = torch.func.jvp(
                lambda moved: self._call({**state, **moved}, x),
                ({name: state[name] for name in here},),
                ({name: self.change[name] / self.segments for name in here},),
            )
            tangents.append(tangent)
        return logits, torch.stack(tangents)

    def logits(self, x: Tensor) -> Tensor:
        return torch.stack([self._call(self._state(step), x) for step in range(self.segments + 1)])


def _measure(
    line: _Line,
    features: Tensor,
    labels: Tensor,
    loss: Loss,
    fisher: Fisher,
    test_features: Tensor | None,
    test_labels: Tensor | None,
) -> FisherGeodesic:
    total = len(features) + (0 if test_features is None else len(test_features))
    with torch.no_grad(), full_precision(line.device), task("geodesic", total) as advance:
        outputs = _check_samples(line, features, labels, loss)
        if (test_features is None) != (test_labels is None):
            raise ValueError("the test error needs both features and labels of the test set")
        squared = torch.zeros(line.segments, len(line.names) + 1, dtype=torch.float64)
        for x, y in line.chunks(features, labels):
            squared += _squared_derivatives(*line.outputs(x), y, loss, fisher).sum(dim=-1, dtype=torch.float64).cpu()
            advance(len(x))
        lengths = (squared / len(labels)).sqrt()
        errors = None
        if test_features is not None and test_labels is not None:
            _check_samples(line, test_features, test_labels, loss)
            wrong = torch.zeros(line.segments + 1, dtype=torch.int64)
            for x, y in line.chunks(test_features, test_labels):
                logits = line.logits(x)
                decided = logits.argmax(dim=-1) if outputs > 1 else (logits[..., 0] > 0).long()
                wrong += (decided != y).sum(dim=-1).cpu()
                advance(len(x))
            errors = wrong.double() / len(test_labels)
    layers = {name: _lengths(lengths[:, number]) for number, name in enumerate(line.names)}
    return FisherGeodesic(layers, _lengths(lengths[:, -1]), errors)


def _squared_derivatives(logits: Tensor, tangents: Tensor, y: Tensor, loss: Loss, fisher: Fisher) -> Tensor:
    """(gradient of the sample's loss . delta)^2, for delta by layer and whole: P x (L + 1) x n."""
    change = torch.cat([tangents, tangents.sum(dim=1, keepdim=True)], dim=1)
    logits = logits.unsqueeze(1)
    if loss == "squared":
        if fisher == "model":
            return 2 * change.square().sum(dim=-1)
        outputs = logits.shape[-1]
        target = F.one_hot(y, outputs).to(logits) if outputs > 1 else (2 * y - 1).to(logits).unsqueeze(-1)
        return (2 * (logits - target) * change).sum(dim=-1).square()
    p = logits.softmax(dim=-1)
    if fisher == "model":
        return (p * (change - (p * change).sum(dim=-1, keepdim=True)).square()).sum(dim=-1)
    own = change.gather(-1, y[:, None].expand(*change.shape[:-1], 1))
    # p . change - own, but without subtracting two nearly equal numbers where the label is all but certain
    return (p * (change - own)).sum(dim=-1).square()


def _lengths(segments: Tensor) -> FisherLengths:
    return FisherLengths(segments.clone(), float(torch.linalg.vector_norm(segments)), float(segments.sum()))


def _owner(parameter: str) -> str:
    """The submodule that a parameter belongs to."""
    return parameter.rpartition(".")[0]


def _check_options(segments: int, loss: str, fisher: str) -> None:
    check_at_least("segments", segments, 1)
    if loss not in ("cross_entropy", "squared"):
        raise ValueError(f"loss must be 'cross_entropy' or 'squared', not {loss!r}")
    if fisher not in ("empirical", "model"):
        raise ValueError(f"fisher must be 'empirical' or 'model', not {fisher!r}")


def _check_samples(line: _Line, features: Tensor, labels: Tensor, loss: Loss) -> int:
    """Refuses samples that do not fit the heads; the number of outputs."""
    check_floating("features", features)
    if features.dim() < 2 or features.numel() == 0:
        raise ValueError(f"features must be a non-empty N x D matrix, but the shape is {tuple(features.shape)}")
    probe = torch.zeros_like(features[:1], device=line.device, dtype=line.dtype)
    outputs = line.logits(probe).shape[-1]
    if outputs == 1 and loss == "cross_entropy":
        raise ValueError("cross entropy needs one output per class; a single output goes with loss='squared'")
    check_class_indices(labels, len(features), max(outputs, 2))
    return outputs
