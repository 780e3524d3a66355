"""Any model of timm (PyTorch Image Models) as a backbone."""

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_repshape.errors import CheckpointError, ConfigError, did_you_mean
from lightning_repshape.layers import Tap, check_positive, evaluating
from lightning_repshape.networks.base import Ending, Options, check_image_shape, describe
from lightning_repshape.networks.wrapped import WrappedBackbone, first_line

if TYPE_CHECKING:
    from types import ModuleType


class TimmBackbone(WrappedBackbone):
    """A model of timm without its classifier: ViT, ConvNeXt, ResNet and some hundred other families.

    The features are what the classifier would receive: the pooled values before the logits, with whatever timm counts
    to the pooling (a ViT's class token or mean token, its last norm; MobileNetV3's last convolution). The network keeps
    timm's keys, under ``net``. The activation names are those of timm's stages or blocks (``feature_info``), such as
    ``layer4``, ``stages.3``, ``blocks.11``, and ``net`` for the features; the values come from timm's
    ``forward_intermediates``: maps N x C x H x W, of a ViT without its class token. No hooks: compilers see them.

    A file of weights is read as tensors alone and fitted as timm does it (position embeddings to the image size, the
    first convolution to the channels). Its classifier is left out; further keys that the model lacks are a warning, and
    keys that the file lacks an error.

    Args:
        input_shape: (channels, height, width).
        name: The model's name, as in ``timm.list_models()``.
        weights: A local file of pretrained weights (``.safetensors``, ``.pth``). None starts from random numbers;
            nothing is downloaded.
        image_size: Rows and columns, or one number for both, to which images are brought within the network (bilinear),
            such as the 224 of the weights. None: the data's own.
        normalize: Whether the inputs are pixels in [0, 1] (``data.normalize: unit``) that the network normalises by the
            model's own means and standard deviations, with which its weights were trained (grey: by their average).
        options: Further arguments of ``timm.create_model``, such as ``{patch_size: 4, drop_path_rate: 0.1}``.

    Attributes:
        mean: Of each channel, for pixels in [0, 1], as the model's weights want it.
        std: The standard deviation, likewise.
        pretrained_shape: (channels, height, width) that the model's published weights were trained with.
        report: What was loaded from the file of weights, and what was left out.

    Raises:
        ConfigError: If timm is missing, there is no such model, or it cannot take such images or options.
        CheckpointError: If the file of weights cannot be read, or is another model's.

    References:
        Wightman: PyTorch Image Models. 2019, https://github.com/huggingface/pytorch-image-models.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        name: str = "resnet18",
        weights: str | None = None,
        image_size: int | tuple[int, int] | None = None,
        normalize: bool = False,
        options: dict[str, Any] | None = None,
        **kwargs: Options[Ending],
    ) -> None:
        channels, *size = check_image_shape("TimmBackbone", input_shape)
        if image_size is not None:
            size = [image_size] * 2 if isinstance(image_size, int) else list(image_size)
            check_positive("image_size", *size)
        timm = _timm()
        net, fixed = _make(timm, name, channels, size, dict(options or {}))
        published = net.pretrained_cfg
        self.report = "" if weights is None else _load(timm, net, weights, name, channels)
        shape = (channels, *size)
        stages, num_features = _probe(net, name, shape)
        super().__init__(input_shape, num_features, {"net": net}, **kwargs)
        self.names = (*stages, "net")
        self.any_size = image_size is not None or not fixed
        self.image_size = None if image_size is None else tuple(size)
        self.normalize = normalize
        self.mean, self.std = tuple(published["mean"]), tuple(published["std"])
        self.pretrained_shape = tuple(published["input_size"])
        if normalize:
            for key, values in (("shift", self.mean), ("scale", self.std)):
                row = torch.tensor(values) if channels == len(values) else torch.tensor(values).mean().expand(channels)
                self.register_buffer(key, row.reshape(1, -1, 1, 1).clone(), persistent=False)

    def prepared(self, x: Tensor) -> Tensor:
        """Images of the network's own size and normalisation."""
        if self.image_size is not None:
            x = F.interpolate(x, self.image_size, mode="bilinear", align_corners=False)
        return (x - self.get_buffer("shift")) / self.get_buffer("scale") if self.normalize else x

    def tapped(self, x: Tensor, tap: Tap) -> Tensor:
        """Takes the stages asked for from timm."""
        net: Any = self.get_submodule("net")
        stages = self.names[:-1]
        wanted = [number for number, stage in enumerate(stages) if stage in tap.names]
        if not wanted:
            features: Tensor = net(x)
            return features.flatten(1)
        last, values = net.forward_intermediates(x, indices=wanted)
        for number, value in zip(wanted, values, strict=True):
            tap(stages[number], value)
        features = net.forward_head(last, pre_logits=True)
        return features.flatten(1)


def _timm() -> "ModuleType":
    try:
        import timm
    except ImportError as error:
        raise ConfigError('TimmBackbone needs timm: pip install "lightning-repshape[timm]"') from error
    return timm


def _make(timm: "ModuleType", name: str, channels: int, size: list[int], options: dict[str, Any]) -> tuple[Any, bool]:
    """The model without its classifier, and whether it takes images of this size alone."""
    if not timm.is_model(name):
        known = timm.list_models()
        raise ConfigError(f"timm has no model named {name!r}{did_you_mean(name.partition('.')[0], known)}")
    try:
        published = timm.models.get_pretrained_cfg(name)
    except RuntimeError as error:
        model, _, tag = name.partition(".")
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{model}.*")]
        raise ConfigError(f"timm's {model} has no weights {tag!r}{did_you_mean(tag, tags)}") from error
    fixed = bool(published is not None and published.fixed_input_size)
    given = {"num_classes": 0, "in_chans": channels, **({"img_size": tuple(size)} if fixed else {}), **options}
    try:
        net = timm.create_model(name, pretrained=False, **given)
    except (TypeError, ValueError, RuntimeError, AssertionError, ZeroDivisionError, KeyError) as error:
        beside = f" with options {options}" if options else ""
        raise ConfigError(
            f"timm's {name} cannot be built for images of {describe((channels, *size))}{beside}: {first_line(error)}"
        ) from error
    embed = next((part for part in net.modules() if isinstance(part, timm.layers.PatchEmbed)), None)
    if fixed and embed is not None and embed.img_size is not None and not embed.dynamic_img_pad:
        patch = embed.patch_size
        if any(side % own for side, own in zip(embed.img_size, patch, strict=True)):  # timm drops the rest
            fitting = " x ".join(str(-(-side // own) * own) for side, own in zip(embed.img_size, patch, strict=True))
            raise ConfigError(
                f"timm's {name} cannot take images of {describe((channels, *embed.img_size))}: its patches of "
                f"{describe(patch)} do not divide them; give options patch_size, or another image_size, such as "
                f"{fitting}"
            )
    return net, fixed


def _probe(net: Any, name: str, shape: tuple[int, ...]) -> tuple[tuple[str, ...], int]:
    """One forward pass of a black image: the names of the stages, and how many features there are."""
    entries = getattr(net, "feature_info", None) or []
    stages = tuple(str(entry["module"]) for entry in getattr(entries, "info", entries))
    image = torch.zeros(1, *shape)
    try:
        with evaluating(net), torch.no_grad():
            features = net(image)
            if stages and hasattr(net, "forward_intermediates"):
                found = net.forward_intermediates(image, intermediates_only=True)
                stages = stages if len(found) == len(stages) else ()
            else:
                stages = ()
    except (RuntimeError, ValueError, AssertionError, ZeroDivisionError) as error:
        raise ConfigError(
            f"timm's {name} cannot take images of {describe(shape)}: {first_line(error)}; give another image_size, or "
            "take another model"
        ) from error
    if not isinstance(features, Tensor):
        raise ConfigError(f"timm's {name} is no plain classifier: its features cannot be told")
    return stages, features.flatten(1).shape[1]


def _load(timm: "ModuleType", net: nn.Module, weights: str, name: str, channels: int) -> str:
    """Puts a file's weights into the model; returns what was loaded and what was not."""
    file = Path(weights).expanduser()
    if not file.is_file():
        raise CheckpointError(
            f"weights: there is no file {file}; give one of timm's {name} (.safetensors, .pth), or null for random "
            "numbers"
        )
    try:
        state: Mapping[str, Any] = timm.models.load_state_dict(str(file), weights_only=True)
        state = {key: value for key, value in state.items() if isinstance(value, Tensor)}
        fit = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
        state = dict(fit(dict(state), net)) if fit is not None else state
    except Exception as error:  # the readers' own kinds, and those of timm's many families
        raise CheckpointError(f"weights: {file} holds no weights of timm's {name} ({first_line(error)})") from error
    published: Any = net.pretrained_cfg
    for key in _listed(published.get("first_conv")):
        path = f"{key}.weight"
        if path in state and state[path].dim() == 4 and state[path].shape[1] != channels:
            state[path] = timm.models.adapt_input_conv(channels, state[path])
    heads = tuple(f"{key}." for key in _listed(published.get("classifier")))
    left_out = [key for key in state if key.startswith(heads)] if heads else []
    try:
        result = net.load_state_dict({key: state[key] for key in state.keys() - set(left_out)}, strict=False)
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        raise CheckpointError(f"weights: {file} is not of timm's {name}: {lines[-1].strip()}") from error
    missing, further = result.missing_keys, result.unexpected_keys
    if missing:
        raise CheckpointError(
            f"weights: {file} is not of timm's {name}, it lacks {len(missing)} of the model's "
            f"{len(net.state_dict())} tensors ({_some(missing)})"
        )
    if further:
        warnings.warn(
            f"weights: {file} has {len(further)} tensors that timm's {name} lacks ({_some(further)}); they are left "
            "out",
            stacklevel=3,
        )
    report = f"{len(state) - len(left_out) - len(further)} tensors of {file}"
    return f"{report}, without its classifier ({_some(left_out)})" if left_out else report


def _listed(names: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())


def _some(names: list[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
