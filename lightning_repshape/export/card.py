"""The model card that lies beside exported weights: what it is, how good, how it came about, what not to expect."""

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_repshape._version import __version__
from lightning_repshape.export.model import RepshapeModel
from lightning_repshape.runs.files import read_json
from lightning_repshape.runs.folders import MANIFEST, METRICS

_NAMED = 30  # classes that are listed


@dataclass(frozen=True)
class Check:
    """How far an exported model is from the original.

    Attributes:
        format: ``"safetensors"``, ``"onnx"`` or ``"torch"``.
        path: The file.
        samples: How many images they were compared on.
        of: Which these are: ``"test images"``, or ``"generated images"`` where the data are not at hand.
        differences: The largest difference of each output by its name; where the output is larger than 1 somewhere,
            as a share of its largest value.
    """

    format: str
    path: Path
    samples: int
    of: str
    differences: dict[str, float]


def model_card(model: RepshapeModel, checks: Sequence[Check], files: Sequence[str]) -> str:
    """A page of Markdown, with the front matter that model hubs read."""
    inputs, origin = model.preprocessing, model.origin
    module, backbone = type(model.module), getattr(model.module, "backbone", None)
    manifest = read_json(origin.run / MANIFEST) if origin.run else {}
    network = f" with {type(backbone).__name__}" if backbone is not None else ""
    data = inputs.data or "images"
    title = f"{module.__name__}{network} on {data}"
    parameters = sum(value.numel() for value in model.module.parameters())
    names = inputs.class_names
    listed = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    shape = " x ".join(map(str, inputs.input_shape))
    lines = [
        "---",
        "license: apache-2.0",
        "library_name: lightning-repshape",
        *(["pipeline_tag: image-classification"] if "probabilities" in model.output_names else []),
        "tags: [pytorch, lightning, representation-learning]",
        "---",
        f"# {title}",
        "",
        _first_line(module),
        "",
        "| | |",
        "|---|---|",
        f"| method | {module.__name__}{_penalties(origin.options)} |",
        f"| network | {type(model.module if backbone is None else backbone).__name__}, {parameters:,} parameters |",
        f"| data | {data}: images {shape} (channels, rows, columns), {len(names)} classes |",
        f"| classes | {listed} |",
        f"| outputs | {', '.join(model.output_names)} |",
        "",
        "## Figures",
        "",
        *_figures(model, manifest),
        "## How to load it",
        "",
        *_loading(files, inputs.input_shape),
        "## How it was trained",
        "",
        *_training(model, manifest),
        "## Checked",
        "",
        "Largest difference from the original:",
        "",
        "| format | images | " + " | ".join(model.output_names) + " |",
        "|---|---|" + "---:|" * len(model.output_names),
        *(
            f"| {check.format} | {check.samples} {check.of} | "
            + " | ".join(f"{value:.3g}" for value in check.differences.values())
            + " |"
            for check in checks
        ),
        "",
        "## Limits",
        "",
        *_limits(model),
        f"Images of other sizes are brought to {' x '.join(map(str, inputs.input_shape[1:]))} pixels ({inputs.fit}); "
        "details are lost. Figures are of the test set above; other images may be harder.",
        "",
        f"The code is licensed under Apache-2.0 (lightning-repshape {__version__}). What the licence of {data} says of "
        "models trained on it is not known here.",
        "",
    ]
    return "\n".join(lines)


def _limits(model: RepshapeModel) -> list[str]:
    if getattr(model.module, "verifies_pairs", False):
        return ["Images are compared by the cosine of their features; the classes are those of the training.", ""]
    if "probabilities" not in model.output_names:
        return []
    return [
        f"It knows its {len(model.class_names)} classes and nothing else: an image of anything else gets one of them, "
        "often with a high probability. Probabilities are the softmax of its logits, and nothing was done to calibrate "
        "them.",
        "",
    ]


def _first_line(module: type) -> str:
    return (inspect.getdoc(module) or module.__name__).split("\n")[0]


def _penalties(options: Mapping[str, Any] | None) -> str:
    listed = (options or {}).get("regularizers") or []
    names = []
    for entry in listed if isinstance(listed, list | tuple) else [listed]:
        if isinstance(entry, Mapping) and "class_path" in entry:
            given = entry.get("init_args") or {}
            told = ", ".join(f"{name} {given[name]}" for name in ("weight", "layer") if name in given)
            names.append(str(entry["class_path"]).rpartition(".")[2] + (f" ({told})" if told else ""))
    return f"; penalties: {', '.join(names)}" if names else ""


def _figures(model: RepshapeModel, manifest: Mapping[str, Any]) -> list[str]:
    run, path = model.origin.run, model.origin.path
    found: Mapping[str, Any] = {}
    for session in manifest.get("sessions") or []:  # of these weights, the latest
        same = path is not None and str(session.get("checkpoint")).endswith(f"/{path.name}")
        found = session["figures"] if session.get("stage") == "test" and same and session.get("figures") else found
    if run is not None and path is not None and path.name == "best.ckpt" and not found:
        found = read_json(run / METRICS)
    figures = {key.removeprefix("test/"): value for key, value in found.items() if key.startswith("test/")}
    if not figures:
        return ["None: it was not tested.", ""]
    fractions = getattr(model.module, "fractions", ())
    rows = []
    for key, value in figures.items():
        if key.count("/") == 0 and isinstance(value, int | float):
            text = f"{100 * value:.2f} %" if key in fractions else f"{value:.4g}"
            rows.append(f"| {key.replace('_', ' ')} | {text} |")
    return ["| test | |", "|---|---:|", *rows, "", f"Budget: {_budget(model, manifest)}.", ""]


def _budget(model: RepshapeModel, manifest: Mapping[str, Any]) -> str:
    origin = model.origin
    epochs = f"{origin.epoch + 1} epochs" if isinstance(origin.epoch, int) else "an unknown number of epochs"
    steps = f", {origin.step:,} steps" if isinstance(origin.step, int) else ""
    fits = [session for session in manifest.get("sessions") or [] if session.get("stage") == "fit"]
    seconds = sum(session.get("wall_seconds") or 0 for session in fits)
    machine = manifest.get("machine") or {}
    where = machine.get("accelerator") if machine.get("accelerator") not in (None, "cpu") else machine.get("cpu")
    time = f"; the whole training took {seconds:,.0f} s on {where or 'an unknown machine'}" if seconds else ""
    return f"{epochs}{steps} until these weights{time}; one training, seed {manifest.get('seed', 'unknown')}"


def _training(model: RepshapeModel, manifest: Mapping[str, Any]) -> list[str]:
    fits = [session for session in manifest.get("sessions") or [] if session.get("stage") == "fit"]
    commands = list(dict.fromkeys(session["command"] for session in fits if session.get("command")))
    options = {key: value for key, value in (model.origin.options or {}).items() if value not in (None, [], {})}
    versions = ", ".join(f"{name} {version}" for name, version in (manifest.get("versions") or {}).items())
    return [
        *(["```bash", *commands, "```", ""] if commands else []),
        *([f"With {versions}.", ""] if versions else []),
        *(["<details><summary>Options of the module</summary>", ""] if options else []),
        *(["```json", json.dumps(options, indent=1, default=str), "```", "", "</details>", ""] if options else []),
        *(["Nothing is known of its training.", ""] if not commands and not options else []),
    ]


def _loading(files: Sequence[str], shape: Sequence[int]) -> list[str]:
    size = ", ".join(map(str, shape))
    blocks = {
        "model.safetensors": [
            "from lightning_repshape import RepshapeModel",
            "",
            'model = RepshapeModel.from_run("this-folder")  # runs no code of it',
            'classes, probabilities = model.predict(["photo.jpg"])  # images of any size',
        ],
        "model.onnx": [
            "import numpy as np",
            "import onnxruntime",
            "",
            'session = onnxruntime.InferenceSession("model.onnx")',
            f"pixels = np.zeros((1, {size}), np.float32)  # in [0, 1]; normalisation is inside",
            'probabilities = session.run(["probabilities"], {"pixels": pixels})[0]',
            'class_names = session.get_modelmeta().custom_metadata_map["class_names"]  # JSON',
        ],
        "model.pt2": [
            "import torch",
            "",
            'names = {"class_names.txt": ""}  # is filled: JSON',
            "# PyTorch unpickles parts of this file: load it from sources that you trust",
            'program = torch.export.load("model.pt2", extra_files=names).module()',
            f"probabilities, features = program(torch.zeros(1, {size}))  # pixels in [0, 1]",
        ],
    }
    return [line for name in files for line in ("```python", *blocks[name], "```", "")]
