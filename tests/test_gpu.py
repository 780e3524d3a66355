"""What a GPU must give: the CPU's results, in float32 and mixed precisions, compiled, and across a change of device.

``pytest -m gpu`` runs these and the other tests that need one. Every line runs on the CPU, too, for one case.
"""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from small_runs import FIXTURE, RUNS, differences, train
from torch import nn

from lightning_repshape.analyses import (
    FeatureInputs,
    LDAEigenvalues,
    NeuralCollapse,
    PartialDatasetRetraining,
    RepresentationDimension,
)
from lightning_repshape.data import DigitsDataModule
from lightning_repshape.features.passes import Features
from lightning_repshape.modules import ClassVectorModule, FeedBackwardModule, FOCAModule, RegularizedModule
from lightning_repshape.networks import MLP
from lightning_repshape.regularizers import ClasswiseVariance

KNOWN = json.loads(FIXTURE.read_text(encoding="utf-8"))
# Products in other orders; a training carries the last bits on.
TOLERANCE = 10.0
METHODS = ("supervised", "regularized", "foca", "feed-backward", "class-vectors")


def _name(case: Any) -> str:
    return case.__name__ if isinstance(case, type) else "-".join([case] if isinstance(case, str) else case)


def devices(*cases: Any) -> Callable[[Any], Any]:
    """The GPU with every case, the CPU with the first."""
    missing = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
    gpu = [pytest.param("gpu", case, marks=[pytest.mark.gpu, missing], id=f"gpu-{_name(case)}") for case in cases]
    return pytest.mark.parametrize(
        ("device", "case"), [pytest.param("cpu", cases[0], id=f"cpu-{_name(cases[0])}"), *gpu]
    )


@devices(*RUNS)
def test_float32_gives_the_figures_of_the_cpu(device: str, case: str, tmp_path: Path) -> None:
    found = train(case, tmp_path, "--trainer.accelerator", device)
    assert differences(found, KNOWN[case], exact=False, slack=TOLERANCE) == []


@devices(*[(method, precision) for precision in ("bf16-mixed", "16-mixed") for method in METHODS])
def test_mixed_precision_learns_the_same(device: str, case: tuple[str, str], tmp_path: Path) -> None:
    method, precision = case
    found = train(method, tmp_path, "--trainer.accelerator", device, "--trainer.precision", precision)
    figures, wanted = found["figures"], KNOWN[method]["figures"]
    assert figures.keys() == wanted.keys() and all(map(math.isfinite, figures.values()))
    assert figures["test/error"] == pytest.approx(wanted["test/error"], abs=0.05)


@devices(("cpu", "cpu"), ("cpu", "gpu"), ("gpu", "cpu"), ("gpu", "gpu"))
def test_a_run_goes_on_elsewhere(device: str, case: tuple[str, str], tmp_path: Path) -> None:
    first, second = case
    train("foca", tmp_path, "--trainer.accelerator", first, "--trainer.max_epochs", "1", "--then_test", "false")
    last = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    found = train("foca", tmp_path, "--trainer.accelerator", second, "--ckpt_path", last)
    assert differences(found["figures"], KNOWN["foca"]["figures"], exact=False, slack=TOLERANCE) == []


def compiled_and_not(kind: type, device: str, **options: Any) -> list[dict[str, float]]:
    found = []
    for compiled in (False, True):
        seed_everything(0)
        module = kind(10, (1, 8, 8), partial(MLP, widths=[16, 12]), **options)
        data = DigitsDataModule(batch_size=50)
        if compiled:
            module.backbone.compile(backend="eager" if device == "cpu" else "inductor")
        trainer = Trainer(
            accelerator=device,
            devices=1,
            max_steps=20,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, datamodule=data)
        found.append({name: float(value) for name, value in trainer.callback_metrics.items()})
    return found


@devices(RegularizedModule, FeedBackwardModule, ClassVectorModule, FOCAModule)
def test_compiled_networks_learn_the_same(device: str, case: type) -> None:
    torch.compiler.reset()
    options = {"regularizers": [ClasswiseVariance(0.1)]} if case is RegularizedModule else {}
    plain, compiled = compiled_and_not(case, device, **options)
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        assert compiled[name] == pytest.approx(value, rel=0.02, abs=0.02), name
    torch.compiler.reset()


@devices("lda", "collapse", "dimension", "partial_retraining")
def test_analyses_of_features_on_the_device(device: str, case: str) -> None:
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 5
    rows = nn.functional.one_hot(labels, 8).float() + 0.3 * torch.randn(300, 8, generator=source)
    analysis = {
        "lda": LDAEigenvalues(),
        "collapse": NeuralCollapse(),
        "dimension": RepresentationDimension(),
        "partial_retraining": PartialDatasetRetraining(sizes=[20], repeats=[3], hidden=[8], updates=20),
    }[case]
    parts = {"train": Features(rows, labels, None), "test": Features(rows, labels, None)}
    outcomes = [
        analysis.run(FeatureInputs(parts, device=torch.device(place)))
        for place in ("cpu", "cuda" if device == "gpu" else "cpu")
    ]
    assert outcomes[0].result is not None and outcomes[1].result is not None, outcomes[1].failure
    for name, value in outcomes[0].result.scalars.items():
        assert outcomes[1].result.scalars[name] == pytest.approx(value, rel=0.02, abs=0.02), name
