"""A network of another library as a backbone: it stands in ``net``, and a neck may follow."""

from torch import Tensor

from lightning_repshape.layers import NO_TAP, Layer, Tap
from lightning_repshape.networks.base import Backbone


class WrappedBackbone(Backbone):
    """A backbone around the module ``net``, whose activations have that library's own names.

    A subclass sets ``names``, the last of which is the network's output, and hands out values in :meth:`tapped`.
    """

    path_prefix = "net."
    names: tuple[str, ...] = ()

    @property
    def output_name(self) -> str:
        """The name of the network's output, or the neck's last layer."""
        return [self.names[-1], *self._neck()][-1]

    def inner_names(self, every: bool = False) -> list[str]:
        """The library's names, and the neck's layers."""
        neck = self._neck().items()
        inner = [
            path for name, layer in neck for path in (*(f"{name}.{step}" for step in layer.inner_names(every)), name)
        ]
        return [*self.names, *inner][:-1]

    def forward(self, x: Tensor, tap: Tap | None = None) -> Tensor:
        """Inputs to features; see :meth:`Backbone.forward`."""
        if isinstance(x, Tensor):
            self._check_batch(x)
        x = self.prepared(x)
        tap = tap if isinstance(tap, Tap) else NO_TAP
        if tap.names:
            features = tap(self.names[-1], self.tapped(x, tap))
        else:
            features = self.get_submodule("net")(x).flatten(1)
        for name, layer in self._neck().items():
            features = tap(name, layer(features, tap.into(name)))
        return features

    def prepared(self, x: Tensor) -> Tensor:
        """What the network receives. Default: the inputs."""
        return x

    def tapped(self, x: Tensor, tap: Tap) -> Tensor:
        """The network's output, N x D, after ``tap`` was called with every value within that it asks for."""
        raise NotImplementedError

    def _neck(self) -> dict[str, Layer]:
        return {name: layer for name, layer in self.named_children() if isinstance(layer, Layer)}


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return str(error).strip().partition("\n")[0]
