"""A network, and the data it was trained on, built again from what a run, a checkpoint or an export says of them."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser

# imported so that class paths of this package are found among their kind
from lightning_repshape.errors import CheckpointError, ConfigError, RepshapeError
from lightning_repshape.modules.foca.renamed import current_options
from lightning_repshape.runs.folders import CONFIG, where_started
from lightning_repshape.runs.trust import names_in, strangers

Made = TypeVar("Made")


def rebuilt(
    class_path: str, options: Mapping[str, Any], where: Path, run: Path | None = None, trust: bool = False
) -> LightningModule:
    """The module of a class path and its options, with the weights that it begins with.

    Args:
        class_path: Of the module.
        options: Plain data, as a checkpoint's hyper-parameters have them.
        where: Where they were read, for messages.
        run: The run that it is of; with ``trust``, what its config names may be imported, and without one, anything.
        trust: Whether code of other packages than this one, PyTorch and Lightning is imported.

    Raises:
        ConfigError: It names such code, and nobody trusts it.
        CheckpointError: It cannot be built.
    """
    if class_path.rpartition(".")[2] == "FOCAModule":
        options = current_options(options)
    _check_names([class_path, options], where, _named(run) if trust else [], trust and run is None)
    with torch.random.fork_rng(devices=[]):  # weights are drawn, and then replaced
        return _made(LightningModule, class_path, _offline(options), where)


def data_of(run: Path, trust: bool = False) -> LightningDataModule:
    """The data module of a run's config, its folders looked for where the run was started, too.

    ConfigError or CheckpointError as for :func:`rebuilt`; DataError: the data are not there.
    """
    content = _config(run).get("data")
    if not isinstance(content, Mapping) or not isinstance(content.get("class_path"), str):
        raise CheckpointError(f"{run / CONFIG} names no data")
    options = dict(content.get("init_args") or {})
    options |= where_started(options, run)
    _check_names([content["class_path"], options], run / CONFIG, [], trust)
    return _made(LightningDataModule, content["class_path"], options, run / CONFIG)


def _check_names(content: Any, where: Path, named: Sequence[str], any_name: bool) -> None:
    unknown = [] if any_name else strangers(names_in(content, [Path()]), named)
    if unknown:
        raise ConfigError(
            f"{where} names {', '.join(unknown)}: no classes of this package, PyTorch or Lightning, and their code "
            "would run. Give --trust (in Python trust=True) if it is yours, or of somebody whose code you would run"
        )


def _named(run: Path | None) -> list[str]:
    return [] if run is None else names_in(_config(run), [run])


def _config(run: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{run / CONFIG} cannot be read ({str(error).splitlines()[0]})") from error
    return content if isinstance(content, dict) else {}


def _offline(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by which a pretrained network is built without its weights, a download or a file.

    The two of torchvision whose inputs go with the weights keep them.
    """
    backbone = options.get("backbone")
    given = backbone.get("init_args") if isinstance(backbone, Mapping) else None
    name = str(backbone.get("class_path")).rpartition(".")[2] if isinstance(backbone, Mapping) else ""
    if name not in ("TimmBackbone", "TorchvisionBackbone") or not isinstance(given, Mapping):
        return dict(options)
    if given.get("weights") is None:
        return dict(options)
    if given.get("name") in ("googlenet", "inception_v3"):
        return dict(options)
    replaced: dict[str, str | None] = {"weights": None}
    if name == "TorchvisionBackbone" and given.get("stem", "auto") == "auto":
        replaced["stem"] = "keep"  # as it is with weights
    return {**options, "backbone": {**backbone, "init_args": {**given, **replaced}}}  # type: ignore[dict-item]


def _made(kind: type[Made], class_path: str, options: Mapping[str, Any], where: Path) -> Made:
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(kind, "made", fail_untyped=False)
    try:
        config = parser.parse_object({"made": {"class_path": class_path, "dict_kwargs": copy.deepcopy(dict(options))}})
        made: Made = parser.instantiate_classes(config).made
    except Exception as error:  # the parser wraps what constructors raise
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, RepshapeError):
                raise cause from error
            cause = cause.__cause__
        lines = [line.strip(" -") for line in str(error).splitlines() if line.strip(" -")]
        lines = [line for line in lines if not line.startswith(("Given value", "Got value", "Expected a <class 'None"))]
        raise CheckpointError(
            f"{where}: {class_path.rpartition('.')[2]} cannot be built with the options that it has there "
            f"({lines[-1][:300] if lines else type(error).__name__})"
        ) from error
    return made
