"""The dimension analysis as part of analyze, a callback and a plain call."""

import pytest
import torch
from analysis_data import QUIET, Images, Plain, digits, module
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from lightning_repshape.analyses import FeatureInputs, RepresentationDimension
from lightning_repshape.data import DigitsDataModule
from lightning_repshape.errors import ConfigError
from lightning_repshape.features.passes import Features
from lightning_repshape.functional import lidar, twonn_dimension


def test_figures_of_a_plane() -> None:
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 3
    points = torch.rand(600, 2, generator=source) + 4 * labels[:, None]
    features = points @ torch.randn(2, 10, generator=source)
    inputs = FeatureInputs({"train": Features(features, labels, None)})
    outcome = RepresentationDimension(max_samples=500).run(inputs)
    assert outcome.result is not None, outcome.failure
    found = outcome.result.scalars
    assert 1.5 < found["twonn"] < 2.4 and 1.5 < found["mle"] < 2.4 and found["participation_ratio"] < 2.01
    assert "decay" not in found and any("three eigenvalues" in note for note in outcome.result.notes)
    assert any("500 of 600" in note for note in outcome.result.notes)
    whole = RepresentationDimension().run(inputs).result
    assert whole is not None and whole.scalars["twonn"] == float(twonn_dimension(features))
    assert outcome.result.figures[""]().axes


def test_the_figure_shows_no_rounding() -> None:
    source = torch.Generator().manual_seed(0)
    plane = torch.randn(200, 2, generator=source) @ torch.randn(2, 6, generator=source)
    part = Features(plane, torch.arange(200) % 2, None)
    figure = RepresentationDimension().compute(FeatureInputs({"train": part})).figures[""]()
    assert len(figure.axes[0].lines[0].get_xdata()) == 2


def test_features_that_never_change_are_told() -> None:
    for width in (3, 30):
        inputs = FeatureInputs({"train": Features(torch.ones(20, width), torch.arange(20) % 2, None)})
        assert "never change" in RepresentationDimension().run(inputs).failure


def test_lidar_of_the_data_modules_own_augmentation() -> None:
    data = DigitsDataModule(train_size=200, augment="shift", crop_padding=1)
    model = module(digits())
    analysis = RepresentationDimension(views=3, view_samples=50)
    Trainer(callbacks=[analysis], **QUIET).test(model, datamodule=data, verbose=False)
    assert analysis.outcome is not None and analysis.outcome.result is not None, analysis.outcome
    from lightning_repshape.seeding import generator, global_seed

    rows = torch.randperm(200, generator=generator("rows", "batches", global_seed()))[:50]
    views = []
    model.eval()
    for epoch in range(3):
        batches = data.batches("train", epoch=epoch, shuffle=False)
        with torch.no_grad():
            views.append(torch.cat([model(x).features for x, _ in batches])[rows])
    wanted = float(lidar(torch.stack(views, dim=1)))
    assert analysis.outcome.result.scalars["lidar"] == pytest.approx(wanted, rel=1e-4)


def test_lidar_of_random_transforms_and_without_any() -> None:
    class Again(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __init__(self, noise: float) -> None:
            self.data, self.noise = Images(), noise
            self.data.setup("fit")

        def __len__(self) -> int:
            return 64

        def __getitem__(self, at: int) -> tuple[torch.Tensor, torch.Tensor]:
            x, y = self.data.train[at]
            return x + self.noise * torch.randn(3, 8, 8), y

    for noise in (0.3, 0.0):
        data = Images()
        data.train_dataloader = lambda noise=noise: DataLoader(Again(noise), batch_size=16, shuffle=True)
        analysis = RepresentationDimension(layer="stem", views=3)
        Trainer(callbacks=[analysis], **QUIET).test(Plain(), datamodule=data, verbose=False)
        assert analysis.outcome is not None and analysis.outcome.result is not None, analysis.outcome
        assert ("lidar" in analysis.outcome.result.scalars) == (noise > 0)
        assert any("no augmented views" in note for note in analysis.outcome.result.notes) == (noise == 0)
    for wrong in ({"views": 1}, {"view_samples": 1}):
        with pytest.raises(ConfigError, match="views"):
            RepresentationDimension(**wrong)
