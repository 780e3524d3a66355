"""Any classifier of torchvision as a backbone."""

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_repshape.errors import ConfigError, did_you_mean
from lightning_repshape.layers import Tap, check_choice, evaluating
from lightning_repshape.networks.base import Ending, Options, check_image_shape, describe
from lightning_repshape.networks.wrapped import WrappedBackbone, first_line

# families whose first convolution can do without its stride, and what else of their stem shrinks the image
_SMALL_STEMS: dict[str, tuple[str, ...]] = {
    "resnet": ("maxpool",),
    "resnext": ("maxpool",),
    "wide_resnet": ("maxpool",),
    "shufflenet": ("maxpool",),
    "densenet": ("features.pool0",),
    "efficientnet": (),
    "mnasnet": (),
    "mobilenet": (),
    "regnet": (),
}


class TorchvisionBackbone(WrappedBackbone):
    """A classifier of ``torchvision.models`` without its last linear layer (and the dropout right before that).

    The features are what entered that layer. The network keeps torchvision's keys, under ``net``. The activation names
    are the paths of the modules that run exactly once, such as ``layer3.1.bn2``, in the order in which they end. Since
    the modules are not ours, the values are recorded by forward hooks, and a pass with names runs uncompiled.

    Where the images do not have three channels, the first convolution is adapted: pretrained weights are averaged over
    the channels and scaled to the same sum, others drawn afresh.

    Args:
        input_shape: (channels, height, width).
        name: The model's name, as in ``torchvision.models.list_models()``.
        weights: Name of pretrained weights, such as ``DEFAULT`` or ``IMAGENET1K_V1``, which torchvision downloads; None
            starts from random numbers.
        stem: ``small``: a first convolution of at most 3 x 3 with stride 1, and no pooling after it, for images of
            about 32 pixels (ResNet, ResNeXt, ShuffleNet, DenseNet, EfficientNet, MNASNet, MobileNet, RegNet families);
            a convolution replaced for it starts from random numbers. ``keep``: as torchvision has it. ``auto``: small
            if the shorter side is below 64 pixels, the family is one of these and no weights are asked for.

    Raises:
        ConfigError: If model, weights or stem do not exist, or the model cannot take images of this size.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        name: str = "resnet18",
        weights: str | None = None,
        stem: Literal["auto", "keep", "small"] = "auto",
        **kwargs: Options[Ending],
    ) -> None:
        check_choice("stem", stem, ("auto", "keep", "small"))
        channels, height, width = check_image_shape("TorchvisionBackbone", input_shape)
        net = _make(name, weights, height, width)
        _adapt_channels(net, channels, pretrained=weights is not None)
        family = next((family for family in _SMALL_STEMS if name.startswith(family)), None)
        if stem == "small" and family is None:
            raise ConfigError(
                f"torchvision's {name} has no small stem: leave stem='keep', or take one of the families "
                f"{', '.join(_SMALL_STEMS)}"
            )
        if family is not None and (stem == "small" or (stem == "auto" and weights is None and min(height, width) < 64)):
            _shrink_stem(net, _SMALL_STEMS[family])
        num_features = _drop_classifier(net, name)
        super().__init__(input_shape, num_features, {"net": net}, **kwargs)
        self.any_size = not name.startswith(("vit", "maxvit"))
        self.names = self._probe(name, num_features)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def tapped(self, x: Tensor, tap: Tap) -> Tensor:
        """Records what is asked for by forward hooks."""

        def record(path: str, output: Tensor) -> None:
            tap(path, output.clone())  # a copy: torchvision works in place on some values right after

        net = self.get_submodule("net")
        handles = [
            net.get_submodule(path).register_forward_hook(
                lambda _module, _args, output, path=path: record(path, output)
            )
            for path in self.names
            if path in tap.names
        ]
        try:
            features: Tensor = net(x)
            return features.flatten(1)
        finally:
            for handle in handles:
                handle.remove()

    def _probe(self, name: str, num_features: int) -> tuple[str, ...]:
        """One forward pass of a black image: finds what runs once, and that the model takes the size at all."""
        net = self.get_submodule("net")
        runs: dict[str, int] = {}

        def count(path: str, output: object) -> None:
            # a path that comes again keeps its first place, and is left out below
            runs[path] = runs.get(path, 0) + (1 if isinstance(output, Tensor) else 2)

        handles = [
            module.register_forward_hook(lambda _module, _args, output, path=path: count(path, output))
            for path, module in net.named_modules()
            if path
        ]
        try:
            with evaluating(net), torch.no_grad():
                features = net(torch.zeros(1, *self.input_shape))
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"torchvision's {name} cannot take images of {describe(self.input_shape)}: {first_line(error)}; "
                "take larger images or another model"
            ) from error
        finally:
            for handle in handles:
                handle.remove()
        if features.flatten(1).shape[1] != num_features:
            raise ConfigError(f"torchvision's {name} is no plain classifier: its features cannot be told")
        return tuple(path for path, count in runs.items() if count == 1)


def _make(name: str, weights: str | None, height: int, width: int) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ConfigError(f"torchvision has no classifier named {name!r}{did_you_mean(name, known)}")
    if weights is not None:
        names = [entry.name for entry in models.get_model_weights(name)]
        if weights not in ("DEFAULT", *names):
            raise ConfigError(f"torchvision has no weights {weights!r} for {name}{did_you_mean(weights, names)}")
    options: dict[str, object] = {}
    if name.startswith("vit"):
        options["image_size"] = height
    elif name.startswith("maxvit"):
        options["input_size"] = (height, width)
    elif weights is None and name in ("googlenet", "inception_v3"):
        options.update(aux_logits=False, init_weights=True)
    try:
        net: nn.Module = models.get_model(name, weights=weights, **options)
    except (ValueError, ZeroDivisionError, AssertionError) as error:
        raise ConfigError(
            f"torchvision's {name} cannot take images of {height} x {width}: {first_line(error)}"
        ) from error
    except OSError as error:
        raise ConfigError(f"the weights {weights} of torchvision's {name} cannot be had: {error}") from error
    if getattr(net, "aux_logits", False):  # Inception's side classifiers come with its weights
        for side in ("aux1", "aux2", "AuxLogits"):
            if hasattr(net, side):
                setattr(net, side, None)
        net.aux_logits = False  # type: ignore[assignment]
    return net


def _adapt_channels(net: nn.Module, channels: int, pretrained: bool) -> None:
    path, conv = _first_conv(net)
    if conv.in_channels == channels:
        return
    fresh = _like(conv, in_channels=channels)
    if pretrained:
        with torch.no_grad():
            fresh.weight.copy_(conv.weight.mean(1, keepdim=True) * (conv.in_channels / channels))
            if fresh.bias is not None and conv.bias is not None:
                fresh.bias.copy_(conv.bias)
    if hasattr(net, "transform_input"):
        net.transform_input = False  # type: ignore[assignment] # Inception's re-scaling of three channels
    _replace(net, path, fresh)


def _shrink_stem(net: nn.Module, pools: tuple[str, ...]) -> None:
    path, conv = _first_conv(net)
    if max(conv.kernel_size) > 3:
        _replace(net, path, _like(conv, kernel_size=3, padding=1))
    else:
        conv.stride = (1, 1)
    for pool in pools:
        _replace(net, pool, nn.Identity())


def _drop_classifier(net: nn.Module, name: str) -> int:
    """Puts identities in place of the last linear layer and the dropouts right before it; returns the layer's width."""
    modules = list(net.named_modules())
    if name.startswith("squeezenet"):  # its classifier is a 1 x 1 convolution before the global pool
        kind: type[nn.Linear] | type[nn.Conv2d] = nn.Conv2d
    else:
        kind = nn.Linear
    position = max(index for index, (_, module) in enumerate(modules) if isinstance(module, kind))
    path, last = modules[position]
    _replace(net, path, nn.Identity())
    while isinstance(modules[position - 1][1], nn.Dropout):
        position -= 1
        _replace(net, modules[position][0], nn.Identity())
    return last.in_channels if isinstance(last, nn.Conv2d) else int(last.in_features)


def _first_conv(net: nn.Module) -> tuple[str, nn.Conv2d]:
    return next((path, module) for path, module in net.named_modules() if isinstance(module, nn.Conv2d))


def _like(
    conv: nn.Conv2d, in_channels: int | None = None, kernel_size: int | None = None, padding: int | None = None
) -> nn.Conv2d:
    """A convolution with some settings changed (a new kernel size has stride 1), He-normal weights and zero bias."""
    fresh = nn.Conv2d(
        conv.in_channels if in_channels is None else in_channels,
        conv.out_channels,
        conv.kernel_size if kernel_size is None else kernel_size,  # type: ignore[arg-type]
        conv.stride if kernel_size is None else 1,  # type: ignore[arg-type]
        conv.padding if padding is None else padding,  # type: ignore[arg-type]
        bias=conv.bias is not None,
    )
    nn.init.kaiming_normal_(fresh.weight, mode="fan_out", nonlinearity="relu")
    if fresh.bias is not None:
        nn.init.zeros_(fresh.bias)
    return fresh


def _replace(net: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, child = path.rpartition(".")
    setattr(net.get_submodule(parent), child, module)
