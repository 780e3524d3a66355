"""Rows: the shipped tables as data, the calls of ``fit`` that they stand for, and files of studies that are wrong."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_repshape import data as data_room
from lightning_repshape.cli import main
from lightning_repshape.cli.training import check_fit
from lightning_repshape.data import ImageDataModule, ImageFolderSet, LFWPairs, SplitData, YTFPairs
from lightning_repshape.data.further import TestImages
from lightning_repshape.errors import ConfigError
from lightning_repshape.runs.files import read_json
from lightning_repshape.studies.reading import (
    Published,
    Row,
    Study,
    Variant,
    as_word,
    digest,
    filtered,
    find_row,
    find_studies,
    read_studies,
    row_words,
    shipped,
    take_row,
)

# Columns times methods of every table and figure of the papers that has numbers.
STUDIES = {
    "aaai19/table-7": (5, 10),
    "aaai19/table-8": (7, 10),
    "aaai19/table-9": (8, 10),
    "aaai19/table-4": (2, 5),
    "aaai19/table-5": (1, 7),
    "aaai19/table-10": (1, 5),
    "feed-backward/table-1": (20, 2),
    "feed-backward/figure-6": (1, 2),
    "feed-backward/table-2": (6, 2),
    "iclr21/table-1": (12, 2),
    "iclr21/table-2": (12, 2),
    "iclr21/table-3": (12, 2),
    "iclr21/table-4": (4, 4),
    "iclr21/spearman": (4, 2),
    "iclr21/table-5": (3, 4),
    "iclr21/table-6": (4, 4),
    "iclr21/table-7": (12, 2),
    "iclr21/table-8": (12, 2),
    "iclr21/table-9": (12, 2),
    "icml19/figure-2": (3, 5),
    "icml19/figure-3": (3, 5),
    "icml19/table-1": (3, 5),
}
# How many of a table's cells have a number, a range or words in the paper.
PUBLISHED = {
    "aaai19/table-7": 35,
    "aaai19/table-8": 49,
    "aaai19/table-9": 56,
    "aaai19/table-4": 10,
    "aaai19/table-5": 49,
    "aaai19/table-10": 5,
    "feed-backward/table-1": 80,
    "feed-backward/figure-6": 4,
    "feed-backward/table-2": 48,
    "iclr21/table-1": 24,
    "iclr21/table-2": 24,
    "iclr21/table-3": 24,
    "iclr21/table-4": 16,
    "iclr21/spearman": 8,
    "iclr21/table-5": 12,
    "iclr21/table-6": 48,
    "iclr21/table-7": 20,
    "iclr21/table-8": 20,
    "iclr21/table-9": 20,
    "icml19/figure-2": 6,
    "icml19/figure-3": 24,
    "icml19/table-1": 10,
}


def all_rows() -> list[Row]:
    return [row for study in shipped() for row in study.rows]


def options(words: list[str]) -> dict[str, Any]:
    """The overrides among the words of a row."""
    pairs = zip(words[::2], words[1::2], strict=True)
    return {name.removeprefix("--"): yaml.safe_load(value) for name, value in pairs if name != "--config"}


# -- the shipped rows ------------------------------------------------------------------------------------------------


def test_every_table_of_the_papers_is_there() -> None:
    found = {study.id: (len(study.columns), len(study.methods)) for study in shipped()}
    assert found == STUDIES
    for study in shipped():
        assert len(study.rows) == len(study.columns) * len(study.methods), study.id
        assert sum(len(row.published) for row in study.rows) == PUBLISHED[study.id], study.id
        assert study.paper and study.source and study.notes and study.title != study.id and study.data, study.id
        for row in study.rows:
            assert row.data, row.id
            assert set(row.published) <= set(study.figures), row.id
    ids = [row.id for row in all_rows()]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("row", "figure", "value"),
    [
        ("aaai19/table-7/default/cw_vr", "error", Published(2.42, 0.06)),
        ("aaai19/table-7/width-8/vr", "error", Published(9.22, 0.28)),
        ("aaai19/table-8/rmsprop/cw_vr", "error", Published(26.19, 1.35)),
        ("aaai19/table-9/classes-4/baseline", "error", Published(24.95, 2.36)),
        ("aaai19/table-4/resnet32/cw_vr", "error", Published(7.17)),
        ("aaai19/table-4/resnet110/cw_vr", "error", Published(6.18, 0.15)),
        ("aaai19/table-5/default/cw_vr", "normalised_cw_variance", Published(0.74)),
        ("aaai19/table-10/default/baseline", "mse", Published(0.0144, 0.000336)),
        ("icml19/figure-2/cifar10/foca", "error_10", Published(14.45)),
        ("icml19/figure-2/cifar100/foca", "error_100", Published(46.03)),
        ("icml19/figure-3/cifar100/noisy", "layer_2", Published(range=(3, 9))),
        ("icml19/table-1/cifar10/foca", "eigenvalue", Published(247.28)),
        ("iclr21/table-1/stl10-preact-resnet18/fixed", "accuracy", Published(79.7)),
        ("iclr21/table-2/tiny-imagenet-mobilenet-v2/non_fixed", "accuracy", Published(13.2)),
        ("iclr21/table-3/cifar10-resnet18/non_fixed", "accuracy", Published(93.0)),
        ("iclr21/table-4/stl10/s40", "cosine", Published(0.21)),
        ("iclr21/table-4/stl10/fixed_s1", "cosine", Published(text="about 0.95")),
        ("iclr21/spearman/stl10/non_fixed_cosine", "spearman", Published(0.85)),
        ("iclr21/table-5/cifar10/dot_fixed", "cifar101", Published(12.9)),  # 100 - 87.1
        ("iclr21/table-6/tiny-imagenet/cosine_non_fixed", "defocus_blur", Published(87.6)),  # 100 - 12.4
        ("iclr21/table-7/cifar100-lr-1e-1/non_fixed", "accuracy", Published(text="did not converge")),
        ("iclr21/table-9/stl10-lr-1e-4/non_fixed", "accuracy", Published(73.9)),
        ("feed-backward/table-1/highway-c100/lre", "error", Published(35.64)),
        ("feed-backward/table-1/densenet40-c100_plus/lre", "e_w", Published(1.42)),
        ("feed-backward/table-2/facenet/lre", "ytf", Published(7.87)),
        ("feed-backward/table-2/center_loss/softmax", "e_w_ytf", Published(13.42)),
    ],
)
def test_published_values(row: str, figure: str, value: Published) -> None:
    assert find_row(row).published[figure] == value


def test_what_the_paper_does_not_report_is_empty() -> None:
    assert not find_row("iclr21/table-8/cifar100-lr-1e-4/fixed").published
    assert not find_row("aaai19/table-7/default/l1r").published
    assert not find_row("icml19/figure-2/mnist/foca").published
    assert set(find_row("icml19/figure-3/cifar10/plain").published) == {"layer_1", "layer_2", "layer_3"}


def test_a_method_may_differ_by_column() -> None:
    names = {
        column: [path.stem for path in find_row(f"icml19/table-1/{column}/foca").configs]
        for column in ("cifar10", "cifar100", "mnist")
    }
    assert [found[-1] for found in names.values()] == ["foca-cifar10", "foca-u8", "foca"]
    assert find_row("icml19/figure-2/cifar100/dropout").configs[-1].stem == "dropout-512"
    assert find_row("aaai19/table-4/resnet32/vr").seeds == (0, 1)
    assert find_row("aaai19/table-4/resnet110/vr").seeds == (0, 1, 2, 3, 4)


def test_every_row_is_a_valid_call_of_fit() -> None:
    """Parsed are so many that every base meets each kind of fragment and option that it meets in some row.

    Fragments that set the same options of the same classes are of one kind. All methods meet all scenarios in
    tests/configs/test_configs.py.
    """
    kinds: dict[Path, Any] = {}

    def kind(value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return tuple(kind(own, f"{path}.{key}") for key, own in value.items())
        if isinstance(value, list):
            return path, tuple(kind(own, "") for own in value)
        return path, value if path.endswith("class_path") else type(value).__name__

    def parts(words: list[str]) -> set[Any]:
        paths = [Path(word) for name, word in zip(words[::2], words[1::2], strict=True) if name == "--config"]
        for path in paths:
            if path not in kinds:
                kinds[path] = kind(yaml.safe_load(path.read_text()), "")
        met = {(paths[0], kinds[path]) for path in paths[1:]}
        for option, value in options(words).items():
            met.add((None if option.startswith("trainer.") else paths[0], kind(value, option)))
        return met

    calls: dict[str, list[str]] = {}
    found: dict[str, set[Any]] = {}
    for row in all_rows():
        value = row.select.values[0] if row.select is not None else None
        words = row_words(row, Variant(row.seeds[0], value, epochs=0.5, retrain=row.retrain is not None))
        assert words[-2:] == ["--seed_everything", str(row.seeds[0])], row.id
        calls[row.id], found[row.id] = words, parts(words)
    seen: set[Any] = set()
    chosen = []
    for row_id in sorted(found, key=lambda name: -len(found[name])):
        if not found[row_id] <= seen:
            seen |= found[row_id]
            chosen.append(row_id)
    assert len(chosen) > 60
    check_fit({row_id: calls[row_id] for row_id in chosen})


def test_a_row_with_an_option_that_does_not_exist() -> None:
    words = row_words(find_row("aaai19/table-7/default/cw_vr"), Variant())
    with pytest.raises(ConfigError, match="first"):
        check_fit({"first": [*words, "--model.init_args.regularizer.weight", "1"]})


# -- the figures are keys that runs write ----------------------------------------------------------------------------

SMALL = [
    *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.enable_progress_bar", "false"),
    *("--trainer.enable_model_summary", "false", "--data.eval_batch_size", "50"),
]
RESNET18 = ["--model.backbone.width", "8"]
FOCANET = ["--model.backbone.widths", "[8, 8, 8]", "--model.backbone.depth", "1"]
RUN: dict[str, list[str]] = {
    "aaai19/table-5/default/cw_vr": [],
    "aaai19/table-8/width-32/vr": [],  # and trained on the validation images, too
    "aaai19/table-10/default/cw_vr": [],
    "icml19/figure-2/cifar10/foca": [*FOCANET, "--data.batch_size", "20"],
    "icml19/figure-3/cifar10/plain": FOCANET,
    "icml19/table-1/mnist/foca": ["--model.backbone.width", "16", "--data.batch_size", "20"],
    "iclr21/table-4/cifar10/s20": RESNET18,
    "iclr21/table-5/cifar10/cosine_fixed": RESNET18,
    "iclr21/table-5/cifar100/dot_fixed": RESNET18,
    "iclr21/table-6/cifar10/cosine_non_fixed": RESNET18,
    "iclr21/spearman/cifar10/non_fixed_dot": RESNET18,
    "iclr21/table-1/stl10-resnet18/fixed": RESNET18,
    "feed-backward/table-1/resnet32-c10/softmax": [],
    "feed-backward/figure-6/default/with_lre": [],
}
ELSEWHERE = {"test/generalization/gen/clean/error", "test/generalization/cifar10.1-v6/clean/error"}


@pytest.fixture
def _small_random_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Few random images in place of the sets, and figures that cost nothing."""
    monkeypatch.chdir(tmp_path)

    def images(self: Any, count: int, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(0)).to(torch.uint8)

    def load(self: ImageDataModule, split: str) -> SplitData:
        channels, height, width = self.input_shape
        count = (6 if split == "train" else 2) * len(self._set.class_names)
        return SplitData(
            images(self, count, (height, width, channels)), torch.arange(count) % len(self._set.class_names)
        )

    def opened(self: Any, class_names: tuple[str, ...], input_shape: tuple[int, int, int]) -> TestImages:
        channels, height, width = input_shape
        return TestImages(torch.arange(20) % len(class_names), images(self, 20, (height, width, channels)))

    for name in data_room.__all__:
        module = getattr(data_room, name)
        if isinstance(module, type) and issubclass(module, ImageDataModule) and "_load" in vars(module):
            monkeypatch.setattr(module, "_load", load)
    for module in (data_room.CIFAR101, ImageFolderSet):
        monkeypatch.setattr(module, "prepare", lambda self: None)
        monkeypatch.setattr(module, "open", opened)
    monkeypatch.setattr("lightning_repshape.plots.kit.save_figure", lambda figure, path, vector=True: Path(path))
    yield


def study_of(row: str) -> Study:
    return next(study for study in shipped() if row.startswith(f"{study.id}/"))


@pytest.mark.usefixtures("_small_random_sets")
@pytest.mark.parametrize("name", RUN)
def test_figures_are_what_a_run_writes(name: str) -> None:
    row = find_row(name)
    words = row_words(row, Variant(retrain=row.retrain is not None))
    if row.retrain is None and not any(path.stem == "merged-validation" for path in row.configs):
        words += ["--data.val_size", "0.2"]
    assert main(["fit", *words, *SMALL, *RUN[name], "--run_dir", "run"]) == 0

    def plain(key: str) -> str:  # the number of training images is in the key
        return re.sub(r"error_\d+$", "error_N", key)

    written = {plain(key) for key in read_json(Path("run") / "metrics.json")}
    wanted = {plain(figure.metric) for figure in study_of(name).figures.values()}
    assert wanted & written
    assert wanted - written <= ELSEWHERE  # figures of other columns
    if row.select is not None and row.retrain is None:
        assert row.select.metric in written


def test_every_figure_of_a_study_is_run_above() -> None:
    studies = {study_of(name).id for name in RUN}
    metrics = {figure.metric for study in shipped() if study.id in studies for figure in study.figures.values()}
    faces = {figure.metric for figure in find_studies("feed-backward/table-2")[0].figures.values()}
    left = {figure.metric for study in shipped() for figure in study.figures.values()} - metrics
    assert left == faces - metrics
    # those are in tests/data/test_faces.py; what they are called depends on the names of the pairs
    assert {key for key in faces if "/verification_error" in key} == {
        f"test/{pairs('somewhere').name}/verification_error" for pairs in (LFWPairs, YTFPairs)
    }


# -- files of studies of one's own -----------------------------------------------------------------------------------

OWN: dict[str, Any] = {
    "format": 1,
    "data": "digits",
    "configs": ["base/digits-mlp"],
    "figures": {"error": {"metric": "test/error", "scale": 100, "unit": "%"}},
    "seeds": 2,
    "select": {"option": "model.init_args.regularizers.init_args.weight", "values": [0.01, 1]},
    "baseline": "baseline",
    "columns": {"default": {}, "small": {"overrides": {"data.init_args.train_size": 200}}},
    "methods": {"baseline": {"select": False}, "cw_vr": {"configs": ["method/cw-vr"]}},
    "published": {"source": "table 1", "cells": ["default", "small"], "values": {"cw_vr": [1, [2, 0.5]]}},
}


def own(folder: Path, **changes: Any) -> Path:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in {**OWN, **changes}.items() if value != "absent"}))
    return file


def test_a_file_with_one_study(tmp_path: Path) -> None:
    (study,) = read_studies(own(tmp_path))
    assert study.id == "mine" and study.data == "digits" and study.baseline == "baseline"
    assert [row.id for row in study.rows] == [
        *("mine/default/baseline", "mine/default/cw_vr", "mine/small/baseline", "mine/small/cw_vr"),
    ]
    row = study.row("small", "cw_vr")
    assert row is not None and row.select is not None and study.row("small", "cr") is None
    assert row.seeds == (0, 1) and row.select.values == ("0.01", "1") and row.select.metric == "val/error"
    assert row.published["error"].show() == "2.00 ± 0.50"
    assert study.rows[0].select is None
    assert find_row(f"{study.file}:small/cw_vr") == find_row(f"{study.file}:cw_vr".replace(":", ":small/")) == row
    check_fit({row.id: row_words(row, Variant(value="1", epochs=0.5))})


def test_a_file_with_several_studies(tmp_path: Path) -> None:
    one = {key: value for key, value in OWN.items() if key != "format"}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"format": 1, "paper": "P", "studies": {"a": one, "b": one}}))
    assert [study.id for study in find_studies(str(file))] == ["mine/a", "mine/b"]
    assert find_row(f"{file}:b/default/cw_vr").id == "mine/b/default/cw_vr"
    with pytest.raises(ConfigError, match=r"has no row 'b/default/cw_rv'.*b/default/cw_vr"):
        find_row(f"{file}:b/default/cw_rv")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "has format 2; this version reads 'format: 1'"),
        ({"format": "absent"}, "has format None"),
        ({"method": {}}, "there is no key 'method'.*methods"),
        ({"methods": {}}, "'methods' must be a mapping with at least one entry"),
        ({"methods": {"baseline": {"config": []}}}, "method baseline: there is no key 'config'.*configs"),
        ({"methods": {"baseline": None, "a/b": None}}, "method 'a/b' names folders: letters"),
        ({"methods": {"..": None}}, "method '..' names folders"),
        ({"baseline": ["vr"]}, r"baseline \['vr'\] is none of the methods"),
        ({"trainings": {}}, r"no study {} stands before"),
        ({"overrides": []}, "overrides must map options"),
        ({"overrides": {"--trainer.max_epochs": 1}}, "'--trainer.max_epochs' is no option of fit"),
        ({"overrides": {"then_test": False}}, "then_test is the study's own affair"),
        ({"seeds": 0}, "seeds is 0; at least one"),
        ({"format": True}, "has format True"),
        ({"select": {"option": "a", "values": [1, 1.0]}}, "names one twice"),
        ({"columns": {"default": {"train_size": 5}}}, "column default: there is no key 'train_size'"),
        ({"figures": {"error": {"scale": 100}}}, "figure error: 'metric' must be a key"),
        ({"figures": {"error": {"metric": "test/error", "scale": 0}}}, "scale is 0"),
        ({"figures": {"error": {"metric": "test/error", "better": "less"}}}, "better is 'less'"),
        ({"figures": {"error": {"metric": "test/error", "digits": 1.5}}}, "digits is 1.5"),
        ({"figures": {"error": {"metric": "test/error", "over": "vr"}}}, "over 'vr' is none of the methods"),
        ({"seeds": [0, 1, 0]}, "names a seed twice"),
        ({"seeds": []}, "must be a list of integers"),
        ({"seeds": [-1]}, "integers of at least 0"),
        ({"seeds": True}, "must be a list of integers"),
        ({"baseline": "base"}, "baseline 'base' is none of the methods.*baseline"),
        ({"configs": ["base/digit-mlp"]}, "base/digits-mlp"),
        ({"overrides": ["trainer.max_epochs"]}, "overrides must map options"),
        ({"select": {"option": "weight", "values": []}}, "select needs 'option'"),
        ({"select": {"option": "weight", "values": [1], "best": "higher"}}, "select: there is no key 'best'"),
        ({"select": {"option": "weight", "values": [1], "better": "more"}}, "better is 'more'"),
        ({"retrain": {"config": []}}, "retrain: there is no key 'config'.*configs"),
        ({"retrain": "scenario/merged-validation"}, "is no mapping"),
        ({"methods": {"baseline": {"columns": {"smal": {}}}}}, "method baseline: there is no column 'smal'.*small"),
        ({"methods": {"baseline": {"columns": {"small": {"title": "x"}}}}}, "column small: there is no key 'title'"),
        ({"published": {"cells": ["defalt"], "values": {}}}, "cell 'defalt' is no column and figure"),
        ({"published": {"cells": ["default"], "values": {"cw_rv": [1]}}}, "'cw_rv' is none of the methods.*cw_vr"),
        ({"published": {"cells": ["default"], "values": {"cw_vr": [1, 2]}}}, "cw_vr has 2 values for 1 cells"),
        ({"published": {"cells": ["default"], "values": {"cw_vr": [[1, 2, 3]]}}}, "is no number"),
        ({"published": {"cells": ["default"], "values": {"cw_vr": [{"range": [1, "b"]}]}}}, "is no number"),
        ({"published": {"cells": ["default"], "values": {"cw_vr": [True]}}}, "is no number"),
        ({"studies": {"a": {}}}, "stands? beside 'studies'"),
    ],
)
def test_a_wrong_file_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        find_studies(str(own(tmp_path, **changes)))
    assert "mine.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format: 1\nstudies: {a: [", "cannot be read as YAML"),
        ("- format: 1", "holds no mapping"),
        ("", "holds no mapping"),
        ("format: 1\nstudies: []", "'studies' must map names to studies"),
        ("format: 1\nstudies: {a: 5}", "5 is no mapping"),
    ],
)
def test_a_damaged_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_studies(file)
    assert str(file) in str(caught.value)


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match=r"no row 'aaai19/.*/cw_rv'.*aaai19/table-7/default/cw_vr"):
        find_row("aaai19/table-7/default/cw_rv")
    with pytest.raises(ConfigError, match=r"there is no study 'aaai19/table7'.*aaai19/table-7"):
        find_studies("aaai19/table7")
    with pytest.raises(ConfigError, match=r"there is no file of studies nowhere\.yaml"):
        find_studies("nowhere.yaml")
    with pytest.raises(ConfigError, match=r"there is no file of studies nowhere\.yaml"):
        find_row("nowhere.yaml:default/cw_vr")
    assert len(find_studies("aaai19")) == 6
    assert [study.id for study in find_studies("icml19/table-1")] == ["icml19/table-1"]


def test_filters() -> None:
    rows = all_rows()
    assert filtered(rows, []) == rows
    assert len(filtered(rows, ["cw_vr+mnist"])) == 7  # table 7's five columns, table 5, table 10
    assert {row.study for row in filtered(rows, ["aaai19/table-7"])} == {"aaai19/table-7"}
    assert {row.method for row in filtered(rows, ["CIFAR-10+foca", "table-4+vr"])} == {"foca", "vr"}
    assert {row.column for row in filtered(rows, ["table-2+cifar10+mobilenet-v2"])} == {"cifar10-mobilenet-v2"}
    assert filtered(rows, ["table-77"]) == []


# -- budgets and the command line ------------------------------------------------------------------------------------


def test_a_budget_scales_epochs_milestones_and_images() -> None:
    row = find_row("feed-backward/table-1/resnet32-c10/softmax")
    found = options(row_words(row, Variant(epochs=0.1)))
    assert found["trainer.max_epochs"] == 30
    assert found["model.init_args.lr_scheduler.init_args.milestones"] == [10, 20, 25]
    found = options(row_words(row, Variant(epochs=0.001, train_size=900)))
    assert found["trainer.max_epochs"] == 1 and found["data.init_args.train_size"] == 900
    annealed = options(row_words(find_row("iclr21/table-1/cifar10-resnet18/fixed"), Variant(epochs=0.25)))
    assert annealed["trainer.max_epochs"] == annealed["model.init_args.lr_scheduler.init_args.T_max"] == 50
    whole = options(row_words(row, Variant()))
    assert not {"trainer.max_epochs", "data.init_args.train_size"} & set(whole)


def test_a_budget_leaves_a_validation_to_choose_by() -> None:
    row = find_row("aaai19/table-7/data-1k/cw_vr")
    assert options(row_words(row, Variant(epochs=0.5)))["trainer.check_val_every_n_epoch"] == 5
    assert options(row_words(row, Variant(epochs=0.004)))["trainer.check_val_every_n_epoch"] == 2


def test_a_budget_never_enlarges_the_training_set() -> None:
    row = find_row("aaai19/table-7/data-1k/cw_vr")
    assert "data.init_args.train_size" not in options(row_words(row, Variant(train_size=2000)))
    assert options(row_words(row, Variant(train_size=500)))["data.init_args.train_size"] == 500
    assert options(row_words(row, Variant(epochs=0.5)))["trainer.max_epochs"] == 250


def test_a_budget_of_steps_and_none_at_all(tmp_path: Path) -> None:
    file = own(tmp_path, overrides={"trainer.max_steps": 100, "trainer.max_epochs": -1})
    found = options(row_words(read_studies(file)[0].rows[0], Variant(epochs=0.25)))
    assert found["trainer.max_steps"] == 25 and found["trainer.max_epochs"] == -1
    (study,) = read_studies(own(tmp_path, configs=["method/cw-vr"]))
    with pytest.raises(ConfigError, match=r"baseline sets neither trainer.max_epochs nor trainer.max_steps"):
        row_words(study.rows[0], Variant(epochs=0.5))


@pytest.mark.parametrize("epochs", [0.0, -0.5, 1.5, float("nan")])
def test_a_budget_is_a_fraction(epochs: float) -> None:
    with pytest.raises(ConfigError, match=r"it must be a fraction of the epochs in \(0, 1\]"):
        Variant(epochs=epochs)
    with pytest.raises(ConfigError, match="at least one is needed"):
        Variant(train_size=0)


def test_values_and_retraining() -> None:
    row = find_row("aaai19/table-8/width-32/cw_vr")
    words = row_words(row, Variant(seed=3, value="10", retrain=True))
    configs = [Path(word).stem for name, word in zip(words[::2], words[1::2], strict=True) if name == "--config"]
    assert configs == ["cifar10-cnn", "width-32", "cw-vr", "merged-validation"]
    assert options(words)["model.init_args.regularizers.init_args.weight"] == 10
    assert options(words)["seed_everything"] == 3
    assert "merged-validation" not in " ".join(row_words(row, Variant(value="10")))
    with pytest.raises(ConfigError, match="chooses nothing by validation"):
        row_words(find_row("aaai19/table-8/width-32/baseline"), Variant(value="10"))


@pytest.mark.parametrize("value", [None, True, 1, 100, 0.001, 1e-7, 0.1 + 0.2, [42], {"a": 1}, "cosine"])
def test_words_are_read_as_the_same_value(value: Any) -> None:
    assert yaml.safe_load(as_word(value)) == value or float(as_word(value)) == value


@pytest.mark.parametrize("words", [["--row", "{}"], ["--row={}"]])
def test_taking_a_row_from_the_command_line(words: list[str]) -> None:
    name = "aaai19/table-8/width-32/cw_vr"
    row = find_row(name)
    given = [word.format(name) for word in words]
    taken, about = take_row([*given, "--row.value", "0.1", "--row.budget=0.5", "--row.retrain", "true"])
    assert taken == row_words(row, Variant(0, "0.1", 0.5, None, True))
    variant = {"seed": 0, "value": "0.1", "epochs": 0.5, "train_size": None, "retrain": True}
    assert about == {"row": name, **variant, "digest": digest(row, Variant(0, "0.1", 0.5, None, True))}
    others = [digest(row, Variant(0, "1", 0.5, None, True)), digest(row, Variant(0, "0.1", 0.5))]
    assert about["digest"] not in others and digest(row, Variant(1, "0.1", 0.5)) == others[1], "the seed plays no part"


def test_words_before_and_behind_a_row_stay_there() -> None:
    before, behind = ["--config", "mine.yaml"], ["--data.root", "data", "--seed_everything", "7"]
    taken, about = take_row([*before, "--row", "aaai19/table-7/default/vr", *behind, "--row.train_size", "100"])
    assert taken[:2] == before and taken[-4:] == behind
    assert taken[2:-4] == row_words(find_row("aaai19/table-7/default/vr"), Variant(seed=7, train_size=100))
    assert about["seed"] == 7 and about["train_size"] == 100
    assert take_row(behind) == (behind, {})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--row", "aaai19/table-7/default/cw_rv"], "aaai19/table-7/default/cw_vr"),
        (["--row"], "--row needs a value behind it"),
        (
            ["--row", "aaai19/table-7/default/vr", "--row.budgets", "1"],
            "no option '--row.budgets'.*--row.budget",
        ),
        (["--row.budget", "0.5"], "name the row with --row ID"),
        (["--row", "aaai19/table-7/default/vr", "--row.budget", "much"], "--row.budget is 'much', which is no float"),
        (["--row", "aaai19/table-7/default/vr", "--row.budget", "0"], "it must be a fraction"),
        (["--row", "aaai19/table-7/default/vr", "--row.train_size", "1.5"], "'1.5', which is no int"),
        (["--row", "aaai19/table-7/default/vr", "--row.retrain", "yes"], "it must be true or false"),
        (["--row", "aaai19/table-7/default/vr", "--row.value", "0.02"], "no value '0.02' to choose from.*0.01"),
        (["--row", "aaai19/table-7/default/baseline", "--row.value", "1"], "chooses nothing by validation"),
    ],
)
def test_wrong_words_on_a_row(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        take_row(words)
