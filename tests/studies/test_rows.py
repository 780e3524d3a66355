"""The shipped tables of the papers as data."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from study_runs import all_rows

from lightning_repshape import data as data_room
from lightning_repshape.cli import main
from lightning_repshape.data import ImageDataModule, ImageFolderSet, LFWPairs, SplitData, YTFPairs
from lightning_repshape.data.further import TestImages
from lightning_repshape.runs.files import read_json
from lightning_repshape.studies.calls import row_words
from lightning_repshape.studies.reading import find_row, find_studies, shipped
from lightning_repshape.studies.rows import Published, Study, Variant

# Columns times methods of every table and figure of the papers that has numbers.
STUDIES = {
    "aaai19/table-7": (5, 10),
    "aaai19/table-8": (7, 10),
    "aaai19/table-9": (8, 10),
    "aaai19/table-4": (2, 5),
    "aaai19/table-5": (1, 7),
    "aaai19/table-10": (1, 5),
    "feed-backward/table-1": (21, 2),
    "feed-backward/figure-6": (1, 2),
    "feed-backward/table-2": (6, 2),
    "iclr21/table-1": (12, 2),
    "iclr21/table-2": (13, 2),
    "iclr21/fixed-heads": (13, 7),
    "iclr21/table-3": (12, 2),
    "iclr21/table-4": (4, 5),
    "iclr21/spearman": (4, 2),
    "iclr21/table-5": (3, 4),
    "iclr21/table-6": (4, 4),
    "iclr21/table-7": (12, 2),
    "iclr21/table-8": (12, 2),
    "iclr21/table-9": (12, 2),
    "icml19/figure-2": (4, 5),
    "icml19/figure-3": (4, 5),
    "icml19/table-1": (4, 5),
    "icml19/recipe": (1, 13),
    "icml19/long": (2, 8),
    "icml19/pof": (1, 2),
    "gpu/retrained-heads": (1, 2),
    "gpu/class-vectors": (1, 2),
    "gpu/cw-vr": (1, 2),
    "gpu/feed-backward": (1, 2),
    "quickstart/digits": (1, 4),
    "beside/digits": (1, 15),
    "beside/mnist": (1, 15),
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
    "iclr21/fixed-heads": 0,
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
    "icml19/recipe": 0,
    "icml19/pof": 0,
    "icml19/long": 0,
    "gpu/retrained-heads": 0,
    "gpu/class-vectors": 0,
    "gpu/cw-vr": 0,
    "gpu/feed-backward": 0,
    "quickstart/digits": 0,
    "beside/digits": 0,
    "beside/mnist": 0,
}


def test_every_table_of_the_papers_is_there() -> None:
    found = {study.id: (len(study.columns), len(study.methods)) for study in shipped()}
    assert found == STUDIES
    for study in shipped():
        assert len(study.rows) == len(study.columns) * len(study.methods), study.id
        assert sum(len(row.published) for row in study.rows) == PUBLISHED[study.id], study.id
        assert study.source or not PUBLISHED[study.id], study.id
        assert study.paper and study.notes and study.title != study.id and study.data, study.id
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


SMALL = [
    *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.enable_progress_bar", "false"),
    *("--trainer.enable_model_summary", "false", "--data.eval_batch_size", "50"),
]
RESNET18 = ["--model.backbone.width", "8"]
QUICK = ["--model.backbone.widths", "[4, 4, 12]"]
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
    "feed-backward/figure-6/default/with_lre": [],
    "iclr21/fixed-heads/quick/etf": QUICK,
    "feed-backward/table-1/quick-c10_plus/lre": QUICK,
    "gpu/retrained-heads/default/foca": [*FOCANET, "--data.batch_size", "20"],
    "gpu/class-vectors/default/non_fixed": RESNET18,
    "gpu/cw-vr/default/cw_vr": [],
    "gpu/feed-backward/default/lre": [],
    "quickstart/digits/default/foca": ["--data.batch_size", "20", "--trainer.check_val_every_n_epoch", "1"],
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
        count = (6 if split == "train" else 2) * len(self.described.class_names)
        return SplitData(
            images(self, count, (height, width, channels)), torch.arange(count) % len(self.described.class_names)
        )

    def opened(self: Any, class_names: tuple[str, ...], input_shape: tuple[int, int, int]) -> TestImages:
        channels, height, width = input_shape
        return TestImages(torch.arange(20) % len(class_names), images(self, 20, (height, width, channels)))

    for name in data_room.__all__:
        module = getattr(data_room, name)
        if isinstance(module, type) and issubclass(module, ImageDataModule) and "load_split" in vars(module):
            monkeypatch.setattr(module, "load_split", load)
    for module in (data_room.CIFAR101, ImageFolderSet):
        monkeypatch.setattr(module, "prepare", lambda self: None)
        monkeypatch.setattr(module, "open", opened)
    monkeypatch.setattr("lightning_repshape.plots.save_figure", lambda figure, path, vector=True: Path(path))
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
    sizes = {f"test/partial_retraining/error_{size}" for size in (5000, 45000)}  # by the same callback as error_1000
    assert left == (faces - metrics) | sizes
    # those are in tests/modules/test_verification.py; what they are called depends on the names of the pairs
    assert {key for key in faces if "/verification_error" in key} == {
        f"test/{pairs('somewhere').name}/verification_error" for pairs in (LFWPairs, YTFPairs)
    }
