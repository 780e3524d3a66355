"""PoF (Sato et al., ICML 2022): a trained feature extractor trains on while the linear layer behind it is moved."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_repshape.errors import CheckpointError, ConfigError
from lightning_repshape.features.last_layer import entrance
from lightning_repshape.heads import LinearHead
from lightning_repshape.layers import check_positive, check_scale
from lightning_repshape.modules.base import BackboneCallable, HeadCallable, ModelOutput
from lightning_repshape.modules.foca.source import BalancedSource, BatchSource, source_for
from lightning_repshape.modules.options import Options
from lightning_repshape.modules.supervised import LossOptions, SupervisedModule
from lightning_repshape.seeding import generator, global_seed


def line_search(loss: Callable[[Tensor], Tensor], partitions: int = 16, doublings: int = 7) -> tuple[Tensor, Tensor]:
    """The step of the lowest loss on a line, looked for on a grid whose end the loss itself decides.

    The end S is the first of the steps 1, 2, 4, ..., 2^doublings at which the loss is above that at 0, or the last of
    them where it is above at none. The steps S/P, 2 S/P, ..., S are compared. Nothing waits for the device.

    Args:
        loss: Called with steps, a vector; returns the losses there. Twice in all.
        partitions: P.
        doublings: How often S may double.

    Returns:
        The step of the lowest loss (the first, of several), and S.

    Example:
        >>> step, end = line_search(lambda s: (s - 1.5) ** 2)  # as low as at 0 again at 3, so that S is 4
        >>> float(step), float(end)
        (1.5, 4.0)
    """
    ends = 2.0 ** torch.arange(doublings + 1)
    losses = loss(F.pad(ends, (1, 0)))
    grown = losses[1:] > losses[0]
    grown[-1] = True  # at the last one the search ends
    end = ends.to(losses)[grown.int().argmax()]
    steps = end * torch.arange(1, partitions + 1).to(losses) / partitions
    return steps[loss(steps).argmin()], end


class PoFModule(SupervisedModule):
    """Post-training of a feature extractor (PoF) for flatter minima.

    It starts from a trained network, and phi, all of it below the last linear layer, is trained on. That layer, theta*
    = (W, b), stays as it was trained. In every step phi's loss is computed with another theta in its place, moved from
    theta* along the gradient of a weak batch's loss L_b::

        g       = gradient of L_b(theta) at theta*, on the features of the weak batch, phi fixed
        S       = the first of 1, 2, 4, ..., 2^doublings with L_b(theta* - S g) > L_b(theta*), else the last
        s       = the one of S/P, 2 S/P, ..., S with the lowest L_b(theta* - s g)            P = partitions
        theta   = theta* - gamma s g,   gamma uniform in [0, max_factor)
        phi     is updated by the gradient of L(theta, phi) on the training batch

    Validation, test and ``train/error`` are those of theta*; ``train/loss`` is that of the moved theta. Logged every
    ``log_every_n_steps`` steps, as ``train/...``: ``search_end`` S, ``search_step`` s, and ``perturbation``, the length
    of theta - theta*.

    What is taken from where. The paper (its abstract; its text was not at hand): that phi alone is trained, on from a
    trained network, while the layers above are perturbed in a range found from data, for 10 epochs (50 on SVHN). The
    authors' code (PoF-v1, 2022), whose licence forbids taking it over, gave facts alone: the linear layer, the gradient
    step, the search, a weak batch of 256 drawn uniformly with replacement, its pass in training mode, 16 partitions, a
    uniform factor. It does not run: the factor's range is a name that it never defines, and it steps theta's optimizer
    in place of phi's. Ours: ``max_factor`` 2, with which theta ends between theta* and the other side of the valley,
    as high as theta* where the loss is quadratic; the search's end at 128 (there 128 or, under several processes,
    16,384, where the move is dropped); phi's optimizer, which starts without momentum (there it goes on).

    Under several processes each rank draws its own weak batch and its own factor, as each has its own training batch;
    the gradients of phi are averaged as ever (the authors divide the 256 by the ranks). Optimization is automatic:
    clipping, accumulation (a theta each batch), schedulers and all strategies work as in joint training.

    Args:
        num_classes: Number of classes K. Linked to ``data.num_classes`` on the command line.
        input_shape: Shape of one input, (C, H, W). Linked to ``data.input_shape`` on the command line.
        backbone: Called with ``input_shape``; gives the feature extractor.
        head: Called with the number of features and ``num_classes``; gives the head, whose last layer is linear. Its
            hidden layers, where it has some, are part of phi.
        weak_batch: Samples of the weak batch.
        partitions: P.
        doublings: How often the end of the search may double, from 1.
        max_factor: The largest gamma; 0 trains phi under theta* itself, for comparison.
        **kwargs: The options of :class:`SupervisedModule`.

    Raises:
        ConfigError: If the head's last layer is not linear, or an option is out of its range; and in ``fit``, if no
            trained weights were loaded (``--init_from``, or ``load_state_dict`` in Python).

    References:
        Sato, Yamada, Tanaka, Inoue, Kawakami: PoF: Post-Training of Feature Extractor for Improving Generalization.
        ICML 2022, arXiv 2207.01847.
    """

    def __init__(
        self,
        num_classes: int,
        input_shape: tuple[int, ...],
        backbone: BackboneCallable,
        head: HeadCallable = LinearHead,
        weak_batch: int = 256,
        partitions: int = 16,
        doublings: int = 7,
        max_factor: float = 2.0,
        **kwargs: Options[LossOptions],
    ) -> None:
        super().__init__(num_classes=num_classes, input_shape=input_shape, backbone=backbone, head=head, **kwargs)
        check_positive("weak_batch", weak_batch)
        check_positive("partitions", partitions)
        check_positive("doublings", doublings)
        check_scale("max_factor", max_factor)
        self.weak_batch = weak_batch
        self.partitions = partitions
        self.doublings = doublings
        self.max_factor = max_factor
        self.alpha_name, theta = entrance(self.head)
        if type(theta).forward is not nn.Linear.forward or not isinstance(theta.weight, nn.Parameter):
            raise ConfigError(
                f"PoFModule moves a linear layer, and the last one of {type(self.head).__name__} computes something "
                "else: take a network that was trained with LinearHead or MLPHead, and set --model.head to that one"
            )
        theta.requires_grad_(False)
        self._trained = False
        self._source: BalancedSource | None = None
        self._moved: list[Tensor] = []
        self._figures: dict[str, Tensor] = {}

    @property
    def theta(self) -> list[nn.Parameter]:
        """Theta*: the last linear layer's weight K x D and, where there is one, its bias K."""
        return list(entrance(self.head)[1].parameters())

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As in PyTorch; from here on there is something to train on from."""
        result = super().load_state_dict(state_dict, *args, **kwargs)
        self._trained = True
        return result

    def starting_weights(self, checkpoint: Mapping[str, Any], path: Any) -> dict[str, Any]:
        """The weights of a checkpoint to start from; of FOCA's, the backbone and the secondary head.

        Args:
            checkpoint: What a Lightning checkpoint holds.
            path: Its place, for messages.

        Raises:
            CheckpointError: If its head is none that ends in a linear layer, not this one, or not trained.
        """
        weights, options = dict(checkpoint["state_dict"]), checkpoint.get("hyper_parameters") or {}
        if not bool(weights.pop("head_trained", True)):
            raise CheckpointError(
                f"the secondary head of the FOCA checkpoint {path} is not trained, and PoFModule needs a trained one: "
                "take a checkpoint that a finished fit left"
            )
        theirs = {name[5:]: len(value) for name, value in weights.items() if name.startswith("head.") and value.dim()}
        ours = {name: len(value) for name, value in self.head.state_dict().items() if value.dim()}
        head = options.get("head")
        kind = str(head.get("class_path")).rpartition(".")[2] if isinstance(head, Mapping) else ""
        classes = "similarity" in options or kind == "ClassVectorHead"
        hidden = [width for name, width in theirs.items() if re.fullmatch(r"fc\d+\.linear\.weight", name)]
        linear = {re.sub(r"fc\d+\.(linear|norm)\.\w+|output\.(weight|bias)", "", name) for name in theirs} == {""}
        if classes or (theirs.keys() != ours.keys() and not (linear and "output.weight" in theirs)):
            found = "class vectors" if classes else kind or "none that is known here"
            raise CheckpointError(
                f"PoFModule moves a linear layer, and the head of {path} has none ({found}): give --init_from a "
                "checkpoint that was trained with --model.head LinearHead or --model.head MLPHead, or one of FOCA"
            )
        # Another number of classes is no other head.
        if theirs.keys() != ours.keys() or any(theirs[name] != ours[name] for name in ours if name.startswith("fc")):
            words = ["MLPHead", f"--model.head.hidden '{hidden}'"] if hidden else ["LinearHead"]
            words += ["--model.head.batch_norm true"] if "fc1.norm.weight" in theirs else []
            words += [] if "output.bias" in theirs else ["--model.head.bias false"]
            raise CheckpointError(
                f"the head of {path} is another one than PoFModule's ({type(self.head).__name__}) as configured: "
                f"set --model.head {' '.join(words)}"
            )
        return weights

    def on_fit_start(self) -> None:
        """Refuses to post-train what was not trained."""
        if not self._trained:
            raise ConfigError(
                "PoFModule trains on from a trained network, and these weights are fresh: give --init_from CHECKPOINT "
                "of a joint training with the same backbone and head (in Python: load_state_dict before fit)"
            )
        super().on_fit_start()

    def on_train_start(self) -> None:
        """Finds where weak batches come from."""
        super().on_train_start()
        self._source = source_for(self.trainer, self.num_classes, self.device)

    def training_activations(self) -> tuple[str, ...]:
        """What enters the last linear layer."""
        return (self.alpha_name,)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """One update of phi under a theta of its own."""
        key = (global_seed(), self.current_epoch, batch_idx, self.global_rank)
        source = self._source or BatchSource(*self.unpack(batch), self.num_classes)
        x, target = source.uniform(self.weak_batch, generator("pof-weak", *key), augment=True)
        with torch.no_grad():
            x = x.to(self.dtype) if x.is_floating_point() else x
            alpha = self(x, self.training_activations()).activations[self.alpha_name]
        factor = self.max_factor * float(torch.rand((), generator=generator("pof-factor", *key), dtype=torch.float64))
        self._moved = self.move_theta(alpha, target, factor)
        return super().training_step(batch, batch_idx)

    def move_theta(self, alpha: Tensor, target: Tensor, factor: float) -> list[Tensor]:
        """Theta* moved along the gradient of the loss of a weak batch.

        Args:
            alpha: What enters the last linear layer, N x D.
            target: N class indices, or N x K memberships.
            factor: Gamma, in steps of the lowest loss.

        Returns:
            The weight K x D and, where there is one, the bias K, of theta*'s dtype.
        """
        wide = torch.promote_types(alpha.dtype, torch.float32)
        with torch.autocast(alpha.device.type, enabled=False), torch.no_grad():
            alpha = alpha.to(wide)
            theta = [parameter.to(wide) for parameter in self.theta]
            logits = F.linear(alpha, *theta)
            with torch.enable_grad():
                leaves = [parameter.detach().clone().requires_grad_() for parameter in theta]
                loss = self.classification_loss(F.linear(alpha, *leaves), target)
                gradient = torch.autograd.grad(loss, leaves)
            change = F.linear(alpha, *gradient)

            def losses(steps: Tensor) -> Tensor:
                found = [self.classification_loss(logits - step * change, target) for step in steps.to(logits)]
                return torch.stack(found)

            step, end = line_search(losses, self.partitions, self.doublings)
            length = torch.stack([part.square().sum() for part in gradient]).sum().sqrt()
            self._figures = {"search_end": end, "search_step": step, "perturbation": factor * step * length}
            pairs = zip(self.theta, theta, gradient, strict=True)
            return [(value - factor * step * part).to(kept.dtype) for kept, value, part in pairs]

    def loss(self, output: ModelOutput, target: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The classification loss under the moved theta, and what the search found."""
        logits = F.linear(output.activations[self.alpha_name], *self._moved)
        return self.classification_loss(logits, target), self._figures
