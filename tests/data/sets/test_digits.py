"""scikit-learn's digits."""

import numpy as np
import torch

from lightning_repshape.data import (
    DigitsDataModule,
)


def test_digits_are_split_once_and_for_all() -> None:
    module = DigitsDataModule()
    assert (module.num_classes, module.input_shape) == (10, (1, 8, 8))
    module.setup()
    labels = {split: module.labels(split) for split in ("train", "val", "test")}
    assert {split: len(values) for split, values in labels.items()} == {"train": 1197, "val": 300, "test": 300}
    for values in labels.values():
        assert torch.bincount(values).max() - torch.bincount(values).min() <= 0.05 * len(values)
    names = [module.sample_name(split, i) for split in ("train", "val", "test") for i in range(len(labels[split]))]
    assert sorted(names) == [f"digits/{row:05d}" for row in range(1797)]
    assert names[-1] == "digits/01793"  # a change here would change every published figure
    everything = torch.cat([module.images(split) for split in ("train", "val", "test")])
    from sklearn.datasets import load_digits

    order = torch.tensor([int(name[-5:]) for name in names])
    sixteenths = (everything.double() * 16 / 255).round().flatten(1)
    assert np.array_equal(sixteenths.numpy(), load_digits().data[order])
    assert abs(everything.double().mean() / 255 - module.mean[0]) < 1e-3
    assert abs((everything.double() / 255).std() - module.std[0]) < 1e-3
    other = DigitsDataModule(split_seed=1, val_size=100)
    assert torch.equal(other.images("test"), module.images("test"))
    assert len(other.labels("train")) == 1397 and not torch.equal(other.images("val"), module.images("val")[:100])
