"""Several trainings as one program: small networks over a leading dimension, each with its own batches.

Networks of one shape are evaluated together, since a step of a small one is mostly the start of its operations. What a
training's method adds stays its own: its loss is asked for with its own part of the logits and activations. Between
two calls of :func:`train` nothing is shared: parameters and optimizers' states are copied in and out.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_repshape.layers import Chain, Layer, NamedActivations
from lightning_repshape.modules.base import ClassifierModule, ModelOutput
from lightning_repshape.modules.optimizers import made, rebuilt
from lightning_repshape.networks.base import Backbone
from lightning_repshape.performance import OPTIMIZER_HOOKS, STEP_HOOKS

# Layers by what is done with them: one product for all, the same on more dimensions, each by itself.
_ALIKE = (nn.ReLU, nn.Sigmoid, nn.Softplus, nn.Tanh, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Identity)
_EACH = (
    nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.BatchNorm1d, nn.BatchNorm2d,
    nn.LayerNorm, nn.GroupNorm,
)  # fmt: skip
_OPTIMIZERS = (
    torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam, torch.optim.RMSprop,
    torch.optim.Adagrad, torch.optim.Adadelta, torch.optim.Adamax,
)  # fmt: skip
_COUNTERS = ("step", "mu_product")  # states that are no parameter's own


class _Linear(nn.Module):
    """Linear layers on E x N x I."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is None:
            return torch.bmm(x, self.weight.transpose(1, 2))
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.transpose(1, 2))


class _Each(nn.Module):
    """Layers that are called one after the other, each with its own part."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = tuple(layers)  # which stay parts of their own networks

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([layer(part) for layer, part in zip(self.layers, x.unbind(), strict=True)])


def _stacked(parts: Sequence[nn.Module], path: str, parameters: Mapping[str, Tensor]) -> nn.Module:
    """The layers of one place of all networks as one; ValueError, with the kind of layer, where that cannot be."""
    lead = parts[0]
    forward = type(lead).forward
    if isinstance(lead, Chain | nn.Sequential) and forward in (Chain.forward, Backbone.forward, nn.Sequential.forward):
        names = [name for name, _ in lead.named_modules(remove_duplicate=False) if name and "." not in name]
        steps = {
            name: _stacked([part.get_submodule(name) for part in parts], f"{path}.{name}", parameters) for name in names
        }
        return Layer(steps) if isinstance(lead, Layer) else NamedActivations(steps)
    if type(lead) is nn.Linear and f"{path}.weight" in parameters:
        if lead.bias is None or f"{path}.bias" in parameters:
            return _Linear(parameters[f"{path}.weight"], parameters.get(f"{path}.bias"))
        return _Each(parts)
    if type(lead) is nn.Linear or type(lead) in _EACH:
        return _Each(parts)
    if type(lead) is nn.Flatten:
        return nn.Flatten(*(side + 1 if side >= 0 else side for side in (lead.start_dim, lead.end_dim)))
    if type(lead) in _ALIKE:
        return lead
    raise ValueError(f"its network has a {type(lead).__name__}")


class _Network(nn.Module):
    """Backbones and heads on E x N x ..., as a module calls them."""

    forward = cast(Any, ClassifierModule.forward)

    def __init__(self, modules: Sequence[ClassifierModule], parameters: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.backbone = _stacked([module.backbone for module in modules], "backbone", parameters)
        self.head = _stacked([module.head for module in modules], "head", parameters)


def refusal(trainer: Trainer, module: LightningModule) -> str:
    """Why a training cannot be stacked with others; empty where it can.

    Args:
        trainer: Its trainer, which has not begun.
        module: What it trains.
    """
    if not isinstance(module, ClassifierModule):
        return f"{type(module).__name__} is no classifier"
    for hook in ("training_step", *STEP_HOOKS, *OPTIMIZER_HOOKS):
        if getattr(type(module), hook) is not getattr(ClassifierModule, hook):
            return f"{type(module).__name__} has a {hook} of its own"
    if trainer.world_size > 1:
        return f"it runs on {trainer.world_size} devices"
    if str(trainer.precision) != "32-true":
        return f"its precision is {trainer.precision}"
    if trainer.gradient_clip_val:
        return "its gradients are clipped"
    if trainer.accumulate_grad_batches != 1:
        return "its gradients are accumulated"
    if module.lr_scheduler_callable is not None and module.lr_scheduler_interval == "step":
        return "its learning rate changes at every step"
    optimizer = made("optimizer", module.optimizer_callable, [nn.Parameter(torch.zeros(1))])
    if type(optimizer) not in _OPTIMIZERS:
        return f"{type(optimizer).__name__} is no optimizer that works element by element"
    try:
        network = _Network([module], _together([module]))
    except ValueError as error:
        return str(error)
    return "" if _same(module, network) else f"{type(module).__name__} computes more than its backbone and head do"


def _same(module: ClassifierModule, network: nn.Module) -> bool:
    """Whether a stack of one gives what the module itself gives."""
    x = torch.linspace(-1, 1, 2 * math.prod(module.input_shape)).reshape(2, *module.input_shape)
    names = module.training_activations()
    mode, _ = module.training, module.eval()
    with torch.no_grad():
        own, stacked = module(x, names), network(x.unsqueeze(0), names)
    module.train(mode)
    pairs = [(own.logits, stacked.logits), (own.features, stacked.features)]
    pairs += [(own.activations[name], stacked.activations[name]) for name in names]
    return all(other[0].shape == one.shape and torch.allclose(one, other[0], 1e-4, 1e-4) for one, other in pairs)


def _together(modules: Sequence[ClassifierModule]) -> dict[str, nn.Parameter]:
    """The trainable parameters of all modules over a leading dimension, by name."""
    own = [dict(module.named_parameters()) for module in modules]
    found = {}
    for name, lead in own[0].items():
        if lead.requires_grad:
            found[name] = nn.Parameter(_joined([one[name].detach() for one in own]))
    return found


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Tensors over a leading dimension, in a memory format that is kept by steps: optimizers go through memory."""
    if parts[0].dim() == 2:  # as the gradients of a product are
        return torch.stack([part.t() for part in parts]).transpose(1, 2)
    if parts[0].dim() == 4 and parts[0].is_contiguous(memory_format=torch.channels_last):
        return torch.stack([part.permute(0, 2, 3, 1) for part in parts]).permute(0, 1, 4, 2, 3)
    return torch.stack(tuple(parts))


@dataclasses.dataclass(eq=False)
class Cell:
    """A training of a stack."""

    trainer: Trainer
    module: ClassifierModule
    batches: Iterator[Any] = dataclasses.field(default_factory=lambda: iter(()))  #: its own, of the present epoch
    done: int = 0  #: steps of this turn that are done
    over: bool = False  #: whether it makes no further steps, since its loss is no finite number or it has an error
    error: Exception | None = None  #: what its loss or batches raised
    loss: Tensor = dataclasses.field(default_factory=lambda: torch.zeros(()))
    terms: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)

    def kind(self) -> tuple[Any, ...]:
        """What must be equal for two trainings to make their next steps together."""
        module, (optimizer,) = self.module, self.trainer.optimizers
        shapes = tuple((name, tuple(own.shape)) for name, own in module.named_parameters() if own.requires_grad)
        groups = [{name: own for name, own in group.items() if name != "params"} for group in optimizer.param_groups]
        settings = (type(optimizer).__name__, repr(groups), [len(group["params"]) for group in optimizer.param_groups])
        structure = (repr(module.backbone), repr(module.head), shapes, repr(settings))
        return (self.trainer.global_step, self.left(), self.trainer.num_training_batches, *structure)

    def left(self) -> int:
        """How many steps there are until the trainer has something else to do, such as logging."""
        trainer, step = self.trainer, self.trainer.global_step
        fetched, interval = int(getattr(self.batches, "fetched", 0)), self.module.log_interval
        until = [interval - step % interval, trainer.num_training_batches - fetched]
        if trainer.check_val_every_n_epoch is None:
            return 1
        validated = trainer.val_check_batch
        if validated is not None and math.isfinite(validated):
            until.append(int(validated) - fetched % int(validated))
        if trainer.max_steps > 0:
            until.append(trainer.max_steps - step)
        return max(1, int(min(until)))

    def fetch(self) -> tuple[Tensor, Tensor]:
        """The next batch's inputs and labels."""
        batch, number, _ = next(self.batches)
        self.module.begin_step(number)
        return self.module.unpack(self.trainer.strategy.batch_to_device(batch, dataloader_idx=0))

    def finish(self) -> Tensor:
        """Makes trainer and metrics know the steps, within the training's own step; its loss, or raises its error."""
        module, loop = self.module, self.trainer.fit_loop.epoch_loop
        more = max(0, self.done - 1)  # Lightning counts one itself
        loop.batch_progress.increment_by(more)
        optimizing = loop.automatic_optimization.optim_progress.optimizer
        optimizing.step.increment_by(more)
        optimizing.zero_grad.increment_by(more)
        state = loop.on_save_checkpoint()
        loop.on_load_checkpoint({**state, "_batches_that_stepped": state["_batches_that_stepped"] + more})
        self.done = 0
        if self.error is not None:
            raise self.error
        module.watch(self.loss.detach().cpu())
        module.log_step(self.loss, self.terms)
        return self.loss.detach().requires_grad_()  # which the trainer's backward pass finds nothing behind


def train(cells: Sequence[Cell]) -> None:
    """Makes the next steps of trainings of one kind, until their trainers have something else to do.

    A training whose loss is no finite number, or that raises, stays as it is from there on, and
    :meth:`Cell.finish` says so; the others go on.

    Args:
        cells: Trainings whose :meth:`Cell.kind` is equal.
    """
    modules = [cell.module for cell in cells]
    parameters = _together(modules)
    own = [{name: one for name, one in module.named_parameters() if name in parameters} for module in modules]
    kept = [{name: one.data for name, one in each.items()} for each in own]
    optimizer = _optimizer(cells, own, parameters)
    network = _Network(modules, parameters)
    names = tuple(dict.fromkeys(name for module in modules for name in module.training_activations()))
    try:
        for number, each in enumerate(own):  # they show the same memory meanwhile: penalties read them
            for name, one in each.items():
                one.data = parameters[name].data[number]
        for _ in range(cells[0].left()):
            _step(cells, network, names)
            _collect(own, parameters)
            optimizer.step()
            optimizer.zero_grad()
    finally:
        for each, data in zip(own, kept, strict=True):
            for name, one in each.items():
                data[name].copy_(one.data)
                one.data, one.grad = data[name], None
    _hand_back(cells, own, parameters, optimizer)


def _step(cells: Sequence[Cell], network: nn.Module, names: tuple[str, ...]) -> None:
    """One step's forward and backward pass."""
    inputs: list[Tensor | None] = []
    targets: list[Tensor | None] = []
    for cell in cells:
        x = target = None
        if not cell.over:
            try:
                x, target = cell.fetch()
            except Exception as error:
                cell.over, cell.error = True, error
        inputs.append(x)
        targets.append(target)
    shape = next((x for x in inputs if x is not None), None)
    if shape is None:
        return
    output = network(torch.stack([torch.zeros_like(shape) if x is None else x for x in inputs]), names)
    logits, features = output.logits.unbind(), output.features.unbind()
    values = {name: output.activations[name].unbind() for name in names}
    steps: list[tuple[Cell, Tensor, Tensor]] = []
    for number, (cell, target) in enumerate(zip(cells, targets, strict=True)):
        if target is None:
            continue
        part = ModelOutput(logits[number], features[number], {name: own[number] for name, own in values.items()})
        try:
            cell.loss, cell.terms = cell.module.loss(part, target)
        except Exception as error:
            cell.over, cell.error = True, error
            continue
        cell.done += 1
        steps.append((cell, part.logits, target))
    if not steps:
        return
    losses = torch.stack([cell.loss for cell, _, _ in steps])
    for (cell, own, target), value in zip(steps, losses.detach().tolist(), strict=True):
        cell.over = not math.isfinite(value)
        if not cell.over:
            cell.module.train_sums.hold(cell.loss, own, target)
    if any(cell.over for cell, _, _ in steps):
        losses = torch.stack([cell.loss for cell, _, _ in steps if not cell.over] or [losses.detach().sum()])
    if losses.requires_grad:
        losses.sum().backward()  # type: ignore[no-untyped-call]


def _collect(own: Sequence[Mapping[str, nn.Parameter]], parameters: Mapping[str, nn.Parameter]) -> None:
    """Adds what arrived at the trainings' own parameters to the gradients of all."""
    for name, joined in parameters.items():
        parts = [each[name].grad for each in own]
        if all(part is None for part in parts):
            continue
        if joined.grad is None:
            joined.grad = torch.zeros_like(joined)
        for number, part in enumerate(parts):
            if part is not None:
                joined.grad[number] += part
                own[number][name].grad = None


def _optimizer(
    cells: Sequence[Cell], own: Sequence[Mapping[str, nn.Parameter]], parameters: Mapping[str, nn.Parameter]
) -> torch.optim.Optimizer:
    """One optimizer of all, with what theirs have kept."""
    theirs = [cell.trainer.optimizers[0] for cell in cells]
    names = {one: name for name, one in own[0].items()}
    groups = [
        {**group, "params": [parameters[names[one]] for one in group["params"]]} for group in theirs[0].param_groups
    ]
    optimizer = rebuilt(theirs[0], groups)
    for name, joined in parameters.items():
        for key, lead in theirs[0].state.get(own[0][name], {}).items():
            if isinstance(lead, Tensor) and key not in _COUNTERS:
                lead = _joined([one.state[each[name]][key] for one, each in zip(theirs, own, strict=True)])
            elif isinstance(lead, Tensor):
                lead = lead.clone()
            optimizer.state[joined][key] = lead
    return optimizer


def _hand_back(
    cells: Sequence[Cell],
    own: Sequence[Mapping[str, nn.Parameter]],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Gives each training's optimizer what the common one keeps."""
    for number, (cell, each) in enumerate(zip(cells, own, strict=True)):
        for name, joined in parameters.items():
            for key, value in optimizer.state.get(joined, {}).items():
                if isinstance(value, Tensor):
                    own_part = value.clone() if key in _COUNTERS else torch.empty_like(each[name]).copy_(value[number])
                cell.trainer.optimizers[0].state[each[name]][key] = own_part if isinstance(value, Tensor) else value
