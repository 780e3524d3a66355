"""A trained model to take along: images in, classes, probabilities and features out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn

from lightning_repshape.data.preprocessing import Preprocessing
from lightning_repshape.errors import CheckpointError, ConfigError, RepshapeError
from lightning_repshape.export.rebuilding import data_of, rebuilt
from lightning_repshape.features.reader import LayerReader
from lightning_repshape.layers import evaluating
from lightning_repshape.runs.checkpoints import check_weights, read_checkpoint
from lightning_repshape.runs.files import read_json
from lightning_repshape.runs.folders import find_checkpoint, given_path, is_run_folder, run_of_checkpoint

EXPORT_CONFIG = "config.json"
WEIGHTS = "model.safetensors"


class Predictions(NamedTuple):
    """What a model takes images for.

    Attributes:
        classes: The most probable class of each of N images, by name.
        probabilities: float32 N x K, on the CPU.
    """

    classes: list[str]
    probabilities: Tensor


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, for what is written about it.

    Attributes:
        class_path: Of its module; empty where that was given.
        options: The module's, as plain data.
        path: The checkpoint or the export.
        run: The run's folder, where there is one.
        epoch: Epochs of training behind the weights; None: not known.
        step: Optimizer steps; None: not known.
    """

    class_path: str = ""
    options: Mapping[str, Any] | None = None
    path: Path | None = None
    run: Path | None = None
    epoch: int | None = None
    step: int | None = None


class RepshapeModel(nn.Module):
    """A trained network with its classes' names and its preprocessing, for images of any size.

    Images are paths, images of PIL, or tensors C x H x W or N x C x H x W, uint8 or floating-point in [0, 1]; one of
    them, or a sequence. They are brought to the network's size and channels and normalised as its training images were.
    Methods compute in evaluation mode, without gradients, where the parameters lie: ``model.to("cuda")`` moves it all.

    Args:
        module: A classifier of this package, or any module from inputs N x C x H x W to logits N x K.
        preprocessing: What its inputs and classes are, such as ``data.preprocessing()`` of a data module.
        origin: Where it comes from.

    Example:
        >>> from lightning_repshape import DigitsDataModule, MLP, SupervisedModule
        >>> data = DigitsDataModule()
        >>> model = RepshapeModel(SupervisedModule(10, (1, 8, 8), backbone=MLP), data.preprocessing())
        >>> model.predict(torch.rand(2, 1, 20, 30)).probabilities.shape
        torch.Size([2, 10])
    """

    def __init__(self, module: nn.Module, preprocessing: Preprocessing, origin: Origin | None = None) -> None:
        super().__init__()
        self.module = module
        self.preprocessing = preprocessing
        self.origin = origin or Origin()
        first = next(module.parameters(), torch.zeros(0))
        self.mean, self.std = (
            nn.Buffer(torch.tensor(values, dtype=torch.float32, device=first.device).view(-1, 1, 1), persistent=False)
            for values in (preprocessing.mean, preprocessing.std)
        )
        self.eval()

    @classmethod
    def from_run(
        cls,
        run: str | Path,
        checkpoint: str = "best",
        *,
        module: nn.Module | None = None,
        preprocessing: Preprocessing | None = None,
        trust: bool = False,
    ) -> Self:
        """Reads a run's folder, a checkpoint file, or an export's folder; the training data are not needed.

        No code in them is run: weights are read as tensors and plain data, and only classes of this package, PyTorch
        and Lightning are imported because they are named there.

        Args:
            run: The folder or file.
            checkpoint: Of a run's folder, ``"best"`` or ``"last"``.
            module: The network, where it was not built from the command line; its weights are replaced.
            preprocessing: Where the checkpoint does not tell. (Those of version 0.1 do not; then the run's data module
                is asked.)
            trust: Whether other classes that the run names, such as your own, may be imported.

        Raises:
            CheckpointError: There is nothing to read, or it does not tell enough.
            ConfigError: It names code that nobody trusts.
        """
        path = given_path(run, "the run")
        if (path / EXPORT_CONFIG).is_file():
            return cls._of_export(path, module, trust)
        if path.is_dir() or not path.exists():
            if not is_run_folder(path):
                state = "holds neither a run nor an export" if path.is_dir() else "does not exist"
                raise CheckpointError(f"{path} {state}; name a run's folder, a checkpoint file, or an export's folder")
            owner: Path | None = path
            path = find_checkpoint(checkpoint, path)
        else:
            owner = run_of_checkpoint(path)
        content = read_checkpoint(path)
        options = dict(content.get("hyper_parameters") or {})
        class_path = str(options.pop("_class_path", ""))
        options.pop("_instantiator", None)
        if module is None:
            if not class_path:
                raise CheckpointError(
                    f"{path} was not written by the command line and does not say how its network is built; give it: "
                    "RepshapeModel.from_run(..., module=...)"
                )
            module = rebuilt(class_path, options, path, owner, trust)
        inputs = preprocessing or Preprocessing.in_checkpoint(content, path) or _asked(path, owner, trust)
        _load(module, content["state_dict"], path)
        origin = Origin(class_path, options, path, owner, content.get("epoch"), content.get("global_step"))
        return cls(module, inputs, origin)

    @classmethod
    def _of_export(cls, folder: Path, module: nn.Module | None, trust: bool) -> Self:
        where = folder / EXPORT_CONFIG
        content = read_json(where)
        made = content.get("model")
        if not isinstance(made, Mapping) or not isinstance(made.get("init_args", {}), Mapping):
            raise CheckpointError(f"{where} is no export's: it names no model")
        inputs = Preprocessing.of_plain(content.get("preprocessing"), where)
        if not (folder / WEIGHTS).is_file():
            raise CheckpointError(f"{folder} holds no {WEIGHTS}; export it with --format safetensors")
        load_file = needed("safetensors.torch", "safetensors").load_file
        try:
            weights = load_file(folder / WEIGHTS)
        except Exception as error:  # a damaged header can raise anything
            raise CheckpointError(
                f"{folder / WEIGHTS} cannot be read ({error}); it is damaged: get it again"
            ) from error
        class_path, options = str(made.get("class_path") or ""), dict(made.get("init_args") or {})
        if module is None:
            if not class_path:
                raise CheckpointError(
                    f"{where} does not say how the network is built; give it: from_run(..., module=...)"
                )
            module = rebuilt(class_path, options, where, None, trust)
        _load(module, weights, folder / WEIGHTS)
        return cls(module, inputs, Origin(class_path, options, folder))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the K classes, in the order of the probabilities."""
        return self.preprocessing.class_names

    @property
    def activation_names(self) -> tuple[str, ...]:
        """What :meth:`activations` takes: of another project's module, the paths of its submodules."""
        names = getattr(self.module, "activation_names", None)
        return tuple(names) if names else tuple(name for name, _ in self.module.named_modules() if name)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of what :meth:`forward` returns."""
        blank = self.mean.new_zeros(1, *self.preprocessing.input_shape)
        with torch.no_grad(), evaluating(self.module):
            return tuple(self._outputs(blank))

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """What exported programs compute, with gradients.

        Args:
            pixels: float32 N x C x H x W in [0, 1], of the network's size.

        Returns:
            Probabilities N x K and, of this package's modules, features N x D; of an autoencoder the reconstruction
            (normalised as its inputs) and features. See :attr:`output_names`.
        """
        return tuple(self._outputs((pixels - self.mean) / self.std).values())

    def _outputs(self, x: Tensor) -> dict[str, Tensor]:
        output = self.module(x)
        if hasattr(output, "reconstruction"):
            return {"reconstruction": output.reconstruction, "features": output.features}
        logits = getattr(output, "logits", output)
        if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[1] != len(self.class_names):
            what = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise ConfigError(
                f"{type(self.module).__name__} returns {what}, but logits N x {len(self.class_names)} are expected"
            )
        found = {"probabilities": logits.float().softmax(dim=1)}
        features = getattr(output, "features", None)
        if getattr(self.module, "verifies_pairs", False):  # which may average over mirror images
            features = self.module.embed(x)  # type: ignore[operator]
        return found if features is None else {**found, "features": features}

    def predict(self, images: Any, batch_size: int = 256) -> Predictions:
        """Classes and probabilities of images.

        Args:
            images: See :class:`RepshapeModel`.
            batch_size: Images at a time.

        Raises:
            DataError: An image cannot be read; it is named.
            ConfigError: The model names no classes, as an autoencoder.
        """
        probabilities = self._of_all(images, batch_size, "probabilities")
        return Predictions([self.class_names[label] for label in probabilities.argmax(dim=1).tolist()], probabilities)

    def top(self, images: Any, count: int = 5, batch_size: int = 256) -> list[list[tuple[str, float]]]:
        """For each image the ``count`` most probable classes, or all, with their probabilities; as :meth:`predict`."""
        ranked = self._of_all(images, batch_size, "probabilities").sort(dim=1, descending=True, stable=True)
        return [
            [(self.class_names[label], value) for label, value in zip(labels, values, strict=True)]
            for labels, values in zip(ranked[1][:, :count].tolist(), ranked[0][:, :count].tolist(), strict=True)
        ]

    def features(self, images: Any, batch_size: int = 256) -> Tensor:
        """Features float32 N x D of images, on the CPU: what the head receives, or by which faces are compared.

        Raises as :meth:`predict` does; ConfigError: another project's model, whose layers :meth:`activations` names.
        """
        return self._of_all(images, batch_size, "features")

    def activations(self, images: Any, names: str | Sequence[str], batch_size: int = 256) -> dict[str, Tensor]:
        """Activations of images by name, float32 N x I with further dimensions flattened, on the CPU.

        ConfigError: there is none of a name; :attr:`activation_names` has them.
        """
        readers = {name: LayerReader(self.module, name) for name in ([names] if isinstance(names, str) else names)}
        found: dict[str, list[Tensor]] = {name: [] for name in readers}
        for x in self._batches(images, batch_size):
            for name, reader in readers.items():
                found[name].append(reader(x)[0].float().cpu())
        return {name: torch.cat(parts) for name, parts in found.items()}

    def _of_all(self, images: Any, batch_size: int, name: str) -> Tensor:
        parts = []
        for x in self._batches(images, batch_size):
            outputs = self._outputs(x)
            if name not in outputs:
                raise ConfigError(f"{type(self.module).__name__} gives no {name}; it gives {' and '.join(outputs)}")
            parts.append(outputs[name].float().cpu())
        return torch.cat(parts)

    def _batches(self, images: Any, size: int) -> Iterator[Tensor]:
        """Normalised inputs on the parameters' device, to be computed with while this waits."""
        with torch.no_grad(), evaluating(self.module):
            prepared = self.preprocessing
            for batch in _parts(images, size):
                if all(isinstance(image, str | Path) for _, image in batch):  # several files at a time
                    x = prepared.normalize(prepared.files([str(image) for _, image in batch]).decode())
                else:
                    x = torch.cat([prepared.inputs(image, f"image {number}") for number, image in batch])
                first = next(self.module.parameters(), self.mean)
                yield x.to(first.device, first.dtype)


def _parts(images: Any, size: int) -> Iterator[list[tuple[int, Any]]]:
    """Images with their numbers, some at a time."""
    if size < 1:
        raise ConfigError(f"batch_size is {size}, but it must be at least 1")
    if isinstance(images, Tensor) and images.dim() == 4:
        yield from ([(start, images[start : start + size])] for start in range(0, len(images), size))
        count = len(images)
    else:
        one = isinstance(images, str | Path | Tensor) or hasattr(images, "getexif")
        listed = [images] if one else list(images)
        yield from (list(enumerate(listed))[start : start + size] for start in range(0, len(listed), size))
        count = len(listed)
    if not count:
        raise ConfigError("there are no images; give one, or a sequence of them")


def _asked(path: Path, run: Path | None, trust: bool) -> Preprocessing:
    """What a run's data module says of the inputs, where its checkpoint does not."""
    lacks = f"{path} does not say what the model's inputs and classes are"
    if run is None:
        raise CheckpointError(f"{lacks}; give from_run(..., preprocessing=...), or name the run that it is of")
    try:
        data: LightningDataModule = data_of(run, trust)
    except RepshapeError as error:
        raise CheckpointError(f"{lacks}, and its data cannot be asked: {error}") from error
    found = data.preprocessing() if hasattr(data, "preprocessing") else None
    if not isinstance(found, Preprocessing):
        raise CheckpointError(f"{lacks}, nor does {type(data).__name__}; give from_run(..., preprocessing=...)")
    return found


def _load(module: nn.Module, weights: Mapping[str, Tensor], where: Path) -> None:
    check_weights(module, {"state_dict": weights}, where)
    module.load_state_dict(weights, strict=getattr(module, "strict_loading", True))


def needed(name: str, package: str) -> Any:
    """A module of an optional package; ConfigError: it is not installed."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"this needs the package {package}: pip install {package}") from error
