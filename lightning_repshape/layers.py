"""The building kit of networks and heads: chains of named steps that hand out any value by name, as a return value.

A value's name is the path of the module whose output it is, as in :meth:`torch.nn.Module.get_submodule`. So one name
serves ``forward_activations`` and forward hooks alike, and finds the layer's weights.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Real
from typing import Literal

from torch import Tensor, nn

from lightning_repshape.errors import ConfigError, did_you_mean
from lightning_repshape.functional.modes import evaluating as evaluating

Activation = Literal["relu", "sigmoid", "softplus", "tanh"]
Init = Literal["glorot", "he", "torch"]


class Tap:
    """Collects the values that a forward pass is asked for while it goes by.

    Hooks would do the same, but compilers skip them; a tap is an ordinary argument. It also leaves every module's
    return value a tensor, so that foreign hooks see the same with and without it. It puts the values of full path
    ``names`` into ``kept``; ``prefix`` is the path of the module that holds the tap, with a dot at its end.
    """

    def __init__(self, names: Collection[str], kept: dict[str, Tensor], prefix: str = "") -> None:
        self.names = names
        self.kept = kept
        self.prefix = prefix

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """Keeps the value if it was asked for, and passes it on."""
        path = self.prefix + name
        if path in self.names:
            self.kept[path] = value
        return value

    def into(self, name: str) -> "Tap":
        """The tap for a step of this name: one that keeps nothing where nothing inside the step was asked for."""
        prefix = f"{self.prefix}{name}."
        return Tap(self.names, self.kept, prefix) if any(path.startswith(prefix) for path in self.names) else NO_TAP


NO_TAP = Tap((), {})


class Tapped(nn.Module):
    """A module that can hand out values from within: ``forward(x, tap)`` calls ``tap(name, value)`` on its way."""

    def inner_names(self, every: bool = False) -> list[str]:
        """Names of the values within, in forward order, without the module's own output.

        ``every``: also those accepted but not advertised, a layer's value before its activation, and the last member of
        a group, which equals the group.
        """
        raise NotImplementedError


class Chain(Tapped):
    """Named modules, one after the other, in forward order; each one's output can be had by its name."""

    def __init__(self, steps: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, step in steps.items():
            self.add_module(name, step)

    def forward(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        """Runs all steps; ``tap`` collects the values asked for, None costs nothing."""
        # FX gives the root that it traces a stand-in for the tap: not a Tap, so nothing is asked for
        if not isinstance(tap, Tap) or not tap.names:
            for step in self._modules.values():
                x = step(x)  # type: ignore[misc]
            return x
        for name, step in self._modules.items():
            x = tap(name, step(x, tap.into(name)) if isinstance(step, Tapped) else step(x))  # type: ignore[misc]
        return x

    def inner_names(self, every: bool = False) -> list[str]:
        """Those of the steps; the last step's value is the chain's own."""
        names = []
        for name, step in self._modules.items():
            if isinstance(step, Tapped):
                names += [f"{name}.{inner}" for inner in step.inner_names(every)]
            names.append(name)
        return names if every else names[:-1]


class Layer(Chain):
    """A chain that counts as one layer, such as convolution, normalisation, activation.

    Its steps are accepted as names (``fc1.linear`` is ``fc1`` before its activation) but not advertised.
    """

    def inner_names(self, every: bool = False) -> list[str]:
        """None, unless asked for every name."""
        return super().inner_names(every) if every else []


class NamedActivations(Chain):
    """A chain that people call from outside: the part that backbones and heads share."""

    @property
    def output_name(self) -> str:
        """The name of what ``forward`` returns: the last step's."""
        return next(reversed(self._modules))

    @property
    def activation_names(self) -> tuple[str, ...]:
        """Names of the post-activation values, in forward order; the last one is what ``forward`` returns.

        ``forward_activations`` also accepts the paths of the steps within a layer (``fc1.linear`` is the value before
        the activation) and of a group's last member.
        """
        return (*self.inner_names(), self.output_name)

    def forward_activations(self, x: Tensor, names: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """One forward pass that also returns values from within.

        The values are part of the autograd graph. The pass goes through ``__call__``, so hooks on any module fire and a
        network that was compiled in place runs compiled.

        Args:
            x: As ``forward`` takes it.
            names: Which values, see :attr:`activation_names`. None costs nothing.

        Returns:
            What ``forward`` returns, and the values asked for by name, in the order of ``names``.

        Raises:
            ConfigError: If a name does not exist.
        """
        if not names:
            return self(x), {}
        self.check_names(names)
        kept: dict[str, Tensor] = {}
        out: Tensor = self(x, Tap(tuple(names), kept))
        return out, {name: kept[name] for name in names}

    def check_names(self, names: Sequence[str]) -> None:
        """Raises ConfigError, with the nearest that exist, for names that :meth:`forward_activations` does not know."""
        accepted = (*self.activation_names, *self.inner_names(every=True))
        for name in names:
            if name not in accepted:
                nearest = did_you_mean(name, accepted)
                raise ConfigError(f"{type(self).__name__} has no activation named {name!r}{nearest}")


def activation_module(name: Activation) -> nn.Module:
    """The activation function of this name as a module that does not work in place."""
    modules: dict[str, Callable[[], nn.Module]] = {
        "relu": nn.ReLU,
        "sigmoid": nn.Sigmoid,
        "softplus": nn.Softplus,
        "tanh": nn.Tanh,
    }
    check_choice("activation", name, modules)
    return modules[name]()


def linear_layer(
    in_features: int,
    out_features: int,
    activation: Activation | None = "relu",
    batch_norm: bool = False,
    linear: Callable[..., nn.Linear] = nn.Linear,
) -> Layer:
    """A fully connected layer: ``flatten``, ``linear`` (made by it), ``norm`` if wanted, ``act`` unless None.

    The linear map has no bias where batch normalisation, which has its own, follows.
    """
    steps: dict[str, nn.Module] = {
        "flatten": nn.Flatten(),
        "linear": linear(in_features, out_features, bias=not batch_norm),
    }
    if batch_norm:
        steps["norm"] = nn.BatchNorm1d(out_features)
    if activation is not None:
        steps["act"] = activation_module(activation)
    return Layer(steps)


def initialize(module: nn.Module, init: Init) -> None:
    """Draws the weights of all linear and convolutional layers afresh from the global generator.

    ``glorot``: uniform in +-sqrt(6 / (fan in + fan out)), biases 0 (Glorot and Bengio 2010; the default of TensorFlow
    1). ``he``: normal with variance 2 / fan in, biases 0 (He et al. 2015). ``torch``: left as PyTorch's constructors
    drew them. Another word is a ConfigError.
    """
    check_choice("init", init, ("glorot", "he", "torch"))
    if init == "torch":
        return
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            if init == "glorot":
                nn.init.xavier_uniform_(layer.weight)
            else:
                nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def check_choice(argument: str, value: str, choices: Collection[str]) -> None:
    """Raises ConfigError, with the nearest choice, if the value is not among the choices."""
    if value not in choices:
        raise ConfigError(f"{argument}={value!r} is not a choice{did_you_mean(str(value), choices)}")


def check_positive(argument: str, *values: int) -> None:
    """Raises ConfigError if one of the values is not a whole number above zero."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{argument} must be a whole number above 0, not {value!r}")


def check_number(argument: str, value: float, positive: bool = False) -> float:
    """The value as a float; raises ConfigError unless it is finite and at least 0, or above 0 where ``positive``."""
    real = isinstance(value, Real) and not isinstance(value, bool)  # NumPy's numbers too
    if not real or not 0 <= value < math.inf or (positive and value == 0):
        raise ConfigError(
            f"{argument} must be a finite number {'above' if positive else 'of at least'} 0, got {value!r}"
        )
    return float(value)


def check_dropout(value: float) -> None:
    """Raises ConfigError if the value is not a probability below one."""
    if not 0.0 <= value < 1.0:
        raise ConfigError(f"dropout={value!r} must be at least 0 and below 1: it is the share of values set to zero")


def check_scale(argument: str, value: float) -> None:
    """Raises ConfigError if the value is negative or not finite."""
    if not (value >= 0.0 and math.isfinite(value)):
        raise ConfigError(f"{argument}={value!r} must be a finite number, at least 0")
