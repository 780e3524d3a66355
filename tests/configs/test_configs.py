"""Every shipped config, found by glob, parses and runs through the real command line."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from lightning_repshape import data as data_room
from lightning_repshape import networks
from lightning_repshape.cli import main
from lightning_repshape.cli.training import parser_of
from lightning_repshape.configs_library import find, names
from lightning_repshape.data import ImageDataModule, SplitData

ALONE = [name for name in names() if "/" not in name and name != "faces-att"]  # that one: modules/test_verification.py
BASES = [name for name in names() if name.startswith("base/")]
METHODS = [name for name in names() if name.startswith(("method/", "recommended/"))]
SCENARIOS = [name for name in names() if name.startswith("scenario/")]
SMALL = [
    *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
]
ONE_BATCH = ["--trainer.limit_train_batches", "1"]

# Networks that would take minutes as they are.
SLIM = {
    "ResNet18": ["--model.backbone.width", "8"],
    "PreActResNet18": ["--model.backbone.width", "8"],
    "MobileNetV2": ["--model.backbone.width_multiplier", "0.25"],
    "WideResNet": ["--model.backbone.width", "1"],
    "Highway": ["--model.backbone.width", "16"],
}
# The tables of the class-wise regularizers' paper: rows, and columns of which each config holds those that compose.
PENALTIES = ("vr", "cw-vr", "cr", "cw-cr")
ROWS = (*PENALTIES, "l1w", "l2w", "l1r", "backbone-dropout", "backbone-batch-norm")
TABLES: dict[str, tuple[tuple[str, ...], ...]] = {
    "mnist-mlp": (("data-1k", "width-2"), ("data-5k", "width-8"), ("width-2-last",), ("width-8-last",)),
    "cifar10-cnn": (
        ("data-1k", "width-32", "momentum"),
        ("data-5k", "width-512", "rmsprop", "merged-validation"),
    ),
    "cifar100-cnn": (("data-1k", "width-32"), ("data-5k", "width-512", "classes-64"), ("classes-4",), ("classes-16",)),
}


@pytest.fixture(autouse=True)
def _small_random_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few random images in place of every set that has to be downloaded."""
    monkeypatch.chdir(tmp_path)

    def load(self: ImageDataModule, split: str) -> SplitData:
        channels, height, width = self.input_shape
        count = (6 if split == "train" else 2) * len(self.described.class_names)
        images = torch.randint(0, 256, (count, height, width, channels), generator=torch.Generator().manual_seed(0))
        return SplitData(images.to(torch.uint8), torch.arange(count) % len(self.described.class_names))

    for name in data_room.__all__:
        module = getattr(data_room, name)
        downloads = isinstance(module, type) and issubclass(module, ImageDataModule)
        if downloads and name not in ("ImageDataModule", "DigitsDataModule", "ImageFolderDataModule"):
            monkeypatch.setattr(module, "load_split", load)


@pytest.fixture(autouse=True)
def _rough_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures without layout: drawing would be most of the time."""

    def save(figure: Any, path: Path, vector: bool = True) -> Path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.set_layout_engine("none")
        figure.savefig(path, dpi=20)
        return Path(path)

    monkeypatch.setattr("lightning_repshape.plots.save_figure", save)


@pytest.fixture(scope="module")
def parser() -> LightningArgumentParser:
    return parser_of("fit")


def content(name: str) -> dict[str, Any]:
    return yaml.safe_load(find(name).read_text())


def words(*configs: str) -> list[str]:
    found = [word for name in configs for word in ("--config", name)]
    uses = {content(name).get("data", {}).get("class_path") for name in configs} - {None}
    # The published validation sets are larger than these, and so are some networks.
    if uses == {"DigitsDataModule"}:
        return found
    return [*found, "--data.val_size", "0.2", "--data.eval_batch_size", "10"]


def parse(parser: LightningArgumentParser, *configs: str) -> Namespace:
    """The options of ``fit`` with these configs, which all of them must still be visible in."""
    found = [word for name in configs for word in ("--config", str(find(name)))]
    parsed: Namespace = parser.parse_args(["fit", *found]).fit
    return parsed


def check_holds(parsed: Any, wanted: Any, where: str) -> None:
    """Compares a fragment with what was parsed: class names by their ends, all else as it is."""
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            check_holds(parsed[key], value, f"{where}.{key}")
    elif isinstance(wanted, list):
        assert len(parsed) == len(wanted), where
        for number, value in enumerate(wanted):
            check_holds(parsed[number], value, f"{where}[{number}]")
    elif where.endswith("class_path"):
        assert str(parsed).rpartition(".")[2] == wanted.rpartition(".")[2], where
    else:
        assert parsed == wanted, where


def module_of(name: str) -> str:
    return str(content(name).get("model", {}).get("class_path", ""))


def compose(base: str, method: str) -> bool:
    """Whether a method can stand on a base: an autoencoder's on an autoencoder, backbone options on such a backbone."""
    if (module_of(base) == "AutoencoderModule") != (module_of(method) == "AutoencoderModule"):
        return not content(method).get("model")
    backbone = content(base).get("model", {}).get("init_args", {}).get("backbone", {}).get("class_path", "")
    changed = content(method).get("model", {}).get("init_args", {}).get("backbone", {})
    if not backbone or "class_path" in changed:
        return True
    own = set(inspect.signature(getattr(networks, backbone)).parameters)
    return set(changed.get("init_args", {})) <= own | {"neck"}


def base_for(method: str) -> str:
    """A base that a method runs on: one that its file name ends in, else the smallest that it can stand on."""
    named = [base for base in BASES if method.endswith(base.removeprefix("base/"))]
    order = [*named, "base/digits-mlp", "base/mnist-mlp", *BASES]
    return next(base for base in order if compose(base, method))


def options_of(method: str) -> str:
    """The names of all options that a method sets: methods that set the same ones need not all be run."""

    def keys(value: Any, prefix: str) -> list[str]:
        if not isinstance(value, dict):
            return [prefix]
        return [path for key, inner in value.items() for path in keys(inner, f"{prefix}.{key}")]

    return ",".join(sorted([module_of(method), *keys(content(method), "")]))


def first_of_each(methods: list[str]) -> list[str]:
    return list({options_of(method): method for method in reversed(methods)}.values())[::-1]


def test_there_are_configs() -> None:
    assert "quickstart" in ALONE
    assert BASES
    assert METHODS
    for name in names():
        assert len(find(name).read_text().splitlines()[0]) >= 20, name
    for table, columns in TABLES.items():
        assert f"base/{table}" in BASES
        assert {f"scenario/{name}" for column in columns for name in column} <= set(SCENARIOS)
    assert {f"method/{row}" for row in ROWS} <= set(METHODS)


@pytest.mark.proof
@pytest.mark.parametrize("name", ALONE)
def test_top_level_configs_run_alone(name: str) -> None:
    assert main(["fit", *words(name), *SMALL]) == 0
    assert Path("runs", name, "checkpoints", "best.ckpt").is_file()
    assert content(name)["then_test"] is True
    assert Path("runs", name, "analysis").is_dir()


@pytest.mark.proof
@pytest.mark.parametrize("method", first_of_each(METHODS))
def test_methods_run_on_a_base(method: str) -> None:
    base = base_for(method)
    start = ["--data.cutout", "2"] if "cutout" in content(method).get("data", {}).get("init_args", {}) else []
    if module_of(method) == "PoFModule":  # which trains on from a training of the base
        assert main(["fit", *words(base), *SMALL, "--run_dir", "start", "--trainer.callbacks", "[]"]) == 0
        start = ["--init_from", "start/checkpoints/last.ckpt"]
    assert main(["fit", *words(base, method), *SMALL, *start]) == 0


@pytest.mark.proof
@pytest.mark.parametrize("base", BASES)
def test_bases_run(base: str) -> None:
    if "timm" in base:
        pytest.importorskip("timm")
    method = next(method for method in METHODS if compose(base, method))
    given = words(base, *([] if "model" in content(base) else [method]))
    backbone = content(base).get("model", {}).get("init_args", {}).get("backbone", {}).get("class_path", "")
    given += SLIM.get(backbone, [])
    assert main(["fit", *given, *([] if "digits" in base else ["--data.batch_size", "4"]), *SMALL, *ONE_BATCH]) == 0


@pytest.mark.parametrize("method", METHODS)
def test_methods_parse_on_bases(method: str, parser: LightningArgumentParser) -> None:
    """Another base for every method, so that every base gets some; on a base of its choice it runs above."""
    fitting = [base for base in BASES if compose(base, method)]
    base = fitting[METHODS.index(method) % len(fitting)]
    check_holds(parse(parser, base, method), content(method), f"{base} + {method}: ")


@pytest.mark.parametrize("table", TABLES)
def test_scenarios_of_the_tables_parse(table: str, parser: LightningArgumentParser) -> None:
    for column in TABLES[table]:
        fragments = [f"scenario/{name}" for name in column]
        parsed = parse(parser, f"base/{table}", *fragments)
        for fragment in fragments:
            check_holds(parsed, content(fragment), f"{table} + {fragment}: ")


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("row", ROWS)
def test_every_row_parses_with_every_scenario(table: str, row: str, parser: LightningArgumentParser) -> None:
    # All columns one after the other: parsing the configs of all costs no more than parsing those of one.
    fragments = [f"scenario/{name}" for column in TABLES[table] for name in column]
    parsed = parse(parser, f"base/{table}", *fragments, f"method/{row}")
    check_holds(parsed, content(f"method/{row}"), f"{table} + {row}: ")
    check_holds(parsed, content(fragments[-1]), f"{table} + {row} + {fragments[-1]}: ")


@pytest.mark.parametrize(
    ("base", "rows"),
    [
        ("mnist-mlp", (*ROWS, *(f"{name}-output" for name in PENALTIES))),
        ("mnist-autoencoder", tuple(f"autoencoder-{name}" for name in PENALTIES)),
        ("cifar10-resnet32-he", ("vr-output",)),
    ],
)
def test_the_layers_of_every_row_exist(base: str, rows: tuple[str, ...], parser: LightningArgumentParser) -> None:
    for row in rows:
        parsed = parser.parse_args(
            ["fit", "--config", str(find(f"base/{base}")), "--config", str(find(f"method/{row}"))]
        )
        module = parser.instantiate(parsed).fit.model
        assert type(module).__name__ == module_of(f"method/{row}")
        assert [term.layer for term in getattr(module, "regularizers", [])] == [
            entry["init_args"]["layer"]
            for entry in content(f"method/{row}")["model"]["init_args"].get("regularizers", [])
        ]


CLASS_VECTORS = [base for base in BASES if base.endswith(("resnet18", "mobilenet-v2"))]


@pytest.mark.parametrize("base", CLASS_VECTORS)
def test_the_tables_of_class_vectors_parse(base: str, parser: LightningArgumentParser) -> None:
    """A third of the scenarios on each base, so that each scenario meets four bases."""
    scenarios = [name for name in SCENARIOS if name.startswith("scenario/class-vectors")]
    methods = [name for name in METHODS if name.startswith("method/class-vectors")]
    assert len(CLASS_VECTORS) == 12 and len(methods) == 9 and len(scenarios) == 9
    for place, scenario in list(enumerate(scenarios))[CLASS_VECTORS.index(base) % 3 :: 3]:
        # scales belong to cosines, and stand behind the method, whose own they replace
        scaled = "-scale-" in scenario
        method = methods[place % (2 if scaled else 9)]
        parsed = parse(parser, base, *((method, scenario) if scaled else (scenario, method)))
        wanted = content(method)
        if scaled:
            wanted["model"]["init_args"].pop("scale", None)
        check_holds(parsed, wanted, f"{base} + {method}: ")
        check_holds(parsed, content(scenario), f"{base} + {method} + {scenario}: ")


def test_a_scenario_runs_with_a_method() -> None:
    configs = ("base/cifar100-cnn", "scenario/classes-4", "scenario/width-32", "scenario/momentum", "method/cw-vr")
    assert main(["fit", *words(*configs), *SMALL]) == 0
    run = Path("runs", "cifar100-cnn+classes-4+width-32+momentum+cw-vr")
    weights = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert weights["head.output.weight"].shape == (4, 32)
