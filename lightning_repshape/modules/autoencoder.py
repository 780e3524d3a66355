"""The image reconstruction task: an autoencoder with penalties on its code (Choi and Rhee, AAAI 2019, table 10)."""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_repshape.layers import (
    Activation,
    Init,
    NamedActivations,
    check_positive,
    initialize,
    linear_layer,
)
from lightning_repshape.metrics.reconstruction import ReconstructionSums
from lightning_repshape.modules.base import ClassifierModule
from lightning_repshape.modules.options import Optimization, Options
from lightning_repshape.modules.penalties import Penalties, epochs_done, layer_of, listed
from lightning_repshape.networks.mlp import MLP
from lightning_repshape.regularizers import Regularizer


class AutoencoderOutput(NamedTuple):
    """What a forward pass of an autoencoder returns.

    Attributes:
        reconstruction: N x ``input_shape``.
        features: N x D, the code.
        activations: The activations asked for, by name.
        inputs: What went in, N x ``input_shape``.
    """

    reconstruction: Tensor
    features: Tensor
    activations: dict[str, Tensor]
    inputs: Tensor

    @property
    def logits(self) -> None:
        """None: an autoencoder names no classes. Analyses leave out what needs logits."""
        return None


class Decoder(NamedActivations):
    """From a code to a flat input: ``fc<first>``, ... with an activation function, then ``reconstruction`` without.

    Args:
        num_features: Width of the code.
        widths: Units of the hidden layers; none is allowed.
        outputs: Values of one flattened input.
        first: The number in the first layer's name.
        activation: The non-linearity of the hidden layers.
        init: See :func:`lightning_repshape.layers.initialize`.
    """

    def __init__(
        self,
        num_features: int,
        widths: Sequence[int],
        outputs: int,
        first: int = 1,
        activation: Activation = "relu",
        init: Init = "glorot",
    ) -> None:
        check_positive("decoder_widths", *widths)
        steps: dict[str, nn.Module] = {}
        width = num_features
        for number, out in enumerate(widths, start=first):
            steps[f"fc{number}"] = linear_layer(width, out, activation)
            width = out
        steps["reconstruction"] = linear_layer(width, outputs, None)
        super().__init__(steps)
        initialize(self, init)


class AutoencoderModule(ClassifierModule):
    """A fully connected autoencoder with any number of penalties on its layers.

    The defaults are the network of Choi and Rhee 2019 (appendix A.2) for 28 x 28 pixels: 784-400-200-100-200-400-784,
    ReLU after every hidden layer, a linear output, Glorot-uniform weights and zero biases. The loss is the squared
    error, averaged over samples and pixels, plus sum of weight * Omega(z); the paper has penalties on the third layer,
    the code. Class indices serve the penalties alone. The inputs' range is the data module's: the paper's figures are
    of pixels in [0, 1] (``normalize: unit``).

    Layers are numbered through: ``fc1``, ``fc2``, ``fc3`` (the code, also called ``features``), ``fc4``, ``fc5``,
    ``reconstruction``. Logged are ``train/loss``, ``train/mse``, ``val/mse``, ``test/mse``, and each penalty weighted,
    as ``train/<regularizer>/<layer>``, and raw, with ``_raw`` behind.

    Args:
        num_classes: Number of classes K, for class-wise penalties. Linked to ``data.num_classes`` on the command line.
        input_shape: Shape of one input, flattened by the network. Linked to ``data.input_shape`` on the command line.
        regularizers: The penalties. Default: none, the paper's baseline.
        widths: Units of the encoder's layers; the last one is the code.
        decoder_widths: Units of the decoder's hidden layers. Default: the encoder's mirrored, (200, 400).
        activation: The non-linearity of all layers but the last.
        init: ``glorot`` (the paper), ``he`` or ``torch``, see :func:`lightning_repshape.layers.initialize`.
        **kwargs: ``optimizer``, ``lr_scheduler`` and ``lr_scheduler_interval``, see :class:`ClassifierModule`.

    Raises:
        ConfigError: If a width is no positive number, or a regularizer's layer does not exist.

    Example:
        >>> from lightning_repshape.regularizers import ClasswiseVariance
        >>> module = AutoencoderModule(10, (1, 28, 28), [ClasswiseVariance(weight=0.1, layer="fc3")])
        >>> module.activation_names
        ('fc1', 'fc2', 'fc3', 'features', 'fc4', 'fc5', 'reconstruction')
        >>> module(torch.zeros(2, 1, 28, 28)).reconstruction.shape
        torch.Size([2, 1, 28, 28])
    """

    monitor: ClassVar[str] = "val/mse"
    """What the best checkpoint has least of."""

    def __init__(
        self,
        num_classes: int,
        input_shape: tuple[int, ...],
        regularizers: Sequence[Regularizer] = (),
        widths: Sequence[int] = (400, 200, 100),
        decoder_widths: Sequence[int] | None = None,
        activation: Activation = "relu",
        init: Init = "glorot",
        **kwargs: Options[Optimization],
    ) -> None:
        hidden = list(decoder_widths) if decoder_widths is not None else list(widths)[-2::-1]

        def encoder(shape: tuple[int, ...]) -> MLP:
            return MLP(shape, widths, activation, init=init)

        def decoder(num_features: int, _: int) -> Decoder:
            return Decoder(num_features, hidden, math.prod(input_shape), len(widths) + 1, activation, init)

        super().__init__(
            num_classes=num_classes,
            input_shape=input_shape,
            backbone=encoder,
            head=decoder,
            statistics_layer="features",
            channels_last=False,
            test_flip=False,
            **kwargs,
        )
        self.regularizers = nn.ModuleList(listed(regularizers))
        self._penalties = Penalties(regularizers, self.check_activation_name, self._layer_of_weights, self)
        self._epochs_done = 0.0
        self.train_errors = ReconstructionSums()
        self.val_errors = ReconstructionSums()
        self.test_errors = ReconstructionSums()

    @property
    def encoder(self) -> MLP:
        """From inputs to the code: the module's ``backbone``."""
        return self.backbone  # type: ignore[return-value]

    @property
    def decoder(self) -> Decoder:
        """From the code to flat inputs: the module's ``head``."""
        return self.head  # type: ignore[return-value]

    @property
    def activation_names(self) -> tuple[str, ...]:
        """The names that :meth:`forward` takes, in the order in which they are computed."""
        return (*self.encoder.activation_names, "features", *self.decoder.activation_names)

    def _layer_of_weights(self, layer: str) -> nn.Module:
        """The part that computes an activation."""
        name = self.check_activation_name(layer)
        if name in self.decoder.activation_names:
            return layer_of(self.decoder, name)
        return layer_of(self.encoder, self.encoder.output_name if name == "features" else name)

    # -- forward -----------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor, activations: Sequence[str] = ()) -> AutoencoderOutput:  # type: ignore[override]
        """Code N x D, reconstruction N x ``input_shape``, and the activations asked for, by name."""
        in_decoder = [name for name in activations if name in self.decoder.activation_names]
        in_encoder = [name for name in activations if name not in (*in_decoder, "features")]
        features, found = self.encoder.forward_activations(x, in_encoder)
        flat, further = self.decoder.forward_activations(features, in_decoder)
        available = {**found, **further, "features": features}
        return AutoencoderOutput(
            flat.reshape(-1, *self.input_shape), features, {name: available[name] for name in activations}, x
        )

    def training_activations(self) -> tuple[str, ...]:
        """The layers of the regularizers."""
        return self._penalties.layers

    def reconstruction_loss(self, output: AutoencoderOutput) -> Tensor:
        """The squared error, averaged over samples and pixels; float32 also for half-precision values."""
        reconstruction, inputs = output.reconstruction, output.inputs
        if reconstruction.dtype != torch.float64:
            reconstruction, inputs = reconstruction.float(), inputs.float()
        return F.mse_loss(reconstruction, inputs)

    def loss(  # type: ignore[override]
        self, output: AutoencoderOutput, target: Tensor
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Reconstruction loss plus penalties, and the terms by name; class-wise penalties alone read the target."""
        error = self.reconstruction_loss(output)
        total, terms = self._penalties.add_to(error, output.activations, target, self.num_classes, self._epochs_done)
        return total, {"reconstruction_loss": error, **terms}

    # -- stages ------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """One joint step: forward pass, loss, sums for the epoch's figures."""
        x, target = batch[0], batch[1]
        self._epochs_done = epochs_done(self, batch_idx)
        loss, terms = self.loss(self(x, self.training_activations()), target)
        self.watch(loss)
        self.train_errors.update(loss, terms["reconstruction_loss"], x.shape[0])
        self.log_step(loss, terms)
        return loss

    def on_train_epoch_end(self) -> None:
        """Logs the epoch's ``train/loss`` and ``train/mse``."""
        if int(self.train_errors.update_count) > 0:
            figures = self.train_errors.compute()
            self.train_errors.reset()
            self._stop_unless_finite(figures["loss"], "training loss")
            self.log_figures("train", figures)
            self.log_last_terms()
        super().on_train_epoch_end()

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Adds a batch to the validation error."""
        self._add_error(batch, self.val_errors)

    def test_step(self, batch: Sequence[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Adds a batch to the test error."""
        self._add_error(batch, self.test_errors)

    def _add_error(self, batch: Sequence[Tensor], sums: ReconstructionSums) -> None:
        """In float64, so that neither the batch size nor the number of processes shows."""
        x = batch[0]
        error = F.mse_loss(self(x).reconstruction.double(), x.double())
        sums.update(error, error, x.shape[0])

    def on_validation_epoch_end(self) -> None:
        """Logs ``val/mse``."""
        self._log_error("val", self.val_errors)

    def on_test_epoch_end(self) -> None:
        """Logs ``test/mse``."""
        self._log_error("test", self.test_errors)

    def _log_error(self, stage: str, sums: ReconstructionSums) -> None:
        error = sums.compute()["mse"]
        if stage == "val" and self.trainer.state.fn == "fit" and int(sums.update_count) > 0:
            self._stop_unless_finite(error, "validation error")
        sums.reset()
        self.log_figures(stage, {"mse": error})
        if stage == "val":
            self.log("val_mse", error.float(), prog_bar=True, logger=False, sync_dist=self.trainer.world_size > 1)

    def predict_step(self, batch: Sequence[Tensor], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """``mse`` N, ``reconstruction`` N x ``input_shape``, ``target`` N (-1: unknown), ``index`` N where known."""
        x = batch[0]
        reconstruction = self(x).reconstruction
        error = (reconstruction.double() - x.double()).flatten(1).square().mean(dim=1)
        prediction = {"mse": error, "reconstruction": reconstruction, "target": batch[1]}
        if len(batch) > 2:
            prediction["index"] = batch[2]
        return prediction
