"""STL-10's files."""

from pathlib import Path

import numpy as np
import pytest
import torchvision
from published_formats import write_stl10

from lightning_repshape.data import (
    STL10DataModule,
)
from lightning_repshape.errors import ConfigError, DataError


def test_stl10_turns_columns_into_rows_and_takes_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_stl10(tmp_path / "stl10_binary", monkeypatch)
    module = STL10DataModule(root=str(tmp_path), val_size=0)
    theirs = torchvision.datasets.STL10(tmp_path, split="train")
    assert np.array_equal(module.images("train").permute(0, 3, 1, 2), theirs.data)
    assert module.labels("train").tolist() == theirs.labels.tolist()
    fold = STL10DataModule(root=str(tmp_path), fold=3, val_size=0)
    assert np.array_equal(fold.images("train"), images[[3, 13]].transpose(0, 3, 2, 1))
    assert fold.labels("train").tolist() == [3, 3] and fold.sample_name("train", 1) == "train/00013"
    assert len(fold.labels("test")) == 10
    with pytest.raises(ConfigError, match="folds 0 to 9"):
        STL10DataModule(root=str(tmp_path), fold=10)
    (tmp_path / "stl10_binary" / "fold_indices.txt").write_text("0 99\n")
    with pytest.raises(DataError, match=r"fold 0 of .*fold_indices.txt"):
        STL10DataModule(root=str(tmp_path), fold=0).setup("fit")
