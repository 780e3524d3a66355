"""A model as files: safetensors with a config and a card, ONNX, ``torch.export``; each held against the original."""

import json
import logging
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_repshape._version import __version__
from lightning_repshape.errors import CheckpointError, ConfigError, RepshapeError, did_you_mean
from lightning_repshape.export.card import Check, model_card
from lightning_repshape.export.model import EXPORT_CONFIG, WEIGHTS, RepshapeModel, needed
from lightning_repshape.export.rebuilding import data_of
from lightning_repshape.layers import evaluating
from lightning_repshape.runs.files import write_json
from lightning_repshape.runs.folders import make_folder

CARD = "README.md"
FILES = {"safetensors": WEIGHTS, "onnx": "model.onnx", "torch": "model.pt2"}
INPUT = "pixels"
_OURS = (EXPORT_CONFIG, CARD, *FILES.values(), "model.onnx.data")
_TOLERANCE = 1e-3  # of a Check's differences
_NO_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='(\w+)\.(\w+)', overload='(\w+)'\)>")


def export_model(
    model: RepshapeModel,
    folder: str | Path,
    formats: Sequence[str] = ("safetensors",),
    samples: int = 64,
    trust: bool = False,
) -> list[Check]:
    """Writes a model to a folder, with ``config.json`` and a model card, ``README.md``: all of it, or nothing.

    - ``safetensors``: the weights; :meth:`RepshapeModel.from_run` reads the folder.
    - ``onnx`` and ``torch`` (a program of ``torch.export``): from pixels float32 N x C x H x W in [0, 1], any N, to
      probabilities and features; normalisation is inside, the classes' names are metadata.

    Args:
        model: The model, on any device; the programs are of the CPU.
        folder: Where to. Files of an earlier export there are replaced, or removed where their format is not asked for.
        formats: Which of the three.
        samples: Images on which each is held against the original: test images of the run where they are there.
        trust: See :meth:`RepshapeModel.from_run`.

    Returns:
        What the comparisons gave, in the order of the formats.

    Raises:
        ConfigError: There is no such format, a package is missing, the folder holds other things, or ONNX lacks
            operators of the network, which are named.
        CheckpointError: An exported model differs from the original.
    """
    for name in formats:
        if name not in FILES:
            raise ConfigError(f"there is no format {name!r}{did_you_mean(name, FILES)}")
    if not formats or samples < 2:
        raise ConfigError("an export needs a format, and two samples at least to be checked on")
    target = Path(folder)
    if target.is_dir() and any(target.iterdir()) and not (target / EXPORT_CONFIG).is_file():
        raise ConfigError(f"{target} holds other things than an export; choose another folder with --to")
    model = model.cpu()
    pixels, of = _samples(model, samples, trust)
    with torch.no_grad(), evaluating(model):
        outputs = model.output_names
        makers: dict[str, Callable[[RepshapeModel, Path, Any], Callable[[Tensor], Sequence[Tensor]]]] = {
            "safetensors": _safetensors,
            "onnx": _onnx,
            "torch": _torch,
        }
        make_folder(target.parent)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target.parent, ignore_cleanup_errors=True) as made:
            place = Path(made)
            config = _config(model, list(outputs))
            write_json(place / EXPORT_CONFIG, config)  # what the weights are read by
            program = _program(model, pixels) if {"onnx", "torch"} & set(formats) else None
            checks = []
            for name in dict.fromkeys(formats):
                run = makers[name](model, place / FILES[name], program)
                checks.append(_checked(name, target / FILES[name], run, model, pixels, of))
                shutil.copymode(place / EXPORT_CONFIG, place / FILES[name])  # some writers keep others from reading
            found = {check.format: {"samples": samples, "of": of, **check.differences} for check in checks}
            write_json(place / EXPORT_CONFIG, {**config, "largest_differences": found})
            (place / CARD).write_text(model_card(model, checks, list(FILES[name] for name in formats)), "utf-8")
            make_folder(target)
            for name in _OURS:
                if (place / name).exists():
                    shutil.move(place / name, target / name)
                else:
                    (target / name).unlink(missing_ok=True)
    return checks


def _samples(model: RepshapeModel, count: int, trust: bool) -> tuple[Tensor, str]:
    """Pixels N x C x H x W in [0, 1], and what they are."""
    run = model.origin.run
    shape = model.preprocessing.input_shape
    if run is not None:
        try:
            data: Any = data_of(run, trust)
            images = data.images("test", torch.arange(min(count, len(data.labels("test")))))
            pixels = images.permute(0, 3, 1, 2).float() / 255
            if len(pixels) > 1 and tuple(pixels.shape[1:]) == shape:
                return pixels.contiguous(), "test images"
        except (RepshapeError, OSError, AttributeError):  # gone, or of another kind
            pass
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, shape[0], 4, 4, generator=generator)
    pixels = torch.nn.functional.interpolate(coarse, size=shape[1:], mode="bilinear", align_corners=False)
    return pixels, "generated images"


def _config(model: RepshapeModel, outputs: list[str]) -> dict[str, Any]:
    origin = model.origin
    return {
        "format": 1,
        "library": f"lightning-repshape {__version__}",
        "model": {"class_path": origin.class_path, "init_args": dict(origin.options or {})},
        "preprocessing": model.preprocessing.plain(),
        "outputs": outputs,
        "epoch": origin.epoch,
        "step": origin.step,
    }


def _metadata(model: RepshapeModel) -> dict[str, str]:
    shape = " x ".join(map(str, model.preprocessing.input_shape))
    return {
        "class_names": json.dumps(list(model.class_names), ensure_ascii=False),
        "input": f"{INPUT}: float32 N x {shape} in [0, 1]; normalisation is inside",
        "library": f"lightning-repshape {__version__}",
    }


def _safetensors(model: RepshapeModel, path: Path, program: Any) -> Callable[[Tensor], Sequence[Tensor]]:
    save_file = needed("safetensors.torch", "safetensors").save_file
    weights = {name: value.detach().clone().contiguous() for name, value in model.module.state_dict().items()}
    save_file(weights, path, metadata={"format": "pt", **_metadata(model)})
    known = None if model.origin.class_path else model.module  # else only its weights can be read again
    return RepshapeModel.from_run(path.parent, module=known, trust=True)


def _program(model: RepshapeModel, pixels: Tensor) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(model, (pixels[:2],), dynamic_shapes=({0: torch.export.Dim("N")},))
    except Exception as error:  # whatever stands in somebody's network
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ConfigError(
            f"torch.export cannot follow {type(model.module).__name__} ({lines[0][:300] if lines else error!r}); "
            "export --format safetensors"
        ) from error


def _torch(model: RepshapeModel, path: Path, program: Any) -> Callable[[Tensor], Sequence[Tensor]]:
    torch.export.save(program, path, extra_files={f"{name}.txt": text for name, text in _metadata(model).items()})
    return torch.export.load(path).module()


def _onnx(model: RepshapeModel, path: Path, program: Any) -> Callable[[Tensor], Sequence[Tensor]]:
    *_, onnxruntime = (needed(name, "onnx onnxscript onnxruntime") for name in ("onnx", "onnxscript", "onnxruntime"))
    try:
        with _quiet():
            exported: Any = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=[INPUT], output_names=list(model.output_names)
            )
    except Exception as error:
        lacking = _lacking(program, error)
        if not lacking:
            raise
        raise ConfigError(
            f"ONNX lacks operators of {type(model.module).__name__}: {', '.join(lacking)}; nothing was written. Export "
            "--format safetensors,torch"
        ) from error
    exported.model.metadata_props.update(_metadata(model))
    exported.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda pixels: [torch.as_tensor(value) for value in session.run(None, {INPUT: pixels.numpy()})]


def _lacking(program: Any, error: BaseException | None) -> list[str]:
    """The operators that ONNX lacks: it stops at the first, so each gets a stand-in until it stops at none."""
    found: list[str] = []
    stand_ins: dict[Any, Callable[..., Any]] = {}
    while error is not None and len(found) < 50:
        chain, current = "", error
        while current is not None:
            chain, current = f"{chain}\n{current}", current.__cause__  # type: ignore[assignment]
        named = _NO_OPERATOR.search(chain)
        if named is None or ".".join(named.groups()) in found:
            break
        namespace, name, overload = named.groups()
        found.append(".".join(named.groups()))
        stand_ins[getattr(getattr(getattr(torch.ops, namespace), name), overload)] = _stand_in
        try:
            with _quiet():
                torch.onnx.export(
                    program, dynamo=True, verbose=False, optimize=False, custom_translation_table=stand_ins
                )
            error = None
        except Exception as further:
            error = further
    return [name.removesuffix(".default") for name in found]


def _stand_in(*values: Any, **options: Any) -> Any:
    first = next(value for value in values if hasattr(value, "dtype"))
    return (needed("onnxscript", "onnxscript").opset18.Identity(first),) * 5  # no operator has more results


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on its own inside."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def _checked(
    name: str,
    path: Path,
    run: Callable[[Tensor], Sequence[Tensor]],
    model: RepshapeModel,
    pixels: Tensor,
    of: str,
) -> Check:
    """Compares on all samples at once and on the first alone, so that the number of images is known to be free."""
    differences = dict.fromkeys(model.output_names, 0.0)
    for some in (pixels, pixels[:1]):
        for output, expected, found in zip(differences, model(some), run(some), strict=True):
            scale = max(1.0, float(expected.abs().max()))
            difference = float((found.double() - expected.double()).abs().max()) / scale
            differences[output] = max(differences[output], difference)
            if not difference <= _TOLERANCE:
                raise CheckpointError(
                    f"the {name} model differs from the original by {difference:.3g} in its {output} on {of}; nothing "
                    "was written"
                )
    return Check(name, path, len(pixels), of, {key: float(f"{value:.3g}") for key, value in differences.items()})
