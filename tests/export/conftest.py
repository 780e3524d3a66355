import csv
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from cli_runs import QUIET
from published_formats import write_folder

from lightning_repshape.cli import main


@pytest.fixture(autouse=True)
def _in_tmp(in_tmp: Path) -> None:
    """Every test works in its own folder."""


class Trained(NamedTuple):
    run: Path
    photos: Path
    rows: dict[str, list[str]]  # what predict says of the test images, by their names


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    place = tmp_path_factory.mktemp("trained")
    write_folder(place / "data")
    words = ["--model", "RegularizedModule", "--model.backbone", "MLP", "--model.backbone.widths", "[8]"]
    words += ["--model.regularizers+", "{class_path: ClasswiseVariance, init_args: {weight: 0.01, layer: fc1}}"]
    words += ["--data", "ImageFolderDataModule", "--data.root", str(place / "data"), "--data.image_size", "[12,10]"]
    words += ["--data.fit", "crop", "--run_dir", str(place / "run"), "--trainer.max_epochs", "1", "--then_test", "true"]
    assert main(["fit", *words, *QUIET]) == 0
    assert main(["predict", "--run_dir", str(place / "run"), "--top", "2", *QUIET]) == 0
    shutil.move(place / "data" / "test", place / "photos")
    shutil.rmtree(place / "data")
    with (place / "run" / "predictions.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["image", "predicted_class", "probability", "predicted_class_2", "probability_2", "true_class"]
    by_name = {str(Path(row[0]).relative_to(place / "data" / "test")): row[1:-1] for row in rows}
    return Trained(place / "run", place / "photos", by_name)


@pytest.fixture
def trained(_trained: Trained, tmp_path: Path) -> Trained:
    """A run whose data are gone, and what were its test images."""
    return _trained._replace(run=shutil.copytree(_trained.run, tmp_path / "run"))
